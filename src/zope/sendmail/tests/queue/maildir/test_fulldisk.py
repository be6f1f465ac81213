"""A full disk, as a seam plays it at one certain call; real ones, which only root can mount, are in `scenarios`."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
import time
import unittest
from collections.abc import Iterator, Sequence
from dataclasses import replace
from unittest import mock

from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.envelope import Envelope, envelope_lines
from zope.sendmail.message.pieces import Piece
from zope.sendmail.message.terms import PLAIN, Terms
from zope.sendmail.queue.maildir import staging
from zope.sendmail.queue.maildir.bundle import entries, names_in, unfold
from zope.sendmail.queue.maildir.layout import BUNDLE, GROUP, PARTS
from zope.sendmail.queue.maildir.locks import CannotClaim
from zope.sendmail.queue.maildir.queue import MaildirQueue
from zope.sendmail.system.disk import Disk, same_file
from zope.sendmail.testing.contracts import MESSAGE, SCHEDULE, ManualClock

ENVELOPE = Envelope("s@example.org", ("a@example.org",))
TEXT = envelope_lines(ENVELOPE, MESSAGE) + MESSAGE


def no_room(path: str = "") -> OSError:
    """Return what a full disk says."""
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


class FullDisk(Disk):
    """A disk with room for so many locks."""

    def __init__(self) -> None:
        self.locks = 1000
        #: Whether a file can get longer.
        self.has_octets = True

    def write(self, fd: int, *pieces: Piece) -> None:
        if not self.has_octets:
            raise no_room()
        super().write(fd, *pieces)

    def _check(self, path: str) -> None:
        directory, _, name = path.rpartition("/")
        held = [each for each in os.listdir(directory) if each.startswith(".sending-")]
        if name.startswith(".sending-") and len(held) >= self.locks:
            raise no_room(path)

    def link(self, old: str, new: str) -> None:
        self._check(new)
        super().link(old, new)

    def rename_new(self, old: str, new: str) -> None:
        self._check(new)
        super().rename_new(old, new)


class FullDiskTest(unittest.TestCase):
    def setUp(self) -> None:
        self.path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "queue")
        self.disk, self.clock = FullDisk(), ManualClock()
        self.queue = self.open()

    def open(self, disk: Disk | None = None) -> MaildirQueue:
        queue = MaildirQueue(self.path, schedule=SCHEDULE, clock=self.clock, disk=disk or self.disk)
        self.addCleanup(queue.close)
        return queue

    def put(self, count: int, terms: Terms = PLAIN) -> list[str]:
        staged = MaildirQueue(self.path, clock=self.clock).stage()
        names = [staged.add(replace(ENVELOPE, terms=terms), MESSAGE) for _ in range(count)]
        staged.prepare()
        staged.commit()
        return names


class MailWhoseTimeIsOver(FullDiskTest):
    def test_is_given_up_as_far_as_there_is_room_for_locks(self) -> None:
        """What has been locked is given out, and the rest when there is room again; none is forgotten."""
        names = self.put(5, Terms(expires=self.clock.time() + 1))
        self.clock.advance(2)
        self.disk.locks = 2
        found: list[str] = []
        for _ in range(3):
            leases = self.queue.claim_expired()
            found += [lease.name for lease in leases]
            self.assertEqual(self.queue.claim_expired(), [])  # there is no room for one more
            for lease in leases:
                lease.settle(Record(State.REJECTED, time=self.clock.time()))
        self.assertEqual(sorted(found), sorted(names))

    def test_is_told_if_none_can_be_locked(self) -> None:
        """Every mail stays as due as it is."""
        names = self.put(2, Terms(expires=self.clock.time() + 1))
        self.clock.advance(2)
        refused = PermissionError(errno.EACCES, "not allowed")
        self.queue.claim_expired(0)
        with (
            mock.patch.object(self.disk, "link", side_effect=refused),
            self.assertRaisesRegex(CannotClaim, "not allowed"),
        ):
            self.queue.claim_expired()
        self.assertEqual(sorted(lease.name for lease in self.queue.claim_expired()), sorted(names))


class RoomForFewParts(Disk):
    """There is room for so many files that are made of mails in a bundle; `error` is what it says else."""

    places, error = 0, errno.ENOSPC

    def __init__(self) -> None:
        self.twice: list[str] = []
        self.made = 0

    def create(self, path: str, *pieces: Piece) -> None:
        directory = os.path.dirname(path)
        self.made += os.path.basename(directory) == PARTS
        if os.path.basename(directory) == PARTS and len(os.listdir(directory)) >= self.places:
            raise OSError(self.error, os.strerror(self.error), path)
        super().create(path, *pieces)

    def rename(self, old: str, new: str) -> None:
        """Note a mail that becomes a file while it stands in the bundle: a processor might send it twice."""
        group = os.path.dirname(os.path.dirname(old))
        if os.path.basename(os.path.dirname(old)) == PARTS and self.exists(os.path.join(group, BUNDLE)):
            with self.open(os.path.join(group, BUNDLE)) as stream:
                self.twice += [name for name, _ in entries(stream, group) if name == os.path.basename(old)]
        super().rename(old, new)


class ABundle(FullDiskTest):
    """Committed, with two mails beside it that are files of their own."""

    def setUp(self) -> None:
        super().setUp()
        self.enterContext(mock.patch.object(staging, "SINGLY", 2))
        self.enterContext(mock.patch.object(staging, "later"))
        self.mails = self.put(10)
        self.parts = RoomForFewParts()
        self.addCleanup(lambda: self.assertEqual(self.parts.twice, []))

    @property
    def group(self) -> str:
        [name] = [name for name in os.listdir(self.queue.layout.new) if name.startswith(GROUP)]
        return os.path.join(self.queue.layout.new, name)

    def unfold(self) -> bool:
        return unfold(self.queue.layout, self.parts, self.group)

    def files(self) -> dict[str, bytes]:
        """Return the mails that are files of their own."""
        new = self.queue.layout.new
        return {name: Disk().read(os.path.join(new, name)) for name in os.listdir(new) if name[0] != "."}

    def names(self) -> list[str]:
        return sorted({*self.files(), *names_in(Disk(), self.group)})

    def test_becomes_files_though_there_is_no_room_for_all_of_them(self) -> None:
        """As many of the last mails at a time as there is room for: each once, with all its octets, and no rest."""
        for room in (1, 3, 7):
            self.parts.places = room
            self.assertTrue(self.unfold())
            files = self.files()
            self.assertEqual(sorted(files), self.mails)
            self.assertEqual(set(files.values()), {TEXT})
            self.assertEqual([name for name in os.listdir(self.queue.layout.new) if name[0] == "."], [])
            for name in files:
                os.unlink(os.path.join(self.queue.layout.new, name))
            self.mails = self.put(10)

    def test_stays_as_it_is_if_there_is_no_room_for_one_of_them(self) -> None:
        """Nothing keeps a processor from draining it where it lies."""
        with self.assertRaises(OSError) as caught:
            self.unfold()
        self.assertEqual(caught.exception.errno, errno.ENOSPC)
        self.assertEqual(os.listdir(self.group), [BUNDLE])
        self.queue.drain_bundles()
        self.assertEqual([lease.name for lease in self.queue.claim(20)], self.mails)

    def test_that_is_gone_when_it_is_locked_was_made_files_by_another_process(self) -> None:
        """That one's lock ended with its work; nothing is done twice, and nothing is refused."""
        self.parts.places = 100
        locked = self.parts.locked

        @contextlib.contextmanager
        def late(path: str) -> Iterator[int | None]:
            with locked(path) as fd:
                os.rename(self.group, f"{self.group}-elsewhere")
                yield fd

        with mock.patch.object(self.parts, "locked", late):
            self.assertTrue(self.unfold())
        self.assertEqual(self.parts.made, 0)
        self.assertEqual(self.names(), self.mails)

    def test_is_whole_after_any_other_trouble(self) -> None:
        """At first, and when a part of it was made files; the next look makes the rest, and no mail twice."""
        for room in (0, 3):
            self.parts.places, self.parts.error = room, errno.EIO
            with self.assertRaises(OSError) as caught:
                self.unfold()
            self.assertEqual(caught.exception.errno, errno.EIO)
            self.assertEqual(self.names(), self.mails)
        self.parts.error = errno.ENOSPC

        def broken(path: str) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)

        with mock.patch.object(self.parts, "sync_files", side_effect=broken), self.assertRaises(OSError):
            self.unfold()
        self.assertEqual(self.names(), self.mails)
        self.parts.places = 100
        self.assertTrue(self.unfold())
        self.assertEqual(sorted(self.files()), self.mails)

    def test_is_looked_at_again_when_mail_has_left(self) -> None:
        """That makes room: the processor does not wait for its next look."""
        queue = self.open(self.parts)
        with self.assertLogs("QueueProcessorThread", "ERROR"):
            first, second = queue.claim(20)
        self.assertEqual((queue.next_due(), queue.claim(20)), (None, []))
        self.parts.places = 3
        first.settle(Record(State.SENT))
        self.assertEqual(queue.next_due(), 0.0)
        self.assertEqual(len(queue.claim(20)), 8)
        second.release()

    def test_is_looked_at_once_more_where_the_file_system_frees_space_late(self) -> None:
        """With its next commit, which is asked for; so a pass does not end while there is room for what waits."""
        queue = self.open(self.parts)
        with self.assertLogs("QueueProcessorThread", "ERROR"):
            first, second = queue.claim(20)
        first.settle(Record(State.SENT))
        self.assertEqual(queue.next_due(), 0.0)

        def commit(path: str) -> None:
            Disk.sync_directory(self.parts, path)
            if path == queue.layout.new:
                self.parts.places = 3

        with mock.patch.object(self.parts, "sync_directory", commit):
            self.assertEqual(len(queue.claim(20)), 8)
        second.release()

    def test_waits_for_the_next_look_where_the_file_system_refuses_that_commit(self) -> None:
        """The processor goes on."""
        queue = self.open(self.parts)
        with self.assertLogs("QueueProcessorThread", "ERROR"):
            first, second = queue.claim(20)
        first.settle(Record(State.SENT))
        refusal = OSError(errno.EIO, os.strerror(errno.EIO))
        with mock.patch.object(self.parts, "sync_directory", side_effect=refusal) as sync:
            self.assertEqual(queue.claim(20), [])
        sync.assert_called_once_with(queue.layout.new)
        self.parts.places = 3
        second.settle(Record(State.SENT))
        self.assertEqual(len(queue.claim(20)), 8)

    def test_is_left_by_a_child_that_is_forked_meanwhile(self) -> None:
        """The lock of the bundle ends with our parent, though the child lives on."""
        bundle, found = os.stat(os.path.join(self.group, BUNDLE)), []

        def is_open(fd: int) -> bool:
            try:
                return same_file(os.fstat(fd), bundle)
            except OSError:
                return False

        def forking(paths: Sequence[str]) -> None:
            self.assertTrue(any(map(is_open, range(100))))
            child = os.fork()
            if not child:
                os._exit(any(map(is_open, range(100))))
            found.append(os.waitpid(child, 0)[1])

        self.parts.places = 100
        with mock.patch.object(self.parts, "sync_files", side_effect=forking):
            self.assertTrue(self.unfold())
        self.assertEqual(found, [0])


class ADeferral(FullDiskTest):
    """For which there is no room in the history of its mail."""

    def setUp(self) -> None:
        super().setUp()
        self.clock.wall = time.time()  # files are stamped by the system's clock
        self.put(1)

    def defer(self, queue: MaildirQueue, attempts: int) -> None:
        [lease] = queue.claim(1)
        self.assertEqual(lease.record.attempts, attempts - 1)
        record = Record(State.DEFERRED, attempts=attempts, time=self.clock.time(), due=self.clock.time() + 100)
        with self.assertLogs("QueueProcessorThread", "WARNING"):
            lease.settle(record)

    def test_is_known_to_the_next_process_by_the_time_stamp_of_an_empty_one(self) -> None:
        """When the mail is due, and how many attempts there were; operators see that too."""
        self.disk.has_octets = False
        for attempts in (1, 2):
            queue = self.open()
            self.defer(queue, attempts)
            [mail] = self.queue.admin.mails()
            self.assertEqual((mail.state, mail.history[-1].attempts), (State.DEFERRED, attempts))
            queue.close()
            self.assertEqual(self.open().claim(1), [])
            self.clock.advance(101)
        self.disk.has_octets = True
        [lease] = self.open().claim(1)
        self.assertEqual(lease.record.attempts, 2)

    def test_is_not_taken_for_one_by_the_stamp_of_any_empty_history(self) -> None:
        """Which a death has left: the mail is as if untried."""
        self.queue.claim(0)
        [name] = self.queue.admin.names()
        Disk().create(os.path.join(self.path, "history", name))
        self.clock.advance(5)
        [lease] = self.open().claim(1)
        self.assertEqual(lease.record.attempts, 0)

    def test_comes_behind_a_line_that_a_death_has_torn(self) -> None:
        """It is a line of its own, and can be read."""
        self.queue.claim(0)
        [name] = self.queue.admin.names()
        Disk().create(os.path.join(self.path, "history", name), b'{"state": "defer')
        [lease] = self.queue.claim(1)
        lease.settle(Record(State.DEFERRED, attempts=3, time=self.clock.time(), due=self.clock.time() + 100))
        [mail] = self.open().admin.mails()
        self.assertEqual([record.attempts for record in mail.history], [3])

    def test_that_says_it_can_be_written_later(self) -> None:
        """What is on disk rules again, and the first line of the history is a whole one."""
        self.disk.has_octets = False
        self.defer(self.queue, 1)
        self.disk.has_octets = True
        self.clock.advance(101)
        [lease] = self.queue.claim(1)
        lease.settle(Record(State.DEFERRED, attempts=2, time=self.clock.time(), due=self.clock.time() + 100))
        [mail] = self.open().admin.mails()
        self.assertEqual([record.attempts for record in mail.history], [2])


if __name__ == "__main__":
    unittest.main()
