"""Mail of a Maildir queue whose first attempt is made by the process that commits it: direct delivery.

The locks are taken before the mails are there, so no processor is faster.  They belong to an owner file of their own,
so after a death everything is as after that of a processor.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from zope.interface import implementer

from zope.sendmail.interfaces import IFirstAttempts
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.states import State
from zope.sendmail.queue.maildir.lease import MaildirLease
from zope.sendmail.queue.maildir.locks import Lock, Owner
from zope.sendmail.queue.maildir.sentlog import SentLog
from zope.sendmail.queue.maildir.store import UNTRIED, Store
from zope.sendmail.reporting import maillog


@implementer(IFirstAttempts)
class FirstAttempts:
    """See `IFirstAttempts`.

    :param told: is given the keys of mails that are left to processors.
    """

    def __init__(self, store: Store, owner: Owner, sent_log: SentLog, told: Callable[[list[str]], object]) -> None:
        self.store = store
        self.sent_log = sent_log
        self._owner = owner
        self._told = told
        self._locks: dict[str, Lock] = {}
        #: Whether a mail was sent and removed, which is not durable yet.
        self._has_removed = False

    def commit(self, staged: Any) -> None:
        """See `IFirstAttempts`."""
        names = staged.names
        for name in names:
            self._lock(name)
        try:
            staged.commit()
        except OSError:
            for name in names:
                self.leave(name)
            raise

    def _lock(self, name: str) -> None:
        """Lock a mail if that is possible; else it is the processors'."""
        try:
            lock = self._owner.take(_key(name))
        except OSError as error:
            maillog.left_to_processors(name, error)
            return
        if isinstance(lock, Lock):
            self._locks[name] = lock

    def claim(self, name: str) -> MaildirLease | None:
        """See `IFirstAttempts`."""
        lock = self._locks.pop(name, None)
        if lock is None:
            return None
        try:
            return MaildirLease(self, _key(name), lock, UNTRIED)
        except OSError as error:
            maillog.left_to_processors(name, error)
            self._release(name, lock)
            return None

    def leave(self, name: str) -> None:
        """See `IFirstAttempts`."""
        lock = self._locks.pop(name, None)
        if lock is not None:
            self._release(name, lock)

    def _release(self, name: str, lock: Lock) -> None:
        try:
            lock.release()
        except OSError as error:
            maillog.unlocking_failed(name, error)

    def close(self) -> None:
        """See `IFirstAttempts`."""
        for name in list(self._locks):
            self.leave(name)
        if self._has_removed:
            with contextlib.suppress(OSError):  # then a loss of power may bring back what was sent
                self.store.disk.sync_directory(self.store.layout.new)
        self._owner.close()
        self.sent_log.close()

    # what leases tell; see `zope.sendmail.queue.maildir.lease.LeaseHolder`

    def settled(self, key: str, record: Record) -> None:
        """Let processors know of a mail that stays; remember one that has left."""
        if record.state is State.SENT:
            self._has_removed = True
        else:
            self._told([key])

    def settle_later(self, lease: MaildirLease, record: Record, error: OSError) -> None:
        """Leave the lock to the processor that finds its owner gone: what was done stands in the owner file."""
        maillog.settling_failed(lease.name, error)
        lease.abandon()
        lease.lock.keep()

    def park(self, key: str, relay: str, patience: float) -> None:
        """Do nothing: nothing is parked here."""

    def give_way(self, lease: MaildirLease, relay: str, patience: float) -> bool:
        """Return False: nothing is parked here."""
        return False


def _key(name: str) -> str:
    return f"new/{name}"
