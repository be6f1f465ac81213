"""The default queue: a Maildir, shared by any number of threads, processes and releases.

What lies where, the locks, and what a crash leaves at each step stands in ``docs/internals.rst``, *MaildirQueue*.
Makes its directory when it is first used.  Fails with `ValueError` where there is something else, `QueueNotSafe`
where files cannot be locked, and `OSError` where the disk refuses.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, BinaryIO

from zope.interface import implementer

from zope.sendmail import maillog
from zope.sendmail.clock import Clock
from zope.sendmail.disk import Disk
from zope.sendmail.history import Record
from zope.sendmail.interfaces import IMailQueue
from zope.sendmail.maildir import make_maildir
from zope.sendmail.outcome import Answer, Outcome
from zope.sendmail.queue.bell import Bell, ring
from zope.sendmail.queue.desk import Desk, QueuedMail
from zope.sendmail.queue.doctor import examine
from zope.sendmail.queue.findings import Finding
from zope.sendmail.queue.index import Index
from zope.sendmail.queue.lease import MaildirLease
from zope.sendmail.queue.locks import Busy, Lock, Owner, Phase, sweep
from zope.sendmail.queue.look import Looker
from zope.sendmail.queue.places import EXTRA, Places
from zope.sendmail.queue.selection import Selection
from zope.sendmail.queue.staged import StagedMail
from zope.sendmail.queue.states import State
from zope.sendmail.queue.store import Store
from zope.sendmail.retry import Schedule, after_death

#: How many messages one `claim` looks at; the caller comes back at once if more are due.
_TRIES = 500

#: Seconds until a held message is looked at again; its release may have been told to other hosts only.
_HELD = 600.0

#: Seconds until a message that cannot be read is looked at again: at first, and at most.
_UNREADABLE = (60.0, 3600.0)


@implementer(IMailQueue)
class MaildirQueue:
    """See `IMailQueue`."""

    def __init__(
        self, path: str, *, schedule: Schedule | None = None, disk: Disk | None = None, clock: Clock | None = None
    ) -> None:
        self.location = os.path.abspath(os.fspath(path))
        self.schedule = schedule or Schedule()
        self.clock = clock or Clock()
        self.disk = disk or Disk()
        self.places = Places(self.location)
        self.store = Store(self.places, self.disk, self.clock)
        self._made = False
        self._mutex = threading.RLock()
        self._owners: weakref.WeakSet[Owner] = weakref.WeakSet()
        self._start()
        _queues.add(self)

    def _start(self) -> None:
        """Everything that belongs to one owner file.  Leases of an earlier one keep theirs."""
        self._owner = Owner(self.places, self.disk, self.clock)
        self._owners.add(self._owner)
        self._desk = Desk(self.store, self._owner, self.schedule)
        self._index = Index()
        self._looker = Looker(self.store, self._index)
        self._unsettled: list[tuple[MaildirLease, Record]] = []
        self._late: list[StagedMail] = []
        self._unreadable: dict[str, float] = {}
        #: Directories from which mail was removed and that are not synced yet, and since when there is one.
        self._removed: set[str] = set()
        self._removed_since = 0.0
        self._bell: Bell | None = None

    # the way in

    def stage(self) -> StagedMail:
        """See `IMailQueue`."""
        if not self._made:
            self._make()
        self._commit_again()
        return StagedMail(self.places, self.disk, self._late, self._make)

    def _make(self) -> None:
        """Make the directory, or see that it is whole: at first, and when a mail does not find it any more."""
        make_maildir(self.disk, self.location, EXTRA)
        self._made = True

    def _commit_again(self) -> None:
        """Reveal what was committed when the disk refused."""
        while self._late:
            try:
                self._late.pop(0).commit()
            except FileNotFoundError as error:  # somebody removed it
                self._late.pop()
                maillog.finish_failed(f"mail for the queue {self.location}", error)
            except OSError:  # it has put itself back
                return

    # the way out

    def claim(self, limit: int = 1) -> list[MaildirLease]:
        """See `IMailQueue`."""
        with self._mutex:
            if self._bell is not None and not self._owner.is_in_place():
                self._start_again()  # the directory was removed, and perhaps made again
            self._heard(self._open().wait(0.0))
            self._commit_again()
            self._settle_again()
            self._sync_removals()
            now = self.clock.monotonic()
            for orphan in self._looker.look(now):
                self._clear(orphan)
            leases: list[MaildirLease] = []
            for _ in range(_TRIES):
                key = self._index.take(now) if len(leases) < limit else None
                if key is None:
                    break
                lease = self._try(key)
                if lease is not None:
                    leases.append(lease)
            return leases

    def wait(self, timeout: float) -> None:
        """See `IMailQueue`."""
        with self._mutex:
            bell = self._open()
            self._sync_removals(at_once=True)
        self._heard(bell.wait(timeout))

    def _heard(self, keys: list[str] | None) -> None:
        """What a bell said: these messages are new or changed; an empty list: look yourself; None: nothing."""
        if keys is None:
            return
        with self._mutex:
            if not keys:
                self._looker.asked = True
            for key in keys:
                self._index.add(key)

    def wake(self) -> None:
        """See `IMailQueue`."""
        bell = self._bell
        if bell is not None:
            bell.wake()

    def next_due(self) -> float | None:
        """See `IMailQueue`."""
        with self._mutex:
            return self._index.next_due(self.clock.monotonic())

    def unpark(self, relay: str, limit: int) -> int:
        """See `IMailQueue`."""
        with self._mutex:
            return self._index.unpark(relay, limit)

    def parked(self) -> Collection[str]:
        """See `IMailQueue`."""
        with self._mutex:
            return self._index.parked()

    def close(self) -> None:
        """See `IMailQueue`."""
        with self._mutex:
            self._owner.close()
            for lease, _ in self._unsettled:
                lease.abandon()
            self._start_again()

    def _start_again(self) -> None:
        """As after opening; leases that are out keep their owner file, and with it their locks, until they end."""
        if self._bell is not None:
            self._bell.close()
        unsettled, late = self._unsettled, self._late
        self._start()
        self._unsettled, self._late = [each for each in unsettled if each[0].is_alive()], late

    # for operators

    def count(self) -> Mapping[State, int]:
        """See `IMailQueue`."""
        return self._desk.count()

    def oldest(self) -> float | None:
        """See `IMailQueue`."""
        return self._desk.oldest()

    def mails(
        self, states: Iterable[State] = (), sender: str = "", recipient: str = "", **more: Any
    ) -> Iterator[QueuedMail]:
        """See `IMailQueue`."""
        return self._desk.mails(Selection(frozenset(states), sender, recipient, **more))

    def names(self) -> Iterator[str]:
        """See `IMailQueue`."""
        return self._desk.names()

    def examine(self) -> Iterator[Finding]:
        """See `IMailQueue`."""
        return examine(self.store)

    def show(self, name: str) -> QueuedMail:
        """See `IMailQueue`."""
        return self._desk.show(name)

    def read(self, name: str) -> BinaryIO:
        """See `IMailQueue`."""
        return self._desk.read(name)

    def hold(self, name: str) -> None:
        """See `IMailQueue`."""
        self._changed(self._desk.hold(name))

    def release(self, name: str) -> None:
        """See `IMailQueue`."""
        self._changed(self._desk.release(name))

    def retry(self, name: str) -> None:
        """See `IMailQueue`."""
        self._changed(self._desk.retry(name))

    def remove(self, name: str) -> None:
        """See `IMailQueue`."""
        self._changed(self._desk.remove(name))

    def _changed(self, key: str) -> None:
        """Somebody changed what processors may have in memory."""
        with self._mutex:
            self._index.add(key)
        ring(self.places, self.disk, [key])

    # one message

    def _try(self, key: str) -> MaildirLease | None:
        """A lease on this message if it is really due; otherwise the index learns why not."""
        try:
            if not self._is_due(key, self.store.record(key)):
                return None
            lock = self._owner.take(key)
            if isinstance(lock, Busy):
                self._index.put(key, self.clock.monotonic() + lock.seconds)
                return None
            return self._lease(key, lock)
        except FileNotFoundError:
            self._index.drop(key)
        except OSError as error:
            self._skip(key, error)
        return None

    def _is_due(self, key: str, record: Record) -> bool:
        if record.state is State.HELD:
            self._index.put(key, self.clock.monotonic() + _HELD)
            return False
        wait = record.wait(self.clock.time())
        if wait > 0:
            self._index.put(key, self.clock.monotonic() + wait)
        return wait <= 0

    def _lease(self, key: str, lock: Lock) -> MaildirLease | None:
        """We have the lock.  Whatever happens here, it does not stay, unless it tells what is not written down yet."""
        try:
            record = self.store.record(key)  # again: another processor may have had it a moment ago
            if lock.lost(record.attempts) is None and not self._is_due(key, record):
                lock.release()
                return None
            lease = MaildirLease(self, key, lock, record)
        except OSError as error:
            self._give_up(key, lock, error)
            raise
        try:
            self._inherit(lease)
        except OSError:
            lease.abandon()
            lock.keep()  # nobody else may have it before this is written down
            raise
        self._unreadable.pop(key, None)
        if lease.record.state is State.REJECTED:  # its owner died between the history and the rename
            lease.settle(lease.record)
            return None
        return lease

    def _give_up(self, key: str, lock: Lock, error: OSError) -> None:
        """The message is gone, or cannot be read."""
        gone = isinstance(error, FileNotFoundError)
        if gone and lock.inherited is not None:
            self._clean_after(key)
        if gone or lock.lost(0) is None:
            lock.release()
        else:
            lock.keep()

    def _inherit(self, lease: MaildirLease) -> None:
        """If the owner before us died with the message in hand, write that down before anything else."""
        lost = lease.lock.lost(lease.record.attempts)
        if lost is None:
            return
        intended = lost is Phase.INTENDED
        envelope = lease.envelope
        record = after_death(lease.record, envelope, self.schedule, intended=intended, now=self.clock.time())
        self.store.append(lease.key, record)
        lease.record = record
        if intended:
            replies = {who: record.replies[who] for who in envelope.recipients}
            lease.inherited = Outcome(
                "", {who: reply for who, reply in replies.items() if reply.answer is Answer.UNKNOWN}
            )

    def _skip(self, key: str, error: OSError) -> None:
        """Leave it alone for a while, the longer the more often; an operator sees it, and others flow."""
        seconds = self._unreadable[key] = min(self._unreadable.get(key, _UNREADABLE[0] / 2) * 2, _UNREADABLE[1])
        maillog.skipped(key, error, seconds)
        self._index.put(key, self.clock.monotonic() + seconds)

    def _clear(self, key: str) -> None:
        """A lock without a message: finish what its owner could not."""
        try:
            lock = self._owner.take(key)
            if isinstance(lock, Lock):
                self._clean_after(key)
                lock.release()
        except OSError as error:
            self._skip(key, error)

    def _clean_after(self, key: str) -> None:
        """The owner before us died; if the message is gone, it died while it was removing what belongs to it."""
        if self.store.find(key.rpartition("/")[2]) is None:
            self.store.remove(key)

    # what leases tell

    def settled(self, key: str, record: Record) -> None:
        """A lease ended; the message is as `record` says."""
        with self._mutex:
            if record.state in (State.SENT, State.REJECTED):
                self._index.drop(key)
                if not self._removed:
                    self._removed_since = self.clock.monotonic()
                self._removed.add(key.partition("/")[0])
            elif record.state is State.HELD:
                self._index.put(key, self.clock.monotonic() + _HELD)
            else:
                self._index.put(key, self.clock.monotonic() + record.wait(self.clock.time()))

    def park(self, key: str, relay: str) -> None:
        """A lease ended because its relay cannot be used now."""
        with self._mutex:
            self._index.park(key, relay)

    def _sync_removals(self, *, at_once: bool = False) -> None:
        """Make durable that sent mail is gone: once a second while there is work, and before resting.

        So a loss of power brings back, and sends again, what was sent in the last second at most.
        """
        if self._removed and (at_once or self.clock.monotonic() - self._removed_since >= 1.0):
            for directory in list(self._removed):
                self.disk.sync_directory(os.path.join(self.location, directory))
                self._removed.discard(directory)

    def settle_later(self, lease: MaildirLease, record: Record) -> None:
        """The disk refused; try again with the next claims, and keep the lock until then."""
        with self._mutex:
            self._unsettled.append((lease, record))

    def _settle_again(self) -> None:
        again, self._unsettled = self._unsettled, []
        for lease, record in again:
            lease.settle(record)

    # making and remaking

    def _open(self) -> Bell:
        if self._bell is None:
            self._owner.open()
            sweep(self.places, self.disk, self.clock)
            self._bell = Bell(self.places, self._owner.name)
        return self._bell

    def forget_after_fork(self) -> None:
        """A forked child shares no lease, no bell and no lock with its parent."""
        for owner in list(self._owners):
            owner.forget()
        if self._bell is not None:
            self._bell.close_descriptors()
        self._mutex = threading.RLock()
        self._start()


_queues: weakref.WeakSet[MaildirQueue] = weakref.WeakSet()


def _after_fork() -> None:
    for queue in list(_queues):
        queue.forget_after_fork()


os.register_at_fork(after_in_child=_after_fork)
