"""What replies and commands are, octet by octet, and at the limits themselves."""

from __future__ import annotations

import io
import unittest
from typing import Any

from zope.sendmail.config.settings import Notify
from zope.sendmail.lifecycle.outcome import Answer, Reply
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.smtp.protocol.body import WINDOW, Body
from zope.sendmail.smtp.protocol.commands import EnvelopeCommands, Extensions, MailNotSupported
from zope.sendmail.smtp.protocol.progress import (
    Progress,
    note_refused,
    pairs,
    reply_about_mail,
    reply_about_recipient,
    reply_from,
)
from zope.sendmail.smtp.protocol.replies import MalformedReply, ReplyReader, Response

JANE, JOE = "jane@example.com", "joe@example.com"


def read(octets: bytes) -> list[Response]:
    """Return all replies in it, fed at once."""
    reader = ReplyReader()
    reader.feed(octets)
    return list(iter(reader.next, None))


class WhatIsNoReply(unittest.TestCase):
    def test_is_told_with_its_words(self) -> None:
        """Two hundred octets of them."""
        for octets, words in (
            (b"hello\r\n", "the relay's reply is none: b'hello'"),
            (b"x" * 300 + b"\r\n", f"the relay's reply is none: b'{'x' * 200}'"),
            (b"\n", "the relay's reply is none: b''"),
            (b"\n" + b"x" * 9000, "the relay's reply is none: b''"),
            (
                b"250-a\r\n251 " + b"x" * 300 + b"\r\n",
                f"the relay's reply begins with b'250' and goes on with b'251 {'x' * 196}'",
            ),
            (b"250-a\r\n251 b\r\n", "the relay's reply begins with b'250' and goes on with b'251 b'"),
            (b"2" * 8193, "a line of the relay's reply has more than 8192 octets"),
            (b"250-\r\n" * 501, "a reply has more than 500 lines or 65536 octets"),
            ((b"250-" + b"x" * 8000 + b"\r\n") * 9, "a reply has more than 500 lines or 65536 octets"),
        ):
            with self.subTest(words=words):
                with self.assertRaises(MalformedReply) as caught:
                    read(octets)
                self.assertEqual(str(caught.exception), words)

    def test_is_something_else_than_a_long_one(self) -> None:
        """A line of 8192 octets, 500 lines, and 65536 octets of lines, are read, also behind another reply."""
        self.assertEqual(read(b"250 " + b"x" * 8187 + b"\r\n"), [Response(250, b"x" * 8187)])
        self.assertEqual(read(b"250-a\r\n" * 499 + b"250 a\r\n"), [Response(250, b"\n".join([b"a"] * 500))])
        lines = [*[b"250-" + b"x" * 4092] * 15, b"250 " + b"x" * 4092]
        for octets in ([*lines], [b"250-a", b"250 b", *lines]):
            self.assertEqual(read(b"\r\n".join([*octets, b""]))[-1], Response(250, b"\n".join([b"x" * 4092] * 16)))
        with self.assertRaises(MalformedReply):
            read(b"\r\n".join([b"250-", *lines, b""]))

    def test_is_read_word_by_word(self) -> None:
        """Only blanks around a line do not count."""
        self.assertEqual(read(b"250- X\tx X \r\n250 \tX\r\n"), [Response(250, b"X\tx X\nX")])

    def test_has_a_first_digit(self) -> None:
        """Which decides."""
        self.assertEqual([Response(code, b"").digit for code in (200, 299, 300, 354, 421, 599)], [2, 2, 3, 3, 4, 5])

    def test_is_shown_as_far_as_it_helps(self) -> None:
        """Two hundred characters; what is not UTF-8 is escaped."""
        self.assertEqual(str(Response(550, b"no\xff")), "550 no\\xff")
        self.assertEqual(len(str(Response(550, b"x" * 300))), 204)


class ARefusal(unittest.TestCase):
    def test_of_what_is_our_fault_rejects_no_mail(self) -> None:
        """The login, a command at the wrong time: of all codes these alone."""
        final = {code for code in range(500, 600) if reply_about_mail(code, "no").answer is Answer.REJECTED}
        self.assertEqual(set(range(500, 600)) - final, {503, 530, 534, 535, 538})
        self.assertEqual(reply_about_mail(535, "5.7.8 no"), Reply(Answer.DEFERRED, "no", 535, "5.7.8"))

    def test_of_a_recipient_too_many_is_for_now(self) -> None:
        """552 as well (RFC 5321, 4.5.3.1.10); of a mail it is final."""
        final = {code for code in range(500, 600) if reply_about_recipient(code, "no").answer is Answer.REJECTED}
        self.assertEqual(set(range(500, 600)) - final, {503, 530, 534, 535, 538, 552})
        self.assertEqual(reply_about_recipient(552, "5.2.2 no"), Reply(Answer.DEFERRED, "no", 552, "5.2.2"))
        quota = reply_about_mail(550, "5.4.5 Daily user sending quota exceeded")
        self.assertEqual(quota, Reply(Answer.DEFERRED, "Daily user sending quota exceeded", 550, "5.4.5"))
        many = reply_about_recipient(550, "5.5.3 too many recipients")
        self.assertEqual(many, Reply(Answer.DEFERRED, "too many recipients", 550, "5.5.3"))

    def test_is_told_as_smtplib_tells_it(self) -> None:
        """With a code where no relay has given one."""
        refused = {
            "a": Reply(Answer.REJECTED, "no", 550, "5.1.1"),
            "b": Reply(Answer.REJECTED, "no"),
            "c": Reply(Answer.DEFERRED, "later"),
        }
        self.assertEqual(pairs(refused), {"a": (550, b"5.1.1 no"), "b": (553, b"no"), "c": (451, b"later")})

    def test_is_read_as_smtplib_tells_it(self) -> None:
        """What is no pair of a code and a text says nothing for good."""
        self.assertEqual(reply_from((550, b"no")), Reply(Answer.REJECTED, "no", 550))
        self.assertEqual(reply_from((550, 7)), Reply(Answer.REJECTED, "7", 550))
        for said in (("550", b"no"), (550, b"no", 1), None, "no"):
            self.assertEqual(reply_from(said), Reply(Answer.DEFERRED, str(said)), said)

    def test_counts_more_than_a_yes(self) -> None:
        """A dictionary has the refused; anything else says that all were taken."""
        progress = Progress(Envelope("a@x", (JANE, JOE)), accepted={JANE: Reply(Answer.ACCEPTED, "ok")})
        note_refused(progress, None)
        self.assertEqual((list(progress.accepted), progress.refused), ([JANE], {}))
        note_refused(progress, {JANE: (550, b"no"), "other@x": (550, b"no")})
        self.assertEqual((progress.accepted, progress.refused), ({}, {JANE: Reply(Answer.REJECTED, "no", 550)}))


class AnAttempt(unittest.TestCase):
    FLAGS = (
        *("opened", "logged_in", "begun", "has_too_many", "sent_ahead", "text_wanted", "intended"),
        *("pipelining_failed", "out_of_sync"),
    )

    def test_begins_with_nothing(self) -> None:
        """Nothing was said, nothing has gone."""
        progress = Progress(Envelope("a@x", (JANE,)))
        self.assertEqual([name for name in self.FLAGS if getattr(progress, name)], [])
        said = (progress.accepted, progress.refused, progress.served, progress.unasked)
        self.assertEqual(said, ({}, {}, {}, []))

    def test_that_starts_over_forgets_what_was_said(self) -> None:
        """But not that it has logged in before, and that PIPELINING did not do."""
        progress = Progress(Envelope("a@x", (JANE,)))
        for name in self.FLAGS:
            setattr(progress, name, True)
        yes = {JANE: Reply(Answer.ACCEPTED, "ok")}
        progress.accepted, progress.refused, progress.served, progress.unasked = dict(yes), dict(yes), dict(yes), [JANE]
        progress.start_over()
        self.assertEqual([name for name in self.FLAGS if getattr(progress, name)], ["logged_in", "pipelining_failed"])
        said = (progress.accepted, progress.refused, progress.served, progress.unasked)
        self.assertEqual(said, ({}, {}, {}, []))


class TheCommands(unittest.TestCase):
    def lines(self, extensions: Extensions, message: bytes | None = None, **more: Any) -> list[bytes]:
        body = None if message is None else Body.of_octets(message)
        commands = EnvelopeCommands(Envelope("a@x", (JANE,)), body, extensions, **more)
        return [commands.mail.line, *(each.line for each in commands.recipients)]

    def test_say_what_the_relay_understands(self) -> None:
        """Each parameter if its extension is announced, and there is a reason for it."""
        everything = Extensions(pipelining=True, eightbit=True, smtputf8=True, dsn=True, size=0)
        to = b"RCPT TO:<jane@example.com>"
        for extensions, message, notify, options, more in (
            (Extensions(), b"x\r\n", Notify(), b"", b""),
            (everything, None, Notify(), b"", b""),
            (everything, b"x\r\n", Notify(), b" SIZE=3", b""),
            (everything, b"\xfc\r\n", Notify(), b" SIZE=3 BODY=8BITMIME", b""),
            (everything, b"X: \xc3\xbc\r\n\r\n", Notify(), b" SIZE=9 BODY=8BITMIME SMTPUTF8", b""),
            (Extensions(eightbit=True), b"X: \xc3\xbc\r\n\r\n", Notify(), b" BODY=8BITMIME", b""),
            (everything, None, Notify(("FAILURE", "DELAY"), "HDRS"), b" RET=HDRS", b" NOTIFY=FAILURE,DELAY"),
            (Extensions(), None, Notify(("FAILURE", "DELAY"), "HDRS"), b"", b""),
        ):
            with self.subTest(options=options):
                found = self.lines(extensions, message, notify=notify)
                self.assertEqual(found, [b"MAIL FROM:<a@x>" + options + b"\r\n", to + more + b"\r\n"])

    def test_are_none_for_a_mail_that_the_relay_cannot_take(self) -> None:
        """It is told beforehand, with the code that the relay would have."""
        self.assertEqual(self.lines(Extensions(size=3), b"x\r\n")[0], b"MAIL FROM:<a@x> SIZE=3\r\n")
        with self.assertRaises(MailNotSupported) as caught:
            self.lines(Extensions(size=2), b"x\r\n")
        reply = Reply(Answer.REJECTED, "the message has 3 octets, the relay takes at most 2", None, "5.3.4")
        self.assertEqual((caught.exception.code, caught.exception.reply), (552, reply))
        self.assertEqual(str(caught.exception), reply.text)
        with self.assertRaises(MailNotSupported) as caught:
            EnvelopeCommands(Envelope("\u00fc@x", (JANE,)), None, Extensions())
        with self.assertRaises(MailNotSupported):
            self.lines(Extensions(size=1), b"x\r\n")
        words = "the address is not ASCII, and the relay does not take such (SMTPUTF8)"
        self.assertEqual((caught.exception.code, str(caught.exception.reply)), (553, f"5.6.7 {words}"))

    def test_leave_out_whom_the_relay_cannot_be_asked_about(self) -> None:
        """Those that have no spelling, and those beyond what it takes with one mail."""
        envelope = Envelope("a@x", (JANE, "\u00fc@x", "a@\u00fc.example", JOE))
        commands = EnvelopeCommands(envelope, None, Extensions(), limit=2)
        self.assertEqual([each.recipient for each in commands.recipients], [JANE, "a@\u00fc.example"])
        self.assertEqual(commands.recipients[1].line, b"RCPT TO:<a@xn--tda.example>\r\n")
        self.assertEqual((list(commands.refused), commands.unasked), (["\u00fc@x"], [JOE]))

    def test_have_no_line_break_in_them(self) -> None:
        """An address with one would smuggle in a command; it cannot get here, and would not pass."""
        for character in "\r\n\0":
            with self.assertRaises(ValueError) as caught:
                EnvelopeCommands(Envelope(f"a{character}@x", (JANE,)), None, Extensions())
            text = f"MAIL FROM:<a{character}@x>"
            self.assertEqual(str(caught.exception), f"a command cannot have a line break in it: {text!r}")

    def test_have_any_other_character_in_them(self) -> None:
        """Also one that nobody sees: what an address is has been decided before."""
        commands = EnvelopeCommands(Envelope("a\u00adb@x", (JANE,)), None, Extensions(smtputf8=True))
        self.assertEqual(commands.mail.line, "MAIL FROM:<a\u00adb@x> SMTPUTF8\r\n".encode())


class WhatARelayAnnounces(unittest.TestCase):
    def test_is_read_from_its_keywords(self) -> None:
        """A size that is no number sets no limit; what is not to count does not, in whatever case it is said."""
        features = {"pipelining": "", "8bitmime": "", "smtputf8": "", "dsn": "", "size": "1000"}
        everything = Extensions(pipelining=True, eightbit=True, smtputf8=True, dsn=True, size=1000)
        self.assertEqual(Extensions.of(features), everything)
        self.assertEqual(Extensions.of({}), Extensions())
        self.assertEqual(Extensions.of({"size": "many"}).size, 0)
        self.assertEqual(Extensions.of(features, frozenset({"SIZE", "dsn"})).size, None)
        self.assertEqual(everything.without_pipelining().pipelining, False)


class OnceOnly(io.BytesIO):
    """A message that can be read once: a pipe."""

    def tell(self) -> int:
        raise io.UnsupportedOperation


class ABody(unittest.TestCase):
    def test_that_is_small_can_be_sent_again(self) -> None:
        """Even if it can be read only once."""
        body = Body(OnceOnly(b"x\r\n"))
        self.assertEqual([b"".join(body.pieces()) for _ in range(2)], [b"x\r\n"] * 2)

    def test_is_whole_up_to_a_window(self) -> None:
        """What is larger is read in pieces, from its beginning each time."""
        for size, is_whole in ((WINDOW, True), (WINDOW + 2, False)):
            octets = b"x" * (size - 2) + b"\r\n"
            body = Body(io.BytesIO(octets))
            self.assertEqual(body.whole, octets if is_whole else None)
            self.assertEqual(body.measure, (size, False))
            self.assertEqual([b"".join(body.pieces()), b"".join(body.pieces())], [octets, octets])

    def test_says_whether_it_is_beyond_ascii(self) -> None:
        """Wherever it is; whether its header is, in UTF-8, is another question."""
        for text, is_8bit, has_utf8 in (
            (b"X: x\r\n\r\nx\r\n", False, False),
            (b"X: \xc3\xbc\r\n\r\nx\r\n", True, True),
            (b"X: \xfc\r\n\r\nx\r\n", True, False),
            (b"X: x\r\n\r\n\xc3\xbc\r\n", True, False),
            (b"X: x\r\n\r\n\xfc" + b"x" * WINDOW + b"\r\n", True, False),
        ):
            body = Body(io.BytesIO(text))
            self.assertEqual((body.measure, body.has_utf8_header), ((len(text), is_8bit), has_utf8), text[:20])


if __name__ == "__main__":
    unittest.main()
