"""What the queue does to a disk."""

from __future__ import annotations

import errno
import os
import signal
import stat
import tempfile
import unittest
from collections.abc import Sequence
from unittest import mock

from zope.sendmail.message.pieces import Piece
from zope.sendmail.system.disk import Disk, remove_quietly, same_file
from zope.sendmail.tests.support.descriptors import open_below


class DiskTest(unittest.TestCase):
    def setUp(self) -> None:
        self.base = self.enterContext(tempfile.TemporaryDirectory())
        self.disk = Disk()

    def path(self, name: str) -> str:
        return os.path.join(self.base, name)

    def mode(self, name: str) -> int:
        return stat.S_IMODE(os.stat(self.path(name)).st_mode)


class Making(DiskTest):
    def test_a_file_is_new_and_whole(self) -> None:
        """All pieces are in it; an existing one is not touched."""
        self.disk.create(self.path("a"), b"one", b"", b"two")
        self.assertEqual(self.disk.read(self.path("a")), b"onetwo")
        self.assertRaises(FileExistsError, self.disk.create, self.path("a"), b"x")
        os.symlink(self.path("victim"), self.path("link"))
        self.assertRaises(FileExistsError, self.disk.create, self.path("link"), b"x")
        self.assertEqual(sorted(os.listdir(self.base)), ["a", "link"])

    def test_a_file_that_cannot_be_written_is_not_left_behind(self) -> None:
        """Whatever stops it: a full disk, or the process being asked to end."""
        for error in (OSError(errno.ENOSPC, "full"), KeyboardInterrupt()):

            class Full(Disk):
                def write(self, fd: int, *pieces: Piece, error: BaseException = error) -> None:
                    os.write(fd, pieces[0][:1])
                    raise error

            self.assertRaises(type(error), Full().create, self.path("a"), b"text")
            self.assertEqual(os.listdir(self.base), [])

    def test_a_history_grows_and_follows_no_link(self) -> None:
        """append makes the file if needed."""
        self.disk.append(self.path("h"), b"one\n")
        self.disk.append(self.path("h"), b"two\n")
        self.assertEqual(self.disk.read(self.path("h")), b"one\ntwo\n")
        os.symlink(self.path("victim"), self.path("link"))
        self.assertRaises(OSError, self.disk.append, self.path("link"), b"x")
        self.assertFalse(os.path.exists(self.path("victim")))

    def test_all_is_private_whatever_the_umask(self) -> None:
        """0600 and 0700."""
        for mask in (0, 0o777):
            self.addCleanup(os.umask, os.umask(mask))
            self.disk.create(self.path(f"file{mask}"), b"x")
            self.disk.append(self.path(f"history{mask}"), b"x")
            os.close(self.disk.open_locked(self.path(f"owner{mask}")))
            self.assertTrue(self.disk.make_directory(self.path(f"directory{mask}")))
            self.assertFalse(self.disk.make_directory(self.path(f"directory{mask}")))
            for kind, expected in (("file", 0o600), ("history", 0o600), ("owner", 0o600), ("directory", 0o700)):
                self.assertEqual(self.mode(f"{kind}{mask}"), expected, kind)

    def test_a_file_is_no_directory(self) -> None:
        """Something else in its place is told."""
        self.disk.create(self.path("a"))
        self.assertRaises(FileExistsError, self.disk.make_directory, self.path("a"))

    def test_large_content(self) -> None:
        """However many calls it takes."""
        text = os.urandom(3_000_000)
        self.disk.create(self.path("a"), text)
        self.assertEqual(self.disk.read(self.path("a")), text)


class Syncing(DiskTest):
    def test_all_files_are_synced(self) -> None:
        """None, one, several, many; what is missing is told."""
        names = [self.path(str(number)) for number in range(20)]
        for name in names:
            self.disk.create(name, b"x")
        for count in (0, 1, 5, 20):
            self.disk.sync_files(names[:count])
        self.disk.sync_directory(self.base)
        self.assertRaises(FileNotFoundError, self.disk.sync_files, [*names[:3], self.path("missing")])

    def test_each_of_several_files_is_synced_once(self) -> None:
        """In any order."""
        synced: list[str] = []

        class Recording(Disk):
            def sync_file(self, path: str) -> None:
                synced.append(path)

        Recording().sync_files(["a", "b", "c"])
        self.assertEqual(sorted(synced), ["a", "b", "c"])

    def test_it_works_while_the_interpreter_ends(self) -> None:
        """No thread can be had then, and mail that is committed in an exit handler is still mail."""
        program = (
            "import atexit, os, sys\n"
            "from zope.sendmail.system.disk import Disk\n"
            "import concurrent.futures.thread\n"
            "def late():\n"
            "    Disk().sync_files(sys.argv[1:])\n"
            "    os.write(1, b'synced')\n"
            "atexit.register(late)\n"
        )
        names = [self.path("a"), self.path("b")]
        for name in names:
            self.disk.create(name, b"x")
        self.assertEqual(run(program, names), b"synced")


def run(program: str, arguments: Sequence[str]) -> bytes:
    """What a Python program writes."""
    import subprocess
    import sys

    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, env=environment, check=False
    ).stdout


class Names(DiskTest):
    def test_a_link_is_exclusive(self) -> None:
        """The second one is refused, and both names are the same file."""
        self.disk.create(self.path("a"), b"x")
        self.disk.link(self.path("a"), self.path("b"))
        self.assertRaises(FileExistsError, self.disk.link, self.path("a"), self.path("b"))
        self.assertTrue(same_file(self.disk.stat(self.path("a")), self.disk.stat(self.path("b"))))

    def test_removing_what_is_gone_is_no_fault(self) -> None:
        """Several paths at once."""
        self.disk.create(self.path("a"))
        remove_quietly(self.disk, self.path("missing"), self.path("a"))
        self.assertEqual(self.disk.names(self.base), [])


class Opening(DiskTest):
    def test_only_regular_files(self) -> None:
        """A FIFO does not block, a link is not followed (faults of admins and attackers alike)."""
        os.mkfifo(self.path("fifo"))
        os.mkdir(self.path("directory"))
        self.disk.create(self.path("file"), b"x")
        os.symlink(self.path("file"), self.path("link"))
        for name in ("fifo", "directory", "link", "missing"):
            with self.subTest(name):
                self.assertRaises(OSError, self.disk.open, self.path(name))
        descriptors = open_below(self.base)
        for _ in range(5):
            self.assertRaises(OSError, self.disk.open, self.path("fifo"))
        self.assertEqual(open_below(self.base), descriptors)

    def test_small_and_large_files_read_alike(self) -> None:
        """On both sides of what is read at once; only a large one keeps a descriptor."""
        for size in (0, 1, 65536, 65537, 200_000):
            with self.subTest(size):
                text = os.urandom(size)
                self.disk.create(self.path(str(size)), text)
                before = open_below(self.base)
                with self.disk.open(self.path(str(size))) as stream:
                    self.assertEqual(open_below(self.base) - before, int(size > 65536))
                    self.assertEqual((stream.read(), stream.seek(size // 2)), (text, size // 2))
                    self.assertEqual(stream.read(), text[size // 2 :])

    def test_a_file_that_grows_meanwhile_is_read_on(self) -> None:
        """Its size was asked for before somebody wrote to it."""
        self.disk.create(self.path("a"), b"one")
        real = os.fstat

        def and_then_it_grows(fd: int) -> os.stat_result:
            status = real(fd)
            self.disk.append(self.path("a"), b"two")
            return status

        with mock.patch("zope.sendmail.system.disk.os.fstat") as fstat:
            fstat.side_effect = lambda fd: and_then_it_grows(fd) if fstat.call_count == 1 else real(fd)
            stream = self.disk.open(self.path("a"))
        with stream:
            self.assertEqual(stream.read(), b"onetwo")


class Locking(DiskTest):
    def test_a_lock_is_held_by_one(self) -> None:
        """Somebody else learns it at once."""
        fd = self.disk.open_locked(self.path("a"))
        with self.disk.locked(self.path("a")) as other:
            self.assertIsNone(other)
        os.close(fd)
        with self.disk.locked(self.path("a")) as other:
            self.assertIsNotNone(other)
            with self.disk.locked(self.path("a")) as third:
                self.assertIsNone(third)
        with self.disk.locked(self.path("a")) as other:
            self.assertIsNotNone(other)

    def test_a_lock_ends_with_its_block(self) -> None:
        """Even if a child that was forked in between still has the file."""
        self.disk.create(self.path("a"))
        with self.disk.locked(self.path("a")):
            child = os.fork()
            if not child:
                signal.pause()
                os._exit(0)
        try:
            with self.disk.locked(self.path("a")) as fd:
                self.assertIsNotNone(fd)
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)

    def test_a_lock_that_is_refused_leaves_no_file(self) -> None:
        """On a file system without locks."""
        self.disk.create(self.path("a"))
        self.assertRaises(FileExistsError, self.disk.open_locked, self.path("a"))
        self.assertRaises(FileNotFoundError, self.disk.locked(self.path("missing")).__enter__)
