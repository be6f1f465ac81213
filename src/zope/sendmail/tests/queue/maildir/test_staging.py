"""The mails of one transaction on their way into a Maildir queue, and a crash at every step."""

from __future__ import annotations

import errno
import gc
import os
import shutil
import tempfile
import unittest
from collections.abc import Sequence
from unittest import mock

from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.pieces import Piece, joined
from zope.sendmail.queue.maildir import latecommit as late_module, staging as staged_module
from zope.sendmail.queue.maildir.latecommit import LateCommits
from zope.sendmail.queue.maildir.layout import BUNDLE, GROUP, PARTS, SPLITTING
from zope.sendmail.queue.maildir.queue import MaildirQueue, _after_fork
from zope.sendmail.queue.maildir.staging import StagedMail
from zope.sendmail.queue.maildir.unfolder import flush, unfold_now
from zope.sendmail.system.disk import Disk
from zope.sendmail.testing.contracts import MESSAGE, SCHEDULE, ManualClock, envelope


class WhatTheDiskRefusedToReveal(unittest.TestCase):
    def setUp(self) -> None:
        self.path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "queue")
        self.addCleanup(self.open().close)

    def open(self) -> MaildirQueue:
        return MaildirQueue(self.path)

    def refuse(self) -> StagedMail:
        """A mail whose transaction has committed, and which is in ``tmp/`` all the same."""
        queue = self.open()
        staged = queue.stage()
        staged.add(envelope(), MESSAGE)
        staged.prepare()
        refused = OSError(errno.ENOSPC, "no room for a name")
        with mock.patch.object(queue.disk, "rename", side_effect=refused), self.assertRaises(OSError):
            staged.commit()
        return staged

    def test_is_revealed_by_the_processor(self) -> None:
        """It has a queue object of its own, and that of the delivery may be gone: Products.MailHost makes many."""
        self.refuse()
        gc.collect()
        self.assertEqual(len(self.open().claim(10)), 1)

    def test_is_not_forgotten_for_another_that_is_gone(self) -> None:
        """Two threads commit at once: each stands for itself."""
        gone, waiting = mock.Mock(), mock.Mock()
        late = LateCommits(self.path)

        def fail() -> None:
            late.add(gone)
            late.add(waiting)
            raise FileNotFoundError

        gone.commit = fail
        late.add(gone)
        with self.assertLogs("MailDataManager", "ERROR"):
            late.reveal()
        waiting.commit.assert_called_once_with()

    def test_is_the_parents_matter_after_a_fork(self) -> None:
        """Else it would be revealed, and named, twice."""
        staged = self.refuse()
        queue = self.open()
        with mock.patch.dict(late_module._late):
            _after_fork()
            self.assertEqual(queue.claim(), [])
        staged.commit()


class AQueueThatWasRemoved(unittest.TestCase):
    """While a program had it open."""

    def setUp(self) -> None:
        self.path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "queue")
        self.queue = MaildirQueue(self.path)
        self.addCleanup(self.queue.close)
        self.staged = self.queue.stage()

    def test_is_made_again_for_the_next_mail(self) -> None:
        """As if it had never been there."""
        shutil.rmtree(self.path)
        self.staged.add(envelope(), MESSAGE)
        self.staged.prepare()
        self.staged.commit()
        self.assertEqual(self.queue.admin.count(), {State.READY: 1})

    def test_takes_the_mails_of_a_transaction_with_it(self) -> None:
        """The next one of the same transaction is refused: all of them commit, or none."""
        self.staged.add(envelope(), MESSAGE)
        self.staged.add(envelope(), MESSAGE)
        shutil.rmtree(self.path)
        self.assertRaises(FileNotFoundError, self.staged.add, envelope(), MESSAGE)
        self.staged.abort()

    def test_does_not_commit_twice(self) -> None:
        """A transaction that has ended is over, whatever is asked of it."""
        self.staged.add(envelope(), MESSAGE)
        self.staged.prepare()
        self.staged.commit()
        self.staged.commit()
        self.staged.abort()
        self.assertEqual(self.queue.admin.count(), {State.READY: 1})


class Died(BaseException):
    """The process is no more."""


class Mortal(Disk):
    """A disk whose user dies before the n-th step; with an error instead, the disk refuses that step and goes on."""

    def __init__(self, steps: int = 1000, error: OSError | None = None) -> None:
        self.steps = steps
        self.error = error
        self.log: list[str] = []

    def step(self, name: str) -> None:
        self.log.append(name)
        self.steps -= 1
        if self.steps == 0 and self.error is not None:
            raise self.error
        if self.steps < 0 and self.error is None:
            raise Died

    def create(self, path: str, *pieces: Piece) -> None:
        self.step("create")
        super().create(path, *pieces)

    def create_locked(self, path: str, *pieces: Piece) -> int:
        self.step("create")
        return super().create_locked(path, *pieces)

    def fill(self, path: str, *pieces: Piece) -> int:
        self.step("fill")
        return super().fill(path, *pieces)

    def sync_open(self, fd: int) -> None:
        self.step("sync open file")

    def prove_name(self, path: str, name: str) -> None:
        self.step("prove")
        Disk().prove_name(path, name)

    def append(self, path: str, *pieces: Piece) -> None:
        self.step("append")
        super().append(path, *pieces)

    def truncate(self, path: str, size: int) -> None:
        self.step("truncate")
        super().truncate(path, size)

    def make_directory(self, path: str) -> bool:
        self.step("make_directory")
        return super().make_directory(path)

    def sync_files(self, paths: Sequence[str]) -> None:
        self.step(f"sync {len(paths)} files")

    def sync_directory(self, path: str) -> None:
        name = os.path.basename(path)
        self.step("sync " + ("group" if name[0].isdigit() else "committed group" if name.startswith(GROUP) else name))

    def rename(self, old: str, new: str) -> None:
        if os.path.basename(os.path.dirname(new)) != "new":
            self.step("gather")
        elif os.path.basename(os.path.dirname(old)).startswith((GROUP, PARTS)):
            self.step("move out")
        else:
            self.step("reveal")
        super().rename(old, new)

    def remove_directory(self, path: str) -> None:
        self.step("remove_directory")
        super().remove_directory(path)

    def unlink(self, path: str) -> None:
        self.step("unlink")
        super().unlink(path)


class StagedTest(unittest.TestCase):
    def setUp(self) -> None:
        self.path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "queue")
        self.clock = ManualClock()
        self.queue = self.open()
        self.queue.stage()

    def open(self, disk: Disk | None = None) -> MaildirQueue:
        queue = MaildirQueue(self.path, schedule=SCHEDULE, clock=self.clock, disk=disk)
        self.addCleanup(queue.close)
        return queue

    def names(self, directory: str) -> list[str]:
        return sorted(os.listdir(os.path.join(self.path, directory)))

    def claimed(self) -> list[str]:
        """What a new processor finds, in order."""
        return [lease.name for lease in self.open().claim(100)]

    def transaction(self, disk: Mortal, count: int) -> list[str]:
        """Stage, prepare and commit; the names as far as it came."""
        names: list[str] = []
        try:
            staged = self.open(disk).stage()
            while len(names) < count:
                names.append(staged.add(envelope(), MESSAGE))
            staged.prepare()
            staged.commit()
        except Died:
            disk.log.append("died")
        return names


class Steps(StagedTest):
    def test_of_one_mail(self) -> None:
        """As the internals number them."""
        disk = Mortal()
        self.transaction(disk, 1)
        self.assertEqual(disk.log, ["create", "prove", "sync 1 files", "sync tmp", "reveal", "sync new"])

    def test_of_several_mails(self) -> None:
        """A thousand mails are synced together."""
        disk = Mortal()
        self.transaction(disk, 3)
        self.assertEqual(
            disk.log,
            [
                *("create", "make_directory", "gather", "create", "create"),
                *("prove", "sync 3 files", "sync group", "sync tmp"),
                *("reveal", "sync new"),
                *("move out", "move out", "move out", "sync new", "remove_directory"),
            ],
        )

    def test_the_instant_of_success_is_one_rename(self) -> None:
        """Before it nobody sees anything, after it everything is there."""
        staged = self.queue.stage()
        names = [staged.add(envelope(), MESSAGE) for _ in range(3)]
        staged.prepare()
        self.assertEqual((self.names("new"), len(self.names("tmp"))), ([], 1))
        staged.commit()
        self.assertEqual((self.names("new"), self.names("tmp")), (names, []))
        self.assertEqual(self.names("history"), [])


class Crashes(StagedTest):
    def test_at_every_step(self) -> None:
        """All mails of a transaction are revealed, or none; what is in doubt is neither sent nor deleted."""
        for count in (1, 2, 3):
            whole = Mortal()
            self.transaction(whole, count)
            self.claimed()
            for step in range(len(whole.log)):
                with self.subTest(mails=count, step=f"{step}: {whole.log[step]}"):
                    self.setUp()
                    disk = Mortal(step)
                    names = self.transaction(disk, count)
                    self.assertEqual(disk.log[-1], "died")
                    done = disk.log[:-2]  # without the step that was not done any more
                    committed = "reveal" in done
                    found = self.claimed()
                    self.assertEqual(found, names if committed else [])
                    in_doubt = self.open().admin.count().get(State.STAGED, 0)
                    self.assertEqual(in_doubt, 0 if committed else done.count("create") + done.count("append"))

    def test_what_is_in_doubt_stays(self) -> None:
        """Nobody who looks later sends it or cleans it away."""
        disk = Mortal(7)
        names = self.transaction(disk, 3)
        for _ in range(3):
            self.clock.advance(86400)
            self.assertEqual(self.claimed(), [])
        [group] = self.names("tmp")
        self.assertEqual(self.names(os.path.join("tmp", group)), names)

    def test_a_group_half_moved_out_is_finished(self) -> None:
        """By whoever looks next; nothing is left of it."""
        names = self.transaction(Mortal(11), 3)
        self.assertTrue(any(name.startswith(GROUP) for name in self.names("new")))
        self.assertEqual(self.claimed(), names)
        self.assertFalse(any(name.startswith(GROUP) for name in self.names("new")))

    def test_several_may_finish_it_at_once(self) -> None:
        """Each mail is there once, and none of the processes fails."""
        names = self.transaction(Mortal(10), 3)
        children = []
        for _ in range(4):
            child = os.fork()
            if not child:
                status = 1
                try:
                    # By the clock of the files: to a manual one, what another child is just making would be old litter.
                    MaildirQueue(self.path).claim()
                    status = 0
                finally:
                    os._exit(status)
            children.append(child)
        self.assertEqual([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children], [0] * 4)
        self.assertEqual([name for name in self.names("new") if not name.startswith(".")], names)


class FullDisk(StagedTest):
    def test_before_the_commit_it_is_told_and_abort_leaves_nothing(self) -> None:
        """Whichever step fails."""
        for step in range(1, 9):
            with self.subTest(step):
                self.setUp()
                staged = self.open(Mortal(step, OSError(errno.ENOSPC, "full"))).stage()
                with self.assertRaises(OSError):
                    for _ in range(3):
                        staged.add(envelope(), MESSAGE)
                    staged.prepare()
                staged.abort()
                self.assertEqual(self.queue.admin.count(), {})
                self.assertEqual(self.names("new"), [])
                self.assertEqual(self.names("tmp"), [])

    def test_the_mails_before_a_failed_one_can_be_committed(self) -> None:
        """An application may catch the error and go on."""
        disk = Mortal(5, OSError(errno.ENOSPC, "full"))
        staged = self.open(disk).stage()
        names = [staged.add(envelope(), MESSAGE), staged.add(envelope(), MESSAGE)]
        self.assertRaises(OSError, staged.add, envelope(), MESSAGE)
        self.assertEqual(len(staged), 2)
        staged.prepare()
        staged.commit()
        self.assertEqual(self.claimed(), names)


class Savepoints(StagedTest):
    def test_rolled_back_mails_are_not_revealed(self) -> None:
        """However many mails are left; nothing of the others stays."""
        for keep in range(4):
            with self.subTest(keep):
                self.setUp()
                staged = self.queue.stage()
                names = [staged.add(envelope(), MESSAGE) for _ in range(3)]
                staged.rollback(keep)
                staged.rollback(3)
                staged.prepare()
                staged.commit()
                self.assertEqual((self.claimed(), self.names("tmp")), (names[:keep], []))

    def test_a_rollback_that_the_disk_refuses_can_be_repeated(self) -> None:
        """It forgets no mail whose file is still there: abort removes it, and commit reveals no more than before."""
        for at in (1, 2):
            with self.subTest(at):
                self.setUp()
                staged = self.open(disk := Mortal()).stage()
                names = [staged.add(envelope(), MESSAGE) for _ in range(3)]
                disk.steps, disk.error = at, OSError(errno.EIO, "io")
                self.assertRaises(OSError, staged.rollback, 1)
                self.assertEqual(len(staged), 4 - at)
                [group] = self.names("tmp")
                self.assertEqual(self.names(os.path.join("tmp", group)), names[: 4 - at])
                staged.rollback(1)
                self.assertEqual(self.names(os.path.join("tmp", group)), names[:1])
                staged.abort()
                self.assertEqual((self.names("tmp"), self.queue.admin.count()), ([], {}))

    def test_two_transactions_do_not_meet(self) -> None:
        """One may die half-way while the other commits."""
        self.transaction(Mortal(6), 2)
        names = self.transaction(Mortal(), 2)
        self.assertEqual(self.claimed(), names)


class Bundled(StagedTest):
    """From the second mail on they stand in one file."""

    def setUp(self) -> None:
        self.enterContext(mock.patch.object(staged_module, "SINGLY", 1))
        super().setUp()


class BundledSteps(Bundled):
    def test_of_several_mails(self) -> None:
        """Up to the commit they make two files; the rest comes later."""
        disk = Mortal()
        with mock.patch.object(staged_module, "later", unfold_now):
            self.transaction(disk, 3)
        self.assertEqual(
            disk.log,
            [
                *("create", "make_directory", "gather", "append", "append"),
                *("prove", "sync 2 files", "sync group", "sync tmp"),
                *("reveal", "sync new"),
                *("move out", "create", "make_directory", "create", "create", "sync 2 files", "sync .parts"),
                *("sync committed group", "unlink", "sync committed group", "move out", "move out", "sync new"),
                *("unlink", "remove_directory", "remove_directory"),
            ],
        )

    def test_the_thread_does_the_rest(self) -> None:
        """Soon any Maildir reader sees single files, in the order in which they were added."""
        names = self.transaction(Mortal(), 5)
        self.assertTrue(flush(10))
        self.assertEqual((self.names("new"), self.names("tmp")), (names, []))
        self.assertEqual(self.claimed(), names)

    def test_a_forked_child_has_a_thread_of_its_own(self) -> None:
        """What its parent has still to unfold stays with the parent."""
        self.transaction(Mortal(), 3)
        child = os.fork()
        if not child:
            status = 1
            try:
                self.transaction(Mortal(), 4)
                status = 0 if flush(10) else 2
            finally:
                os._exit(status)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 0)
        self.assertTrue(flush(10))
        self.assertEqual(self.queue.admin.count(), {State.READY: 7})
        self.assertFalse([name for name in self.names("new") if name.startswith(".")])

    def test_the_threshold(self) -> None:
        """A few mails are files from the start."""
        with mock.patch.object(staged_module, "SINGLY", 3), mock.patch.object(staged_module, "later") as later:
            names = self.transaction(Mortal(), 3)
            self.assertEqual(self.names("new"), names)
            self.assertFalse(later.called)
            self.transaction(Mortal(), 4)
            self.assertTrue(later.called)


class BundledCrashes(Bundled, Crashes):
    def setUp(self) -> None:
        self.enterContext(mock.patch.object(staged_module, "later", unfold_now))
        super().setUp()

    test_what_is_in_doubt_stays = test_a_group_half_moved_out_is_finished = None  # type: ignore[assignment]  # these are left out here

    def test_several_may_finish_it_at_once(self) -> None:
        """Another process that is at work on the bundle is left alone; each mail is there once in the end."""
        with mock.patch.object(staged_module, "later"):
            super().test_several_may_finish_it_at_once()

    def test_while_another_process_unfolds(self) -> None:
        """The mails are counted, not sent; and found when that process dies."""
        with mock.patch.object(staged_module, "later"):
            names = self.transaction(Mortal(), 3)
        [group] = self.names("new")
        queue = self.open()
        with Disk().locked(os.path.join(self.path, "new", group, ".bundle")):
            self.assertEqual(len(queue.claim(10)), 1)
            self.assertEqual(queue.admin.count()[State.READY], 2)
        self.clock.advance(5)
        self.assertEqual([lease.name for lease in queue.claim(10)], names[1:])

    def test_while_another_host_unfolds_whose_lock_is_not_seen(self) -> None:
        """It has said so in the group, and is left alone, until that is so long ago that it died."""
        with mock.patch.object(staged_module, "later"):
            names = self.transaction(Mortal(), 3)
        [group] = [os.path.join(self.path, "new", name) for name in self.names("new")]
        other = os.path.join(group, SPLITTING + "another.example.org")
        Disk().create(other)
        self.assertEqual([lease.name for lease in self.open().claim(10)], names[:1])
        self.assertEqual(sorted(os.listdir(group)), [BUNDLE, os.path.basename(other)])
        os.utime(other, (os.stat(other).st_mtime - 700,) * 2)
        self.assertEqual([lease.name for lease in self.open().claim(10)], names[1:])
        self.assertFalse(os.path.exists(group))

    def test_operators_see_all(self) -> None:
        """Whoever lists the queue unfolds first."""
        for see in (
            lambda queue: queue.admin.count(),
            lambda queue: list(queue.admin.names()),
            lambda queue: list(queue.admin.mails()),
        ):
            with self.subTest(see):
                self.setUp()
                with mock.patch.object(staged_module, "later"):
                    names = self.transaction(Mortal(), 3)
                seen = see(self.queue)
                self.assertIn(len(seen), (1, 3))
                self.assertEqual(self.queue.admin.count(), {State.READY: 3})
                self.assertEqual(self.names("new"), names)

    def test_one_is_found_by_its_name(self) -> None:
        """As if it were a file already."""
        with mock.patch.object(staged_module, "later"):
            names = self.transaction(Mortal(), 3)
        self.assertEqual(self.queue.admin.show(names[2]).name, names[2])

    def test_a_torn_bundle(self) -> None:
        """Which no crash leaves: it is told, nothing is deleted, and other mail goes out."""
        with mock.patch.object(staged_module, "later"):
            names = self.transaction(Mortal(), 3)
        [group] = self.names("new")
        bundle = os.path.join(self.path, "new", group, ".bundle")
        whole = Disk().read(bundle)
        for torn in (whole[:-1], whole[: len(whole) // 2 + 3], b"no bundle", b"../x 1\n1", b".x 1\n1", b"x y\n"):
            os.truncate(bundle, 0)
            Disk().append(bundle, torn)
            with self.assertLogs("QueueProcessorThread", "ERROR") as log:
                self.assertLessEqual(set(self.claimed()), {names[0]})
            self.assertIn("not a whole bundle", log.output[0])
            self.assertTrue(any(found.kind == "unreadable" for found in self.queue.admin.examine()))
            self.assertEqual(Disk().read(bundle), torn)
        os.truncate(bundle, 0)
        Disk().append(bundle, whole)
        self.assertEqual(self.claimed(), names[1:])  # the first has been claimed above


class BundledFullDisk(Bundled, FullDisk):
    def test_a_torn_mail_is_cut_off(self) -> None:
        """The mails before and after it go."""
        with mock.patch.object(staged_module, "later", unfold_now):
            for bad in (1, 2, 3):
                with self.subTest(bad):
                    self.setUp()
                    disk = Tearing(bad)
                    staged = self.open(disk).stage()
                    names = []
                    for number in range(5):
                        try:
                            names.append(staged.add(envelope(), MESSAGE))
                        except OSError:
                            self.assertEqual(number, bad)
                    staged.prepare()
                    staged.commit()
                    self.assertEqual(len(names), 4)
                    self.assertEqual(self.claimed(), names)


class Tearing(Disk):
    """Full in the middle of the n-th mail of a bundle, once."""

    def __init__(self, bad: int) -> None:
        self.bad = bad

    def append(self, path: str, *pieces: Piece) -> None:
        self.bad -= path.endswith(".bundle")
        if self.bad == 0:
            self.bad = -1
            super().append(path, joined(pieces)[:50])
            raise OSError(errno.ENOSPC, "full")
        super().append(path, *pieces)


class BundledSavepoints(Bundled, Savepoints):
    def setUp(self) -> None:
        self.enterContext(mock.patch.object(staged_module, "later", unfold_now))
        super().setUp()

    def test_a_rollback_that_the_disk_refuses_can_be_repeated(self) -> None:
        """It forgets no mail that is still there."""
        staged = self.open(disk := Mortal()).stage()
        names = [staged.add(envelope(), MESSAGE) for _ in range(4)]
        disk.steps, disk.error = 1, OSError(errno.EIO, "io")
        self.assertRaises(OSError, staged.rollback, 2)
        self.assertEqual(len(staged), 4)
        staged.rollback(2)
        names[2:] = [staged.add(envelope(), MESSAGE)]
        staged.prepare()
        staged.commit()
        self.assertEqual(self.claimed(), names)
