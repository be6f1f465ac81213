"""The mails of one transaction on their way into a database, through connections of the queue's own.

What is staged is committed to the database in the vote, where no processor sees it; one statement in the second phase
reveals all of it.  What a dead process leaves in between is in doubt, and stays until a person decides.
"""

from __future__ import annotations

import os
import struct
import uuid
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Any

from psycopg import Connection
from psycopg.errors import UniqueViolation
from zope.interface import implementer

from zope.sendmail.errors import InvalidMessage, KeyTaken, QueueError
from zope.sendmail.interfaces import IStagedMail
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.headers import message_id
from zope.sendmail.message.pieces import Piece, beginning, joined
from zope.sendmail.message.terms import PLAIN, Terms
from zope.sendmail.queue.keys import in_use, patiently
from zope.sendmail.queue.postgresql import keys
from zope.sendmail.queue.postgresql.database import Connections, is_lost, run
from zope.sendmail.queue.postgresql.envelopecolumn import write_envelope
from zope.sendmail.queue.postgresql.names import names, shown
from zope.sendmail.queue.postgresql.rows import STAGED, WAITING
from zope.sendmail.queue.postgresql.statements import STATEMENTS
from zope.sendmail.queue.postgresql.storedbody import ROW, rows_of
from zope.sendmail.system.clock import Clock
from zope.sendmail.system.hostname import host_name
from zope.sendmail.system.ownprocess import OwnProcess

#: Octets of messages that are kept in memory before they are written.
_BUFFER = 1024 * 1024

#: So much of a message is looked at for its Message-Id.
_HEAD = 64 * 1024

# The binary format of COPY (PostgreSQL, COPY, "Binary Format"): so the rows are made in a few steps each.
_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"
_MAIL = struct.Struct("!hi16sihihihiqi")
_BODY = struct.Struct("!hi16siii")
_LENGTH = struct.Struct("!i")
_NO_TIMES = _LENGTH.pack(-1) * 2
_TIME = struct.Struct("!iq")

#: Since when PostgreSQL counts, in seconds since the epoch: the year 2000.
_ERA = 946684800


@dataclass(frozen=True, slots=True)
class NewMail:
    """A mail that is to be written."""

    id: uuid.UUID
    size: int
    message_id: str
    envelope: str
    message: Sequence[Piece]
    terms: Terms

    @classmethod
    def of(cls, envelope: Envelope, message: Sequence[Piece]) -> NewMail:
        """Return the mail that an envelope and a message are.

        :raises QueueError: if a database cannot keep it.
        """
        size = sum(map(len, message))
        return cls(names.new(), size, message_id_of(message), write_envelope(envelope), message, envelope.terms)

    @property
    def due(self) -> float | None:
        """When the mail leaves, in seconds since the epoch; None: at once."""
        return self.terms.not_before or None

    @property
    def expires(self) -> float | None:
        """When it is given up, in seconds since the epoch; None: as the schedule of the queue says."""
        return self.terms.expires if self.terms.expires < inf else None


def message_id_of(message: Iterable[Piece]) -> str:
    """Return the Message-Id of a message in pieces, as far as a database can keep it; else nothing."""
    try:
        found = message_id(beginning(message, _HEAD))
        found.encode()
    except (InvalidMessage, UnicodeEncodeError):
        return ""
    return found if "\0" not in found else ""


def staging_process() -> str:
    """Return which process stages mail: host and process number."""
    return f"{host_name()}:{os.getpid()}"


def write(connection: Connection[Any], queue: int, mails: Sequence[NewMail], state: int) -> None:
    """Write mails: one that is small with one statement, others with COPY, all or none."""
    if len(mails) == 1 and mails[0].size <= ROW:
        [mail] = mails
        run(connection, "stage", {**_values(mail, queue, state), "data": joined(mail.message)})
    elif mails:
        with connection.transaction():
            copy(connection, queue, mails, state)


def write_at_once(connections: Connections, queue: int, mails: Sequence[NewMail]) -> None:
    """Commit mails in one transaction of their own.

    :raises QueueError: if the database refuses.
    """

    def attempt() -> None:
        with connections.use() as connection:
            write(connection, queue, mails, WAITING)

    _surely(connections, attempt)


def _surely(connections: Connections, attempt: Callable[[], object]) -> None:
    """Write mails; again if the connection broke: an idle one may have been broken for long.

    If it broke in the commit, the names of the mails tell that they are there.
    """
    try:
        attempt()
    except QueueError as error:
        if error.__cause__ is None or not is_lost(error.__cause__):
            raise
        connections.drop_idle()
        try:
            attempt()
        except QueueError as again:
            if not isinstance(again.__cause__, UniqueViolation):
                raise


def _values(mail: NewMail, queue: int, state: int) -> dict[str, object]:
    return {
        "id": mail.id,
        "queue": queue,
        "state": state,
        "size": mail.size,
        "message_id": mail.message_id,
        "envelope": mail.envelope,
        "priority": mail.terms.priority.rank,
        "due": mail.due,
        "expires": mail.expires,
        "maker": staging_process() if state == STAGED else None,
    }


def copy(connection: Connection[Any], queue: int, mails: Sequence[NewMail], state: int) -> None:
    """Write mails with two COPY commands in the transaction that is open."""
    with connection.cursor() as cursor, cursor.copy(STATEMENTS["copy_mail"]) as rows:
        made_by = _text(staging_process()) if state == STAGED else _LENGTH.pack(-1)
        parts = [_SIGNATURE]
        for mail in mails:
            message_id = mail.message_id.encode()
            head = _MAIL.pack(
                *(10, 16, mail.id.bytes, 2, queue, 2, state, 2, mail.terms.priority.rank),
                *(8, mail.size, len(message_id)),
            )
            times = _NO_TIMES if mail.terms is PLAIN else _time(mail.due) + _time(mail.expires)
            parts += head, message_id, _text(mail.envelope), times, made_by
        rows.write(b"".join((*parts, _TRAILER)))
    copy_bodies(connection, ((mail.id, mail.message) for mail in mails))


def copy_bodies(connection: Connection[Any], mails: Iterable[tuple[uuid.UUID, Iterable[Piece]]]) -> None:
    """Write messages, each given in pieces, with one COPY command in the transaction that is open."""
    with connection.cursor() as cursor, cursor.copy(STATEMENTS["copy_body"]) as rows:
        parts, size = [_SIGNATURE], 0
        for mail, message in mails:
            for no, row in enumerate(rows_of(message)):
                parts += _BODY.pack(3, 16, mail.bytes, 4, no, len(row)), bytes(row)
                size += len(row)
                if size >= ROW:
                    rows.write(b"".join(parts))
                    parts, size = [], 0
        rows.write(b"".join((*parts, _TRAILER)))


def _time(seconds: float | None) -> bytes:
    return _LENGTH.pack(-1) if seconds is None else _TIME.pack(8, int((seconds - _ERA) * 1_000_000))


def _text(text: str) -> bytes:
    data = text.encode()
    return _LENGTH.pack(len(data)) + data


@implementer(IStagedMail)
class PostgreSQLStagedMail:
    """See `IStagedMail`.

    :param late: is given what could not be revealed, and reveals it later.
    :param announce: tells processors that there is something new, and of which priorities (ranks).
    """

    def __init__(
        self,
        connections: Connections,
        queue: Callable[[], int],
        late: Callable[[list[uuid.UUID]], object],
        announce: Callable[[Collection[int]], object],
        clock: Clock,
    ) -> None:
        self._connections = connections
        self._queue = queue
        self._late = late
        self._announce = announce
        self._ids: list[uuid.UUID] = []
        self._new: list[NewMail] = []
        self._buffered = 0
        self._ranks: set[int] = set()
        #: The keys of the mails, each with its mail and that one's Message-Id.
        self._keys: dict[str, tuple[uuid.UUID, str]] = {}
        self._clock = clock
        #: How many of the first were written, or may have been.
        self._written = 0
        self._is_over = False
        self._process = OwnProcess()

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, envelope: Envelope, *message: Piece) -> str:
        """See `IStagedMail.add`.

        A large message is written to the database at once.
        """
        mail = NewMail.of(envelope, message)
        if mail.terms.key:
            self._check_key(mail)
        self._ids.append(mail.id)
        self._new.append(mail)
        self._ranks.add(mail.terms.priority.rank)
        self._buffered += mail.size
        if self._buffered > _BUFFER:
            try:
                self._flush()
            except KeyTaken as taken:  # perhaps an earlier mail's
                self.rollback(len(self._ids) - 1)
                raise in_use(taken.key) from taken
            except BaseException:
                self.rollback(len(self._ids) - 1)
                raise
        return shown(mail.id)

    def _check_key(self, mail: NewMail) -> None:
        """See that the key of a mail is free; it is taken when the mail is written.  Raises `KeyTaken`, `KeyInUse`."""
        key = mail.terms.key
        if key in self._keys:
            raise KeyTaken(key, self._keys[key][1])
        patiently(self._clock, lambda: keys.check(self._execute, self._queue(), key, self._clock.time()))
        self._keys[key] = mail.id, mail.message_id

    def _execute(self, statement: str, parameters: dict[str, Any]) -> list[Any]:
        return self._connections.execute(statement, **parameters)

    def _flush(self) -> None:
        if self._new:
            self._written = len(self._ids)
            patiently(self._clock, partial(_surely, self._connections, self._write))
            self._new, self._buffered = [], 0

    def _write(self) -> None:
        """Write the new mails, and with them their keys, all or none."""
        queue = self._queue()
        with self._connections.use() as connection:
            keyed = [mail for mail in self._new if mail.terms.key]
            if not keyed:
                write(connection, queue, self._new, STAGED)
                return
            with connection.transaction():
                write(connection, queue, self._new, STAGED)
                for mail in sorted(keyed, key=lambda mail: mail.terms.key):  # in one order, so that none wait in a ring
                    keys.take(partial(run, connection), queue, mail, self._clock.time())

    def rollback(self, count: int) -> None:
        """See `IStagedMail.rollback`."""
        if not self._process.is_here():
            return
        gone = self._ids[count:]
        written = self._ids[count : self._written]
        self._new = [mail for mail in self._new if mail.id not in set(gone)] if gone else self._new
        self._buffered = sum(mail.size for mail in self._new)
        del self._ids[count:]
        self._keys = {key: each for key, each in self._keys.items() if each[0] not in set(gone)}
        self._written = min(self._written, count)
        if written:
            self._connections.execute("discard", ids=written)

    def prepare(self) -> None:
        """See `IStagedMail.prepare`."""
        self._process.check(len(self))
        self._flush()

    @property
    def ids(self) -> tuple[uuid.UUID, ...]:
        """What the database calls the mails."""
        return tuple(self._ids)

    def commit(self) -> None:
        """See `IStagedMail.commit`.

        If the database cannot be reached even now, it raises; the queue tries again at its next use in this process.
        """
        if self.reveal():
            self._announce(self._ranks)

    def reveal(self) -> bool:
        """Do as `commit`, and tell no processor; return whether there was something to reveal."""
        self._process.check(len(self))
        if self._is_over or not self._ids:
            return False
        self._is_over = True
        try:
            self._connections.execute("reveal", ids=self._ids)
        except QueueError:
            self._late(self._ids)
            raise
        return True

    def abort(self) -> None:
        """See `IStagedMail.abort`."""
        if not self._is_over:
            self.rollback(0)
