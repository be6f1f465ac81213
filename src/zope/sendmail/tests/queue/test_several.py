"""`zope.sendmail.queue.several`: what is about all of them, and what about one only."""

from __future__ import annotations

import errno
import threading
import unittest
from typing import Any
from unittest import mock

from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.terms import Terms
from zope.sendmail.queue import put
from zope.sendmail.queue.memory import MemoryQueue
from zope.sendmail.queue.several import SeveralQueues
from zope.sendmail.testing.contracts import MESSAGE


class SeveralInMemory(unittest.TestCase):
    def setUp(self) -> None:
        self.each = [MemoryQueue() for _ in range(3)]
        self.queue = SeveralQueues(self.each, "all of them")

    def wait(self, thread: threading.Thread) -> None:
        """Wait for its end; it is a fault if that does not come."""
        thread.join(300)
        self.assertFalse(thread.is_alive())


class AWait(SeveralInMemory):
    def test_ends_when_one_hears_something(self) -> None:
        """Whichever it is, also if that was before."""
        for queue in self.each:
            waiting = threading.Thread(target=self.queue.wait, args=(3600.0,), daemon=True)
            waiting.start()
            put(queue, [Envelope("s@example.org", ("one@example.org",))], MESSAGE)
            self.wait(waiting)

    def test_does_not_end_with_one_that_is_in_trouble(self) -> None:
        """The next claim tells of that; the others are heard."""

        def broken(timeout: float) -> Any:
            raise OSError(errno.EIO, "the disk is broken")

        self.each[1].wait = broken  # type: ignore[method-assign]  # its fault
        waiting = threading.Thread(target=self.queue.wait, args=(3600.0,), daemon=True)
        waiting.start()
        put(self.each[2], [Envelope("s@example.org", ("one@example.org",))], MESSAGE)
        self.wait(waiting)


class FilesThatAreBeingMade(SeveralInMemory):
    def test_are_awaited_if_they_are_in_one(self) -> None:
        """Where another process has committed many mails."""
        self.assertFalse(self.queue.awaits_files)
        self.each[2].awaits_files = True  # type: ignore[attr-defined]  # a Maildir has it
        self.assertTrue(self.queue.awaits_files)


class OneInTrouble(SeveralInMemory):
    def test_costs_no_lease_on_mail_of_another(self) -> None:
        """Be it claimed to be sent or to be given up; it raises when there is nothing else."""
        put(self.each[0], [Envelope("s@example.org", ("one@example.org",), terms=Terms(expires=1.0))], MESSAGE)
        for claim in ("claim_expired", "claim"):
            with self.subTest(claim):
                setattr(self.each[1], claim, mock.Mock(side_effect=OSError(errno.EIO, "the disk is broken")))
                [lease] = getattr(self.queue, claim)(9)
                with self.assertRaisesRegex(OSError, "broken"):
                    getattr(self.queue, claim)(9)
                lease.release()


class AllOfThem(SeveralInMemory):
    def test_have_nothing_that_is_no_mail(self) -> None:
        """Each is asked."""
        for queue in self.each:
            queue.admin.unusable = mock.Mock(side_effect=lambda: iter(()))  # type: ignore[method-assign]  # to see who is asked
        self.assertEqual(list(self.queue.admin.unusable()), [])
        for queue in self.each:
            queue.admin.unusable.assert_called_once_with()  # type: ignore[attr-defined]  # likewise


if __name__ == "__main__":
    unittest.main()
