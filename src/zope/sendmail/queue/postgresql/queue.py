"""A queue in PostgreSQL, for any number of processors on any number of machines.

What is promised when what breaks stands in ``docs/howto/several-machines.rst``, the design in
``docs/explanation/decisions/postgresql.rst``.  Fails with `zope.sendmail.errors.QueueError` where the database refuses
or cannot be reached.
"""

from __future__ import annotations

import contextlib
import os
import threading
import uuid
import weakref
from collections.abc import Collection, Iterable
from typing import Any

from zope.interface import implementer

from zope.sendmail.errors import QueueError
from zope.sendmail.interfaces import IMailQueue, IRankedQueue, IStagedMail
from zope.sendmail.lifecycle.mailstatus import MailStatus
from zope.sendmail.lifecycle.relaystate import ProcessorState, is_drained
from zope.sendmail.lifecycle.retry import OnUnknown, Schedule
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.pieces import Piece
from zope.sendmail.message.terms import Priority
from zope.sendmail.queue.postgresql.admin import PostgreSQLAdmin
from zope.sendmail.queue.postgresql.claims import Claims
from zope.sendmail.queue.postgresql.database import Connections
from zope.sendmail.queue.postgresql.databaselocation import DatabaseLocation
from zope.sendmail.queue.postgresql.firstattempts import PostgreSQLFirstAttempts
from zope.sendmail.queue.postgresql.joining import JoinedMail, OtherDatabase, check_database
from zope.sendmail.queue.postgresql.lease import PostgreSQLLease
from zope.sendmail.queue.postgresql.mailsource import HIGH
from zope.sendmail.queue.postgresql.relstorage import RelStorageConnection
from zope.sendmail.queue.postgresql.staging import NewMail, PostgreSQLStagedMail, write_at_once
from zope.sendmail.queue.postgresql.suppressionlist import PostgreSQLSuppressions
from zope.sendmail.queue.postgresql.transit import PostgreSQLTransit
from zope.sendmail.queue.postgresql.wakeup import Announcer, Listener
from zope.sendmail.system.clock import Clock


@implementer(IMailQueue, IRankedQueue)
class PostgreSQLQueue:
    """See `IMailQueue`.

    :param location: the URL of the queue.
    :param clock: taken for the server's, too, if it is given.
    :raises QueueError: if the URL is none, or has a password in it.
    """

    def __init__(self, location: str, *, schedule: Schedule | None = None, clock: Clock | None = None) -> None:
        parsed = DatabaseLocation.parse(location)
        self.location = parsed.text
        self.schedule = schedule or Schedule()
        self._given_clock = clock
        self._clock = clock or Clock()
        self._name = parsed.queue
        self._connections = Connections(parsed)
        self._begin()
        _queues.add(self)

    def _begin(self) -> None:
        self._mutex = threading.RLock()
        self._id: int | None = None
        self._late: list[list[uuid.UUID]] = []
        #: Connections of the application that lead to our database.
        self._joined: list[Any] = []
        self._announcer = Announcer(self._connections)
        self._claims: Claims | None = None
        #: The number under which this object tells operators of its processor; 0 before it was one.
        self._processor = 0
        self._listener: Listener | None = None
        #: When an operator asked last for a try of a relay, as far as a look without a notification has seen.
        self._last_probe: object = None
        self.suppressions = PostgreSQLSuppressions(self._connections, self._clock, self._find_id, self._make_id)
        self.admin = PostgreSQLAdmin(
            self._connections,
            self._find_id,
            self.schedule,
            self._clock,
            settle=self._write_down,
            changed=self._changed,
        )

    def _find_id(self) -> int | None:
        """Return the number of the queue in its database; None if nothing was ever put into it."""
        if self._id is None:
            rows = self._connections.execute("queue_id", name=self._name)
            self._id = rows[0][0] if rows else None
        return self._id

    def _make_id(self) -> int:
        """Return the number of the queue in its database; it gets one if it has none."""
        number = self._find_id()
        if number is None:
            self._connections.execute("make_queue", name=self._name)
            number = self._find_id()
        if number is None:
            raise QueueError(f"the database made no queue {self._name!r}; does something else remove it?")
        return number

    @property
    def transits(self) -> list[PostgreSQLTransit]:
        """How mail is moved from and to this queue."""
        return [PostgreSQLTransit(self._connections, self._make_id(), self.admin, self._announce, self._clock)]

    # the way in

    def stage(self) -> PostgreSQLStagedMail:
        """See `IMailQueue.stage`."""
        self._reveal_late()
        return PostgreSQLStagedMail(self._connections, self._make_id, self._late.append, self._committed, self._clock)

    def put(self, envelopes: Iterable[Envelope], *message: Piece) -> None:
        """Commit a mail for each envelope, apart from any transaction: all of them, or none.

        :raises QueueError: if the database refuses.
        """
        self._reveal_late()
        mails = [NewMail.of(envelope, message) for envelope in envelopes]
        write_at_once(self._connections, self._make_id(), mails)
        self._committed({mail.terms.priority.rank for mail in mails})

    def stage_on(self, connection: Any) -> IStagedMail:
        """Return an empty group for mails that become rows of the application's transaction.

        :param connection: an `IApplicationConnection`, see `zope.sendmail.queue.postgresql.joining`; or a
            `RelStorageConnection`.
        :raises QueueError: if it leads to another database.
        """
        if isinstance(connection, RelStorageConnection):
            self._reveal_late()
            return connection.stage(self._connections, self._make_id, self._late.append, self._committed, self._clock)
        if connection not in self._joined:
            [(here,)] = self._connections.execute("place")
            check_database(connection, here)
            self._joined.append(connection)
        return JoinedMail(connection, self._make_id(), self._committed)

    def _committed(self, ranks: Collection[int]) -> None:
        """Tell processors, ours first, of new mail of these priorities."""
        if HIGH in ranks and self._claims is not None:
            self._claims.lines.hurry()
        self._announce()

    def first_attempts(self) -> PostgreSQLFirstAttempts:
        """See `IMailQueue.first_attempts`."""

        def make() -> Claims:
            return Claims(self._connections, self._make_id(), self.schedule, self._given_clock, lambda: None)

        return PostgreSQLFirstAttempts(make, self._announce)

    def is_in_database_of(self, connection: Any) -> bool:
        """Return whether an `IApplicationConnection` leads to the database of this queue."""
        try:
            self.stage_on(connection)
        except OtherDatabase:
            return False
        return True

    def _announce(self, mails: Iterable[uuid.UUID] = ()) -> None:
        self._announcer.announce(self._make_id(), mails)

    def _reveal_late(self) -> None:
        """Reveal what was committed while the database could not be reached.  Raises nothing because of it."""
        while self._late:
            mails = self._late[0]
            try:
                self._connections.execute("reveal", ids=mails)
            except QueueError:
                return
            self._late.remove(mails)
            self._announce()

    # the way out

    def claim(self, limit: int = 1, *, ahead: int = 0) -> list[PostgreSQLLease]:
        """See `IMailQueue.claim`."""
        self._reveal_late()
        claims = self._open()
        heard = self._listening().hear(again=not claims.has_ahead())
        if heard is not None:
            claims.lines.want(heard)
            claims.lines.look_out_soon()
        return claims.claim(limit, ahead)

    def has_before(self, priority: Priority) -> bool:
        """See `IRankedQueue.has_before`."""
        return self._claims is not None and self._claims.has_before(priority.rank)

    @property
    def answers_ahead(self) -> bool:
        """Whether what conversations wait for here has happened when they need it, as a rule; see `IForeseenLease`."""
        return self.schedule.on_unknown is OnUnknown.RESEND

    def shortest_wait(self) -> float:
        """Return for how many seconds each mail waits for the database, at least; 0.0 if that is not known."""
        return 0.0 if self._claims is None or self.answers_ahead else self._claims.shortest_wait()

    def claim_expired(self, limit: int = 100) -> list[PostgreSQLLease]:
        """See `IMailQueue.claim_expired`."""
        claims = self._open()
        return claims.claim_expired(limit)

    def next_expiry(self) -> float | None:
        """See `IMailQueue.next_expiry`."""
        return self._claims.next_expiry() if self._claims is not None else None

    def _open(self) -> Claims:
        """Be a processor: registered, and listening."""
        claims, listener = self._claims, self._listener
        if claims is not None and not claims.has_ended and listener is not None and listener.is_open:
            return claims
        with self._mutex:
            if self._claims is not None and self._claims.has_ended:
                self._claims.close()
                self._claims = None
            if self._claims is None:
                claims = Claims(self._connections, self._make_id(), self.schedule, self._given_clock, self.admin.clean)
                claims.start()
                self._claims = claims
            self._listening().open()
            return self._claims

    def _listening(self) -> Listener:
        if self._listener is None:
            self._listener = Listener(self._connections, self._make_id(), self._is_new)
        return self._listener

    def _is_new(self) -> bool:
        """Return whether a look is worth while, where nothing is heard."""
        claims = self._claims
        if claims is None:
            return True
        known = self._last_probe
        [(found, changes, self._last_probe)] = self._connections.execute(
            "anything_new", queue=self._make_id(), parked=claims.lines.parked_mails()
        )
        return claims.lines.see_changes(changes) or bool(found) or self._last_probe != known

    def wait(self, timeout: float) -> None:
        """See `IMailQueue.wait`."""
        claims = self._open()
        claims.give_back_ahead()
        claims.flush()
        heard = self._listening().wait(timeout)
        if heard:
            claims.lines.want(heard)

    def wake(self) -> None:
        """See `IMailQueue.wake`."""
        listener = self._listener
        if listener is not None:
            listener.wake()

    def next_due(self) -> float | None:
        """See `IMailQueue.next_due`."""
        return self._claims.next_due() if self._claims is not None else None

    def unpark(self, relay: str, limit: int) -> int:
        """See `IMailQueue.unpark`."""
        return self._claims.lines.unpark(relay, limit) if self._claims is not None else 0

    def parked(self) -> Collection[str]:
        """See `IMailQueue.parked`."""
        return self._claims.parked() if self._claims is not None else ()

    def close(self) -> None:
        """See `IMailQueue.close`."""
        with self._mutex:
            claims, self._claims = self._claims, None
            listener, self._listener = self._listener, None
        if claims is not None:
            claims.close()
        if listener is not None:
            listener.close()
        self._announcer.close()
        self._connections.close()

    def is_attended(self) -> bool:
        """Say whether this queue is drained: by a processor that lives, on whatever machine, or by passes."""
        return is_drained(self.admin.processors(), self._clock.time())

    def status(self, message_id: str) -> MailStatus:
        """See `IMailQueue.status`."""
        self._write_down()
        return self.admin.status(message_id)

    def report(self, state: ProcessorState) -> None:
        """See `IMailQueue.report`."""
        claims = self._claims
        self._processor = claims.processor if claims is not None else self._processor
        with contextlib.suppress(QueueError):
            if self._processor:
                self.admin.states.write(self._processor, state)

    def probe_asked(self, relay: str) -> float:
        """See `IMailQueue.probe_asked`."""
        return self.admin.states.probe_asked(relay)

    def take_turns(self, relay: str, rate: float, count: int) -> float:
        """See `IMailQueue.take_turns`.  For all queues of the database."""
        [(seconds, _)] = self._connections.execute("take_turns", relay=relay, seconds=count / rate)
        return float(seconds)

    def _write_down(self) -> None:
        """Let operators see all that our own workers have said."""
        claims = self._claims
        if claims is not None:
            claims.flush()

    def _changed(self, mail: uuid.UUID | None) -> None:
        """Tell processors, ours first, that an operator changed a mail, or asked for a relay."""
        claims, mails = self._claims, [] if mail is None else [mail]
        if claims is not None:
            claims.lines.want(mails)
        self._announce(mails)

    def forget_after_fork(self) -> None:
        """Forget leases, rows and connections, in a forked child: they are its parent's."""
        if self._listener is not None:
            self._listener.close()
        self._begin()


_queues: weakref.WeakSet[PostgreSQLQueue] = weakref.WeakSet()


def _after_fork() -> None:
    for queue in list(_queues):
        queue.forget_after_fork()


os.register_at_fork(after_in_child=_after_fork)
