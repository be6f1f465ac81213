"""A spool whose disk refuses one call, or in which another program does something in that moment."""

from __future__ import annotations

import errno
import os
import unittest
from collections.abc import Callable
from typing import Any, BinaryIO
from unittest import mock

from zope.sendmail.errors import MalformedEnvelope, NoSuchMail
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.states import State
from zope.sendmail.queue.maildir.layout import TAKEN
from zope.sendmail.queue.spool.queue import SpoolQueue
from zope.sendmail.system.disk import Disk
from zope.sendmail.tests.queue.spool import test_queue
from zope.sendmail.tests.queue.spool.test_queue import MAIL, TEXT

_OLD = 100_000.0


class SeamDisk(Disk):
    """Does `meanwhile` right before the first call of a name on a path that ends so; `error` refuses the call."""

    call, end = "", "?"
    error = 0

    def on(self, call: str, end: str, meanwhile: Callable[[], object] = lambda: None, error: int = 0) -> None:
        self.call, self.end, self.meanwhile, self.error = call, end, meanwhile, error

    def _before(self, call: str, path: str) -> None:
        if call == self.call and path.endswith(self.end):
            if not self.error:
                self.call = ""
            self.meanwhile()
            if self.error:
                raise OSError(self.error, os.strerror(self.error), path)

    def open(self, path: str) -> BinaryIO:
        self._before("open", path)
        return super().open(path)

    def stat(self, path: str) -> os.stat_result:
        self._before("stat", path)
        return super().stat(path)

    def rename(self, old: str, new: str) -> None:
        self._before("rename", old)
        super().rename(old, new)

    def lock_existing(self, path: str) -> int | None:
        self._before("lock", path)
        fd = super().lock_existing(path)
        self._before("when locked", path)
        return fd


class SeamTest(test_queue.SpoolTest):
    def setUp(self) -> None:
        super().setUp()
        self.disk = SeamDisk()
        self.queue = self.open(disk=self.disk)
        self.admin: Any = self.queue.admin

    def gone(self) -> None:
        """Let another daemon have taken the mail."""
        os.unlink(self.path("123456"))

    def findings(self) -> list[tuple[str, str]]:
        return [(each.kind, each.name) for each in self.admin.examine()]


class ADroppedMail(SeamTest):
    def test_that_is_taken_in_this_moment_is_none(self) -> None:
        """It is neither listed nor told of, whichever look comes too late."""
        looks: list[Callable[[], object]] = [
            lambda: list(self.admin.mails()),
            lambda: list(self.admin.names()),
            lambda: list(self.admin.these([self.name])),
            self.findings,
        ]
        for call in ("open", "stat"):
            for look in looks:
                with self.subTest(call):
                    self.drop()
                    [self.name] = self.admin.names()
                    self.disk.on(call, "/123456", self.gone)
                    self.assertEqual(look(), [])
                    self.assertEqual(self.dropped(), [])

    def test_that_is_changed_in_this_moment_is_passed_over(self) -> None:
        """Its writer goes on writing; what was read first is not what is there."""
        self.drop()
        [name] = self.admin.names()
        whole = self.admin._dropped.find(name)
        assert whole is not None
        self.drop(b"##To")
        with self.assertRaises(MalformedEnvelope):
            self.admin._dropped.read(whole)
        with mock.patch.object(self.admin._dropped, "complete", return_value=[whole]):
            self.assertEqual((list(self.admin.these([name])), list(self.admin.mails())), ([], []))

    def test_of_several_is_found_by_its_name(self) -> None:
        """Others are not shown with it."""
        self.drop(name="1")
        self.drop(name="2")
        one, _ = self.admin.names()
        self.assertEqual([mail.name for mail in self.admin.these([one])], [one])
        with self.assertRaises(NoSuchMail):
            self.admin.show("1.2.gone.3")

    def test_that_cannot_be_read_is_told_with_the_disks_words(self) -> None:
        """To operators, and once to the log; it stays."""
        self.drop(age=_OLD)
        self.disk.on("open", "/123456", error=errno.EIO)
        with self.assertLogs("QueueProcessorThread", "ERROR") as logs:
            self.assertEqual(self.envelopes(), [])
        self.assertIn("it cannot be read: Input/output error", logs.output[0])
        self.assertIn("Input/output error", next(self.admin.examine()).text)
        self.assertEqual([each.name for each in self.admin.unusable()], ["../123456"])
        self.assertEqual(self.dropped(), ["123456"])

    def test_in_a_directory_that_is_not_ours_to_change(self) -> None:
        """It is never sent, and that is told."""
        self.drop()
        self.admin.count()
        with mock.patch("os.access", return_value=False):
            [found] = [each for each in self.admin.examine() if each.name == "../123456"]
        self.assertIn("does not let this user", found.text)

    def test_with_a_name_that_says_that_it_is_none(self) -> None:
        """As an editor leaves it: when it is whole and old, somebody waits for it, and is told to rename it."""
        self.drop(name="#123456#", age=_OLD)
        self.drop(b"half of one", name="half~", age=_OLD)
        found = {each.name: each.text for each in self.admin.examine()}
        self.assertIn("its name says that it is none", found["../#123456#"])
        self.assertNotIn("its name says", found["../half~"])

    def test_whose_lock_is_young_is_being_written(self) -> None:
        """The lock comes first: that there is no mail beside it is nothing to be told of."""
        self.drop(b"", name="123456.lck", age=1.0)
        self.assertEqual(self.findings(), [])


class ASpool(SeamTest):
    def test_that_is_not_there_yet_has_no_mail(self) -> None:
        """The program that drops mail makes it, perhaps."""
        queue = SpoolQueue(os.path.join(self.spool, "later"), clock=self.clock)
        self.addCleanup(queue.close)
        self.assertEqual((queue._dropbox.take(lambda: None, busy=False), list(queue.admin.names())), ([], []))

    @unittest.skipUnless(os.geteuid() == 0, "only root can give files away")
    def test_in_a_place_of_others_is_told_of(self) -> None:
        """Nothing is sent from there."""
        self.claim()
        os.chown(self.spool, 12345, 12345)
        self.assertIn("user 12345", "".join(each.text for each in self.admin.examine()))


class AMailThatStaysWhereItWasDropped(SeamTest):
    def test_is_no_lock(self) -> None:
        """Although the name of its file is that of its lock: the doctor finds nothing."""
        self.claim()
        self.queue._dropbox.has_room = False
        self.drop()
        self.clock.mono += 60.0
        self.assertEqual(len(self.queue._dropbox.take(lambda: None, busy=False)), 1)
        self.assertEqual(self.findings(), [])


class WithoutRoom(SeamTest):
    """For the queue's own directories: mail is drained where it was dropped."""

    def setUp(self) -> None:
        super().setUp()
        self.enterContext(mock.patch.object(SpoolQueue, "_make_if_there_is_room", return_value=False))
        self.queue._dropbox.has_room = False

    def take(self, *, busy: bool = False) -> list[str]:
        self.clock.mono += 60.0
        return self.queue._dropbox.take(lambda: None, busy=busy)

    def test_a_mail_that_another_process_takes_is_left_to_it(self) -> None:
        """Before we lock it, while we do, or when it has been replaced."""

        def taken() -> None:
            os.rename(self.path("123456"), self.path(f"{TAKEN}1.2.host.3"))

        def replaced() -> None:
            taken()
            self.drop(b"##To")

        for call, meanwhile in (("lock", self.gone), ("when locked", taken), ("when locked", replaced)):
            self.drop()
            self.disk.on(call, "/123456", meanwhile)
            with self.assertNoLogs("QueueProcessorThread", "WARNING"):
                self.assertEqual(self.take(), [])
        self.drop()
        with self.disk.locked(self.path("123456")):
            self.assertEqual(self.take(), [])
        self.assertEqual(len(self.take()), 1)

    def test_a_mail_for_whose_name_there_is_no_room_waits_for_others(self) -> None:
        """It is no trouble while one that is sent makes some; then it is taken."""
        self.drop(name="1", age=70.0)
        self.drop(name="2", age=60.0)
        self.disk.on("rename", "/2", error=errno.ENOSPC)
        with self.assertNoLogs("QueueProcessorThread", "WARNING"):
            first = self.take()
            self.assertEqual((len(first), self.queue._dropbox.is_short), (1, True))
            self.assertEqual((self.take(busy=True), self.queue._dropbox.is_short), ([], True))
        self.disk.on("", "?")
        self.assertEqual((len(self.take()), self.queue._dropbox.is_short), (1, False))

    def test_a_mail_that_has_no_room_alone_is_told_of(self) -> None:
        """Nothing makes some for it."""
        self.drop()
        self.disk.on("rename", "/123456", error=errno.ENOSPC)
        with self.assertLogs("QueueProcessorThread", "ERROR") as logs:
            self.assertEqual(self.take(), [])
        self.assertIn("No space left", logs.output[0])


class WithRoomAgain(SeamTest):
    def test_what_waited_is_looked_at_when_a_mail_has_left(self) -> None:
        """Not at the next look of the processor only."""
        self.drop(name="1", age=70.0)
        self.drop(name="2", age=60.0)
        self.disk.on("rename", "/2", error=errno.ENOSPC)
        [lease] = self.claim()
        self.disk.on("", "?")
        lease.settle(Record(State.SENT))
        self.assertEqual(self.queue.next_due(), 0.0)
        self.assertEqual(len(self.queue.claim()), 1)


class ACompletedMessage(SeamTest):
    def test_can_be_read_at_any_place(self) -> None:
        """As a mailer may do that asks for its size first."""
        self.queue = self.open(add_message_id=True)
        self.drop(MAIL)
        [lease] = self.claim()
        stream = lease.open()
        text = stream.read()
        self.assertTrue(stream.seekable())
        self.assertEqual(stream.seek(0, os.SEEK_END), len(text))
        self.assertEqual(stream.read(), b"")
        self.assertEqual(stream.seek(-9, os.SEEK_CUR), len(text) - 9)
        self.assertEqual(stream.read(), text[-9:])
        stream.seek(0)
        self.assertEqual(stream.read(), text)
        self.assertTrue(text.endswith(TEXT))

    def test_is_called_as_it_is_sent(self) -> None:
        """While it is open, too; what the disk does not give has no name."""
        self.queue = self.open(add_message_id=True, disk=self.disk)
        self.drop(MAIL)
        [lease] = self.claim()
        stream = lease.open()
        begin = stream.read(3)
        self.assertIn(f"<{lease.message_id}>".encode(), begin + stream.read())
        lease.release()
        [lease] = self.claim()
        with mock.patch.object(lease, "_open_stream", side_effect=OSError(errno.EIO, "io")):
            self.assertEqual(lease.message_id, "")


if __name__ == "__main__":
    unittest.main()
