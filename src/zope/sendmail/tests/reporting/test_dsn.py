"""Delivery status notifications."""

from __future__ import annotations

import email
import errno
import os
import tempfile
import unittest
from datetime import UTC, datetime
from email.message import Message
from typing import Any
from unittest import mock

from zope.sendmail.lifecycle.outcome import Answer, Reply
from zope.sendmail.lifecycle.retry import MALFORMED, Schedule
from zope.sendmail.lifecycle.states import State
from zope.sendmail.queue.maildir.queue import MaildirQueue
from zope.sendmail.reporting.dsn import notification
from zope.sendmail.testing.contracts import LATER, NEVER, OK
from zope.sendmail.tests.support.processing import ProcessorTest

REPLIES = {
    "one@example.org": Reply(Answer.REJECTED, "no such user", 550, "5.1.1"),
    "zwölf@example.org": Reply(Answer.REJECTED, "given up", None, "4.4.7"),
}


HEAD = b"Subject: Gr\xc3\xbc\xc3\x9fe\r\n\r\nsecret"


class TheReport(unittest.TestCase):
    def make(
        self, sender: str = "sender@example.org", head: bytes = b"Subject: Gr\xc3\xbc\xc3\x9fe\r\n\r\nsecret"
    ) -> Message:
        moment = datetime(2026, 11, 21, 12, tzinfo=UTC)
        return email.message_from_bytes(
            notification(
                sender=sender, head=head, replies=REPLIES, relay="mx.example.org:25", host="here.example.org",
                message_id="report.1@here", moment=moment,
            )
        )  # fmt: skip

    def test_is_a_delivery_report(self) -> None:
        """multipart/report with a text, the status, and the header of the mail (RFC 3464, 2)."""
        report = self.make()
        self.assertEqual(report.get_content_type(), "multipart/report")
        self.assertEqual(report.get_param("report-type"), "delivery-status")
        parts: Any = report.get_payload()
        kinds = [part.get_content_type() for part in parts]
        self.assertEqual(kinds, ["text/plain", "message/delivery-status", "text/rfc822-headers"])

    def test_a_malformed_recipient_adds_no_field(self) -> None:
        """A file of another program can have line breaks and bytes that are no text in an address."""
        moment = datetime(2026, 11, 21, 12, tzinfo=UTC)
        text = notification(
            sender="sender@example.org", head=HEAD, replies={"bad\rX-Evil: yes@@\udce9": MALFORMED}, relay="", host="h",
            message_id="report.1@here", moment=moment,
        )  # fmt: skip
        status: Any = email.message_from_bytes(text).get_payload(1)
        one = status.get_payload(1)
        self.assertEqual(one["Final-Recipient"], "rfc822; bad X-Evil: yes@@")
        self.assertNotIn("X-Evil", one)

    def test_answers_to_nobody(self) -> None:
        """It says that it is automatic (RFC 3834), and has an id and a date."""
        report = self.make()
        self.assertEqual((report["Auto-Submitted"], report["Message-Id"]), ("auto-replied", "<report.1@here>"))
        self.assertEqual((report["To"], report["Date"]), ("sender@example.org", "Sat, 21 Nov 2026 12:00:00 +0000"))

    def test_tells_programs_about_each_recipient(self) -> None:
        """The fields of RFC 3464, 2.3."""
        status: Any = self.make().get_payload(1)
        about, one, other = status.get_payload()
        self.assertEqual(about["Reporting-MTA"], "dns; here.example.org")
        self.assertEqual(one["Final-Recipient"], "rfc822; one@example.org")
        self.assertEqual((one["Action"], one["Status"]), ("failed", "5.1.1"))
        self.assertEqual(one["Diagnostic-Code"], "smtp; 550 5.1.1 no such user")
        self.assertEqual(one["Remote-MTA"], "dns; mx.example.org")
        self.assertEqual((other["Status"], other["Diagnostic-Code"]), ("4.4.7", None))

    def test_tells_people_the_words_of_the_relay(self) -> None:
        """And who is meant."""
        text: Any = self.make().get_payload(0)
        words = text.get_payload(decode=True).decode()
        self.assertIn("<one@example.org>: 550 5.1.1 no such user", words)
        self.assertIn("<zwölf@example.org>: 5.1.1 given up".replace("5.1.1", "4.4.7"), words)

    def test_gives_the_header_back_but_not_the_body(self) -> None:
        """Which may be large, and secret."""
        report = self.make()
        part: Any = report.get_payload(2)
        self.assertIn("Subject: Grüße", part.get_payload(decode=True).decode())
        self.assertNotIn(b"secret", report.as_bytes())

    def test_odd_texts_do_no_harm(self) -> None:
        """A mail without header, with NUL bytes, with a sender beyond ASCII."""
        for head in b"", b"no header", b"\0" * 100, b"Subject: " + b"x" * 100_000:
            self.assertEqual(self.make(head=head).get_content_type(), "multipart/report")
        self.assertIn("zwölf@example.org".encode(), self.make("zwölf@example.org").as_bytes())


class TheProcessorReports(ProcessorTest):
    def setUp(self) -> None:
        super().setUp()
        self.processor = self.make_processor(notify_sender=True)

    def reports(self) -> list[tuple[str, tuple[str, ...], bytes]]:
        return [mail for mail in self.mailer.sent if mail[0] == ""]

    def test_a_rejected_mail_is_reported_to_its_sender(self) -> None:
        """Once, from the null reverse-path, for those who were rejected."""
        self.mailer.answers = lambda who: NEVER if who.startswith("bad") else OK
        self.put("good@example.org", "bad@example.org")
        self.drain()
        self.drain(86400)
        [report] = self.reports()
        self.assertEqual(report[1], ("sender@example.org",))
        self.assertIn(b"bad@example.org", report[2])
        self.assertNotIn(b"good@example.org", report[2])

    def test_a_mail_that_is_given_up_is_reported(self) -> None:
        """With the last words of the relay."""
        self.processor = self.make_processor(notify_sender=True, schedule=Schedule(first=60, maximum=60, lifetime=100))
        self.mailer.answers = lambda who: LATER if who.startswith("slow") else OK
        self.put("slow@example.org")
        for _ in range(5):
            self.drain(100)
        self.assertIn(b"greylisted", self.reports()[0][2])

    def test_a_report_that_cannot_be_queued_leaves_nothing(self) -> None:
        """The disk is full: the log tells, and no half of it stays in the queue."""
        with tempfile.TemporaryDirectory() as path:
            self.queue = queue = MaildirQueue(path, clock=self.clock)
            self.addCleanup(queue.close)
            self.processor = self.make_processor(notify_sender=True)
            self.mailer.answers = lambda who: NEVER
            self.put()
            full = OSError(errno.ENOSPC, "no space left on device")
            with (
                mock.patch.object(queue.disk, "sync_files", side_effect=full),
                self.assertLogs("QueueProcessorThread", "ERROR") as logs,
            ):
                self.drain()
            self.assertIn("cannot be made", "".join(logs.output))
            self.assertEqual((os.listdir(queue.layout.tmp), queue.admin.count()), ([], {State.REJECTED: 1}))

    def test_a_report_is_never_reported(self) -> None:
        """A sender that does not exist ends there."""
        self.mailer.answers = lambda who: NEVER
        self.put()
        for _ in range(5):
            self.drain(100)
        self.assertEqual(self.reports(), [])
        self.assertEqual(self.queue.admin.count(), {State.REJECTED: 2})

    def test_reports_are_off_by_default(self) -> None:
        """Nobody asked for them."""
        self.processor = self.make_processor()
        self.mailer.answers = lambda who: NEVER if who.startswith("bad") else OK
        self.put("bad@example.org")
        self.drain()
        self.assertEqual(self.mailer.sent, [])


del ProcessorTest
