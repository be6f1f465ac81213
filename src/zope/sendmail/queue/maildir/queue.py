"""The default queue: a Maildir, shared by any number of threads, processes and releases.

What lies where, the locks, and what a crash leaves at each step stands in ``docs/explanation/internals.rst``,
*MaildirQueue*.  Makes its directory when it is first used.  Fails with `ValueError` where there is something else,
`QueueNotSafe` where files cannot be locked, and `OSError` where the disk refuses.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Collection, Sequence

from zope.interface import implementer

from zope.sendmail.interfaces import IMailQueue, IRankedQueue
from zope.sendmail.lifecycle.mailstatus import KEPT_DAYS, MailStatus, status_of
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.relaystate import ProcessorState, is_drained
from zope.sendmail.lifecycle.retry import Schedule
from zope.sendmail.maildir import make_maildir
from zope.sendmail.message.terms import Priority
from zope.sendmail.queue.maildir import latecommit, reserve
from zope.sendmail.queue.maildir.admin import MaildirAdmin
from zope.sendmail.queue.maildir.claims import Claims
from zope.sendmail.queue.maildir.firstattempts import FirstAttempts
from zope.sendmail.queue.maildir.keys import Keys
from zope.sendmail.queue.maildir.latecommit import late_commits_of
from zope.sendmail.queue.maildir.layout import EXTRA, Layout
from zope.sendmail.queue.maildir.lease import MaildirLease
from zope.sendmail.queue.maildir.liveness import LocksFolder
from zope.sendmail.queue.maildir.locks import Lock, Owner
from zope.sendmail.queue.maildir.ownerfile import sweep
from zope.sendmail.queue.maildir.processorstates import ProcessorStateFiles
from zope.sendmail.queue.maildir.ratefiles import Turns
from zope.sendmail.queue.maildir.sentlog import SentLog
from zope.sendmail.queue.maildir.spares import spares_of, sweep as sweep_spares
from zope.sendmail.queue.maildir.staging import StagedMail
from zope.sendmail.queue.maildir.store import Store
from zope.sendmail.queue.maildir.suppressionlist import MaildirSuppressions
from zope.sendmail.queue.maildir.transit import MaildirTransit
from zope.sendmail.queue.maildir.trigger import Trigger, ring
from zope.sendmail.system.clock import Clock
from zope.sendmail.system.disk import Disk
from zope.sendmail.system.trust import check_place

#: While mail is known to be due, seconds until a processor listens again whether something is new.
_BUSY = 0.02


@implementer(IMailQueue, IRankedQueue)
class MaildirQueue:
    """See `IMailQueue`."""

    #: Whether an ordinary message goes out as it is, by the short way.
    knows_ordinary = True

    def __init__(
        self,
        path: str,
        *,
        schedule: Schedule | None = None,
        disk: Disk | None = None,
        clock: Clock | None = None,
        kept_days: int = KEPT_DAYS,
    ) -> None:
        self.location = os.path.abspath(os.fspath(path))
        self.schedule = schedule or Schedule()
        self.clock = clock or Clock()
        self.kept_days = kept_days
        self.disk = disk or Disk()
        self.layout = self._lay_out()
        self.store = Store(self.layout, self.disk, self.clock)
        self._made = False
        self.keys = Keys(self.layout, self.disk, self.clock)
        self.suppressions = MaildirSuppressions(self.layout, self.disk, self.clock, self._make)
        self._states = ProcessorStateFiles(self.layout, self.disk, self.clock)
        self._turns = Turns(self.layout, self.disk, self.clock)
        self._late = late_commits_of(self.layout.root)
        self._owners: weakref.WeakSet[Owner] = weakref.WeakSet()
        self.admin = MaildirAdmin(
            self.store,
            lambda: self._owner,
            self.schedule,
            self._changed,
            self._give_up_bundles,
        )
        self._claims = Claims(
            self.store, self.schedule, self._start(), self.lease, kept_days, knows_ordinary=self.knows_ordinary
        )
        _queues.add(self)

    def _lay_out(self) -> Layout:
        """Return where everything lies."""
        return Layout(self.location)

    def _start(self) -> Owner:
        """Begin with an owner file, which is made when it is needed."""
        self._owner = Owner(self.layout, self.disk, self.clock)
        self._owners.add(self._owner)
        self._trigger: Trigger | None = None
        self._listened = float("-inf")
        return self._owner

    @property
    def transits(self) -> list[MaildirTransit]:
        """How mail is moved from and to this queue."""
        sent_log = SentLog(self.layout, self.disk, self.clock, kept_days=self.kept_days)
        return [MaildirTransit(self.admin, self.store, self.keys, sent_log, self._make)]

    def lease(self, key: str, lock: Lock, record: Record) -> MaildirLease:
        """Return a lease on a message that was locked."""
        return MaildirLease(self._claims, key, lock, record)

    def prefer(self, share: int, shares: int) -> None:
        """Claim the messages of one share first; those of others when they were not claimed for two seconds.

        Several processes that drain the queue then do not contend for the same messages.

        :param share: this process's, from 0 on
        :param shares: how many processes there are
        """
        self._claims.share.prefer(share, shares)

    def drain_bundles(self) -> None:
        """Send the mails of large transactions from the files in which they were committed together.

        For a processor with one relay: for the sake of another relay, files would have to be made while this one is
        slow.
        """
        self._claims.drains_bundles = True

    # the way in

    def stage(self) -> StagedMail:
        """See `IMailQueue.stage`."""
        if not self._made:
            self._make()
        self._late.reveal()
        return StagedMail(
            self.layout, self.disk, self._late, spares_of(self.layout.root), keys=self.keys, make=self._make
        )

    def _make(self) -> None:
        """Make the directory, or see that it is whole: at first, and when a mail does not find it any more."""
        self._check_place()
        is_new = make_maildir(self.disk, self.layout.root, EXTRA)
        self._made = self._check_place()  # once more: another user may have been faster than we
        if is_new:
            reserve.make(self.layout, self.disk)

    def _check_place(self) -> bool:
        """Refuse a place where other users can get at mail; return whether it has to be looked at once only."""
        check_place(self.layout.root)
        return True

    # the way out

    def claim(self, limit: int = 1, *, ahead: int = 0) -> list[MaildirLease]:
        """See `IMailQueue.claim`.  Claims nothing `ahead`: a claim is a system call here, and no journey."""
        with self._claims.mutex:
            self._late.reveal()
            self._claims.unsettled.settle_again()
            leases: list[MaildirLease] = []
            is_busy = self._trigger is not None and self.clock.monotonic() - self._listened < _BUSY
            self._hear_bell()
            if is_busy and self._claims.is_usual():  # else what has come meanwhile may go first
                leases = self._claims.take(limit)
            if not leases:
                self._listen()
                leases = self._claims.take(limit)
            return leases

    def has_before(self, priority: Priority) -> bool:
        """See `IRankedQueue.has_before`.  Costs a system call, since the bell may be ringing."""
        claims, trigger = self._claims, self._trigger
        if priority is Priority.NORMAL and claims.are_alike:
            if not claims.mutex.acquire(blocking=False):  # the one that has it learns what is new, if it claims
                return False
            try:
                if trigger is None or not trigger.is_ringing():
                    return False
            finally:
                claims.mutex.release()
        with claims.mutex:
            self._hear_bell()
            return claims.has_before(priority.rank)

    def _hear_bell(self) -> None:
        """Learn what the bell says, if it is ringing."""
        trigger = self._trigger
        if trigger is not None and trigger.is_ringing():
            self._claims.hear(trigger.wait(0.0))

    def claim_expired(self, limit: int = 100) -> list[MaildirLease]:
        """See `IMailQueue.claim_expired`."""
        with self._claims.mutex:
            self._listen()
            return self._claims.take_expired(limit)

    def next_expiry(self) -> float | None:
        """See `IMailQueue.next_expiry`."""
        with self._claims.mutex:
            return self._claims.next_expiry()

    def _listen(self) -> None:
        """Learn what is new."""
        if self._trigger is not None and not self._owner.is_in_place():
            self._start_again()  # the directory was removed, and perhaps made again
        self._claims.heard(self._open().wait(0.0))
        self._claims.sync_removals()
        self._claims.look()
        self._listened = self.clock.monotonic()

    def wait(self, timeout: float) -> None:
        """See `IMailQueue.wait`."""
        self._claims.sweeper.flush()
        with self._claims.mutex:
            trigger = self._open()
            self._claims.sync_removals(at_once=True)
        keys = trigger.wait(timeout)
        with self._claims.mutex:
            self._claims.heard(keys)

    def wake(self) -> None:
        """See `IMailQueue.wake`."""
        trigger = self._trigger
        if trigger is not None:
            trigger.wake()

    def next_due(self) -> float | None:
        """See `IMailQueue.next_due`.  What waits for room has it when all that was sent is removed."""
        if self._claims.wants_room:
            self._claims.sweeper.flush()
        with self._claims.mutex:
            return self._claims.next_due()

    def count_due(self, limit: int) -> int:
        """Return about how many messages are due, counted up to so many."""
        with self._claims.mutex:
            return self._claims.count_due(limit)

    @property
    def processes(self) -> int:
        """How many processes share the messages, as `prefer` was told."""
        return self._claims.share.shares

    @property
    def awaits_files(self) -> bool:
        """Whether another process is making files of committed mail, as the last claim has seen; they are due then."""
        with self._claims.mutex:
            return self._claims.awaits_files

    def unpark(self, relay: str, limit: int) -> int:
        """See `IMailQueue.unpark`."""
        with self._claims.mutex:
            return self._claims.unpark(relay, limit)

    def parked(self) -> Collection[str]:
        """See `IMailQueue.parked`."""
        with self._claims.mutex:
            return self._claims.parked()

    def first_attempts(self) -> FirstAttempts:
        """See `IMailQueue.first_attempts`."""
        owner = Owner(self.layout, self.disk, self.clock)
        self._owners.add(owner)
        sent_log = SentLog(self.layout, self.disk, self.clock, kept_days=self.kept_days)
        return FirstAttempts(self.store, owner, sent_log, lambda keys: ring(self.layout, self.disk, keys))

    def close(self) -> None:
        """See `IMailQueue.close`."""
        self._claims.sweeper.flush()
        with self._claims.mutex:
            with contextlib.suppress(OSError):  # then a loss of power may bring back what was sent last
                self._claims.sync_removals(at_once=True)
            self._claims.leave_bundles()
            self._owner.close()
            self._claims.unsettled.abandon()
            self._start_again()

    def _start_again(self) -> None:
        """Begin anew; leases that are out keep their owner file, and with it their locks, until they end."""
        if self._trigger is not None:
            self._trigger.close()
        self._claims.begin(self._start())

    def _open(self) -> Trigger:
        if self._trigger is None:
            self._check_place()
            self._owner.open()
            with contextlib.suppress(FileNotFoundError):  # there was no room for the directory
                sweep(self.layout, self.disk, self._owner.made, self._owner.may_live)
            sweep_spares(self.layout, self.disk)
            if not self._owner.is_ownerless:
                reserve.make(self.layout, self.disk)
            self._trigger = Trigger(self.layout, self._owner.name)
        return self._trigger

    def is_attended(self) -> bool:
        """Say whether this queue is drained: by a processor that lives, or by passes."""
        now = self.clock.time()
        return bool(LocksFolder.at(self.layout, self.disk, now).processors) or is_drained(self.admin.processors(), now)

    def status(self, message_id: str) -> MailStatus:
        """See `IMailQueue.status`.  Reads the heads of mails that came since it was asked last."""
        mails = self.admin.with_message_id(message_id)
        sent = self._claims.sent_log.find(message_id)
        return status_of(message_id, mails, sent, self.kept_days, now=self.clock.time())

    def report(self, state: ProcessorState) -> None:
        """See `IMailQueue.report`."""
        if not self._owner.is_ownerless:  # what is free is needed for the locks of mails
            self._states.write(self._owner.name, state)

    def probe_asked(self, relay: str) -> float:
        """See `IMailQueue.probe_asked`."""
        return self._states.probe_asked(relay)

    def take_turns(self, relay: str, rate: float, count: int) -> float:
        """See `IMailQueue.take_turns`.  For the processes that have this directory on a disk of theirs."""
        if not self._made:
            self._make()
        return self._turns.take(relay, rate, count)

    def _give_up_bundles(self, groups: Sequence[str]) -> None:
        """Let files be made of bundles that are drained where they lie."""
        self._claims.give_up_bundles(groups)

    def _changed(self, key: str) -> None:
        """Take note that an operator has changed what processors may have in memory."""
        if key:
            with self._claims.mutex:
                self._claims.heard([key])
        ring(self.layout, self.disk, [key] if key else [])

    def forget_after_fork(self) -> None:
        """Share no lease, no trigger and no lock with the parent, in a forked child."""
        for owner in list(self._owners):
            owner.forget()
        if self._trigger is not None:
            self._trigger.close_descriptors()
        self._late = late_commits_of(self.layout.root)
        self._claims.forget_after_fork(self._start())


_queues: weakref.WeakSet[MaildirQueue] = weakref.WeakSet()


def _after_fork() -> None:
    latecommit.forget_after_fork()
    for queue in list(_queues):
        queue.forget_after_fork()


os.register_at_fork(after_in_child=_after_fork)
