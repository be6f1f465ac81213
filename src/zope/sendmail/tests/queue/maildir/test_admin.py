"""What operators see and do in a Maildir queue when something is not as it should be, or changes in that moment."""

from __future__ import annotations

import errno
import os
import tempfile
import unittest
from collections.abc import Callable
from typing import BinaryIO
from unittest import mock

from zope.sendmail.errors import NoSuchMail, NotPossible
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.envelope import Envelope, envelope_lines
from zope.sendmail.queue.maildir.queue import MaildirQueue
from zope.sendmail.system.disk import Disk
from zope.sendmail.testing.contracts import MESSAGE, SCHEDULE, ManualClock

ENVELOPE = Envelope("sender@example.org", ("one@example.org",))
TEXT = envelope_lines(ENVELOPE, MESSAGE) + MESSAGE


class RefusingDisk(Disk):
    """Refuses to open what has one of these parts in its path; `meanwhile` happens before each call on a message."""

    def __init__(self) -> None:
        self.refused: tuple[str, ...] = ()
        self.meanwhile: Callable[[], object] = lambda: None

    def open(self, path: str) -> BinaryIO:
        if any(part in path for part in self.refused):
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        self._before(path)
        return super().open(path)

    def stat(self, path: str) -> os.stat_result:
        self._before(path)
        return super().stat(path)

    def _before(self, path: str) -> None:
        if "/new/1" in path:
            meanwhile, self.meanwhile = self.meanwhile, lambda: None
            meanwhile()


class AdminTest(unittest.TestCase):
    def setUp(self) -> None:
        self.path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "queue")
        self.disk, self.clock = RefusingDisk(), ManualClock()
        self.queue = MaildirQueue(self.path, schedule=SCHEDULE, clock=self.clock, disk=self.disk)
        self.addCleanup(self.queue.close)
        self.admin = self.queue.admin
        self.other = MaildirQueue(self.path, schedule=SCHEDULE, clock=self.clock)
        self.addCleanup(self.other.close)

    def put(self, text: bytes = MESSAGE) -> str:
        staged = self.other.stage()
        name = staged.add(ENVELOPE, text)
        staged.prepare()
        staged.commit()
        return name

    def file(self, name: str, text: bytes = TEXT) -> None:
        """Let another program have written a file."""
        self.queue.stage()
        Disk().create(os.path.join(self.path, "new", name), text)

    def remove(self, name: str) -> Callable[[], object]:
        """Let another process have sent a mail."""
        return lambda: os.unlink(os.path.join(self.path, "new", name))


class AMailThatIsSentInThisMoment(AdminTest):
    """Between the look for its name and the look at it."""

    def test_is_none(self) -> None:
        """Whatever is wanted of it."""
        for verb in ("show", "read", "hold", "remove"):
            name = self.put()
            self.disk.meanwhile = self.remove(name)
            with self.assertRaises(NoSuchMail):
                getattr(self.admin, verb)(name)
        self.assertEqual(list(self.admin.mails()), [])

    def test_is_none_although_it_was_found(self) -> None:
        """By its name a moment before."""
        name = self.put()
        found = self.admin._store.find(name)
        self.remove(name)()
        with mock.patch.object(self.admin._store, "find", return_value=found):
            for verb in (self.admin.show, self.admin.read):
                with self.assertRaises(NoSuchMail):
                    verb(name)
            with self.assertRaises((NoSuchMail, NotPossible, FileNotFoundError)):
                self.admin.reroute(name, None)

    def test_is_passed_over_among_others(self) -> None:
        """They are listed."""
        gone, name = self.put(), self.put()
        self.disk.meanwhile = self.remove(gone)
        self.assertEqual([mail.name for mail in self.admin.mails()], [name])


class AMailThatIsChangedInThisMoment(AdminTest):
    def test_is_left_as_it_is(self) -> None:
        """A processor has set it aside before we had its lock: the person sees what it is now, and decides again."""
        name = self.put()
        found = self.admin._store.find(name)
        [lease] = self.other.claim(1)
        lease.settle(Record(State.REJECTED, attempts=1, time=self.clock.time()))
        real = self.admin._store.find
        with (
            mock.patch.object(self.admin._store, "find", side_effect=[found, real(name)]),
            self.assertRaisesRegex(NotPossible, "changed in this moment"),
        ):
            self.admin.hold(name)
        self.assertEqual(self.admin.count(), {State.REJECTED: 1})
        self.admin.retry(name)


class AMailThatCannotBeRead(AdminTest):
    def test_is_listed_with_its_name_and_is_unusable(self) -> None:
        """The words say why; others are listed as ever, and those that can be read are usable."""
        bad, good = self.put(), self.put()
        self.disk.refused = (bad,)
        self.assertEqual(
            [(mail.name, bool(mail.envelope)) for mail in self.admin.mails()], [(bad, False), (good, True)]
        )
        [found] = self.admin.unusable()
        self.assertEqual(found.name, bad)
        self.assertIn("Input/output error", found.text)

    def test_is_not_unusable_if_it_has_gone(self) -> None:
        """While it was looked at."""
        self.put()
        with (
            mock.patch.object(self.admin._store, "open_path", side_effect=OSError(errno.EIO, "broken")),
            mock.patch.object(self.admin, "read", side_effect=NoSuchMail("gone")),
        ):
            self.assertEqual(list(self.admin.unusable()), [])

    def test_has_the_history_that_can_be_read(self) -> None:
        """None, if that is broken; the mail is shown all the same."""
        name = self.put()
        self.admin.hold(name)
        self.disk.refused = ("/history/",)
        self.assertEqual((self.admin.show(name).history, [mail.history for mail in self.admin.mails()]), ((), [()]))


class AFileWithoutEnvelope(AdminTest):
    def test_can_be_read_as_it_is(self) -> None:
        """It is no mail, and a person wants to see what it is."""
        self.file("letter", b"Dear Sir")
        with self.admin.read("letter") as stream:
            self.assertEqual(stream.read(), b"Dear Sir")
        self.assertEqual(list(self.admin.unusable()), [])  # it can be read; the processor sets it aside

    def test_is_not_the_oldest_mail(self) -> None:
        """What cannot be sent does not wait."""
        self.file("letter", b"Dear Sir")
        self.assertIsNone(self.admin.oldest())
        name = self.put()
        self.assertEqual(self.admin.oldest(), self.admin.show(name).since)


class TheOldest(AdminTest):
    def test_is_the_one_that_waits_longest_whatever_its_name(self) -> None:
        """Foreign names say nothing of the age; a mail that leaves later waits since that moment."""
        name = self.put()
        self.file("letter")
        os.utime(os.path.join(self.path, "new", "letter"), (1e9, 1e9))
        self.assertEqual(self.admin.oldest(), 1e9)
        os.unlink(os.path.join(self.path, "new", "letter"))
        self.file("letter")
        self.assertEqual(self.admin.oldest(), min(self.admin.show(each).since for each in ("letter", name)))


class Rerouting(AdminTest):
    def test_does_not_write_anew_what_cannot_be_read(self) -> None:
        """A recipient that is no address would be lost."""
        self.file("letter", TEXT.replace(b"one@example.org", b"one@example.org, no address\xff@"))
        with self.assertRaisesRegex(NotPossible, "malformed"):
            self.admin.reroute("letter", None)
        with open(os.path.join(self.path, "new", "letter"), "rb") as stream:
            self.assertIn(b"no address", stream.read())


class AMessageId(AdminTest):
    def test_that_another_one_has_now(self) -> None:
        """What was known of a file of this name is not told of what is there."""
        name = self.put(b"Message-Id: <7@example.org>\n\nText\n")
        self.assertEqual([mail.name for mail in self.admin.with_message_id("7@example.org")], [name])
        with open(os.path.join(self.path, "new", name), "wb") as stream:
            stream.write(TEXT)
        self.assertEqual(list(self.admin.with_message_id("7@example.org")), [])

    def test_is_not_asked_of_those_that_have_none(self) -> None:
        """They are read once, as all others."""
        self.put(b"Subject: none\n\nText\n")
        for _ in range(2):
            self.assertEqual(list(self.admin.with_message_id("7@example.org")), [])


class ALockOfAnOlderRelease(AdminTest):
    def test_is_taken_away_by_release(self) -> None:
        """No process can give it up; then the mail is as any other."""
        name = self.put()
        new = os.path.join(self.path, "new")
        os.utime(os.path.join(new, name), (self.clock.time(), self.clock.time()))
        os.link(os.path.join(new, name), os.path.join(new, ".sending-" + name))
        self.assertEqual(self.other.claim(1), [])
        self.admin.release(name)
        self.clock.advance(400)
        self.assertEqual([lease.name for lease in self.other.claim(1)], [name])


if __name__ == "__main__":
    unittest.main()
