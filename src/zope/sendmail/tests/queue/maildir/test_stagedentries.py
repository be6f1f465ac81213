"""What operators see and do in ``tmp/``, where mail waits for its transaction."""

from __future__ import annotations

import os
import tempfile
import unittest
from unittest import mock

from zope.sendmail.errors import NoSuchMail, NotPossible
from zope.sendmail.lifecycle.states import State
from zope.sendmail.maildir import unique_name
from zope.sendmail.message.envelope import Envelope, envelope_lines
from zope.sendmail.queue.maildir.layout import SPARE
from zope.sendmail.queue.maildir.queue import MaildirQueue
from zope.sendmail.queue.maildir.uncommitted import DAY
from zope.sendmail.system.disk import Disk
from zope.sendmail.testing.contracts import MESSAGE, ManualClock

ENVELOPE = Envelope("sender@example.org", ("one@example.org",))
TEXT = envelope_lines(ENVELOPE, MESSAGE) + MESSAGE


class StagedTest(unittest.TestCase):
    def setUp(self) -> None:
        self.path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "queue")
        self.now = int(unique_name().partition(".")[0])
        self.clock = ManualClock(float(self.now))
        self.queue = MaildirQueue(self.path, clock=self.clock)
        self.addCleanup(self.queue.close)
        self.queue.stage()  # makes the directories

    def file(self, name: str, text: bytes = TEXT) -> str:
        """Let another host have made a file; return its name for operators."""
        Disk().create(os.path.join(self.path, "tmp", name), text)
        return f"tmp/{name}"

    def elsewhere(self, seconds: float, text: bytes = TEXT, *, spare: bool = False) -> str:
        """Let a process of another host have made a file so many seconds ago."""
        return self.file(f"{SPARE if spare else ''}{self.now - int(seconds)}.1.elsewhere.example.org.5", text)

    def shown(self) -> list[str]:
        return [mail.name for mail in self.queue.admin.mails([State.STAGED])]


class TheList(StagedTest):
    def test_has_what_queues_have_made(self) -> None:
        """What other programs leave there is no mail of a transaction, and a spare file waits for one."""
        self.file("README")
        self.elsewhere(2, b"", spare=True)
        name = self.elsewhere(3)
        self.assertEqual(self.shown(), [name])
        self.assertEqual([mail.name for mail in self.queue.admin.these([name, "tmp/1.2.gone.3"])], [name])

    def test_shows_a_mail_that_is_being_written(self) -> None:
        """There is nothing to be said of it yet but its age."""
        name = self.elsewhere(60, b"X-Zope-")
        [mail] = self.queue.admin.mails([State.STAGED])
        self.assertEqual((mail.name, mail.envelope, mail.since), (name, None, self.now - 60.0))

    def test_goes_on_when_a_transaction_ends(self) -> None:
        """Its entry is gone between the name and the look at it."""
        name = self.elsewhere(3)

        class Ending(Disk):
            def names(self, path: str) -> list[str]:
                more = ["1.1.elsewhere.example.org.6"] if os.path.basename(path) == "tmp" else []
                return [*super().names(path), *more]

        queue = MaildirQueue(self.path, clock=self.clock, disk=Ending())
        self.addCleanup(queue.close)
        self.assertEqual([mail.name for mail in queue.admin.mails([State.STAGED])], [name])
        self.assertEqual(queue.admin.count(), {State.STAGED: 1})


class AnEntry(StagedTest):
    def test_that_is_gone(self) -> None:
        """Or never was one, whatever its name: no name leads out of ``tmp/``, and a spare file is none."""
        names = [f"tmp/{unique_name()}", "tmp/", "tmp/..", "tmp/../new/x", "tmp/.hidden", "tmp/\0", f"tmp/{SPARE}.x"]
        for name in names:
            for verb in (
                self.queue.admin.show,
                self.queue.admin.read,
                self.queue.admin.release,
                self.queue.admin.remove,
            ):
                with self.assertRaises(NoSuchMail):
                    verb(name)
        with self.assertRaises(NoSuchMail):
            self.queue.admin.show(self.elsewhere(1, b"", spare=True))

    def test_can_be_read_as_it_is(self) -> None:
        """Its message; all of it, if it has no envelope that can be read; nothing of a whole transaction."""
        with self.queue.admin.read(self.elsewhere(1)) as stream:
            self.assertEqual(stream.read(), MESSAGE)
        with self.queue.admin.read(self.elsewhere(2, b"no envelope")) as stream:
            self.assertEqual(stream.read(), b"no envelope")
        staged = self.queue.stage()
        staged.add(ENVELOPE, MESSAGE)
        staged.add(ENVELOPE, MESSAGE)
        [group] = [name for name in self.shown() if "elsewhere" not in name]
        with self.assertRaisesRegex(NotPossible, "the mails of a whole transaction"):
            self.queue.admin.read(group)
        staged.abort()

    def test_that_the_disk_does_not_give(self) -> None:
        """The disk says why."""
        name = self.elsewhere(1)
        with (
            mock.patch.object(self.queue.disk, "open", side_effect=PermissionError(13, "not yours")),
            self.assertRaisesRegex(PermissionError, "not yours"),
        ):
            self.queue.admin.read(name)

    def test_of_another_program_is_left_alone(self) -> None:
        """No transaction of a queue made it."""
        name = self.file("README")
        for verb in (self.queue.admin.release, self.queue.admin.remove):
            with self.assertRaisesRegex(NotPossible, "no queue made it"):
                verb(name)

    def test_of_another_host_is_its_transactions_for_a_day(self) -> None:
        """It cannot be asked whether that lives; then a person may decide."""
        for verb in ("release", "remove"):
            name = self.elsewhere(DAY - 60)
            with self.assertRaisesRegex(NotPossible, "elsewhere.example.org may still commit"):
                getattr(self.queue.admin, verb)(name)
            self.clock.advance(120)
            getattr(self.queue.admin, verb)(name)
            self.clock.advance(-120)
            self.assertEqual(self.shown(), [])
        self.assertEqual(self.queue.admin.count(), {State.READY: 1})


if __name__ == "__main__":
    unittest.main()
