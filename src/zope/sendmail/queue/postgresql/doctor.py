"""What is stuck or strange in a database queue, why, and the cure.  Changes nothing, and waits for no lock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from zope.sendmail.lifecycle.finding import Finding
from zope.sendmail.lifecycle.relaystate import ProcessorState, last_pass
from zope.sendmail.queue.diagnosis import interrupted_move
from zope.sendmail.queue.postgresql import databasefindings
from zope.sendmail.queue.postgresql.database import Connections
from zope.sendmail.queue.postgresql.names import shown
from zope.sendmail.queue.queuefindings import nothing_moves, unattended

#: So many of a kind are counted.
_MANY = 10_000

#: Seconds for which mail may be due while a processor is at work, and after which it is a problem.
_SOON, _LONG = 60.0, 3600.0

#: Seconds for which it may be due where no processor is at work: a pass may just begin.
_A_MOMENT = 5.0


def in_doubt(connections: Connections, queue: int) -> Iterator[Finding]:
    """Return a finding for each mail that was staged for so long that its transaction can hardly live."""
    for mail, since, made_by in connections.execute("in_doubt", queue=queue, limit=_MANY):
        yield databasefindings.in_doubt(shown(mail), since, made_by)


def database(connections: Connections) -> Iterator[Finding]:
    """Return what is strange about the database, whatever queue it has."""
    [(here, known)] = connections.execute("identity")
    if here != known:
        yield databasefindings.is_a_copy()
    [(fsync, commit, names, standbys)] = connections.execute("durability")
    for setting, value in (("fsync", fsync), ("synchronous_commit", commit)):
        if value == "off":
            yield databasefindings.not_durable(setting)
    if standbys and not names:
        yield databasefindings.not_synchronous(standbys)
    for what, seconds in connections.execute("pins"):
        yield databasefindings.pinned(what, seconds)


def unfinished_moves(connections: Connections, queue: int) -> Iterator[Finding]:
    """Return findings about mails that were being moved."""
    for statement, came in (("left_behind", False), ("arriving", True)):
        rows = connections.execute(statement, queue=queue, limit=_MANY)
        if rows:
            yield interrupted_move(len(rows), shown(rows[0][0]), came=came)


def waiting(
    connections: Connections, queue: int, now: float, processors: Sequence[ProcessorState]
) -> Iterator[Finding]:
    """Return a finding if mail is due and does not go."""
    rows = connections.execute("waiting", queue=queue, now=now, limit=_MANY)
    if not rows:
        return
    count, seconds, first = len(rows), now - rows[0][0], shown(rows[0][1])
    if any(each.alive for each in processors):
        if seconds >= _SOON:
            yield nothing_moves(count, seconds, first, long=seconds > _LONG)
    elif seconds >= _A_MOMENT:
        ended = last_pass(processors, now)
        yield unattended(count, seconds, first, None if ended is None else now - ended)
