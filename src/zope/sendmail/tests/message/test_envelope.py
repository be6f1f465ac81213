"""The envelope, and the lines of a queue file that keep it."""

from __future__ import annotations

import io
import itertools
import re
import unittest
from unittest import mock

from hypothesis import given, strategies as st

from zope.sendmail.interfaces import InvalidAddress, MalformedEnvelope
from zope.sendmail.message.envelope import END, Envelope, envelope_lines, read_envelope, usual_envelope
from zope.sendmail.message.relayname import RelayName
from zope.sendmail.tests.message.test_address import ADDRESS
from zope.sendmail.tests.support.layers import properties_apart
from zope.sendmail.tests.support.properties import QUICK

LINE = st.sampled_from(
    [
        b"X-Zope-From: evil@example.org\n",
        b"x-zope-to: evil@example.org\r\n",
        b"X-Zope-Envelope: end\n",
        b"X-Zope-Hostname: evil\n",
        b"X-Zope-Port: 1\n",
        b"X-Zope-Username: u\n",
        b"X-Zope-Password: p\n",
        b"X-Zope-",
        b"Subject: x\n",
        b"\n",
        b" ",
    ]
)
MESSAGE = st.lists(LINE | st.binary(max_size=20), max_size=8).map(b"".join)


def read(text: bytes) -> tuple[Envelope, bytes]:
    """Envelope and message of a queue file."""
    stream = io.BytesIO(text)
    return read_envelope(stream), stream.read()


class EnvelopesOfCallers(unittest.TestCase):
    def test_one_recipient_may_be_no_list(self) -> None:
        """A str or bytes is one recipient, not one for each character (fault B6 of 7.3)."""
        for toaddrs in ("one@example.org", b"one@example.org", ["one@example.org"], ("one@example.org",)):
            self.assertEqual(Envelope.of("a@example.org", toaddrs).recipients, ("one@example.org",))

    def test_recipients_are_kept_once_and_in_order(self) -> None:
        """A recipient named twice gets one mail."""
        envelope = Envelope.of("a@example.org", iter(["c@example.org", "b@example.org", "C <c@example.org>"]))
        self.assertEqual(envelope.recipients, ("c@example.org", "b@example.org"))

    def test_the_empty_sender_is_said_on_purpose(self) -> None:
        """The empty string is the null reverse-path; None is a mistake."""
        self.assertEqual(Envelope.of("", ["b@example.org"]).sender, "")
        self.assertRaises(InvalidAddress, Envelope.of, None, ["b@example.org"])

    def test_any_series_of_recipients_will_do(self) -> None:
        """Also a generator, a mapping, and a series without `__iter__`, as the keys of a BTree are."""

        class Keys:
            def __getitem__(self, index: int) -> str:
                return ("one@example.org", "", "root")[index]

        for toaddrs in (Keys(), (each for each in Keys()), {"one@example.org": 1, "root": 2}):  # type: ignore[attr-defined]  # a class of the test
            self.assertEqual(Envelope.of("a@example.org", toaddrs).recipients, ("one@example.org", "root"))

    def test_no_recipient_is_a_mistake(self) -> None:
        """Empty, None, or no list at all."""
        for toaddrs in ([], (), None, 7, "", [""], [None], {"a b": 1}, object()):
            with self.subTest(toaddrs):
                self.assertRaises(InvalidAddress, Envelope.of, "a@example.org", toaddrs)

    def test_one_bad_recipient_refuses_all(self) -> None:
        """The caller learns it, instead of a mail that reaches some (fault A5 of 7.3)."""
        self.assertRaises(InvalidAddress, Envelope.of, "a@example.org", ["b@example.org", "x\ny@example.org"])

    def test_only_keeps_the_sender(self) -> None:
        """The same envelope for fewer recipients."""
        envelope = Envelope("a@example.org", ("b@example.org", "c@example.org"), ("bad",))
        self.assertEqual(envelope.only(["c@example.org"]), Envelope("a@example.org", ("c@example.org",)))

    def test_a_list_that_could_not_be_read_back_is_refused(self) -> None:
        """Its line would be longer than a reader takes."""
        with mock.patch("zope.sendmail.message.envelope.MAX_LINE", 8 * 30):
            Envelope.of("a@example.org", ["one@example.org", "two@example.org"])
            with self.assertRaisesRegex(InvalidAddress, "3 recipients, too many"):
                Envelope.of("a@example.org", ["one@example.org", "two@example.org", "three@example.org"])


class QueueFiles(unittest.TestCase):
    def test_the_lines_are_those_of_the_older_releases(self) -> None:
        """zope.sendmail 3.5 to 7.3 reads them."""
        envelope = Envelope("a@example.org", ("b@example.org", "c@example.org"))
        self.assertEqual(
            envelope_lines(envelope, b"Subject: x\n\n"),
            b"X-Zope-From: a@example.org\nX-Zope-To: b@example.org, c@example.org\n",
        )

    def test_the_third_line_comes_only_when_needed(self) -> None:
        """A message that begins like envelope is fenced off."""
        envelope = Envelope("", ("b@example.org",))
        self.assertFalse(envelope_lines(envelope, b"X-Zop").endswith(END))
        self.assertTrue(envelope_lines(envelope, b"", b"X-Zo", b"pe-Hostname: evil.example\n").endswith(END))
        self.assertTrue(envelope_lines(envelope, b"x-zOPE-anything").endswith(END))

    @QUICK
    @given(ADDRESS | st.just(""), st.lists(ADDRESS, min_size=1, max_size=4, unique=True), MESSAGE)
    def test_what_was_written_is_read(self, sender: str, recipients: list[str], message: bytes) -> None:
        """Envelope and message come back byte for byte; no message becomes envelope."""
        envelope = Envelope.of(sender, recipients)
        self.assertEqual(read(envelope_lines(envelope, message) + message), (envelope, message))

    @QUICK
    @given(st.binary(max_size=60), st.integers(0, 200))
    def test_any_other_file_is_refused(self, text: bytes, cut: int) -> None:
        """Garbage and torn files raise MalformedEnvelope and nothing else."""
        whole = envelope_lines(Envelope("a@example.org", ("b@example.org",)), b"") + text
        for file in (text, whole[:cut], text + whole):
            try:
                envelope, _ = read(file)
            except MalformedEnvelope as error:
                self.assertTrue(error.permanent)
            else:
                self.assertTrue(envelope.recipients or envelope.malformed)

    def test_the_usual_file_takes_a_short_way_to_the_same(self) -> None:
        """Envelope and message are those that are found line by line, wherever in the stream the file begins."""
        addresses = ["", "a@example.org", "a@example.org, b.c+d@x-y.org", "b@x.org, b@x.org", "a@b,c@d", "<a@b>", "a"]
        addresses += ["a@b..c", "a@b-", "A <a@b>", "é@b", "a" * 890 + "@b.c", "a" * 910 + "@b", "a@b, a@b,", '"a"@b']
        messages = [b"", b"S", b"\n", b"xyz\n", b"X-Mailer: y\n", b"X-Zope-Envelope: end\nS", END + b"X", b"S" * 2000]
        files = [
            b"X-Zope-From: %b%bX-Zope-To: %b%b%b" % (sender.encode(), eol, recipients.encode(), eol, message)
            for sender, recipients in itertools.product(addresses, repeat=2)
            for eol in (b"\n", b"\r\n", b"\r")
            for message in messages
        ]
        short = [self.read_behind(file) for file in files]
        with mock.patch("zope.sendmail.message.envelope._USUAL", re.compile(rb"(?!)")):
            self.assertEqual(short, [self.read_behind(file) for file in files])

    def read_behind(self, file: bytes) -> object:
        """What a stream gives that stands at a file behind something else."""
        stream = io.BytesIO(b"something" + file)
        stream.seek(len(b"something"))
        try:
            return read_envelope(stream), stream.read()
        except MalformedEnvelope as error:
            return str(error)

    def test_the_usual_file_takes_the_short_way(self) -> None:
        """It is most of all that is read; where the message begins is told."""
        begin = b"X-Zope-From: a@x\nX-Zope-To: b@x, c@x, b@x\n"
        self.assertEqual(usual_envelope(begin + b"Subject: x\n\n"), (Envelope("a@x", ("b@x", "c@x")), len(begin)))
        self.assertIsNone(usual_envelope(begin + b"X-Mailer: x\n\n"))

    def test_files_of_older_releases(self) -> None:
        """Any case, CRLF, display names, several blanks."""
        envelope, message = read(
            b'x-zope-from: A <a@example.org>\r\nX-ZOPE-TO:  b@example.org,"C, D" <c@example.org>\r\nSubject: x\r\n'
        )
        self.assertEqual(envelope, Envelope("a@example.org", ("b@example.org", "c@example.org")))
        self.assertEqual(message, b"Subject: x\r\n")

    def test_null_sender(self) -> None:
        """Written and read."""
        self.assertEqual(read(b"X-Zope-From: \nX-Zope-To: b@example.org\n")[0].sender, "")
        self.assertEqual(read(b"X-Zope-From:\nX-Zope-To:b@example.org\n")[0].sender, "")

    def test_blanks_around_a_value_are_none_of_it(self) -> None:
        """Letters are, whichever they are."""
        envelope = read(b'X-Zope-From:  Xa@example.XX \r\nX-Zope-To: "X"@example.XX\n')[0]
        self.assertEqual(envelope, Envelope("Xa@example.XX", ('"X"@example.XX',)))

    def test_one_malformed_recipient_does_not_stop_the_others(self) -> None:
        """An older release wrote what it was given (fault A5 of 7.3)."""
        envelope, _ = read(b"X-Zope-From: a@example.org\nX-Zope-To: b@example.org, a@b@c.org, \xff@d.org\n")
        self.assertEqual(envelope.recipients, ("b@example.org",))
        self.assertEqual(envelope.malformed, ("a@b@c.org", "\udcff@d.org"))

    def test_names_without_a_domain_are_sent(self) -> None:
        """Nobody can be told any more that one is missing, and a relay of this host knows its users."""
        envelope, _ = read(b"X-Zope-From: root\nX-Zope-To: jane.doe, b@example.org, a b, -x\n")
        self.assertEqual((envelope.sender, envelope.recipients), ("root", ("jane.doe", "b@example.org")))
        self.assertEqual(envelope.malformed, ("a b", "-x"))

    def test_half_a_display_name_is_no_recipient(self) -> None:
        """An older release wrote names with commas as they came."""
        envelope, _ = read(b"X-Zope-From: a@example.org\nX-Zope-To: Doe, John <j@example.org>\n")
        self.assertEqual((envelope.recipients, envelope.malformed), (("j@example.org",), ("Doe",)))

    def test_no_recipient_and_bad_senders_are_told(self) -> None:
        """The text says what is wrong."""
        with self.assertRaisesRegex(MalformedEnvelope, "no recipient"):
            read(b"X-Zope-From: a@example.org\nX-Zope-To: \n")
        with self.assertRaisesRegex(MalformedEnvelope, "not an address"):
            read(b"X-Zope-From: root@\nX-Zope-To: b@example.org\n")
        with self.assertRaisesRegex(MalformedEnvelope, "second line"):
            read(b"X-Zope-From: a@example.org\nSubject: x\n")
        with self.assertRaisesRegex(MalformedEnvelope, "no end"):
            read(b"X-Zope-From: a@example.org")

    def test_x_zope_headers_of_a_message_stay_in_it(self) -> None:
        """A file of an older release has no third line, and its message may begin like one."""
        message = b"X-Zope-Foo: bar\nX-Zope-Bar: foo\n\nText\n"
        self.assertEqual(read(b"X-Zope-From: a@example.org\nX-Zope-To: b@example.org\n" + message)[1], message)

    def test_a_trace_is_written_and_read(self) -> None:
        """In a line of its own, with a relay or without; a mail without a trace is written as ever."""
        parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        for trace in parent, parent + " vendor=a,other=b c":
            for relay in None, RelayName(mailer="bulk"):
                envelope = Envelope("a@example.org", ("b@example.org",), relay=relay, trace=trace)
                with self.subTest(envelope=envelope):
                    text = envelope_lines(envelope, b"Subject: x\n")
                    self.assertIn(f"X-Zope-Trace: {trace}\n".encode(), text)
                    self.assertEqual(read(text + b"Subject: x\n"), (envelope, b"Subject: x\n"))

    def test_what_is_no_trace_harms_no_mail(self) -> None:
        """It is passed over."""
        start = b"X-Zope-From: a@example.org\nX-Zope-To: b@example.org\n"
        for words in (
            b"",
            b"x",
            b"00-" + b"0" * 32 + b"-b7ad6b7169203331-01",
            b"ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            b"00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            b"\xff\xfe",
        ):
            with self.subTest(words):
                found, message = read(start + b"X-Zope-Trace: " + words + b"\nX-Zope-Envelope: end\nSubject: x\n")
                self.assertEqual((found.trace, message), ("", b"Subject: x\n"))

    def test_a_relay_is_written_and_read(self) -> None:
        """By name or by address; the lines are no part of the message, whatever that begins with."""
        for relay in RelayName(mailer="bulk mail"), RelayName(hostname="r.example.org", port=26):
            for message in b"Subject: x\n\n", b"X-Zope-Port: 99\nX-Zope-Envelope: end\n\n":
                envelope = Envelope("a@example.org", ("b@example.org",), relay=relay)
                self.assertEqual(read(envelope_lines(envelope, message) + message), (envelope, message))

    def test_files_of_cpsmailaccess(self) -> None:
        """Six lines, where the word None says nothing; what follows is the message."""
        start = b"X-Zope-From: a@example.org\nX-Zope-To: b@example.org\n"
        lines = b"X-Zope-Hostname: h\nX-Zope-Port: 26\nX-Zope-Username: %s\nX-Zope-Password: %s\n"
        envelope, message = read(start + lines % (b"None", b"None") + b"X-Zope-Hostname: evil\n\nX-Zope-Port: 1\n")
        self.assertEqual(envelope.relay, RelayName(hostname="h", port=26))
        self.assertEqual(message, b"X-Zope-Hostname: evil\n\nX-Zope-Port: 1\n")
        envelope, _ = read(start + lines % (b"u", b"secret") + b"\n")
        self.assertEqual(envelope.relay, RelayName(hostname="h", port=26, username="u", password="secret"))
        self.assertNotIn("secret", repr(envelope))
        nothing = (b"X-Zope-%s: None\n" % name for name in (b"Hostname", b"Port", b"Username", b"Password"))
        self.assertIsNone(read(start + b"".join(nothing) + b"\n")[0].relay)

    def test_what_never_ends_is_message(self) -> None:
        """More than a hundred lines like envelope are none, since nothing of ours writes so many."""
        start = b"X-Zope-From: a@example.org\nX-Zope-To: b@example.org\n"
        lines = b"X-Zope-Colour: red\n" * 102
        self.assertEqual(read(start + lines + END)[1], lines + END)

    def test_of_maildrophost(self) -> None:
        """Names in what encoding they had; further lines of it are dropped, as long as there are not too many."""
        start = b"##To:b@example.org,<>\n##From:\xfc@example.org\n"
        envelope, message = read(start + b"##Colour:red\nSubject: x\n\n")
        self.assertEqual((envelope, message), (Envelope("ü@example.org", ("b@example.org",)), b"Subject: x\n\n"))
        self.assertEqual(read(start + b"##Colour:red\n" * 101)[1], b"##Colour:red\n")
        for text in (b"##Colour:red\n" * 101 + start + b"x\n", b"##To:b@example.org\n\n", start):
            with self.assertRaises(MalformedEnvelope):
                read(text)

    def test_what_cannot_be_asked_for_is_not_passed_over(self) -> None:
        """The file is refused; a password is never in the text."""
        start = b"X-Zope-From: a@example.org\nX-Zope-To: b@example.org\n"
        end = b"X-Zope-Envelope: end\n"
        for lines, said in (
            (b"X-Zope-Colour: red\n", "X-Zope-Colour"),
            (b"X-Zope-Hostname: a b\n", "hostname"),
            (b"X-Zope-Hostname: h\nX-Zope-Port: 0\nX-Zope-Password: secret\n", "port"),
            (b"X-Zope-Hostname: h\nX-Zope-Port: smtp\n", "port"),
        ):
            with self.subTest(lines=lines), self.assertRaisesRegex(MalformedEnvelope, said) as caught:
                read(start + lines + end + b"\n")
            self.assertNotIn("secret", str(caught.exception))


load_tests = properties_apart
