"""Who works on which message, through the death of any process."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import signal
import tempfile
import threading
import unittest
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from zope.sendmail.interfaces import QueueNotSafe
from zope.sendmail.maildir import make_maildir
from zope.sendmail.queue.maildir import reserve
from zope.sendmail.queue.maildir.layout import BELL, EXTRA, Layout
from zope.sendmail.queue.maildir.locks import LOOK_AGAIN, MAX_SEND_TIME, Busy, CannotClaim, Lock, OneAtATime, Owner
from zope.sendmail.queue.maildir.ownerfile import sweep
from zope.sendmail.queue.maildir.ownertext import HEADER, Inherited, Phase
from zope.sendmail.system.disk import Disk, same_file
from zope.sendmail.testing.contracts import ManualClock

KEY = "new/1700000000.1.host.0000000000000"


class LocksTest(unittest.TestCase):
    def setUp(self) -> None:
        self.layout = Layout(os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "queue"))
        self.clock = ManualClock()
        make_maildir(Disk(), self.layout.root, EXTRA)
        self.message(KEY)

    def message(self, key: str) -> None:
        Disk().create(self.layout.message(key), b"X-Zope-From: a@example.org\nX-Zope-To: b@example.org\nText\n")

    def owner(self, disk: Disk | None = None) -> Owner:
        owner = Owner(self.layout, disk or Disk(), self.clock)
        self.addCleanup(owner.close)
        return owner

    def take(self, owner: Owner, key: str = KEY) -> Lock:
        lock = owner.take(key)
        assert isinstance(lock, Lock), lock
        return lock

    def assert_busy(self, owner: Owner, seconds: float, key: str = KEY) -> None:
        self.assertEqual(owner.take(key), Busy(seconds))

    def die(self, phase: Phase, attempts: int = 0, key: str = KEY) -> None:
        """An owner that was so far with a message closes its file, as the kernel does at its death."""
        owner = self.owner()
        self.take(owner, key).note(phase, attempts)
        owner.close()

    def older_lock(self, modified: float) -> None:
        """An older release has the message: a hard link to it, with this time stamp."""
        os.utime(self.layout.message(KEY), (modified, modified))
        os.link(self.layout.message(KEY), self.layout.sending(KEY))

    def names(self) -> list[str]:
        return sorted(os.listdir(self.layout.locks))

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

        with self.process(lambda: self.assert_busy(Owner(self.layout, Disk(), self.clock), LOOK_AGAIN)):
            pass

    def test_the_same_owner_does_not_get_it_twice(self) -> None:
        """Two threads of one processor are two callers."""
        owner = self.owner()
        self.take(owner)
        self.assert_busy(owner, LOOK_AGAIN)

    def test_given_back_it_can_be_taken_again(self) -> None:
        """By anybody, as if nothing had happened."""
        self.take(self.owner()).release()
        self.assertFalse(os.path.exists(self.layout.sending(KEY)))
        self.assertIsNone(self.take(self.owner()).inherited)

    def test_a_message_that_is_gone_can_be_locked_until_somebody_looks(self) -> None:
        """The directory has to be there."""
        self.assertRaises(FileNotFoundError, self.owner().take, "nowhere/x")

    def test_older_releases_respect_it(self) -> None:
        """They look for .sending-<name> and its time stamp only; the stamp is fresh as long as there is work."""
        lock = self.take(self.owner())
        path = os.path.join(self.layout.new, ".sending-" + os.path.basename(KEY))
        os.utime(path, (1.0, 1.0))
        lock.note(Phase.OPENED, 0)
        self.assertGreater(os.stat(path).st_mtime, 1_000_000_000)
        self.assertRaises(FileExistsError, os.link, self.layout.message(KEY), path)

    def test_a_fresh_lock_is_not_three_hours_old(self) -> None:
        """Also that of an owner who had nothing to do for longer: its file is written to before the lock is used."""
        owner = self.owner()
        self.take(owner, "new/another")
        for seconds in (30, MAX_SEND_TIME):
            with self.subTest(seconds):
                self.clock.advance(seconds)
                os.utime(owner.path, (1.0, 1.0))
                lock = self.take(owner)
                self.assertEqual(os.stat(self.layout.sending(KEY)).st_mtime > 1.0, seconds > 60)
                lock.release()

    def test_a_lock_that_was_taken_away_is_not_ours(self) -> None:
        """An older release removes it after three hours; its own is left alone then."""
        lock = self.take(self.owner())
        os.unlink(self.layout.sending(KEY))
        self.assertFalse(lock.is_ours())
        os.link(self.layout.message(KEY), self.layout.sending(KEY))
        self.assertFalse(lock.is_ours())
        lock.release()
        self.assertTrue(os.path.exists(self.layout.sending(KEY)))

    def test_many_locks_at_a_time(self) -> None:
        """More than there is room for from the start; each tells of its own message."""
        owner = self.owner()
        keys = [f"new/{number}" for number in range(50)]
        locks = [self.take(owner, key) for key in keys]
        for lock in locks[:25]:
            lock.release()
        for number, lock in enumerate(locks[25:]):
            lock.note(Phase.INTENDED, number)
        again = [self.take(owner, key) for key in keys[:25]]
        for number, lock in enumerate(again):
            lock.note(Phase.OPENED, number)
        owner.close()
        heir = self.owner()
        inherited = [self.take(heir, key).inherited for key in keys]
        self.assertEqual(inherited[:25], [Inherited(Phase.OPENED, number) for number in range(25)])
        self.assertEqual(inherited[25:], [Inherited(Phase.INTENDED, number) for number in range(25)])

    def test_two_threads_of_one_owner_are_two_callers_at_every_step(self) -> None:
        """Whoever comes between the link and what follows it does not take the lock for one that was left."""
        found: list[Lock | Busy] = []

        class Between(Disk):
            def link(self, old: str, new: str) -> None:
                super().link(old, new)
                if ".sending-" in new:
                    found.append(owner.take(KEY))

        owner = self.owner(Between())
        self.take(owner)
        self.assertEqual(found, [Busy(LOOK_AGAIN)])

    def test_removed_by_hand_the_same_owner_does_not_get_it_twice(self) -> None:
        """Its own new link would look like the old one."""
        owner = self.owner()
        lock = self.take(owner)
        os.unlink(self.layout.sending(KEY))
        self.assert_busy(owner, LOOK_AGAIN)
        self.assertFalse(lock.is_ours())
        lock.release()
        self.assertIsInstance(owner.take(KEY), Lock)


class Removing(LocksTest):
    """The message was sent and removed; nobody will ask what was done with it."""

    def test_the_lock_is_gone(self) -> None:
        """Or was taken away before."""
        owner = self.owner()
        lock = self.take(owner)
        lock.note(Phase.INTENDED, 0)
        lock.remove()
        self.assertFalse(os.path.exists(self.layout.sending(KEY)))
        lock = self.take(owner)
        os.unlink(self.layout.sending(KEY))
        lock.remove()
        self.assertIsInstance(owner.take(KEY), Lock)

    def test_what_was_written_does_not_stand_for_the_next_message(self) -> None:
        """Whose lease may end before anything is written about it, or may use the same slot."""
        for phase in (None, Phase.OPENED):
            owner = self.owner()
            lock = self.take(owner)
            lock.note(Phase.INTENDED, 5)
            lock.remove()
            lock = self.take(owner, "new/next")
            if phase is not None:
                lock.note(phase, 1)
            owner.close()
            heir = self.take(self.owner(), "new/next")
            self.assertEqual(heir.inherited, Inherited(phase or Phase.CLAIMED, 1 if phase else 0))
            heir.release()

    def test_a_disk_that_refuses(self) -> None:
        """The lock stays ours; only its owner can have it again, and knows what it had done."""
        owner = self.owner(disk := Disk())
        lock = self.take(owner)
        lock.note(Phase.INTENDED, 0)
        with mock.patch.object(disk, "unlink", side_effect=OSError(errno.EIO, "io")):
            self.assertRaises(OSError, lock.remove)
        self.assert_busy(self.owner(), LOOK_AGAIN)
        self.assertEqual(self.take(owner).inherited, Inherited(Phase.INTENDED, 0))


class ADiskThatRefusesTheLink(LocksTest):
    def test_for_the_name_of_a_message(self) -> None:
        """As a file system with short names does; that is told of this one, and others can be locked."""

        class ShortNames(Disk):
            def link(self, old: str, new: str) -> None:
                if ".sending-" in new and len(os.path.basename(new)) > 143:
                    raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), new)
                super().link(old, new)

        owner = self.owner(ShortNames())
        with self.assertRaises(OSError) as caught:
            owner.take("new/" + "x" * 140)
        self.assertNotIsInstance(caught.exception, CannotClaim)
        self.assertIsInstance(owner.take(KEY), Lock)

    def test_whatever_the_message(self) -> None:
        """That concerns each of them."""

        class Refusing(Disk):
            def link(self, old: str, new: str) -> None:
                if ".sending-" in new:
                    raise OSError(errno.EACCES, os.strerror(errno.EACCES), new)
                super().link(old, new)

        self.assertRaises(CannotClaim, self.owner(Refusing()).take, KEY)


class BetweenTwoSteps(LocksTest):
    """Another process does something between two calls of ours."""

    def test_a_lock_is_given_back_when_it_was_seen(self) -> None:
        """The message is looked at again at once."""
        other = self.take(self.owner())

        class Between(Disk):
            @contextlib.contextmanager
            def locked(self, path: str) -> Iterator[int | None]:
                if path == sending:
                    other.release()
                with super().locked(path) as fd:
                    yield fd

        owner, sending = self.owner(Between()), self.layout.sending(KEY)
        self.assertEqual(owner.take(KEY), Busy(0.0))
        self.assertIsInstance(owner.take(KEY), Lock)

    def test_a_lock_is_taken_over_by_another_process(self) -> None:
        """The file that was locked is not the lock any more."""
        self.die(Phase.INTENDED)
        heir = self.owner()

        class Between(Disk):
            @contextlib.contextmanager
            def locked(self, path: str) -> Iterator[int | None]:
                with super().locked(path) as fd:
                    if path == sending:
                        os.unlink(path)
                        heir.take(KEY)
                    yield fd

        sending = self.layout.sending(KEY)
        self.assertEqual(self.owner(Between()).take(KEY), Busy(0.0))

    def test_two_threads_make_one_owner_file(self) -> None:
        """The second one waited while the first one made it."""

        class Faster:
            def __enter__(self) -> None:
                owner._mutex = threading.Lock()
                owner.open()

            def __exit__(self, *_: object) -> None:
                pass

        owner: Any = self.owner()
        owner._mutex = Faster()  # that is where a thread waits
        owner.open()
        self.assertEqual(self.names(), [owner.name])


class KeptLocks(LocksTest):
    """A lock whose lease could not be ended, or whose inheritance could not be written down."""

    def test_nobody_else_gets_it(self) -> None:
        """As long as its owner lives."""
        owner = self.owner()
        lock = self.take(owner)
        lock.keep()
        self.assertTrue(lock.is_ours())
        self.assert_busy(self.owner(), LOOK_AGAIN)

    def test_removed_by_hand_it_tells_nothing_of_the_next_lease(self) -> None:
        """What was written is written over before anybody else can read it."""
        owner = self.owner()
        lock = self.take(owner)
        lock.note(Phase.INTENDED, 2)
        lock.keep()
        os.unlink(self.layout.sending(KEY))
        self.take(owner)
        owner.close()
        self.assertEqual(self.take(self.owner()).inherited, Inherited(Phase.CLAIMED, 0))

    def test_its_owner_inherits_what_it_wrote_itself(self) -> None:
        """However often; nothing is inherited of a message that was only claimed."""
        owner = self.owner()
        for phase in Phase:
            key = f"new/{phase}"
            lock = self.take(owner, key)
            lock.note(phase, 2)
            lock.keep()
            expected = None if phase is Phase.CLAIMED else Inherited(phase, 2)
            for _ in range(2):
                lock = self.take(owner, key)
                self.assertEqual(lock.inherited, expected)
                lock.keep()

    def test_it_needs_no_more_room(self) -> None:
        """Taken again and again on a full disk, it leaves one word behind, and that is the last one."""
        owner = self.owner()
        lock = self.take(owner)
        size = os.stat(owner.path).st_size
        for attempts in range(50):
            lock.note(Phase.INTENDED, attempts)
            lock.keep()
            lock = self.take(owner)
        self.assertEqual(os.stat(owner.path).st_size, size)
        lock.note(Phase.OPENED, 99)
        owner.close()
        self.assertEqual(self.take(self.owner()).inherited, Inherited(Phase.OPENED, 99))

    def test_a_lock_that_cannot_be_removed(self) -> None:
        """Only its owner can lock the message again, as if nothing had happened."""

        class Stubborn(Disk):
            stubborn = True

            def unlink(self, path: str) -> None:
                if self.stubborn and ".sending-" in path:
                    raise OSError(errno.EIO, "io")
                super().unlink(path)

        owner = self.owner(disk := Stubborn())
        lock = self.take(owner)
        lock.note(Phase.INTENDED, 0)
        self.assertRaises(OSError, lock.release)
        self.assert_busy(self.owner(), LOOK_AGAIN)
        lock = self.take(owner)
        self.assertIsNone(lock.inherited)
        disk.stubborn = False
        lock.release()
        self.assertIsInstance(self.owner().take(KEY), Lock)

    def test_what_was_written_about_a_release_that_failed_does_not_rule_later(self) -> None:
        """The slot could not be cleared; what a later lease writes replaces it."""

        class Once(Disk):
            failed = False

            def write_at(self, fd: int, data: bytes, offset: int) -> None:
                if not data.strip() and not self.failed:
                    self.failed = True
                    raise OSError(errno.EIO, "io")
                super().write_at(fd, data, offset)

        owner = self.owner(Once())
        lock = self.take(owner)
        lock.note(Phase.INTENDED, 0)
        self.assertRaises(OSError, lock.release)
        self.take(owner).note(Phase.OPENED, 1)
        owner.close()
        self.assertEqual(self.take(self.owner()).inherited, Inherited(Phase.OPENED, 1))


class OneLife(LocksTest):
    def test_after_close_nothing_is_ours(self) -> None:
        """Neither its locks nor its file; what is left of its locks does nothing to those of the heir."""
        owner = self.owner()
        lock = self.take(owner)
        owner.close()
        heir = self.owner()
        theirs = self.take(heir)
        theirs.note(Phase.INTENDED, 3)
        self.assertFalse(lock.is_ours())
        self.assertFalse(owner.is_in_place())
        self.assertRaises(OSError, lock.note, Phase.OPENED, 0)
        lock.release()
        self.assertTrue(theirs.is_ours())
        heir.close()
        self.assertEqual(self.take(self.owner()).inherited, Inherited(Phase.INTENDED, 3))

    def test_without_its_file_it_still_has_its_locks(self) -> None:
        """Somebody emptied locks/: a new owner respects them, and they can be given back."""
        owner = self.owner()
        lock = self.take(owner)
        os.unlink(owner.path)
        self.assertFalse(owner.is_in_place())
        other = self.owner()
        self.assert_busy(other, LOOK_AGAIN)
        self.assertTrue(lock.is_ours())
        lock.release()
        self.assertIsInstance(other.take(KEY), Lock)

    def test_its_file_appears_whole(self) -> None:
        """Under its name it is locked and says whose it is, on disk: whatever a crash leaves, it is no half one."""

        class Watching(Disk):
            seen: tuple[str, ...] = ()

            def sync_file(self, path: str) -> None:
                with open(path, "rb") as stream:
                    self.seen += (path, stream.readline().decode())
                super().sync_file(path)

            def rename(self, old: str, new: str) -> None:
                self.seen += (old, new)
                super().rename(old, new)

        owner = self.owner(disk := Watching())
        owner.open()
        hidden = os.path.join(self.layout.locks, ".new-" + owner.name)
        self.assertEqual((disk.seen[0], *disk.seen[2:]), (hidden, hidden, owner.path))
        self.assertRegex(disk.seen[1], f"^{HEADER.decode()}host .+ pid {os.getpid()} boot ")
        self.assertEqual(self.names(), [owner.name])

    def test_a_failed_opening_leaves_nothing(self) -> None:
        """Whichever step is refused; and it can be repeated."""
        for step in ("write_at", "sync_file", "link", "rename"):
            owner = self.owner(disk := Disk())
            with self.subTest(step):
                with mock.patch.object(disk, step, side_effect=OSError(errno.EIO, "io")):
                    self.assertRaises(OSError, owner.open)
                self.assertEqual(self.names(), [])
                owner.open()
                self.assertEqual(self.names(), [owner.name])
                owner.close()


class AfterADeath(LocksTest):
    def test_the_lock_is_free_when_the_process_was_killed(self) -> None:
        """kill -9, at whatever it was: the kernel says so, not a time stamp; how far it had come is known."""
        living: list[Owner] = []
        for phase in Phase:
            key = f"new/{phase}"
            self.message(key)

            def work(key: str = key, phase: Phase = phase) -> None:
                living.append(owner := Owner(self.layout, Disk(), self.clock))
                self.take(owner, key).note(phase, 7)

            with self.subTest(phase), self.process(work) as child:
                survivor = self.owner()
                self.assert_busy(survivor, LOOK_AGAIN, key)
                self.kill(child)
                self.assertEqual(self.take(survivor, key).inherited, Inherited(phase, 7))

    def test_what_it_says_is_known_whatever_bytes_the_name_has(self) -> None:
        """Other programs may have called a mail so: blanks at its end, a line end, no text in any encoding."""
        for name in ("a ", " a", "a b", "a\t", "a\n", "a \n\r ", "a\x0b", "\udcff", "\udcc3\u00e4 "):
            key = f"new/{name}"
            self.message(key)
            self.die(Phase.INTENDED, 3, key)
            with self.subTest(ascii(name)):
                self.assertEqual(self.take(self.owner(), key).inherited, Inherited(Phase.INTENDED, 3))

    def test_one_of_several_survivors_gets_it(self) -> None:
        """However many come at the same moment, in the same process or in several."""
        for _ in range(5):
            with self.process(lambda: self.take(Owner(self.layout, Disk(), self.clock))) as child:
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
            os.unlink(self.layout.sending(KEY))

    def survivor(self, start: int, go: int, say: int) -> int:
        """A process that tries once, says whether it got the lock, and lives on."""
        child = os.fork()
        if child:
            return child
        try:
            owner = Owner(self.layout, Disk(), self.clock)
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
                if os.path.basename(path).startswith(".proof-"):
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
            self.take(dead).note(Phase.INTENDED, 2)
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
                    return os.path.basename(new).startswith(".take-")

            dying = self.owner(Dying())
            with self.subTest(step):
                self.assertRaises(KeyboardInterrupt, dying.take, KEY)
                dying.close()
                lock = self.take(self.owner())
                self.assertEqual(lock.inherited, Inherited(Phase.INTENDED, 2))
                lock.release()

    def test_a_takeover_that_the_disk_refuses_can_be_repeated(self) -> None:
        """At any step, by the same owner or by another one: it inherits the same, and no litter stays."""
        for step in ("link", "rename", "write_at"):
            for same in (True, False):
                with self.subTest(step, same=same):
                    self.die(Phase.INTENDED, 2)
                    owner = self.owner(disk := Disk())
                    owner.open()
                    real = getattr(disk, step)

                    def refuse(*arguments: str, step: str = step, real: Callable[..., None] = real) -> None:
                        if step == "link" and ".sending-" in arguments[1]:
                            real(*arguments)  # somebody has it
                        raise OSError(errno.EIO, "broken")

                    with mock.patch.object(disk, step, refuse):
                        self.assertRaises(OSError, owner.take, KEY)
                    self.assertEqual([name for name in self.names() if name.startswith(".")], [])
                    heir = owner if same else self.owner()
                    lock = self.take(heir)
                    self.assertEqual(lock.inherited, Inherited(Phase.INTENDED, 2))
                    lock.release()
                    owner.close()

    def test_what_was_inherited_is_inherited_again(self) -> None:
        """If the heir dies before it could write the unknown outcome down."""
        self.die(Phase.INTENDED, 3)
        for _ in range(2):
            heir = self.owner()
            self.assertEqual(self.take(heir).inherited, Inherited(Phase.INTENDED, 3))
            heir.close()
        self.assertEqual(self.take(self.owner()).inherited, Inherited(Phase.INTENDED, 3))

    def test_what_was_told_is_not_inherited_again(self) -> None:
        """The heir says so by writing down how far it is itself."""
        self.die(Phase.INTENDED, 3)
        heir = self.owner()
        self.take(heir).note(Phase.CLAIMED, 3)
        heir.close()
        self.assertEqual(self.take(self.owner()).inherited, Inherited(Phase.CLAIMED, 3))

    def test_a_forked_child_does_not_keep_it(self) -> None:
        """The parent's locks end with the parent."""
        owner = self.owner()
        self.take(owner)
        with self.process(owner.forget):
            owner.close()
            self.assertIsInstance(self.owner().take(KEY), Lock)


class AReserve(LocksTest):
    """What is left to a process that starts on a full disk."""

    def test_that_vanishes_when_it_is_looked_at_leaves_no_file_open(self) -> None:
        """Another process may have taken it in this moment; the next one of the reserve is good."""

        class Vanishing(Disk):
            def __init__(self) -> None:
                self.fds: list[int] = []

            def lock_existing(self, path: str) -> int | None:
                fd = super().lock_existing(path)
                self.fds += [fd] if fd is not None else []
                return fd

            def stat(self, path: str) -> os.stat_result:
                if path.endswith("0"):
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
                return super().stat(path)

        reserve.make(self.layout, Disk())
        disk = Vanishing()
        found = reserve.take(self.layout, disk)
        assert found is not None
        self.addCleanup(os.close, found[1])
        self.assertEqual((len(disk.fds), found[1]), (2, disk.fds[0]))  # the number of the first one is free again


class WithoutReserve(LocksTest):
    """A process that starts on a full disk on which there is nothing but what dead processes have left."""

    class Full(Disk):
        """There is no room for a file; `refused` names one more call, and `error` says why."""

        refused, error = "", errno.ENOSPC

        def _check(self, call: str, path: str) -> None:
            if call == self.refused:
                raise OSError(self.error, os.strerror(self.error), path)

        def open_locked(self, path: str) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

        def make_directory(self, path: str) -> bool:
            self._check("make_directory", path)
            return super().make_directory(path)

        def write_at(self, fd: int, data: bytes, offset: int) -> None:
            self._check("write_at", self.path_of(fd))
            super().write_at(fd, data, offset)

        def path_of(self, fd: int) -> str:
            return f"the file {fd}"

    def full(self, refused: str = "", error: int = errno.ENOSPC) -> Disk:
        disk = self.Full()
        disk.refused, disk.error = refused, error
        return disk

    def test_goes_on_with_the_file_of_a_dead_one_and_its_locks(self) -> None:
        """What that was doing with each message stands in it, and is inherited; the slots are not used twice."""
        self.message("new/2")
        dead = self.owner()
        self.take(dead).note(Phase.INTENDED, 2)
        self.take(dead, "new/2").note(Phase.OPENED, 1)
        dead.forget()
        owner = self.owner(self.full())
        self.assertEqual(self.take(owner).inherited, Inherited(Phase.INTENDED, 2))
        self.take(owner, "new/3").note(Phase.INTENDED, 7)
        self.assertEqual(self.take(owner, "new/2").inherited, Inherited(Phase.OPENED, 1))

    def test_ends_without_forgetting_what_it_has_inherited(self) -> None:
        """The file says it to the next one."""
        self.die(Phase.INTENDED, 2)
        owner = self.owner(self.full())
        owner.open()
        owner.close()
        self.assertEqual(self.take(self.owner()).inherited, Inherited(Phase.INTENDED, 2))

    def test_does_without_a_file_that_cannot_be_written_to_for_want_of_room(self) -> None:
        """As on a file system that writes what changes elsewhere; the file is left as it was, for others."""
        dead = self.owner()
        self.take(dead).note(Phase.INTENDED, 2)
        dead.forget()
        owner = self.owner(self.full("write_at"))
        owner.open()
        self.assertTrue(owner.is_ownerless)
        self.assertEqual(self.take(self.owner()).inherited, Inherited(Phase.INTENDED, 2))

    def test_tells_of_a_broken_disk(self) -> None:
        """That is no want of room; nothing stays locked."""
        reserve.make(self.layout, Disk())
        owner = self.owner(self.full("write_at", errno.EIO))
        with self.assertRaises(OSError) as caught:
            owner.open()
        self.assertEqual(caught.exception.errno, errno.EIO)
        found = reserve.take(self.layout, Disk())
        assert found is not None
        os.close(found[1])
        self.assertTrue(found[0].endswith("0"))

    def test_is_told_what_keeps_the_queue_from_being_made(self) -> None:
        """There is no room for its directory, so nothing waits there; or there is other trouble."""
        layout = Layout(os.path.join(self.layout.root, "elsewhere"))
        for number in (errno.ENOSPC, errno.EACCES):
            with self.assertRaises(OSError) as caught:
                Owner(layout, self.full("make_directory", number), self.clock).open()
            self.assertEqual(caught.exception.errno, number)


class WithoutRoomForOneMoreName(LocksTest):
    """The owner file's own name becomes the lock of one message at a time."""

    class Crammed(Disk):
        """There is no room for one more name, once there is an owner file; a rename needs none."""

        is_full = False

        def link(self, old: str, new: str) -> None:
            if self.is_full and not self.exists(new):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), new)
            super().link(old, new)

    def crammed(self) -> Owner:
        owner = self.owner(disk := self.Crammed())
        owner.open()
        disk.is_full = True
        return owner

    def test_one_message_is_locked_and_then_the_next_one(self) -> None:
        """The file has its own name again in between, by which others know that its owner lives."""
        owner = self.crammed()
        for _ in range(2):
            lock = self.take(owner)
            self.assertTrue(owner.is_lent)
            self.assertFalse(os.path.exists(owner.path))
            self.assertTrue(owner.is_in_place())
            with self.assertRaises(OneAtATime):
                owner.take("new/another")
            lock.release()
            self.assertFalse(owner.is_lent)
            self.assertTrue(os.path.exists(owner.path))

    def test_a_dead_owners_lock_is_taken_over(self) -> None:
        """In its place, without a gap; a second one has to wait until that has ended."""
        self.message("new/2")
        self.die(Phase.INTENDED, 2)
        self.die(Phase.OPENED, 1, "new/2")
        owner = self.crammed()
        lock = self.take(owner)
        self.assertEqual(lock.inherited, Inherited(Phase.INTENDED, 2))
        self.assertTrue(owner.is_lent)
        self.assertRaises(OneAtATime, owner.take, "new/2")
        lock.release()
        self.assertEqual(self.take(owner, "new/2").inherited, Inherited(Phase.OPENED, 1))

    def test_a_lock_that_needs_no_more_room_is_made_while_that_is_lent(self) -> None:
        """There is some again: the file is where its name was lent to."""
        owner = self.owner(disk := self.Crammed())
        owner.open()
        disk.is_full = True
        self.take(owner)
        disk.is_full = False
        self.assertTrue(self.take(owner, "new/2").is_ours())

    def test_the_end_of_the_owner_gives_it_back(self) -> None:
        """So that the lock ends with it, as any other."""
        owner = self.crammed()
        self.take(owner)
        owner.close()
        self.assertEqual(os.listdir(self.layout.new), [os.path.basename(KEY)])
        self.assertEqual(self.names(), [])

    def test_a_lock_that_was_taken_over_stays_where_it_is(self) -> None:
        """At its end, and at that of the owner; which makes a file anew then."""
        for end in Lock.remove, Lock.release, None:
            owner = self.crammed()
            lock, other = self.take(owner), self.owner()
            other.open()
            link = f"{other.path}-link"
            os.link(other.path, link)
            os.rename(link, self.layout.sending(KEY))
            owner.close() if end is None else end(lock)
            self.assertTrue(other.owns(self.layout.sending(KEY)))
            self.assertFalse(owner.is_in_place())
            os.unlink(self.layout.sending(KEY))

    def test_an_own_name_that_cannot_be_lent(self) -> None:
        """Nothing can be locked now, as the disk says."""
        owner = self.owner(disk := self.Crammed())
        owner.open()
        disk.is_full = True
        with mock.patch.object(disk, "rename_new", side_effect=OSError(errno.ENOSPC, "full")):
            self.assertRaises(CannotClaim, owner.take, KEY)
        self.assertTrue(owner.is_in_place())


class WhatWasLost(LocksTest):
    def lost(self, phase: Phase, before: int, now: int) -> Phase | None:
        """Noted at this phase after `before` attempts by somebody dead, found with `now` in the history."""
        self.die(phase, before)
        lock = self.take(self.owner())
        lost = lock.lost(now)
        lock.release()
        return lost

    def test_an_attempt_that_ended_is_not(self) -> None:
        """The history has it: one more than the owner had written."""
        for phase in Phase:
            self.assertIsNone(self.lost(phase, 2, 3))

    def test_an_attempt_that_did_not_end_is(self) -> None:
        """Its phase says how much; what was only claimed is not lost."""
        self.assertIs(self.lost(Phase.INTENDED, 2, 2), Phase.INTENDED)
        self.assertIs(self.lost(Phase.OPENED, 2, 2), Phase.OPENED)
        self.assertIsNone(self.lost(Phase.CLAIMED, 2, 2))

    def test_an_attempt_whose_count_was_begun_again_is(self) -> None:
        """An operator's retry sets the attempts back to none."""
        self.assertIs(self.lost(Phase.INTENDED, 2, 0), Phase.INTENDED)

    def test_nothing_of_a_lock_that_was_free(self) -> None:
        """Nobody died."""
        self.assertIsNone(self.take(self.owner()).lost(0))


class AfterAPowerLoss(LocksTest):
    """Slots were never synced, so what the dead owner had locked is unknown, whatever they and the history say."""

    def assert_unknown(self) -> None:
        lock = self.take(self.owner())
        for attempts in (0, 1, 100):
            self.assertIs(lock.lost(attempts), Phase.INTENDED)

    def test_an_owner_file_of_another_boot(self) -> None:
        """The machine went down: its header says so."""
        self.enterContext(mock.patch("zope.sendmail.queue.maildir.heartbeat._booted", return_value=math.inf))
        for phase in Phase:
            with self.subTest(phase):
                with mock.patch("zope.sendmail.queue.maildir.ownerfile.boot_id", return_value=b"another boot"):
                    self.die(phase)
                self.assert_unknown()
                os.unlink(self.layout.sending(KEY))

    def test_an_owner_file_that_lost_its_content(self) -> None:
        """It is empty, and young: it is not respected for three hours like somebody else's file."""
        self.die(Phase.CLAIMED)
        os.truncate(self.layout.sending(KEY), 0)
        os.utime(self.layout.sending(KEY), (self.clock.time(),) * 2)
        self.assert_unknown()

    def test_a_slot_that_makes_no_sense(self) -> None:
        """It names the message, and nobody knows what else it says."""
        name = b" .sending-" + os.path.basename(KEY).encode()
        for said in (b"intended x", b"opened -1", b"finished 1", b"\xff\xfe 1"):
            with self.subTest(said):
                self.die(Phase.CLAIMED, 7)
                with open(self.layout.sending(KEY), "r+b") as stream:
                    text = stream.read()
                    stream.seek(text.index(b"claimed 7"))
                    stream.write(said + name + b" " * 10)
                self.assert_unknown()
                os.unlink(self.layout.sending(KEY))

    def test_it_stays_unknown_until_it_was_told(self) -> None:
        """The heir dies before: the next one knows no more."""
        self.die(Phase.CLAIMED)
        os.truncate(self.layout.sending(KEY), 0)
        heir = self.owner()
        self.take(heir)
        heir.close()
        self.assert_unknown()


class OlderReleases(LocksTest):
    def test_their_lock_is_respected_for_three_hours(self) -> None:
        """It is a hard link to the message; then it is taken over, as they do among themselves."""
        self.older_lock(self.clock.time() - 600)
        owner = self.owner()
        self.clock.advance(MAX_SEND_TIME - 600)
        self.assertIsInstance(owner.take(KEY), Busy)
        self.clock.advance(1)
        lock = self.take(owner)
        self.assertTrue(lock.is_ours())
        self.assertEqual(lock.inherited, Inherited(Phase.CLAIMED, 0))
        self.assertTrue(os.path.exists(self.layout.message(KEY)))

    def test_it_is_looked_at_often_enough_to_notice_its_removal(self) -> None:
        """By hand, or by its owner: after five minutes at the latest; and at once when its time is over."""
        self.older_lock(self.clock.time())
        owner = self.owner()
        self.assert_busy(owner, 300.0)
        self.clock.advance(MAX_SEND_TIME - 100)
        self.assert_busy(owner, 101.0)
        os.unlink(self.layout.sending(KEY))
        self.assertIsNone(self.take(owner).inherited)

    def test_anybody_elses_file_is_respected_likewise(self) -> None:
        """Unless it is empty."""
        Disk().create(self.layout.sending(KEY), b"of another program")
        now = self.clock.time()
        os.utime(self.layout.sending(KEY), (now, now))
        owner = self.owner()
        self.assert_busy(owner, 300.0)
        self.clock.advance(MAX_SEND_TIME)
        self.assert_busy(owner, 1.0)
        self.clock.advance(1)
        self.assertEqual(self.take(owner).inherited, Inherited(Phase.CLAIMED, 0))

    def test_a_lock_from_the_future(self) -> None:
        """The clock was set back: it is respected, not taken for old."""
        self.older_lock(self.clock.time() + 86400)
        self.assert_busy(self.owner(), 300.0)

    def test_links_and_pipes_in_its_place(self) -> None:
        """Are told, not followed and not waited for."""
        os.symlink(self.layout.message(KEY), self.layout.sending(KEY))
        self.assertRaises(OSError, self.owner().take, KEY)
        os.unlink(self.layout.sending(KEY))
        os.mkfifo(self.layout.sending(KEY))
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
            self.assertEqual(self.names(), [])
        self.assertFalse(os.path.exists(self.layout.sending(KEY)))

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
        """A disk that fails is another matter."""

        class Failing(Disk):
            def write_at(self, fd: int, data: bytes, offset: int) -> None:
                raise OSError(errno.EIO, "failing")

        with self.assertRaises(OSError) as caught:
            self.owner(Failing()).take(KEY)
        self.assertNotIsInstance(caught.exception, QueueNotSafe)


class Sweeping(LocksTest):
    def setUp(self) -> None:
        super().setUp()
        self.clock.wall = os.stat(self.layout.root).st_mtime  # files are stamped by the system's clock

    def sweep(self) -> None:
        sweep(self.layout, Disk(), self.clock.time(), lambda text, status: False)

    def litter(self) -> list[str]:
        """What deaths leave while an owner file is made, and while a lock is taken over."""
        dead = self.owner()
        self.take(dead)
        for prefix in (".new-", ".proof-", ".take-"):
            os.link(dead.path, os.path.join(self.layout.locks, prefix + dead.name))
        dead.close()
        return self.names()

    def test_the_living_are_left_alone(self) -> None:
        """With their bells, whether they have locks or not, and however old what they just make is."""
        owner = self.owner()
        owner.open()
        os.mkfifo(owner.path + BELL)
        os.link(owner.path, os.path.join(self.layout.locks, ".take-" + owner.name))
        before = self.names()
        self.clock.advance(86400)
        self.sweep()
        self.assertEqual(self.names(), before)

    def test_the_dead_go_when_their_locks_are_taken_over(self) -> None:
        """Not before: what they wrote is still needed."""
        living: list[Owner] = []

        def work() -> None:
            living.append(owner := Owner(self.layout, Disk(), self.clock))
            self.take(owner)
            os.mkfifo(owner.path + BELL)

        with self.process(work) as child:
            self.kill(child)
        before = self.names()
        self.assertEqual(len(before), 2)
        self.sweep()
        self.assertEqual(self.names(), before)
        survivor = self.owner()
        self.take(survivor)
        self.sweep()
        self.assertEqual(self.names(), [survivor.name])
        self.assertTrue(same_file(os.stat(survivor.path), os.stat(self.layout.sending(KEY))))

    def test_hidden_litter_goes_after_a_minute(self) -> None:
        """Not before: somebody may be about to give it its name."""
        before = self.litter()
        self.assertEqual(len(before), 3)
        self.clock.advance(50)
        self.sweep()
        self.assertEqual(self.names(), before)
        self.clock.advance(15)
        self.sweep()
        self.assertEqual(self.names(), [])

    def test_litter_does_not_keep_an_owner_file(self) -> None:
        """One more name of it is no lock that is out: both go at once."""
        dead = self.owner()
        dead.open()
        os.link(dead.path, os.path.join(self.layout.locks, ".take-" + dead.name))
        os.mkfifo(dead.path + BELL)
        dead.forget()
        self.clock.advance(65)
        self.sweep()
        self.assertEqual(self.names(), [])

    def test_a_lock_is_never_swept(self) -> None:
        """Only names in locks/ are; who takes over still reads what the dead owner had written."""
        self.litter()
        self.clock.advance(65)
        self.sweep()
        self.assertEqual(self.take(self.owner()).inherited, Inherited(Phase.CLAIMED, 0))

    def test_closing_leaves_nothing(self) -> None:
        """Of an owner without locks."""
        owner = self.owner()
        self.take(owner).release()
        owner.close()
        owner.close()
        self.assertEqual(self.names(), [])
