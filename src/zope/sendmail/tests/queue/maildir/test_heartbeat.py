"""Processors of several hosts on a file system whose file locks hold on one host only."""

from __future__ import annotations

import contextlib
import gc
import os
import tempfile
import threading
import unittest
import weakref
from collections.abc import Iterator
from math import inf
from typing import Any
from unittest import mock

from zope.sendmail.queue.maildir import heartbeat, reserve
from zope.sendmail.queue.maildir.heartbeat import BEAT, DEAD_AFTER, LONG_DEAD, Heart
from zope.sendmail.queue.maildir.layout import RESERVE
from zope.sendmail.queue.maildir.lease import MaildirLease
from zope.sendmail.queue.maildir.ownertext import Identity
from zope.sendmail.queue.maildir.queue import MaildirQueue
from zope.sendmail.system.disk import Disk
from zope.sendmail.testing.contracts import MESSAGE, SCHEDULE, ManualClock, envelope


class Stamped(Disk):
    """A disk that puts the time of the tests on owner files."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock

    def write_at(self, fd: int, data: bytes, offset: int) -> None:
        super().write_at(fd, data, offset)
        self.touch(fd)

    def touch(self, fd: int) -> float:
        os.utime(fd, (self.clock.time(),) * 2)
        return os.fstat(fd).st_mtime


class LocalLocks(Stamped):
    """A disk whose locks nobody sees but the host that has them; `hosts` maps the locks of all hosts to their host."""

    hosts: dict[tuple[int, int], str] = {}

    def __init__(self, host: str, clock: ManualClock) -> None:
        super().__init__(clock)
        self.host = host

    @contextlib.contextmanager
    def locked(self, path: str) -> Iterator[int | None]:
        with super().locked(path) as fd:
            status = self.stat(path)
            if fd is None and self.hosts.get((status.st_dev, status.st_ino)) != self.host:
                other = os.open(path, os.O_RDWR)  # as if nobody had locked it
                try:
                    yield other
                finally:
                    os.close(other)
            else:
                yield fd

    def is_local(self, status: os.stat_result) -> bool:
        return False

    def open_locked(self, path: str) -> int:
        fd = super().open_locked(path)
        status = os.fstat(fd)
        self.hosts[status.st_dev, status.st_ino] = self.host
        return fd


class HostsTest(unittest.TestCase):
    def setUp(self) -> None:
        self.path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "queue")
        self.clock = ManualClock()
        #: The clocks of hosts differ; that of the file server is `self.clock`.
        self.enterContext(mock.patch.object(heartbeat.heart, "add"))
        self.queues: dict[str, MaildirQueue] = {}
        for host in "ab":
            self.queues[host] = MaildirQueue(
                self.path, schedule=SCHEDULE, clock=self.clock, disk=LocalLocks(host, self.clock)
            )
            self.addCleanup(self.queues[host].close)
        staged = self.queues["a"].stage()
        staged.add(envelope(), MESSAGE)
        staged.prepare()
        staged.commit()

    def boot(self, host: str) -> bytes:
        """Return what names the time since a host was started."""
        return host.encode() + b"-boot"

    @contextlib.contextmanager
    def on(self, host: str) -> Iterator[MaildirQueue]:
        """Be on this host."""
        identity = Identity(host.encode(), self.boot(host))
        names: dict[str, Any] = {
            "zope.sendmail.queue.maildir.ownertext.host_name": host,
            "zope.sendmail.queue.maildir.ownertext.boot_id": self.boot(host),
            "zope.sendmail.queue.maildir.ownerfile.boot_id": self.boot(host),
        }
        with contextlib.ExitStack() as stack:
            stack.enter_context(mock.patch.object(Identity, "here", return_value=identity))
            for name, value in names.items():
                stack.enter_context(mock.patch(name, return_value=value))
            yield self.queues[host]

    def claim(self, host: str) -> list[MaildirLease]:
        with self.on(host) as queue:
            return queue.claim(9)

    def pass_by(self, seconds: float, *, beating: str = "") -> None:
        """Let time pass, in which these hosts live and beat."""
        while seconds > 0:
            step = min(seconds, BEAT)
            self.clock.advance(step)
            seconds -= step
            for host in beating:
                self.queues[host]._owner.beat()


class AnOwnerOnAnotherHost(HostsTest):
    def test_is_not_taken_for_dead_while_it_beats(self) -> None:
        """However free its lock looks, and however long its mail takes."""
        [lease] = self.claim("a")
        for _ in range(40):
            self.pass_by(30, beating="a")
            self.assertEqual(self.claim("b"), [])
        with self.on("a"):
            lease.intend()

    def test_is_seen_at_work_by_operators(self) -> None:
        """On its own host and on the other; neither verb nor doctor takes its mail for anybody's."""
        self.claim("a")
        with self.on("b") as queue:
            self.assertEqual({str(state) for state in queue.admin.count()}, {"sending"})
            [name] = queue.admin.names()
            self.assertRaises(OSError, queue.admin.remove, name)
            self.assertEqual([each for each in queue.admin.examine() if each.kind in ("orphaned", "leftover")], [])

    def test_keeps_its_owner_file(self) -> None:
        """A processor that starts sweeps what the dead left, not that."""
        with self.on("a") as queue:
            queue.claim(0)
            path = queue._owner.path
        self.claim("b")
        self.assertTrue(os.path.exists(path))

    def test_that_died_is_taken_over(self) -> None:
        """After it has not beaten for a while, by the clock of the one who looks; what it intended is unknown."""
        [lease] = self.claim("a")
        with self.on("a"):
            lease.open()
            lease.intend()
        self.assertEqual(self.claim("b"), [])
        self.pass_by(DEAD_AFTER - 15)
        self.assertEqual(self.claim("b"), [])
        self.pass_by(40)
        [taken] = self.claim("b")
        self.assertEqual(taken.record.unknowns, 1)
        with self.on("a"):
            self.assertRaises(OSError, lease.intend)

    def test_that_died_long_ago_is_taken_over_at_first_sight(self) -> None:
        """A program from cron runs for seconds only."""
        self.claim("a")
        self.pass_by(LONG_DEAD + 1)
        self.assertEqual(len(self.claim("b")), 1)

    def test_may_have_any_clock(self) -> None:
        """A stamp from the future, or of last year, that goes on changing is that of a living owner."""
        for skew in (-3600.0, 3600.0, 86400.0 * 365):
            with self.subTest(skew):
                self.setUp()
                self.claim("a")
                disk = self.queues["b"].disk
                assert isinstance(disk, LocalLocks)
                disk.clock = ManualClock(self.clock.wall + skew)
                if skew > 0:  # else it is dead for an hour at first sight
                    self.queues["a"]._owner.beat()
                self.assertEqual(bool(self.claim("b")), skew > LONG_DEAD)


class OnOneMachine(Stamped):
    """A disk that no other machine has, whatever file system the tests run on."""

    def is_local(self, status: os.stat_result) -> bool:
        return True


class LocalFiles(HostsTest):
    """Two hosts that see the files of one local file system."""

    def setUp(self) -> None:
        super().setUp()
        for queue in self.queues.values():
            queue.close()
        self.queues = {
            host: MaildirQueue(self.path, schedule=SCHEDULE, clock=self.clock, disk=OnOneMachine(self.clock))
            for host in "ab"
        }
        for queue in self.queues.values():
            self.addCleanup(queue.close)

    def die(self, host: str) -> None:
        """Let go of all locks, as the kernel does for a process that is killed."""
        os.close(self.queues[host]._owner._fd)
        self.queues[host]._owner._fd = -1


class AnOwnerInAnotherContainer(LocalFiles):
    """On the same machine: its host name and its process numbers are its own, and the kernel shows its locks to all."""

    def boot(self, host: str) -> bytes:
        return b"one-kernel"

    def test_is_taken_over_as_soon_as_it_is_dead(self) -> None:
        """Its lock is free, so nothing has to be waited for; what it intended is unknown."""
        [lease] = self.claim("a")
        with self.on("a"):
            lease.open()
            lease.intend()
        self.die("a")
        [taken] = self.claim("b")
        self.assertEqual(taken.record.unknowns, 1)

    def test_is_not_taken_for_dead_while_it_lives(self) -> None:
        """However long it has not touched its file."""
        self.claim("a")
        self.pass_by(LONG_DEAD * 2)
        self.assertEqual(self.claim("b"), [])

    def test_that_died_is_seen_by_operators(self) -> None:
        """At once: its mail is not being sent, it was left behind."""
        self.claim("a")
        self.die("a")
        with self.on("b") as queue:
            self.assertEqual({str(state) for state in queue.admin.count()}, {"ready"})
            self.assertIn("orphaned", [each.kind for each in queue.admin.examine()])

    def test_that_died_leaves_its_file_to_a_full_disk(self) -> None:
        """Another one can go on with it, where there is no room for a file of its own."""
        self.claim("a")
        self.die("a")
        layout, disk = self.queues["b"].layout, self.queues["b"].disk
        for name in os.listdir(layout.locks):
            if name.startswith(RESERVE):
                os.unlink(os.path.join(layout.locks, name))
        with self.on("b"):
            found = reserve.take(layout, disk)
            assert found is not None
            os.close(found[1])
        self.assertEqual(found[0], self.queues["a"]._owner.path)


class AClientOfThisFileServer(LocalFiles):
    """Its locks are of another kind than ours (NFS), so that they look free, although the file system is our own."""

    def test_is_not_taken_for_dead_while_it_beats(self) -> None:
        self.claim("a")
        self.die("a")
        self.assertEqual(self.claim("b"), [])
        self.pass_by(DEAD_AFTER - BEAT)
        self.assertEqual(self.claim("b"), [])
        self.pass_by(BEAT)
        self.assertEqual(len(self.claim("b")), 1)

    def test_is_seen_at_work_by_operators(self) -> None:
        self.claim("a")
        self.die("a")
        with self.on("b") as queue:
            self.assertEqual({str(state) for state in queue.admin.count()}, {"sending"})


class AHostThatWasStartedAgain(HostsTest):
    def test_takes_its_own_over_at_once(self) -> None:
        """Its name is the same, its boot is not, and the stamp is older than that."""
        self.claim("a")
        self.pass_by(20)
        with (
            self.on("b"),
            mock.patch.object(Identity, "here", return_value=Identity(b"a", b"second boot")),
            mock.patch.object(heartbeat, "_booted", return_value=inf),
        ):
            self.assertEqual(len(self.queues["b"].claim(9)), 1)

    def test_is_told_from_another_one_of_the_same_name(self) -> None:
        """Whose stamp is younger than our own start."""
        self.claim("a")
        with (
            self.on("b"),
            mock.patch.object(Identity, "here", return_value=Identity(b"a", b"other")),
            mock.patch.object(heartbeat, "_booted", return_value=0.0),
        ):
            self.assertEqual(self.queues["b"].claim(9), [])

    def test_says_when_that_was(self) -> None:
        """In the past; a system that does not say it was started at the beginning of time."""
        with mock.patch("builtins.open", mock.mock_open(read_data=b"cpu 1 2 3\nbtime 1800000000\nctxt 4\n")):
            self.assertEqual(heartbeat._booted(), 1_800_000_000.0)
        for refused in (OSError, ValueError):
            with mock.patch("builtins.open", side_effect=refused):
                self.assertEqual(heartbeat._booted(), 0.0)


class TheHeart(unittest.TestCase):
    """One thread for all owners of a process."""

    def test_beats_until_there_is_no_owner(self) -> None:
        """Then its thread ends, and begins again with the next one."""

        class Counting:
            def __init__(self) -> None:
                self.beaten = threading.Event()

            def beat(self) -> None:
                self.beaten.set()

        with mock.patch.object(heartbeat, "BEAT", 0.001):
            heart = Heart()
            for _ in range(2):
                owner = Counting()
                heart.add(owner)
                thread = heart._thread
                assert thread is not None
                self.assertTrue(owner.beaten.wait(300))
                heart.discard(owner)
                thread.join(300)
                self.assertFalse(thread.is_alive())

    def test_keeps_no_owner_alive_between_two_beats(self) -> None:
        """Of one that its program forgets nothing stays open, and others see at once that it has ended."""

        class Owner:
            def beat(self) -> None:
                """Nothing."""

        class Rest(threading.Event):
            """Between beats; the second one lasts until it is over."""

            def __init__(self) -> None:
                super().__init__()
                self.began, self.count = threading.Event(), 0

            def wait(self, timeout: float | None = None) -> bool:
                self.count += 1
                if self.count == 2:
                    self.began.set()
                    return super().wait(300)
                return False

        heart, owner = Heart(), Owner()
        heart._ended = rest = Rest()
        alive = weakref.ref(owner)
        heart.add(owner)
        thread = heart._thread
        assert thread is not None
        self.assertTrue(rest.began.wait(300))
        del owner
        gc.collect()
        self.assertIsNone(alive())
        rest.set()
        thread.join()

    def test_shows_a_fresh_time(self) -> None:
        """By the clock that stamps the files."""
        path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "queue")
        queue = MaildirQueue(path)
        self.addCleanup(queue.close)
        queue.claim()
        os.utime(queue._owner.path, (1.0, 1.0))
        queue._owner.beat()
        self.assertGreater(os.stat(queue._owner.path).st_mtime, 1e9)


del HostsTest
