"""Handing over mail: what is refused, what becomes of a message, and how it follows the transaction."""

from __future__ import annotations

import email.message
import email.policy
import errno
import itertools
import os
import pickle
import tempfile
import time
import unittest
from collections.abc import Callable
from email.message import EmailMessage
from email.utils import parsedate_to_datetime
from typing import Any
from unittest import mock

import transaction
import zope.event
from zope.interface.verify import verifyObject

from zope.sendmail import delivery
from zope.sendmail.delivery import AbstractMailDelivery, DirectMailDelivery, QueuedMailDelivery
from zope.sendmail.interfaces import (
    IDirectMailDelivery,
    IMailHandOverEvent,
    InvalidAddress,
    InvalidMail,
    InvalidMessage,
    IQueuedMailDelivery,
    MailRefused,
    RelayError,
)
from zope.sendmail.lifecycle.outcome import Answer, Reply
from zope.sendmail.maildir import Maildir
from zope.sendmail.queue.maildir.queue import MaildirQueue
from zope.sendmail.queue.maildir.unfolder import flush
from zope.sendmail.testing.outbox import Outbox
from zope.sendmail.testing.scriptedmailer import ScriptedMailer, SendOnlyMailer
from zope.sendmail.tests.support.descriptors import open_below

MESSAGE = b"Subject: Hello\nDate: now\nMessage-Id: <kept@example.org>\n\nText\n"
TO = ["one@example.org"]


class Failing:
    """A data manager that sorts before all mail and refuses in the vote."""

    transaction_manager = transaction.manager

    def sortKey(self) -> str:
        return "Data.fs"

    def tpc_vote(self, txn: Any) -> None:
        raise RuntimeError("the database refuses")

    abort = tpc_begin = commit = tpc_finish = tpc_abort = lambda self, txn: None


class Recording(Failing):
    """A data manager that notes when it is called."""

    def __init__(self, seen: list[str], key: str) -> None:
        self.seen, self.key = seen, key

    def sortKey(self) -> str:
        return self.key

    def tpc_vote(self, txn: Any) -> None:
        self.seen.append(f"vote {self.key}")

    def tpc_finish(self, txn: Any) -> None:
        self.seen.append(f"finish {self.key}")


class DeliveryTest(unittest.TestCase):
    """A queued delivery with a queue of its own."""

    def setUp(self) -> None:
        transaction.abort()
        self.addCleanup(transaction.abort)
        self.path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "queue")
        self.delivery = QueuedMailDelivery(self.path)
        self.queue = MaildirQueue(self.path)
        self.addCleanup(self.queue.close)

    def send(self, message: Any = MESSAGE, to: Any = TO, sender: Any = "sender@example.org") -> str:
        return self.delivery.send(sender, to, message)

    def queued(self) -> list[tuple[str, tuple[str, ...], bytes]]:
        """What is ready to be sent, oldest first."""
        return [
            (mail.envelope.sender, mail.envelope.recipients, self.queue.admin.read(mail.name).read())
            for mail in self.queue.admin.mails()
            if mail.envelope is not None
        ]

    def files(self) -> list[str]:
        """Everything below the queue that is no directory, trigger or reserve."""
        return [
            os.path.join(at, name)
            for at, _, names in os.walk(self.path)
            for name in names
            if not name.endswith(".bell") and not name.startswith(".reserve-")
        ]


class TheArguments(DeliveryTest):
    def test_both_deliveries_provide_their_interfaces(self) -> None:
        """The interfaces of 7.3."""
        verifyObject(IQueuedMailDelivery, self.delivery)
        verifyObject(IDirectMailDelivery, DirectMailDelivery(SendOnlyMailer()))

    def test_a_single_str_is_one_recipient(self) -> None:
        """Not one recipient for each character."""
        self.send(to="one@example.org")
        transaction.commit()
        self.assertEqual(self.queued()[0][1], ("one@example.org",))

    def test_addresses_may_be_bytes(self) -> None:
        """Sender and recipients, alone and in a list."""
        self.send(to=[b"one@example.org"], sender=b"sender@example.org")
        self.send(to=b"two@example.org")
        transaction.commit()
        self.assertEqual([mail[:2] for mail in self.queued()], [
            ("sender@example.org", ("one@example.org",)), ("sender@example.org", ("two@example.org",)),
        ])  # fmt: skip

    def test_empty_sender_is_the_null_reverse_path(self) -> None:
        """As bounces need it."""
        self.send(sender="")
        transaction.commit()
        self.assertEqual(self.queued()[0][0], "")

    def test_display_names_are_dropped(self) -> None:
        """The envelope has addresses only, commas in names notwithstanding."""
        self.send(to=['"Doe, John" <john@example.org>'], sender="Me <me@example.org>")
        transaction.commit()
        self.assertEqual(self.queued()[0][:2], ("me@example.org", ("john@example.org",)))

    def test_bad_addresses_are_refused_before_anything_is_written(self) -> None:
        """With an error that names the value; the transaction can go on."""
        bad: list[tuple[Any, Any]] = [
            (None, TO),
            ("sender@example.org", None),
            ("sender@example.org", []),
            ("sender@example.org", ""),
            ("sender@example.org", [""]),
            ("sender@example.org", ["one@example.org", "a@b@c.org"]),
            ("sender@example.org", ["nobody at all"]),
            ("sender@example.org", [None]),
            ("sender@example.org", 42),
            ("broken@", TO),
        ]
        for character in "\r", "\n", "\0":
            bad.append((f"sender@example.org{character}X-Zope-To: evil@example.org", TO))
            bad.append(("sender@example.org", [f"one@example.org{character}Bcc: evil@example.org"]))
            bad.append((f"{character}sender@example.org", TO))
        for sender, to in bad:
            with self.subTest(sender=sender, to=to):
                self.assertRaises(InvalidAddress, self.send, MESSAGE, to, sender)
        transaction.commit()
        self.assertEqual(self.files(), [])

    def test_messages_that_are_none_are_refused(self) -> None:
        """None, numbers, and text that cannot be encoded."""
        for message in None, 42, object(), "\ud800":
            self.assertRaises(InvalidMessage, self.send, message)

    def test_errors_are_value_errors(self) -> None:
        """Callers of 7.3 catch ValueError."""
        self.assertTrue(issubclass(InvalidMail, ValueError))


class TheMessage(DeliveryTest):
    def sent(self, message: Any) -> bytes:
        before = self.queued()
        self.send(message)
        transaction.commit()
        [mail] = [each for each in self.queued() if each not in before]
        return mail[2]

    def test_a_message_id_is_kept_and_returned_without_brackets(self) -> None:
        """Folded and commented ones too."""
        for header in "<a@b>", "\n <a@b>", " (why) <a@b> (so (and so))", "<a@b> ":
            self.assertEqual(self.send(f"Subject: x\nMessage-ID: {header}\n\ntext"), "a@b")

    def test_a_missing_message_id_is_put_in_front(self) -> None:
        """With the line end of the message, and returned."""
        message_id = self.send(b"Date: now\r\n\r\ntext")
        transaction.commit()
        self.assertEqual(self.queued()[0][2], b"Message-Id: <%s>\r\nDate: now\r\n\r\ntext" % message_id.encode())

    def test_an_empty_message_id_is_replaced(self) -> None:
        """An empty field is no id."""
        message_id = self.send("Message-Id:\nDate: now\n\ntext")
        transaction.commit()
        self.assertEqual(self.queued()[0][2], f"Message-Id: <{message_id}>\nDate: now\n\ntext".encode())

    def test_a_malformed_message_id_is_refused(self) -> None:
        """It could not be told from another."""
        for header in "a@b", "<a@b> <c@d>", "<a b>", "<>":
            self.assertRaises(ValueError, self.send, f"Message-Id: {header}\n\ntext")

    def test_message_ids_differ(self) -> None:
        """Also within a second."""
        ids = {self.delivery.newMessageId() for _ in range(1000)}
        self.assertEqual(len(ids), 1000)

    def test_text_is_written_as_utf_8(self) -> None:
        """str and bytes alike, everything else byte for byte."""
        self.assertTrue(self.sent("Subject: x\n\nGrüße\r\n\n. ").endswith("Subject: x\n\nGrüße\r\n\n. ".encode()))

    def test_a_missing_date_is_added(self) -> None:
        """As every submission agent does (RFC 6409, 8), in each delivery alike, and to bytes as well."""
        before = int(time.time())
        mailer = ScriptedMailer()
        DirectMailDelivery(mailer).send("sender@example.org", TO, b"Subject: x\n\nx\n")
        self.send("Subject: x\n\nx\n")
        transaction.commit()
        self.delivery.send_now("sender@example.org", TO, "Subject: x\n\nx\n")
        for text in (mailer.sent[0][2], *(mail[2] for mail in self.queued())):
            date = parsedate_to_datetime(email.message_from_bytes(text)["Date"])
            self.assertTrue(before <= date.timestamp() <= time.time(), (before, date))

    def test_a_missing_from_is_told_once(self) -> None:
        """With the cure; the mail leaves nevertheless."""
        delivery._missing_from_told.clear()
        with self.assertLogs("MailDataManager", "WARNING") as logs:
            self.send("From: a@example.org\n\nx\n")
            for _ in range(2):
                self.send("Subject: x\n\nx\n")
        [line] = logs.output
        self.assertIn("Add one to the message", line)

    def test_text_beyond_ascii_leaves_as_mime(self) -> None:
        """The same in the queue and straight to the relay."""
        mailer = ScriptedMailer()
        text = "Subject: Grüße\n\nGrüße\n"
        DirectMailDelivery(mailer).send("sender@example.org", TO, text)
        transaction.commit()
        for octets in (self.sent(text), mailer.sent[0][2]):
            message = email.message_from_bytes(octets, policy=email.policy.default)
            self.assertEqual((message["Subject"], message["MIME-Version"]), ("Grüße", "1.0"))
            self.assertTrue(octets.endswith("\n\nGrüße\n".encode()))

    def test_message_objects_are_taken(self) -> None:
        """The old and the new kind of the email package."""
        modern = email.message.EmailMessage()
        modern["Subject"] = "Grüße"
        modern.set_content("Text")
        self.assertIn(b"\n\nText\n", self.sent(modern))
        old = email.message.Message()
        old["Subject"] = "Hello"
        old.set_payload("From me\n")
        self.assertTrue(self.sent(old).endswith(b"Subject: Hello\n\nFrom me\n"))

    def test_bcc_is_not_sent(self) -> None:
        """Neither the field nor its continuation lines; the body is left alone."""
        text = self.sent(
            "Message-Id: <1@x>\nBcc: a@example.org,\n\tb@example.org\nDate: now\nresent-bcc: c@x\n\nBcc: d\n"
        )
        self.assertEqual(text, b"Message-Id: <1@x>\nDate: now\n\nBcc: d\n")

    def test_a_message_cannot_change_its_envelope(self) -> None:
        """Whatever its first lines say."""
        text = b"X-Zope-To: evil@example.org\nMessage-Id: <1@x>\nDate: now\n\n"
        self.send(text)
        transaction.commit()
        self.assertEqual(self.queued(), [("sender@example.org", ("one@example.org",), text)])


class TheTransaction(DeliveryTest):
    def test_commit_sends(self) -> None:
        """And nothing is visible before."""
        self.send()
        self.assertEqual(self.queued(), [])
        transaction.commit()
        self.assertEqual(self.queued(), [("sender@example.org", ("one@example.org",), MESSAGE)])

    def test_abort_leaves_nothing(self) -> None:
        """No mail and no file."""
        self.send()
        self.send()
        transaction.abort()
        self.assertEqual(self.files(), [])

    def test_a_database_that_refuses_leaves_nothing(self) -> None:
        """A conflict in the vote of another data manager."""
        transaction.get().join(Failing())
        self.send()
        self.assertRaises(RuntimeError, transaction.commit)
        transaction.abort()
        self.assertEqual(self.files(), [])

    def test_a_retried_transaction_sends_once(self) -> None:
        """Aborted, and done again."""
        for attempt in range(3):
            self.send()
            if attempt < 2:
                transaction.get().join(Failing())
                self.assertRaises(RuntimeError, transaction.commit)
                transaction.abort()
        transaction.commit()
        self.assertEqual(len(self.queued()), 1)

    def test_savepoint_rollback_drops_the_later_mails_only(self) -> None:
        """The first stays, and more may follow."""
        self.send(b"Date: now\nMessage-Id: <1@x>\n\n")
        savepoint = transaction.savepoint()
        self.send(b"Date: now\nMessage-Id: <2@x>\n\n")
        self.send(b"Date: now\nMessage-Id: <3@x>\n\n")
        savepoint.rollback()
        self.send(b"Date: now\nMessage-Id: <4@x>\n\n")
        transaction.commit()
        self.assertEqual(
            [mail[2] for mail in self.queued()],
            [b"Date: now\nMessage-Id: <1@x>\n\n", b"Date: now\nMessage-Id: <4@x>\n\n"],
        )

    def test_rollback_to_before_the_first_mail(self) -> None:
        """Mail sent afterwards still follows the transaction."""
        savepoint = transaction.savepoint()
        self.send(b"Date: now\nMessage-Id: <1@x>\n\n")
        savepoint.rollback()
        self.send(b"Date: now\nMessage-Id: <2@x>\n\n")
        transaction.commit()
        self.assertEqual([mail[2] for mail in self.queued()], [b"Date: now\nMessage-Id: <2@x>\n\n"])

    def test_a_savepoint_can_be_rolled_back_twice(self) -> None:
        """What came after it goes each time."""
        self.send(b"Date: now\nMessage-Id: <1@x>\n\n")
        savepoint = transaction.savepoint()
        for _ in range(2):
            self.send(b"Date: now\nMessage-Id: <2@x>\n\n")
            savepoint.rollback()
        transaction.commit()
        self.assertEqual(len(self.queued()), 1)

    def test_mails_of_a_transaction_keep_their_order(self) -> None:
        """First in, first out."""
        for number in range(30):
            self.send(b"Date: now\nMessage-Id: <%d@x>\n\n" % number)
        transaction.commit()
        self.assertEqual(
            [mail[2] for mail in self.queued()], [b"Date: now\nMessage-Id: <%d@x>\n\n" % n for n in range(30)]
        )

    def test_one_data_manager_for_a_transaction(self) -> None:
        """However many mails."""
        for _ in range(5):
            self.send()
        self.assertEqual(len(transaction.get()._resources), 1)

    def test_mail_comes_last(self) -> None:
        """It is prepared and revealed after every database, whatever they are called."""
        seen: list[str] = []
        for key in "Data.fs", "~", "/var/db", "\uffff", "ÿ":
            transaction.get().join(Recording(seen, key))
        self.send()
        resources = sorted(transaction.get()._resources, key=lambda each: each.sortKey())
        self.assertEqual(type(resources[-1]).__name__, "TransactionMails")
        transaction.commit()

    def test_an_explicit_transaction_manager_is_followed(self) -> None:
        """Not the thread's."""
        manager = transaction.TransactionManager()
        self.delivery = QueuedMailDelivery(self.path, transaction_manager=manager)
        self.send()
        transaction.commit()
        self.assertEqual(self.queued(), [])
        manager.commit()
        self.assertEqual(len(self.queued()), 1)

    def test_explicit_mode_is_respected(self) -> None:
        """Mail cannot be sent outside an explicit transaction."""
        manager = transaction.TransactionManager(explicit=True)
        self.delivery = QueuedMailDelivery(self.path, transaction_manager=manager)
        self.assertRaises(transaction.interfaces.NoTransaction, self.send)
        with manager:
            self.send()
        self.assertEqual(len(self.queued()), 1)

    def test_two_deliveries_do_not_meet(self) -> None:
        """Each has its own queue, both follow the same transaction."""
        other = QueuedMailDelivery(self.path + "2")
        self.send()
        other.send("sender@example.org", TO, MESSAGE)
        transaction.commit()
        self.assertEqual((len(self.queued()), len(list(Maildir(self.path + "2")))), (1, 1))

    def test_a_delivery_that_is_gone_has_no_heir(self) -> None:
        """Products.MailHost makes one for each mail: the next one, at the same address in memory, has its own queue."""
        paths = [os.path.join(self.path, name) for name in ("one", "two", "three")]
        for path in paths:
            QueuedMailDelivery(path).send("sender@example.org", TO, MESSAGE)
        transaction.commit()
        self.assertEqual([len(os.listdir(os.path.join(path, "new"))) for path in paths], [1, 1, 1])

    def test_a_call_that_fails_stages_nothing(self) -> None:
        """Also if the disk was full only after some of the copies; who called may catch that, and commit."""
        self.send()
        queue = self.delivery.queue
        assert isinstance(queue, MaildirQueue)
        original, made = queue.disk.create, itertools.count(1)

        def create(*arguments: Any) -> None:
            if next(made) == 3:
                raise OSError(errno.ENOSPC, "no space left on device")
            original(*arguments)

        to = ["a@example.org", "b@example.org", "c@example.org"]
        with mock.patch.object(queue.disk, "create", create), self.assertRaises(OSError):
            self.delivery.send("sender@example.org", to, MESSAGE, verp=True)
        transaction.commit()
        self.assertEqual([mail[1] for mail in self.queued()], [tuple(TO)])

    def test_a_queue_directory_that_was_removed_is_made_again(self) -> None:
        """An admin who cleans up does not break the application."""
        import shutil

        self.send()
        transaction.commit()
        shutil.rmtree(self.path)
        self.send()
        transaction.commit()
        self.assertEqual(len(list(Maildir(self.path))), 1)

    def test_no_descriptor_stays_open(self) -> None:
        """However many mails a transaction has."""
        before = open_below(self.path)
        for _ in range(50):
            self.send()
        self.assertLessEqual(open_below(self.path), before + 1)  # which shows others that it lives
        transaction.abort()
        self.assertEqual(open_below(self.path), before)
        for _ in range(50):
            self.send()
        transaction.commit()
        self.assertTrue(flush(60))
        self.assertEqual(open_below(self.path), before)


class ApartFromTransactions(DeliveryTest):
    def test_a_mail_that_could_not_be_sent_is_not_sent_later(self) -> None:
        """Who called hears of it, and sends it again."""
        for verp in (False, True):
            queue = self.delivery.queue
            assert isinstance(queue, MaildirQueue)
            to = ["a@example.org", "b@example.org"]
            refused = OSError(errno.EIO, "no rename")
            # With verp the first rename makes the group, the second one reveals it.
            results = [mock.DEFAULT, refused] if verp else [refused]
            with (
                mock.patch.object(queue.disk, "rename", wraps=queue.disk.rename, side_effect=results),
                self.assertRaises(OSError),
            ):
                self.delivery.send_now("sender@example.org", to, MESSAGE, verp=verp)
            self.delivery.send_now("sender@example.org", TO, MESSAGE)
            self.assertEqual([mail[1] for mail in self.queued()], [tuple(TO)])
            for mail in self.queue.admin.mails():
                self.queue.admin.remove(mail.name)


class DirectDelivery(unittest.TestCase):
    def setUp(self) -> None:
        transaction.abort()
        self.addCleanup(transaction.abort)
        self.mailer = ScriptedMailer()
        self.delivery = DirectMailDelivery(self.mailer)

    def send(self, *to: str, message: bytes = MESSAGE) -> None:
        self.delivery.send("sender@example.org", to or TO, message)

    def test_commit_sends_in_order_on_one_connection(self) -> None:
        """All mails of the transaction, and then the connection is closed."""
        for number in range(3):
            self.send(f"{number}@example.org")
        self.assertEqual(self.mailer.sent, [])
        transaction.commit()
        self.assertEqual([mail[1][0] for mail in self.mailer.sent], [f"{number}@example.org" for number in range(3)])
        self.assertEqual([session.closed for session in self.mailer.sessions], [True])

    def test_abort_sends_nothing(self) -> None:
        """And opens nothing."""
        self.send()
        transaction.abort()
        self.assertEqual((self.mailer.sent, self.mailer.sessions), ([], []))

    def test_a_relay_that_cannot_be_reached_aborts(self) -> None:
        """With an OSError, before anything is sent."""
        self.mailer.fault = Reply(Answer.DEFERRED, "connection refused")
        self.send()
        self.assertRaises(RelayError, transaction.commit)
        self.assertTrue(issubclass(RelayError, OSError))
        transaction.abort()
        self.assertEqual(self.mailer.sent, [])
        self.assertTrue(self.mailer.sessions[0].closed)

    def test_a_refused_recipient_aborts_where_that_is_wanted(self) -> None:
        """With ``onRefused="abort"`` no other mail of the transaction leaves either."""
        self.delivery = DirectMailDelivery(self.mailer, onRefused="abort")
        refused = Reply(Answer.REJECTED, "no such user", 550, "5.1.1")
        accepted = self.mailer.answers("x")
        self.mailer.answers = lambda who: refused if who.startswith("bad") else accepted
        self.send("good@example.org")
        self.send("bad@example.org")
        with self.assertRaises(MailRefused) as caught:
            transaction.commit()
        self.assertIn("no such user", str(caught.exception))
        self.assertTrue(caught.exception.permanent)
        transaction.abort()
        self.assertEqual(self.mailer.sent, [])

    def test_savepoint_rollback_drops_the_later_mails(self) -> None:
        """As with a queue."""
        self.send("first@example.org")
        savepoint = transaction.savepoint()
        self.send("second@example.org")
        savepoint.rollback()
        transaction.commit()
        self.assertEqual([mail[1] for mail in self.mailer.sent], [("first@example.org",)])

    def test_trouble_with_one_mail_does_not_keep_the_next(self) -> None:
        """Nothing is raised in the second phase; it is logged."""

        def before(envelope: Any) -> None:
            if envelope.recipients == ("1@example.org",):
                raise OSError("gone")

        self.mailer.before = before
        for number in range(3):
            self.send(f"{number}@example.org")
        with self.assertLogs("MailDataManager", "ERROR") as logs:
            transaction.commit()
        self.assertEqual([mail[1][0] for mail in self.mailer.sent], ["0@example.org", "2@example.org"])
        self.assertIn("1@example.org", "".join(logs.output))

    def test_a_subclass_with_its_own_data_managers_asks_the_relay_once(self) -> None:
        """One connection for vote and finish; nothing that could fail is done a second time."""

        class Own(DirectMailDelivery):
            def createDataManager(self, *arguments: Any) -> Any:
                return super().createDataManager(*arguments)

        Own(self.mailer).send("sender@example.org", TO, MESSAGE)
        transaction.commit()
        self.assertEqual((len(self.mailer.sessions), len(self.mailer.sent)), (1, 1))

    def test_a_mailer_with_send_only_works(self) -> None:
        """Commit and abort."""
        mailer = SendOnlyMailer()
        self.delivery = DirectMailDelivery(mailer)
        self.send()
        transaction.abort()
        self.send()
        transaction.commit()
        self.assertEqual([mail[1] for mail in mailer.sent], [("one@example.org",)])


class OldApi(DeliveryTest):
    """Names and habits of zope.sendmail 3.5 to 7.3."""

    def test_a_mail_can_be_queued_at_once(self) -> None:
        """createDataManager and tpc_finish, without a transaction."""
        manager = self.delivery.createDataManager("sender@example.org", TO, MESSAGE)
        manager.tpc_finish(None)
        self.assertEqual(len(self.queued()), 1)

    def test_createDataManager_follows_a_transaction(self) -> None:
        """Joined by hand, committed and aborted."""
        for end in (transaction.commit, transaction.abort):
            transaction.get().join(self.delivery.createDataManager("sender@example.org", TO, MESSAGE))
            end()
        self.assertEqual(len(self.queued()), 1)

    def test_a_subclass_may_make_its_own_data_managers(self) -> None:
        """send() joins what it makes."""
        made = []

        class Custom(QueuedMailDelivery):
            def createDataManager(self, fromaddr: str, toaddrs: Any, message: bytes) -> Any:
                made.append((fromaddr, toaddrs))
                return super().createDataManager(fromaddr, toaddrs, message)

        Custom(self.path).send("sender@example.org", TO, MESSAGE)
        transaction.commit()
        self.assertEqual((made, len(self.queued())), ([("sender@example.org", TO)], 1))

    def test_the_path_may_be_changed(self) -> None:
        """Some clients assign _queuePath."""
        self.delivery._queuePath = self.path + "2"
        self.send()
        transaction.commit()
        self.assertEqual((self.delivery.queuePath, len(list(Maildir(self.path + "2")))), (self.path + "2", 1))

    def test_old_names_can_be_imported(self) -> None:
        """From where they were."""
        from zope.sendmail import delivery, queue
        from zope.sendmail.processor.thread import QueueProcessorThread

        self.assertIs(delivery.QueueProcessorThread, QueueProcessorThread)
        self.assertIs(queue.QueueProcessorThread, QueueProcessorThread)
        self.assertIs(delivery.Maildir, Maildir)
        self.assertEqual(queue.MAX_SEND_TIME, 10800)
        self.assertTrue(callable(queue.run) and callable(queue.ConsoleApp))
        self.assertTrue(issubclass(QueuedMailDelivery, AbstractMailDelivery))
        with self.assertRaises(AttributeError):
            _ = queue.nothing

    def test_a_delivery_can_be_pickled(self) -> None:
        """Also after it was used."""
        self.send()
        transaction.commit()
        self.assertEqual(pickle.loads(pickle.dumps(self.delivery)).queuePath, self.path)


del DeliveryTest


class ASubscriberOfTheHandOver(unittest.TestCase):
    """It is called in ``send()``, of queued and of direct delivery."""

    def setUp(self) -> None:
        self.outbox = Outbox()
        self.mailer = ScriptedMailer()
        self.deliveries: list[Any] = [self.outbox.delivery(), DirectMailDelivery(self.mailer)]
        self.addCleanup(transaction.abort)

    def subscribe(self, call: Callable[[Any], None]) -> None:
        def called(event: object) -> None:
            if IMailHandOverEvent.providedBy(event):
                call(event)

        zope.event.subscribers.append(called)
        self.addCleanup(zope.event.subscribers.remove, called)

    def test_may_refuse_a_mail(self) -> None:
        """The caller gets its error, nothing was written, and the transaction can go on."""

        def refuse(event: Any) -> None:
            if "joe@example.org" in event.recipients:
                raise InvalidMail("joe wants no mail")

        self.subscribe(refuse)
        for each in self.deliveries:
            with self.assertRaisesRegex(InvalidMail, "joe wants"):
                each.send("a@example.org", ["joe@example.org"], "Subject: no\n\n")
            each.send("a@example.org", ["jane@example.org"], "Subject: yes\n\n")
        transaction.commit()
        self.assertEqual([mail.recipients for mail in self.outbox.mails], [("jane@example.org",)])
        self.assertEqual([recipients for _, recipients, _ in self.mailer.sent], [("jane@example.org",)])

    def test_may_redirect_it(self) -> None:
        """To other recipients, and with another sender; what it assigns is looked at as what callers pass."""

        def redirect(event: Any) -> None:
            event.sender, event.recipients = "Shop <bounces@example.org>", ["Archive <archive@example.org>"]

        self.subscribe(redirect)
        for each in self.deliveries:
            each.send("a@example.org", ["jane@example.org"], "Subject: x\n\n")
        transaction.commit()
        [mail] = self.outbox.mails
        self.assertEqual((mail.sender, mail.recipients), ("bounces@example.org", ("archive@example.org",)))
        self.assertEqual([sent[:2] for sent in self.mailer.sent], [("bounces@example.org", ("archive@example.org",))])

    def test_that_assigns_what_cannot_be_makes_an_error(self) -> None:
        """As if the caller had said it."""
        self.subscribe(lambda event: setattr(event, "recipients", ["a@b@c"]))
        for each in self.deliveries:
            self.assertRaises(InvalidMail, each.send, "a@example.org", ["jane@example.org"], "Subject: x\n\n")

    def test_sees_what_was_passed(self) -> None:
        """The envelope as it will be, and the message as it is."""
        seen: list[Any] = []
        self.subscribe(seen.append)
        message = EmailMessage()
        for each in self.deliveries:
            each.send("Shop <a@example.org>", "Jane <jane@example.org>", message)
        self.assertEqual([(e.sender, e.recipients) for e in seen], [("a@example.org", ("jane@example.org",))] * 2)
        self.assertTrue(all(event.message is message for event in seen))
        self.assertEqual([event.delivery for event in seen], self.deliveries)
