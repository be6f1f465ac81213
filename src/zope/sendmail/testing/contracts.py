"""What every `IMailQueue` can do: a suite that each implementation passes.

Use it as a mixin of a `unittest.TestCase` and say how a queue is made::

    class MyQueueTests(QueueContract, unittest.TestCase):
        def make_queue(self): ...

A queue that outlives its process also says how the same queue is opened a second time (`open_again`).
"""

from __future__ import annotations

import os
import uuid
from dataclasses import replace
from typing import Any
from unittest import SkipTest

from zope.interface.verify import verifyObject

from zope.sendmail.errors import LeaseLost, NoSuchMail, NotPossible
from zope.sendmail.interfaces import (
    IFirstAttempts,
    ILease,
    IMailQueue,
    IMailQueueAdmin,
    IQueuedMail,
    IStagedMail,
)
from zope.sendmail.lifecycle.outcome import Answer, Outcome, Reply
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.relaystate import ProcessorState, RelayState
from zope.sendmail.lifecycle.retry import Schedule, judge
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.pieces import texts
from zope.sendmail.message.relayname import RelayName
from zope.sendmail.system.clock import Clock

MESSAGE = b"Message-Id: <1@example.org>\nSubject: one\n\nText\n"
SCHEDULE = Schedule(first=60.0, jitter=0.0)
OK = Reply(Answer.ACCEPTED, "ok", 250)
LATER = Reply(Answer.DEFERRED, "greylisted", 450)
#: Seconds for what happens at once.
DEADLINE = 60.0

NEVER = Reply(Answer.REJECTED, "no such user", 550)


class ManualClock(Clock):
    """A clock that a test turns.  The wall clock can also be set apart from the monotonic one."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.wall = now
        self.mono = 1000.0

    def time(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.mono

    def chance(self) -> float:
        return 0.5

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.wall += seconds
        self.mono += seconds


def envelope(*recipients: str, sender: str = "sender@example.org") -> Envelope:
    """Return an envelope with these recipients, or with one."""
    return Envelope(sender, recipients or ("one@example.org",))


class QueueContract:
    """The promises of `IMailQueue`.  `clock` is a `ManualClock` for the queue."""

    clock: ManualClock
    queue: Any

    def make_queue(self) -> Any:
        """Return an empty queue that uses ``self.clock`` and ``SCHEDULE``."""
        raise SkipTest("this is the contract; a queue says how it is made")

    def open_again(self) -> Any:
        """Return the same queue, opened by another process; skips where that cannot be."""
        raise SkipTest("this queue is not shared between processes")

    def setUp(self) -> None:
        self.clock = ManualClock()
        self.queue = self.make_queue()

    def tearDown(self) -> None:
        self.queue.close()

    def put(self, *recipients: str, message: bytes = MESSAGE, count: int = 1) -> list[str]:
        """Commit `count` mails; return their names."""
        staged = self.queue.stage()
        names = [staged.add(envelope(*recipients), message) for _ in range(count)]
        staged.prepare()
        staged.commit()
        return names

    def settle(self, lease: Any, **replies: Reply) -> Record:
        """Settle a lease as if a relay had answered this to all recipients, or to the local parts named."""
        said = {who: replies.get(who.partition("@")[0], replies.get("all", OK)) for who in lease.envelope.recipients}
        record = judge(
            lease.record,
            lease.envelope,
            Outcome("relay:25", said),
            SCHEDULE,
            now=self.clock.time(),
            chance=self.clock.chance(),
        )
        lease.settle(record)
        return record

    # interfaces

    def test_provides_its_interfaces(self: Any) -> None:
        """Queue, group, lease and mail provide what they promise."""
        self.put()
        verifyObject(IMailQueue, self.queue)
        verifyObject(IMailQueueAdmin, self.queue.admin)
        verifyObject(IStagedMail, self.queue.stage())
        verifyObject(IQueuedMail, next(self.queue.admin.mails()))
        verifyObject(ILease, self.queue.claim()[0])
        verifyObject(IFirstAttempts, self.queue.first_attempts())

    # the first attempt

    def first_attempts(self, count: int) -> tuple[Any, list[str]]:
        """Commit so many mails, each by itself, with the right to the first attempt: that, and their names."""
        attempts, names = self.queue.first_attempts(), []
        self.addCleanup(attempts.close)  # type: ignore[attr-defined]  # it is mixed into a TestCase
        for number in range(count):
            staged = self.queue.stage()
            names.append(staged.add(envelope(f"{number}@example.org"), MESSAGE))
            staged.prepare()
            attempts.commit(staged)
        return attempts, names

    def test_the_first_attempt_is_of_the_process_that_commits(self: Any) -> None:
        """No processor gets the mails; the lease is as any other."""
        attempts, names = self.first_attempts(2)
        self.assertEqual(self.queue.claim(9), [])
        lease = attempts.claim(names[0])
        self.assertEqual((lease.envelope.recipients, lease.open().read()), (("0@example.org",), MESSAGE))
        lease.intend()
        self.settle(lease)
        self.settle(attempts.claim(names[1]), all=LATER)
        attempts.close()
        self.assertEqual(dict(self.queue.admin.count()), {State.DEFERRED: 1})
        self.assertIsNone(attempts.claim(names[0]))

    def test_what_is_left_of_first_attempts_is_the_processors(self: Any) -> None:
        """One that is let go, and one that is left at the end."""
        attempts, names = self.first_attempts(2)
        attempts.leave(names[0])
        attempts.close()
        self.clock.advance(5.0)  # within which a lease ends
        leases = [lease for _ in range(3) for lease in self.queue.claim(9)]
        self.assertEqual(sorted(lease.name for lease in leases), sorted(names))

    # the way in

    def test_staged_mail_is_not_claimed(self: Any) -> None:
        """Nobody sees a mail before its transaction commits."""
        staged = self.queue.stage()
        staged.add(envelope(), MESSAGE)
        staged.prepare()
        self.assertEqual(self.queue.claim(), [])
        self.assertEqual(self.queue.admin.count(), {State.STAGED: 1})
        staged.abort()

    def test_committed_mail_is_claimed_as_it_was(self: Any) -> None:
        """Envelope and message come out byte for byte."""
        self.put("one@example.org", "zwölf@example.org")
        lease = self.queue.claim()[0]
        self.assertEqual(lease.envelope, envelope("one@example.org", "zwölf@example.org"))
        self.assertEqual(lease.open().read(), MESSAGE)
        self.assertEqual(lease.message_id, "1@example.org")
        self.assertIsNone(lease.inherited)

    def test_a_message_in_pieces_comes_out_whole(self: Any) -> None:
        """Of any kind: octets, views of octets, and text that is not octets yet."""
        text = "a line of a large message\n" * 30_000
        staged = self.queue.stage()
        for _ in range(12):  # the later ones of a large transaction may be kept in another way
            staged.add(envelope(), MESSAGE, memoryview(MESSAGE), *texts(text, "\r\n", 5000), *texts(text, "\n", 70_000))
        staged.prepare()
        staged.commit()
        expected = MESSAGE + MESSAGE + text.replace("\n", "\r\n").encode() + text.encode()
        for lease in self.queue.claim(12):
            self.assertTrue(lease.open().read() == expected)
            self.assertEqual(lease.message_id, "1@example.org")

    def test_aborted_mail_leaves_nothing(self: Any) -> None:
        """After abort the queue is as before, also when it is repeated."""
        staged = self.queue.stage()
        for _ in range(3):
            staged.add(envelope(), MESSAGE)
        staged.prepare()
        staged.abort()
        staged.abort()
        self.assertEqual(self.queue.admin.count(), {})
        self.assertEqual(self.queue.claim(), [])

    def test_abort_after_commit_is_harmless(self: Any) -> None:
        """What is revealed stays."""
        staged = self.queue.stage()
        staged.add(envelope(), MESSAGE)
        staged.prepare()
        staged.commit()
        staged.abort()
        self.assertEqual(len(self.queue.claim()), 1)

    def test_rollback_keeps_the_first_mails(self: Any) -> None:
        """Mails after a savepoint go, those before it stay, and new ones may follow."""
        staged = self.queue.stage()
        first = staged.add(envelope(), MESSAGE)
        staged.add(envelope(), MESSAGE)
        staged.add(envelope(), MESSAGE)
        staged.rollback(1)
        last = staged.add(envelope(), MESSAGE)
        self.assertEqual(len(staged), 2)
        staged.prepare()
        staged.commit()
        self.assertEqual([lease.name for lease in self.queue.claim(10)], [first, last])

    def test_empty_group_is_harmless(self: Any) -> None:
        """A transaction whose mails were all rolled back commits nothing."""
        staged = self.queue.stage()
        staged.add(envelope(), MESSAGE)
        staged.add(envelope(), MESSAGE)
        staged.rollback(0)
        staged.prepare()
        staged.commit()
        self.assertEqual(self.queue.admin.count(), {})

    def test_groups_do_not_meet(self: Any) -> None:
        """One transaction aborts, the other commits."""
        one, other = self.queue.stage(), self.queue.stage()
        one.add(envelope("one@example.org"), MESSAGE)
        other.add(envelope("other@example.org"), MESSAGE)
        one.abort()
        other.prepare()
        other.commit()
        self.assertEqual([lease.envelope.recipients for lease in self.queue.claim(9)], [("other@example.org",)])

    def test_message_cannot_change_the_envelope(self: Any) -> None:
        """A message that begins like envelope lines is still the message."""
        message = b"X-Zope-To: evil@example.org\nX-Zope-Envelope: end\nX-Zope-Hostname: evil\n\n"
        self.put(message=message)
        lease = self.queue.claim()[0]
        self.assertEqual(lease.envelope, envelope())
        self.assertEqual(lease.open().read(), message)

    def test_a_relay_that_is_asked_for_comes_out(self: Any) -> None:
        """By name or by address, and the message is as it was."""
        for relay in RelayName(mailer="bulk"), RelayName(hostname="relay.example.org", port=26):
            wanted = replace(envelope(), relay=relay)
            staged = self.queue.stage()
            staged.add(wanted, MESSAGE)
            staged.prepare()
            staged.commit()
            lease = self.queue.claim()[0]
            self.assertEqual((lease.envelope, lease.open().read()), (wanted, MESSAGE))

    def test_a_trace_comes_out(self: Any) -> None:
        """Beside the envelope, not in the message."""
        trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01 vendor=value"
        staged = self.queue.stage()
        staged.add(replace(envelope(), trace=trace), MESSAGE)
        staged.prepare()
        staged.commit()
        [lease] = self.queue.claim()
        self.assertEqual(lease.envelope, replace(envelope(), trace=trace))
        self.assertEqual(lease.open().read(), MESSAGE)

    def test_parked_mail_waits_for_its_relay(self: Any) -> None:
        """It is not claimed here until it is unparked, oldest first; other mail flows."""
        names = self.put(count=3)
        for lease in self.queue.claim(3):
            lease.park("slow")
        self.assertEqual((self.queue.claim(9), self.queue.next_due()), ([], None))
        self.assertEqual(list(self.queue.parked()), ["slow"])
        [other] = self.put()
        self.assertEqual([lease.name for lease in self.queue.claim(9)], [other])
        self.assertEqual(self.queue.unpark("slow", 2), 2)
        self.assertEqual([lease.name for lease in self.queue.claim(9)], names[:2])
        self.assertEqual(self.queue.unpark("slow", 9), 1)
        self.assertEqual([lease.name for lease in self.queue.claim(9)], names[2:])
        self.assertEqual((list(self.queue.parked()), self.queue.unpark("slow", 9)), ([], 0))

    def test_parked_mail_may_have_another_way_later(self: Any) -> None:
        """With ``patience`` it is claimed after so many seconds, or when it is unparked, whichever is first; once."""
        names = self.put(count=3)
        for lease in self.queue.claim(3):
            lease.park("slow", 30.0)
        self.assertEqual((self.queue.claim(9), list(self.queue.parked())), ([], ["slow"]))
        self.assertLess(abs(self.queue.next_due() - 30.0), 1e-6)
        self.assertEqual(self.queue.unpark("slow", 1), 1)
        self.assertEqual([lease.name for lease in self.queue.claim(9)], names[:1])
        for _ in range(3):
            self.clock.advance(30.0)
            again = self.queue.claim(9)
            self.assertEqual([lease.name for lease in again], names[1:])
            for lease in again:
                lease.park("slow", 30.0)
        self.assertEqual((self.queue.unpark("slow", 9), len(self.queue.claim(9))), (2, 2))
        self.assertEqual((self.queue.unpark("slow", 9), list(self.queue.parked())), (0, []))

    def test_the_oldest_is_unparked_first(self: Any) -> None:
        """In whatever order they were parked."""
        names = self.put(count=4)
        for lease in reversed(self.queue.claim(4)):
            lease.park("slow")
        self.queue.unpark("slow", 2)
        self.assertEqual([lease.name for lease in self.queue.claim(9)], names[:2])

    def test_an_operator_reaches_parked_mail(self: Any) -> None:
        """It is ready for them, and what they say counts."""
        one, other, third = self.put(count=3)
        for lease in self.queue.claim(3):
            lease.park("slow")
        self.assertEqual(self.queue.admin.count(), {State.READY: 3})
        self.queue.admin.retry(one)
        self.assertEqual([lease.name for lease in self.queue.claim(9)], [one])
        self.queue.admin.remove(other)
        self.queue.unpark("slow", 9)
        self.assertEqual([lease.name for lease in self.queue.claim(9)], [third])

    # the way out

    def test_first_in_first_out(self: Any) -> None:
        """Within a transaction and between transactions."""
        names = self.put(count=5) + self.put(count=1) + self.put(count=3)
        self.assertEqual([lease.name for lease in self.queue.claim(20)], names)

    def test_leased_mail_is_not_leased_again(self: Any) -> None:
        """As long as a lease lives, no other claim gets the mail."""
        self.put(count=2)
        first, second = self.queue.claim(), self.queue.claim()
        self.assertNotEqual(first[0].name, second[0].name)
        self.assertEqual(self.queue.claim(), [])

    def test_claim_takes_no_more_than_the_limit(self: Any) -> None:
        """`limit` leases at most."""
        self.put(count=3)
        self.assertEqual(len(self.queue.claim(2)), 2)

    def test_what_is_reserved_ahead_is_given_back(self: Any) -> None:
        """A queue may keep further mails for a processor that says so, but not beyond its rest, and each is claimed."""
        names = self.put(count=5)
        self.assertEqual([lease.name for lease in self.queue.claim(1, ahead=3)], names[:1])
        self.assertEqual([lease.name for lease in self.queue.claim(9)], names[1:])

    def test_released_mail_is_as_before(self: Any) -> None:
        """A lease that is given back costs no attempt."""
        [name] = self.put()
        self.queue.claim()[0].release()
        lease = self.queue.claim()[0]
        self.assertEqual((lease.name, lease.record.attempts), (name, 0))

    def test_sent_mail_is_gone(self: Any) -> None:
        """All recipients accepted."""
        self.put()
        self.settle(self.queue.claim()[0])
        self.assertEqual(self.queue.admin.count(), {})
        self.assertEqual(self.queue.claim(), [])

    def test_deferred_mail_comes_back_when_it_is_due(self: Any) -> None:
        """Not before, and with what is known about it."""
        self.put()
        self.settle(self.queue.claim()[0], all=LATER)
        self.assertEqual(self.queue.admin.count(), {State.DEFERRED: 1})
        self.clock.advance(59)
        self.assertEqual(self.queue.claim(), [])
        self.assertAlmostEqual(self.queue.next_due(), 1.0, 3)
        self.clock.advance(1)
        lease = self.queue.claim()[0]
        self.assertEqual(lease.record.attempts, 1)
        self.assertEqual(lease.record.replies["one@example.org"], LATER)

    def test_only_outstanding_recipients_are_tried_again(self: Any) -> None:
        """Accepted and rejected recipients are never sent to again."""
        self.put("a@example.org", "b@example.org", "c@example.org")
        self.settle(self.queue.claim()[0], a=OK, b=LATER, c=NEVER)
        self.clock.advance(60)
        self.assertEqual(self.queue.claim()[0].envelope.recipients, ("b@example.org",))

    def test_rejected_mail_is_kept_for_a_person(self: Any) -> None:
        """It is not tried again, and it is shown with the relay's words."""
        [name] = self.put()
        self.settle(self.queue.claim()[0], all=NEVER)
        self.clock.advance(10 * 86400)
        self.assertEqual(self.queue.claim(), [])
        self.assertEqual(self.queue.admin.count(), {State.REJECTED: 1})
        self.assertEqual(self.queue.admin.show(name).history[-1].replies["one@example.org"], NEVER)

    def test_fresh_mail_does_not_wait_for_deferred_mail(self: Any) -> None:
        """Whatever waits, a new mail is claimed at once."""
        self.put(count=3)
        for lease in self.queue.claim(3):
            self.settle(lease, all=LATER)
        [name] = self.put()
        self.assertEqual([lease.name for lease in self.queue.claim(5)], [name])

    def test_next_due_tells_when(self: Any) -> None:
        """None when nothing is known, 0.0 when something is due."""
        self.assertEqual(self.queue.claim(), [])
        self.assertIsNone(self.queue.next_due())
        self.put(count=2)
        lease = self.queue.claim()[0]
        self.assertEqual(self.queue.next_due(), 0.0)
        self.settle(lease)

    def test_intend_is_allowed_to_the_holder(self: Any) -> None:
        """The lease says that the last byte may go."""
        self.put()
        lease = self.queue.claim()[0]
        lease.intend()
        self.settle(lease)

    def test_wake_ends_the_wait(self: Any) -> None:
        """A wait that was woken returns without its time being over."""
        self.queue.claim()
        self.queue.wake()
        self.queue.wait(3600.0)

    def test_commit_ends_the_wait(self: Any) -> None:
        """A commit is noticed at once."""
        self.queue.claim()
        self.put()
        self.queue.wait(3600.0)
        self.assertEqual(len(self.queue.claim()), 1)

    # clocks

    def test_clock_set_back_delays_no_more_than_planned(self: Any) -> None:
        """A wall clock that jumps a day back does not hold mail for a day."""
        self.put()
        self.settle(self.queue.claim()[0], all=LATER)
        self.clock.wall -= 86400
        self.clock.advance(60)
        self.assertEqual(len(self.queue.claim()), 1)

    # what became of a mail

    def status(self) -> tuple[str, str]:
        """Return what is told about the mail that `put` writes."""
        status = self.queue.status("1@example.org")
        return str(status.standing), status.reason

    def test_tells_what_became_of_a_mail(self: Any) -> None:
        """Unknown before it was sent; queued, deferred with the reason, rejected with the reason, sent."""
        self.assertEqual(self.status()[0], "unknown")
        [name] = self.put()
        self.assertEqual(self.status()[0], "queued")
        [lease] = self.queue.claim()
        self.assertEqual(self.status()[0], "queued")
        self.settle(lease, all=LATER)
        self.assertEqual(self.status(), ("deferred", "450 greylisted"))
        self.assertEqual(self.queue.status("1@example.org").due, self.clock.time() + 60)
        self.clock.advance(60)
        self.settle(self.queue.claim()[0], all=NEVER)
        self.assertEqual(self.status(), ("rejected", "550 no such user"))
        self.queue.admin.retry(name)
        self.settle(self.queue.claim()[0])
        self.assertEqual(self.status(), ("sent", "every recipient was accepted"))
        self.assertEqual(self.queue.status("1@example.org").sent, self.clock.time())
        self.assertEqual(str(self.queue.status("2@example.org").standing), "unknown")

    def test_tells_that_nobody_knows(self: Any) -> None:
        """An outcome that is unknown is told as such until it is sent again, or a person decides."""
        self.put()
        self.settle(self.queue.claim()[0], all=Reply(Answer.UNKNOWN, "lost"))
        self.assertEqual(self.status(), ("unknown", "lost"))
        [name] = self.queue.admin.names()
        self.queue.admin.hold(name)
        self.assertEqual(self.status()[0], "held")

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

    # shared queues

    def test_what_is_reserved_ahead_is_everybodys_after_a_rest(self: Any) -> None:
        """``wait`` gives back what was not claimed."""
        names = self.put(count=5)
        self.queue.claim(1, ahead=3)
        self.queue.wake()
        self.queue.wait(3600.0)
        self.assertEqual([lease.name for lease in self.open_again().claim(9)], names[1:])

    def test_two_owners_never_have_the_same_mail(self: Any) -> None:
        """Whoever claims second gets another mail, or none."""
        other = self.open_again()
        self.put(count=3)
        names = [lease.name for queue in (self.queue, other) * 2 for lease in queue.claim()]
        self.assertEqual(len(names), 3)
        self.assertEqual(len(set(names)), 3)

    def test_turns_of_a_relay_are_given_once(self: Any) -> None:
        """Whoever asks second waits for as long as the first one's turns take; another relay has its own."""
        other, relay = self.open_again(), f"{uuid.uuid4()}.example:25"  # queues of a database share them
        self.assertEqual(self.queue.take_turns(relay, 0.01, 3), 0.0)
        self.assertGreater(other.take_turns(relay, 0.01, 1), 250.0)
        self.assertGreater(self.queue.take_turns(relay, 0.01, 1), 350.0)
        self.assertEqual(other.take_turns(f"another.{relay}", 0.01, 1), 0.0)

    def test_commit_wakes_other_owners(self: Any) -> None:
        """A commit through one is noticed by the other at once."""
        other = self.open_again()
        other.claim()
        self.put()
        other.wait(3600.0)
        self.assertEqual(len(other.claim()), 1)

    def test_an_operator_reaches_what_others_know(self: Any) -> None:
        """What one changes, the other does."""
        other = self.open_again()
        [name] = self.put()
        self.settle(other.claim()[0], all=LATER)
        self.queue.admin.retry(name)
        other.wait(3600.0)
        self.assertEqual([lease.name for lease in other.claim()], [name])

    def test_lease_of_a_dead_owner_is_taken_over(self: Any) -> None:
        """Within five seconds, and by one survivor only."""
        self.put()
        dead = self.open_again()
        self.assertEqual(len(dead.claim()), 1)
        survivors = [self.open_again(), self.open_again()]
        self.assertEqual([len(queue.claim()) for queue in survivors], [0, 0])
        dead.close()
        self.clock.advance(5)
        self.assertEqual(sum(len(queue.claim()) for queue in survivors), 1)

    def test_what_a_dead_owner_intended_is_unknown(self: Any) -> None:
        """The last byte may have gone, and it cannot be known."""
        self.put()
        dead = self.open_again()
        lease = dead.claim()[0]
        lease.open()
        lease.intend()
        dead.close()
        self.clock.advance(5)
        taken = self.queue.claim()[0]
        self.assertEqual(taken.inherited.replies["one@example.org"].answer, Answer.UNKNOWN)
        self.assertEqual((taken.record.unknowns, taken.record.deaths), (1, 1))

    def test_what_a_dead_owner_did_not_touch_is_as_before(self: Any) -> None:
        """A claim alone counts for nothing."""
        self.put()
        dead = self.open_again()
        dead.claim()
        dead.close()
        self.clock.advance(5)
        taken = self.queue.claim()[0]
        self.assertEqual((taken.inherited, taken.record.deaths), (None, 0))

    def test_third_death_holds_the_mail(self: Any) -> None:
        """A mail that kills its workers waits for a person; others flow."""
        [name] = self.put()
        for _ in range(3):
            dead = self.open_again()
            self.assertEqual(dead.claim()[0].open().read(), MESSAGE)
            dead.close()
            self.clock.advance(5)
        self.assertEqual([lease.record.state for lease in self.queue.claim()], [State.HELD])
        self.assertEqual(self.queue.admin.show(name).history[-1].deaths, 3)

    def test_intend_is_refused_to_who_lost_the_lease(self: Any) -> None:
        """Whoever was taken for dead must not send."""
        self.put()
        slow = self.open_again()
        lease = slow.claim()[0]
        slow.close()
        self.clock.advance(5)
        self.assertEqual(len(self.queue.claim()), 1)
        self.assertRaises(LeaseLost, lease.intend)
