"""`zope.sendmail.smtp.pipeline`: the next mail is pulled and read while the relay is waited for, over real sockets."""

from __future__ import annotations

import io
import threading
import unittest
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from zope.sendmail.config.settings import Keep, Tls
from zope.sendmail.interfaces import LeaseLost
from zope.sendmail.lifecycle.outcome import Answer, Outcome
from zope.sendmail.lifecycle.retry import Schedule
from zope.sendmail.lifecycle.states import State
from zope.sendmail.mailer import SMTPMailer
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.processor.thread import QueueProcessorThread
from zope.sendmail.queue.memory import MemoryQueue
from zope.sendmail.smtp.pipeline import Result
from zope.sendmail.smtp.protocol.body import WINDOW
from zope.sendmail.testing.contracts import ManualClock
from zope.sendmail.testing.relay import Drop, Hang
from zope.sendmail.tests.smtp.test_pipeline import Job, Streams
from zope.sendmail.tests.support.conversation import MESSAGE, TIMEOUTS, Jobs

#: Offers with which no envelope goes with the end of the mail before.
NO_OVERLAP = (["8BITMIME"], ["CHUNKING", "8BITMIME"])


class _Unreadable(io.BytesIO):
    """Its second half cannot be read at first."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads == 2:
            raise OSError("the disk fails")
        return super().read(len(MESSAGE) // 2)


class UnreadableJob(Job):
    def open(self) -> io.BytesIO:
        """See `IJob`."""
        return _Unreadable(MESSAGE)


@dataclass
class _Telling(Job):
    opened: Callable[[], object] = lambda: None

    def open(self) -> BinaryIO:
        """See `IJob`."""
        self.opened()
        return super().open()


class Ahead(Streams):
    def setUp(self) -> None:
        super().setUp()
        self.log: list[str] = []
        self.intended_by: list[str] = []
        self.is_open: defaultdict[str, threading.Event] = defaultdict(threading.Event)

    def jobs(self, *names: str) -> Iterator[Job]:
        """Jobs that tell when they are pulled, and when they are intended."""
        return self.pulled([self.job(name) for name in names], self.log)

    def job(self, name: str, intend: Callable[[], None] = lambda: None, **options: Any) -> Job:
        def noted() -> None:
            self.intended_by.append(name)
            intend()

        return _Telling(name, intend=noted, opened=self.is_open[name].set, **options)

    def in_thread(self, work: Callable[[], object]) -> threading.Thread:
        thread = threading.Thread(target=work)
        thread.start()
        self.addCleanup(thread.join, 60.0)
        return thread


class TheRelayIsWaitedFor(Ahead):
    def test_next_one_is_pulled(self) -> None:
        """It is opened before the reply comes, and not intended; with the first mail of a connection nobody is."""
        for keywords in NO_OVERLAP:
            with self.subTest(keywords):
                self.log, self.intended_by = [], []
                self.is_open.clear()
                relay, session = self.open(keywords=keywords)
                first, second = (relay.on("DOT", Hang(), nth=nth) for nth in (1, 2))
                results: list[tuple[Any, Result]] = []
                jobs = self.jobs("one", "two", "three")
                thread = self.in_thread(lambda to=results, of=jobs, by=session: to.extend(by.stream(Jobs(of))))  # type: ignore[misc]  # bound in this round
                self.assertTrue(first.reached.wait(300))
                self.assertEqual(self.log, ["one"])
                first.release()
                self.assertTrue(second.reached.wait(300))
                self.assertTrue(self.is_open["three"].wait(300))
                self.assertEqual(self.intended_by, ["one", "two"])
                second.release()
                thread.join(300)
                self.assertTaken({job.name: result for job, result in results}, "one", "two", "three")
                self.assertEqual(self.intended_by, ["one", "two", "three"])
                self.assertEqual((len(relay.mails), len(relay.dialogues)), (3, 1))

    def test_slow_relay_keeps_nobody_waiting(self) -> None:
        """If the mail before took a second, a job is pulled after the outcome of the one in hand was taken."""
        for keywords in NO_OVERLAP:
            with self.subTest(keywords):
                self.log = []
                _, session = self.open(keywords=keywords)
                jobs = [self.job(f"{n}", intend=lambda: self.clock.advance(1.0)) for n in range(4)]
                for job, _ in session.stream(Jobs(self.pulled(jobs, self.log))):
                    self.assertEqual(self.log[-1], cast("Job", job).name)

    def test_large_and_small_ones(self) -> None:
        """Each arrives as it is, whatever was read of it ahead."""
        for keywords in NO_OVERLAP:
            relay, session = self.open(keywords=[*keywords, "SIZE 10000000"])
            large = b"Subject: x\r\n\r\n" + b".y" * 38 + b"\r\n" * WINDOW * 2
            jobs = [Job(f"n{number}", message=MESSAGE if number % 3 else large) for number in range(7)]
            self.assertTaken(self.send(session, *jobs), *(job.name for job in jobs))
            self.assertEqual([mail.data for mail in relay.mails], [job.message for job in jobs])


class OneOfThemHasTrouble(Ahead):
    def test_pulling_fails(self) -> None:
        """What it raises comes in its turn."""

        def jobs() -> Iterator[Job]:
            yield from self.jobs("one", "two")
            raise OSError("the queue is gone")

        for keywords in NO_OVERLAP:
            _, session = self.open(keywords=keywords)
            results = session.stream(Jobs(jobs()))
            self.assertTaken({"one": next(results)[1], "two": next(results)[1]}, "one", "two")
            with self.assertRaises(OSError):
                next(results)

    def test_it_cannot_be_sent(self) -> None:
        """An unreadable message, a lost lease, an address or a size that the relay does not take: the others go."""

        def lost() -> None:
            raise LeaseLost("somebody else has it")

        bad = {
            "open": Job("bad", message=OSError("the disk fails")),
            "read": UnreadableJob("bad"),
            "lease": Job("bad", intend=lost),
            "size": Job("bad", message=b"x" * 2000),
            "address": Job("b\xe4d"),
        }
        for keywords in NO_OVERLAP:
            for case, job in bad.items():
                with self.subTest(keywords=keywords, case=case):
                    relay, session = self.open(keywords=[*keywords, "SIZE 1000"])
                    results = self.send(session, "one", "two", job, "four", "five")
                    self.assertTaken(results, "one", "two", "four", "five")
                    self.assertEqual(len(relay.mails), 4)
                    result = results[job.name]
                    if case in ("size", "address"):
                        self.assertEqual(
                            [reply.answer for reply in cast("Outcome", result).replies.values()], [Answer.REJECTED]
                        )
                    else:
                        self.assertIsInstance(result, LeaseLost if case == "lease" else OSError)

    def test_relay_dies_before_the_reply(self) -> None:
        """Who was in hand is unknown; who was pulled goes over another connection, once."""
        for keywords in NO_OVERLAP:
            with self.subTest(keywords):
                self.intended_by = []
                relay, session = self.open(keywords=keywords)
                relay.on("DOT", Drop(), nth=2)
                results = {
                    cast("Job", job).name: result for job, result in session.stream(Jobs(self.jobs("a", "b", "c")))
                }
                self.assertTaken(results, "a", "c")
                self.assertAnswers(cast("Outcome", results["b"]), b=Answer.UNKNOWN)
                self.assertEqual(self.intended_by, ["a", "b", "c"])
                self.assertEqual([mail.recipients[0][0] for mail in relay.mails if mail.connection == 1], ["c"])

    def test_one_recipient_cannot_be_spelled(self) -> None:
        """Who was refused while it was prepared is so in its outcome."""
        for keywords in NO_OVERLAP:
            relay, session = self.open(keywords=keywords)
            outcome = cast("Outcome", self.send(session, "one", "two", Job("b\xe4d", recipients=2))["b\xe4d"])
            answers = {"b\xe4d@example.org": Answer.REJECTED, "r0@example.org": Answer.ACCEPTED}
            self.assertEqual({who: reply.answer for who, reply in outcome.replies.items()}, answers)
            self.assertEqual(len(relay.mails), 3)

    def test_message_is_refused(self) -> None:
        """That is the one in hand; who was pulled goes over the same connection."""
        for keywords in NO_OVERLAP:
            relay, session = self.open(keywords=keywords)
            relay.on("DOT", "554 5.7.1 no", nth=2)
            results = self.send(session, "one", "two", "three")
            self.assertTaken(results, "one", "three")
            self.assertAnswers(cast("Outcome", results["two"]), two=Answer.REJECTED)
            self.assertEqual((len(relay.mails), len(relay.dialogues)), (2, 1))


class TheConnectionIsAnother(Ahead):
    def test_what_was_prepared_is_prepared_anew(self) -> None:
        """Another connection may offer other things."""
        relay, session = self.open(keywords=["PIPELINING", "CHUNKING", "SMTPUTF8", "8BITMIME", "SIZE"])
        settings = self.settings(relay, keep=Keep(mails=2))
        session._settings = lambda: settings

        def jobs() -> Iterator[Job]:
            yield from self.jobs("one", "two")
            relay.keywords = ["8BITMIME"]
            yield self.job("thr\xe9e", recipients=2)
            yield self.job("four")

        results = {cast("Job", job).name: result for job, result in session.stream(Jobs(jobs()))}
        self.assertTaken(results, "one", "two", "four")
        outcome = cast("Outcome", results["thr\xe9e"])
        self.assertEqual([*outcome.having(Answer.REJECTED)], ["thr\xe9e@example.org"])
        self.assertEqual([*outcome.having(Answer.ACCEPTED)], ["r0@example.org"])
        relay.wait_until(lambda: relay.verbs(0)[-1] == "QUIT")
        self.assertEqual(relay.verbs(1), ["EHLO", *["MAIL", "RCPT", "DATA"] * 2])


class TheStreamEnds(Ahead):
    def test_who_was_pulled_is_not_sent(self) -> None:
        """Whoever stops taking results leaves it as it was, and the connection is good for another mail."""
        for keywords in NO_OVERLAP:
            self.log, self.intended_by = [], []
            relay, session = self.open(keywords=keywords)
            results = session.stream(Jobs(self.jobs("one", "two", "three")))
            next(results)
            next(results)
            self.assertEqual(self.log, ["one", "two", "three"])
            cast("Any", results).close()
            self.assertAnswers(self.transfer(session), one=Answer.ACCEPTED)
            self.assertEqual(self.intended_by, ["one", "two"])
            self.assertEqual((len(relay.mails), len(relay.dialogues)), (3, 1))


class _Counting(MemoryQueue):
    """Tells when the third mail is in hand."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.third = threading.Event()
        self._claims = 0

    def claim(self, limit: int = 1, *, ahead: int = 0) -> list[Any]:
        """See `IMailQueue`."""
        leases = super().claim(limit)
        self._claims += len(leases)
        if self._claims == 3:
            self.third.set()
        return leases


class AProcessorStops(Streams):
    """With five mails, and a relay that is slow with the second."""

    keywords = NO_OVERLAP[0]

    def setUp(self) -> None:
        super().setUp()
        self.relay = self.start(keywords=self.keywords)
        self.queue = _Counting(clock=ManualClock(), schedule=Schedule())
        staged = self.queue.stage()
        self.names = [staged.add(Envelope("sender@example.org", (f"n{n}@example.org",)), MESSAGE) for n in range(5)]
        staged.prepare()
        staged.commit()
        mailer = SMTPMailer(self.relay.host, self.relay.port, tls=Tls.NEVER, timeouts=TIMEOUTS, connections=1)
        self.processor = QueueProcessorThread(queue=self.queue, mailer=mailer, clock=ManualClock())

    def begin(self, reply: str = "") -> tuple[Hang, threading.Thread]:
        """As far as the reply to the second mail, with the third pulled."""
        hang = self.relay.on("DOT", Hang(reply), nth=2)
        thread = threading.Thread(target=lambda: self.processor.run(forever=False))
        thread.start()
        self.assertTrue(hang.reached.wait(300))
        self.assertTrue(self.queue.third.wait(300))
        return hang, thread

    def test_who_was_pulled_is_released(self) -> None:
        """Stopped while the relay is waited for: that mail is finished, no other is sent, and none loses an attempt."""
        hang, thread = self.begin()
        self.processor.stop()
        hang.release()
        thread.join(300)
        self.assertFalse(thread.is_alive())
        self.assertEqual(len(self.relay.mails), 2)
        self.assertEqual(self.queue.admin.count(), {State.READY: 3})
        self.assertEqual([self.queue.admin.show(name).history for name in self.names[2:]], [()] * 3)

    def test_relay_goes(self) -> None:
        """If the relay cannot be used after the mail in hand, who was pulled waits with all others, untried."""
        hang, thread = self.begin("421 4.3.2 going down")
        hang.release()
        thread.join(300)
        self.assertEqual(len(self.relay.dialogues), 1)
        self.assertEqual([len(self.queue.admin.show(name).history) for name in self.names[1:]], [1, 0, 0, 0])


class AProcessorStopsAndOneRides(AProcessorStops):
    """Likewise with a relay that has the envelope of the third."""

    keywords = ["PIPELINING"]


del Streams, Ahead

if __name__ == "__main__":
    unittest.main()
