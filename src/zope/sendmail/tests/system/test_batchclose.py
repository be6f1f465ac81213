"""`zope.sendmail.system.batchclose`: open files that one system call closes."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import unittest
from collections.abc import Sequence
from unittest import mock

from zope.sendmail.system.batchclose import BatchClose
from zope.sendmail.system.disk import Disk


class ABatch(unittest.TestCase):
    def setUp(self) -> None:
        self.directory = self.enterContext(tempfile.TemporaryDirectory())
        self.inodes: dict[int, int] = {}

    def held(self, count: int) -> list[int]:
        """Return descriptors of files that have no name any more."""
        disk, fds = Disk(), []
        for number in range(count):
            path = os.path.join(self.directory, f"{number}")
            disk.create(path, b"a mail")
            fd = disk.hold(path)
            assert fd is not None, "it is there"
            disk.unlink(path)
            self.inodes[fd] = os.fstat(fd).st_ino
            fds.append(fd)
        return fds

    def count_open(self, fds: Sequence[int]) -> int:
        """Return how many of these descriptors are still those of the held files."""
        count = 0
        for fd in fds:
            with contextlib.suppress(OSError):
                status = os.fstat(fd)
                count += (status.st_ino, status.st_nlink) == (self.inodes[fd], 0)
        return count

    def test_none_of_the_descriptors_is_open_while_it_waits(self) -> None:
        """So that many may wait where few files may be open; one socket is."""
        fds = self.held(100)
        self.assertEqual(self.count_open(fds), 100)
        batch = BatchClose(fds)
        self.addCleanup(batch.close)
        self.assertEqual(self.count_open(fds), 0)

    def test_the_files_are_open_until_it_is_closed(self) -> None:
        """The other end of a pipe learns it."""
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        os.set_blocking(reader, False)
        batch = BatchClose([writer])
        with self.assertRaises(BlockingIOError):
            os.read(reader, 1)
        batch.close()
        self.assertEqual(os.read(reader, 1), b"")

    def test_where_they_cannot_be_sent(self) -> None:
        """One after the other is closed: too many files are open, or the socket is of a library without such a call."""
        for error in (OSError("too many references"), AttributeError("sendmsg")):
            with self.subTest(error=error), mock.patch.object(socket, "send_fds", side_effect=error):
                fds = self.held(3)
                batch = BatchClose(fds)
                self.assertEqual(self.count_open(fds), 3)
                batch.close()
                self.assertEqual(self.count_open(fds), 0)

    def test_closed_twice(self) -> None:
        """The second time is nothing, even if the numbers are others' by then."""
        batch = BatchClose(self.held(2))
        batch.close()
        others = self.held(2)
        batch.close()
        self.assertEqual(self.count_open(others), 2)
        for fd in others:
            os.close(fd)


if __name__ == "__main__":
    unittest.main()
