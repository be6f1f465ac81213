"""A queue over MaildropHost's spool directory: other programs drop mail into it, ours waits in a Maildir within it.

``<spool>/NAME`` is other programs'; ``<spool>/.queue`` is a Maildir queue, where every mail is claimed, retried and
set aside as in any other.  What is complete is moved there (`zope.sendmail.queue.dropbox`).  Makes its directories when
it is first used.  Fails with `QueueError` where a directory cannot be trusted, otherwise as `MaildirQueue`.
"""

from __future__ import annotations

import contextlib
import heapq
import io
import itertools
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, TypeVar, cast

from zope.interface import implementer

from zope.sendmail.clock import Clock
from zope.sendmail.disk import Disk
from zope.sendmail.headers import with_message_id
from zope.sendmail.interfaces import IMailQueue, InvalidMessage, NoSuchMail, QueueError
from zope.sendmail.maildir import age_key, host_name
from zope.sendmail.queue.desk import QueuedMail
from zope.sendmail.queue.dropbox import LOCK_AGE, PRIVATE, DropBox
from zope.sendmail.queue.dropped import DroppedMail
from zope.sendmail.queue.finding import Finding
from zope.sendmail.queue.lease import MaildirLease
from zope.sendmail.queue.maildir import MaildirQueue
from zope.sendmail.queue.selection import Selection
from zope.sendmail.queue.staged import StagedMail
from zope.sendmail.queue.states import State
from zope.sendmail.retry import Schedule
from zope.sendmail.standing import MailStatus, Standing

#: What stands before the directories of a spool in the location of a queue.
PREFIX = "spool:"

#: So much of a message is looked at for its Message-Id.
_HEAD = 1024 * 1024

_T = TypeVar("_T")


def open_spool(directories: str, **options: Any) -> IMailQueue:
    """The queue over one spool directory, or over several with ``;`` between them: mail is written to the first."""
    paths = list(dict.fromkeys(path.strip() for path in directories.split(";") if path.strip()))
    if not paths:
        raise QueueError(f"{PREFIX}{directories} names no directory; write {PREFIX}/path")
    queues = [SpoolQueue(path, **options) for path in paths]
    return queues[0] if len(queues) == 1 else SpoolQueues(queues)


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
        self._dropbox = DropBox(self.spool, self.places, self.disk, self.clock, lock_age)
        self._dropped = DroppedMail(self._dropbox, self.disk)

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
        return (SpoolLease if self.add_message_id else MaildirLease)(self._claims, key, *details)

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
        return _once(heapq.merge(self._dropped.names(), super().names(), key=age_key), lambda name: name)

    def show(self, name: str) -> QueuedMail:
        """See `IMailQueue`."""
        outside = self._dropped.find(name)
        return super().show(name) if outside is None else self._dropped.show(outside)

    def read(self, name: str) -> BinaryIO:
        """See `IMailQueue`."""
        outside = self._dropped.find(name)
        return super().read(name) if outside is None else self._dropped.read(outside)

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
            yield from self._dropbox.examine()

    def _fetch(self, name: str) -> None:
        """Take in the mail of this name if it still lies outside."""
        outside = self._dropped.find(name)
        if outside is None:
            return
        with self._claims.mutex:
            if not self._made:
                self._make()
            self._dropbox.take_one(outside, self._make)


def _once(items: Iterable[_T], name: Callable[[_T], str]) -> Iterator[_T]:
    """What was taken in between the looks outside and inside was seen twice, side by side."""
    return (next(same) for _, same in itertools.groupby(items, key=name))


class SpoolLease(MaildirLease):
    """See `ILease`.  A message without Message-Id gets one, made of the mail's name."""

    @property
    def message_id(self) -> str:
        """See `ILease`."""
        return super().message_id or self._new_id

    def open(self) -> BinaryIO:
        """See `ILease`."""
        stream = super().open()
        head = stream.read(_HEAD)
        try:
            completed, _ = with_message_id(head, self._new_id)
        except InvalidMessage:  # it has something in that place, and we shall not have two
            completed = head
        if completed == head:
            stream.seek(self._start)
            return stream
        return cast("BinaryIO", io.BufferedReader(_Completed(completed, stream, self._start + len(head))))

    @property
    def _new_id(self) -> str:
        return f"{self.name}.maildrop@{host_name()}"


class _Completed(io.RawIOBase):
    """A message whose head is another one."""

    def __init__(self, head: bytes, rest: BinaryIO, start: int) -> None:
        super().__init__()
        self._head, self._rest, self._start = head, rest, start
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_CUR:
            offset += self._position
        elif whence == os.SEEK_END:
            offset += len(self._head) + self._rest.seek(0, os.SEEK_END) - self._start
        self._position = max(0, offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        size = len(buffer)
        part = self._head[self._position : self._position + size]
        if not part:
            self._rest.seek(self._start + self._position - len(self._head))
            part = self._rest.read(size)
        buffer[: len(part)] = part
        self._position += len(part)
        return len(part)


@implementer(IMailQueue)
class SpoolQueues:
    """Several spool directories as one queue: written to the first, read from all.  See `IMailQueue`."""

    def __init__(self, queues: Sequence[SpoolQueue]) -> None:
        self._queues = tuple(queues)
        self.schedule = queues[0].schedule
        self.location = PREFIX + ";".join(queue.spool for queue in queues)
        self._turn = 0

    def stage(self) -> StagedMail:
        """See `IMailQueue`."""
        return self._queues[0].stage()

    def claim(self, limit: int = 1) -> list[MaildirLease]:
        """See `IMailQueue`; oldest first within a directory, each directory in its turn.

        A directory in trouble does not keep what is in the others: it raises when there is nothing else to do.
        """
        leases: list[MaildirLease] = []
        trouble: OSError | None = None
        self._turn += 1
        for number in range(len(self._queues)):
            queue = self._queues[(self._turn + number) % len(self._queues)]
            try:
                leases.extend(queue.claim(limit - len(leases)))
            except OSError as error:
                trouble = error
        if trouble is not None and not leases:
            raise trouble
        return leases

    def wait(self, timeout: float) -> None:
        """See `IMailQueue`; only the first directory's commits ring, as only they are ours."""
        self._queues[0].wait(timeout)

    def wake(self) -> None:
        """See `IMailQueue`."""
        self._queues[0].wake()

    def next_due(self) -> float | None:
        """See `IMailQueue`."""
        known = [due for queue in self._queues if (due := queue.next_due()) is not None]
        return min(known, default=None)

    def unpark(self, relay: str, limit: int) -> int:
        """See `IMailQueue`."""
        count = 0
        for queue in self._queues:
            count += queue.unpark(relay, limit - count)
        return count

    def parked(self) -> Collection[str]:
        """See `IMailQueue`."""
        return {relay for queue in self._queues for relay in queue.parked()}

    def close(self) -> None:
        """See `IMailQueue`."""
        for queue in self._queues:
            queue.close()

    def status(self, message_id: str) -> MailStatus:
        """See `IMailQueue`."""
        known = (queue.status(message_id) for queue in self._queues)
        return min(known, key=lambda status: status.standing is Standing.UNKNOWN and not status.replies)

    def count(self) -> Mapping[State, int]:
        """See `IMailQueue`."""
        total: Counter[State] = Counter()
        for queue in self._queues:
            total.update(queue.count())
        return {state: total[state] for state in State if total[state]}

    def oldest(self) -> float | None:
        """See `IMailQueue`."""
        return min((since for queue in self._queues if (since := queue.oldest()) is not None), default=None)

    def mails(self, states: Iterable[State] = (), *arguments: Any, **more: Any) -> Iterator[QueuedMail]:
        """See `IMailQueue`."""
        states = frozenset(states)
        every = (queue.mails(states, *arguments, **more) for queue in self._queues)
        return heapq.merge(*every, key=lambda mail: age_key(mail.name))

    def names(self) -> Iterator[str]:
        """See `IMailQueue`."""
        return heapq.merge(*(queue.names() for queue in self._queues), key=age_key)

    def examine(self) -> Iterator[Finding]:
        """See `IMailQueue`."""
        for queue in self._queues:
            yield from queue.examine()

    def show(self, name: str) -> QueuedMail:
        """See `IMailQueue`."""
        return self._first(lambda queue: queue.show(name))

    def read(self, name: str) -> BinaryIO:
        """See `IMailQueue`."""
        return self._first(lambda queue: queue.read(name))

    def hold(self, name: str) -> None:
        """See `IMailQueue`."""
        self._first(lambda queue: queue.hold(name))

    def release(self, name: str) -> None:
        """See `IMailQueue`."""
        self._first(lambda queue: queue.release(name))

    def retry(self, name: str) -> None:
        """See `IMailQueue`."""
        self._first(lambda queue: queue.retry(name))

    def remove(self, name: str) -> None:
        """See `IMailQueue`."""
        self._first(lambda queue: queue.remove(name))

    def _first(self, verb: Callable[[SpoolQueue], _T]) -> _T:
        """What the queue that has the mail makes of `verb`."""
        for queue in self._queues[:-1]:
            with contextlib.suppress(NoSuchMail):
                return verb(queue)
        return verb(self._queues[-1])
