"""`zope.sendmail.processor.worker`: a conversation in steps, which another thread may take, or none any more."""

from __future__ import annotations

import unittest
from collections.abc import Generator
from typing import Any

from zope.sendmail.interfaces import IJobSource
from zope.sendmail.lifecycle.outcome import Answer, Outcome, Reply
from zope.sendmail.lifecycle.states import State
from zope.sendmail.processor.worker import Worker
from zope.sendmail.tests.support.processing import ProcessorTest

YES = Reply(Answer.ACCEPTED, "ok", 250)


class WaitingSession:
    """A session that waits for its relay after each mail.  `intends`: whether it says before that its mail may go."""

    relay = "relay:25"

    def __init__(self, *, intends: bool = True) -> None:
        self.intends = intends
        self.closed = 0

    def stream_in_steps(self, jobs: IJobSource) -> Generator[Any, Any, None]:
        while (job := jobs.next()) is not None:
            if self.intends:
                job.intend()
            source: Any = jobs
            source.meanwhile()
            yield 5
            yield job, Outcome(self.relay, dict.fromkeys(job.envelope.recipients, YES))

    def close(self) -> None:
        self.closed += 1


class AWorker(ProcessorTest):
    def begin(self, session: Any, claim_ahead: Any = lambda: None) -> Generator[Any, Any, None]:
        """Begin a conversation about what is in the queue, and return its steps: it waits for its relay."""
        self.processor_run = self.new_run()
        relay = self.processor.relays.default
        self.worker = Worker(self.processor_run.pool._context, relay, session, self.mailer)

        def claim() -> Any:
            return self.processor_run.dispatcher.next_for(relay, self.processor_run.pool.call, self.worker.convoy)

        steps = self.worker.steps(claim, claim_ahead)
        self.assertEqual(next(steps), 5)
        return steps

    def test_that_is_left_with_a_mail_at_its_relay(self) -> None:
        """What became of the mail is unknown, and written down; it is not as if untried."""
        [name] = self.put()
        session = WaitingSession()
        with self.assertLogs("QueueProcessorThread", "ERROR"):
            self.begin(session).close()
        [record] = self.queue.admin.show(name).history
        self.assertEqual({reply.answer for reply in record.replies.values()}, {Answer.UNKNOWN})
        self.assertEqual(session.closed, 1)

    def test_that_is_left_before_its_mail_could_go(self) -> None:
        """The mail stays as if untried."""
        [name] = self.put()
        self.begin(WaitingSession(intends=False)).close()
        self.assertEqual((self.queue.admin.show(name).history, self.queue.admin.count()), ((), {State.READY: 1}))

    def test_that_cannot_claim_ahead(self) -> None:
        """Is met by the trouble with its next claim, and not with the mail in hand."""

        def fail() -> None:
            raise OSError("the disk is broken")

        self.put()
        steps = self.begin(WaitingSession(), fail)
        self.assertEqual(list(steps), [])
        self.assertEqual(self.queue.admin.count(), {})


if __name__ == "__main__":
    unittest.main()
