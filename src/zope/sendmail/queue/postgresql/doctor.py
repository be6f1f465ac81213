"""What is stuck or strange in a database queue, why, and the cure.  Changes nothing, and waits for no lock."""

from __future__ import annotations

from collections.abc import Iterator

from zope.sendmail.lifecycle.finding import Finding
from zope.sendmail.queue.diagnosis import interrupted_move
from zope.sendmail.queue.postgresql import databasefindings
from zope.sendmail.queue.postgresql.database import Connections
from zope.sendmail.queue.postgresql.names import shown
from zope.sendmail.queue.queuefindings import nobody_at_work, nothing_moves

#: So many of a kind are counted.
_MANY = 10_000

#: Seconds for which mail may be due while a processor is at work, and after which it is a problem.
_SOON, _LONG = 60.0, 3600.0

#: The same where no processor is at work: a pass may just begin.
_A_MOMENT, _UNATTENDED = 5.0, 300.0


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


def waiting(connections: Connections, queue: int, now: float, *, drained: bool) -> Iterator[Finding]:
    """Return a finding if mail is due and does not go.

    :param drained: whether a processor is at work, or passes are made.
    """
    rows = connections.execute("waiting", queue=queue, now=now, limit=_MANY)
    if not rows:
        return
    seconds = now - rows[0][0]
    say, soon, long = (nothing_moves, _SOON, _LONG) if drained else (nobody_at_work, _A_MOMENT, _UNATTENDED)
    if seconds >= soon:
        yield say(len(rows), seconds, shown(rows[0][1]), long=seconds > long)
