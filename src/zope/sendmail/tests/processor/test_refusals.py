"""What a sender or the suppression list has decided is done, whatever the mail waits for."""

from __future__ import annotations

import itertools
import tempfile
import unittest
from dataclasses import replace
from typing import Any

from zope.sendmail.events import MailErrorEvent
from zope.sendmail.lifecycle.outcome import Answer, Reply
from zope.sendmail.lifecycle.states import State
from zope.sendmail.lifecycle.suppression import Suppression
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.terms import Priority, Terms
from zope.sendmail.processor.job import Job
from zope.sendmail.processor.relay import Relay
from zope.sendmail.queue.maildir.queue import MaildirQueue
from zope.sendmail.testing.contracts import LATER, MESSAGE, NEVER
from zope.sendmail.testing.scriptedmailer import ScriptedMailer
from zope.sendmail.tests.support.processing import ProcessorTest

DOWN = Reply(Answer.DEFERRED, "no route", None)


class MailThatExpires(ProcessorTest):
    """Its sender wants it given up after a minute."""

    def send(self, *recipients: str, **terms: Any) -> str:
        """Commit a mail that expires in a minute; return its name."""
        staged = self.queue.stage()
        asked = Terms(**{"expires": self.clock.time() + 60, **terms})
        envelope = replace(Envelope("sender@example.org", recipients or ("one@example.org",)), terms=asked)
        name: str = staged.add(envelope, MESSAGE)
        staged.prepare()
        staged.commit()
        return name

    def errors(self) -> list[tuple[str, str]]:
        """Return whom events of errors were about, and what they said."""
        found = [event for event in self.events if isinstance(event, MailErrorEvent)]
        return [(who, str(reply)) for event in found for who, reply in event.replies.items()]

    def test_leaves_before_if_it_can(self) -> None:
        """Then nothing is said of its time."""
        self.send()
        self.drain()
        self.drain(60)
        self.assertEqual((self.sent_to(), self.errors()), (["one@example.org"], []))

    def test_is_given_up_without_a_try(self) -> None:
        """No processor ran meanwhile: the event, the reason and the state are those of any mail that was given up."""
        name = self.send()
        self.drain(60)
        [(who, said)] = self.errors()
        self.assertEqual((self.sent_to(), who), ([], "one@example.org"))
        self.assertIn(
            "4.4.7 given up after no attempt, for its sender wanted it to leave until 2027-01-15T08:01:00Z", said
        )
        mail = self.queue.admin.show(name)
        self.assertEqual((mail.state, mail.history[-1].note), (State.REJECTED, "expired"))

    def test_is_given_up_while_it_is_deferred(self) -> None:
        """At its time and not at that of its next attempt, with the relay's last words; who has it, keeps it."""
        self.mailer.answers = lambda who: LATER if who.startswith("late") else Reply(Answer.ACCEPTED, "ok", 250)
        self.send("late@example.org", "one@example.org", expires=self.clock.time() + 30)
        self.drain()
        self.drain(30)
        [(who, said)] = self.errors()
        self.assertEqual((who, self.sent_to()), ("late@example.org", ["one@example.org"]))
        self.assertIn("after 1 attempt,", said)
        self.assertIn("450 greylisted", said)
        self.drain(3600)
        self.assertEqual(self.sent_to(), ["one@example.org"])

    def test_is_given_up_while_its_relay_is_down(self) -> None:
        """The pause of the relay may last longer."""
        self.mailer.fault = DOWN
        self.send()
        self.put("other@example.org")
        for _ in range(6):
            self.drain(10)
        self.assertEqual([who for who, _ in self.errors()], ["one@example.org"])
        self.mailer.fault = None
        self.drain(600)
        self.assertEqual(self.sent_to(), ["other@example.org"])

    def test_is_reported_to_its_sender(self) -> None:
        """If the processor makes reports."""
        self.processor = self.make_processor(notify_sender=True)
        self.send()
        self.drain(60)
        self.assertEqual(self.sent_to(), ["sender@example.org"])
        self.assertIn(b"wanted it to leave until", self.mailer.sent[0][2])


class SuppressedRecipients(MailThatExpires):
    """Some recipients get no mail."""

    def suppress(self, *addresses: str) -> None:
        """Put addresses on the list."""
        self.queue.suppressions.add(*(Suppression.of(each, "no such user") for each in addresses))

    def test_are_rejected_and_the_others_served(self) -> None:
        """With the reason of the list, once; no relay is asked about them."""
        name = self.send("Bad@example.org", "one@example.org", expires=float("inf"))
        self.suppress("bad@example.org")
        self.drain()
        self.drain(3600)
        self.assertEqual(self.errors(), [("Bad@example.org", "5.7.1 on the suppression list: no such user")])
        self.assertEqual(self.sent_to(), ["one@example.org"])
        self.assertEqual(self.queue.admin.show(name).state, State.REJECTED)

    def test_are_told_once_while_the_others_wait(self) -> None:
        """Whatever the relay says about those."""
        self.mailer.fault = DOWN
        self.send("bad@example.org", "one@example.org", expires=float("inf"))
        self.suppress("bad@example.org")
        for _ in range(5):
            self.drain(400)
        self.mailer.fault, self.mailer.answers = None, lambda _: NEVER
        self.drain(400)
        self.assertEqual([who for who, _ in self.errors()], ["bad@example.org", "one@example.org"])

    def test_are_rejected_whoever_was_on_the_list_when_the_mail_was_sent(self) -> None:
        """Until a person tries the mail again."""
        name = self.send("bad@example.org", expires=float("inf"), suppressed=("bad@example.org",))
        self.drain()
        self.assertEqual([who for who, _ in self.errors()], ["bad@example.org"])
        self.queue.admin.retry(name)
        self.drain()
        self.assertEqual(self.sent_to(), ["bad@example.org"])

    def test_stay_rejected_when_the_mail_is_tried_again(self) -> None:
        """As long as they are on the list."""
        self.suppress("bad@example.org")
        name = self.send("bad@example.org", expires=float("inf"))
        self.drain()
        self.queue.admin.retry(name)
        self.drain()
        self.assertEqual(self.sent_to(), [])
        self.queue.suppressions.remove("bad@example.org")
        self.queue.admin.retry(name)
        self.drain()
        self.assertEqual(self.sent_to(), ["bad@example.org"])


class InAMaildir(SuppressedRecipients):
    """The same with a Maildir."""

    def setUp(self) -> None:
        super().setUp()
        self.queue = MaildirQueue(
            self.enterContext(tempfile.TemporaryDirectory()) + "/queue", schedule=self.schedule, clock=self.clock
        )
        self.addCleanup(self.queue.close)
        self.mailer = ScriptedMailer()
        self.processor = self.make_processor()


class AFloodOfLowMail(ProcessorTest):
    """More low mail than a relay takes in a day, and then something urgent."""

    def put_with(self, priority: Priority, *recipients: str, count: int = 1) -> None:
        """Commit `count` mails of this priority."""
        staged = self.queue.stage()
        for _ in range(count):
            staged.add(replace(Envelope("s@example.org", recipients), terms=Terms(priority=priority)), MESSAGE)
        staged.prepare()
        staged.commit()

    def test_delays_high_mail_by_the_mail_in_hand(self) -> None:
        """Each urgent mail is the next but one, at most."""
        self.put_with(Priority.LOW, "low@example.org", count=100)
        sent = 0

        def urge(_: Envelope) -> None:
            nonlocal sent
            sent += 1
            if sent in (10, 20, 30):
                self.put_with(Priority.HIGH, "high@example.org")

        self.mailer.before = urge
        self.drain()
        places = [place for place, who in enumerate(self.sent_to()) if who == "high@example.org"]
        self.assertEqual(len(self.sent_to()), 103)
        self.assertLessEqual([place - 10 * n for n, place in enumerate(places, 1)], [1, 1, 1])

    def test_gives_way_in_a_backlog(self) -> None:
        """A high mail takes the place of a low one that waits for the relay, and goes first."""
        self.put_with(Priority.LOW, "low@example.org", count=2)
        self.put_with(Priority.NORMAL, "normal@example.org")
        relay = Relay("default", self.mailer, self.clock)
        leases = {lease.envelope.recipients[0]: lease for lease in self.queue.claim(2)}
        [third] = self.queue.claim()
        for lease in (leases["low@example.org"], third):
            self.assertTrue(relay.put(Job(lease, lease.envelope)))
        normal = leases["normal@example.org"]
        self.assertTrue(relay.put(Job(normal, normal.envelope)))
        self.assertEqual(
            [job.envelope.recipients[0] for job in relay.backlog], ["normal@example.org", "low@example.org"]
        )
        self.put_with(Priority.HIGH, "high@example.org")
        [high] = self.queue.claim()
        self.assertTrue(relay.put(Job(high, high.envelope)))
        self.assertEqual(
            [job.envelope.recipients[0] for job in relay.backlog], ["high@example.org", "normal@example.org"]
        )
        self.assertEqual(list(self.queue.parked()), ["default"])
        self.put_with(Priority.HIGH, "second@example.org")
        [second] = self.queue.claim()
        self.assertTrue(relay.put(Job(second, second.envelope)))
        self.put_with(Priority.LOW, "last@example.org")
        [last] = self.queue.claim()
        self.assertFalse(relay.put(Job(last, last.envelope)))
        self.assertEqual(
            [job.envelope.recipients[0] for job in relay.backlog], ["high@example.org", "second@example.org"]
        )

    def test_does_not_starve(self) -> None:
        """While high mail floods the same relay, low mail is sent all the time."""
        self.put_with(Priority.HIGH, "high@example.org", count=90)
        self.put_with(Priority.LOW, "low@example.org", count=10)
        self.drain()
        places = [place for place, who in enumerate(self.sent_to()) if who == "low@example.org"]
        self.assertEqual(len(places), 10)
        self.assertLess(places[0], 10)
        self.assertLess(max(later - earlier for earlier, later in itertools.pairwise(places)), 11)


if __name__ == "__main__":
    unittest.main()
