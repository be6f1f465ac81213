"""Who works on which message, through the death of any process."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import tempfile
import unittest
from collections.abc import Callable, Iterator

from zope.sendmail.disk import Disk, same_file
from zope.sendmail.interfaces import QueueNotSafe
from zope.sendmail.maildir import make_maildir
from zope.sendmail.queue.locks import LOOK_AGAIN, MAX_SEND_TIME, Busy, Lock, Owner, Phase, sweep
from zope.sendmail.queue.places import BELL, EXTRA, Places
from zope.sendmail.testing.contracts import ManualClock

KEY = "new/1700000000.1.host.0000000000000"


class LocksTest(unittest.TestCase):
    def setUp(self) -> None:
        self.places = Places(os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "queue"))
        self.clock = ManualClock()
        make_maildir(Disk(), self.places.root, EXTRA)
        self.message(KEY)

    def message(self, key: str) -> None:
        Disk().create(self.places.message(key), b"X-Zope-From: a@example.org\nX-Zope-To: b@example.org\nText\n")

    def owner(self, disk: Disk | None = None) -> Owner:
        owner = Owner(self.places, disk or Disk(), self.clock)
        self.addCleanup(owner.close)
        return owner

    def take(self, owner: Owner, key: str = KEY) -> Lock:
        lock = owner.take(key)
        assert isinstance(lock, Lock), lock
        return lock

    def assert_busy(self, owner: Owner, seconds: float, key: str = KEY) -> None:
        self.assertEqual(owner.take(key), Busy(seconds))

    @contextlib.contextmanager
    def process(self, work: Callable[[], object]) -> Iterator[int]:
        """A second process that has done `work` and lives until it is killed with signal 9, at the latest here."""
        done, say = os.pipe()
        child = os.fork()
        if not child:
            try:
                work()
                os.write(say, b"done")
                signal.pause()
            finally:
                os._exit(1)
        os.close(say)
        try:
            self.assertEqual(os.read(done, 4), b"done")
            yield child
        finally:
            os.close(done)
            with contextlib.suppress(ProcessLookupError):
                self.kill(child)

    @staticmethod
    def kill(child: int) -> None:
        with contextlib.suppress(ChildProcessError):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


class Taking(LocksTest):
    def test_one_gets_it(self) -> None:
        """Everybody else is told when to look again, in this process and in others."""
        lock = self.take(self.owner())
        self.assertTrue(lock.is_ours())
        self.assertIsNone(lock.inherited)
        self.assert_busy(self.owner(), LOOK_AGAIN)

        with self.process(lambda: self.assert_busy(Owner(self.places, Disk(), self.clock), LOOK_AGAIN)):
            pass

    def test_the_same_owner_does_not_get_it_twice(self) -> None:
        """Two threads of one processor are two callers."""
        owner = self.owner()
        self.take(owner)
        self.assert_busy(owner, LOOK_AGAIN)

    def test_given_back_it_can_be_taken_again(self) -> None:
        """By anybody, as if nothing had happened."""
        self.take(self.owner()).release()
        self.assertFalse(os.path.exists(self.places.sending(KEY)))
        self.assertIsNone(self.take(self.owner()).inherited)

    def test_a_message_that_is_gone_can_be_locked_until_somebody_looks(self) -> None:
        """The directory has to be there."""
        self.assertRaises(FileNotFoundError, self.owner().take, "nowhere/x")

    def test_older_releases_respect_it(self) -> None:
        """They look for .sending-<name> and its time stamp only; the stamp is fresh as long as there is work."""
        lock = self.take(self.owner())
        path = os.path.join(self.places.new, ".sending-" + os.path.basename(KEY))
        os.utime(path, (1.0, 1.0))
        lock.note(Phase.OPENED)
        self.assertGreater(os.stat(path).st_mtime, 1_000_000_000)
        self.assertRaises(FileExistsError, os.link, self.places.message(KEY), path)

    def test_a_lock_that_was_taken_away_is_not_ours(self) -> None:
        """An older release removes it after three hours; its own is left alone then."""
        lock = self.take(self.owner())
        os.unlink(self.places.sending(KEY))
        self.assertFalse(lock.is_ours())
        os.link(self.places.message(KEY), self.places.sending(KEY))
        self.assertFalse(lock.is_ours())
        lock.release()
        self.assertTrue(os.path.exists(self.places.sending(KEY)))

    def test_many_locks_at_a_time(self) -> None:
        """More than there is room for from the start."""
        owner = self.owner()
        keys = [f"new/{number}" for number in range(50)]
        locks = [self.take(owner, key) for key in keys]
        for lock in locks[:25]:
            lock.release()
        for lock in locks[25:]:
            lock.note(Phase.INTENDED)
        owner.close()
        heir = self.owner()
        self.assertEqual({self.take(heir, key).inherited for key in keys[:25]}, {None})
        self.assertEqual({self.take(heir, key).inherited for key in keys[25:]}, {Phase.INTENDED})


class AfterADeath(LocksTest):
    def test_the_lock_is_free_when_the_process_was_killed(self) -> None:
        """kill -9, at whatever it was: the kernel says so, not a time stamp; how far it had come is known."""
        for phase in Phase:
            key = f"new/{phase}"
            self.message(key)

            def work(key: str = key, phase: Phase = phase) -> None:
                self.take(Owner(self.places, Disk(), self.clock), key).note(phase)

            with self.subTest(phase), self.process(work) as child:
                survivor = self.owner()
                self.assert_busy(survivor, LOOK_AGAIN, key)
                self.kill(child)
                self.assertIs(self.take(survivor, key).inherited, phase)

    def test_one_of_several_survivors_gets_it(self) -> None:
        """However many come at the same moment, in the same process or in several."""
        for _ in range(5):
            with self.process(lambda: self.take(Owner(self.places, Disk(), self.clock))) as child:
                self.kill(child)
            start, go = os.pipe()
            said, say = os.pipe()
            survivors = [self.survivor(start, go, say) for _ in range(5)]
            os.close(go)  # the starting shot
            won = b"".join(os.read(said, 1) for _ in survivors)
            for survivor in survivors:
                self.kill(survivor)
            for fd in (start, said, say):
                os.close(fd)
            self.assertEqual(bytes(sorted(won)), b"0" * 4 + b"1")
            os.unlink(self.places.sending(KEY))

    def survivor(self, start: int, go: int, say: int) -> int:
        """A process that tries once, says whether it got the lock, and lives on."""
        child = os.fork()
        if child:
            return child
        try:
            owner = Owner(self.places, Disk(), self.clock)
            owner.open()
            os.close(go)
            os.read(start, 1)
            os.write(say, b"1" if isinstance(owner.take(KEY), Lock) else b"0")
            signal.pause()
        finally:
            os._exit(1)

    def test_who_comes_second_finds_another_file(self) -> None:
        """Between a survivor's look and its lock, another one finished taking over."""
        dead = self.owner()
        self.take(dead)
        dead.close()
        faster = self.owner()
        faster.open()

        class Slow(Disk):
            @contextlib.contextmanager
            def locked(self, path: str) -> Iterator[int | None]:
                held = os.open(path, os.O_RDONLY)  # sees the dead owner's file ...
                if path.endswith(".proof"):
                    os.close(held)
                    with super().locked(path) as fd:
                        yield fd
                    return
                assert isinstance(faster.take(KEY), Lock)
                yield held  # ... and gets its lock when the other one has let go
                os.close(held)

        self.assert_busy(self.owner(Slow()), 0.0)

    def test_dying_while_taking_over(self) -> None:
        """At any step: the next survivor inherits the same."""
        for step in ("link", "rename"):
            dead = self.owner()
            self.take(dead).note(Phase.INTENDED)
            dead.close()

            class Dying(Disk):
                def link(self, old: str, new: str, step: str = step) -> None:
                    if step == "link" and self.taking(new):
                        raise KeyboardInterrupt
                    super().link(old, new)

                def rename(self, old: str, new: str, step: str = step) -> None:
                    if step == "rename" and ".sending-" in new:
                        raise KeyboardInterrupt
                    super().rename(old, new)

                def taking(self, new: str) -> bool:
                    return new.endswith(os.path.basename(KEY)[-40:]) and ".sending-" not in new

            dying = self.owner(Dying())
            with self.subTest(step):
                self.assertRaises(KeyboardInterrupt, dying.take, KEY)
                dying.close()
                lock = self.take(self.owner())
                self.assertIs(lock.inherited, Phase.INTENDED)
                lock.release()

    def test_what_was_inherited_is_inherited_again(self) -> None:
        """If the heir dies before it could write the unknown outcome down."""
        for _ in range(2):
            owner = self.owner()
            lock = self.take(owner)
            if lock.inherited is None:
                lock.note(Phase.INTENDED)
            owner.close()
        self.assertIs(self.take(self.owner()).inherited, Phase.INTENDED)

    def test_a_forked_child_does_not_keep_it(self) -> None:
        """The parent's locks end with the parent."""
        owner = self.owner()
        self.take(owner)
        with self.process(owner.forget_after_fork):
            owner.close()
            self.assertIsInstance(self.owner().take(KEY), Lock)


class OlderReleases(LocksTest):
    def test_their_lock_is_respected_for_three_hours(self) -> None:
        """It is a hard link to the message; then it is taken over, as they do among themselves."""
        now = self.clock.time()
        os.utime(self.places.message(KEY), (now - 600, now - 600))
        os.link(self.places.message(KEY), self.places.sending(KEY))
        owner = self.owner()
        busy = owner.take(KEY)
        assert isinstance(busy, Busy)
        self.assertLessEqual(busy.seconds, MAX_SEND_TIME - 600 + 1)
        self.clock.advance(MAX_SEND_TIME - 601)
        self.assertIsInstance(owner.take(KEY), Busy)
        self.clock.advance(2)
        lock = self.take(owner)
        self.assertTrue(lock.is_ours())
        self.assertIs(lock.inherited, Phase.CLAIMED)
        self.assertTrue(os.path.exists(self.places.message(KEY)))

    def test_anybody_elses_file_is_respected_likewise(self) -> None:
        """An empty one, for example."""
        Disk().create(self.places.sending(KEY))
        now = self.clock.time()
        os.utime(self.places.sending(KEY), (now, now))
        owner = self.owner()
        self.assertIsInstance(owner.take(KEY), Busy)
        self.clock.advance(MAX_SEND_TIME + 1)
        self.assertIsInstance(owner.take(KEY), Lock)

    def test_a_lock_from_the_future(self) -> None:
        """The clock was set back: it is respected, not taken for old."""
        Disk().create(self.places.sending(KEY))
        later = self.clock.time() + 86400
        os.utime(self.places.sending(KEY), (later, later))
        self.assertIsInstance(self.owner().take(KEY), Busy)

    def test_links_and_pipes_in_its_place(self) -> None:
        """Are told, not followed and not waited for."""
        os.symlink(self.places.message(KEY), self.places.sending(KEY))
        self.assertRaises(OSError, self.owner().take, KEY)
        os.unlink(self.places.sending(KEY))
        os.mkfifo(self.places.sending(KEY))
        self.assertRaises(OSError, self.owner().take, KEY)


class NotSafe(LocksTest):
    def test_without_hard_links(self) -> None:
        """exFAT, some CIFS: refused, with what to do (fault A9 of 7.3)."""
        for number in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS):

            class NoLinks(Disk):
                def link(self, old: str, new: str, number: int = number) -> None:
                    raise OSError(number, os.strerror(number))

            with self.assertRaisesRegex(QueueNotSafe, "put it on a local file system") as caught:
                self.owner(NoLinks()).take(KEY)
            self.assertTrue(caught.exception.permanent)
        self.assertFalse(os.path.exists(self.places.sending(KEY)))

    def test_without_locks(self) -> None:
        """Refused when asked for one ..."""
        for number in (errno.ENOLCK, errno.ENOTSUP):

            class NoLocks(Disk):
                def open_locked(self, path: str, number: int = number) -> int:
                    raise OSError(number, os.strerror(number))

            self.assertRaises(QueueNotSafe, self.owner(NoLocks()).take, KEY)

    def test_locks_that_lock_nothing(self) -> None:
        """... and where it is granted to everybody."""

        class Hollow(Disk):
            @contextlib.contextmanager
            def locked(self, path: str) -> Iterator[int | None]:
                fd = os.open(path, os.O_RDONLY)
                yield fd
                os.close(fd)

        self.assertRaises(QueueNotSafe, self.owner(Hollow()).take, KEY)

    def test_other_trouble_is_not_taken_for_that(self) -> None:
        """A full disk is empty again some day."""

        class Full(Disk):
            def write_at(self, fd: int, data: bytes, offset: int) -> None:
                raise OSError(errno.ENOSPC, "full")

        with self.assertRaises(OSError) as caught:
            self.owner(Full()).take(KEY)
        self.assertNotIsInstance(caught.exception, QueueNotSafe)


class Sweeping(LocksTest):
    def names(self) -> list[str]:
        return sorted(os.listdir(self.places.locks))

    def test_the_living_are_left_alone(self) -> None:
        """With their bells, whether they have locks or not."""
        owner = self.owner()
        owner.open()
        os.mkfifo(owner.path + BELL)
        before = self.names()
        sweep(self.places, Disk())
        self.assertEqual(self.names(), before)

    def test_the_dead_go_when_their_locks_are_taken_over(self) -> None:
        """Not before: what they wrote is still needed."""

        def work() -> None:
            owner = Owner(self.places, Disk(), self.clock)
            self.take(owner)
            os.mkfifo(owner.path + BELL)

        with self.process(work) as child:
            self.kill(child)
        before = self.names()
        self.assertEqual(len(before), 2)
        sweep(self.places, Disk())
        self.assertEqual(self.names(), before)
        survivor = self.owner()
        self.take(survivor)
        sweep(self.places, Disk())
        self.assertEqual(self.names(), [survivor.name])
        self.assertTrue(same_file(os.stat(survivor.path), os.stat(self.places.sending(KEY))))

    def test_closing_leaves_nothing(self) -> None:
        """Of an owner without locks."""
        owner = self.owner()
        self.take(owner).release()
        owner.close()
        owner.close()
        self.assertEqual(self.names(), [])
