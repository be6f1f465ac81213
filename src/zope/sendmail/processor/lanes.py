"""How many connections to a relay are worth while, from what a mail costs this process and how long its replies take.

A connection waits for its relay, and for a queue in a database, and meanwhile others work: so many are of use as fit
into the wait.  More of them only hand the interpreter to one another.  The shortest wait tells: on a busy machine the
others are those of the machine.

Until some mails have been measured, what is worth while is guessed from how far away the relay is; not for long without
a mail that was taken, for it may be near and slow.

A connection costs some round trips before its first mail, so there are no more of them than have as many mails to send
as would take that long.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from math import inf

from zope.sendmail.smtp.distances import FAR

#: So many connections are always worth while where mail waits: a relay on the same machine works while we do, and on a
#: busy machine several threads get more of it.
FEW = 4

#: So many times what fits into the shortest wait: most take longer.
_SLACK = 2.0

#: Mails after which their figures are believed: the first ones of a busy machine wait for anything.
_ENOUGH = 8

#: What a mail costs, about: seconds of a processor.
_COST = 0.0003

#: So many looks may be guesses, if no mail was taken meanwhile.
_GUESSES = 10

#: Round trips that a connection costs before its first mail, and at its end: one that is not encrypted.
_SETTING_UP = 4

#: One of so many times more connections than are worth while ends.
_TOO_MANY = 1.5


class Lanes:
    """See the module.  Concurrency: any thread."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._thread = threading.local()
        self._begin()
        #: How many processes drain the same queue, each with connections of its own.
        self.processes = 1
        #: Seconds for which the queue is waited for with each mail, at least: as with one in a database.
        self.queue_wait = 0.0
        #: How many connections are worth while, as the last look found; inf: as many as there may be.
        self.worth = inf
        #: Tells how far away the relay is, in seconds, or None as long as that is not known; None: nothing tells it.
        self.distance: Callable[[], float | None] | None = None
        self._guesses = _GUESSES
        #: The shortest wait when it was measured last; None: it was not yet.
        self._usual_wait: float | None = None
        #: Whether a mail was taken since the last look.
        self._has_news = False

    def _begin(self) -> None:
        self._measured = self._others = 0
        self._cpu = 0.0
        self._wait = inf

    def used(self, cpu: float) -> float | None:
        """Return what this thread has used of a processor since it was noted last, in seconds; None: it was not yet.

        :param cpu: what it has used in all
        """
        before: float | None = getattr(self._thread, "cpu", None)
        self._thread.cpu = cpu
        return None if before is None else cpu - before

    def note(self, mails: int, cpu: float, wait: float) -> None:
        """Take note of mails that the relay has taken.

        :param cpu: seconds of a processor that they have cost their worker, together
        :param wait: the shortest time in seconds that one has waited for its replies; inf if that is not known
        """
        with self._mutex:
            self._measured += mails
            self._cpu += cpu
            self._wait = min(self._wait, wait)

    def note_taken(self) -> None:
        """Take note that the relay has taken mails, whose time is not known yet."""
        self._has_news = True

    def note_other(self) -> None:
        """Take note of a mail of which that is not known."""
        with self._mutex:
            self._others += 1

    @property
    def few(self) -> int:
        """How many connections are always worth while where mail waits."""
        return max(1, FEW // self.processes)

    def look(self) -> None:
        """Find what is worth while from what was noted since it was found last; most of it has to be measured."""
        with self._mutex:
            has_news, self._has_news = self._has_news, False
            if self._measured + self._others >= _ENOUGH:
                is_known = self._measured > self._others and self._cpu > 0.0
                self._usual_wait = self._wait if is_known else inf
                self.worth = self._worth(self._wait, self._cpu / self._measured) if is_known else inf
                self._guesses = 0
                self._begin()
            elif self._guesses:
                self._guesses = _GUESSES if has_news else self._guesses - 1
                self.worth = self._guess() if self._guesses else inf

    def paid_by(self, mails: int) -> float:
        """Return how many connections are paid by so many mails that wait: those that are open are, in any case."""
        distance = self._distance()
        wait = self._usual_wait if self._usual_wait is not None else distance if self.are_guessed else None
        if not distance or wait is None:
            return inf
        return max(self.few, mails * wait / (_SETTING_UP * distance))

    @property
    def are_guessed(self) -> bool:
        """Whether the last look could not do more than guess, so that it is worth while to look again soon."""
        return self._guesses > 0

    def is_far(self) -> bool:
        """Return whether the relay is known to be so far away that as many as are worth while are opened at once."""
        distance = self._distance()
        return distance is not None and distance >= FAR

    def _distance(self) -> float | None:
        return None if self.distance is None else self.distance()

    def _guess(self) -> float:
        if self.distance is None:
            return inf
        distance = self.distance()  # several processes may only keep each other, and the relay, from answering at once
        return self.few if distance is None else self._worth(distance / self.processes, _COST)

    def _worth(self, wait: float, cost: float) -> float:
        """Return how many are worth while, where a mail waits for its relay, and costs, so many seconds.

        And waits for its queue.

        Most mails wait twice as long as the shortest wait tells; where other processes work as well, a worker that
        waits for nothing needs no second one.
        """
        fitting = _SLACK * (wait + self.queue_wait) / cost
        return max(self.few, fitting + (_SLACK if self.processes == 1 else 1.0))

    def are_too_many(self, connections: int) -> bool:
        """Return whether one of so many should end: they are far more than is worth while."""
        return connections > _TOO_MANY * self.worth
