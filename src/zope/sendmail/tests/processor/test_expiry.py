"""Rejected mail that was kept for long enough."""

from __future__ import annotations

from zope.sendmail.lifecycle.states import State
from zope.sendmail.testing.contracts import NEVER
from zope.sendmail.tests.support.processing import ProcessorTest

DAY = 86400.0


class RejectedMail(ProcessorTest):
    def reject(self) -> None:
        self.mailer.answers = lambda recipient: NEVER
        self.put()
        self.drain()

    def rejected(self) -> int:
        return int(self.queue.admin.count().get(State.REJECTED, 0))

    def test_stays_until_an_operator_removes_it(self) -> None:
        """By default."""
        self.reject()
        self.drain(400 * DAY)
        self.assertEqual(self.rejected(), 1)

    def test_expires_if_that_is_wanted(self) -> None:
        """By a pass, or by a processor that rests; what is younger stays."""
        self.processor = self.make_processor(keep_rejected=30 * DAY)
        self.reject()
        self.drain(20 * DAY)
        self.reject()
        self.assertEqual(self.rejected(), 2)
        self.drain(11 * DAY)
        self.assertEqual(self.rejected(), 1)
        self.drain(20 * DAY)
        self.assertEqual(self.rejected(), 0)
