"""Keys through every crash, enumerated: after each change to the disk, two mails with one key are one.

Each story is told once on a recording disk.  For every prefix of its changes, and every state that a death of the
process or a loss of power can leave of it, the mail is sent again with the same key, and all that is committed leaves.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import unittest
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any
from unittest import mock

from zope.sendmail.errors import KeyTaken, NotPossible
from zope.sendmail.lifecycle.outcome import Outcome
from zope.sendmail.lifecycle.retry import judge
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.terms import Terms
from zope.sendmail.queue.maildir import liveness, staging as staging_module
from zope.sendmail.queue.maildir.queue import MaildirQueue
from zope.sendmail.testing.contracts import OK, SCHEDULE, ManualClock
from zope.sendmail.testing.faultydisk import RecordingDisk
from zope.sendmail.tests.support.layers import Faults, in_layer
from zope.sendmail.tests.support.wreckage import FileSystem, Tree, materialize

COUNTS: Counter[str] = Counter()


def add(staged: Any, clock: ManualClock, key: str, number: int) -> None:
    """Stage a mail with a key."""
    envelope = Envelope("s@example.org", ("one@example.org",), terms=Terms(key=key, key_until=clock.time() + 86400))
    staged.add(envelope, b"Message-Id: <%s-%d@example.org>\n\nText\n" % (key.encode(), number))


class Story:
    """What is done to a queue, and what left it at which change."""

    def __init__(self, root: str) -> None:
        self.clock = ManualClock()
        self.disk = RecordingDisk(root)
        self.queue = MaildirQueue(root + "/queue", schedule=SCHEDULE, disk=self.disk, clock=self.clock)
        #: From which change on a mail with this key had left, or was promised to leave.
        self.left: list[tuple[int, str]] = []
        self.promised: list[tuple[int, str]] = []

    def stage(self, *keys: str, rolled_back: Iterable[str] = ()) -> Any:
        staged = self.queue.stage()
        for key in keys:
            add(staged, self.clock, key, 1)
        for key in rolled_back:
            add(staged, self.clock, key, 1)
        staged.rollback(len(keys))
        staged.prepare()
        return staged

    def commit(self, *keys: str, rolled_back: Iterable[str] = ()) -> None:
        staged = self.stage(*keys, rolled_back=rolled_back)
        with mock.patch.object(staging_module, "later"):
            staged.commit()
        self.promised += [(len(self.disk.ops), key) for key in keys]

    def abort(self, *keys: str) -> None:
        self.stage(*keys).abort()

    def send(self) -> None:
        """Let everything leave that is due."""
        while leases := self.queue.claim(20):
            for lease in leases:
                key = lease.envelope.terms.key
                outcome = Outcome("relay:25", dict.fromkeys(lease.envelope.recipients, OK))
                lease.intend()
                self.left.append((len(self.disk.ops), key))
                lease.settle(judge(lease.record, lease.envelope, outcome, SCHEDULE, now=self.clock.time(), chance=0.5))
        self.queue.wait(0.0)


class AKey(unittest.TestCase):
    """Keys of mails whose process, or machine, goes down."""

    def examine(self, tell: Callable[[Story], None], *keys: str, powers: tuple[bool, ...] = (False, True)) -> None:
        for power in powers:
            with self.subTest(power=power):
                self._examine(tell, keys, power=power)

    def _examine(self, tell: Callable[[Story], None], keys: tuple[str, ...], *, power: bool) -> None:
        place = "/dev/shm" if os.path.isdir("/dev/shm") else None
        self.scratch = self.enterContext(tempfile.TemporaryDirectory(dir=place))
        os.mkdir(self.scratch + "/recorded")
        story = Story(self.scratch + "/recorded")
        tell(story)
        disk, seen = FileSystem(), set()
        for changes, op in enumerate([None, *story.disk.ops]):
            if op is not None:
                disk.apply(op)
            left = Counter(key for at, key in story.left if at <= changes)
            promised = {key for at, key in story.promised if at <= changes}
            for tree in disk.after_power_loss() if power else disk.after_death():
                state = (frozenset(tree.items()), frozenset(left.items()), frozenset(promised))
                if state not in seen:
                    seen.add(state)
                    self.check(tree, keys, left, promised, f"after {changes} changes, the last {op}", power=power)
        COUNTS["power loss" if power else "death"] += len(seen)
        self.assertGreater(len(seen), 10)

    def check(
        self, tree: Tree, keys: tuple[str, ...], left: Counter[str], promised: set[str], where: str, *, power: bool
    ) -> None:
        root = self.scratch + "/state"
        materialize(tree, root)
        clock = ManualClock(ManualClock().time() + 10)
        dead = mock.patch.object(
            liveness, "_is_running", return_value=False
        )  # the process that told the story lives here
        with dead:
            queue = MaildirQueue(root + "/queue", schedule=SCHEDULE, clock=clock)
            answers = {key: self.send_again(queue, clock, key) for key in keys}
            for mail in list(queue.admin.mails([State.STAGED])):
                with contextlib.suppress(NotPossible):  # another mail has its key
                    queue.admin.release(mail.name)
            arrived = self.drain(queue, clock)
            queue.close()
        shutil.rmtree(root)
        for key in keys:
            first, second = (arrived[f"{key}-{number}@example.org"] for number in (1, 2))
            unknown = left[key]  # it left, or may have; a loss of power may bring the last second back
            if answers[key].endswith("-2@example.org"):
                self.assertNotIn(key, promised, f"{key}: a committed mail was forgotten {where}")
                self.assertEqual((first + unknown, second), (0, 1), f"{key}: new {where}")
            else:
                self.assertGreaterEqual(first + unknown, 1, f"{key}: there is no such mail {where}")
                self.assertLessEqual(first, 1, f"{key}: twice {where}")
                self.assertEqual(second, 0, f"{key}: both {where}")

    def send_again(self, queue: MaildirQueue, clock: ManualClock, key: str) -> str:
        staged = queue.stage()
        try:
            add(staged, clock, key, 2)
        except KeyTaken as taken:
            staged.abort()
            return taken.message_id
        staged.prepare()
        staged.commit()
        return f"{key}-2@example.org"

    def drain(self, queue: MaildirQueue, clock: ManualClock) -> Counter[str]:
        """Take everything that is committed out of the queue; return how often each Message-Id was there."""
        found: Counter[str] = Counter()
        for _ in range(3):
            while leases := queue.claim(50):
                for lease in leases:
                    found[lease.message_id] += lease.inherited is None
                    outcome = Outcome("relay:25", dict.fromkeys(lease.envelope.recipients, OK))
                    lease.settle(judge(lease.record, lease.envelope, outcome, SCHEDULE, now=clock.time(), chance=0.5))
            clock.advance(100)
        return found

    def test_of_one_mail(self) -> None:
        """Committed, sent."""

        def tell(story: Story) -> None:
            story.commit("a")
            story.send()

        self.examine(tell, "a")

    def test_of_a_mail_that_is_aborted(self) -> None:
        """After its vote; then it is committed by another transaction."""

        def tell(story: Story) -> None:
            story.abort("a")
            story.commit("a")

        self.examine(tell, "a")

    def test_of_several_mails(self) -> None:
        """With a rollback, and a mail that is sent before."""

        def tell(story: Story) -> None:
            story.commit("a", "b", rolled_back=("c",))
            story.send()

        self.examine(tell, "a", "b", "c", powers=(False,))

    def test_of_several_mails_whose_machine_goes_down(self) -> None:
        """In the vote and behind it."""

        def tell(story: Story) -> None:
            story.commit("a", "b")

        self.examine(tell, "a", "b", powers=(True,))

    def test_of_mails_in_a_bundle(self) -> None:
        """From the ninth on, mails of a transaction stand in one file."""

        def tell(story: Story) -> None:
            story.commit(*"abcdefghij", rolled_back=("k",))

        self.examine(tell, "a", "i", "j", "k", powers=(False,))


load_tests = in_layer(Faults)


if __name__ == "__main__":  # says as well how many states were looked at
    unittest.main(exit=False)
    sys.stdout.writelines(f"{number:,} states: {kind}\n" for kind, number in COUNTS.items())
