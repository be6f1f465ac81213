"""What operators count is right although histories are not read again."""

from __future__ import annotations

import errno
import os
import tempfile
import unittest
from unittest import mock

from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.queue.maildir import MaildirQueue
from zope.sendmail.queue.maildir.store import Store


class CountingAgain(unittest.TestCase):
    def setUp(self) -> None:
        self.path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "queue")
        self.queue, self.other = MaildirQueue(self.path), MaildirQueue(self.path)
        self.addCleanup(self.queue.close)
        self.addCleanup(self.other.close)
        staged = self.queue.stage()
        self.names = [staged.add(Envelope("a@example.org", ("b@example.org",)), b"Subject: x\n\n") for _ in range(4)]
        staged.prepare()
        staged.commit()
        for name in self.names:
            self.other.admin.hold(name)

    def test_reads_no_history_twice(self) -> None:
        """Only those that have changed, whichever process did it."""
        self.assertEqual(self.queue.admin.count(), {State.HELD: 4})
        with mock.patch.object(Store, "record", autospec=True, side_effect=Store.record) as read:
            self.assertEqual(self.queue.admin.count(), {State.HELD: 4})
            self.assertEqual(read.call_count, 0)
            self.other.admin.release(self.names[0])
            read.reset_mock()
            self.assertEqual(self.queue.admin.count(), {State.READY: 1, State.HELD: 3})
            self.assertEqual(read.call_count, 1)

    def test_forgets_what_has_gone(self) -> None:
        """A mail of the same name, which a backup brings back, is read anew."""
        self.assertEqual(self.queue.admin.count(), {State.HELD: 4})
        history = os.path.join(self.path, "history", self.names[0])
        os.rename(history, history + ".away")
        self.assertEqual(self.queue.admin.count(), {State.READY: 1, State.HELD: 3})
        os.rename(history + ".away", history)
        self.assertEqual(self.queue.admin.count(), {State.HELD: 4})

    def test_asks_again_for_what_the_disk_refuses(self) -> None:
        """It counts as if it had no history until the disk gives it, and no longer."""
        refused = OSError(errno.EIO, os.strerror(errno.EIO))
        with mock.patch.object(Store, "record", side_effect=refused):
            self.assertEqual(self.queue.admin.count(), {State.READY: 4})
        self.assertEqual(self.queue.admin.count(), {State.HELD: 4})
        stat = self.queue.disk.stat

        def without_histories(path: str) -> os.stat_result:
            if "/history/" in path:
                raise refused
            return stat(path)

        with mock.patch.object(self.queue.disk, "stat", side_effect=without_histories):
            self.assertEqual(self.queue.admin.count(), {State.READY: 4})

    def test_is_right_beyond_what_is_kept_in_mind(self) -> None:
        """Of very many mails, the others are read each time."""
        with mock.patch("zope.sendmail.queue.maildir.laststates._MOST", 2):
            for _ in range(2):
                self.assertEqual(self.queue.admin.count(), {State.HELD: 4})
            self.other.admin.release(self.names[0])
            self.assertEqual(self.queue.admin.count(), {State.READY: 1, State.HELD: 3})
