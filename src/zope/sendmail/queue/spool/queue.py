"""A queue over MaildropHost's spool directory: other programs drop mail into it, ours waits in a Maildir within it.

``<spool>/NAME`` is other programs'; ``<spool>/.queue`` is a Maildir queue, where every mail is claimed, retried and
set aside as in any other.  What is complete is moved there (`zope.sendmail.queue.spool.dropbox`).  Makes its
directories when it is first used.  Fails with `QueueError` where a directory cannot be trusted, otherwise as
`MaildirQueue`.
"""

from __future__ import annotations

import os
from typing import Any

from zope.sendmail.lifecycle.retry import Schedule
from zope.sendmail.queue.maildir.layout import Layout, SpoolLayout
from zope.sendmail.queue.maildir.lease import MaildirLease
from zope.sendmail.queue.maildir.queue import MaildirQueue
from zope.sendmail.queue.spool.admin import DroppedMail, SpoolAdmin
from zope.sendmail.queue.spool.dropbox import LOCK_AGE, PRIVATE, DropBox, Dropped
from zope.sendmail.queue.spool.missingid import CompletedLease
from zope.sendmail.system.clock import Clock
from zope.sendmail.system.disk import NO_ROOM, Disk
from zope.sendmail.system.trust import TrustedOwners, check_place

#: What stands before the directories of a spool in the location of a queue.
PREFIX = "spool:"


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
        self.knows_ordinary = not add_message_id
        super().__init__(os.path.join(self.spool, PRIVATE), schedule=schedule, disk=disk, clock=clock)
        self.location = PREFIX + self.spool
        self.add_message_id = add_message_id
        self._dropbox = DropBox(self.spool, self.layout, self.disk, self.clock, lock_age)
        self.admin = SpoolAdmin(
            self.store,
            lambda: self._owner,
            self.schedule,
            self._changed,
            self._give_up_bundles,
            dropped=DroppedMail(self._dropbox, self.disk, self.clock),
            take_in=self._take_in,
        )

    def claim(self, limit: int = 1, *, ahead: int = 0) -> list[MaildirLease]:
        """See `IMailQueue.claim`."""
        with self._claims.mutex:
            self._dropbox.has_room = self._make_if_there_is_room()
            busy = self._claims.next_due() == 0.0
            self._claims.heard(self._dropbox.take(self._make, busy=busy) or None)
            leases = super().claim(limit)
            if self._dropbox.is_short:
                self._claims.note_short()
            return leases

    def _make_if_there_is_room(self) -> bool:
        """Make the queue's own directories, all of them, and return whether there was room.

        Else mail is drained where it lies.
        """
        try:
            if not self._made:
                self._make()
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            return False
        return True

    def _lay_out(self) -> Layout:
        return SpoolLayout(self.spool, self.location)

    def _check_place(self) -> bool:
        """Check the path: other users write to a spool, so every part has to be ours or root's, ``.queue`` above
        all.
        """
        return check_place(self.layout.root, TrustedOwners.OURS)

    def lease(self, key: str, *details: Any) -> MaildirLease:
        """Return a lease that completes its message if that is wanted."""
        return (CompletedLease if self.add_message_id else MaildirLease)(self._claims, key, *details)

    def _take_in(self, mail: Dropped) -> str | None:
        """Move a mail that lies outside into the queue; return its key, or None if it cannot be moved."""
        with self._claims.mutex:
            self._dropbox.has_room = self._make_if_there_is_room()
            return self._dropbox.take_one(mail, self._make)
