"""The row of one processor: by its beat others see that it lives, by its slots how far it has come.

A processor that stands still for four seconds, by the clock of another one, is taken for dead: one statement ends its
row and closes its slots, and from then on nothing that it intends is written down.  It begins anew when it comes to.

The rows are unlogged: a crash of the server and a failover empty them.  A living processor comes back within five
seconds and says again what it has in hand; until then none claims.  One that does not come back is *lost*: how far it
had come with what it had claimed is not known.
"""

from __future__ import annotations

import os
import random
import threading
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from zope.sendmail.errors import QueueError
from zope.sendmail.queue.postgresql.database import Connections
from zope.sendmail.reporting import maillog
from zope.sendmail.system.clock import Clock
from zope.sendmail.system.hostname import host_name

#: Seconds between two beats.
BEAT = 1.0

#: A beat that stood still for so many seconds and in so many readings is the last one.
_SILENCE, _READINGS = 3.5, 4

#: Seconds after a crash of the server in which no processor claims; the SQL has the same number.
GRACE = 5.0

#: For so many seconds a processor remembers what it sent or gave back, in case a crash or a failover undoes it.
REMEMBERED = 15.0

#: Seconds for which what is to be written waits for more.
_FLUSH = 0.02

#: Slots that are made at first; then as many again as there are.
_SLOTS = 16

#: Of so many beats in a row that fail, one is told.
_SAID = 60

#: Seconds between two rounds of cleaning.
_CLEANING = 600.0


class InHand(Protocol):
    """A mail that has a slot."""

    id: uuid.UUID
    lease: int
    #: How far it has come: 1 opened, 2 its last byte may have gone, 3 its relay has it.
    phase: int


@dataclass(slots=True)
class _Observed:
    """The beat of another processor, since when it stands still, and how often it was read."""

    beat: int
    since: float
    counted: float
    readings: int = 1


class Registration:
    """One processor, from its registration to its end.  Concurrency: any thread.

    :param flush: called while something waits to be written, see `hurry`, and with each beat.
    :param clean: called every ten minutes.
    :param resume: called before this processor comes back after a crash, to see which of its claims hold.
    :param clock: which runs by itself: its beats are seen by other processors.
    """

    def __init__(
        self,
        connections: Connections,
        flush: Callable[[], object],
        clean: Callable[[], object],
        resume: Callable[[], object],
        *,
        clock: Clock,
    ) -> None:
        self.id = random.getrandbits(63)  # unique, not secret
        self.ended = False
        self.dead: list[int] = []
        #: Of these it is not known how far they had come.
        self.lost: frozenset[int] = frozenset()
        #: The server's clock minus our monotonic one, in seconds.
        self.offset = 0.0
        self._connections = connections
        self._flush, self._clean, self._resume = flush, clean, resume
        #: How often it came back.
        self.resumed = 0
        self._clock = clock
        self._mutex = threading.RLock()
        self._beating = threading.RLock()
        self._in_hand: dict[int, InHand] = {}
        self._free: list[int] = []
        self._slots = 0
        self._observed: dict[int, _Observed] = {}
        self._epoch: float | None = None
        self._bury_at: float | None = None
        self._cleaned_at = self._clock.monotonic()
        self._sent: deque[tuple[float, uuid.UUID]] = deque()
        #: What is still to be withdrawn.
        self._owed: set[uuid.UUID] = set()
        self._failures = 0
        #: Whether something waits to be written.
        self._wanted = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="zope.sendmail.postgresql.beat", daemon=True)

    def start(self) -> None:
        """Register, and begin to beat.

        :raises QueueError: if the database refuses, or is a copy that no operator has adopted.
        """
        [(here, known)] = self._connections.execute("identity")
        if here != known:
            raise QueueError(
                "this database was restored or copied from another one: its mail may have been sent there; when that "
                "is settled, run: zope-sendmail queue adopt URL"
            )
        self._free = list(range(_SLOTS))[::-1]
        self._slots = _SLOTS
        self.beat()
        self._thread.start()

    def stop(self) -> None:
        """Do not beat any more."""
        self._over.set()
        self._wanted.set()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join()

    def leave(self, *, has_mail: bool = False) -> None:
        """End the row: what is in hand can be taken over at once; with nothing in hand nothing is left of it.

        :param has_mail: whether the database may have mails for ours that no worker has in hand.
        """
        self.stop()
        self.ended = True
        try:
            self._connections.execute("leave" if self._in_hand or has_mail else "forget_processor", me=self.id)
        except QueueError as error:  # others find out
            maillog.queue_trouble(self._connections.location.text, error, 0.0)

    # slots

    def take_slot(self, mail: InHand) -> int:
        """Return a slot for a mail that is in hand."""
        with self._mutex:
            if not self._free:
                more = range(self._slots, 2 * self._slots)
                self._connections.execute("more_slots", me=self.id, slots=list(more))
                self._free.extend(reversed(more))
                self._slots *= 2
            slot = self._free.pop()
            self._in_hand[slot] = mail
            return slot

    def free_slot(self, slot: int) -> None:
        """Free a slot: its mail is settled, or given back."""
        with self._mutex:
            if self._in_hand.pop(slot, None) is not None:
                self._free.append(slot)

    # what was sent

    def remember(self, mail: uuid.UUID) -> None:
        """Remember a mail that was sent: it must not come back."""
        now = self._clock.monotonic()
        with self._mutex:
            self._sent.append((now, mail))
            while self._sent[0][0] < now - REMEMBERED:
                self._sent.popleft()

    @property
    def is_after_crash(self) -> bool:
        """Whether the server crashed, or another one took over, not long ago."""
        return self._bury_at is not None

    def withdraw(self, mails: list[uuid.UUID]) -> None:
        """Remove what we sent and a failover brought back; what cannot be removed is tried again with each beat."""
        with self._mutex:
            self._owed.update(mails)
            owed = list(self._owed)
        if owed:
            self._connections.execute("withdraw", ids=owed, me=self.id)
            with self._mutex:
                self._owed.difference_update(owed)

    # the beat

    def hurry(self) -> None:
        """Let `flush` be called within 20 ms."""
        if not self._wanted.is_set():
            self._wanted.set()

    def _run(self) -> None:
        beaten = self._clock.monotonic()
        while not self._over.is_set():
            if self._wanted.wait(max(0.0, beaten + BEAT - self._clock.monotonic())):
                self._over.wait(_FLUSH)  # what others say meanwhile goes along
                self._wanted.clear()
                self._flush()
            if not self._over.is_set() and self._clock.monotonic() >= beaten + BEAT:
                beaten = self._clock.monotonic()
                self._beat_safely()

    def _beat_safely(self) -> None:
        try:
            self.beat()
            self._failures = 0
            self._flush()
            if self._clock.monotonic() >= self._cleaned_at + _CLEANING:
                self._cleaned_at = self._clock.monotonic()
                self._connections.execute("forget_ended")
                self._clean()
        except Exception as error:  # noqa: BLE001 - the next beat may go through; the claims tell of the trouble
            if self._failures % _SAID == 0:
                maillog.beat_failed(self._connections.location.text, error)
            self._failures += 1

    def beat(self) -> None:
        """Say that we live, and look who else does.

        :raises QueueError: if the database cannot be asked.
        """
        with self._beating:
            if self.ended:
                return
            since = self._beat_once()
            if since != self._epoch:
                self._after_crash(since)
            self.withdraw([])
            if self._bury_at is not None and self._clock.monotonic() >= self._bury_at:
                self._connections.execute("bury_lost")
                self._bury_at = None
            self.look()

    def _beat_once(self) -> float:
        """Beat; register if the row is not there, or not any more.  Returns since when the server lives."""
        for _ in range(3):
            [(since, server, count, ended)] = self._connections.execute("beat", me=self.id)
            self.offset = server - self._clock.monotonic()
            if count:
                self.ended = self.ended or ended
                if since is not None:
                    return float(since)
            else:
                if self._epoch is not None:
                    self.resumed += 1
                    self._resume()
                self._register()
        raise QueueError("the database forgets this processor as soon as it is registered; is it failing over?")

    def _register(self) -> None:
        with self._mutex:
            slots = range(self._slots)
            in_hand = [self._in_hand.get(slot) for slot in slots]
            self._connections.execute(
                "register",
                me=self.id,
                host=host_name(),
                pid=os.getpid(),
                slots=list(slots),
                mails=[each.id if each else None for each in in_hand],
                leases=[each.lease if each else None for each in in_hand],
                phases=[each.phase if each else 0 for each in in_hand],
            )

    def _after_crash(self, since: float) -> None:
        """Begin anew, since the server lives since another moment than we knew: at first, and after a crash."""
        is_first, self._epoch = self._epoch is None, since
        if since > float("-inf"):
            self._bury_at = self._clock.monotonic() + GRACE + BEAT
        if not is_first:
            with self._mutex:
                sent = [mail for _, mail in self._sent]
            self.withdraw(sent)

    def look(self) -> None:
        """Learn which processors are dead, and end those that have been silent for too long."""
        now = self._clock.monotonic()
        rows = self._connections.execute("processors")
        observed: dict[int, _Observed] = {}
        with self._beating:
            for other, beat, ended, _ in rows:
                if other != self.id and not ended:
                    observed[other] = self._reading(other, beat, now)
            self._observed = observed
        silent = [
            other for other, each in observed.items() if now - each.since >= _SILENCE and each.readings >= _READINGS
        ]
        for other in silent:
            self._connections.execute("end_processor", id=other, beat=observed[other].beat)
        if silent:
            rows = self._connections.execute("processors")
        self.dead = [other for other, _, ended, _ in rows if ended and other != self.id]
        self.lost = frozenset(other for other, _, _, lost in rows if lost)

    def _reading(self, other: int, beat: int, now: float) -> _Observed:
        known = self._observed.get(other)
        if known is None or known.beat != beat:
            return _Observed(beat, now, now)
        # Readings that follow close upon each other are one: after an outage the other needs time to come back.
        if now - known.counted >= BEAT * 0.7:
            known.readings += 1
            known.counted = now
        return known
