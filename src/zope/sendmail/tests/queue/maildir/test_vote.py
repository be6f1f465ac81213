"""The vote proves the reveal: what can be refused is refused in `prepare`, and nothing is left for the commit."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
import textwrap
import unittest
from collections.abc import Callable
from functools import partial
from unittest import mock

import transaction

from zope.sendmail.delivery import QueuedMailDelivery
from zope.sendmail.errors import NotPossible
from zope.sendmail.lifecycle.states import State
from zope.sendmail.queue.maildir.layout import PROOF
from zope.sendmail.queue.maildir.queue import MaildirQueue
from zope.sendmail.queue.maildir.staging import StagedMail
from zope.sendmail.system.disk import Disk
from zope.sendmail.testing.contracts import MESSAGE, ManualClock, envelope
from zope.sendmail.tests.support.descriptors import open_below


class VoteTest(unittest.TestCase):
    def setUp(self) -> None:
        self.root = self.enterContext(tempfile.TemporaryDirectory())
        self.path = os.path.join(self.root, "queue")
        self.queue = MaildirQueue(self.path)
        self.addCleanup(self.queue.close)

    def staged(self, count: int) -> StagedMail:
        staged = self.queue.stage()
        for _ in range(count):
            staged.add(envelope(), MESSAGE)
        return staged


class WhatTheCommitWouldNotGet(VoteTest):
    """Each trouble comes between `send()` and the commit, for one mail, some, and so many that they are bundled."""

    def refused(self, spoil: Callable[[], object], mend: Callable[[], object], number: int) -> None:
        for count in (1, 3, 12):
            with self.subTest(count=count):
                staged = self.staged(count)
                spoil()
                try:
                    with self.assertRaises(OSError) as caught:
                        staged.prepare()
                    self.assertEqual(caught.exception.errno, number)
                finally:
                    mend()
                staged.abort()
                self.assertEqual(self.queue.admin.count(), {})
                self.assertEqual(os.listdir(os.path.join(self.path, "tmp")), [])

    @property
    def new(self) -> str:
        return os.path.join(self.path, "new")

    def test_new_is_missing(self) -> None:
        """Somebody moved it away."""
        self.refused(lambda: os.rmdir(self.new), lambda: os.mkdir(self.new, 0o700), errno.ENOENT)

    def test_new_is_something_else(self) -> None:
        """A file, for example."""

        def spoil() -> None:
            os.rmdir(self.new)
            Disk().create(self.new)

        def mend() -> None:
            os.unlink(self.new)
            os.mkdir(self.new, 0o700)

        self.refused(spoil, mend, errno.ENOTDIR)

    @unittest.skipIf(os.geteuid() == 0, "root may do everything")
    def test_a_directory_cannot_be_written(self) -> None:
        """Where the mail goes, or where it comes from."""
        for name in ("new", "tmp"):
            path = os.path.join(self.path, name)
            self.refused(partial(os.chmod, path, 0o500), partial(os.chmod, path, 0o700), errno.EACCES)

    @unittest.skipUnless(os.geteuid() == 0, "only root can become somebody else")
    def test_a_directory_is_another_users(self) -> None:
        """Root is asked as the user that it has become."""
        os.chmod(self.root, 0o755)

        def spoil(path: str) -> None:
            os.chmod(self.path, 0o755)
            os.chmod(path, 0o555)
            os.seteuid(65534)

        def mend(path: str) -> None:
            os.seteuid(0)
            os.chmod(path, 0o700)

        for name in ("new", "tmp"):
            path = os.path.join(self.path, name)
            self.refused(partial(spoil, path), partial(mend, path), errno.EACCES)

    @unittest.skipUnless(os.geteuid() == 0 and sys.platform == "linux", "only root can mount")
    def test_the_disk_is_read_only(self) -> None:
        """Remounted so by the kernel after an error, or by an operator; or another disk was mounted on new/."""
        if subprocess.run(["mount", "-t", "tmpfs", "none", self.root], check=False, capture_output=True).returncode:
            self.skipTest("mounting is not possible here")
        self.addCleanup(subprocess.run, ["umount", "-l", self.root], check=False)
        self.staged(1).abort()
        for spoil, mend, number in (
            (["mount", "-o", "remount,ro", self.root], ["mount", "-o", "remount,rw", self.root], errno.EROFS),
            (["mount", "-t", "tmpfs", "none", self.new], ["umount", self.new], errno.EXDEV),
            (["mount", "--bind", self.new, self.new], ["umount", self.new], errno.EXDEV),
        ):
            run = partial(subprocess.run, check=True)
            self.refused(partial(run, spoil), partial(run, mend), number)

    def test_the_transaction_aborts(self) -> None:
        """The application hears of it, with the cure, and its databases roll back."""
        delivery = QueuedMailDelivery(self.path)
        self.addCleanup(transaction.abort)
        delivery.send("s@example.org", ["r@example.org"], "Subject: s\n\n")
        os.rmdir(os.path.join(self.path, "new"))
        with self.assertRaisesRegex(OSError, "cannot be put into the queue"):
            transaction.commit()


class TheProof(VoteTest):
    def test_leaves_nothing(self) -> None:
        """Neither for one mail nor for many, and nobody counts it meanwhile."""
        for count in (1, 3, 12):
            staged = self.staged(count)
            staged.prepare()
            self.assertEqual(os.listdir(os.path.join(self.path, "new")), [])
            staged.abort()

    def test_works_without_links(self) -> None:
        """Where mail can be put into a queue, though no processor is safe there."""
        staged = self.staged(1)
        with mock.patch.object(self.queue.disk, "link", side_effect=OSError(errno.EPERM, "no links here")):
            staged.prepare()
        staged.commit()
        self.assertEqual(self.queue.admin.count(), {State.READY: 1})

    def test_of_a_vote_that_died_is_litter(self) -> None:
        """It is no mail, and goes when it is old; the mail itself is in doubt."""
        clock = ManualClock()
        queue = MaildirQueue(self.path, clock=clock)
        self.addCleanup(queue.close)
        self.staged(1)
        [name] = os.listdir(os.path.join(self.path, "tmp"))
        proof = os.path.join(self.path, "new", PROOF + name)
        os.link(os.path.join(self.path, "tmp", name), proof)
        clock.wall = os.stat(proof).st_ctime
        self.assertEqual(queue.claim(9), [])
        self.assertTrue(os.path.exists(proof))
        clock.advance(700)
        self.assertEqual(queue.claim(9), [])
        self.assertFalse(os.path.exists(proof))
        self.assertTrue(os.path.exists(os.path.join(self.path, "tmp", name)))
        self.assertEqual([finding.kind for finding in queue.admin.examine() if finding.name.startswith("new/")], [])


class AForkedChild(VoteTest):
    """It has a copy of its parent's transaction."""

    def child(self, act: str, count: int) -> int:
        script = textwrap.dedent(
            f"""
            import os, sys, transaction
            from zope.sendmail.delivery import QueuedMailDelivery
            delivery = QueuedMailDelivery({self.path!r})
            transaction.begin()
            for number in range({count}):
                delivery.send("s@example.org", [f"{{number}}@example.org"], "Subject: s\\n\\n")
            pid = os.fork()
            if not pid:
                try:
                    transaction.{act}()
                except BaseException:
                    os._exit(3)
                os._exit(0)
            _, status = os.waitpid(pid, 0)
            transaction.commit()
            sys.exit(os.waitstatus_to_exitcode(status))
            """
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        return subprocess.run([sys.executable, "-c", script], env=environment, check=False).returncode

    def test_that_begins_or_aborts_a_transaction_deletes_nothing(self) -> None:
        """The parent commits, and all its mail leaves."""
        total = 0
        for act in ("begin", "abort"):
            for count in (1, 3, 12):
                total += count
                self.assertEqual(self.child(act, count), 0)
                self.assertEqual(self.queue.admin.count(), {State.READY: total}, (act, count))

    def test_that_commits_is_told_and_the_parent_decides(self) -> None:
        """Else one of both would fail in its second phase, where nobody hears it."""
        self.assertEqual(self.child("commit", 3), 3)
        self.assertEqual(self.queue.admin.count(), {State.READY: 3})

    def test_can_send_in_a_transaction_of_its_own(self) -> None:
        """What it stages itself is its own."""
        with mock.patch("os.getpid", return_value=1):
            inherited = self.staged(2)
        own = self.staged(1)
        own.prepare()
        own.commit()
        inherited.abort()
        self.assertEqual(self.queue.admin.count(), {State.READY: 1, State.STAGED: 2})


class StagedMailOfOthers(VoteTest):
    """As operators see it."""

    def left_by(self, count: int, *, alive: bool = False) -> list[str]:
        """Stage mail in another process, which dies, or lives until the test has ended; return its names."""
        script = textwrap.dedent(
            f"""
            import sys
            from zope.sendmail.queue import open_queue
            from zope.sendmail.testing.contracts import MESSAGE, envelope
            staged = open_queue({self.path!r}).stage()
            names = [staged.add(envelope("%d@example.org" % number), MESSAGE) for number in range({count})]
            print(*names, flush=True)
            sys.stdin.read()
            """
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        process = subprocess.Popen(
            [sys.executable, "-c", script], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            self.addCleanup(stream.close)
        assert process.stdout is not None
        names = process.stdout.readline().split()
        if not alive:
            process.kill()
            process.wait()
        return names

    def entries(self) -> list[str]:
        return [f"tmp/{name}" for name in sorted(os.listdir(os.path.join(self.path, "tmp")))]

    def test_is_listed_if_it_is_asked_for(self) -> None:
        """One entry for a transaction, whether it is one mail, a group or a bundle."""
        for count in (1, 3, 12):
            self.left_by(count)
        listed = list(self.queue.admin.mails([State.STAGED]))
        self.assertEqual([mail.name for mail in listed], self.entries())
        self.assertEqual({(mail.state, mail.message_id) for mail in listed}, {(State.STAGED, "1@example.org")})
        self.assertEqual(list(self.queue.admin.mails()), [])
        self.assertEqual([self.queue.admin.show(mail.name) for mail in listed], listed)
        with self.queue.admin.read(listed[0].name) as stream:
            self.assertEqual(stream.read(), MESSAGE)
        self.assertRaises(NotPossible, self.queue.admin.read, listed[1].name)

    def test_of_the_dead_is_in_doubt(self) -> None:
        """Without a look at anything else."""
        self.left_by(1)
        self.left_by(12)
        self.assertEqual([finding.kind for finding in self.queue.admin.in_doubt()], ["in-doubt"] * 2)

    def test_of_the_dead_can_be_removed_or_released(self) -> None:
        """A whole transaction at a time."""
        for count in (1, 3, 12):
            self.left_by(count)
            for entry in self.entries():
                self.queue.admin.remove(entry)
            self.assertEqual(self.entries(), [])
            names = self.left_by(count)
            for entry in self.entries():
                self.queue.admin.release(entry)
            processor = MaildirQueue(self.path)
            self.assertEqual([lease.name for lease in processor.claim(20)], names)
            processor.close()
            for name in names:
                self.queue.admin.remove(name)

    def test_of_the_living_stays(self) -> None:
        """Whatever its number looks like from here: another container has others."""
        for count in (1, 3, 12):
            self.left_by(count, alive=True)
        with mock.patch("zope.sendmail.queue.maildir.liveness._is_running", return_value=False):
            self.assertEqual(list(self.queue.admin.in_doubt()), [])
            for entry in self.entries():
                for verb in (self.queue.admin.remove, self.queue.admin.release):
                    with self.assertRaisesRegex(NotPossible, "may still commit"):
                        verb(entry)
        self.assertEqual(len(self.entries()), 3)


class AProcessWithManyTransactions(VoteTest):
    def test_keeps_no_more_files_open_than_a_few(self) -> None:
        """A descriptor each is too much for a thousand."""
        before = open_below(self.root)
        staged = [self.staged(1) for _ in range(200)]
        self.assertLess(open_below(self.root) - before, 70)
        for each in staged:
            each.abort()
        self.assertLessEqual(open_below(self.root), before)


del VoteTest
