"""How mail leaves a queue in a database for another queue, and comes to it from one; see
`zope.sendmail.queue.transit`.

What leaves is deleted and leaves a row of ``moved``, in one transaction.  What arrives is a row of ``mail`` that no
statement but those here sees.
"""

from __future__ import annotations

import contextlib
import functools
import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from math import inf
from typing import Any

from psycopg import Connection

from zope.sendmail.errors import MailError, QueueError
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.states import Action, State, after
from zope.sendmail.queue.postgresql.admin import PostgreSQLAdmin
from zope.sendmail.queue.postgresql.database import Connections, run
from zope.sendmail.queue.postgresql.departures import PARTS, is_storable, kept_since, part_of, sent_mail
from zope.sendmail.queue.postgresql.envelopecolumn import read_envelope, write_envelope
from zope.sendmail.queue.postgresql.names import name_for, parse_name, shown
from zope.sendmail.queue.postgresql.rows import ARRIVING, NUMBERS, line_of, record_of
from zope.sendmail.queue.postgresql.staging import copy_bodies, message_id_of
from zope.sendmail.queue.postgresql.statements import STATEMENTS
from zope.sendmail.queue.postgresql.storedbody import open_body
from zope.sendmail.queue.transit import Departure, Group, TakenKey, Trace, Traveller
from zope.sendmail.system.clock import Clock

_UNTRIED = Record()

#: Mails that are locked together, and their octets; of what has arrived so many are read at a time.
_AT_ONCE, _OCTETS, _MANY = 50, 8 * 1024 * 1024, 10_000


class _Locked(Group):
    """Mails whose rows are locked by the transaction of a connection."""

    def __init__(self, connection: Connection[Any]) -> None:
        super().__init__()
        self.connection = connection


class PostgreSQLTransit:
    """See `zope.sendmail.queue.transit.Transit`.

    :param queue: the number of the queue in its database.
    :param announce: tells processors that there is something new.
    """

    def __init__(
        self,
        connections: Connections,
        queue: int,
        admin: PostgreSQLAdmin,
        announce: Callable[[], object],
        clock: Clock,
    ) -> None:
        self._connections = connections
        self._queue = queue
        self._admin = admin
        self._announce = announce
        self._clock = clock
        [(self._database, _)] = connections.execute("identity")
        self.origin = f"{self._database}/{queue}"

    # where mails leave

    def names(self) -> Iterable[str]:
        """See `Transit.names`."""
        return self._admin.names()

    def has(self, name: str) -> bool:
        """See `Transit.has`."""
        return bool(self._connections.execute("has", id=parse_name(name), queue=self._queue))

    @contextlib.contextmanager
    def at_hand(self, names: Sequence[str]) -> Iterator[Group]:
        """See `Transit.at_hand`.  The rows are locked by one transaction."""
        with self._connections.transaction() as connection:
            group = _Locked(connection)
            for name in names:
                if group.is_full(_AT_ONCE, _OCTETS):
                    break
                group.seen += 1
                self._lock(connection, name, group)
            yield group

    def _lock(self, connection: Connection[Any], name: str, group: Group) -> None:
        identifier = parse_name(name)
        rows = run(connection, "take", {"id": identifier, "queue": self._queue})
        if identifier is None or not rows:  # it was sent meanwhile
            return
        try:
            mail = self._admin.taken(connection, identifier, rows[0], f"cannot move mail {name}")
            after(mail.state, Action.MOVE, name)
            group.mails.append(self._traveller(connection, identifier, mail.state))
        except MailError as error:
            group.refused[name] = str(error)

    def _traveller(self, connection: Connection[Any], mail: uuid.UUID, state: State) -> Traveller:
        [(envelope, size, since, _)] = run(connection, "head_to_move", {"id": mail})
        records = [record_of(line) for (line,) in run(connection, "history", {"mail": mail})]
        message = functools.partial(open_body, self._connections, mail, size)
        return Traveller(shown(mail), since, state, records, read_envelope(envelope), size, message)

    def leave(self, group: Group, mails: Sequence[Traveller]) -> None:
        """See `Transit.leave`.  It is durable when the block of the group has ended."""
        assert isinstance(group, _Locked)
        ids = [parse_name(mail.name) for mail in mails]
        run(group.connection, "leave_for_another", {"ids": ids, "queue": self._queue})

    def traces(self) -> Iterable[Trace]:
        """See `Transit.traces`."""
        return [Trace(shown(mail), since) for mail, since in self._connections.execute("traces", queue=self._queue)]

    def forget(self, names: Sequence[str]) -> None:
        """See `Transit.forget`."""
        self._connections.execute("forget_moved", queue=self._queue, ids=[parse_name(name) for name in names])

    # what is known beside the mails

    def keys(self) -> Iterator[TakenKey]:
        """See `Transit.keys`."""
        key = ""
        while rows := self._connections.execute(
            "taken_keys", queue=self._queue, after=key, now=self._clock.time(), limit=_MANY
        ):
            yield from (TakenKey(*row) for row in rows)
            key = rows[-1][0]

    def take_keys(self, keys: Sequence[TakenKey]) -> None:
        """See `Transit.take_keys`."""
        names, message_ids, untils = map(list, zip(*keys, strict=True))
        known: dict[str, Any] = {"keys": names, "message_ids": message_ids, "untils": untils}
        self._connections.execute("bring_keys", queue=self._queue, now=self._clock.time(), **known)

    def departures(self) -> Iterator[Departure]:
        """See `Transit.departures`."""
        for part in PARTS:
            message_id, at = "", 0.0
            while rows := self._connections.execute(
                "departures",
                queue=self._queue,
                part=part,
                message_id=message_id,
                at=at,
                after=self._oldest(),
                limit=_MANY,
            ):
                yield from (Departure(each, sent_mail(time, line)) for each, time, line in rows)
                message_id, at, _ = rows[-1]

    def note_departures(self, departures: Sequence[Departure]) -> None:
        """See `Transit.note_departures`."""
        by_day: dict[int, list[Departure]] = {}
        oldest = self._oldest()
        for each in departures:
            if each.sent.time > oldest and is_storable(each.message_id):  # else no one can ask for it
                by_day.setdefault(part_of(each.sent.time), []).append(each)
        for part, those in by_day.items():
            self._connections.execute(
                "note_departures",
                queue=self._queue,
                part=part,
                ats=[each.sent.time for each in those],
                message_ids=[each.message_id for each in those],
                records=[line_of(each.sent.record) for each in those],
            )

    def _oldest(self) -> float:
        """Return since when it is known what has left, in seconds since the epoch."""
        return kept_since(self._clock.time())

    # where they come to

    def name_for(self, name: str, since: float, origin: str) -> str:
        """See `Transit.name_for`.  A mail of another database keeps its name; two rows of one cannot have the same."""
        known = parse_name(name)
        if known is not None and not origin.startswith(f"{self._database}/"):
            return shown(known)
        return shown(name_for(f"{self._queue}/{name}" if known else name, since))

    def refusal(self, mail: Traveller, origin: str) -> str:
        """See `Transit.refusal`."""
        name = self.name_for(mail.name, mail.since, origin)
        if self._connections.execute("known_here", id=parse_name(name)):
            return f"mail {mail.name}: there is a mail {name} in the other queue already"
        try:
            write_envelope(mail.envelope)
        except QueueError as error:
            return f"mail {mail.name}: {error}"
        return ""

    def arrive(self, mails: Sequence[Traveller], origin: str) -> None:
        """See `Transit.arrive`."""
        ids = [self._id_for(mail, origin) for mail in mails]
        with self._connections.transaction() as connection:
            run(connection, "discard_arrived", {"ids": ids, "queue": self._queue})
            with connection.cursor() as cursor:
                rows = [self._row(mail, identifier, origin) for mail, identifier in zip(mails, ids, strict=True)]
                cursor.executemany(STATEMENTS["arrive"], rows)
                cursor.executemany(STATEMENTS["tell"], [*_history(mails, ids)])
            copy_bodies(connection, ((identifier, mail.pieces()) for mail, identifier in zip(mails, ids, strict=True)))

    def _id_for(self, mail: Traveller, origin: str) -> uuid.UUID:
        return uuid.UUID(self.name_for(mail.name, mail.since, origin).replace(".", ""))

    def _row(self, mail: Traveller, identifier: uuid.UUID, origin: str) -> dict[str, Any]:
        last, terms = mail.records[-1] if mail.records else None, mail.envelope.terms
        due = last.due if last is not None and mail.state is State.DEFERRED else None
        if due is None and (last or _UNTRIED).before_time(terms, mail.since) > 0.0:
            due = terms.not_before
        with contextlib.closing(mail.pieces()) as pieces:
            message_id = message_id_of(pieces)
        return {
            "id": identifier,
            "queue": self._queue,
            "state": ARRIVING + NUMBERS.get(mail.state, 0),
            "priority": terms.priority.rank,
            "due": due,
            "expires": terms.expires if terms.expires < inf else None,
            "since": mail.since,
            "size": mail.size,
            "message_id": message_id,
            "envelope": write_envelope(mail.envelope),
            "record": None if last is None else line_of(last),
            "maker": json.dumps([origin, mail.name]),
        }

    def arrived(self, origin: str) -> Iterable[tuple[str, str]]:
        """See `Transit.arrived`."""
        for identifier, maker in self._connections.execute("arrived", queue=self._queue, limit=_MANY):
            came_from, name = json.loads(maker)
            if came_from == origin:
                yield shown(identifier), name

    def appear(self, names: Sequence[str]) -> None:
        """See `Transit.appear`."""
        self._connections.execute("appear", ids=[parse_name(name) for name in names], queue=self._queue)
        self._announce()

    def discard(self, names: Sequence[str]) -> None:
        """See `Transit.discard`."""
        self._connections.execute("discard_arrived", ids=[parse_name(name) for name in names], queue=self._queue)


def _history(mails: Sequence[Traveller], ids: Sequence[uuid.UUID]) -> Iterator[dict[str, Any]]:
    for mail, identifier in zip(mails, ids, strict=True):
        for record in mail.records:
            yield {"mail": identifier, "record": line_of(record)}
