"""What is known of a queue without asking it: how it is doing, and the names of its mails.

To count a deep queue takes a while, and the doctor takes longer.  So a page shows what was seen a few seconds ago, and
the next look is taken by a thread meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from zope.sendmail.console.places import Place
from zope.sendmail.console.words import FindingRow, Moment, finding_rows, moment
from zope.sendmail.lifecycle.rates import Minute, merged
from zope.sendmail.lifecycle.relaystate import RelayBoard
from zope.sendmail.lifecycle.states import State
from zope.sendmail.system.clock import Clock

#: Seconds for which a glance and the names are good, and the doctor's findings.
FRESH, FRESH_FINDINGS = 5.0, 60.0

#: What takes long is good for so many times as long: looking costs processors of the host a twentieth at most.
_SHARE = 20

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Glance:
    """A queue at a moment."""

    counts: Mapping[str, int]
    oldest: Moment | None
    board: RelayBoard
    minutes: tuple[Minute, ...]
    #: Why the queue cannot be read; empty if it can.
    trouble: str = ""

    @property
    def waiting(self) -> int:
        """How many mails are still to be sent."""
        return sum(self.counts.get(state.value, 0) for state in (State.READY, State.SENDING, State.DEFERRED))

    @property
    def per_minute(self) -> float:
        """Mails that left in the last minute, through all living processors."""
        return round(sum(each.per_minute for each in self.board.living), 1)


class Remembered(Generic[_T]):
    """Something that takes a while to find out.

    :param look: finds it out
    :param fresh: seconds for which that is good
    :param at_first: what is said until it was found out once; None: the first caller waits

    Concurrency: any thread; one looks at a time.
    """

    def __init__(self, look: Callable[[], _T], fresh: float, clock: Clock, at_first: _T | None = None) -> None:
        self._look = look
        self._fresh = fresh
        self._clock = clock
        self._value = at_first
        self._until = float("-inf")
        self._looking = threading.Lock()

    def get(self) -> _T:
        """Return what was found out last; look again behind the back of the caller if that is old."""
        if self._value is None:
            with self._looking:
                if self._value is None:
                    self._take()
        elif self._clock.monotonic() >= self._until and self._looking.acquire(blocking=False):
            threading.Thread(target=self._take_and_release, name="zope.sendmail.console", daemon=True).start()
        assert self._value is not None
        return self._value

    def renew(self) -> None:
        """Look again now."""
        with self._looking:
            self._take()

    def _take_and_release(self) -> None:
        try:
            self._take()
        finally:
            self._looking.release()

    def _take(self) -> None:
        begun = self._clock.monotonic()
        self._value = self._look()
        now = self._clock.monotonic()
        self._until = now + max(self._fresh, _SHARE * (now - begun))


class Glances:
    """What is remembered of each queue.

    Concurrency: any thread.
    """

    def __init__(self, places: Sequence[Place], clock: Clock) -> None:
        self._clock = clock
        self._glances = [Remembered(partial(self._glance, place), FRESH, clock) for place in places]
        self._names = [Remembered(partial(_names, place), FRESH, clock) for place in places]
        nothing: list[FindingRow] = []
        self._findings = [Remembered(partial(_findings, place), FRESH_FINDINGS, clock, nothing) for place in places]

    def of(self, place: Place) -> Glance:
        """Return how a queue is doing."""
        return self._glances[place.number].get()

    def names(self, place: Place) -> Sequence[str]:
        """Return the names of the mails in a queue, oldest first."""
        return self._names[place.number].get()

    def findings(self, place: Place) -> list[FindingRow]:
        """Return what the doctor found in a queue; nothing before it has ended once."""
        return self._findings[place.number].get()

    def renew(self, place: Place) -> None:
        """Look again now: something was changed."""
        self._glances[place.number].renew()
        self._names[place.number].renew()

    def look(self) -> None:
        """Look at all queues, so that the first page is quick, and wait for that."""
        for everything in (self._glances, self._names, self._findings):
            for each in everything:
                each.renew()

    def _glance(self, place: Place) -> Glance:
        admin, now = place.queue.admin, self._clock.time()
        try:
            counts, oldest = admin.count(), admin.oldest()
            board = RelayBoard(admin.processors())
        except OSError as error:
            return Glance({}, None, RelayBoard(()), (), str(error))
        minutes = merged((minute for each in board.processors for minute in each.minutes), now)
        named = {state.value: counts.get(state, 0) for state in State if state is not State.SENT}
        return Glance(named, moment(oldest, now) if oldest else None, board, minutes)


def _names(place: Place) -> list[str]:
    try:
        return list(place.queue.admin.names())
    except OSError:
        return []


def _findings(place: Place) -> list[FindingRow]:
    try:
        return finding_rows(place.queue.admin.examine())
    except OSError:  # the glance says why
        return []
