"""What operators count is right although histories are not read again."""

from __future__ import annotations

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
