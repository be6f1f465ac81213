"""What a processor tells operators of itself and its relays, written beside the queue whenever it changes.

Nothing depends on it: trouble with it is passed over, and told in the log once.
"""

from __future__ import annotations

import os
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from zope.sendmail.interfaces import IMailQueue
from zope.sendmail.lifecycle.outcome import Answer
from zope.sendmail.lifecycle.rates import Minute, merged_minutes
from zope.sendmail.lifecycle.relaystate import ProcessorState, RelayState
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.relayname import address_of
from zope.sendmail.message.routes import Routes
from zope.sendmail.processor.relay import Relay
from zope.sendmail.reporting import maillog
from zope.sendmail.system.clock import Clock
from zope.sendmail.system.forklock import ForkLock
from zope.sendmail.system.hostname import host_name
from zope.sendmail.transports.innerlimits import relay_states_of

#: Seconds between two reports while only numbers change.
_EVERY = 10.0

#: Seconds over which mails a minute are counted.
_WINDOW = 60.0


class StateReport:
    """Tells one queue of one processor.

    :param relays: the relays of the processor; those that were never asked are left out
    :param forever: whether the processor goes on when nothing is due

    Concurrency: any thread.
    """

    def __init__(
        self, queue: IMailQueue, relays: Iterable[Relay], routes: Routes, clock: Clock, *, forever: bool
    ) -> None:
        self._queue = queue
        self._relays = relays
        self._routes = routes
        self._clock = clock
        self._forever = forever
        self._mutex = ForkLock()
        self._started = clock.time()
        self._next = float("-inf")
        self._sent = self._told = 0
        #: When how many had left, for the rate.
        self._marks: deque[tuple[float, int]] = deque([(clock.monotonic(), 0)])
        #: Since when each relay can, or cannot, be used.
        self._since: dict[str, tuple[bool, float]] = {}
        self._in_trouble = False
        self._counting = ForkLock()
        #: What was counted since the last report, by minute, and what was reported.
        self._counted: dict[int, defaultdict[Any, float]] = {}
        self._past: tuple[Minute, ...] = ()

    def count(self, state: State, *, unknown: bool, written: float | None) -> None:
        """Count a mail whose attempt has ended.

        :param state: what the attempt led to
        :param unknown: whether nothing can be known about a recipient
        :param written: when the mail was written, seconds since the epoch; None if that is not known
        """
        now = self._clock.time()
        with self._counting:
            counted = self._counted.setdefault(int(now // 60), defaultdict(float))
            counted[state] += 1
            counted[Answer.UNKNOWN] += unknown
            if state is State.SENT:
                self._sent += 1
                counted["age"] += 0.0 if written is None else max(0.0, now - written)
        if self._clock.monotonic() >= self._next:
            self.write()

    def count_sent(self, written: Sequence[float | None]) -> None:
        """Count mails that have left.

        :param written: when each was written, seconds since the epoch; None if that is not known
        """
        now = self._clock.time()
        with self._counting:
            counted = self._counted.setdefault(int(now // 60), defaultdict(float))
            counted[State.SENT] += len(written)
            self._sent += len(written)
            counted["age"] += sum([max(0.0, now - moment) for moment in written if moment is not None])
        if self._clock.monotonic() >= self._next:
            self.write()

    def hurry(self) -> None:
        """Tell with the next mail that is counted, or before the processor waits.

        A relay has answered for the first time: what a former processor knew of it holds no longer.
        """
        self._next = float("-inf")

    def rest(self) -> None:
        """Tell before the processor waits, if it has done something since the last time."""
        if self._next == float("-inf") or (self._counted and self._clock.monotonic() >= self._next):
            self.write()

    def end(self) -> None:
        """Tell that the processor ends."""
        self.write(ended=self._clock.time())

    def write(self, *, ended: float = 0.0) -> None:
        """Tell how it is now.  Raises nothing."""
        with self._mutex:
            self._next = self._clock.monotonic() + _EVERY
            try:
                self._queue.report(self._state(ended))
                self._in_trouble = False
            except Exception as error:  # noqa: BLE001 - whatever the queue is, it harms no mail
                if not self._in_trouble:
                    self._in_trouble = True
                    maillog.state_not_reported(self._queue.location, error)

    def _state(self, ended: float) -> ProcessorState:
        now = self._clock.time()
        self._told = self._sent
        return ProcessorState(
            pid=os.getpid(),
            host=host_name(),
            started=self._started,
            written=now,
            ended=ended,
            forever=self._forever,
            sent=self._told,
            per_minute=self._rate(),
            minutes=self._condensed(now),
            relays=tuple(state for relay in self._relays if (state := self._relay_state(relay, now)) is not None),
            routes=self._routes,
        )

    def _condensed(self, now: float) -> tuple[Minute, ...]:
        """Return the last minutes; what was counted since the last time is added to them."""
        with self._counting:
            counted, self._counted = self._counted, {}
        self._past = merged_minutes((*self._past, *(_minute(each, counts) for each, counts in counted.items())), now)
        return self._past

    def _rate(self) -> float:
        """Return the mails a minute over the last minute, or over the time since the start if that is shorter."""
        now = self._clock.monotonic()
        self._marks.append((now, self._told))
        while len(self._marks) > 2 and now - self._marks[1][0] >= _WINDOW:
            self._marks.popleft()
        since, before = self._marks[0]
        return round((self._told - before) * 60.0 / max(now - since, 1.0), 1)

    def _relay_state(self, relay: Relay, now: float) -> RelayState | None:
        fault, asked = relay.fault, relay.asked
        if not asked:
            return None
        usable, since = self._since.get(relay.name, (fault is not None, now))
        if usable is not (fault is None):
            since = asked
        self._since[relay.name] = fault is None, since
        connections, rate, words = relay.throttle.shown
        own = float(getattr(relay.mailer, "rate", None) or 0.0)
        return RelayState(
            relay.name,
            address_of(relay.mailer),
            fault=fault,
            since=since,
            probe=now + relay.pause() if fault is not None else 0.0,
            asked=asked,
            failures=relay.circuit.failures,
            connections=connections,
            limit=words,
            rate=round(min(filter(None, (own, rate)), default=0.0), 2),
            members=tuple(relay_states_of(relay.mailer, now)),
        )


def _minute(minute: int, counted: Mapping[Any, float]) -> Minute:
    return Minute(
        minute,
        sent=int(counted[State.SENT]),
        deferred=int(counted[State.DEFERRED]),
        rejected=int(counted[State.REJECTED]),
        unknown=int(counted[Answer.UNKNOWN]),
        age=counted["age"],
    )
