"""`zope.sendmail.queue.maildir.bystanders`: how busy the other threads of a process are."""

from __future__ import annotations

import threading
import unittest

from zope.sendmail.queue.maildir.bystanders import Bystanders
from zope.sendmail.testing.contracts import ManualClock


class Used(ManualClock):
    """A process whose threads use what the test says."""

    def __init__(self) -> None:
        super().__init__()
        self.process = 0.0
        self.threads: dict[int, float] = {}

    def cpu(self) -> float:
        """See `Clock.cpu`."""
        return self.process

    def thread_cpu(self) -> float:
        """See `Clock.thread_cpu`."""
        return self.threads.get(threading.get_ident(), 0.0)

    def use(self, seconds: float) -> None:
        """Let the calling thread use so much."""
        self.process += seconds
        self.threads[threading.get_ident()] = self.thread_cpu() + seconds


class OtherThreads(unittest.TestCase):
    def setUp(self) -> None:
        self.clock = Used()
        self.process = Bystanders(self.clock)
        self.clock.use(5.0)
        self.process.note()

    def after(self, seconds: float, *, ours: float, others: float) -> bool:
        """Return whether they are busy when that has been used within so many seconds."""
        self.clock.advance(seconds)
        self.clock.use(ours)
        self.clock.process += others
        self.process.note()
        return self.process.are_busy

    def test_that_do_nothing(self) -> None:
        """Are not busy, whatever we use ourselves."""
        self.assertFalse(self.after(1.0, ours=0.9, others=0.0))

    def test_that_compute(self) -> None:
        """Are busy from a tenth of a processor on, until they have done."""
        self.assertEqual([self.after(1.0, ours=0.5, others=used) for used in (0.05, 0.2, 0.05)], [False, True, False])

    def test_for_a_moment(self) -> None:
        """Are not asked about; it is added up."""
        self.assertEqual([self.after(0.02, ours=0.0, others=0.02) for _ in range(3)], [False, False, True])

    def test_of_ours(self) -> None:
        """Do not count, nor what they used before they told of themselves for the first time."""

        def work() -> None:
            for _ in range(2):
                self.clock.use(0.5)
                self.process.note()

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        self.assertFalse(self.after(1.0, ours=0.0, others=0.0))

    def test_after_a_fork(self) -> None:
        """Are others: what was before says nothing."""
        self.clock.advance(1.0)
        self.clock.process += 1.0
        self.process.note()
        self.process.forget_after_fork()
        self.assertFalse(self.process.are_busy)
        self.process.note()
        self.assertFalse(self.after(1.0, ours=0.0, others=0.0))


if __name__ == "__main__":
    unittest.main()
