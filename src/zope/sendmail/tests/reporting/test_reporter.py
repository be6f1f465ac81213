"""One place that logs, counts, tells and reports."""

from __future__ import annotations

import sys
import threading
import unittest

import zope.event

from zope.sendmail.lifecycle.outcome import Answer
from zope.sendmail.reporting import notifier
from zope.sendmail.reporting.reporter import Reporter, Tally
from zope.sendmail.testing.contracts import ManualClock
from zope.sendmail.tests.support.subscribing import subscribe_alone


class ATally(unittest.TestCase):
    def test_loses_nobody(self) -> None:
        """Several workers count at the same time."""
        tally, count = Tally(), 2000
        self.addCleanup(sys.setswitchinterval, sys.getswitchinterval())
        sys.setswitchinterval(1e-6)

        def work() -> None:
            for _ in range(count):
                tally.add(Answer.ACCEPTED, Answer.REJECTED)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(tally.snapshot(), {Answer.ACCEPTED: 4 * count, Answer.REJECTED: 4 * count})

    def test_gives_copies(self) -> None:
        """What is done with one changes no count."""
        tally = Tally()
        tally.add(Answer.ACCEPTED)
        tally.snapshot().clear()
        self.assertEqual(tally.snapshot(), {Answer.ACCEPTED: 1})


class WhoIsTold(unittest.TestCase):
    """Whether anybody subscribes; nothing is made for nobody."""

    def setUp(self) -> None:
        subscribe_alone(self)

    def test_a_tell_of_ones_own_is_always_heard(self) -> None:
        """Whom it tells is its own business."""
        self.assertTrue(Reporter(Tally(), lambda events: None, ManualClock()).is_heard)

    def test_subscribers_come_and_go(self) -> None:
        """The usual `tell` has them only."""
        reporter = Reporter(Tally(), notifier.tell, ManualClock())
        self.assertFalse(reporter.is_heard)
        zope.event.subscribers.append(lambda event: None)
        self.assertTrue(reporter.is_heard)


if __name__ == "__main__":
    unittest.main()
