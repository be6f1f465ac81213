"""A queue over MaildropHost's spool directory: other programs drop mail into it, ours waits in a Maildir within it.

``<spool>/NAME`` is other programs'; ``<spool>/.queue`` is a Maildir queue, where every mail is claimed, retried and
set aside as in any other.  What is complete is moved there (`zope.sendmail.queue.spool.dropbox`).  Makes its
directories when it is first used.  Fails with `QueueError` where a directory cannot be trusted, otherwise as
`MaildirQueue`.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, BinaryIO, TypeVar

from zope.sendmail.errors import NotPossible
from zope.sendmail.lifecycle.finding import Finding
from zope.sendmail.lifecycle.queuedmail import QueuedMail
from zope.sendmail.lifecycle.retry import Schedule
from zope.sendmail.lifecycle.selection import Selection
from zope.sendmail.lifecycle.states import State
from zope.sendmail.maildir import age_key
from zope.sendmail.queue.maildir.lease import MaildirLease
from zope.sendmail.queue.maildir.queue import MaildirQueue
from zope.sendmail.queue.spool.admin import DroppedMail
from zope.sendmail.queue.spool.dropbox import LOCK_AGE, PRIVATE, DropBox
from zope.sendmail.queue.spool.messageid import CompletedLease
from zope.sendmail.system.clock import Clock
from zope.sendmail.system.disk import Disk

#: What stands before the directories of a spool in the location of a queue.
PREFIX = "spool:"

_T = TypeVar("_T")


class SpoolQueue(MaildirQueue):
    """See `IMailQueue`.

    `lock_age`: seconds for which other programs' locks count, 0.0 for ever; `add_message_id`: a message without one
    gets one on its way out, the same at each attempt.
    """

    def __init__(
        self,
        path: str,
        *,
        schedule: Schedule | None = None,
        disk: Disk | None = None,
        clock: Clock | None = None,
        lock_age: float = LOCK_AGE,
        add_message_id: bool = False,
    ) -> None:
        self.spool = os.path.abspath(os.fspath(path))
        super().__init__(os.path.join(self.spool, PRIVATE), schedule=schedule, disk=disk, clock=clock)
        self.location = PREFIX + self.spool
        self.add_message_id = add_message_id
        self._dropbox = DropBox(self.spool, self.layout, self.disk, self.clock, lock_age)
        self._dropped = DroppedMail(self._dropbox, self.disk, self.clock)

    def claim(self, limit: int = 1) -> list[MaildirLease]:
        """See `IMailQueue`."""
        with self._claims.mutex:
            if not self._made:
                self._make()
            busy = self._claims.next_due() == 0.0
            self._claims.heard(self._dropbox.take(self._make, busy=busy) or None)
            return super().claim(limit)

    def lease(self, key: str, *details: Any) -> MaildirLease:
        """A lease that completes its message if that is wanted."""
        return (CompletedLease if self.add_message_id else MaildirLease)(self._claims, key, *details)

    # for operators: looking changes nothing; who does something to a mail takes it in first

    def count(self) -> Mapping[State, int]:
        """See `IMailQueue`."""
        counts = Counter({State.READY: self._dropped.count()})  # first: what is moved meanwhile is not missed
        counts.update(super().count())
        return {state: counts[state] for state in State if counts[state]}

    def oldest(self) -> float | None:
        """See `IMailQueue`."""
        known = (self._dropped.oldest(), super().oldest())
        return min((since for since in known if since is not None), default=None)

    def mails(
        self, states: Iterable[State] = (), sender: str = "", recipient: str = "", **more: Any
    ) -> Iterator[QueuedMail]:
        """See `IMailQueue`."""
        outside = self._dropped.mails(Selection(frozenset(states), sender, recipient, **more))
        inside = super().mails(states, sender, recipient, **more)
        return _once(heapq.merge(outside, inside, key=lambda mail: age_key(mail.name)), lambda mail: mail.name)

    def names(self) -> Iterator[str]:
        """See `IMailQueue`."""
        outside = list(self._dropped.names())  # first: what is moved meanwhile is not missed
        return _once(heapq.merge(outside, super().names(), key=age_key), lambda name: name)

    def show(self, name: str) -> QueuedMail:
        """See `IMailQueue`."""
        with contextlib.suppress(FileNotFoundError):  # a daemon took it in this moment
            if (outside := self._dropped.find(name)) is not None:
                return self._dropped.show(outside)
        return super().show(name)

    def read(self, name: str) -> BinaryIO:
        """See `IMailQueue`."""
        with contextlib.suppress(FileNotFoundError):  # a daemon took it in this moment
            if (outside := self._dropped.find(name)) is not None:
                return self._dropped.read(outside)
        return super().read(name)

    def hold(self, name: str) -> None:
        """See `IMailQueue`."""
        self._fetch(name)
        super().hold(name)

    def release(self, name: str) -> None:
        """See `IMailQueue`."""
        self._fetch(name)
        super().release(name)

    def retry(self, name: str) -> None:
        """See `IMailQueue`."""
        self._fetch(name)
        super().retry(name)

    def remove(self, name: str) -> None:
        """See `IMailQueue`."""
        self._fetch(name)
        super().remove(name)

    def examine(self) -> Iterator[Finding]:
        """See `IMailQueue`; a name that begins with ``../`` is that of a file in the spool directory."""
        yield from super().examine()
        with contextlib.suppress(OSError):
            yield from self._dropped.examine()

    def _fetch(self, name: str) -> None:
        """Take in the mail of this name if it still lies outside.  Raises `NotPossible`."""
        outside = self._dropped.find(name)
        if outside is None:
            return
        with self._claims.mutex:
            if not self._made:
                self._make()
            taken = self._dropbox.take_one(outside, self._make)
        if taken is None and self._dropped.find(name) is not None:
            raise NotPossible(f"mail {name} cannot be taken out of {self.spool}; let this user write to that directory")


def _once(items: Iterable[_T], name: Callable[[_T], str]) -> Iterator[_T]:
    """What was taken in between the looks outside and inside was seen twice, side by side."""
    return (next(same) for _, same in itertools.groupby(items, key=name))
