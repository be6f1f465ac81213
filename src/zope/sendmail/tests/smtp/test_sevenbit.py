"""`zope.sendmail.smtp.protocol.sevenbit`: 8-bit messages for relays that take ASCII only."""

from __future__ import annotations

import contextlib
import email
import io
import smtplib
import unittest
from email import policy
from email.headerregistry import HeaderRegistry
from email.message import EmailMessage, Message
from typing import Any, cast
from unittest import mock

from zope.sendmail.lifecycle.outcome import Answer
from zope.sendmail.mailer import SMTPMailer
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.headers import wire
from zope.sendmail.smtp.protocol.sevenbit import CannotConvert, in_seven_bit
from zope.sendmail.tests.support.conversation import TIMEOUTS, Conversation

GERMAN = "Grüße aus Köln.\r\n.\r\nFrom here  \r\n" + "ä" * 90 + "\r\n" + "x" * 200 + "\r\n"
RUSSIAN = "Привет, мир! Как дела?\r\n" * 20


def raw(headers: str, body: str | bytes) -> bytes:
    """A message with CRLF."""
    text = body if isinstance(body, bytes) else body.encode()
    return headers.replace("\n", "\r\n").encode() + b"\r\n" + text


def parsed(message: bytes) -> EmailMessage:
    """As a reader has it."""
    return email.message_from_bytes(message, policy=policy.default)


def leaves(message: Message[Any, Any]) -> list[bytes]:
    """The contents of all parts that are no composites, in order."""
    return [cast("bytes", part.get_payload(decode=True)) for part in message.walk() if not part.is_multipart()]


MIME = "Subject: x\nMIME-Version: 1.0\n"
TEXT = 'Content-Type: text/plain; charset="utf-8"\nContent-Transfer-Encoding: 8bit\n'


class AMessageIsWrittenInAscii(unittest.TestCase):
    def convert(self, message: bytes) -> tuple[bytes, EmailMessage]:
        """It is ASCII with lines that every relay takes, and means the same."""
        found = in_seven_bit(message)
        self.assertTrue(found.isascii())
        self.assertNotIn(b"\n", found.replace(b"\r\n", b""))
        before, after = parsed(message), parsed(found)
        self.assertEqual(leaves(after), leaves(before))
        self.assertEqual(after.defects, before.defects)
        return found, after

    def test_text(self) -> None:
        """Mostly ASCII: quoted-printable, with lines of at most 76."""
        found, message = self.convert(raw(MIME + TEXT, GERMAN.replace("ä" * 90, "ä")))
        self.assertEqual(message["Content-Transfer-Encoding"], "quoted-printable")
        self.assertLessEqual(max(map(len, found.split(b"\r\n"))), 76)

    def test_other_scripts(self) -> None:
        """Mostly not: base64, which is shorter."""
        found, message = self.convert(raw(MIME + TEXT, RUSSIAN))
        self.assertEqual(message["Content-Transfer-Encoding"], "base64")
        self.assertLessEqual(max(map(len, found.split(b"\r\n"))), 76)
        self.assertEqual(message.get_content(), RUSSIAN)

    def test_no_end_of_line(self) -> None:
        """Nothing is added at the end."""
        for text in ("ü", "ü ", "ü\r\n\r\n", "\r\nü"):
            _, message = self.convert(raw(MIME + TEXT, text))
            self.assertEqual(leaves(message), [text.encode()])

    def test_without_mime(self) -> None:
        """A bare text becomes one part, in UTF-8 if it is."""
        _, message = self.convert(raw("Subject: x\n", "Grüße\r\n"))
        self.assertEqual((message["MIME-Version"], message.get_content_charset()), ("1.0", "utf-8"))
        self.assertEqual(message.get_content(), "Grüße\r\n")
        _, message = self.convert(raw("Subject: x\n", "Grüße\r\n".encode("latin-1")))
        self.assertEqual(message.get_content_charset(), "unknown-8bit")

    def test_without_header_fields(self) -> None:
        """A message or a part may begin with its text."""
        for message in (
            raw("", "Grüße\r\n"),
            raw(MIME + "Content-Type: multipart/mixed; boundary=b\n", "--b\r\n\r\nGrüße\r\n--b--\r\n"),
        ):
            _, after = self.convert(message)
            self.assertEqual(leaves(after)[0].strip(), "Grüße".encode())

    def test_the_shorter_encoding(self) -> None:
        """Quoted-printable, as long as no more than a sixth of the text is beyond ASCII."""
        for text, encoding in ((b"\xfcbcd\r\n", "quoted-printable"), (b"\xfcbc\r\n", "base64")):
            found = in_seven_bit(raw(MIME + "Content-Type: text/plain\n", text))
            self.assertEqual(parsed(found)["Content-Transfer-Encoding"], encoding)

    def test_what_is_said_already_is_not_said_again(self) -> None:
        """A message with one of the two fields keeps it; one that is ASCII in its body needs none."""
        found = in_seven_bit(raw("Subject: x\nContent-Type: text/html; charset=utf-8\n", "Grüße\r\n"))
        self.assertEqual(parsed(found).get_content_type(), "text/html")
        self.assertEqual(found.count(b"Content-Type"), 1)
        self.assertEqual(found.count(b"MIME-Version: 1.0\r\n"), 1)
        found = in_seven_bit(raw("mime-version: 1.0\nSubject: x\n", "Grüße\r\n"))
        self.assertEqual((found.lower().count(b"mime-version"), found.count(b"Content-Type")), (1, 0))
        found = in_seven_bit(raw("Subject: Grüße\n", "x\r\n"))
        self.assertEqual(found.partition(b"\r\n")[2], b"\r\nx\r\n")

    def test_nested_parts(self) -> None:
        """Each part by itself; what is ASCII stays as it is, also between, before and behind them."""
        inner = (
            "--in\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
            "With kind regards, Jürgen\r\n"
            "--in\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<p>plain</p>\r\n--in--\r\n"
        )
        outer = (
            "This is MIME.\r\n--out\r\nContent-Type: multipart/alternative; boundary=in\r\n"
            "Content-Transfer-Encoding: 8bit\r\n\r\n" + inner + "\r\n--out\r\nContent-Type: text/plain\r\n\r\nASCII\r\n"
            "--out\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: binary\r\n\r\n\xff\xfe\r\n"
            "--out--\r\nbehind\r\n"
        )
        message = raw(MIME + 'Content-Type: multipart/mixed; boundary="out"\nContent-Transfer-Encoding: 8bit\n', outer)
        found, after = self.convert(message)
        encodings = [part["Content-Transfer-Encoding"] for part in after.walk()]
        self.assertEqual(encodings, ["7bit", "7bit", "quoted-printable", None, None, "base64"])
        for kept in (b"This is MIME.\r\n--out\r\n", b"\r\n<p>plain</p>\r\n--in--\r\n", b"\r\n--out--\r\nbehind\r\n"):
            self.assertIn(kept, found)

    def test_message_in_a_message(self) -> None:
        """It is converted inside, and its header as well."""
        forwarded = "Subject: Grüße\r\nMIME-Version: 1.0\r\n" + TEXT.replace("\n", "\r\n") + "\r\nGrüße\r\n"
        body = (
            "--b\r\nContent-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
            + forwarded
            + "\r\n--b--\r\n"
        )
        _, after = self.convert(raw(MIME + "Content-Type: multipart/mixed; boundary=b\n", body))
        (inside,) = [part for part in after.walk() if part.get_content_type() == "message/rfc822"]
        self.assertEqual(inside.get_content()["Subject"], "Grüße")

    def test_the_last_delimiter_is_missing(self) -> None:
        """The part that it should end goes to the end of the message, as readers take it."""
        body = "--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nGrüße, Jürgen, and a long text in ASCII\r\n"
        message = raw(MIME + "Content-Type: multipart/mixed; boundary=b\n", body)
        after = parsed(in_seven_bit(message))
        self.assertEqual([part["Content-Transfer-Encoding"] for part in after.walk()], [None, "quoted-printable"])
        self.assertEqual(leaves(after), leaves(parsed(message)))
        message = raw(MIME + "Content-Type: multipart/mixed; boundary=b\n", b"--b\r\n\r\n\xff\xfe\r\n")
        self.assertEqual(leaves(parsed(in_seven_bit(message))), [b"\xff\xfe\r\n"])

    def test_what_is_behind_the_last_delimiter(self) -> None:
        """No reader shows it, nor what is before the first, so it is not encoded, whatever it looks like."""
        body = "vor\u00fc\r\n--b\r\n\r\nASCII\r\n--b--\r\n\u00fc\r\n--b\r\n\r\n\u00fcx\r\n--b--\r\n\u00fcy"
        message = raw(MIME + "Content-Type: multipart/mixed; boundary=b\n", body)
        found = in_seven_bit(message).partition(b"\r\n\r\n")[2]
        self.assertEqual(found, body.replace("\u00fc", "??").encode())

    def test_a_field_stands_twice(self) -> None:
        """Once is enough, with what is true then, in the place of the first."""
        found, message = self.convert(
            raw(MIME + TEXT + "Content-Transfer-Encoding: 8bit\nX-Last: x\n", GERMAN.replace("ä" * 90, "ä"))
        )
        self.assertEqual(message.keys()[-2:], ["Content-Transfer-Encoding", "X-Last"])
        self.assertEqual(message.get_all("Content-Transfer-Encoding"), ["quoted-printable"])
        self.assertNotIn(b"8bit", found)

    def test_header_fields(self) -> None:
        """Encoded words in texts and names, RFC 2231 in parameters; fields in ASCII keep their octets."""
        names = (
            "Subject: Grüße an alle in " + "Köln und " * 10 + "Umgebung\n"
            'From: Jürgen Müller <j@example.org>\nTo: "Größe, Die" <g@example.org>,\n  Österreich <o@example.org>\n'
            "X-Kept:   many   blanks  \nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n"
            'Content-Disposition: attachment; filename="Übersicht.txt"\n'
        )
        found, after = self.convert(raw(names, "ASCII\r\n"))
        self.assertIn(b"\r\nX-Kept:   many   blanks  \r\n", found)
        self.assertEqual(after["Subject"], "Grüße an alle in " + "Köln und " * 10 + "Umgebung")
        self.assertEqual(after["From"].addresses[0].display_name, "Jürgen Müller")
        self.assertEqual([each.addr_spec for each in after["To"].addresses], ["g@example.org", "o@example.org"])
        self.assertEqual(after["To"].addresses[0].display_name, "Größe, Die")
        self.assertEqual(after.get_filename(), "Übersicht.txt")
        for name in ("Subject", "X-Other"):  # an encoded word is in a line of 76 characters at most (RFC 2047, 2)
            found, _ = self.convert(raw(f"{name}: {'ü' * 200}\n", "ASCII\r\n"))
            self.assertLessEqual(max(map(len, found.splitlines())), 76)

    def test_quoted_printable_with_some_octets(self) -> None:
        """What was encoded but for some octets is not encoded twice."""
        message = raw(MIME + TEXT.replace("8bit", "quoted-printable"), "=C3=BC and ü\r\n")
        self.assertEqual(parsed(in_seven_bit(message)).get_content(), "ü and ü\r\n")

    def test_ascii_stays(self) -> None:
        """Octet for octet, whatever it says of itself."""
        message = raw(MIME + TEXT, "ASCII\r\n" + "x" * 2000 + "\r\n")
        self.assertEqual(in_seven_bit(message), message)

    def test_everything_that_the_library_makes(self) -> None:
        """With attachments of all kinds."""
        made = EmailMessage()
        made["Subject"], made["From"], made["To"] = "Grüße", "Jürgen <a@example.org>", "b@example.org"
        made.set_content("Grüße\n", cte="8bit")
        made.add_alternative("<p>Grüße</p>\n", subtype="html", cte="8bit")
        made.add_attachment("ä;ö\n".encode(), "text", "csv", filename="ä.csv", cte="8bit")
        made.add_attachment(b"\x00\xff", "application", "octet-stream")
        as_sent = b"".join(wire(io.BytesIO(made.as_bytes(policy=policy.SMTPUTF8))))
        self.assertFalse(as_sent.isascii())
        _, after = self.convert(as_sent)
        self.assertEqual([part.get_filename() for part in after.iter_attachments()], ["ä.csv", None])


class AMessageCannotBe(unittest.TestCase):
    def refused(self, message: bytes, why: str) -> None:
        with self.assertRaises(CannotConvert) as caught:
            in_seven_bit(message)
        self.assertEqual(str(caught.exception), why)

    def test_signed(self) -> None:
        """A signature over the text, or over the message, would be wrong."""
        body = (
            "--s\r\n"
            + TEXT.replace("\n", "\r\n")
            + "\r\nGrüße\r\n--s\r\nContent-Type: application/pgp-signature\r\n\r\nx\r\n--s--\r\n"
        )
        self.refused(
            raw(MIME + "Content-Type: multipart/signed; boundary=s\n", body),
            "writing it in ASCII would break its signature (multipart/signed); sign what is ASCII already",
        )
        self.refused(
            raw("DKIM-Signature: v=1; b=x\n" + MIME + TEXT, "Grüße\r\n"),
            "writing it in ASCII would break its DKIM signature; sign it in ASCII",
        )
        signed = raw(MIME + "Content-Type: multipart/signed; boundary=s\n", body.replace("ü", "ue").replace("ß", "ss"))
        self.assertEqual(in_seven_bit(signed), signed)
        forwarded = b"Subject: Gr\xc3\xbc\xc3\x9fe\r\n" + signed.partition(b"\r\n")[2]
        self.assertTrue(in_seven_bit(forwarded).endswith(signed.partition(b"\r\n\r\n")[2]))

    def test_not_understood(self) -> None:
        """What contradicts itself, or has no other form."""
        multipart = "Content-Type: multipart/mixed"
        for headers, body, why in (
            (MIME + multipart + "\n", "--x\r\n\r\nü\r\n", "it has a multipart without a boundary"),
            (
                MIME + multipart + "; boundary=y\n",
                "--x\r\n\r\nü\r\n",
                "it has a multipart in which the boundary 'y' does not occur",
            ),
            *(
                (
                    MIME + TEXT.replace("8bit", encoding),
                    "ü\r\n",
                    f"it has a part that says it is {encoding.lower()}, and is not",
                )
                for encoding in ("base64", "uuencode", "X-UUencode")
            ),
            (
                MIME + "Content-Type: message/partial\n",
                "ü\r\n",
                "it has a part of type message/partial, which cannot be encoded",
            ),
        ):
            self.refused(raw(headers, body), why)
        self.refused(
            raw("From: jürgen@example.org\n" + MIME, "x\r\n"),
            "its header field From has the address jürgen@example.org, which is not ASCII",
        )
        self.refused(b"Subject: \xff\r\n\r\nx\r\n", "its header field Subject is written in an unknown charset")

    def test_read_by_the_email_package(self) -> None:
        """What that falls over in a field, half an address, is refused as what contradicts itself is."""
        message = raw("From: Grüße <\n" + MIME, "x\r\n")
        with mock.patch.object(HeaderRegistry, "__call__", side_effect=IndexError):
            self.refused(message, "its header field From cannot be read (IndexError)")
        with contextlib.suppress(CannotConvert):
            self.assertTrue(in_seven_bit(message).isascii())

    def test_identified_by_what_is_not_ascii(self) -> None:
        """A message id would be another one, and a parameter has no other name."""
        for field in ("Message-ID: <ü@example.org>", "Content-Disposition: inline; ü=x"):
            name = field.partition(":")[0]
            self.refused(
                raw(f"{field}\n{MIME}", "x\r\n"),
                f"its header field {name} has a part that has to be ASCII, and is not",
            )


class ARelayTakesAsciiOnly(Conversation):
    TEXT = "Subject: Grüße\n\nKöln\n".encode()

    def test_it_gets_ascii(self) -> None:
        """In every way; the size that is told is that of what is sent."""
        for keywords in ([], ["SIZE 1000000"], ["PIPELINING", "SIZE 1000000"], ["PIPELINING", "SMTPUTF8"]):
            for large in (b"", b"x" * 70 + b"\n" * 100_000):
                relay = self.start(keywords=keywords)
                self.assertAnswers(self.transfer(self.session(relay), message=self.TEXT + large), one=Answer.ACCEPTED)
                data = relay.mails[0].data
                self.assertTrue(data.isascii())
                self.assertEqual(parsed(data)["Subject"], "Grüße")
                self.assertIn("Köln", parsed(data).get_content())
                options = f"SIZE={len(data)}" if "SIZE 1000000" in keywords else ""
                self.assertEqual(relay.mails[0].options, options)

    def test_it_cannot(self) -> None:
        """The mail is rejected with the reason, and nothing was sent."""
        relay = self.start(keywords=[])
        outcome = self.transfer(self.session(relay), message=b"DKIM-Signature: x\nSubject: x\n\n\xfc\n")
        reply = outcome.replies["one@example.org"]
        self.assertEqual((reply.answer, reply.enhanced), (Answer.REJECTED, "5.6.3"))
        self.assertIn("8BITMIME", reply.text)
        self.assertEqual(relay.mails, [])
        mailer = SMTPMailer(relay.host, relay.port, timeouts=TIMEOUTS)
        with self.assertRaisesRegex(smtplib.SMTPSenderRefused, "DKIM"):
            mailer.send("a@example.org", ["b@example.org"], b"DKIM-Signature: x\nSubject: x\n\n\xfc\n")

    def test_the_vote_tells_it(self) -> None:
        """Before anything is sent."""
        session = self.session(self.start(keywords=[]))
        envelope = Envelope("a@example.org", ("one@example.org",))
        outcome = session.verify(envelope, io.BytesIO(b"DKIM-Signature: x\nSubject: x\n\n\xfc\n"))
        self.assertAnswers(outcome, one=Answer.REJECTED)


class AHeaderIsWrittenInUtf8(Conversation):
    TEXT = "Subject: Grüße\n\nKöln\n".encode()

    def test_smtputf8_is_asked_for(self) -> None:
        """Where it is announced, also with addresses in ASCII (RFC 6531, 3.2)."""
        relay = self.start(keywords=["8BITMIME", "SMTPUTF8"])
        session = self.session(relay)
        self.transfer(session, message=self.TEXT)
        self.transfer(session, message="Subject: x\n\nKöln\n".encode())
        self.transfer(session, message=b"Subject: \xfc\n\nx\n")
        self.transfer(session, message=b"Subject: x\n\nx\n")
        options = ["BODY=8BITMIME SMTPUTF8", "BODY=8BITMIME", "BODY=8BITMIME", ""]
        self.assertEqual([mail.options for mail in relay.mails], options)
        self.assertEqual(relay.mails[0].data, self.TEXT.replace(b"\n", b"\r\n"))

    def test_where_it_is_not(self) -> None:
        """It goes as it is, as from every mail server."""
        relay = self.start(keywords=["8BITMIME"])
        self.transfer(self.session(relay), message=self.TEXT)
        self.assertEqual(relay.mails[0].options, "BODY=8BITMIME")
        self.assertEqual(relay.mails[0].data, self.TEXT.replace(b"\n", b"\r\n"))


if __name__ == "__main__":
    unittest.main()
