"""`SMTPSession.stream`: the next envelope rides with the final dot, over real sockets."""

from __future__ import annotations

import contextlib
import io
import itertools
import smtplib
import threading
import unittest
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, cast
from unittest import mock

from zope.interface import implementer
from zope.interface.verify import verifyObject

from zope.sendmail.config.settings import Keep, RelaySettings, Tls
from zope.sendmail.interfaces import IJob, IStreamingSession, LeaseLost
from zope.sendmail.lifecycle.outcome import Answer, Outcome
from zope.sendmail.mailer import SendOnlySession
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.queue.memory import MemoryQueue
from zope.sendmail.smtp.connect import connect
from zope.sendmail.smtp.distances import DISTANCES, FAR
from zope.sendmail.smtp.pipeline import Result, stream, stream_in_steps
from zope.sendmail.smtp.protocol.body import WINDOW
from zope.sendmail.smtp.protocol.steps import MAX_FLIGHT
from zope.sendmail.smtp.session import SMTPSession
from zope.sendmail.testing.relay import Drop, Hang, Relay
from zope.sendmail.tests.support.conversation import MESSAGE, Conversation, Jobs, right_tls

ACCEPTED, REJECTED, UNKNOWN = Answer.ACCEPTED, Answer.REJECTED, Answer.UNKNOWN

MAIL = ["MAIL", "RCPT", "DATA"]


@implementer(IJob)
@dataclass
class Job:
    """A mail to ``<name>@example.org``, or to many."""

    name: str
    message: bytes | Exception = MESSAGE
    intend: Callable[[], None] = lambda: None
    recipients: int = 1

    @property
    def envelope(self) -> Envelope:
        more = [f"r{number}@example.org" for number in range(self.recipients - 1)]
        return Envelope("sender@example.org", (f"{self.name}@example.org", *more))

    def open(self) -> BinaryIO:
        """See `IJob`."""
        if isinstance(self.message, Exception):
            raise self.message
        return io.BytesIO(self.message)


class Streams(Conversation):
    def open(self, **options: Any) -> tuple[Relay, SMTPSession]:
        """A relay with PIPELINING and without CHUNKING, and a session with it."""
        relay = self.start(**options)
        settings: dict[str, Any] = {"tls": Tls.REQUIRED, "verify": False} if relay.tls else {}
        return relay, self.session(relay, **settings)

    def pulled(self, jobs: list[Job], log: list[str]) -> Iterator[Job]:
        """The jobs, with a line in `log` when one is pulled."""
        for job in jobs:
            log.append(job.name)
            yield job

    def send(self, session: SMTPSession, *jobs: Job | str) -> dict[str, Result]:
        """All of them; the results by name."""
        made = [Job(job) if isinstance(job, str) else job for job in jobs]
        results = session.stream(Jobs(made))
        return {cast("Job", job).name: result for job, result in results}

    def assertTaken(self, results: dict[str, Result], *names: str) -> None:
        """These were accepted."""
        for name in names:
            result = results[name]
            assert isinstance(result, Outcome), result
            self.assertEqual({reply.answer for reply in result.replies.values()}, {ACCEPTED}, result)


class ManyMailsAreSent(Streams):
    def test_contract(self) -> None:
        """The session streams, and a lease can be put in as it is."""
        self.assertTrue(verifyObject(IStreamingSession, self.open()[1]))
        queue = MemoryQueue()
        staged = queue.stage()
        staged.add(Envelope("sender@example.org", ("one@example.org",)), MESSAGE)
        staged.prepare()
        staged.commit()
        relay, session = self.open()
        ((lease, result),) = session.stream(Jobs(queue.claim(1)))
        self.assertTrue(verifyObject(IJob, lease))
        self.assertTaken({"one": result}, "one")
        self.assertEqual(len(relay.mails), 1)

    def test_they_arrive_in_order_on_one_connection(self) -> None:
        """Envelope by envelope, each once."""
        relay, session = self.open()
        names = [f"n{number}" for number in range(20)]
        self.assertTaken(self.send(session, *names), *names)
        self.assertEqual([mail.recipients for mail in relay.mails], [(f"{name}@example.org",) for name in names])
        self.assertEqual(relay.verbs(), ["EHLO", *MAIL * 20])

    def test_the_next_one_rides_before_the_reply(self) -> None:
        """Two mails have gone before the relay answers to the dot of the first of them."""
        relay, session = self.open()
        hang = relay.on("DOT", Hang("250 2.0.0 slow"), nth=2)
        log: list[str] = []
        results: list[Result] = []
        jobs = self.pulled([Job("one"), Job("two"), Job("three")], log)
        thread = threading.Thread(target=lambda: results.extend(result for _, result in session.stream(Jobs(jobs))))
        thread.start()
        self.assertTrue(hang.reached.wait(300))
        self.assertEqual(log, ["one", "two", "three"])
        hang.release()
        thread.join(300)
        self.assertEqual([cast("Outcome", each).fault for each in results], [None] * 3)

    def test_within_tls(self) -> None:
        """Through an encrypted connection likewise."""
        relay, session = self.open(tls=right_tls())
        self.assertTaken(self.send(session, "one", "two", "three"), "one", "two", "three")
        self.assertEqual((len(relay.dialogues), len(relay.mails)), (1, 3))

    def test_large_messages(self) -> None:
        """Messages beyond the window ride, and are ridden with."""
        relay, session = self.open()
        large = b"Subject: x\r\n\r\n" + b".y" * 38 + b"\r\n" * WINDOW * 4
        jobs = [Job(f"n{number}", message=MESSAGE if number % 3 == 1 else large) for number in range(6)]
        self.assertTaken(self.send(session, *jobs), *(job.name for job in jobs))
        self.assertEqual([mail.data for mail in relay.mails], [job.message for job in jobs])
        self.assertEqual(len(relay.dialogues), 1)

    def test_many_recipients(self) -> None:
        """Only the first flight of an envelope rides; the rest of it comes in its turn."""
        relay, session = self.open()
        relay.on("RCPT", "550 5.1.1 no", about="<r7@")
        results = self.send(session, "one", "two", Job("many", recipients=MAX_FLIGHT * 3), "four")
        self.assertTaken(results, "one", "two", "four")
        self.assertEqual(list(cast("Outcome", results["many"]).having(REJECTED)), ["r7@example.org"])
        self.assertEqual([len(mail.recipients) for mail in relay.mails], [1, 1, MAX_FLIGHT * 3 - 1, 1])
        self.assertEqual(len(relay.dialogues), 1)

    def test_with_any_session(self) -> None:
        """What cannot stream sends one after the other, with the same results."""

        class Mailer:
            def send(self, *arguments: Any) -> None:
                pass

        jobs = iter([Job("one"), Job("two", message=OSError("the disk fails"))])
        results = [result for _, result in stream(SendOnlySession(Mailer()), Jobs(jobs))]
        self.assertTaken({"one": results[0]}, "one")
        self.assertIsInstance(results[1], OSError)


class AFurtherConnection(Streams):
    """To a relay that has taken an envelope with the end of a mail over another one."""

    def carried(self, kind: type[Job], *before: str, distance: float = FAR) -> list[str]:
        """Send some mails over one connection, and let the relay take its time with the first one of another.

        :param distance: that of the relay, in seconds
        :returns: what was taken from the source until then
        """
        relay = self.start()
        self.enterContext(mock.patch.object(DISTANCES, "of", return_value=distance))
        first, second = self.session(relay), self.session(relay)
        second._memories = first._memories
        self.assertTaken(self.send(first, *(kind(name) for name in before)), *before)
        hang = relay.on("DOT", Hang("250 2.0.0 slow"), nth=1)
        log: list[str] = []
        results: list[Result] = []
        jobs = self.pulled([kind("x"), kind("y"), kind("z")], log)
        thread = threading.Thread(target=lambda: results.extend(result for _, result in second.stream(Jobs(jobs))))
        thread.start()
        self.assertTrue(hang.reached.wait(300))
        taken = list(log)
        hang.release()
        thread.join(300)
        self.assertTaken(dict(zip("xyz", results, strict=True)), *"xyz")
        self.assertEqual(len(relay.dialogues), 1 + bool(before))
        return taken

    def test_takes_the_next_envelope_with_its_first_mail(self) -> None:
        """A round trip less; whether the mails that have shown it were ordinary or not."""

        class Ordinary(Job):
            text = MESSAGE

        for kind in (Job, Ordinary):
            self.assertEqual(self.carried(kind, "one", "two", "three"), ["x", "y"])

    def test_to_a_near_relay_waits_for_its_first_answer(self) -> None:
        """It is there sooner than the next mail."""
        self.assertEqual(self.carried(Job, "one", "two", "three", distance=FAR / 2), ["x"])

    def test_proves_itself_as_long_as_the_relay_has_not_shown_that(self) -> None:
        """With a mail by itself."""
        for before in ((), ("one",), ("one", "two")):
            self.assertEqual(self.carried(Job, *before), ["x"])


class InSteps(Streams):
    """As a processor takes them that carries several conversations in one thread."""

    def test_of_an_ordinary_conversation(self) -> None:
        """A step may take long before the first mail; the relay is waited for by the caller with those that follow."""

        class Ordinary(Job):
            text = MESSAGE

        _, session = self.open()
        steps = session.stream_in_steps(Jobs([Ordinary(name) for name in ("one", "two", "three", "four")]))
        self.addCleanup(session.close)
        kinds: list[str] = []
        told: bool | None = None
        with contextlib.suppress(StopIteration):
            while True:
                step = steps.send(told)
                kinds.append("result" if isinstance(step, tuple) else "long" if step is None else "wait")
                told = True if kinds[-1] == "wait" else None
                if kinds[-1] == "wait":
                    self.assertEqual(step, session.connection.sock.fileno())
        self.assertEqual(kinds[:2], ["long", "result"])
        self.assertEqual(kinds[-2:], ["wait", "result"])
        self.assertEqual(kinds.count("result"), 4)

    def test_one_that_is_told_that_nothing_came(self) -> None:
        """Waits for the relay itself, which may take long; the mail has its outcome all the same."""

        class Ordinary(Job):
            text = MESSAGE

        relay, session = self.open()
        steps = session.stream_in_steps(Jobs([Ordinary(name) for name in ("one", "two", "three")]))
        results: dict[str, Result] = {}
        told: bool | None = None
        kinds: list[str] = []
        with contextlib.suppress(StopIteration):
            while True:
                step = steps.send(told)
                told = False if isinstance(step, int) else None
                kinds.append("result" if isinstance(step, tuple) else "long" if step is None else "wait")
                if isinstance(step, tuple):
                    results[cast("Job", step[0]).name] = step[1]
        self.assertIn(["wait", "long", "result"], [kinds[at : at + 3] for at in range(len(kinds))])
        self.assertTaken(results, "one", "two", "three")
        self.assertEqual(len(relay.mails), 3)

    def test_of_a_session_that_replaces_the_stream(self) -> None:
        """Its own one is used, be it of the class or of the instance."""
        relay, session = self.open()
        results = list(session.stream(Jobs([Job("one")])))

        class Replaced(SMTPSession):
            def stream(self, jobs: Any) -> Any:
                return iter(results)

        session.__class__ = Replaced
        self.assertEqual(list(stream_in_steps(session, Jobs([]))), [None, *results, None])
        session.__class__ = SMTPSession
        session.stream = lambda jobs: iter(results)  # type: ignore[assignment,method-assign,return-value]  # as programs do
        self.assertEqual(list(stream_in_steps(session, Jobs([]))), [None, *results, None])
        self.assertEqual(len(relay.mails), 1)

    def test_of_any_session(self) -> None:
        """Each mail may take long."""

        class Mailer:
            def send(self, *arguments: Any) -> None:
                pass

        class Small:
            __slots__ = ()

            def transfer(self, envelope: Envelope, message: BinaryIO, intend: Callable[[], None]) -> Outcome:
                return Outcome("relay", {})

        sessions: list[Any] = [SendOnlySession(Mailer()), Small()]
        for session in sessions:
            with self.subTest(type(session)):
                steps = stream_in_steps(session, Jobs(iter([Job("one"), Job("two")])))
                kinds = ["long" if step is None else "result" for step in steps]
                self.assertEqual(kinds, ["long", "result", "long", "result", "long"])


class OneOfThemFails(Streams):
    def test_refusals_leave_the_connection(self) -> None:
        """After any refusal the others go over the same connection."""
        for point in [*MAIL, "DOT"]:
            with self.subTest(point):
                relay, session = self.open()
                relay.on(point, "550 5.7.1 no", nth=3)
                results = self.send(session, "one", "two", "three", "four", "five")
                self.assertTaken(results, "one", "two", "four", "five")
                self.assertAnswers(cast("Outcome", results["three"]), three=REJECTED)
                self.assertEqual((len(relay.dialogues), len(relay.mails)), (1, 4))

    def test_connection_ends(self) -> None:
        """Wherever it ends, who had been answered for keeps that, and who had only ridden goes again."""
        for point, words, answers in (
            ("MAIL", "", None),
            ("RCPT", "421 4.3.2 going down", None),
            ("DATA", "", None),
            ("BODY", "", UNKNOWN),
            ("DOT", "", UNKNOWN),
        ):
            with self.subTest(point):
                relay, session = self.open()
                relay.on(point, Drop(words), nth=3)
                results = self.send(session, "one", "two", "three", "four")
                self.assertTaken(results, "one", "two", "four")
                if answers is None:
                    self.assertTaken(results, "three")
                else:
                    self.assertAnswers(cast("Outcome", results["three"]), three=answers)
                self.assertEqual(len(relay.dialogues), 2)
                self.assertEqual(len([each for each in relay.mails if "four" in each.recipients[0]]), 1)

    def test_what_is_not_the_relays_is_its_result(self) -> None:
        """A lost lease or an unreadable message is handed on, and the next mail goes."""

        def lost() -> None:
            raise LeaseLost("somebody else has it")

        for job, kind in ((Job("bad", intend=lost), LeaseLost), (Job("bad", message=OSError("disk")), OSError)):
            relay, session = self.open()
            results = self.send(session, "one", "two", job, "four", "five")
            self.assertTaken(results, "one", "two", "four", "five")
            self.assertIsInstance(results["bad"], kind)
            self.assertEqual(len(relay.mails), 4)

    def test_trouble_with_the_jobs_waits_for_its_turn(self) -> None:
        """What pulling raises comes after the outcome of the mail in hand."""
        _, session = self.open()

        def jobs() -> Iterator[Job]:
            yield Job("one")
            yield Job("two")
            raise OSError("the queue is gone")

        results = session.stream(Jobs(jobs()))
        found = {"one": next(results)[1], "two": next(results)[1]}
        self.assertTaken(found, "one", "two")
        with self.assertRaises(OSError):
            next(results)

    def test_relay_that_cannot_do_it(self) -> None:
        """Nothing is lost with one that hangs up on what rides, and nothing rides for an hour."""
        relay, session = self.open()
        relay.on("MAIL", Drop(), nth=3)
        relay.on("MAIL", Drop(), nth=5)
        self.assertTaken(self.send(session, "one", "two", "three"), "one", "two", "three")
        self.assertFalse(session.may_overlap())
        self.assertTaken(self.send(session, "four", "five", "six"), "four", "five", "six")
        self.assertFalse(session.may_overlap())
        self.clock.advance(3600.0)
        self.assertTaken(self.send(session, "seven", "eight", "nine"), "seven", "eight", "nine")
        self.assertEqual(len(relay.mails), 9)


class TheStreamEnds(Streams):
    def test_who_rides_is_dropped(self) -> None:
        """Whoever stops taking results leaves a job behind that no relay has; the next mail has a new connection."""
        relay, session = self.open()
        log: list[str] = []
        results = session.stream(Jobs(self.pulled([Job("one"), Job("two"), Job("three")], log)))
        self.assertTaken({"one": next(results)[1], "two": next(results)[1]}, "one", "two")
        self.assertEqual(log, ["one", "two", "three"])
        cast("Any", results).close()
        relay.wait_until(lambda: relay.open == 0)
        self.assertEqual(len(relay.mails), 2)
        self.assertAnswers(self.transfer(session), one=ACCEPTED)

    def test_another_mail_in_between(self) -> None:
        """A mail that is not of the stream does not get what was meant for the one that rides."""
        relay, session = self.open()
        results = session.stream(Jobs([Job("one"), Job("two"), Job("three")]))
        next(results)
        next(results)
        self.assertAnswers(self.transfer(session, "other@example.org"), other=ACCEPTED)
        self.assertTaken({"three": next(results)[1]}, "three")
        self.assertEqual([mail.recipients[0][:3] for mail in relay.mails], ["one", "two", "oth", "thr"])

    def test_session_is_closed_in_between(self) -> None:
        """Likewise after `close`."""
        relay, session = self.open()
        results = session.stream(Jobs([Job("one"), Job("two"), Job("three")]))
        next(results)
        next(results)
        session.close()
        self.assertTaken({"three": next(results)[1]}, "three")
        self.assertEqual((len(relay.mails), len(relay.dialogues)), (3, 2))

    def test_connection_has_its_limits(self) -> None:
        """Nobody rides on a connection that is full, old, or for other settings."""
        relay, session = self.open()
        settings = self.settings(relay, keep=Keep(mails=3))
        session._settings = lambda: settings
        self.assertTaken(self.send(session, *"abcdefg"), *"abcdefg")
        self.assertEqual([verbs.count("MAIL") for verbs in map(relay.verbs, range(3))], [3, 3, 1])
        relay.wait_until(lambda: relay.verbs(0)[-1] == "QUIT")
        settings = replace(settings, keep=Keep(age=100.0))
        self.send(session, "h", "i")
        settings = replace(settings, hostname="localhost")
        self.assertFalse(session.may_overlap())

    def test_settings_that_last_are_asked_for_again_when_that_is_over(self) -> None:
        """Those of an open connection; a new one is made with what counts then."""
        relay = self.start()
        settings, asked = self.settings(relay), itertools.count()

        def ask() -> RelaySettings:
            next(asked)
            return settings

        session = SMTPSession(ask, lambda now: connect(now, smtplib.SMTP), self.clock, lasts=lambda: 0.5)
        self.addCleanup(session.close)
        self.assertTaken(self.send(session, "a"), "a")
        before = next(asked)
        self.assertEqual([session.may_overlap() for _ in range(3)], [True] * 3)
        self.assertEqual(next(asked), before + 2)
        settings = replace(settings, hostname="localhost")
        self.assertTrue(session.may_overlap())
        self.clock.advance(0.5)
        self.assertEqual([session.may_overlap() for _ in range(2)], [False] * 2)

    def test_settings_that_cannot_be_had_are_the_next_mails_matter(self) -> None:
        """Whatever it is that raises; the mail in hand has been said almost to its end, and goes."""
        relay, session = self.open()
        settings, asked = self.settings(relay), itertools.count()

        def ask() -> RelaySettings:
            if next(asked) == 2:  # when it is asked who rides with the second mail
                raise KeyError("a form was changed just now")
            return settings

        session._settings = ask
        self.assertTaken(self.send(session, *"abc"), *"abc")


if __name__ == "__main__":
    unittest.main()
