"""How mail leaves a queue, and what is told of it afterwards."""

from __future__ import annotations

from typing import Any

from zope.sendmail.lifecycle.outcome import Answer, Reply
from zope.sendmail.lifecycle.states import State
from zope.sendmail.testing.contracts.situation import (
    LATER,
    NEVER,
    OK,
    QueueSituation,
)


class ClaimingContract(QueueSituation):
    """How mail leaves a queue, and what is told of it afterwards."""

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
