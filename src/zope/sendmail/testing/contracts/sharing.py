"""What several processes do with one queue, and what a dead one leaves."""

from __future__ import annotations

import uuid
from typing import Any

from zope.sendmail.errors import LeaseLost
from zope.sendmail.lifecycle.outcome import Answer
from zope.sendmail.lifecycle.states import State
from zope.sendmail.testing.contracts.situation import (
    LATER,
    MESSAGE,
    QueueSituation,
)


class SharingContract(QueueSituation):
    """What several processes do with one queue, and what a dead one leaves."""

    # shared queues

    def test_what_is_reserved_ahead_is_everybodys_after_a_rest(self: Any) -> None:
        """``wait`` gives back what was not claimed."""
        names = self.put(count=5)
        self.queue.claim(1, ahead=3)
        self.queue.wake()
        self.queue.wait(3600.0)
        self.assertEqual([lease.name for lease in self.open_again().claim(9)], names[1:])

    def test_two_owners_never_have_the_same_mail(self: Any) -> None:
        """The processor that claims second gets another mail, or none."""
        other = self.open_again()
        self.put(count=3)
        names = [lease.name for queue in (self.queue, other) * 2 for lease in queue.claim()]
        self.assertEqual(len(names), 3)
        self.assertEqual(len(set(names)), 3)

    def test_turns_of_a_relay_are_given_once(self: Any) -> None:
        """The processor that asks second waits for as long as the first one's turns take; another relay has its own."""
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
        """A processor that was taken for dead must not send."""
        self.put()
        slow = self.open_again()
        lease = slow.claim()[0]
        slow.close()
        self.clock.advance(5)
        self.assertEqual(len(self.queue.claim()), 1)
        self.assertRaises(LeaseLost, lease.intend)
