"""A message beyond ASCII becomes one that every relay and reader understands."""

from __future__ import annotations

import email
import email.policy
import time
import unittest
from email.message import EmailMessage, Message
from email.mime.text import MIMEText

from zope.sendmail.errors import InvalidMessage
from zope.sendmail.message.mime import message_bytes, message_pieces
from zope.sendmail.message.pieces import joined


def read(octets: bytes) -> EmailMessage:
    """The message as a modern reader sees it."""
    message = email.message_from_bytes(octets, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


class AText(unittest.TestCase):
    """A ``str`` that a program has put together."""

    def test_in_ascii_and_bytes_stay_as_they_are(self) -> None:
        """Byte for byte; bytes also with text beyond ASCII."""
        for message in ("Subject: x\n\nx\r\n.\n", b"Subject: Gr\xc3\xbc\xdfe\n\n\xff", "", "x", "\n\nx"):
            octets = message.encode() if isinstance(message, str) else message
            self.assertEqual(message_bytes(message), octets)

    def test_says_what_it_is(self) -> None:
        """Header fields are encoded, the body has a charset; the body itself is not touched."""
        for eol in ("\n", "\r\n"):
            with self.subTest(eol):
                octets = message_bytes(
                    f"From: Jürgen <j@example.org>{eol}To: Zoë <z@example.org>, a@example.org{eol}"
                    f"Subject: Grüße{eol} und mehr{eol}{eol}Schöne Grüße{eol}"
                )
                head, body = octets.split((eol * 2).encode(), 1)
                self.assertTrue(head.isascii())
                self.assertEqual(body, f"Schöne Grüße{eol}".encode())
                message = read(octets)
                self.assertEqual(message["Subject"], "Grüße und mehr")
                to = [str(each) for each in message["To"].addresses]
                self.assertEqual(to, ["Zoë <z@example.org>", "a@example.org"])
                self.assertEqual(message["From"].addresses[0].display_name, "Jürgen")
                self.assertEqual(message["MIME-Version"], "1.0")
                self.assertEqual(message.get_content_charset(), "utf-8")
                self.assertEqual(message["Content-Transfer-Encoding"], "8bit")
                self.assertEqual(message.get_content().strip(), "Schöne Grüße")

    def test_without_a_header_gets_one(self) -> None:
        """A body alone is a body still."""
        self.assertEqual(read(message_bytes("Grüße\n")).get_content(), "Grüße\n")

    def test_without_a_header_that_begins_beyond_ascii_is_whole(self) -> None:
        """Its first character has two octets."""
        begin = b'MIME-Version: 1.0\nContent-Type: text/plain; charset="utf-8"\nContent-Transfer-Encoding: 8bit\n'
        self.assertEqual(message_bytes("\u00dcber\n"), begin + b"\n\xc3\x9cber\n")

    def test_that_has_some_of_the_fields_gets_the_others(self) -> None:
        """Each of them once."""
        fields = {
            "MIME-Version": "1.0",
            "Content-Type": 'text/plain; charset="utf-8"',
            "Content-Transfer-Encoding": "8bit",
        }
        for name, value in fields.items():
            octets = message_bytes(f"{name}: {value}\n\n\u00fc\n")
            if name == "Content-Type":  # whose charset says all that has to be known
                self.assertEqual(octets, f"{name}: {value}\n\n\u00fc\n".encode())
            else:
                self.assertEqual(
                    sorted(octets.decode().split("\n\n")[0].splitlines()),
                    sorted(f"{each}: {fields[each]}" for each in fields),
                )

    def test_is_unfolded_before_a_field_is_encoded(self) -> None:
        """A word that was folded is one with its neighbours."""
        self.assertEqual(
            message_bytes("Subject: Gr\r\n \u00fc\u00dfe\r\n\r\nx"), b"Subject: =?utf-8?b?R3Igw7zDn2U=?=\r\n\r\nx"
        )

    def test_with_a_header_beyond_ascii_only_gets_no_charset(self) -> None:
        """There is nothing to declare in the body."""
        self.assertEqual(message_bytes("Subject: Grüße\n\nx\n"), b"Subject: =?utf-8?b?R3LDvMOfZQ==?=\n\nx\n")

    def test_that_declares_its_own_keeps_it(self) -> None:
        """Charset, type and encoding; the body is written in the charset that it names."""
        declared = 'Content-Type: text/html; charset="{}"\nContent-Transfer-Encoding: 8bit\n\nGrüße €\n'
        for charset in ("utf-8", "UTF-8", "iso-8859-15", "cp1252"):
            text = declared.format(charset)
            self.assertEqual(message_bytes(text), text.encode(charset))
        for charset in ("iso-8859-1", "no-such-charset"):  # which has no euro sign
            text = declared.format(charset)
            self.assertEqual(message_bytes(text), text.encode("utf-8"))
        multipart = (
            "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/x; charset=utf-8\n\nä\n--b--\n"
        )
        self.assertEqual(message_bytes(multipart), multipart.encode())

    def test_that_declares_half_of_it_gets_the_rest(self) -> None:
        """A type without a charset."""
        message = read(message_bytes("Content-Type: text/html\nSubject: x\n\n<p>Grüße</p>\n"))
        self.assertEqual((message.get_content_type(), message.get_content()), ("text/html", "<p>Grüße</p>\n"))

    def test_keeps_addresses_out_of_encoded_words(self) -> None:
        """RFC 2047, 5: a domain gets its spelling in ASCII, a local part stays (RFC 6532)."""
        octets = message_bytes(
            'To: "Müller, \\"J\\"" <j@bücher.example>, jürgen@example.org, a@example.org (Jörg)\nSubject: x\n\nx\n'
        )
        self.assertIn(b"<j@xn--bcher-kva.example>", octets)
        self.assertIn("jürgen@example.org".encode(), octets)
        self.assertEqual(read(octets)["To"].addresses[0].display_name, 'Müller, "J"')
        self.assertIn(b"<a@example.org>", octets)

    def test_leaves_fields_alone_that_have_a_syntax_of_their_own(self) -> None:
        """An encoded word would be no word there."""
        text = "Content-Disposition: attachment; filename=ä.txt\nReferences: <ä@b>\nSubject: x\n\nx\n"
        self.assertEqual(message_bytes(text), text.encode())
        for name in [
            "Message-Id",
            "In-Reply-To",
            "References",
            "Date",
            "Resent-Date",
            "Resent-Message-Id",
            "Received",
            "Return-Path",
            "MIME-Version",
            "Content-Type",
            "Content-Transfer-Encoding",
            "Content-Disposition",
            "Content-Id",
            "DKIM-Signature",
            "ARC-Seal",
            "Authentication-Results",
            "List-Id",
            "List-Unsubscribe",
            "List-Unsubscribe-Post",
            "List-Post",
            "List-Help",
            "List-Archive",
        ]:
            self.assertEqual(message_bytes(f"{name}: \u00fc\n\nx"), f"{name}: \u00fc\n\nx".encode(), name)

    def test_encodes_names_before_addresses_in_all_fields_that_have_some(self) -> None:
        """As one word each; the address is no part of it."""
        for name in [
            "From",
            "Sender",
            "Reply-To",
            "To",
            "Cc",
            "Bcc",
            "Resent-From",
            "Resent-Sender",
            "Resent-To",
            "Resent-Cc",
            "Resent-Bcc",
            "Errors-To",
            "Disposition-Notification-To",
            "Return-Receipt-To",
            "Mail-Followup-To",
        ]:
            octets = message_bytes(f"{name}: \u00fc <a@b>\n\nx")
            self.assertEqual(octets, f"{name}: =?utf-8?b?w7w=?= <a@b>\n\nx".encode(), name)

    def test_folds_a_long_subject(self) -> None:
        """No line is longer than it may be, and the whole is read back."""
        subject = "Übermäßig lange Überschrift " * 40
        octets = message_bytes(f"Subject: {subject}\n\nx\n")
        self.assertLess(max(map(len, octets.splitlines())), 80)
        self.assertEqual(read(octets)["Subject"].strip(), subject.strip())

    def test_folds_at_76_characters(self) -> None:
        """With the name of the field in front, which may be of any length (RFC 2047, 2)."""
        for value, names in (
            ("{0}", ("Subject", "X-Long", "X-Longer", "X-Longest")),
            ("{0} <a@example.org>", ("To", "From", "Sender", "Resent-From")),
        ):
            widths = set()
            for name in names:
                for length in range(1, 120):
                    lines = message_bytes(f"{name}: {value.format('ü' * length)}\n\nx").splitlines()
                    widths |= {len(line.partition(b" <")[0]) for line in lines}
            self.assertEqual(max(widths), 76)

    def test_is_folded_as_its_other_lines_end(self) -> None:
        """With CRLF where it has that."""
        octets = message_bytes(f"Subject: {'ü' * 100}\r\n\r\nx\r\n")
        self.assertEqual(octets.count(b"\n"), octets.count(b"\r\n"))
        self.assertGreater(octets.count(b"\n"), 3)
        mixed = message_bytes("Subject: x\r\n\n\u00fc\n")
        header = mixed.removesuffix(b"\n\xc3\xbc\n")
        self.assertEqual((header.count(b"\n"), header.count(b"\r\n")), (4, 4))

    def test_keeps_a_name_before_an_address_that_is_spelled_anew(self) -> None:
        """As it stands, if it is ASCII."""
        octets = message_bytes("To: Jane <jane@b\u00fccher.example>, <j@b\u00fccher.example>\n\nx")
        self.assertEqual(octets, b"To: Jane <jane@xn--bcher-kva.example>,\n <j@xn--bcher-kva.example>\n\nx")

    def test_cannot_smuggle_in_a_header(self) -> None:
        """What is encoded has no line ends of its own."""
        octets = message_bytes("Subject: ä\rBcc: evil@example.org\n\nä\n")
        self.assertNotIn(b"\nBcc", octets.replace(b"\r", b""))

    def test_takes_no_time(self) -> None:
        """However hostile."""
        begin = time.thread_time()
        for value in (
            "ä<" * 9999,
            "ä," * 9999,
            '"ä' * 9999,
            "ä(" * 9999,
            "ä\\" * 9999,
            'ä "' + "\\" * 9999 + "<",
        ):
            message_bytes(f"To: {value}\nFrom: {value}\n\nx")
        self.assertLess(time.thread_time() - begin, 20.0)


class AMessageObject(unittest.TestCase):
    """Objects of the email package, old and new."""

    def test_keeps_links_and_identifiers_that_are_longer_than_a_line(self) -> None:
        """The email package would put them into encoded words, which are none there (RFC 2047, 5)."""
        link, identifier = f"<https://example.org/{'a' * 90}>", f"<{'b' * 90}@example.org>"
        given = {
            "List-Unsubscribe": f"{link}, <mailto:leave@example.org>",
            "References": f"<1@example.org> {identifier}",
            "In-Reply-To": identifier,
            "List-Id": f"News of the shop <{'c' * 60}.example.org>",
        }
        for message in (EmailMessage(), Message()):
            for name, value in given.items():
                message[name] = value
            octets = message_bytes(message)
            self.assertNotIn(b"=?", octets)
            parsed = email.message_from_bytes(octets)
            self.assertEqual({name: " ".join(parsed[name].split()) for name in given}, given)

    def test_with_short_links_is_written_as_it_is(self) -> None:
        """So is one with links beyond ASCII, which are none, with long words elsewhere, and with none at all.

        What Python itself cannot write, as from 3.14 on such links, is refused.
        """
        for value in ("<1@example.org> <2@example.org>", f"<{'a' * 38}>", f"<\u00fc{'a' * 90}@example.org>", ""):
            message = EmailMessage()
            message["References"] = value
            message["List-Archive"] = "<https://example.org/>"
            message["Subject"] = "x" * 90
            try:
                written = message.as_bytes()
            except UnicodeEncodeError:
                with self.assertRaises(InvalidMessage):
                    message_bytes(message)
            else:
                self.assertEqual(message_bytes(message), written)

    def test_keeps_all_kinds_of_links(self) -> None:
        """From the first that is known to the last."""
        for name, link in (
            ("Message-ID", f"<{'a' * 41}@example.org>"),
            ("List-Archive", f"<https://x.org/{'a' * 90}>"),
        ):
            for message in (EmailMessage(), Message()):
                message[name] = link
                self.assertEqual(" ".join(message_bytes(message).decode().split()), f"{name}: {link}")

    def test_is_folded_at_76_characters_where_it_is_written_anew(self) -> None:
        """As a text is."""
        widths = set()
        for length in range(1, 120):
            message = EmailMessage()
            message["To"] = f"{'ü' * length} <j@bücher.example>"
            widths |= {len(line.partition(b" <")[0]) for line in message_bytes(message).splitlines()}
        self.assertEqual(max(widths), 76)

    def test_comes_in_pieces(self) -> None:
        """Which are its octets."""
        message = MIMEText("x" * 100_000)
        pieces = message_pieces(message)
        self.assertGreater(len(pieces), 1)
        self.assertEqual(joined(pieces), message.as_bytes())
        self.assertEqual(message_pieces("x"), (b"x",))

    def test_whose_text_has_another_encoding_is_encoded_anew(self) -> None:
        """In what fits it, which is said once."""
        old = Message()
        old["Content-Transfer-Encoding"] = "7bit"
        old["Content-Type"] = "text/plain"
        old.set_payload("Gr\u00fc\u00dfe\n")
        message = read(message_bytes(old))
        self.assertEqual(message.get_content().strip(), "Gr\u00fc\u00dfe")
        self.assertEqual(message.get_all("Content-Transfer-Encoding", []), ["base64"])

    def test_with_a_folded_field_is_unfolded_before_it_is_encoded(self) -> None:
        """Nothing is added between its lines; a character that is lost stays lost."""
        old = Message()
        old["To"] = "Jane\n Doe <jane@b\u00fccher.example>"
        self.assertEqual(message_bytes(old), b"To: Jane Doe <jane@xn--bcher-kva.example>\n\n")
        new = EmailMessage()
        new["To"] = "J\udcfcrgen <j@b\u00fccher.example>"
        self.assertEqual(read(message_bytes(new))["To"].addresses[0].display_name, "J\ufffdrgen")

    def test_with_text_and_no_charset_is_encoded(self) -> None:
        """A codec's error is nothing to tell a program."""
        old = Message()
        old["Subject"] = "Grüße"
        old.set_payload("Schöne Grüße\n")
        message = read(message_bytes(old))
        self.assertEqual((message["Subject"], message.get_content().strip()), ("Grüße", "Schöne Grüße"))
        self.assertEqual(old.get_payload(), "Schöne Grüße\n")

    def test_with_text_beyond_its_charset_is_encoded(self) -> None:
        """The euro is not in latin-1."""
        old = Message()
        old["Content-Type"] = "text/plain; charset=iso-8859-1"
        old.set_payload("5 €\n")
        self.assertEqual(read(message_bytes(old)).get_content().strip(), "5 €")

    def test_keeps_addresses_out_of_encoded_words(self) -> None:
        """A local part and a domain beyond ASCII, in both kinds of objects (RFC 2047, 5; RFC 6532)."""
        for make in (EmailMessage, lambda: MIMEText("x", "plain", "utf-8")):
            message = make()
            message["From"] = "Zoë <zoë@example.org>"
            message["To"] = "jürgen@bücher.example, Jane <jane@bücher.example>"
            message["Cc"] = "Zoë <zoe@example.org>"
            message["Subject"] = "Grüße"
            octets = message_bytes(message)
            with self.subTest(octets):
                self.assertIn("<zoë@example.org>".encode(), octets)
                self.assertIn("jürgen@bücher.example".encode(), octets)
                self.assertIn(b"Jane <jane@xn--bcher-kva.example>", octets)
                self.assertEqual(read(octets)["Subject"], "Grüße")
                self.assertEqual(read(octets)["Cc"].addresses[0].display_name, "Zoë")

    def test_that_is_right_already_is_written_as_it_is(self) -> None:
        """Its own generator knows best."""
        for sender in ("Zoë <zoe@example.org>", "zoe@example.org (Zoë)", '"Zoë, A." <zoe@example.org>'):
            message = EmailMessage()
            message["From"] = sender
            message["Subject"] = "Grüße"
            message.set_content("Grüße\n")
            self.assertEqual(message_bytes(message), message.as_bytes())

    def test_that_cannot_be_written_is_refused(self) -> None:
        """With an error that callers catch."""
        broken = Message()
        broken.set_payload(["x"])  # a list of parts that are none
        with self.assertRaises(InvalidMessage) as caught:
            message_bytes(broken)
        self.assertRegex(str(caught.exception), "^the message object cannot be written: AttributeError: 'str' object")
        for other in (None, 42, object(), "\ud800"):
            self.assertRaises(InvalidMessage, message_bytes, other)
