"""What operators see and do in a queue."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from zope.sendmail.errors import NoSuchMail, NotPossible
from zope.sendmail.lifecycle.outcome import Answer, Reply
from zope.sendmail.lifecycle.relaystate import ProcessorState, RelayState
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.relayname import RelayName
from zope.sendmail.testing.contracts.situation import (
    DEADLINE,
    LATER,
    MESSAGE,
    NEVER,
    OK,
    QueueSituation,
    envelope,
)


class OperatingContract(QueueSituation):
    """What operators see and do in a queue."""

    # operators

    def test_held_mail_waits_until_it_is_released(self: Any) -> None:
        """hold and release."""
        [name] = self.put()
        self.queue.admin.hold(name)
        self.clock.advance(86400)
        self.assertEqual(self.queue.claim(), [])
        self.assertEqual(self.queue.admin.count(), {State.HELD: 1})
        self.queue.admin.release(name)
        self.assertEqual([lease.name for lease in self.queue.claim()], [name])

    def test_retry_makes_deferred_mail_due(self: Any) -> None:
        """An operator need not wait for the schedule."""
        [name] = self.put()
        self.settle(self.queue.claim()[0], all=LATER)
        self.queue.admin.retry(name)
        self.assertEqual([lease.name for lease in self.queue.claim()], [name])

    def test_retry_tries_rejected_recipients_again(self: Any) -> None:
        """With a new lifetime, and not those who have the mail already."""
        [name] = self.put("a@example.org", "b@example.org")
        self.settle(self.queue.claim()[0], a=OK, b=NEVER)
        self.queue.admin.retry(name)
        lease = self.queue.claim()[0]
        self.assertEqual((lease.envelope.recipients, lease.record.attempts), (("b@example.org",), 0))

    def test_removed_mail_is_gone(self: Any) -> None:
        """Waiting and rejected mail alike."""
        for reply in (None, LATER, NEVER):
            [name] = self.put()
            if reply is not None:
                self.settle(self.queue.claim()[0], all=reply)
            self.queue.admin.remove(name)
        self.assertEqual(self.queue.admin.count(), {})
        self.assertEqual(self.queue.claim(), [])

    def test_mail_that_is_being_sent_is_left_alone(self: Any) -> None:
        """No verb reaches a mail with a living lease."""
        [name] = self.put()
        self.queue.claim()
        for verb in (self.queue.admin.hold, self.queue.admin.retry, self.queue.admin.remove, self.queue.admin.release):
            self.assertRaises(NotPossible, verb, name)
        self.assertEqual(self.queue.admin.count(), {State.SENDING: 1})

    def test_verbs_that_do_not_fit_are_refused(self: Any) -> None:
        """The state of a mail decides what can be done."""
        [name] = self.put()
        self.assertRaises(NotPossible, self.queue.admin.release, name)
        self.queue.admin.hold(name)
        self.assertRaises(NotPossible, self.queue.admin.hold, name)

    def test_names_that_are_not_there_are_told(self: Any) -> None:
        """NoSuchMail, whatever the name looks like."""
        for name in ("1.2.host.3", "", ".", "..", "../new/x", "x/y", "x\0", "x" * 300, ".sending-x"):
            for verb in (
                self.queue.admin.hold,
                self.queue.admin.retry,
                self.queue.admin.remove,
                self.queue.admin.show,
                self.queue.admin.read,
            ):
                self.assertRaises(NoSuchMail, verb, name)

    def test_mails_can_be_filtered(self: Any) -> None:
        """By state, sender and recipient; oldest first."""
        [first] = self.put("a@example.org")
        [second] = self.put("b@example.org")
        self.settle(self.queue.claim()[0], all=LATER)
        self.assertEqual([mail.name for mail in self.queue.admin.mails()], [first, second])
        self.assertEqual([mail.name for mail in self.queue.admin.mails([State.DEFERRED])], [first])
        self.assertEqual([mail.name for mail in self.queue.admin.mails(recipient="b@example.org")], [second])
        self.assertEqual([mail.name for mail in self.queue.admin.mails(sender="other@example.org")], [])

    def test_mails_can_be_filtered_by_what_was_said(self: Any) -> None:
        """By the code, or by a part of the words of the last reply or the note."""
        [first] = self.put("a@example.org")
        [second] = self.put("b@example.org")
        for lease, reply in zip(self.queue.claim(2), (LATER, NEVER), strict=True):
            self.settle(lease, all=reply)
        [third] = self.put("c@example.org")
        self.queue.admin.hold(third)
        for text, names in {"450": [first], "NO SUCH": [second], "operator": [third], "45": [first], "999": []}.items():
            self.assertEqual([mail.name for mail in self.queue.admin.mails(reply=text)], names, text)

    def test_mails_can_be_filtered_by_age(self: Any) -> None:
        """`after` is within, `before` is not."""
        [name] = self.put()
        since = self.queue.admin.show(name).since
        for limits, count in (({"before": since}, 0), ({"before": since + 1}, 1), ({"after": since + 1}, 0)):
            self.assertEqual(len(list(self.queue.admin.mails(**limits))), count, limits)
        self.assertEqual(len(list(self.queue.admin.mails(after=since))), 1)

    def test_mails_can_be_filtered_by_domain_and_by_the_empty_sender(self: Any) -> None:
        """``@example.org`` stands for all recipients there, ``<>`` the null reverse-path; case does not matter."""
        self.put("a@example.org", "b@EXAMPLE.net")
        staged = self.queue.stage()
        bounce = staged.add(envelope("c@example.com", sender=""), MESSAGE)
        staged.prepare()
        staged.commit()
        self.assertEqual(len(list(self.queue.admin.mails(recipient="@example.NET"))), 1)
        self.assertEqual(len(list(self.queue.admin.mails(recipient="B@example.net"))), 1)
        self.assertEqual(list(self.queue.admin.mails(recipient="@ample.net")), [])
        self.assertEqual([mail.name for mail in self.queue.admin.mails(sender="<>")], [bounce])

    def test_names_are_those_of_all_mails(self: Any) -> None:
        """Oldest first, whatever their state."""
        names = self.put(count=3)
        self.settle(self.queue.claim()[0], all=NEVER)
        self.queue.admin.hold(names[1])
        self.assertEqual(list(self.queue.admin.names()), names)

    def test_some_mails_are_asked_for_by_name(self: Any) -> None:
        """In the order of the names; what has gone is left out."""
        first, second, third = self.put(count=3)
        self.queue.admin.remove(second)
        self.queue.admin.hold(third)
        found = list(self.queue.admin.these([third, "gone", second, first]))
        self.assertEqual([(mail.name, mail.state) for mail in found], [(third, State.HELD), (first, State.READY)])
        self.assertEqual(found[0].envelope, self.queue.admin.show(third).envelope)

    def test_examination_tells_of_mail_that_waits_for_a_person(self: Any) -> None:
        """Held and rejected mail, with the reason; nothing is changed."""
        held, rejected, _ = self.put(count=3)
        self.queue.admin.hold(held)
        self.settle(self.queue.claim()[0], all=NEVER)
        before = [self.queue.admin.show(name) for name in self.queue.admin.names()]
        found = {
            finding.name: finding for finding in self.queue.admin.examine() if finding.kind in ("held", "rejected")
        }
        self.assertEqual({name: finding.kind for name, finding in found.items()}, {held: "held", rejected: "rejected"})
        self.assertIn("held by an operator", found[held].text)
        self.assertIn("550 no such user", found[rejected].text)
        self.assertEqual(found[rejected].severity, "warning")
        self.assertTrue(all(finding.cure for finding in found.values()))
        self.assertEqual([self.queue.admin.show(name) for name in self.queue.admin.names()], before)

    def test_rejected_mail_can_expire(self: Any) -> None:
        """What was given up before a moment goes; other mail stays."""
        self.put()
        self.settle(self.queue.claim()[0], all=NEVER)
        self.clock.advance(86400)
        [waiting] = self.put()
        self.assertEqual(self.queue.admin.expire_rejected(self.clock.time() - 86400), 0)
        self.assertEqual(self.queue.admin.expire_rejected(self.clock.time() - 86399), 1)
        self.assertEqual(list(self.queue.admin.names()), [waiting])

    def test_what_processors_tell_is_kept(self: Any) -> None:
        """A relay that cannot be used is the reason of mail that is due, also after the processor has ended."""
        [name] = self.put()
        self.queue.claim(0)
        now = self.clock.time()
        fault = Reply(Answer.DEFERRED, "authentication failed", 535, "5.7.8")
        relay = RelayState("default", "relay:25", fault, now, now + 5, now, 1)
        state = ProcessorState(os.getpid(), "here", now, now, relays=(relay,))
        for told in (state, replace(state, ended=now)):
            self.queue.report(told)
            [known] = self.queue.admin.processors()
            self.assertEqual((known.relays, known.pid, known.alive), ((relay,), os.getpid(), not told.ended))
            mail = self.queue.admin.show(name)
            expected = replace(relay, probe=0.0 if told.ended else relay.probe)  # a dead one tries nothing
            self.assertEqual((mail.relays, mail.blocked), (("default",), expected))
            self.assertEqual([each.name for each in self.queue.admin.mails(reply="535")], [name])
            self.assertEqual([each.name for each in self.queue.admin.mails(relay="default")], [name])
            self.assertEqual(list(self.queue.admin.mails(relay="other")), [])
            self.assertIn("relay", {finding.kind for finding in self.queue.admin.examine()})

    def test_operators_ask_for_a_try_of_a_relay(self: Any) -> None:
        """Each request is another one, and processors wake up for it."""
        self.queue.claim(0)
        self.assertEqual(self.queue.probe_asked("default"), 0.0)
        self.queue.admin.probe("default")
        first = self.queue.probe_asked("default")
        self.queue.wait(DEADLINE)
        self.clock.advance(1)
        self.queue.admin.probe("default")
        self.assertGreater(self.queue.probe_asked("default"), first)
        self.assertEqual(self.queue.probe_asked("other"), 0.0)

    def test_mail_can_go_to_another_relay(self: Any) -> None:
        """The message stays as it is, and the mail is due."""
        [name] = self.put()
        before = self.queue.admin.read(name).read()
        self.settle(self.queue.claim()[0], all=LATER)
        self.queue.admin.reroute(name, RelayName(mailer="bulk"))
        mail = self.queue.admin.show(name)
        self.assertEqual((mail.envelope.relay, mail.state), (RelayName(mailer="bulk"), State.READY))
        self.assertEqual(self.queue.admin.read(name).read(), before)
        [lease] = self.queue.claim()
        self.assertEqual(lease.envelope.relay, RelayName(mailer="bulk"))
        with self.assertRaises(NotPossible):
            self.queue.admin.reroute(name, None)
        lease.release()

    def test_mail_can_be_given_up(self: Any) -> None:
        """It is rejected for those who were not served, with the reason; and not given up twice."""
        [name] = self.put()
        self.queue.admin.give_up(name, "enough")
        mail = self.queue.admin.show(name)
        self.assertEqual((mail.state, mail.history[-1].note), (State.REJECTED, "enough"))
        self.assertEqual(self.queue.claim(), [])
        with self.assertRaises(NotPossible):
            self.queue.admin.give_up(name, "enough")

    def test_nothing_is_in_doubt_while_its_transaction_lives(self: Any) -> None:
        """Staged mail of this process can still be committed."""
        staged = self.queue.stage()
        staged.add(envelope(), MESSAGE)
        self.assertEqual(list(self.queue.admin.in_doubt()), [])
        staged.abort()

    def test_show_tells_all_that_happened(self: Any) -> None:
        """Envelope with all recipients, and every attempt."""
        [name] = self.put("a@example.org", "b@example.org")
        for _ in range(2):
            self.settle(self.queue.claim()[0], a=OK, b=LATER)
            self.clock.advance(3600)
        mail = self.queue.admin.show(name)
        self.assertEqual(mail.envelope.recipients, ("a@example.org", "b@example.org"))
        self.assertEqual([record.attempts for record in mail.history], [1, 2])
        self.assertEqual(mail.message_id, "1@example.org")

    def test_read_gives_the_message(self: Any) -> None:
        """Without envelope lines."""
        [name] = self.put()
        with self.queue.admin.read(name) as stream:
            self.assertEqual(stream.read(), MESSAGE)

    def test_oldest_is_the_oldest_that_waits(self: Any) -> None:
        """None if nothing waits."""
        self.assertIsNone(self.queue.admin.oldest())
        self.put()
        self.assertIsInstance(self.queue.admin.oldest(), float)
