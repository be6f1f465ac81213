"""`ProgramMailer`, with programs that are really run."""

from __future__ import annotations

import io
import json
import os
import select
import shlex
import shutil
import signal
import smtplib
import sys
import tempfile
import unittest
from typing import Any

import transaction
from zope.interface.verify import verifyObject

from zope.sendmail.delivery import DirectMailDelivery
from zope.sendmail.interfaces import ISession, ISessionMailer, LeaseLost, RelayError
from zope.sendmail.lifecycle.outcome import Answer, Outcome
from zope.sendmail.lifecycle.states import State
from zope.sendmail.mailer import open_session
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.testing.contracts import MESSAGE, envelope
from zope.sendmail.tests.support.exim import Exim
from zope.sendmail.tests.support.processing import ProcessorTest
from zope.sendmail.tests.support.servers import LIMIT
from zope.sendmail.transports.program import ProgramMailer, ProgramSession
from zope.sendmail.transports.sysexits import reply_of

#: Writes down what it gets, then does what the test wants.
RECORDER = """\
#!{python} -IS
import json, os, sys
with open({runs!r}, "a") as runs:
    runs.write(json.dumps([sys.argv[1:], sys.stdin.buffer.read().decode("latin-1")]) + "\\n")
{then}
"""


class Programs(unittest.TestCase):
    """Programs in a directory of their own."""

    def setUp(self) -> None:
        super().setUp()
        self.directory = self.enterContext(tempfile.TemporaryDirectory())
        self.intended = 0

    def path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def script(self, text: str, mode: int = 0o700) -> str:
        """A program with this text."""
        path = self.path("sendmail")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(path, mode)
        return path

    def recorder(self, then: str = "") -> str:
        """A program that writes down what it gets."""
        return self.script(RECORDER.format(python=os.path.realpath(sys.executable), runs=self.path("runs"), then=then))

    def runs(self) -> list[tuple[list[str], str]]:
        """Arguments and standard input of each run of the recorder."""
        if not os.path.exists(self.path("runs")):
            return []
        with open(self.path("runs"), encoding="utf-8") as file:
            return [(arguments, text) for arguments, text in map(json.loads, file)]

    def intend(self) -> None:
        self.intended += 1

    def transfer(self, mailer: ProgramMailer, mail: Envelope | None = None, message: bytes = MESSAGE) -> Outcome:
        return open_session(mailer).transfer(mail or envelope(), io.BytesIO(message), self.intend)


class ARun(Programs):
    def test_provides_the_interfaces(self) -> None:
        """A mailer with sessions."""
        mailer = ProgramMailer(self.recorder())
        verifyObject(ISessionMailer, mailer)
        verifyObject(ISession, open_session(mailer))
        self.assertIsInstance(open_session(mailer), ProgramSession)

    def test_gets_the_envelope_as_arguments(self) -> None:
        """Options first, then the sender, then all recipients."""
        mailer = ProgramMailer(self.recorder(), options=("-odq",))
        outcome = self.transfer(mailer, envelope("one@example.org", "two@example.org"))
        [(arguments, _)] = self.runs()
        expected = ["-odq", "-i", "-oep", "-f", "sender@example.org", "--", "one@example.org", "two@example.org"]
        self.assertEqual(arguments, expected)
        self.assertEqual(list(outcome.having(Answer.ACCEPTED)), ["one@example.org", "two@example.org"])
        self.assertEqual(outcome.relay, mailer.program)

    def test_names_the_null_sender(self) -> None:
        """Bounces leave with <>."""
        self.transfer(ProgramMailer(self.recorder()), envelope(sender=""))
        self.assertEqual(self.runs()[0][0][2:4], ["-f", "<>"])

    def test_takes_no_recipient_for_an_option_and_nothing_for_a_command(self) -> None:
        """Neither dashes nor a shell's characters mean anything."""
        odd = ("-bs@example.org", '"$(id);`id`|id"@example.org')
        self.transfer(ProgramMailer(self.recorder()), envelope(*odd))
        self.assertEqual(self.runs()[0][0][4:], ["--", *odd])

    def test_gets_the_message_as_unix_has_it(self) -> None:
        """Lines end with LF, Bcc is gone, a lone dot stays."""
        text = b"Subject: x\r\nBcc: secret@example.org\r\n\r\none\r\n.\r\ntwo \xc3\xa4\r\n"
        self.transfer(ProgramMailer(self.recorder()), message=text)
        self.assertEqual(self.runs()[0][1].encode("latin-1"), b"Subject: x\n\none\n.\ntwo \xc3\xa4\n")

    def test_gets_a_large_message_whole(self) -> None:
        """Beyond every buffer, and whether the program reads it or not."""
        text = b"Subject: x\n\n" + b"0123456\n" * 100_000
        self.transfer(ProgramMailer(self.recorder()), message=text)
        self.assertEqual(len(self.runs()[0][1]), len(text))
        outcome = self.transfer(ProgramMailer(self.script("#!/bin/sh\nexit 0\n")), message=text)
        self.assertEqual(len(outcome.having(Answer.ACCEPTED)), 1)

    def test_is_not_begun_if_the_lease_is_lost(self) -> None:
        """The program has everything when it starts, so leave is asked for before."""

        def refuse() -> None:
            raise LeaseLost("lost")

        session = open_session(ProgramMailer(self.recorder()))
        with self.assertRaises(LeaseLost):
            session.transfer(envelope(), io.BytesIO(MESSAGE), refuse)
        self.assertEqual(self.runs(), [])

    def test_has_no_more_recipients_than_it_may(self) -> None:
        """Several runs then, and everybody has an answer."""
        recipients = [f"{n}@example.org" for n in range(5)]
        outcome = self.transfer(ProgramMailer(self.recorder(), recipient_limit=2), envelope(*recipients))
        self.assertEqual(
            [arguments[5:] for arguments, _ in self.runs()], [recipients[:2], recipients[2:4], recipients[4:]]
        )
        self.assertEqual(list(outcome.replies), recipients)
        self.assertEqual({text for _, text in self.runs()}, {MESSAGE.decode()})

    def test_is_none_without_recipients(self) -> None:
        """No mail is given to a program that cannot know where it is to go."""
        self.assertEqual(self.transfer(ProgramMailer(self.recorder()), Envelope("a@example.org", ())).replies, {})
        self.assertEqual(self.runs(), [])

    def test_has_arguments_that_fit(self) -> None:
        """A command line has an end, whatever the limit says."""
        recipients = [f"{n:03}{'x' * 800}@example.org" for n in range(200)]
        outcome = self.transfer(ProgramMailer(self.recorder(), recipient_limit=1000), envelope(*recipients))
        self.assertEqual(len(self.runs()), 3)
        self.assertEqual(len(outcome.having(Answer.ACCEPTED)), 200)

    def test_ends_with_the_program_and_not_with_its_children(self) -> None:
        """Exim delivers in the background, with our descriptors open."""
        then = "if os.fork() == 0:\n    open(%r, 'w').write(str(os.getpid()))\n    import signal; signal.pause()\n"
        fifo = self.path("pid")
        os.mkfifo(fifo)
        reader = os.open(fifo, os.O_RDWR)  # a reader alone would read nothing as long as the child has not come so far
        self.addCleanup(os.close, reader)
        outcome = self.transfer(ProgramMailer(self.recorder(then % fifo)))
        os.kill(int(os.read(reader, 20)), signal.SIGKILL)
        self.assertEqual(len(outcome.having(Answer.ACCEPTED)), 1)


class TheExitStatus(unittest.TestCase):
    def test_zero_is_accepted(self) -> None:
        """The program has the mail."""
        reply, is_fault = reply_of(0, "")
        self.assertEqual((reply.answer, is_fault), (Answer.ACCEPTED, False))

    def test_that_blames_the_mail_rejects_it(self) -> None:
        """EX_DATAERR, EX_NOUSER, EX_NOHOST."""
        for status in 65, 67, 68:
            self.assertEqual((reply_of(status, "")[0].answer, reply_of(status, "")[1]), (Answer.REJECTED, False))

    def test_that_is_temporary_or_unclear_defers_it(self) -> None:
        """What is not sure is temporary."""
        for status in 1, 2, 66, 69, 70, 75, 76, 100, 255:
            self.assertEqual((reply_of(status, "")[0].answer, reply_of(status, "")[1]), (Answer.DEFERRED, False))

    def test_that_blames_program_or_host_is_a_fault(self) -> None:
        """The mail is deferred, and the others wait."""
        for status in 64, 71, 72, 73, 74, 77, 78, 126, 127:
            reply, is_fault = reply_of(status, "5.1.1 no such user")
            self.assertEqual((reply.answer, is_fault), (Answer.DEFERRED, True))

    def test_that_is_a_signal_is_unknown(self) -> None:
        """It may have come after the mail was taken; a shell says it with 128 more."""
        for status in -9, -11, 137:
            reply, is_fault = reply_of(status, "")
            self.assertEqual((reply.answer, is_fault), (Answer.UNKNOWN, True))

    def test_is_told_with_the_last_line_of_the_output(self) -> None:
        """One printable line, with the name of the code."""
        reply, _ = reply_of(67, b"warning\nunknown user: \x1b[31mjane\n\n")
        self.assertEqual(reply.text, "exit status 67 (EX_NOUSER): unknown user:  [31mjane")

    def test_may_be_made_clear_by_an_enhanced_code(self) -> None:
        """EX_UNAVAILABLE with class 5 is final; EX_TEMPFAIL stays temporary."""
        reply, _ = reply_of(69, "550 5.7.1 relaying denied")
        self.assertEqual((reply.answer, reply.enhanced), (Answer.REJECTED, "5.7.1"))
        self.assertIs(reply_of(75, "550 5.7.1 relaying denied")[0].answer, Answer.DEFERRED)

    def test_of_exim_is_made_clear_by_its_words(self) -> None:
        """It has one status for everything."""
        for words, answer in (
            ("exim: message rejected by non-SMTP ACL: no spam", Answer.REJECTED),
            ("exim4: message rejected: message too big (max=1048576)", Answer.REJECTED),
            ("exim: message temporarily rejected by non-SMTP ACL: later", Answer.DEFERRED),
            ("exim: no space on the device, message rejected", Answer.DEFERRED),
        ):
            self.assertEqual((reply_of(1, words)[0].answer, reply_of(75, words)[0].answer), (answer, Answer.DEFERRED))

    def test_does_not_take_other_numbers_for_a_code(self) -> None:
        """Addresses and versions have dots as well."""
        for words in "connect to 192.5.1.1 failed", "exim 5.96.1: failed", "host 5.1.1.9 failed":
            reply, _ = reply_of(69, words)
            self.assertEqual((reply.answer, reply.enhanced), (Answer.DEFERRED, None), words)


class AProgramInTrouble(Programs):
    def test_that_is_missing_is_a_fault(self) -> None:
        """It blames no mail, and nothing was begun."""
        mailer = ProgramMailer(self.path("nothing"))
        for outcome in self.transfer(mailer), open_session(mailer).verify(envelope(), io.BytesIO(MESSAGE)):
            self.assertEqual(outcome.replies, {})
            self.assertIn("there is no program", str(outcome.fault))
        self.assertEqual(self.intended, 0)

    def test_that_may_not_be_executed_is_a_fault(self) -> None:
        """Said before anything is begun."""
        outcome = self.transfer(ProgramMailer(self.script("#!/bin/sh\n", 0o600)))
        self.assertIn("may not be executed", str(outcome.fault))
        self.assertEqual(self.intended, 0)

    def test_that_does_not_start_is_a_fault(self) -> None:
        """As if untried."""
        outcome = self.transfer(ProgramMailer(self.script("#!/no/such/interpreter\n")))
        self.assertEqual(outcome.replies, {})
        self.assertIn("cannot be run", str(outcome.fault))

    def test_whose_status_nobody_could_hear_is_not_run(self) -> None:
        """Where SIGCHLD is ignored, every program seems to end with 0."""
        self.addCleanup(signal.signal, signal.SIGCHLD, signal.signal(signal.SIGCHLD, signal.SIG_IGN))
        outcome = self.transfer(ProgramMailer(self.recorder()))
        self.assertIn("SIGCHLD", str(outcome.fault))
        self.assertEqual(self.runs(), [])

    def test_that_hangs_is_killed_with_its_children(self) -> None:
        """Nobody can know whether the mail was taken; nothing goes on running."""
        fifo = self.path("alive")
        os.mkfifo(fifo)
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        self.addCleanup(os.close, reader)
        script = self.script(f"#!/bin/sh\nexec 3>{shlex.quote(fifo)}\necho started >&3\nsleep 1000 &\nwait\n")
        for timeout in (0.5, 5, 60):  # a busy machine needs a while to start it
            outcome = self.transfer(ProgramMailer(script, timeout=timeout))
            self.assertEqual(len(outcome.having(Answer.UNKNOWN)), 1)
            self.assertIn(f"did not end within {timeout} s", str(outcome.fault))
            if said := os.read(reader, 20):
                break
        self.assertEqual(said, b"started\n")
        self.assertEqual(select.select([reader], [], [], 60)[0], [reader])  # nobody has the other end any more
        self.assertEqual(os.read(reader, 20), b"")

    def test_that_dies_leaves_the_outcome_unknown(self) -> None:
        """It had the whole mail; the next recipients are not tried with it."""
        mailer = ProgramMailer(self.recorder("os.kill(os.getpid(), 9)"), recipient_limit=1)
        outcome = self.transfer(mailer, envelope("one@example.org", "two@example.org"))
        self.assertEqual(list(outcome.having(Answer.UNKNOWN)), ["one@example.org"])
        self.assertEqual(len(outcome.replies), 1)
        self.assertIsNotNone(outcome.fault)

    def test_settings_that_cannot_be_meant_are_refused(self) -> None:
        """A name that a PATH decides about, recipients from the message, no time at all."""
        for keywords in (
            {"program": "sendmail"},
            {"options": ["-t"]},
            {"options": ["-it"]},
            {"options": ["--"]},
            {"timeout": 0},
            {"recipient_limit": 0},
        ):
            with self.subTest(keywords), self.assertRaises(ValueError):
                ProgramMailer(**keywords)


class InTheQueue(Programs, ProcessorTest):
    def run_through(self, program: str) -> State:
        self.processor = self.make_processor(mailer=ProgramMailer(program))
        [name] = self.put("one@example.org")
        self.drain()
        states: list[State] = [mail.state for mail in self.queue.admin.mails() if mail.name == name]
        return states[0] if states else State.SENT

    def test_a_mail_that_was_taken_is_gone(self) -> None:
        """With all that belongs to it."""
        self.assertIs(self.run_through(self.recorder()), State.SENT)
        self.assertEqual(self.runs()[0][1], MESSAGE.decode())

    def test_a_temporary_failure_is_tried_again(self) -> None:
        """EX_TEMPFAIL."""
        self.assertIs(self.run_through(self.recorder("sys.exit(75)")), State.DEFERRED)
        self.drain(60)
        self.assertEqual(len(self.runs()), 2)

    def test_a_rejected_mail_is_kept(self) -> None:
        """EX_NOUSER, with the words of the program in the event."""
        then = "print('5.1.1 nobody here'); sys.exit(67)"
        self.assertIs(self.run_through(self.recorder(then)), State.REJECTED)
        self.assertIn("5.1.1 nobody here", self.events[0].errorMessage)

    def test_a_missing_program_costs_no_attempt(self) -> None:
        """The relay pauses, the mail is as before; it goes when the program is there."""
        self.assertIs(self.run_through(self.path("sendmail")), State.READY)
        self.assertEqual(self.processor.tally, {})
        self.recorder()
        self.drain(4)
        self.assertEqual(self.runs(), [])
        self.drain(1)
        self.assertEqual(len(self.runs()), 1)


class InATransaction(Programs):
    def setUp(self) -> None:
        super().setUp()
        transaction.abort()
        self.addCleanup(transaction.abort)

    def send(self, program: str) -> None:
        DirectMailDelivery(ProgramMailer(program)).send("sender@example.org", ["one@example.org"], MESSAGE)

    def test_commit_runs_the_program(self) -> None:
        """Once."""
        self.send(self.recorder())
        transaction.commit()
        self.assertEqual(len(self.runs()), 1)

    def test_abort_runs_nothing(self) -> None:
        """As if it had never been."""
        self.send(self.recorder())
        transaction.abort()
        self.assertEqual(self.runs(), [])

    def test_a_missing_program_aborts(self) -> None:
        """In the vote, with words that name it."""
        self.send(self.path("nothing"))
        with self.assertRaisesRegex(RelayError, "there is no program"):
            transaction.commit()


class CalledOneByOne(Programs):
    def test_send_tells_who_was_refused_as_smtplib_does(self) -> None:
        """Somebody: a dict; everybody: an error."""
        then = "sys.exit(67 if 'bad@example.org' in sys.argv else 0)"
        mailer = ProgramMailer(self.recorder(then), recipient_limit=1)
        self.assertEqual(mailer.send("a@example.org", ["b@example.org"], MESSAGE), {})
        refused = mailer.send("a@example.org", ["b@example.org", "bad@example.org"], MESSAGE)
        self.assertEqual({who: code for who, (code, _) in refused.items()}, {"bad@example.org": 550})
        with self.assertRaises(smtplib.SMTPRecipientsRefused):
            mailer.send("a@example.org", ["bad@example.org"], MESSAGE)

    def test_vote_and_send_tell_of_a_fault(self) -> None:
        """As a relay that cannot be used."""
        mailer = ProgramMailer(self.path("nothing"))
        for call in mailer.vote, mailer.send:
            with self.assertRaises(RelayError):
                call("a@example.org", ["b@example.org"], MESSAGE)
        mailer.abort()

    def test_send_tells_that_nobody_can_know(self) -> None:
        """As a lost connection."""
        with self.assertRaises(smtplib.SMTPServerDisconnected):
            ProgramMailer(self.recorder("os.kill(os.getpid(), 9)")).send("a@example.org", ["b@example.org"], MESSAGE)

    def test_a_replaced_send_is_called(self) -> None:
        """A subclass that has its own way is not passed by."""

        class Mine(ProgramMailer):
            def send(self, *mail: Any) -> dict[str, tuple[int, bytes]]:
                raise smtplib.SMTPDataError(554, b"mine")

        outcome = self.transfer(Mine(self.recorder()))
        self.assertEqual([reply.text for reply in outcome.replies.values()], ["mine"])


class ARealExim(unittest.TestCase):
    def setUp(self) -> None:
        if reason := Exim.excuse():
            self.skipTest(reason)
        self.server = Exim()
        self.server.start()
        self.addCleanup(self.server.stop)
        program, *options = (word for word in self.server.command() if word != "-bdf")
        self.mailer = ProgramMailer(shutil.which(program) or "", options=tuple(options))

    def test_takes_what_it_is_given(self) -> None:
        """Null sender, odd recipients and dots, with its own sendmail interface."""
        mail = Envelope("", ("-odd@example.org", "two@example.org"))
        outcome = open_session(self.mailer).transfer(mail, io.BytesIO(MESSAGE + b".\nafter\n"), lambda: None)
        self.assertEqual(len(outcome.having(Answer.ACCEPTED)), 2, outcome)
        arrivals = self.server.arrived(2)
        self.assertEqual([each.recipient for each in arrivals], ["-odd@example.org", "two@example.org"])
        self.assertTrue(all(each.text.endswith(b"\n\nText\n.\nafter\n") for each in arrivals))
        self.assertIn("<= <>", self.server.lines()[0])

    def test_refuses_a_mail_and_sends_no_word_of_that_to_the_sender(self) -> None:
        """Else each attempt would cost the sender a mail."""
        mail = Envelope("shop@example.org", ("one@example.org",))
        outcome = open_session(self.mailer).transfer(mail, io.BytesIO(MESSAGE + b"x\n" * LIMIT), lambda: None)
        self.assertIn("message too big", outcome.replies["one@example.org"].text)
        self.assertEqual((outcome.replies["one@example.org"].answer, self.server.lines()), (Answer.REJECTED, []))
