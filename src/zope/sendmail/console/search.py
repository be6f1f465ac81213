"""Which mails fit a filter: a thread looks for them, and pages show what it has found so far.

To read 100,000 mails takes seconds, and a page does not wait so long.  What was found is good for a while, like all
that `zope.sendmail.console.glance` remembers; each mail is looked at again before it is shown or changed.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from math import inf
from typing import Any

from zope.sendmail.console.glance import FRESH, SHARE
from zope.sendmail.console.mailfilter import Filter
from zope.sendmail.console.places import Place
from zope.sendmail.system.clock import Clock
from zope.sendmail.system.forklock import ForkLock

#: So many searches are remembered.
_MOST = 16


class Search:
    """The mails that fit a filter, as they are found.

    :param until: only mails that were written before this moment, in seconds since the epoch

    Concurrency: any thread.
    """

    def __init__(self, place: Place, chosen: Filter, until: float, clock: Clock) -> None:
        self._place = place
        self._chosen = chosen
        self._until = until
        self._clock = clock
        self._more = threading.Condition()
        self._good_until = inf
        #: The names of those that were found, oldest first.
        self.names: list[str] = []
        #: Whether these are all.
        self.is_done = False
        threading.Thread(target=self._run, name="zope.sendmail.console", daemon=True).start()

    @property
    def is_old(self) -> bool:
        """Whether it is time to search again."""
        return self._clock.monotonic() >= self._good_until

    def wait(self, count: int, seconds: float | None) -> None:
        """Wait until so many were found, or all, for so many seconds at most."""
        with self._more:
            self._more.wait_for(lambda: self.is_done or len(self.names) >= count, seconds)

    def _run(self) -> None:
        begun = self._clock.monotonic()
        try:
            for mail in self._chosen.mails(self._place.queue.admin, self._clock.time(), self._until):
                with self._more:
                    self.names.append(mail.name)
                    self._more.notify_all()
        except OSError:  # the overview says why
            pass
        finally:
            now = self._clock.monotonic()
            with self._more:
                self._good_until = now + max(FRESH, SHARE * (now - begun))
                self.is_done = True
                self._more.notify_all()


class RunningSearches:
    """The searches of one console.  Concurrency: any thread; a forked child searches anew."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._mutex = ForkLock()
        #: The last one of each kind that has found all, or is the first; and the one that follows it.
        self._known: OrderedDict[Any, list[Search]] = OrderedDict()

    def of(self, place: Place, chosen: Filter, until: float = inf) -> Search:
        """Return the search for these mails.

        One that was made for a moment (`until`) is not repeated; any other one is, behind the back of the caller.
        """
        key = (os.getpid(), place.number, tuple(sorted(chosen.values.items())), until)
        with self._mutex:
            known = self._known.setdefault(key, [])
            self._known.move_to_end(key)
            if not known or (until == inf and len(known) == 1 and known[0].is_old):
                known.append(Search(place, chosen, until, self._clock))
            if len(known) > 1 and known[1].is_done:
                del known[0]
            while len(self._known) > _MOST:
                self._known.popitem(last=False)
            return known[0]

    def forget(self, place: Place) -> None:
        """Search anew: something was changed."""
        with self._mutex:
            for key in [each for each in self._known if each[1] == place.number and each[3] == inf]:
                del self._known[key]
