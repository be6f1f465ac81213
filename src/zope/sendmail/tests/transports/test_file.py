"""`FileMailer`: mails one can look at."""

from __future__ import annotations

import contextlib
import io
import mailbox
import os
import tempfile
import unittest

import transaction
from zope.interface.verify import verifyObject

from zope.sendmail.delivery import DirectMailDelivery
from zope.sendmail.interfaces import ISession, ISessionMailer, LeaseLost, RelayError
from zope.sendmail.lifecycle.outcome import Answer, Outcome
from zope.sendmail.mailer import open_session
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.testing.contracts import MESSAGE, ManualClock, envelope
from zope.sendmail.tests.support.processing import ProcessorTest
from zope.sendmail.transports.file import FileFormat, FileMailer

HEAD = b"X-Envelope-From: <sender@example.org>\nX-Envelope-To: <one@example.org>\n"

#: A message that lacks nothing, so that a delivery adds nothing to it.
DATED = b"Date: Mon, 30 Nov 2026 12:00:00 +0000\n" + MESSAGE


class Files(unittest.TestCase):
    """A directory to write to."""

    def setUp(self) -> None:
        super().setUp()
        self.clock = ManualClock()
        self.directory = self.enterContext(tempfile.TemporaryDirectory())
        self.path = os.path.join(self.directory, "mail")

    def make(self, format: FileFormat | str = FileFormat.MAILDIR) -> FileMailer:
        return FileMailer(self.path, format, clock=self.clock)

    def transfer(self, mailer: FileMailer, mail: Envelope | None = None, message: bytes = MESSAGE) -> Outcome:
        return open_session(mailer).transfer(mail or envelope(), io.BytesIO(message), lambda: None)

    def written(self) -> list[bytes]:
        """The mails in the Maildir."""
        new = os.path.join(self.path, "new")
        found = []
        for name in sorted(os.listdir(new)):
            self.assertTrue(name.endswith(".eml"))
            with open(os.path.join(new, name), "rb") as file:
                found.append(file.read())
        return found


class AMaildir(Files):
    def test_provides_the_interfaces(self) -> None:
        """A mailer with sessions."""
        verifyObject(ISessionMailer, self.make())
        verifyObject(ISession, open_session(self.make()))

    def test_gets_each_mail_as_a_file_with_its_envelope(self) -> None:
        """Named .eml, which mail programs open."""
        outcome = self.transfer(self.make())
        self.assertEqual(self.written(), [HEAD + MESSAGE])
        [reply] = outcome.replies.values()
        self.assertIs(reply.answer, Answer.ACCEPTED)
        self.assertIn(os.path.join(self.path, "new"), reply.text)

    def test_shows_every_recipient_and_no_bcc(self) -> None:
        """Those of the envelope; the Bcc field is out, as with every mailer."""
        text = b"Subject: x\r\nBcc: two@example.org\r\n\r\nText\r\n"
        self.transfer(self.make(), envelope("one@example.org", "j\xfc@example.org", sender=""), text)
        expected = (
            b"X-Envelope-From: <>\nX-Envelope-To: <one@example.org>,\n\t<j\\xfc@example.org>\nSubject: x\n\nText\n"
        )
        self.assertEqual(self.written(), [expected])

    def test_is_private(self) -> None:
        """Mail is nobody else's business, in development too."""
        self.transfer(self.make())
        [name] = os.listdir(os.path.join(self.path, "new"))
        self.assertEqual(os.stat(os.path.join(self.path, "new", name)).st_mode & 0o777, 0o600)

    def test_keeps_nothing_of_a_mail_that_must_not_go(self) -> None:
        """A lost lease is raised, not taken for trouble with the disk."""

        def refuse() -> None:
            raise LeaseLost("lost")

        with self.assertRaises(LeaseLost):
            open_session(self.make()).transfer(envelope(), io.BytesIO(MESSAGE), refuse)
        self.assertEqual(self.written(), [])
        self.assertEqual(os.listdir(os.path.join(self.path, "tmp")), [])

    def test_a_text_without_header_stays_a_body(self) -> None:
        """The envelope lines are a header of their own then."""
        self.transfer(self.make(), message=b"just text\n")
        self.assertEqual(self.written(), [HEAD + b"\njust text\n"])


class AnMbox(Files):
    def texts(self) -> list[bytes]:
        with contextlib.closing(mailbox.mbox(self.path, create=False)) as box:
            return [box.get_bytes(key) for key in box.keys()]  # noqa: SIM118 - an mbox is no dict

    def test_gets_one_mail_behind_the_other(self) -> None:
        """A body's line that begins with From does not begin a mail."""
        text = MESSAGE + b"From here on\n"
        for message in MESSAGE, text, MESSAGE:
            outcome = self.transfer(self.make("mbox"), message=message)
            self.assertEqual(len(outcome.having(Answer.ACCEPTED)), 1)
        self.assertEqual(
            self.texts(), [HEAD + each for each in (MESSAGE, text.replace(b"\nFrom", b"\n>From"), MESSAGE)]
        )

    def test_is_made_with_its_directory(self) -> None:
        """With the first mail, as a Maildir is; what is made is private."""
        self.path = os.path.join(self.path, "var", "mbox")
        self.transfer(self.make("mbox"))
        self.assertEqual(self.texts(), [HEAD + MESSAGE])
        self.assertEqual(os.stat(os.path.dirname(self.path)).st_mode & 0o777, 0o700)

    def test_says_from_whom_and_when(self) -> None:
        """In the line between the mails; MAILER-DAEMON is the null sender's name."""
        self.transfer(self.make("mbox"))
        self.transfer(self.make("mbox"), envelope(sender=""))
        with open(self.path, "rb") as file:
            lines = [line for line in file if line.startswith(b"From ")]
        moment = b"Fri Jan 15 08:00:00 2027\n"
        self.assertEqual(lines, [b"From sender@example.org " + moment, b"From MAILER-DAEMON " + moment])

    def test_that_somebody_else_locks_is_waited_for_a_few_seconds(self) -> None:
        """Then it is a fault, and no mail is lost."""
        self.transfer(self.make("mbox"))
        with contextlib.closing(mailbox.mbox(self.path)) as box:
            box.lock()
            began = self.clock.monotonic()
            outcome = self.transfer(self.make("mbox"))
        self.assertIsNotNone(outcome.fault)
        self.assertAlmostEqual(self.clock.monotonic() - began, 4.9)
        self.assertEqual(len(self.texts()), 1)
        self.assertEqual(len(self.transfer(self.make("mbox")).having(Answer.ACCEPTED)), 1)

    def test_is_asked_about_in_the_vote(self) -> None:
        """It is made and locked for that, and nothing is written."""
        outcome = open_session(self.make("mbox")).verify(envelope(), io.BytesIO(MESSAGE))
        self.assertEqual((outcome.fault, self.texts()), (None, []))

    def test_has_the_clock_of_the_system(self) -> None:
        """Where no other one is given."""
        self.assertIsNone(self.transfer(FileMailer(self.path, "mbox")).fault)
        self.assertEqual(self.texts(), [HEAD + MESSAGE])

    def test_leaves_no_lock_behind(self) -> None:
        """Nothing but the file."""
        self.transfer(self.make("mbox"))
        self.assertEqual(os.listdir(self.directory), ["mail"])
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o600)


class StandardOutput(Files):
    def test_shows_the_mail(self) -> None:
        """With its envelope, and without what a terminal would obey."""
        self.path = "-"
        with contextlib.redirect_stdout(io.StringIO()) as output:
            outcome = self.transfer(self.make(), message=MESSAGE + b"\t\x1b[31mred\n")
        self.assertEqual(len(outcome.having(Answer.ACCEPTED)), 1)
        self.assertIn("X-Envelope-To: <one@example.org>\nMessage-Id: <1@example.org>\n", output.getvalue())
        self.assertIn("\nText\n\t?[31mred\n", output.getvalue())


class InTheQueue(Files, ProcessorTest):
    def test_mail_goes_to_files(self) -> None:
        """One each."""
        self.processor = self.make_processor(mailer=self.make())
        self.put("one@example.org", count=2)
        self.drain()
        self.assertEqual(self.written(), [HEAD + MESSAGE] * 2)
        self.assertEqual(self.queue.admin.count(), {})


class InATransaction(Files):
    def setUp(self) -> None:
        super().setUp()
        transaction.abort()
        self.addCleanup(transaction.abort)

    def send(self, format: FileFormat) -> None:
        DirectMailDelivery(self.make(format)).send("sender@example.org", ["one@example.org"], DATED)

    def test_commit_writes(self) -> None:
        """After the vote."""
        self.send(FileFormat.MAILDIR)
        transaction.commit()
        self.assertEqual(self.written(), [HEAD + DATED])

    def test_a_path_that_cannot_be_written_aborts(self) -> None:
        """In the vote, with words that name it; nothing that is there is harmed."""
        with open(self.path, "w", encoding="ascii") as file:
            file.write("a file")
        self.send(FileFormat.MAILDIR)
        with self.assertRaisesRegex(RelayError, "maildir .*/mail cannot be written: .* is not a Maildir"):
            transaction.commit()
        transaction.abort()
        self.path = self.directory
        self.send(FileFormat.MBOX)
        with self.assertRaisesRegex(RelayError, "mbox .* cannot be written"):
            transaction.commit()
        self.assertEqual(os.listdir(self.directory), ["mail"])
