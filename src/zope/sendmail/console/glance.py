"""What is known of a queue without asking it: how it is doing, and the names of its mails.

To count a deep queue takes a while, and the doctor takes longer.  So a page shows what was seen a few seconds ago, and
the next look is taken by a thread meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Generic, TypeVar

from zope.sendmail.console.places import Place
from zope.sendmail.console.words import FindingRow, Moment, finding_rows, moment
from zope.sendmail.lifecycle.rates import Minute, merged_minutes
from zope.sendmail.lifecycle.relaystate import RelayBoard
from zope.sendmail.lifecycle.states import State
from zope.sendmail.system.clock import Clock
from zope.sendmail.system.forklock import ForkLock

#: Seconds for which a glance and the names are good, and the doctor's findings.
FRESH, FRESH_FINDINGS = 5.0, 60.0

#: What takes long is good for so many times as long: looking costs a fortieth of a processor of the host at most, for
#: that may be wanted for sending mail.
SHARE, SHARE_OF_FINDINGS = 40, 100

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
    #: Whether there was time to look.
    is_known: bool = True

    @property
    def waiting(self) -> int:
        """How many mails are still to be sent."""
        return sum(self.counts.get(state.value, 0) for state in (State.READY, State.SENDING, State.DEFERRED))

    def in_last(self, minutes: int, now: float) -> Minute:
        """Return what ended in the last minutes, through all processors, as one."""
        first = int(now // 60) - minutes
        return reduce(Minute.plus, (each for each in self.minutes if each.minute > first), Minute(first + 1))

    @property
    def per_minute(self) -> float:
        """Mails that left in the last minute, through all living processors."""
        return round(sum(each.per_minute for each in self.board.living), 1)


@dataclass(frozen=True, slots=True)
class MailNames:
    """The names of all mails of a queue, oldest first."""

    names: Sequence[str]
    #: Whether there was time to look.
    is_known: bool = True


class Remembered(Generic[_T]):
    """Something that takes a while to find out.

    :param look: finds it out
    :param fresh: seconds for which that is good
    :param share: for so many times as long as it took it is good as well
    :param at_first: what is said until it was found out once
    :param patience: seconds for which a caller waits for that

    Concurrency: any thread; one of its own looks.  A forked child looks anew.
    """

    def __init__(
        self, look: Callable[[], _T], at_first: _T, clock: Clock, *, fresh: float, patience: float, share: int = SHARE
    ) -> None:
        self._look = look
        self._fresh = fresh
        self._share = share
        self._clock = clock
        self._value = at_first
        self._patience = patience
        self._mutex = ForkLock()
        self._thread: threading.Thread | None = None
        #: How often it was asked to look, and which of these looks has ended.
        self._asked = self._answered = 0
        self._until = float("-inf")

    def get(self) -> _T:
        """Return what was found out last; look again behind the back of the caller if that is old."""
        if self._clock.monotonic() >= self._until:
            self._ask(again=False)
        if not self._answered:
            self._wait(self._patience)
        return self._value

    def renew(self, patience: float | None = None) -> None:
        """Look again now, whatever is known; wait for that, or for so many seconds."""
        self._ask(again=True)
        self._wait(patience)

    def _ask(self, *, again: bool) -> None:
        with self._mutex:
            is_looking = self._thread is not None and self._thread.is_alive()
            if again or not is_looking:
                self._asked += 1
            if not is_looking:
                self._thread = threading.Thread(target=self._take, name="zope.sendmail.console", daemon=True)
                self._thread.start()

    def _wait(self, seconds: float | None) -> None:
        if (thread := self._thread) is not None:
            thread.join(seconds)

    def _take(self) -> None:
        """Look as often as that was asked for meanwhile."""
        while True:
            asked, begun = self._asked, self._clock.monotonic()
            self._value = self._look()
            now = self._clock.monotonic()
            self._until = now + max(self._fresh, self._share * (now - begun))
            with self._mutex:
                self._answered = asked
                if self._asked == asked:
                    self._thread = None
                    return


class GlanceCache:
    """What is remembered of each queue.

    Concurrency: any thread.
    """

    def __init__(self, places: Sequence[Place], clock: Clock, patience: float) -> None:
        self._clock = clock
        self._patience = patience

        def remembered(look: Callable[[Place], _T], fresh: float, at_first: _T) -> list[Remembered[_T]]:
            return [
                Remembered(partial(look, place), at_first, clock, fresh=fresh, patience=patience) for place in places
            ]

        self._glances = remembered(self._glance, FRESH, Glance({}, None, RelayBoard(()), (), is_known=False))
        self._names = remembered(_names, FRESH, MailNames((), is_known=False))
        self._findings: list[Remembered[list[FindingRow]]] = [
            Remembered(
                partial(_findings, place), [], clock, fresh=FRESH_FINDINGS, patience=0.0, share=SHARE_OF_FINDINGS
            )
            for place in places
        ]

    def of(self, place: Place) -> Glance:
        """Return how a queue is doing."""
        return self._glances[place.number].get()

    def names(self, place: Place) -> MailNames:
        """Return the names of the mails in a queue."""
        return self._names[place.number].get()

    def findings(self, place: Place) -> list[FindingRow]:
        """Return what the doctor found in a queue; nothing before it has ended once."""
        return self._findings[place.number].get()

    def renew(self, place: Place) -> None:
        """Look again: something was changed."""
        self._glances[place.number].renew(self._patience)
        self._names[place.number].renew(self._patience)

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
        minutes = merged_minutes((minute for each in board.processors for minute in each.minutes), now)
        named = {state.value: counts.get(state, 0) for state in State if state is not State.SENT}
        return Glance(named, moment(oldest, now) if oldest else None, board, minutes)


def _names(place: Place) -> MailNames:
    try:
        return MailNames(list(place.queue.admin.names()))
    except OSError:  # the glance says why
        return MailNames(())


def _findings(place: Place) -> list[FindingRow]:
    try:
        return finding_rows(place.queue.admin.examine())
    except OSError:  # the glance says why
        return []
