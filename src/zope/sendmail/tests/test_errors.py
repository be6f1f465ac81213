"""What callers catch, and what an error still says after a trip through a pickle."""

import copy
import errno
import os
import pickle
import re
import smtplib
import unittest
from pathlib import Path
from tempfile import TemporaryDirectory

import transaction

from zope.sendmail import errors
from zope.sendmail.cli.queuearguments import VERBS
from zope.sendmail.config.settings import RelaySettings
from zope.sendmail.delivery import DirectMailDelivery, QueuedMailDelivery
from zope.sendmail.errors import (
    InvalidAddress,
    InvalidMail,
    InvalidRecipient,
    InvalidSender,
    InvalidSettings,
    QueueError,
    QueueNotWritable,
    RelayError,
)
from zope.sendmail.interfaces import MailRefused
from zope.sendmail.lifecycle.outcome import Answer, Outcome, Reply
from zope.sendmail.lifecycle.retry import Schedule
from zope.sendmail.mailer import SMTPMailer
from zope.sendmail.message.routes import Routes
from zope.sendmail.testing.scriptedmailer import ScriptedMailer
from zope.sendmail.transports.failover import FailoverMailer
from zope.sendmail.transports.lmtp import LMTPMailer
from zope.sendmail.transports.program import ProgramMailer
from zope.sendmail.transports.redirect import RedirectMailer

MESSAGE = b"Subject: x\r\n\r\nx\r\n"

REFUSED = Outcome("relay:25", {"a@example.org": Reply(Answer.REJECTED, "no such user", 550, "5.1.1")})

EVERY = (
    errors.MailError("a text"),
    errors.InvalidMail("a text"),
    errors.InvalidAddress("a text"),
    InvalidSender("a text", "sender"),
    InvalidRecipient("a text", "one", "two"),
    errors.InvalidMessage("a text"),
    errors.InvalidRelay("a text"),
    InvalidSettings("a text"),
    errors.MalformedEnvelope("a text"),
    errors.QueueError("a text"),
    QueueNotWritable.of("/queue", PermissionError(errno.EACCES, "Permission denied", "/queue/tmp")),
    errors.QueueNotSafe("a text"),
    errors.NoSuchMail("a text"),
    errors.NotPossible("a text"),
    errors.LeaseLost("a text"),
    RelayError("a text", 421),
    MailRefused("a text", REFUSED, permanent=True),
)


class AnError(unittest.TestCase):
    """An error on its way to another process, or to an error page."""

    def test_is_the_same_behind_a_pickle(self) -> None:
        """Its class, text, attributes and number survive pickling and copying."""
        for error in EVERY:
            for restored in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
                with self.subTest(type(error).__name__):
                    self.assertIs(type(restored), type(error))
                    self.assertEqual((str(restored), repr(restored)), (str(error), repr(error)))
                    self.assertEqual((restored.args, vars(restored)), (error.args, vars(error)))
                    self.assertEqual(getattr(restored, "errno", None), getattr(error, "errno", None))

    def test_says_its_text_and_nothing_else(self) -> None:
        """`str` is the sentence for people, without numbers and tuples of smtplib's."""
        for error in EVERY:
            self.assertEqual(str(error), error.args[0])
            self.assertEqual(len(error.args), 1)

    def test_is_exported_where_callers_look(self) -> None:
        """Each class that the package raises stands in `zope.sendmail.interfaces`."""
        from zope.sendmail import interfaces

        for error in EVERY:
            self.assertIs(getattr(interfaces, type(error).__name__), type(error))


class ACallerWhoCatchesSmtplibsErrors(unittest.TestCase):
    """Plone's control panel, content rules and senaite catch `SMTPException` and `OSError`."""

    def test_catches_what_cannot_become_a_mail(self) -> None:
        """`send()` of a mailer and of a delivery refuse with an `SMTPException` that is a `ValueError` as well."""
        mailer = SMTPMailer("127.0.0.1", 2)
        direct = DirectMailDelivery(ScriptedMailer())
        for send in (mailer.send, direct.send):
            for sender, recipients in (
                ("s@example.org\n", ["j@example.org"]),
                (None, ["j@example.org"]),
                ("s@example.org", ["j@@example.org"]),
                ("s@example.org", []),
                ("s@example.org", None),
                ("s@example.org", [None]),
            ):
                with self.subTest(sender=sender, recipients=recipients):
                    with self.assertRaises(smtplib.SMTPException) as caught:
                        send(sender, recipients, MESSAGE)  # type: ignore[arg-type]  # that is the mistake
                    self.assertIsInstance(caught.exception, ValueError)
                    self.assertIsInstance(caught.exception, InvalidMail)

    def test_learns_which_recipient_it_was(self) -> None:
        """A recipient that none can be is an `SMTPRecipientsRefused` that names it."""
        with self.assertRaises(smtplib.SMTPRecipientsRefused) as caught:
            DirectMailDelivery(ScriptedMailer()).send("s@example.org", ["good@example.org", "b@d@example.org"], MESSAGE)
        self.assertEqual(list(caught.exception.recipients), ["b@d@example.org"])
        code, words = caught.exception.recipients["b@d@example.org"]
        self.assertEqual((code, words[:6]), (553, b"5.1.3 "))

    def test_learns_that_it_was_the_sender(self) -> None:
        """A sender that none can be is an `SMTPSenderRefused`, with its attributes."""
        with self.assertRaises(smtplib.SMTPSenderRefused) as caught:
            DirectMailDelivery(ScriptedMailer()).send("s@s@example.org", ["good@example.org"], MESSAGE)
        error = caught.exception
        self.assertEqual((error.sender, error.smtp_code), ("s@s@example.org", 553))
        self.assertIn(b"5.1.7 ", error.smtp_error)
        self.assertIsInstance(error, InvalidAddress)

    def test_catches_settings_that_no_relay_can_have(self) -> None:
        """What an operator typed into a form is refused by an `SMTPException`, when it is made or when it is used."""
        wrong: tuple[dict[str, object], ...] = (
            {"hostname": "mail.example.org:587"},
            {"hostname": ""},
            {"hostname": "two words"},
            {"port": 99999},
            {"port": 0},
            {"port": "smtp"},
            {"port": None},
            {"username": "a\nb", "password": "x"},
            {"force_tls": True, "no_tls": True},
            {"tls": "sometimes"},
            {"tls_minimum": "1.0"},
            {"auth": "GUESSING"},
            {"rate": -1},
            {"connections": 0},
        )
        for settings in wrong:
            with self.subTest(**settings):
                with self.assertRaises(smtplib.SMTPException) as caught:
                    SMTPMailer(**settings).send("s@example.org", ["j@example.org"], MESSAGE)  # type: ignore[arg-type]  # that is the mistake
                self.assertIsInstance(caught.exception, InvalidSettings)
                self.assertIsInstance(caught.exception, ValueError)

    def test_catches_the_settings_of_other_mailers(self) -> None:
        """Programs, failover, redirection, LMTP, routes and schedules say it the same way."""
        for make in (
            lambda: ProgramMailer("sendmail"),
            lambda: FailoverMailer().open_session(),
            lambda: RedirectMailer(to="a@example.org").open_session(),
            lambda: LMTPMailer(socket="relative"),
            lambda: Routes(recipients={"@example.org": "nowhere"}),
            lambda: Schedule(first=-1),
            lambda: RelaySettings(port=99999),
        ):
            with self.assertRaises(InvalidSettings):
                make()

    def test_catches_a_refusal_in_the_vote(self) -> None:
        """It is an `SMTPRecipientsRefused` with the relay's code and words for each recipient."""
        with self.assertRaises(smtplib.SMTPRecipientsRefused) as caught:
            raise MailRefused("no", REFUSED, permanent=True)
        self.assertEqual(caught.exception.recipients, {"a@example.org": (550, b"5.1.1 no such user")})

    def test_catches_a_relay_that_cannot_be_used(self) -> None:
        """It is a `ConnectionError` and an `SMTPException` in one."""
        self.assertIsInstance(RelayError("down"), ConnectionError)
        self.assertIsInstance(RelayError("down"), smtplib.SMTPException)


class AQueueThatCannotBeWritten(unittest.TestCase):
    """The disk below a queue refuses."""

    def setUp(self) -> None:
        directory = TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.root = Path(directory.name)
        self.addCleanup(transaction.abort)

    def refusal(self, path: Path) -> QueueNotWritable:
        """What ``send()`` and ``send_now()`` raise, which is the same."""
        delivery = QueuedMailDelivery(str(path))
        caught = []
        for send in (delivery.send, delivery.send_now):
            with self.assertRaises(QueueNotWritable) as context:
                send("s@example.org", ["j@example.org"], MESSAGE)
            caught.append(context.exception)
        self.assertEqual(str(caught[0]), str(caught[1]))
        return caught[0]

    def test_tells_the_place_the_reason_and_the_cure(self) -> None:
        """A file where the directory should be: the text names all three, and the number is the system's."""
        (self.root / "file").touch()
        error = self.refusal(self.root / "file" / "queue")
        self.assertIn(str(self.root / "file" / "queue"), str(error))
        self.assertIn("make the directory, or correct the queue's path", str(error))
        self.assertEqual(error.errno, errno.ENOTDIR)
        self.assertIsInstance(error, QueueError)

    def test_tells_that_a_directory_is_something_else(self) -> None:
        """What was a bare `ValueError` is an `OSError` that callers catch."""
        (self.root / "letters").mkdir()
        (self.root / "letters" / "a.txt").touch()
        self.assertIn("is not a Maildir folder", str(self.refusal(self.root / "letters")))

    @unittest.skipIf(os.geteuid() == 0, "root may write anywhere")
    def test_tells_who_may_not_write(self) -> None:
        """A directory of another user's is no bare `PermissionError`."""
        (self.root / "theirs").mkdir(mode=0o500)
        error = self.refusal(self.root / "theirs" / "queue")
        self.assertEqual(error.errno, errno.EACCES)
        self.assertIn("run it as the queue's owner", str(error))

    def test_tells_it_in_the_vote(self) -> None:
        """What is refused between ``send()`` and the commit stops the commit with the same error."""
        QueuedMailDelivery(str(self.root / "queue")).send("s@example.org", ["j@example.org"], MESSAGE)
        for each in (self.root / "queue" / "tmp").iterdir():
            each.unlink()
        with self.assertRaises(QueueNotWritable) as caught:
            transaction.commit()
        self.assertEqual(caught.exception.errno, errno.ENOENT)

    def test_has_a_cure_for_everything_a_system_says(self) -> None:
        """Each number of the system leads to a sentence that ends with what to do."""
        for number in (errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.EIO):
            text = str(QueueNotWritable.of("/queue", OSError(number, os.strerror(number), "/queue/tmp/x")))
            self.assertTrue(text.startswith(f"mail cannot be put into the queue /queue: {os.strerror(number)}"), text)
            self.assertGreater(len(text.rpartition("; ")[2]), 10, text)

    def test_names_a_command_that_there_is(self) -> None:
        """What helps with a number without a cure of its own is a verb of ``zope-sendmail queue``."""
        text = str(QueueNotWritable.of("/queue", OSError(errno.EIO, os.strerror(errno.EIO))))
        named = re.search("'zope-sendmail queue (.*?)'", text)
        self.assertIn(named and named[1], VERBS)
