"""Spare files: one sync less for most mails, and nothing that anybody has to know of."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
import unittest
from typing import Any
from unittest import mock

from zope.sendmail.lifecycle.states import State
from zope.sendmail.maildir import unique_name
from zope.sendmail.queue.maildir import spares as spares_module
from zope.sendmail.queue.maildir.hold import Hold
from zope.sendmail.queue.maildir.layout import SPARE
from zope.sendmail.queue.maildir.queue import MaildirQueue
from zope.sendmail.queue.maildir.staging import StagedMail
from zope.sendmail.system.disk import Disk
from zope.sendmail.testing.contracts import MESSAGE, ManualClock, envelope
from zope.sendmail.tests.queue.maildir.test_staging import Mortal


class SparesTest(unittest.TestCase):
    def setUp(self) -> None:
        self.path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "queue")

    def open(self, disk: Disk | None = None) -> MaildirQueue:
        queue = MaildirQueue(self.path, disk=disk)
        self.addCleanup(queue.close)
        return queue

    def stage(self, disk: Disk | None = None) -> tuple[StagedMail, str]:
        staged = self.open(disk).stage()
        return staged, staged.add(envelope(), MESSAGE)

    def commit(self, disk: Disk | None = None) -> str:
        staged, name = self.stage(disk)
        staged.prepare()
        staged.commit()
        return name

    def names(self, directory: str = "tmp") -> list[str]:
        return sorted(os.listdir(os.path.join(self.path, directory)))

    def claimed(self) -> list[str]:
        leases = self.open().claim(100)
        self.assertTrue(all(lease.open().read() == MESSAGE for lease in leases))
        return [lease.name for lease in leases]

    def in_a_child(self, *, until: str) -> None:
        """Commit some mails and then one more, up to a step, in a process that is then no more."""
        child = os.fork()
        if not child:
            try:
                for _ in range(2):
                    self.commit()
                staged, _ = self.stage()
                if until in ("prepared", "committed"):
                    staged.prepare()
                if until == "committed":
                    staged.commit()
            finally:
                os._exit(0)
        os.waitpid(child, 0)


class OneMailAfterTheOther(SparesTest):
    def test_costs_two_syncs_for_most_of_them(self) -> None:
        """One sync of ``tmp/`` is for two, four, eight, sixteen spare files."""
        self.open().stage()
        logs = []
        for _ in range(60):
            disk = Mortal()
            self.commit(disk)
            logs.append(disk.log)
        self.assertEqual(logs[0], ["create", "prove", "sync 1 files", "sync tmp", "reveal", "sync new"])
        self.assertEqual(logs[2], ["fill", "prove", "sync open file", "reveal", "sync new"])
        self.assertEqual([at for at, log in enumerate(logs) if "sync tmp" in log], [0, 1, 4, 9, 18, 35, 52])

    def test_arrives_in_order(self) -> None:
        """By names that tell when they were sent, whenever their files were made."""
        names = [self.commit() for _ in range(12)]
        self.assertEqual(sorted(names), names)
        self.assertEqual(self.claimed(), names)
        self.assertEqual(self.names("new"), sorted([*names, *(f".sending-{name}" for name in names)]))

    def test_may_be_joined_by_more(self) -> None:
        """The first one moves into their group then."""
        self.commit(), self.commit()
        [*before] = self.names()
        staged, name = self.stage()
        names = [name, *(staged.add(envelope(), MESSAGE) for _ in range(10))]
        staged.prepare()
        staged.commit()
        self.assertEqual(self.open().admin.count(), {State.READY: 13})
        self.assertEqual(self.claimed()[2:], names)
        self.assertEqual(len(before) - len(self.names()), 1)

    def test_may_be_rolled_back(self) -> None:
        """Nothing of it is left; the next mail has another file."""
        self.commit(), self.commit()
        staged, _ = self.stage()
        self.assertEqual(self.open().admin.count(), {State.READY: 2, State.STAGED: 1})
        staged.rollback(0)
        self.assertEqual(self.open().admin.count(), {State.READY: 2})
        name = staged.add(envelope(), MESSAGE)
        staged.prepare()
        staged.commit()
        self.assertEqual(self.claimed()[2:], [name])
        staged, _ = self.stage()
        staged.abort()
        self.assertEqual(self.open().admin.count().get(State.STAGED, 0), 0)

    def test_without_a_file_descriptor_for_each_transaction_there_is_none(self) -> None:
        """A program may have very many transactions at once."""
        self.commit(), self.commit()
        with mock.patch.object(Hold, "can_have_one_more", return_value=False):
            disk = Mortal()
            self.commit(disk)
        self.assertIn("create", disk.log)


class ASpareFile(SparesTest):
    def setUp(self) -> None:
        super().setUp()
        self.commit(), self.commit()
        self.spares = [os.path.join(self.path, "tmp", name) for name in self.names()]
        self.assertEqual(len(self.spares), 2)

    def test_is_no_mail(self) -> None:
        """Not to operators, not to the doctor, however old it is."""
        admin = self.open().admin
        self.assertEqual(admin.count(), {State.READY: 2})
        self.assertEqual(list(admin.mails([State.STAGED])), [])
        self.assertEqual(list(admin.examine()), [])
        clock = ManualClock(ManualClock().time() * 2)
        kinds = [found.kind for found in MaildirQueue(self.path, clock=clock).admin.examine()]
        self.assertNotIn("foreign", kinds)
        self.assertNotIn("in-doubt", kinds)

    def test_may_be_taken_away(self) -> None:
        """Some Maildir programs tidy ``tmp/`` up; the queue may be removed as a whole, and made again."""
        os.unlink(self.spares[0])
        name = self.commit()
        self.assertEqual(self.claimed()[2:], [name])
        for path in [*self.spares[1:], *(os.path.join(self.path, "new", each) for each in self.names("new"))]:
            if os.path.exists(path):
                os.unlink(path)
        name = self.commit()
        self.assertEqual(self.claimed(), [name])

    def test_that_is_not_as_it_was_made_is_left_alone(self) -> None:
        """Somebody holds it, has given it one more name, has put something in it, or something else in its place."""
        with open(self.spares[0], "rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            os.link(self.spares[1], os.path.join(self.path, "cur", ".other"))
            self.commit()
        self.assertEqual([os.stat(path).st_size for path in self.spares], [0, 0])
        made = [os.path.join(self.path, "tmp", name) for name in self.names()]
        new = [path for path in made if path not in self.spares]
        with open(new[0], "wb") as stream:
            stream.write(b"x")
        os.unlink(new[1])
        os.symlink(self.spares[0], new[1])
        before = self.names("new")
        self.commit()
        self.assertEqual(len(self.names("new")), len(before) + 1)
        with open(new[0], "rb") as stream:
            self.assertEqual(stream.read(), b"x")

    def test_is_not_used_when_it_is_old(self) -> None:
        """Another host may be about to remove it."""
        with mock.patch.object(spares_module, "_FRESH", 0.0):
            disk = Mortal()
            self.commit(disk)
        self.assertNotIn("fill", disk.log)
        self.assertFalse(any(os.path.exists(path) for path in self.spares))

    def test_is_its_process_own(self) -> None:
        """A forked child neither uses nor removes those of its parent."""
        child = os.fork()
        if not child:
            status = 1
            try:
                disk = Mortal()
                self.commit(disk)
                status = int("fill" in disk.log)
                spares_module._clear()
            finally:
                os._exit(status)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 0)
        self.assertTrue(all(os.path.exists(path) for path in self.spares))
        disk = Mortal()
        self.commit(disk)
        self.assertIn("fill", disk.log)

    def test_is_removed_at_the_end_of_the_program(self) -> None:
        """So a queue that is not used is as it was."""
        program = (
            "import sys, transaction\n"
            "from zope.sendmail.delivery import QueuedMailDelivery\n"
            "delivery = QueuedMailDelivery(sys.argv[1])\n"
            "for _ in range(6):\n"
            "    delivery.send('s@example.org', ['r@example.org'], b'x')\n"
            "    transaction.commit()\n"
        )
        path = self.path + "-of-a-program"
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        subprocess.run([sys.executable, "-c", program, path], check=True, env=environment, capture_output=True)
        self.assertEqual(os.listdir(os.path.join(path, "tmp")), [])
        self.assertEqual(len([name for name in os.listdir(os.path.join(path, "new")) if name[0] != "."]), 6)


class OfAProcessThatDied(SparesTest):
    def test_an_empty_file_is_removed(self) -> None:
        """By a processor that starts, or the next process that makes some."""
        for again in (lambda: self.open()._open(), lambda: [self.commit() for _ in range(2)]):
            self.in_a_child(until="committed")
            [left] = self.names()
            again()
            self.assertNotIn(left, self.names())
            spares_module.spares_of(self.path).clear()

    def test_a_file_with_a_mail_is_in_doubt(self) -> None:
        """It is kept, shown and never sent; an operator releases or removes it."""
        for until in ("staged", "prepared"):
            for verb in ("release", "remove"):
                with self.subTest(until=until, verb=verb):
                    self.setUp()
                    self.in_a_child(until=until)
                    queue = self.open()
                    self.assertEqual(len(self.claimed()), 2)
                    self.commit(), self.commit()
                    self.assertEqual(queue.admin.count()[State.STAGED], 1)
                    [mail] = queue.admin.mails([State.STAGED])
                    self.assertTrue(mail.name.startswith("tmp/" + SPARE))
                    with queue.admin.read(mail.name) as stream:
                        self.assertEqual(stream.read(), MESSAGE)
                    [found] = [each for each in queue.admin.examine() if each.kind == "in-doubt"]
                    self.assertEqual(found.name, mail.name)
                    getattr(queue.admin, verb)(mail.name)
                    self.assertEqual(queue.admin.count().get(State.STAGED, 0), 0)
                    self.assertEqual(len(self.names("new")) - 2, 4 + (verb == "release"))

    def test_that_may_live_elsewhere_its_files_stay_for_a_day(self) -> None:
        """And no file is removed that another process holds."""
        self.open().stage()
        other = unique_name().split(".")
        names = [
            f"{SPARE}{int(other[0]) - 7200}.1.elsewhere.{other[3]}1",
            f"{SPARE}{int(other[0]) - 90_000}.1.elsewhere.{other[3]}2",
            f"{SPARE}{int(other[0]) - 90_000}.1.elsewhere.{other[3]}3",
        ]
        for name in names:
            with open(os.path.join(self.path, "tmp", name), "wb"):
                pass
        with open(os.path.join(self.path, "tmp", names[2]), "rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            queue = self.open()
            spares_module.sweep(queue.layout, queue.disk)
        self.assertEqual(self.names(), sorted([names[0], names[2]]))


class TheDiskRefuses(SparesTest):
    def test_to_make_them(self) -> None:
        """The mail goes all the same."""

        class Full(Disk):
            def create(self, path: str, *pieces: Any) -> None:
                if SPARE in path:
                    raise OSError(28, "full")
                super().create(path, *pieces)

        names = [self.commit(Full()) for _ in range(4)]
        self.assertEqual(self.names(), [])
        self.assertEqual(self.claimed(), names)

    def test_to_make_their_names_durable(self) -> None:
        """None of them is used, and none is left."""

        class Broken(Disk):
            def sync_directory(self, path: str) -> None:
                if path.endswith("tmp"):
                    raise OSError(5, "broken")
                super().sync_directory(path)

        self.commit()
        staged, _ = self.stage(Broken())
        self.assertRaises(OSError, staged.prepare)
        staged.abort()
        self.assertEqual(self.names(), [])

    def test_to_write_a_mail(self) -> None:
        """It is told, and nothing is left of the mail."""
        self.commit(), self.commit()
        staged = self.open(disk := Disk()).stage()
        with mock.patch.object(disk, "write", side_effect=OSError(28, "full")), self.assertRaises(OSError):
            staged.add(envelope(), MESSAGE)
        staged.abort()
        self.assertEqual(self.open().admin.count(), {State.READY: 2})
        self.assertEqual(len(self.names()), 1)


del SparesTest


if __name__ == "__main__":
    unittest.main()
