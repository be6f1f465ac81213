"""When a relay that could not be used is tried again.  The clock is a variable."""

from __future__ import annotations

import unittest

from zope.sendmail.lifecycle.outcome import Answer, Outcome, Reply
from zope.sendmail.testing.contracts import ManualClock
from zope.sendmail.transports.circuitbreaker import CircuitBreaker

DOWN = Outcome("relay", {}, Reply(Answer.DEFERRED, "refused"))
UP = Outcome("relay")


class ARelay(unittest.TestCase):
    def setUp(self) -> None:
        self.clock = ManualClock()
        self.told: list[float] = []
        self.breaker = CircuitBreaker(self.clock, lambda relay, fault, seconds: self.told.append(seconds))

    def fail(self, *_: object) -> None:  # type: ignore[override]  # a relay fails here, and no test
        """Let the relay be tried, and fail."""
        self.assertTrue(self.breaker.admits())
        self.breaker.heard(DOWN)

    def test_is_left_alone_after_a_failure(self) -> None:
        """For five seconds, then for ten."""
        self.fail()
        self.assertFalse(self.breaker.admits())
        self.clock.advance(5)
        self.fail()
        self.assertEqual((self.told, self.breaker.pause()), ([5.0, 10.0], 10.0))

    def test_is_tried_by_one_caller_after_a_pause(self) -> None:
        """The others go on as if the pause lasted."""
        self.fail()
        self.clock.advance(5)
        self.assertEqual([self.breaker.admits() for _ in range(3)], [True, False, False])

    def test_is_tried_at_once_where_an_operator_asks(self) -> None:
        """If it fails again, the next pause is as long as it would have been; one that works has no pause."""
        self.breaker.end_pause()
        self.assertTrue(self.breaker.admits())
        self.fail()
        self.breaker.end_pause()
        self.assertEqual(self.breaker.pause(), 0.0)
        self.fail()
        self.assertEqual(self.told, [5.0, 10.0])

    def test_fails_once_for_conversations_that_fail_together(self) -> None:
        """They had begun before it was known."""
        self.fail()
        for _ in range(3):
            self.breaker.heard(DOWN)
        self.assertEqual((self.told, self.breaker.failures), ([5.0], 1))

    def test_is_as_new_when_it_works(self) -> None:
        """That is told in the log; a fault of before the first failure is forgotten without a word."""
        self.fail()
        self.clock.advance(5)
        with self.assertLogs("QueueProcessorThread"):
            self.breaker.heard(UP)
        self.assertEqual((self.breaker.fault, self.breaker.pause(), self.breaker.failures), (None, 0.0, 0))
        self.breaker.fault = DOWN.fault
        self.breaker.heard(UP)
        self.assertIsNone(self.breaker.fault)
