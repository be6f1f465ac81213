"""What senders ask for: when a mail leaves, until when, and before which other mail."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import Any

from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.relayname import RelayName
from zope.sendmail.message.terms import Priority, Terms
from zope.sendmail.testing.contracts.situation import LATER, MESSAGE, QueueSituation, envelope

HIGH, LOW = Terms(priority=Priority.HIGH), Terms(priority=Priority.LOW)


class AskingContract(QueueSituation):
    """What senders ask for: when a mail leaves, until when, and before which other mail."""

    def in_an_hour(self, **more: Any) -> Terms:
        """Return terms of a mail that leaves in an hour."""
        return Terms(not_before=self.clock.time() + 3600, **more)

    def test_terms_come_out_as_they_were(self: Any) -> None:
        """All of them, beside a relay, and the message is as it was."""
        asked = Terms(
            0.0, self.clock.time() + 60, Priority.HIGH, "order 17, ä", self.clock.time() + 99, ("one@example.org",)
        )
        for relay in None, RelayName(mailer="bulk"):
            wanted = replace(envelope("one@example.org", "zwölf@example.org"), terms=asked, relay=relay)
            staged = self.queue.stage()
            name = staged.add(replace(wanted, terms=replace(asked, key=f"{asked.key} {relay}")), MESSAGE)
            staged.prepare()
            staged.commit()
            self.assertEqual(self.queue.admin.show(name).envelope.terms.expires, asked.expires)
            lease = self.queue.claim()[0]
            self.assertEqual(replace(lease.envelope.terms, key=asked.key), asked)
            self.assertEqual((lease.envelope.relay, lease.open().read()), (relay, MESSAGE))

    # not before

    def test_mail_leaves_when_its_sender_wants(self: Any) -> None:
        """To the second, and not before; other mail flows."""
        [name] = self.put_with(self.in_an_hour())
        [other] = self.put()
        self.assertEqual(self.names_of(self.queue.claim(9)), [other])
        self.assertEqual(self.queue.claim(9), [])
        self.assertAlmostEqual(self.queue.next_due(), 3600.0, 3)
        self.clock.advance(3599)
        self.assertEqual(self.queue.claim(9), [])
        self.clock.advance(1)
        self.assertEqual(self.names_of(self.queue.claim(9)), [name])

    def test_mail_that_leaves_later_is_told_apart(self: Any) -> None:
        """It is scheduled, with the time at which it leaves; nothing waits for too long."""
        [name] = self.put_with(self.in_an_hour())
        for _ in range(2):
            mail = self.queue.admin.show(name)
            self.assertEqual((mail.state, mail.due), (State.SCHEDULED, self.clock.time() + 3600))
            self.assertEqual(self.queue.admin.count(), {State.SCHEDULED: 1})
            self.assertEqual([each.name for each in self.queue.admin.mails([State.SCHEDULED])], [name])
            self.assertEqual(list(self.queue.admin.mails([State.READY])), [])
            self.assertIsNone(self.queue.admin.oldest())
            status = self.queue.status("1@example.org")
            self.assertEqual((status.standing, status.due), ("queued", self.clock.time() + 3600))
            self.assertEqual(self.queue.claim(), [])
        self.assertNotIn("waiting", {finding.kind for finding in self.queue.admin.examine()})
        self.clock.advance(3600)
        self.assertEqual(self.queue.admin.show(name).state, State.READY)
        self.assertEqual(self.queue.admin.count(), {State.READY: 1})

    def test_retry_lets_mail_leave_at_once(self: Any) -> None:
        """An operator need not wait; if it is deferred then, the schedule of the queue counts."""
        [name] = self.put_with(self.in_an_hour())
        self.assertEqual(self.queue.claim(), [])
        self.queue.admin.retry(name)
        self.assertEqual(self.queue.admin.show(name).state, State.READY)
        [lease] = self.queue.claim()
        self.settle(lease, all=LATER)
        self.clock.advance(60)
        self.assertEqual(self.names_of(self.queue.claim()), [name])

    def test_a_hold_and_its_release_change_no_time(self: Any) -> None:
        """Mail that was held until then leaves when its sender wants."""
        [name] = self.put_with(self.in_an_hour())
        self.queue.admin.hold(name)
        self.queue.admin.release(name)
        self.assertEqual(self.queue.claim(), [])
        self.assertEqual(self.queue.admin.count(), {State.SCHEDULED: 1})
        self.clock.advance(3600)
        self.assertEqual(self.names_of(self.queue.claim()), [name])

    def test_another_relay_changes_no_time(self: Any) -> None:
        """Mail that is rerouted leaves when its sender wants."""
        [name] = self.put_with(self.in_an_hour(priority=Priority.LOW))
        self.queue.admin.reroute(name, RelayName(mailer="bulk"))
        self.assertEqual(self.queue.claim(), [])
        self.clock.advance(3600)
        [lease] = self.queue.claim()
        self.assertEqual(lease.envelope.terms, Terms(self.clock.time(), priority=Priority.LOW))

    def test_a_restart_changes_no_time(self: Any) -> None:
        """Another process lets it leave at the same moment."""
        [name] = self.put_with(self.in_an_hour())
        self.queue.close()
        other = self.open_again()
        self.assertEqual(other.claim(), [])
        self.assertAlmostEqual(other.next_due(), 3600.0, 3)
        self.clock.advance(3600)
        self.assertEqual(self.names_of(other.claim()), [name])

    # expires

    def test_mail_expires_whatever_it_waits_for(self: Any) -> None:
        """Ready, deferred, scheduled or parked for a relay; not before, and once."""
        terms = Terms(expires=self.clock.time() + 30)
        names = self.put_with(terms, count=3)
        deferred, parked = self.queue.claim(2)
        self.settle(deferred, all=LATER)
        parked.park("slow")
        self.assertAlmostEqual(self.queue.next_expiry(), 30.0, 3)
        self.assertEqual(self.queue.claim_expired(), [])
        self.clock.advance(30)
        self.assertEqual(self.queue.next_expiry(), 0.0)
        leases = list(self.queue.claim_expired())
        self.assertEqual(sorted(self.names_of(leases)), sorted(names))
        self.assertEqual((self.queue.claim_expired(), self.queue.claim(9)), ([], []))
        for lease in leases:
            lease.release()
        self.assertEqual(len(self.queue.claim_expired(2)), 2)

    def test_held_mail_does_not_expire(self: Any) -> None:
        """A person decides; when it is released, its time is over."""
        [name] = self.put_with(Terms(expires=self.clock.time() + 30))
        self.assertEqual(self.queue.claim_expired(), [])
        self.queue.admin.hold(name)
        self.clock.advance(30)
        self.assertEqual(self.queue.claim_expired(), [])
        self.queue.admin.release(name)
        [lease] = [*self.queue.claim(), *self.queue.claim_expired()][:1]
        self.assertEqual(lease.name, name)

    def test_nothing_expires_where_no_sender_wants_it(self: Any) -> None:
        """The usual mail has no such moment."""
        self.put()
        self.queue.claim()
        self.assertEqual((self.queue.next_expiry(), self.queue.claim_expired()), (None, []))

    # priority

    def test_high_goes_before_normal_and_normal_before_low(self: Any) -> None:
        """Within a priority, first in, first out."""
        low, normal, high = self.put_with(LOW, count=2), self.put(count=2), self.put_with(HIGH, count=2)
        self.assertEqual(self.names_of(self.queue.claim(9)), [*high, *normal, *low])

    def test_a_flood_of_low_mail_delays_high_mail_by_no_claim(self: Any) -> None:
        """Whatever was reserved, it is what the next claim gives."""
        self._flood(self.queue)

    def test_a_flood_delays_high_mail_of_another_process_by_no_claim(self: Any) -> None:
        """Whichever process has committed it."""
        self._flood(self.open_again())

    def _flood(self: Any, urgent_queue: Any) -> None:
        self.put_with(LOW, count=30)
        self.put(count=3)
        for _ in range(5):
            self.assertEqual(len(self.queue.claim(1, ahead=8)), 1)
            [urgent] = self.put_with(HIGH, queue=urgent_queue)
            self.assertEqual(self.names_of(self.queue.claim(1, ahead=8)), [urgent])

    def test_between_two_claims_it_is_known_whether_something_goes_before(self: Any) -> None:
        """What was committed by this process: a worker that has more in hand asks before each mail."""
        if not hasattr(self.queue, "has_before"):
            return
        normal, low = self.put(), self.put_with(LOW, count=2)
        self.put_with(Terms(not_before=self.clock.time() + 30, priority=Priority.HIGH))
        for name in (normal[0], low[0]):
            self.assertEqual(self.names_of(self.queue.claim(1)), [name])
        self.assertEqual(self._priorities_passed(), [])
        self.put_with(HIGH)
        self.assertEqual(self._priorities_passed(), [Priority.NORMAL, Priority.LOW])

    def _priorities_passed(self: Any) -> list[Priority]:
        return [priority for priority in Priority if self.queue.has_before(priority)]

    def test_a_newsletter_of_low_priority_lets_others_go_first(self: Any) -> None:
        """A transaction of hundreds of mails, be it drained as it lies; each claim gives what has come meanwhile."""
        if hasattr(self.queue, "drain_bundles"):
            self.queue.drain_bundles()
        names = self.put_with(LOW, count=300)
        sent: list[str] = []
        for _ in range(10):
            for lease in self.queue.claim(1, ahead=8):
                sent.append(lease.name)
                self.settle(lease)
            others = [*self.put_with(HIGH), *self.put()]
            for _ in range(2):
                [lease] = self.queue.claim(1, ahead=8)
                others.remove(lease.name)
                self.settle(lease)
        self.assertEqual(sent, names[:10])

    def test_a_newsletter_of_low_priority_does_not_starve(self: Any) -> None:
        """While high mail waits for each of its turns."""
        if hasattr(self.queue, "drain_bundles"):
            self.queue.drain_bundles()
        names, sent = self.put_with(LOW, count=300), 0
        self.put_with(HIGH, count=2)
        for _ in range(27):
            self.put_with(HIGH)
            [lease] = self.queue.claim(1)
            sent += lease.name in names
            self.settle(lease)
        self.assertEqual(sent, 3)

    def test_no_priority_starves(self: Any) -> None:
        """While there is enough of all, of 45 mails 9 are normal and 5 are low, as good as evenly spread."""
        for terms in (HIGH, Terms(), LOW):
            self.put_with(terms, count=60)
        ranks = [self.queue.claim(1)[0].envelope.terms.priority for _ in range(45)]
        self.assertLessEqual(abs(ranks.count(Priority.LOW) - 5), 1)
        self.assertLessEqual(abs(ranks.count(Priority.NORMAL) - 8), 2)
        self.assertLess(ranks.index(Priority.LOW), 12)

    def test_high_mail_that_was_parked_goes_first(self: Any) -> None:
        """Before older mail that waits for the same relay."""
        self.put_with(LOW, count=4)
        [urgent] = self.put_with(HIGH)
        for lease in self.queue.claim(5):
            lease.park("slow")
        self.queue.unpark("slow", 1)
        self.assertEqual(self.names_of(self.queue.claim(9)), [urgent])

    def test_mail_gives_way_to_high_mail_that_is_parked(self: Any) -> None:
        """Although that is younger; high mail gives no way to older mail of other priorities."""
        [usual] = self.put()
        [urgent], [late] = self.put_with(HIGH), self.put_with(HIGH)
        leases = {lease.name: lease for lease in self.queue.claim(3)}
        leases[urgent].park("slow")
        self.assertIs(leases[usual].give_way("slow"), True)
        self.assertEqual(self.names_of(self.queue.claim(9)), [urgent])
        self.assertIs(leases[late].give_way("slow"), False)

    def test_no_priority_starves_behind_mail_that_is_parked(self: Any) -> None:
        """Low mail that was unparked, as its turn has come, gives way to no other priority."""
        low = self.put_with(LOW, count=2)
        self.put_with(HIGH, count=30)
        for lease in self.queue.claim(32):
            lease.park("slow")
        for _ in range(20):
            self.queue.unpark("slow", 1)
            [lease] = self.queue.claim(9)
            self.assertIs(lease.give_way("slow"), False)
            if lease.name == low[0]:
                break
        self.assertEqual(lease.name, low[0])

    def test_high_mail_that_was_deferred_goes_first(self: Any) -> None:
        """Before fresh mail of a lower priority, when it is due."""
        [urgent] = self.put_with(HIGH)
        self.settle(self.queue.claim()[0], all=LATER)
        self.put(count=5)
        self.clock.advance(60)
        names = self.names_of(islice((self.queue.claim(1)[0] for _ in range(3)), 3))
        self.assertIn(urgent, names[:1])
