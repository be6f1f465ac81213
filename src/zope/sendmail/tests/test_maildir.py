"""A general Maildir: the API of zope.sendmail 7.3, kept and made durable."""

from __future__ import annotations

import errno
import itertools
import os
import re
import stat
import tempfile
import unittest
from unittest import mock

from zope.interface.verify import verifyObject

from zope.sendmail.interfaces import IMaildir, IMaildirFactory, IMaildirMessageWriter
from zope.sendmail.maildir import Maildir, MaildirMessageWriter, age_key, make_maildir, unique_name
from zope.sendmail.queue.maildir.layout import EXTRA
from zope.sendmail.system.disk import Disk


def mode(path: str) -> int:
    """The permission bits."""
    return stat.S_IMODE(os.stat(path).st_mode)


class MaildirTest(unittest.TestCase):
    def setUp(self) -> None:
        self.base = self.enterContext(tempfile.TemporaryDirectory())
        self.path = os.path.join(self.base, "mail")

    def put(self, name: str, modified: float, directory: str = "new") -> str:
        """A message with this time stamp."""
        path = os.path.join(self.path, directory, name)
        Disk().create(path, b"text")
        os.utime(path, (modified, modified))
        return path

    def set_umask(self, mask: int) -> None:
        self.addCleanup(os.umask, os.umask(mask))


class Names(unittest.TestCase):
    def test_they_have_the_four_parts_of_the_older_releases(self) -> None:
        """Seconds, process, host, digits; none of it ends a path or starts the flags."""
        self.assertRegex(unique_name(), re.compile(rf"\d{{10,}}\.{os.getpid()}\.[^/:]+\.\d{{13}}", re.ASCII))

    def test_names_of_one_process_sort_in_the_order_they_were_made(self) -> None:
        """And no two are equal."""
        names = [unique_name() for _ in range(5000)]
        self.assertEqual(sorted(names, key=age_key), names)
        self.assertEqual(len(set(names)), len(names))

    def test_names_of_one_microsecond_sort_when_the_count_begins_anew(self) -> None:
        """The next microsecond is waited for then; a clock that stands still holds up no mail."""
        times = [5_000_000_001_000, 5_000_000_001_000, 5_000_000_001_000, 5_000_000_002_000]
        with (
            mock.patch("zope.sendmail.maildir._counter", itertools.count(9999)),
            mock.patch("zope.sendmail.maildir.time.time_ns", side_effect=times),
        ):
            names = [unique_name(), unique_name()]
        self.assertEqual(sorted(names, key=age_key), names)
        with (
            mock.patch("zope.sendmail.maildir._counter", itertools.count(10_000)),
            mock.patch("zope.sendmail.maildir.time.time_ns", return_value=5_000_000_001_000),
        ):
            self.assertTrue(unique_name().startswith("5000."))

    def test_foreign_names_have_an_age_as_well(self) -> None:
        """Any name sorts; flags of a Maildir reader change nothing."""
        names = ["2.1.host.0000010000000:2,S", "zzz", "1.1.host.5", "2.1.host.0000000000000", "٣.x", "", "3"]
        self.assertEqual(
            sorted(names, key=age_key),
            ["", "zzz", "٣.x", "1.1.host.5", "2.1.host.0000000000000", "2.1.host.0000010000000:2,S", "3"],
        )


class Making(MaildirTest):
    def test_missing_empty_and_half_made_directories_are_completed(self) -> None:
        """Also missing parents (fault B17 of 7.3)."""
        for present in (None, [], ["tmp"], ["new", "cur"], ["lost+found"], ["tmp", "new", "cur"]):
            with self.subTest(present), tempfile.TemporaryDirectory() as base:
                path = os.path.join(base, "a", "b")
                for name in present or ():
                    os.makedirs(os.path.join(path, name))
                if present == []:
                    os.makedirs(path)
                Maildir(path, True)
                self.assertLessEqual({"cur", "new", "tmp"}, set(os.listdir(path)))

    def test_without_create_there_must_be_one(self) -> None:
        """Nothing is made."""
        self.assertRaises(ValueError, Maildir, self.path)
        self.assertFalse(os.path.exists(self.path))
        os.makedirs(os.path.join(self.path, "new"))
        self.assertRaises(ValueError, Maildir, self.path)

    def test_something_else_is_refused_and_left_alone(self) -> None:
        """A directory with other things in it, or a file."""
        os.makedirs(os.path.join(self.path, "precious"))
        with self.assertRaisesRegex(ValueError, "precious"):
            Maildir(self.path, True)
        self.assertEqual(os.listdir(self.path), ["precious"])
        file = os.path.join(self.base, "file")
        Disk().create(file, b"x")
        self.assertRaises(ValueError, Maildir, file, True)

    def test_a_whole_maildir_may_have_other_things_in_it(self) -> None:
        """Those of other Maildir programs."""
        Maildir(self.path, True)
        os.mkdir(os.path.join(self.path, ".Sent"))
        Maildir(self.path, True)
        make_maildir(Disk(), self.path, EXTRA)
        self.assertLess(set(EXTRA), set(os.listdir(self.path)))

    def test_private_whatever_the_umask(self) -> None:
        """0700 and 0600, neither more nor less; an existing directory is left as it is."""
        for mask in (0, 0o777):
            with self.subTest(oct(mask)), tempfile.TemporaryDirectory() as base:
                self.set_umask(mask)
                path = os.path.join(base, "parent", "mail")
                writer = Maildir(path, True).newMessage()
                writer.write("text")
                message = writer.commit()
                for made in ("..", ".", "tmp", "new", "cur"):
                    self.assertEqual(mode(os.path.join(path, made)), 0o700, made)
                self.assertEqual(mode(message), 0o600)

    def test_several_processes_may_do_it_at_once(self) -> None:
        """None of them fails (fault B17 of 7.3)."""
        for number in range(10):
            path = os.path.join(self.base, "shared", str(number))
            start, go = os.pipe()
            children = [self.fork_maker(path, start, go) for _ in range(6)]
            os.close(go)  # the starting shot
            self.assertEqual([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children], [0] * 6)
            os.close(start)
            self.assertEqual(sorted(os.listdir(path)), ["cur", "history", "locks", "new", "processors", "sent", "tmp"])

    def fork_maker(self, path: str, start: int, go: int) -> int:
        """A process that makes the Maildir when `go` is closed everywhere."""
        child = os.fork()
        if child:
            return child
        status = 1
        try:
            os.close(go)
            os.read(start, 1)
            make_maildir(Disk(), path, EXTRA)
            Maildir(path, True)
            status = 0
        finally:
            os._exit(status)


class Reading(MaildirTest):
    def setUp(self) -> None:
        super().setUp()
        self.maildir = Maildir(self.path, True)

    def test_provides_its_interfaces(self) -> None:
        """The class is the factory."""
        verifyObject(IMaildirFactory, Maildir)
        verifyObject(IMaildir, self.maildir)

    def test_oldest_first(self) -> None:
        """By time stamp, over new and cur; equal ones by name."""
        third = self.put("1.1.a.1", 3000.0)
        first = self.put("9.1.a.1", 1000.0, "cur")
        last = self.put("3.1.a.1", 4000.0)
        second = self.put("2.1.a.1", 2000.0)
        fourth = self.put("2.1.a.9", 4000.0)
        self.assertEqual(list(self.maildir), [first, second, third, fourth, last])

    def test_names_with_a_leading_dot_are_left_out(self) -> None:
        """And so is what is still being written."""
        self.put(".hidden", 1.0)
        self.put("unfinished", 1.0, "tmp")
        self.assertEqual(list(self.maildir), [])

    def test_a_message_that_vanishes_is_left_out(self) -> None:
        """Another reader was faster (fault A7 of 7.3)."""
        gone, stays = self.put("1.1.a.1", 1.0), self.put("2.1.a.1", 2.0)

        class Hasty(Disk):
            def stat(self, path: str) -> os.stat_result:
                if path == gone:
                    os.unlink(gone)
                return super().stat(path)

        self.maildir._disk = Hasty()
        self.assertEqual(list(self.maildir), [stays])

    def test_a_dangling_link_stops_nothing(self) -> None:
        """It is listed as what it is."""
        os.symlink("nowhere", os.path.join(self.path, "new", "link"))
        self.assertEqual(len(list(self.maildir)), 1)

    def test_paths_are_absolute(self) -> None:
        """Also when the Maildir's is not; `path` stays what was said."""
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.base)
        maildir = Maildir("mail")
        written = maildir.newMessage().commit()
        self.assertEqual(list(maildir), [written])
        self.assertTrue(os.path.isabs(written))
        self.assertEqual(maildir.path, "mail")


class Writing(MaildirTest):
    def setUp(self) -> None:
        super().setUp()
        self.maildir = Maildir(self.path, True)
        self.writer = self.maildir.newMessage()

    def tearDown(self) -> None:
        self.writer.close()

    def names(self, directory: str) -> list[str]:
        return os.listdir(os.path.join(self.path, directory))

    def test_nobody_sees_it_before_commit(self) -> None:
        """Then it is there, byte for byte; str is UTF-8."""
        verifyObject(IMaildirMessageWriter, self.writer)
        self.writer.write("zwölf\r\n")
        self.writer.write(b"\xff")
        self.writer.writelines(["a", b"b\n", "c"])
        self.assertEqual(list(self.maildir), [])
        path = self.writer.commit()
        self.assertEqual(list(self.maildir), [path])
        self.assertEqual(Disk().read(path), "zwölf\r\n".encode() + b"\xffab\nc")
        self.assertEqual(self.names("tmp"), [])

    def test_close_does_not_decide(self) -> None:
        """A closed message can still be committed or aborted."""
        self.writer.close()
        self.writer.close()
        self.assertTrue(os.path.exists(self.writer.commit()))
        other = self.maildir.newMessage()
        other.close()
        other.abort()
        self.assertEqual((self.names("tmp"), len(self.names("new"))), ([], 1))

    def test_commit_may_be_repeated(self) -> None:
        """It is harmless, and so is abort after it."""
        path = self.writer.commit()
        self.assertEqual(self.writer.commit(), path)
        self.writer.abort()
        self.assertEqual(list(self.maildir), [path])

    def test_abort_may_be_repeated(self) -> None:
        """It is harmless, also if somebody cleaned up before; commit after it is a mistake."""
        self.writer.abort()
        self.writer.abort()
        self.assertRaises(RuntimeError, self.writer.commit)
        other = self.maildir.newMessage()
        for name in self.names("tmp"):
            os.unlink(os.path.join(self.path, "tmp", name))
        other.abort()
        self.assertEqual((self.names("tmp"), self.names("new")), ([], []))

    def test_the_steps_of_commit(self) -> None:
        """Content, then the rename, then the directory: durable when it returns (fault A10 of 7.3)."""
        steps: list[str] = []

        class Recording(Disk):
            def sync_file(self, path: str) -> None:
                steps.append("sync " + os.path.basename(os.path.dirname(path)) + "/<name>")

            def rename(self, old: str, new: str) -> None:
                steps.append("rename")
                super().rename(old, new)

            def sync_directory(self, path: str) -> None:
                steps.append("sync " + os.path.basename(path))

        self.writer._disk = Recording()
        self.writer.commit()
        self.assertEqual(steps, ["sync tmp/<name>", "rename", "sync new"])

    @unittest.skipUnless(os.path.exists("/dev/full"), "needs a device that is always full")
    def test_a_message_that_could_not_be_written_is_never_committed(self) -> None:
        """Not even when commit is tried again; it can be aborted."""
        name = os.path.join(self.path, "tmp", "full")
        Disk().create(name)
        full = os.fdopen(os.open("/dev/full", os.O_WRONLY), "wb")
        writer = MaildirMessageWriter(full, name, os.path.join(self.path, "new", "full"))
        writer.write("text")
        for _ in range(2):
            with self.assertRaises(OSError) as caught:
                writer.commit()
            self.assertIn(caught.exception.errno, (errno.ENOSPC, errno.EIO))
        self.assertEqual(self.names("new"), [])
        writer.abort()
        self.assertNotIn("full", self.names("tmp"))

    def test_full_disk_does_not_stop_abort(self) -> None:
        """What could not be written is not wanted any more."""
        if not os.path.exists("/dev/full"):
            self.skipTest("needs a device that is always full")
        name = os.path.join(self.path, "tmp", "full")
        Disk().create(name)
        writer = MaildirMessageWriter(os.fdopen(os.open("/dev/full", os.O_WRONLY), "wb"), name, name + "x")
        writer.write("text")
        writer.abort()
        self.assertFalse(os.path.exists(name))
