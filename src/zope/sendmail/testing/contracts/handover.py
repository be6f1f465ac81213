"""How mail comes into a queue: staged, committed or aborted, as it was; and what is parked."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from zope.interface.verify import verifyObject

from zope.sendmail.errors import QueueError
from zope.sendmail.interfaces import IFirstAttempts, ILease, IMailQueue, IMailQueueAdmin, IQueuedMail, IStagedMail
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.pieces import texts
from zope.sendmail.message.relayname import RelayName
from zope.sendmail.testing.contracts.situation import (
    LATER,
    MESSAGE,
    OK,
    QueueSituation,
    envelope,
)


class HandOverContract(QueueSituation):
    """How mail comes into a queue: staged, committed or aborted, as it was; and what is parked."""

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
        """No processor sees a mail before its transaction commits."""
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

    def test_a_message_may_be_closed_by_its_reader(self: Any) -> None:
        """What a mailer does with the stream that it got ends no lease; large, small, and of a large transaction."""
        for count, message in ((1, MESSAGE), (12, MESSAGE), (1, MESSAGE + b"a line of a large message\n" * 30_000)):
            staged = self.queue.stage()
            for _ in range(count):
                staged.add(envelope(), message)
            staged.prepare()
            staged.commit()
        leases = self.queue.claim(14)
        self.assertEqual(len(leases), 14)
        for number, lease in enumerate(leases):
            lease.open().close()
            self.assertEqual(lease.message_id, "1@example.org")
            self.assertTrue(lease.open().read().startswith(MESSAGE))
            lease.open().close()
            lease.intend()
            self.settle(lease, all=LATER if number % 2 else OK)
        self.assertEqual(dict(self.queue.admin.count()), {State.DEFERRED: 7})

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
            lease.release()

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

    def test_staged_mail_is_of_the_process_that_staged_it(self: Any) -> None:
        """A forked child can neither remove nor commit it: there, `prepare` and `commit` raise."""
        staged = self.queue.stage()
        for _ in range(3):
            staged.add(envelope(), MESSAGE)
        staged.prepare()
        child = os.fork()
        if not child:
            refused = 0
            for step in (staged.prepare, staged.commit):
                try:
                    step()
                except QueueError:
                    refused += 1
            try:
                staged.rollback(1)
                staged.abort()
            finally:
                os._exit(refused)
        _, status = os.waitpid(child, 0)
        self.assertEqual(os.waitstatus_to_exitcode(status), 2)
        self.assertEqual(self.queue.claim(9), [])
        staged.commit()
        self.assertEqual(len(self.queue.claim(9)), 3)

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

    def test_mail_gives_way_to_older_mail_that_is_parked(self: Any) -> None:
        """It waits as well, and the first of those may be claimed in its place."""
        names = self.put(count=4)
        leases = self.queue.claim(4)
        for lease in leases[2], leases[1]:
            lease.park("slow")
        self.assertIs(leases[3].give_way("slow"), True)
        self.assertEqual(self.names_of(self.queue.claim(9)), names[1:2])
        self.assertEqual(self.queue.unpark("slow", 9), 2)
        self.assertEqual(self.names_of(self.queue.claim(9)), names[2:])

    def test_mail_that_nothing_goes_before_does_not_give_way(self: Any) -> None:
        """What is parked is younger, or waits for another relay, or is gone; the lease goes on."""
        self.put(count=4)
        oldest, other, gone, youngest = self.queue.claim(4)
        self.assertIs(oldest.give_way("slow"), False)
        for lease, relay in (other, "another"), (gone, "slow"), (youngest, "slow"):
            lease.park(relay)
        self.queue.admin.remove(gone.name)
        self.assertIs(oldest.give_way("slow"), False)
        self.assertEqual(oldest.open().read(), MESSAGE)
        self.settle(oldest)
        self.queue.unpark("slow", 9), self.queue.unpark("another", 9)
        self.assertEqual(self.names_of(self.queue.claim(9)), [other.name, youngest.name])

    def test_mail_that_was_unparked_does_not_give_way_to_younger_mail(self: Any) -> None:
        """So each that is unparked finds its way."""
        names = self.put(count=4)
        for lease in self.queue.claim(4):
            lease.park("slow")
        for name in names:
            self.queue.unpark("slow", 1)
            [lease] = self.queue.claim(9)
            self.assertEqual((lease.name, lease.give_way("slow")), (name, False))

    def test_mail_that_gives_way_may_have_another_way_later(self: Any) -> None:
        """With ``patience``, as when it is parked."""
        names = self.put(count=2)
        older, younger = self.queue.claim(2)
        older.park("slow")
        self.assertIs(younger.give_way("slow", 30.0), True)
        self.assertEqual(self.names_of(self.queue.claim(9)), names[:1])
        self.clock.advance(31.0)
        self.assertEqual(self.names_of(self.queue.claim(9)), names[1:])

    def test_unparked_mail_goes_before_younger_mail_that_was_reserved(self: Any) -> None:
        """What was claimed ahead of its time waits for it."""
        names = self.put(count=4)
        [first] = self.queue.claim(1)
        first.park("slow")
        self.assertEqual(self.names_of(self.queue.claim(1, ahead=9)), names[1:2])
        self.queue.unpark("slow", 1)
        claimed = [*self.queue.claim(1, ahead=9), *self.queue.claim(9)]
        self.assertEqual(self.names_of(claimed), [names[0], *names[2:]])

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
