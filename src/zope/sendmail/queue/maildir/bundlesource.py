"""The bundles that one processor drains where they lie.

Which of them there are, whose turn it is, and when files are made of one after all.  Trouble with one bundle is told in
the log.
"""

from __future__ import annotations

import contextlib
import os
from math import inf

from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.terms import Priority
from zope.sendmail.queue.maildir.bundle import gather_out, is_left, may_be_drained
from zope.sendmail.queue.maildir.bundledrain import LOOK_AGAIN, BundleDrain, BundleHost, NotHere
from zope.sendmail.queue.maildir.layout import BUNDLE, PROGRESS, WANTED, by_age
from zope.sendmail.queue.maildir.lease import MaildirLease
from zope.sendmail.queue.maildir.locks import CannotClaim, OneAtATime, Owner
from zope.sendmail.queue.maildir.unfolder import later
from zope.sendmail.reporting import maillog
from zope.sendmail.system.disk import Disk

#: So often the messages that are files come first, though a bundle is older: retries are among them.
_TURN = 4

_NORMAL = Priority.NORMAL.rank


class BundleSource:
    """Those that one processor drains.  Concurrency: with the mutex of the host held."""

    def __init__(self, host: BundleHost, owner: Owner) -> None:
        self._host = host
        self._owner = owner
        self._drains: dict[str, BundleDrain] = {}
        self._turn = 0

    def take_up(self, group: str) -> bool:
        """Begin to drain a committed group where it lies; return False if files are to be made of it.

        If dead processors have left something unclear there, that is finished first, in any case.

        :param group: relative to the queue
        """
        if group in self._drains:
            return True
        store = self._host.store
        path = os.path.join(store.layout.root, group)
        try:
            names = store.disk.names(path)
            is_free = self._host.drains_bundles and may_be_drained(names) and not _is_being_unfolded(store.disk, path)
            if not is_free and not is_left(store.disk, path):
                return False
            gather_out(store.layout, store.disk, path)
            drain = self._drains[group] = BundleDrain(self._host, self._owner, path)
            if not is_free:
                drain.give_up()
        except (OSError, NotHere):  # unfolding it says what is wrong
            return False
        return True

    def give_up(self, group: str) -> None:
        """Let files be made of a bundle: tell the processors that drain it, and finish what dead ones have left.

        Raises `OSError`.
        """
        store, now = self._host.store, self._host.store.clock.monotonic()
        path, is_new = os.path.join(store.layout.root, group), group not in self._drains
        if PROGRESS not in store.disk.names(path):
            return
        with contextlib.suppress(FileExistsError):
            store.disk.create(os.path.join(path, WANTED))
        if not self.take_up(group):
            return
        drain = self._drains[group]
        drain.give_up()
        for lease in drain.take_all(now):
            if lease.record.state is State.SENT:
                lease.settle(lease.record)
            else:
                lease.release()
        if drain.is_over(now) and drain.end(now):
            del self._drains[group]
            self._host.unfolded()
        elif is_new:
            self._drains.pop(group).close()

    def next_expiry(self) -> float:
        """Return when the next mail is to be given up, in seconds since the epoch; inf if none is."""
        return min((drain.expires for drain in self._drains.values()), default=inf)

    def expire(self, now: float) -> bool:
        """Let files be made of bundles of which a mail is to be given up; return whether there are some.

        :param now: seconds since the epoch

        Raises `OSError`.
        """
        groups = [group for group, drain in self._drains.items() if drain.expires <= now]
        for group in groups:
            self._drains[group].expires = now + LOOK_AGAIN  # mails in hand, here or elsewhere, are finished first
            with contextlib.suppress(FileNotFoundError):  # another process was faster
                self.give_up(group)
        return bool(groups)

    @property
    def are_usual(self) -> bool:
        """Whether the mails of all of them have the usual priority."""
        return not self._drains or all(drain.all_ranks == [_NORMAL] for drain in self._drains.values())

    def ranks(self) -> set[int]:
        """Return the ranks of the priorities of which there is something to do."""
        now = self._host.store.clock.monotonic()
        return {rank for drain in self._drains.values() for rank in drain.ranks(now)}

    def count(self) -> int:
        """Return about how many mails are to be given out."""
        return sum(drain.count() for drain in self._drains.values())

    def comes_before(self, key: str | None, rank: int = _NORMAL) -> bool:
        """Return whether a mail in a bundle is older than the message with this key, which has the same priority."""
        now = self._host.store.clock.monotonic()
        ages = [drain.age for drain in self._drains.values() if rank in drain.ranks(now)]
        self._turn = (self._turn + 1) % _TURN
        return bool(ages) and (key is None or (self._turn != 0 and min(ages) < by_age(key)))

    def take(self, limit: int, rank: int = _NORMAL) -> list[MaildirLease]:
        """Return leases on up to `limit` mails of the oldest bundles of a priority.  Raises `CannotClaim`."""
        now = self._host.store.clock.monotonic()
        leases: list[MaildirLease] = []
        drains = [pair for pair in self._drains.items() if rank in pair[1].ranks(now)]
        for group, drain in sorted(drains, key=lambda pair: pair[1].age):
            try:
                leases += drain.take(limit - len(leases), now, rank)
                if drain.is_over(now) and drain.end(now):
                    del self._drains[group]
                    self._host.unfolded()
            except CannotClaim as trouble:
                if not leases and not isinstance(trouble, OneAtATime):
                    raise
                break
            except OSError as error:
                maillog.group_stuck(group, error)
                drain.give_up()
                drain.try_again(now)
            if len(leases) == limit:
                break
        return leases

    def next_look(self) -> float | None:
        """Return the seconds until there may be something to do; None if there is not, before a lease ends."""
        now = self._host.store.clock.monotonic()
        soonest = min((drain.next_look(now) for drain in self._drains.values()), default=inf)
        return soonest if soonest < inf else None

    def sync(self) -> None:
        """Make durable what was sent.  Raises `OSError`."""
        for drain in self._drains.values():
            drain.progress.sync()

    def close(self) -> None:
        """Leave what is left to others: files are made of it soon."""
        drains, self._drains = list(self._drains.values()), {}
        for drain in drains:
            drain.give_up()
            drain.close()
            later(self._host.store.layout, self._host.store.disk, drain.group)

    def forget(self) -> None:
        """Close the files only, in a forked child."""
        for drain in self._drains.values():
            drain.forget()
        self._drains = {}


def _is_being_unfolded(disk: Disk, group: str) -> bool:
    """Return whether another process has begun to make files of a bundle, and did not say so in the group yet."""
    with disk.locked(os.path.join(group, BUNDLE)) as fd:
        return fd is None
