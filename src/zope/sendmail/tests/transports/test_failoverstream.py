"""A stream of mails through `FailoverMailer`: what a mail by itself gets, and what happens to those behind it."""

from __future__ import annotations

import contextlib
import io
import unittest
from collections.abc import Callable, Generator, Iterable, Iterator
from math import inf
from typing import Any, BinaryIO

from zope.interface import implementer
from zope.interface.verify import verifyObject

from zope.sendmail.interfaces import IOrdinaryJob, IStreamingSession
from zope.sendmail.lifecycle.outcome import Answer, Outcome
from zope.sendmail.mailer import SMTPMailer, open_session
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.smtp.distances import DISTANCES
from zope.sendmail.testing.contracts import MESSAGE, ManualClock, envelope
from zope.sendmail.testing.relay import Relay
from zope.sendmail.tests.support.conversation import Jobs
from zope.sendmail.tests.transports import test_failover as by_itself
from zope.sendmail.transports.failover import FailoverMailer
from zope.sendmail.transports.givenjobs import GivenJobs

NAMES = ("one", "two", "three", "four", "five", "six", "seven", "eight")


@implementer(IOrdinaryJob)
class Mail:
    """A mail to ``<name>@example.org``; `opened` says how often it was opened."""

    text: bytes | None = MESSAGE

    def __init__(self, name: str = "one", envelope: Envelope | None = None) -> None:
        self.envelope = envelope or Envelope("sender@example.org", (f"{name}@example.org",))
        self.opened = 0

    def open(self) -> BinaryIO:
        """See `IJob`."""
        self.opened += 1
        return io.BytesIO(MESSAGE)

    def intend(self) -> None:
        """See `IJob`."""


class NotAtHand(Mail):
    """One that has to be opened."""

    text = None


def results(steps: Generator[Any, bool | None, None]) -> Iterator[tuple[Any, Outcome | Exception]]:
    """Yield the results among the steps, each of which is told that it may go on."""
    told = None
    with contextlib.suppress(StopIteration):
        while True:
            step = steps.send(told)
            told = True if isinstance(step, int) else None
            if isinstance(step, tuple):
                yield step


class OfOneMail:
    """In the place of a transfer."""

    session: Any

    def transfer(self, *recipients: str) -> Outcome:
        """Send it, and return what came out."""
        jobs = Jobs([Mail(envelope=envelope(*recipients))])
        ((_, result),) = results(self.session.stream_in_steps(jobs))
        if isinstance(result, Exception):
            raise result
        return result


class TheFirstThatCanBeUsed(OfOneMail, by_itself.TheFirstThatCanBeUsed):
    """As with a mail by itself."""


class WhatARelaySaysAboutAMail(OfOneMail, by_itself.WhatARelaySaysAboutAMail):
    """As with a mail by itself."""


class NoneThatCanBeUsed(OfOneMail, by_itself.NoneThatCanBeUsed):
    """As with a mail by itself."""


class AStream(unittest.TestCase):
    """Through two relays."""

    def setUp(self) -> None:
        DISTANCES.clear()  # another relay may have had the same port
        self.clock = ManualClock()
        self.a, self.b = (self.enterContext(Relay()) for _ in range(2))
        mailers = [SMTPMailer(relay.host, relay.port, no_tls=True) for relay in (self.a, self.b)]
        self.session: Any = open_session(FailoverMailer(mailers, clock=self.clock))
        self.addCleanup(self.session.close)

    def ways(self) -> Iterator[Callable[[Any], Iterable[tuple[Any, Any]]]]:
        """Yield each way to have it, with relays of its own."""
        for name in ("stream", "stream_in_steps"):
            with self.subTest(name):
                self.setUp()
                yield self.session.stream if name == "stream" else self.in_steps

    def in_steps(self, jobs: Any) -> Iterator[tuple[Any, Outcome | Exception]]:
        return results(self.session.stream_in_steps(jobs))

    def go_down(self) -> None:
        """Let the first relay go away when it has had three mails, and be there again at its third connection."""
        self.a.on("MAIL", "421 4.3.2 going down", nth=4)
        self.a.on("GREETING", "421 4.3.2 down", nth=2)

    def assertAccepted(self, found: list[tuple[Any, Any]], names: Iterable[str]) -> None:
        """These, in this order."""
        self.assertEqual([job.envelope.recipients[0].partition("@")[0] for job, _ in found], list(names))
        answers = [reply.answer for _, outcome in found for reply in outcome.replies.values()]
        self.assertEqual(answers, [Answer.ACCEPTED] * len(found))

    @staticmethod
    def arrived(relay: Relay) -> list[str]:
        return [mail.recipients[0].partition("@")[0] for mail in relay.mails]

    def test_contract(self) -> None:
        """It is a stream as any other."""
        verifyObject(IStreamingSession, self.session)

    def test_rides(self) -> None:
        """All go to the first relay, over one connection; the other one is not asked."""
        for way in self.ways():
            self.assertAccepted(list(way(Jobs(map(Mail, NAMES)))), NAMES)
            self.assertEqual((self.arrived(self.a), len(self.a.dialogues)), (list(NAMES), 1))
            self.assertEqual(self.b.dialogues, [])

    def test_waits_where_its_caller_can(self) -> None:
        """For the next mail; that may take long."""
        jobs: Any = Jobs([Mail()])
        jobs.may_wait = lambda: True
        self.assertIsNone(next(self.session.stream_in_steps(jobs)))

    def test_goes_on_with_the_next_relay(self) -> None:
        """The mail that meets the end of the first one, and those behind it, each once and in their order."""
        for kind in (Mail, NotAtHand):
            for way in self.ways():
                self.go_down()
                self.assertAccepted(list(way(Jobs(map(kind, NAMES)))), NAMES)
                self.assertEqual(self.arrived(self.a), list(NAMES[:3]))
                self.assertEqual(self.arrived(self.b), list(NAMES[3:]))

    def test_takes_along_what_was_ready_for_the_first(self) -> None:
        """Its envelope has gone with a mail for which the first relay had no room."""
        for way in self.ways():
            self.a.on("DOT", str(by_itself.BUSY), nth=3)
            self.assertAccepted(list(way(Jobs(map(Mail, NAMES)))), NAMES)
            self.assertEqual(self.arrived(self.a), list(NAMES[:2]))
            self.assertEqual(self.arrived(self.b), list(NAMES[2:]))

    def test_comes_back_to_the_first(self) -> None:
        """As soon as that may be tried again, with the mail that is taken next."""

        def mails() -> Iterator[Mail]:
            for name in NAMES:
                if name == "six":
                    self.clock.advance(5)
                yield Mail(name)

        for way in self.ways():
            self.go_down()
            self.assertAccepted(list(way(Jobs(mails()))), NAMES)
            self.assertEqual(self.arrived(self.a), ["one", "two", "three", "seven", "eight"])
            self.assertEqual(self.arrived(self.b), ["four", "five", "six"])

    def test_that_is_closed_sends_nothing_more(self) -> None:
        """What was taken ahead has not been sent; the session can be used."""
        for way in self.ways():
            stream: Any = way(Jobs(map(Mail, NAMES)))
            self.assertAccepted([next(stream) for _ in range(3)], NAMES[:3])
            stream.close()
            self.assertAccepted(list(way(Jobs([Mail("last")]))), ["last"])
            self.assertEqual(self.arrived(self.a), [*NAMES[:3], "last"])

    def test_tells_how_far_away_its_relay_is(self) -> None:
        """And how long it was waited for, as soon as that is known."""
        self.assertEqual((self.session.waited(), self.session.distance()), (inf, None))
        list(self.session.stream(Jobs(map(Mail, NAMES))))
        self.assertLess(self.session.waited(), inf)
        self.assertIsNotNone(self.session.distance())


class BehindAFault(by_itself.Several):
    session: Any

    def test_a_mail_that_cannot_be_read_has_that_for_its_result(self) -> None:
        """The first relay was not there for it; those behind it go to the next one."""

        class Unreadable(NotAtHand):
            def open(self) -> BinaryIO:
                if self.opened:
                    raise OSError("the disk fails")
                return super().open()

        self.a.fault = by_itself.DOWN
        found = list(results(self.session.stream_in_steps(Jobs([Unreadable("one"), Mail("two")]))))
        self.assertIsInstance(found[0][1], OSError)
        self.assertEqual(getattr(found[1][1], "relay", None), "b")

    def test_nothing_is_kept_back_by_a_session_that_does_not_tell(self) -> None:
        """Whether a mail may take long: before each of them, and before one that goes elsewhere."""
        let_go: list[int] = []
        jobs: Any = Jobs([Mail("one"), Mail("two")])
        jobs.let_go = lambda: let_go.append(sum(each.tried for each in self.relays))
        self.a.fault = by_itself.DOWN
        list(results(self.session.stream_in_steps(jobs)))
        self.assertEqual(let_go, [0, 1, 2])


class ASourceOfGivenJobs(unittest.TestCase):
    def setUp(self) -> None:
        self.mails = [Mail(name) for name in NAMES[:4]]
        self.given = GivenJobs(Jobs(self.mails))

    def test_gives_again_what_was_not_ended(self) -> None:
        """First, in its order, whatever was looked for before."""
        one, two, three, four = self.mails
        self.assertTrue(self.given.has_next())
        self.given.begin(lambda: True, lets_go=True)
        self.assertEqual([self.given.next() for _ in range(3)], [one, two, three])
        self.given.ended(one)
        self.given.take_back()
        self.given.begin(lambda: True, lets_go=True)
        self.assertEqual([self.given.next() for _ in range(4)], [two, three, four, None])
        self.assertFalse(self.given.has_next())

    def test_gives_at_least_one(self) -> None:
        """Then it asks whether the session is to have more."""
        one, two, *_ = self.mails
        for expected in (one, two):
            self.given.begin(lambda: False, lets_go=True)
            self.assertEqual([self.given.next(), self.given.next()], [expected, None])

    def test_raises_what_the_source_raises(self) -> None:
        """And has given nothing then."""

        def broken() -> Iterator[Mail]:
            yield self.mails[0]
            raise OSError("the queue fails")

        given = GivenJobs(Jobs(broken()))
        given.begin(lambda: True, lets_go=True)
        given.next()
        with self.assertRaises(OSError):
            given.next()


if __name__ == "__main__":
    unittest.main()
