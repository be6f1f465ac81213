"""What a bounce says: reports of the standard's form, and the forms of others, typed anew from what they look like."""

from __future__ import annotations

import unittest
from typing import Any

from hypothesis import given, strategies as st

from zope.sendmail.bounces.parser import Bounce, Verdict, is_automatic, read_bounce
from zope.sendmail.message.verp import verp
from zope.sendmail.message.verpkey import VerpKey
from zope.sendmail.tests.support.properties import QUICK

KEY = VerpKey(b"sixteen octets and more")
SENDER, JANE, TODAY = "news@example.org", "jane@example.com", 20_787
PATH = KEY.signed(verp(SENDER, JANE), TODAY)


def report(*groups: str, headers: str = "", returned: str = "", kind: str = "text/rfc822-headers") -> bytes:
    """A report (RFC 3464) with these groups about recipients."""
    status = "\n\n".join(("Reporting-MTA: dns; mx.example.com", *groups))
    back = f"--b\nContent-Type: {kind}\n\n{returned}\n" if returned else ""
    return (
        f"{headers}From: MAILER-DAEMON@mx.example.com\nSubject: Undelivered Mail\nMIME-Version: 1.0\n"
        "Content-Type: multipart/report; report-type=delivery-status; boundary=b\n\n--b\nContent-Type: text/plain\n\n"
        f"Sorry.\n--b\nContent-Type: message/delivery-status\n\n{status}\n\n{back}--b--\n"
    ).encode()


def group(recipient: str = JANE, action: str = "failed", status: str = "5.1.1", **more: str) -> str:
    fields = {"Final-Recipient": f"rfc822; {recipient}", "Action": action, "Status": status}
    return "\n".join(f"{name.replace('_', '-')}: {value}" for name, value in {**fields, **more}.items())


def read(message: bytes, path: str = PATH) -> list[Bounce]:
    return read_bounce(message, path, senders=[SENDER], key=KEY, day=TODAY)


class AReport(unittest.TestCase):
    def test_says_about_whom_and_why(self) -> None:
        """With the relay's words and code, and the Message-Id of what came back."""
        said = report(
            group(Diagnostic_Code="smtp; 550 5.1.1 <jane@example.com>: User unknown"),
            returned="Subject: News\nMessage-Id: <1@example.org>\n",
        )
        expected = Bounce(
            JANE, Verdict.PERMANENT, "5.1.1", "550 5.1.1 <jane@example.com>: User unknown", "1@example.org", True
        )
        self.assertEqual(read(said), [expected])

    def test_tells_what_is_for_good(self) -> None:
        """By its action, its code, or the words of the relay."""
        for text, verdict, status in (
            (group(), "permanent", "5.1.1"),
            (group(status="4.4.7"), "temporary", "4.4.7"),
            (group(status="4.2.2 (mailbox full)"), "temporary", "4.2.2"),
            (group(action="delayed", status="4.4.1"), "delayed", "4.4.1"),
            (group(action="Failed (all gone)"), "permanent", "5.1.1"),
            (group(status="5.0.0", Diagnostic_Code="smtp; 550 5.2.1 disabled"), "permanent", "5.2.1"),
            (group(status="5.0.0", Diagnostic_Code="smtp; 452 4.2.2 full"), "refused", "5.0.0"),
            (group(status="5.0.0"), "permanent", "5.0.0"),
            (group(status="5.1.1", Diagnostic_Code="smtp; 550 5.2.1 disabled"), "permanent", "5.1.1"),
            (group(status="", Diagnostic_Code="smtp; 550 5.2.1 disabled"), "permanent", "5.2.1"),
            (group().replace("Action: failed\n", ""), "permanent", "5.1.1"),
            (group(status="", Diagnostic_Code="smtp; 550 no such user"), "permanent", ""),
            (group(status="", Diagnostic_Code="smtp; 452 try later"), "temporary", ""),
            (group(status="", Diagnostic_Code="x-other; gone fishing"), "unknown", ""),
        ):
            with self.subTest(text):
                [bounce] = read(report(text))
                self.assertEqual((bounce.verdict, bounce.status), (verdict, status))

    def test_about_the_mail_is_not_about_the_address(self) -> None:
        """Its content, its size, its sender, a full mailbox, policy: another mail may arrive."""
        codes = ("5.7.1", "5.7.26", "5.7.606", "5.6.0", "5.6.1", "5.3.4", "5.2.2", "5.2.3", "5.1.8", "5.5.3", "5.4.7")
        for code in codes:
            [bounce] = read(report(group(status=code, Diagnostic_Code=f"smtp; 550 {code} no")))
            self.assertEqual((bounce.verdict, bounce.status), ("refused", code))
        for words in (
            "552 message size exceeds fixed limit",
            "554 refused by reputation",
            "550 rejected as spam",
            "550 mailbox is full",
            "550 relaying denied",
        ):
            for status in ("", "5.0.0"):
                [bounce] = read(report(group(status=status, Diagnostic_Code=f"smtp; {words}")))
                self.assertEqual(bounce.verdict, "refused", words)
        for code in ("5.1.1", "5.1.2", "5.1.6", "5.1.10", "5.2.1", "5.4.1", "5.4.4"):
            self.assertEqual(read(report(group(status=code)))[0].verdict, "permanent", code)

    def test_about_mail_that_arrived_is_none(self) -> None:
        """Delivered, relayed, expanded."""
        for action in ("delivered", "relayed", "expanded"):
            self.assertEqual(read(report(group(action=action, status="2.0.0")), path=""), [], action)

    def test_about_several_is_one_each(self) -> None:
        """Where the return path does not say about whom it is; then nothing shows that it is genuine."""
        said = read(report(group(), group("jim@example.com", status="4.2.2")), path="news@example.org")
        self.assertEqual(
            [(each.recipient, each.verdict) for each in said], [(JANE, "permanent"), ("jim@example.com", "temporary")]
        )
        self.assertFalse(any(each.is_authentic for each in said))

    def test_of_a_forwarder_is_about_our_recipient(self) -> None:
        """What it says of its own addresses counts, and the mildest of several: one may have arrived later."""
        [bounce] = read(report(group("jane@home.example", status="5.2.1")))
        self.assertEqual((bounce.recipient, bounce.verdict, bounce.is_authentic), (JANE, "permanent", True))
        [bounce] = read(report(group("a@home.example"), group("b@home.example", action="delayed", status="4.0.0")))
        self.assertEqual(bounce.verdict, "delayed")
        [bounce] = read(
            report(group("x@home.example", Original_Recipient=f"rfc822;{JANE}"), group("y@b.example", status="4.0.0"))
        )
        self.assertEqual(bounce.verdict, "permanent")

    def test_brings_the_whole_mail_back(self) -> None:
        """Its Message-Id is found there as well."""
        [bounce] = read(report(group(), kind="message/rfc822", returned="Message-ID:\n <2@example.org>\n\nText\n"))
        self.assertEqual(bounce.message_id, "2@example.org")

    def test_may_bring_a_mail_back_that_has_no_id(self) -> None:
        """Or nothing at all."""
        for kind, returned in (
            ("message/rfc822", "Subject: x\n\nx\n"),
            ("text/rfc822-headers", "Subject: x\n"),
            ("", ""),
        ):
            [bounce] = read(report(group(), kind=kind, returned=returned))
            self.assertEqual(bounce.message_id, "")

    def test_may_be_in_utf8(self) -> None:
        """With types and addresses of its own (RFC 6533)."""
        for address in ("utf-8; j\u00fcrgen@example.com", r"UTF-8; j\x{FC}rgen@example.com"):
            said = report(
                group().replace(f"rfc822; {JANE}", address),
                kind="message/global-headers; charset=utf-8",
                returned="Subject: Gr\u00fc\u00dfe\nMessage-Id: <1@example.org>\n",
            )
            for message in (said, said.replace(b"message/delivery-status", b"Message/Global-Delivery-Status")):
                expected = Bounce("j\u00fcrgen@example.com", Verdict.PERMANENT, "5.1.1", "", "1@example.org")
                self.assertEqual(read(message, path=SENDER), [expected])
        whole = report(group(), kind="message/global", returned="Message-ID: <2@example.org>\n\nText\n")
        self.assertEqual(read(whole)[0].message_id, "2@example.org")

    def test_has_only_addresses_in_it_that_are_some(self) -> None:
        """What else stands there is left out, also a character that there is none of."""
        for address in (
            "rfc822; jane at home",
            "x400; c=de",
            r"utf-8; j\x{D800}@example.com",
            r"utf-8; j\x{FFFFFF}@example.com",
        ):
            said = report(group().replace(f"rfc822; {JANE}", address), group("jim@example.com"))
            self.assertEqual([each.recipient for each in read(said, path=SENDER)], ["jim@example.com"], address)

    def test_that_a_machine_sends_is_no_answer(self) -> None:
        """Though it says that it replies automatically."""
        self.assertEqual(read(report(group(), headers="Auto-Submitted: auto-replied\n"))[0].verdict, "permanent")

    def test_has_nothing_in_it_that_is_not_printable(self) -> None:
        """Whatever a host puts there, and not without end."""
        [bounce] = read(report(group(Diagnostic_Code="smtp; 550 \x1b[31m\u202e" + "x" * 5000)))
        self.assertTrue(bounce.words.isprintable())
        self.assertEqual(len(bounce.words), 500)


class AForgery(unittest.TestCase):
    def test_is_not_authentic(self) -> None:
        """A path that was not signed, by another key, for another recipient, or long ago."""
        others = (
            verp(SENDER, JANE),
            VerpKey(b"another sixteen octets").signed(verp(SENDER, JANE), TODAY),
            PATH.replace("jane", "joan"),
            KEY.signed(verp(SENDER, JANE), TODAY - 31),
            KEY.signed(verp("other@example.org", JANE), TODAY),
            "",
        )
        for path in others:
            with self.subTest(path):
                self.assertEqual(
                    [(each.recipient, each.is_authentic) for each in read(report(group()), path)], [(JANE, False)]
                )

    def test_is_nothing_else_without_a_key(self) -> None:
        """Then no return path is known as signed."""
        self.assertFalse(read_bounce(report(group()), PATH, senders=[SENDER], day=TODAY)[0].is_authentic)

    @QUICK
    @given(st.binary(max_size=2000))
    def test_of_any_shape_says_something_that_can_be_shown(self, octets: bytes) -> None:
        """As message, and as the part that matters; and it is authentic only about whom the path was signed for."""
        for message in (octets, report("X").replace(b"X", octets)):
            for bounce in read(message):
                self.assertIn(bounce.verdict, Verdict)
                self.assertTrue((bounce.recipient + bounce.words + bounce.status + bounce.message_id).isprintable())
                self.assertLessEqual(len(bounce.words), 500)
                self.assertEqual(bounce.is_authentic, bounce.recipient == JANE)


class AGenuineBounce(unittest.TestCase):
    def test_is_of_any_of_our_senders(self) -> None:
        """Whichever of them has sent the mail."""
        for senders in ((SENDER,), ("other@example.org", SENDER), (SENDER, "other@example.org")):
            [bounce] = read_bounce(report(group()), PATH, senders=senders, key=KEY, day=TODAY)
            self.assertTrue(bounce.is_authentic)


class NoBounce(unittest.TestCase):
    def test_an_answer_is_none(self) -> None:
        """Of a person, of a person's machine on holiday, of a list."""
        for headers in (
            "",
            *(
                f"Return-Path: <>\n{header}\n"
                for header in (
                    "Auto-Submitted: auto-replied",
                    "Auto-Submitted: Auto-Replied ; owner-email=jane@example.com",
                    "X-Autoreply: yes",
                    "X-Autorespond: yes",
                    "Precedence: Auto_Reply",
                )
            ),
        ):
            message = f"{headers}From: jane@example.com\nSubject: Re: News\n\nI am away. User unknown.\n".encode()
            self.assertEqual(read(message), [], headers)

    def test_a_text_from_nowhere_to_a_signed_path_is_one(self) -> None:
        """Of a host whose form nobody knows: it is about the recipient, and says not why."""
        message = b"Return-Path: <>\nFrom: postmaster@example.com\nSubject: Nicht zugestellt\n\nLeider nein.\n"
        self.assertEqual(read(message), [Bounce(JANE, Verdict.UNKNOWN, "", "Nicht zugestellt", "", True)])
        self.assertEqual(read(message, path=SENDER), [])
        [bounce] = read(message.replace(b"Subject: Nicht zugestellt\n", b""))
        self.assertEqual(bounce, Bounce(JANE, Verdict.UNKNOWN, is_authentic=True))

    def test_what_a_program_wrote_says_so(self) -> None:
        """Or that many people get it; by that alone nothing is a bounce (RFC 3834, RFC 2919)."""
        for header in (
            *("Auto-Submitted: auto-generated", "Auto-Submitted:  Auto-Replied", "List-Id: <news.example.org>"),
            *("Precedence: bulk", "Precedence: junk", "Precedence: List", "Precedence: auto_reply"),
        ):
            self.assertTrue(is_automatic(f"{header}\nSubject: x\n\nx\n".encode()), header)
        for header in ("Auto-Submitted: No", "Precedence: first-class", "X-List-Id: x"):
            self.assertFalse(is_automatic(f"{header}\nSubject: x\n\nx\n".encode()), header)


class OtherForms(unittest.TestCase):
    """As large providers and old hosts send them."""

    def assert_said(self, message: str, *, path: str = SENDER, **expected: Any) -> None:
        [bounce] = read(message.encode(), path)
        self.assertEqual({name: getattr(bounce, name) for name in expected}, expected)

    def test_gmail(self) -> None:
        """A report, with a diagnostic in several lines."""
        text = (
            "smtp; 550-5.1.1 The email account that you tried to reach does not exist. Please try\n"
            " 550-5.1.1 double-checking the recipient's email address for typos or\n 550 5.1.1 unnecessary spaces."
        )
        said = report(group(status="5.1.1", Diagnostic_Code=text), headers="X-Failed-Recipients: jane@example.com\n")
        [bounce] = read(said)
        self.assertEqual((bounce.verdict, bounce.status), ("permanent", "5.1.1"))
        self.assertIn("does not exist", bounce.words)

    def test_microsoft(self) -> None:
        """A report with codes of its own."""
        text = "smtp;550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient jane@example.com not found by address lookup"
        [bounce] = read(report(group(status="5.1.10", Diagnostic_Code=text)))
        self.assertEqual((bounce.verdict, bounce.status), ("permanent", "5.1.10"))

    def test_gmail_about_the_mail(self) -> None:
        """A full mailbox, a sender that it cannot verify, mail that it still tries: no reason to stop."""
        for status, text, action, verdict in (
            (
                "5.2.2",
                "smtp; 552-5.2.2 The recipient's inbox is out of storage space. Please direct\n"
                " 552 5.2.2 the recipient to their storage page. x-gsmtp",
                "failed",
                "refused",
            ),
            (
                "5.7.26",
                "smtp; 550-5.7.26 Your email has been blocked because the sender is unauthenticated.\n 550-5.7.26 Gmail"
                " requires all senders to authenticate with either SPF or\n 550 5.7.26 DKIM. - gsmtp",
                "failed",
                "refused",
            ),
            (
                "4.2.1",
                "smtp; 450 4.2.1 The user you are trying to contact is receiving mail too quickly",
                "delayed",
                "delayed",
            ),
            ("4.4.1", "smtp; The recipient server did not accept our requests to connect.", "delayed", "delayed"),
        ):
            with self.subTest(status):
                said = report(
                    group(status=status, action=action, Diagnostic_Code=text), headers=f"X-Failed-Recipients: {JANE}\n"
                )
                [bounce] = read(said)
                self.assertEqual((bounce.verdict, bounce.status, bounce.is_authentic), (verdict, status, True))

    def test_microsoft_about_the_mail(self) -> None:
        """Blocked hosts, content, size, a full mailbox, mail that waits; and addresses that it does not know."""
        for status, text, action, verdict in (
            ("5.7.606", "smtp;550 5.7.606 Access denied, banned sending IP [192.0.2.1]", "failed", "refused"),
            ("5.7.1", "smtp;550 5.7.1 Service unavailable, Client host blocked using a list", "failed", "refused"),
            (
                "5.7.515",
                "smtp;550 5.7.515 Access denied, sending domain does not meet the required level",
                "failed",
                "refused",
            ),
            (
                "5.3.4",
                "smtp;550 5.3.4 ROUTING.SizeLimit; message size exceeds fixed maximum size for route",
                "failed",
                "refused",
            ),
            (
                "5.2.3",
                "smtp;550 5.2.3 RESOLVER.RST.RecipSizeLimit; message too large for this recipient",
                "failed",
                "refused",
            ),
            (
                "5.2.2",
                "smtp;554 5.2.2 mailbox full; STOREDRV.Deliver.Exception:QuotaExceededException",
                "failed",
                "refused",
            ),
            ("5.6.11", "smtp;550 5.6.11 Invalid characters, bare linefeeds in message", "failed", "refused"),
            ("4.7.500", "smtp;451 4.7.500 Server busy. Please try again later from [192.0.2.1]", "delayed", "delayed"),
            ("4.4.7", "smtp;550 4.4.7 QUEUE.Expired; message expired", "failed", "temporary"),
            ("5.4.1", "smtp;550 5.4.1 Recipient address rejected: Access denied. AS(201806281)", "failed", "permanent"),
            ("5.1.1", "smtp;550 5.1.1 RESOLVER.ADR.ExRecipNotFound; not found", "failed", "permanent"),
            ("5.2.1", "smtp;550 5.2.1 mailbox disabled; not accepting messages", "failed", "permanent"),
        ):
            with self.subTest(text):
                [bounce] = read(report(group(status=status, action=action, Diagnostic_Code=text)))
                self.assertEqual((bounce.verdict, bounce.status), (verdict, status))

    def test_qmail_about_the_mail(self) -> None:
        """Its code stands in the text."""
        self.assert_said(
            "Return-Path: <>\nFrom: MAILER-DAEMON@mx.example.com\nSubject: failure notice\n\n"
            "Hi. This is the qmail-send program at mx.example.com.\nI'm afraid I wasn't able to deliver your message "
            "to the following addresses.\nThis is a permanent error; I've given up. Sorry it didn't work out.\n\n"
            "<jane@example.com>:\nThis message is looped or is spam. (#5.7.1)\n",
            path=PATH,
            verdict=Verdict.REFUSED,
            status="5.7.1",
        )

    def test_qmail(self) -> None:
        """A text of its own, which begins as all of them do."""
        self.assert_said(
            "Return-Path: <>\nFrom: MAILER-DAEMON@mx.example.com\nSubject: failure notice\n\n"
            "Hi. This is the qmail-send program at mx.example.com.\nI'm afraid I wasn't able to deliver your message "
            "to the following addresses.\nThis is a permanent error; I've given up. Sorry it didn't work out.\n\n"
            "<jane@example.com>:\nSorry, no mailbox here by that name. (#5.1.1)\n",
            recipient=JANE,
            verdict=Verdict.PERMANENT,
            is_authentic=False,
        )

    def test_exim_of_old(self) -> None:
        """The recipient is in a field of the header."""
        self.assert_said(
            "X-Failed-Recipients: jane@example.com\nFrom: Mail Delivery System <Mailer-Daemon@mx.example.com>\n"
            "Subject: Mail delivery failed: returning message to sender\n\nThis message was created automatically by "
            "mail delivery software.\n\nA message that you sent could not be delivered to one or more of its\n"
            "recipients. This is a permanent error. The following address(es) failed:\n\n  jane@example.com\n    "
            "unrouteable mail domain\n",
            path=PATH,
            recipient=JANE,
            verdict=Verdict.PERMANENT,
            is_authentic=True,
        )

    def test_aol_of_old(self) -> None:
        """It is known by its sender; an octet that is no UTF-8 is shown as one."""
        text = (
            b"From: MAILER-DAEMON@aol.com\n\nYour mail to the following recipients could not be delivered:\nj\xfcrgen\n"
        )
        self.assertEqual([each.recipient for each in read(text, SENDER)], ["j\ufffdrgen@aol.com"])

    def test_without_a_sender(self) -> None:
        """What says not from whom it is, is read all the same."""
        for header in ("", "From:\n", "From: <>\n"):
            self.assert_said(
                f"Return-Path: <>\n{header}Subject: failure notice\n\nHi. This is the qmail-send program at "
                "mx.example.com.\n\n<jane@example.com>:\nSorry, no mailbox here by that name. (#5.1.1)\n",
                recipient=JANE,
            )

    def test_with_what_is_no_address(self) -> None:
        """The others in it count."""
        self.assert_said(
            f"From: Mailer-Daemon@mx.example.com\nX-Failed-Recipients: a b@example.com, {JANE}\n"
            "Subject: Mail delivery failed: returning message to sender\n\nThis message was created automatically by "
            "mail delivery software.\n",
            recipient=JANE,
        )

    def test_of_any_length(self) -> None:
        """A code counts in the first 4000 octets of the text."""
        begin = "Hi. This is the qmail-send program at mx.example.com.\n\n<jane@example.com>:\nSorry "
        for padding, status in ((0, "5.1.1"), (1, "")):
            text = begin + "x" * (4000 - len(begin) - 6 + padding) + " 5.1.1 and more\n"
            self.assert_said(f"Subject: failure notice\n\n{text}", recipient=JANE, status=status)
