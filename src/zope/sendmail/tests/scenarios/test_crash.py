"""Crash safety, enumerated: after every single change to the disk, in the states that a crash there can leave.

Each scenario is done once on a recording disk.  Then, for every prefix of the changes, the states after a death of the
process and after a loss of power are made as real directories, a processor drains them, and the promises are checked.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
import sys
import tempfile
import unittest
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

from zope.sendmail.interfaces import ILease
from zope.sendmail.lifecycle.outcome import Answer, Outcome, Reply
from zope.sendmail.lifecycle.retry import judge, sent_at_once
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.pieces import Piece
from zope.sendmail.message.terms import Priority, Terms
from zope.sendmail.processor.thread import QueueProcessorThread
from zope.sendmail.queue.maildir import bundledrain, bundlesource, staging as staged_module
from zope.sendmail.queue.maildir.bundle import entries, names_in
from zope.sendmail.queue.maildir.queue import MaildirQueue
from zope.sendmail.queue.maildir.unfolder import unfold_now
from zope.sendmail.testing.contracts import LATER, NEVER, OK, SCHEDULE, ManualClock
from zope.sendmail.testing.faultydisk import Op, RecordingDisk
from zope.sendmail.testing.scriptedmailer import ScriptedMailer
from zope.sendmail.tests.support.layers import Crashes, in_layer
from zope.sendmail.tests.support.wreckage import FileSystem, Tree, materialize

COUNTS: Counter[str] = Counter()


def body(number: int) -> bytes:
    return b"Message-Id: <%d@example.org>\n\n%s\n" % (number, b"text " * 40)


class ScarceDisk(RecordingDisk):
    """A disk with room for two parts of a bundle at a time, from the moment at which it is full."""

    is_full = False

    def create(self, path: str, *pieces: Piece) -> None:
        """See `Disk.create`."""
        directory = os.path.dirname(path)
        if self.is_full and directory.endswith("/.parts") and len(os.listdir(directory)) >= 2:
            raise OSError(errno.ENOSPC, "full", path)
        super().create(path, *pieces)


class Story:
    """What is done to a queue, with marks that say what has been promised at which change."""

    def __init__(self, root: str) -> None:
        self.clock = ManualClock()
        self.disk = ScarceDisk(root)
        self.queue = MaildirQueue(root + "/queue", schedule=SCHEDULE, disk=self.disk, clock=self.clock)
        #: Those of the mails, by their numbers in turn.
        self.priorities: Sequence[Priority] = (Priority.NORMAL,)
        #: (number of changes, what is promised from then on)
        self.marks: list[tuple[int, Callable[[Promise], None]]] = []
        #: Bundles that nobody unfolded yet.
        self.bundles: list[Any] = []

    def mark(self, promise: Callable[[Promise], None]) -> None:
        self.marks.append((len(self.disk.ops), promise))

    def commit(self, *numbers: int, rolled_back: Sequence[int] = (), unfold: bool = True) -> None:
        """One transaction with these mails, and others that are rolled back before it commits.

        A bundle is unfolded right after the commit, or else by the next attempt.
        """
        staged = self.queue.stage()
        for number in (*numbers[:-1], *rolled_back):
            staged.add(self.envelope(number), body(number))
        staged.rollback(len(numbers[:-1]))
        staged.add(self.envelope(numbers[-1]), body(numbers[-1]))
        staged.prepare()
        group = set(numbers)
        self.mark(lambda promise: promise.all_or_none.append(group))
        with mock.patch.object(staged_module, "later") as later:
            staged.commit()
        self.mark(lambda promise: promise.must.update(group))
        self.bundles += [call.args for call in later.call_args_list]
        while unfold and self.bundles:
            unfold_now(*self.bundles.pop())

    def envelope(self, number: int) -> Envelope:
        """Return that of a mail."""
        terms = Terms(priority=self.priorities[number % len(self.priorities)])
        return Envelope("s@example.org", (f"{number}@example.org",), terms=terms)

    def rest(self) -> None:
        """Wait, as a processor with nothing to do; before that, the removal of sent mail is made durable."""
        self.queue.wait(0.0)
        self.mark(lambda promise: promise.gone.update(promise.sent))

    def end(self) -> None:
        """Close the queue, as a processor that ends; before that, the same is done."""
        self.queue.close()
        self.mark(lambda promise: promise.gone.update(promise.sent))

    def commit_and_send(self, number: int) -> None:
        """One transaction with a mail that the process which commits it sends at once, and which ends then."""
        staged = self.queue.stage()
        name = staged.add(self.envelope(number), body(number))
        staged.prepare()
        self.mark(lambda promise: promise.all_or_none.append({number}))
        attempts = self.queue.first_attempts()
        attempts.commit(staged)
        self.mark(lambda promise: promise.must.add(number))
        lease = attempts.claim(name)
        assert lease is not None
        self.send([lease], [OK])
        attempts.close()
        self.mark(lambda promise: promise.gone.update(promise.sent))

    def abort(self, *numbers: int) -> None:
        """One transaction that is prepared and aborted."""
        staged = self.queue.stage()
        for number in numbers:
            staged.add(Envelope("s@example.org", (f"{number}@example.org",)), body(number))
        staged.prepare()
        staged.abort()

    def attempt(self, *replies: Reply) -> None:
        """Claim as many mails as there are replies; settle each with its reply."""
        self.send(self.queue.claim(len(replies)), replies)

    def send(self, leases: Sequence[ILease], replies: Sequence[Reply]) -> None:
        """Send leased mails; settle each with its reply."""
        for lease, reply in zip(leases, replies, strict=True):
            number = int(lease.envelope.recipients[0].partition("@")[0])
            lease.open().read()
            self.mark(lambda promise, n=number: promise.handed.add(n))  # type: ignore[misc]  # bound in this round
            lease.intend()
            if reply.answer is Answer.ACCEPTED:
                self.mark(lambda promise, n=number: promise.sent.update([n]))  # type: ignore[misc]  # bound in this round
            outcome = Outcome("relay:25", dict.fromkeys(lease.envelope.recipients, reply))
            record = judge(lease.record, lease.envelope, outcome, SCHEDULE, now=self.clock.time(), chance=0.5)
            lease.settle(record)
            if reply.answer is Answer.REJECTED:
                self.mark(lambda promise, n=number: promise.rejected.add(n))  # type: ignore[misc]  # bound in this round
            if reply.answer is Answer.ACCEPTED:
                self.mark(lambda promise, n=number: promise.settled.add(n))  # type: ignore[misc]  # bound in this round

    def attempt_together(self, count: int, *, flight: int = 1) -> None:
        """Send ordinary mails, which the relay takes, `flight` of them at once, and settle them together."""
        leases: list[Any] = self.queue.claim(count)
        numbers = [int(lease.envelope.recipients[0].partition("@")[0]) for lease in leases]
        for begin in range(0, count, flight):
            both = list(zip(leases, numbers, strict=True))[begin : begin + flight]
            for lease, number in both:
                self.mark(lambda promise, n=number: promise.handed.add(n))  # type: ignore[misc]  # bound in this round
                lease.intend()
                self.mark(lambda promise, n=number: promise.sent.update([n]))  # type: ignore[misc]  # bound in this round
            for lease, number in both:
                lease.accepted()
                self.mark(lambda promise, n=number: promise.settled.add(n))  # type: ignore[misc]  # bound in this round
        outcomes = [Outcome("relay:25", dict.fromkeys(lease.envelope.recipients, OK)) for lease in leases]
        leases[0].settle_sent(
            [
                (lease, outcome, sent_at_once(outcome, now=self.clock.time()))
                for lease, outcome in zip(leases, outcomes, strict=True)
            ]
        )


class Promise:
    """What must hold of a state."""

    def __init__(self, story: Story, changes: int) -> None:
        self.must: set[int] = set()
        self.all_or_none: list[set[int]] = []
        self.handed: set[int] = set()
        self.sent: Counter[int] = Counter()
        self.rejected: set[int] = set()
        #: Sent, and removed: a death cannot bring them back; and those that a loss of power cannot bring back either.
        self.settled: set[int] = set()
        self.gone: set[int] = set()
        for at, mark in story.marks:
            if at <= changes:
                mark(self)


class Found:
    """What a processor made of a state: what it sent, what it knows as unknown, what is left."""

    def __init__(self, root: str, clock: ManualClock) -> None:
        mailer = ScriptedMailer()
        queue = MaildirQueue(root + "/queue", schedule=SCHEDULE, clock=clock)
        processor = QueueProcessorThread(
            queue=queue, mailer=mailer, schedule=SCHEDULE, clock=clock, tell=lambda _: None
        )
        self.staged = queue.admin.count().get(State.STAGED, 0)
        processor.run(forever=False)
        clock.advance(4000)  # deferred mails become due, and locks of the dead are looked at
        processor.run(forever=False)
        self.unknown = processor.tally[Answer.UNKNOWN]
        self.sent = Counter(int(mail[1][0].partition("@")[0]) for mail in mailer.sent)
        self.whole = all(mail[2] == body(int(mail[1][0].partition("@")[0])) for mail in mailer.sent)
        self.rejected = {int(mail.message_id.partition("@")[0] or -1) for mail in queue.admin.mails([State.REJECTED])}
        self.left = {state: count for state, count in queue.admin.count().items() if state is not State.REJECTED}
        self.litter = [name for name in os.listdir(root + "/queue/new") if name.startswith((".sending-", ".group-"))]
        queue.close()


class CrashTest(unittest.TestCase):
    """Plays a story, and looks at everything that a crash can leave of it."""

    priorities: Sequence[Priority] = (Priority.NORMAL,)

    def play(self, tell: Callable[[Story], None]) -> Story:
        self.scratch = self.enterContext(
            tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
        )
        story = Story(self.scratch + "/recorded")
        story.priorities = self.priorities
        os.mkdir(self.scratch + "/recorded")
        tell(story)
        return story

    def examine(self, tell: Callable[[Story], None], *, power: bool) -> None:
        story = self.play(tell)
        disk = FileSystem()
        seen: set[Any] = set()
        for changes, op in enumerate([None, *story.disk.ops]):
            if op is not None:
                disk.apply(op)
            promise = Promise(story, changes)
            for tree in self.states(disk, power=power):
                key = (
                    frozenset(tree.items()),
                    frozenset(promise.must),
                    len(promise.all_or_none),
                    frozenset(promise.sent),
                    *map(frozenset, (promise.rejected, promise.settled, promise.gone)),
                )
                if key not in seen:
                    seen.add(key)
                    self.check(tree, promise, power=power, where=f"after {changes} changes, the last {op}")
        kind = "power loss" if power else "death"
        COUNTS[kind] += len(seen)
        self.assertGreater(len(seen), 10)

    def states(self, disk: FileSystem, *, power: bool) -> Iterator[Tree]:
        return disk.after_power_loss() if power else disk.after_death()

    def check(self, tree: Tree, promise: Promise, *, power: bool, where: str) -> None:
        root = self.scratch + "/state"
        materialize(tree, root)
        clock = ManualClock(ManualClock().time() + 10)
        found = Found(root, clock)
        shutil.rmtree(root)
        where = f"{where}; state {sorted(tree)}"
        arrived = found.sent + promise.sent
        self.assertTrue(found.whole, f"a mail is not whole {where}")
        self.assertLessEqual(max(found.sent.values(), default=0), 1, f"sent twice by one processor {where}")
        kept = set(arrived) | found.rejected
        self.assertLessEqual(promise.must, kept, f"a committed mail is lost {where}")
        for group in promise.all_or_none:
            self.assertIn(len(group & kept), (0, len(group)), f"a part of a transaction {where}")
            in_doubt = 0 if group & kept else len(group)
            self.assertGreaterEqual(found.staged, in_doubt, f"mail that was prepared is not even in doubt {where}")
        allowed = promise.must.union(*promise.all_or_none)
        self.assertLessEqual(kept - {-1}, allowed, f"a mail that was not committed {where}")
        self.assertFalse({state for state in found.left if state is not State.STAGED}, f"stuck {found.left} {where}")
        self.assertEqual(found.litter, [], f"left behind {where}")
        self.assertEqual(found.left.get(State.STAGED, 0), found.staged, f"in-doubt mail was touched {where}")
        self.check_sent_again(found, promise, power=power, where=where)

    def check_sent_again(self, found: Found, promise: Promise, *, power: bool, where: str) -> None:
        """A second copy is a recorded unknown, or the price of a loss of power just after the first one."""
        over = promise.gone if power else promise.settled
        self.assertEqual(over & set(found.sent), set(), f"a mail that was done with came back {where}")
        arrived = found.sent + promise.sent
        twice = sum(arrived.values()) - len(arrived)
        if not power:
            self.assertLessEqual(twice, found.unknown, f"a silent duplicate {where}")
            self.assertLessEqual(promise.rejected, found.rejected, f"a rejected mail was tried again {where}")
        else:
            COUNTS["sent again after power loss"] += twice


class Enqueueing(CrashTest):
    def test_one_mail(self) -> None:
        """Committed: there, whole. Not committed: never sent."""
        for power in (False, True):
            self.examine(lambda story: story.commit(1), power=power)

    def test_one_mail_after_the_other(self) -> None:
        """The later ones stand in spare files: committed, there; prepared, not even a loss of power takes them away."""

        def tell(story: Story) -> None:
            for number in range(1, 7):
                story.commit(number)

        for power in (False, True):
            self.examine(tell, power=power)
        self.assertEqual(
            sum(op.call == "sync_directory" and op.path == "queue/tmp" for op in self.play(tell).disk.ops), 3
        )

    def test_mails_in_spare_files_that_do_not_leave(self) -> None:
        """Aborted, rolled back, or joined by a second mail."""

        def tell(story: Story) -> None:
            for number in range(1, 4):
                story.commit(number)
            story.abort(4)
            story.commit(5, 6)

        for power in (False, True):
            self.examine(tell, power=power)

    def test_several_mails(self) -> None:
        """All or none, at every change, and none of them twice."""
        for power in (False, True):
            self.examine(lambda story: story.commit(1, 2, 3), power=power)

    def test_many_mails(self) -> None:
        """The same where all are synced at once."""
        self.examine(lambda story: story.commit(*range(20)), power=False)

    def test_abort(self) -> None:
        """Nothing of it goes, in no state."""

        def tell(story: Story) -> None:
            story.abort(1)
            story.abort(2, 3)
            story.commit(4)

        for power in (False, True):
            self.examine(tell, power=power)


class Bundling(CrashTest):
    """From the second mail on they stand in a bundle; it is unfolded, and a crash comes at any point of that."""

    def setUp(self) -> None:
        self.enterContext(mock.patch.object(staged_module, "SINGLY", 1))

    def examine(self, tell: Callable[[Story], None], *, power: bool) -> None:
        """Every story has to be about a bundle."""
        ops = self.play(tell).disk.ops
        self.assertTrue(any(op.call == "append" and op.path.endswith("/.bundle") for op in ops))
        self.assertTrue(any(op.call == "rename" and "/.parts/" in op.path for op in ops))
        super().examine(tell, power=power)

    def check(self, tree: Tree, promise: Promise, *, power: bool, where: str) -> None:
        """No bundle is there beside a mail that has left: it might have been sent, and would come back."""
        for path, (_, content) in tree.items():
            if path.startswith("queue/new/") and path.endswith("/.bundle"):
                for name, _ in entries(io.BytesIO(content or b""), path):
                    self.assertNotIn(f"queue/new/{name}", tree, where)
        super().check(tree, promise, power=power, where=where)

    def test_unfolded_by_who_committed(self) -> None:
        """All or none, and none of them twice."""
        for power in (False, True):
            self.examine(lambda story: story.commit(1, 2, 3), power=power)

    def test_unfolded_by_a_processor(self) -> None:
        """Which then sends the mails: a bundle never brings a mail back that was sent."""

        def tell(story: Story) -> None:
            story.commit(1, 2, 3, unfold=False)
            story.attempt(OK, OK, OK)

        for power in (False, True):
            self.examine(tell, power=power)

    def test_many_mails(self) -> None:
        """Whose files are synced at once."""
        self.examine(lambda story: story.commit(*range(20)), power=False)

    def test_rolled_back(self) -> None:
        """Mails that were cut off the bundle are never sent."""
        for power in (False, True):
            self.examine(lambda story: story.commit(1, 2, 3, rolled_back=[7, 8]), power=power)

    def test_what_a_death_left_is_made_again(self) -> None:
        """The files beside a bundle are worth nothing, whole or not."""

        def tell(story: Story) -> None:
            story.commit(1, 2, 3, unfold=False)
            [(_, _, group)] = story.bundles
            [_, name, _] = names_in(story.disk, group)
            story.disk.make_directory(group + "/.parts")
            story.disk.create(f"{group}/.parts/{name}", b"torn")
            unfold_now(*story.bundles.pop())
            story.attempt(OK, OK, OK)

        for power in (False, True):
            self.examine(tell, power=power)

    def test_unfolded_without_room_for_all(self) -> None:
        """A few at a time, from the end, are cut off; none is in two places, or in none, whenever that ends."""

        def tell(story: Story) -> None:
            story.commit(1, 2, 3, 4, unfold=False)
            story.disk.is_full = True
            story.attempt(OK, OK, OK, OK)

        for power in (False, True):
            self.examine(tell, power=power)


class DrainTest(CrashTest):
    """A bundle that is drained where it lies, a few mails of it at a time; and what is left of it becomes files."""

    def setUp(self) -> None:
        self.enterContext(mock.patch.object(staged_module, "SINGLY", 1))
        self.enterContext(mock.patch.object(bundledrain, "_CHUNK", 2))

    def examine(self, tell: Callable[[Story], None], *, power: bool) -> None:
        """Every story has to be about a bundle that is drained."""
        ops = self.play(tell).disk.ops
        self.assertTrue(any(op.call == "write_at" and op.path.endswith("/.progress") for op in ops))
        super().examine(tell, power=power)


class Draining(DrainTest):
    """The relay answers."""

    def test_all_are_accepted(self) -> None:
        """None is sent twice by a death but as a recorded unknown; what rests is gone for good."""

        def tell(story: Story) -> None:
            story.queue.drain_bundles()
            story.commit(1, 2, 3, unfold=False)
            story.attempt(OK, OK, OK)
            story.rest()
            story.attempt()

        for power in (False, True):
            self.examine(tell, power=power)

    def test_some_are_deferred(self) -> None:
        """Their histories count when they have become files."""

        def tell(story: Story) -> None:
            story.queue.drain_bundles()
            story.commit(1, 2, 3, unfold=False)
            story.attempt(OK, LATER, OK)
            story.clock.advance(61)
            story.attempt()
            story.attempt(OK)

        for power in (False, True):
            self.examine(tell, power=power)


class DrainingSeveralPriorities(Draining):
    """A bundle with mails of two priorities, which are drained each in its turn."""

    priorities = (Priority.HIGH, Priority.LOW)


class DrainingInTrouble(DrainTest):
    """The relay refuses, is not there, or the processor stops."""

    def test_some_are_rejected(self) -> None:
        """They are set aside, and not tried again."""

        def tell(story: Story) -> None:
            story.queue.drain_bundles()
            story.commit(1, 2, 3, unfold=False)
            story.attempt(OK, NEVER, OK)
            story.attempt()

        for power in (False, True):
            self.examine(tell, power=power)

    def test_the_relay_is_not_there(self) -> None:
        """What is given back changes nothing; what is parked lets all become files."""

        def tell(story: Story) -> None:
            story.queue.drain_bundles()
            story.commit(1, 2, 3, unfold=False)
            for lease in story.queue.claim(2):
                lease.release()
            for lease in story.queue.claim(3):
                lease.park("relay")
            story.attempt()
            story.attempt(OK)

        for power in (False, True):
            self.examine(tell, power=power)

    def test_the_processor_stops(self) -> None:
        """The next one goes on, or a list for an operator makes files."""

        def tell(story: Story) -> None:
            story.queue.drain_bundles()
            story.commit(1, 2, 3, unfold=False)
            story.attempt(OK, OK)
            with mock.patch.object(bundlesource, "later", unfold_now):
                story.queue.close()
            story.attempt(OK)

        for power in (False, True):
            self.examine(tell, power=power)


class Sending(CrashTest):
    def test_accepted(self) -> None:
        """A death is a recorded unknown, or no second copy."""

        def tell(story: Story) -> None:
            story.commit(1, 2)
            story.attempt(OK, OK)

        for power in (False, True):
            self.examine(tell, power=power)

    def test_several_accepted_and_settled_together(self) -> None:
        """From the yes on a death costs no copy, whatever was removed; then others take the slots."""

        def tell(story: Story) -> None:
            story.commit(1, 2, 3)
            story.attempt_together(3)
            story.commit(4, 5)
            story.attempt_together(2)

        self.examine(tell, power=False)

    def test_settled_together_and_a_loss_of_power(self) -> None:
        """It brings back no more than what was sent just before it."""

        def tell(story: Story) -> None:
            story.commit(1, 2)
            story.attempt_together(2)
            story.rest()

        self.examine(tell, power=True)

    def test_several_under_way_at_once(self) -> None:
        """Each of them is unknown, and recorded as that."""

        def tell(story: Story) -> None:
            story.commit(1, 2, 3)
            story.attempt_together(3, flight=2)

        self.examine(tell, power=False)

    def test_sent_mail_stays_gone_once_the_processor_rests(self) -> None:
        """A loss of power brings back no more than what was sent just before it."""

        def tell(story: Story) -> None:
            story.commit(1, 2)
            story.attempt(OK, OK)
            story.rest()

        for power in (False, True):
            self.examine(tell, power=power)

    def test_sent_mail_stays_gone_once_the_queue_is_closed(self) -> None:
        """As that of a single pass: the machine may lose its power when the program has long ended."""

        def tell(story: Story) -> None:
            story.commit(1, 2)
            story.attempt(OK, OK)
            story.end()

        for power in (False, True):
            self.examine(tell, power=power)

    def test_sent_mail_stays_gone_once_the_transaction_that_sent_it_has_ended(self) -> None:
        """Direct delivery, whose process may never look at the queue again."""
        for power in (False, True):
            self.examine(lambda story: story.commit_and_send(1), power=power)

    def test_deferred_then_accepted(self) -> None:
        """What is known of a retry survives, or the mail is tried once more."""

        def tell(story: Story) -> None:
            story.commit(1)
            story.attempt(LATER)
            story.clock.advance(61)
            story.attempt(OK)

        for power in (False, True):
            self.examine(tell, power=power)

    def test_rejected(self) -> None:
        """Set aside, and not tried again."""

        def tell(story: Story) -> None:
            story.commit(1)
            story.attempt(NEVER)

        for power in (False, True):
            self.examine(tell, power=power)

    def test_rejected_and_retried_by_an_operator(self) -> None:
        """The mail is in one place, and goes out."""

        def tell(story: Story) -> None:
            story.commit(1)
            story.attempt(NEVER)
            [mail] = story.queue.admin.mails()
            story.mark(lambda promise: promise.rejected.clear())
            story.queue.admin.retry(mail.name)
            story.attempt(OK)

        self.examine(tell, power=False)

    def test_the_relay_is_not_there(self) -> None:
        """A lease that is released changes nothing."""

        def tell(story: Story) -> None:
            story.commit(1)
            story.queue.claim()[0].release()
            story.attempt(OK)

        for power in (False, True):
            self.examine(tell, power=power)


class TheWreckage(unittest.TestCase):
    def test_a_disk_on_which_nothing_was_done_has_one_state(self) -> None:
        """And every open change doubles them."""
        disk = FileSystem()
        self.assertEqual(len(list(disk.after_power_loss())), 1)
        disk.apply(Op("mkdir", "a"))
        disk.apply(Op("mkdir", "b"))
        self.assertEqual(len(list(disk.after_power_loss())), 4)
        disk.apply(Op("sync_directory", "."))
        self.assertEqual(len(list(disk.after_power_loss())), 1)


del CrashTest


load_tests = in_layer(Crashes)


if __name__ == "__main__":  # says as well how many states were looked at
    unittest.main(exit=False)
    sys.stdout.writelines(f"{number:,} states: {kind}\n" for kind, number in COUNTS.items())
