"""The command ``zope-sendmail``."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import unittest
from collections.abc import Callable, Sequence
from smtplib import SMTPRecipientsRefused, SMTPServerDisconnected
from typing import Any
from unittest import mock

import transaction

from zope.sendmail import queue
from zope.sendmail.cli import app, arguments
from zope.sendmail.cli.app import ConsoleApp, boolean, exit_status, main, run, signals_to, string_or_none, summary
from zope.sendmail.cli.arguments import SETTINGS, make_parser
from zope.sendmail.config.settings import Mechanism, Notify, Tls, TlsVersion
from zope.sendmail.config.tokens import TokenFromCommand, TokenFromFile
from zope.sendmail.delivery import QueuedMailDelivery
from zope.sendmail.lifecycle.outcome import Answer, Reply
from zope.sendmail.lifecycle.retry import OnUnknown, Schedule
from zope.sendmail.lifecycle.states import State
from zope.sendmail.mailer import SMTPMailer
from zope.sendmail.processor.thread import QueueProcessorThread
from zope.sendmail.queue.maildir.queue import MaildirQueue
from zope.sendmail.testing.relay import Hang, Relay

#: Seconds after which a test gives up waiting.
DEADLINE = 300.0


class Fixture(unittest.TestCase):
    def setUp(self) -> None:
        self.directory = self.enterContext(tempfile.TemporaryDirectory())
        self.queue = os.path.join(self.directory, "queue")
        environ = {name: value for name, value in os.environ.items() if name != arguments.PASSWORD}
        self.enterContext(mock.patch.dict(os.environ, environ, clear=True))

    def app(self, *arguments: str) -> ConsoleApp:
        return ConsoleApp(["zope-sendmail", *arguments], verbose=False)

    def ini(self, *lines: str, section: str = "app:zope-sendmail") -> str:
        return self.file("mail.ini", "\n".join((f"[{section}]", *lines)))

    def file(self, name: str, text: str) -> str:
        path = os.path.join(self.directory, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def send(self, *recipients: str) -> None:
        QueuedMailDelivery(self.queue).send("a@example.org", recipients or ["b@example.org"], "Subject: x\n\nx\n")
        transaction.commit()

    def assertRefused(self, status: int, text: str, *arguments: str) -> None:
        said = io.StringIO()
        with contextlib.redirect_stderr(said), self.assertRaises(SystemExit) as caught:
            self.app(*arguments)
        self.assertEqual(caught.exception.code, status)
        self.assertIn(text, said.getvalue())


class ASpool(Fixture):
    def test_is_drained_like_a_queue(self) -> None:
        """Named with its prefix; no Maildir of that name is made anywhere."""
        spool = os.path.join(self.directory, "spool")
        os.mkdir(spool)
        dropped = self.file("spool/one", "##To:b@example.org\n##From:a@example.org\nSubject: x\n\nx\n")
        os.utime(dropped, (1e9, 1e9))
        with contextlib.chdir(self.directory), Relay() as relay:
            status = ConsoleApp(["x", "--hostname", relay.host, "--port", str(relay.port), f"spool:{spool}"]).main()
            self.assertEqual((status, [mail.recipients for mail in relay.mails]), (0, [("b@example.org",)]))
        self.assertNotIn("spool:", os.listdir(self.directory))

    def test_tells_of_a_file_that_is_never_sent(self) -> None:
        """By its exit status, also if other mail left: somebody has to look."""
        spool = os.path.join(self.directory, "spool")
        os.mkdir(spool)
        for name, to in ("one", "b@example.org"), ("two", ""):
            dropped = self.file(f"spool/{name}", f"##To:{to}\n##From:a@example.org\nSubject: x\n\nx\n")
            os.utime(dropped, (1e9, 1e9))
        with Relay() as relay:
            words = ["x", "--hostname", relay.host, "--port", str(relay.port), f"spool:{spool}"]
            self.assertEqual(ConsoleApp(words, verbose=False).main(), 1)
            self.assertEqual(len(relay.mails), 1)


class AMailThatCannotBeRead(Fixture):
    def test_is_told_by_the_exit_status(self) -> None:
        """Although another one left: somebody has to look."""
        self.send()
        os.symlink("/nowhere", os.path.join(self.queue, "new", "1600000000.1.host.5"))
        with Relay() as relay:
            words = ["x", "--hostname", relay.host, "--port", str(relay.port), self.queue]
            self.assertEqual(ConsoleApp(words, verbose=False).main(), 1)
            self.assertEqual(len(relay.mails), 1)


class TheCommandLine(Fixture):
    def test_needs_only_a_queue(self) -> None:
        """Everything else has the defaults of 7.3."""
        app = self.app("q")
        self.assertEqual((app.queue_path, app.daemon, app.interval), ("q", False, 3.0))
        self.assertEqual((app.hostname, app.port, app.username, app.password), ("localhost", 25, None, None))
        self.assertEqual((app.force_tls, app.no_tls), (False, False))

    def test_knows_the_options_of_7_3(self) -> None:
        """Old command lines mean what they meant."""
        line = "--daemon --interval 5 --hostname h --port 26 --username u --password p --force-tls q"
        app = self.app(*line.split())
        self.assertEqual((app.queue_path, app.daemon, app.interval), ("q", True, 5.0))
        self.assertEqual((app.hostname, app.port, app.username, app.password), ("h", 26, "u", "p"))
        self.assertEqual((app.force_tls, app.mailer.force_tls, app.mailer.no_tls), (True, True, False))

    def test_says_how_to_speak_with_the_relay(self) -> None:
        """Every option reaches the mailer."""
        password = self.file("password", "secret\n")
        line = "--tls implicit --no-verify --cafile ca.pem --timeout 1m --username u --allow-clear-password"
        mailer = self.app(*line.split(), "--password-file", password, "q").mailer
        self.assertIsInstance(mailer, SMTPMailer)
        self.assertEqual((mailer.tls, mailer.verify, mailer.cafile), (Tls.IMPLICIT, False, "ca.pem"))
        self.assertEqual((mailer.timeout, mailer.username, mailer.password), (60.0, "u", "secret"))
        self.assertTrue(mailer.allow_clear_password)

    def test_says_who_we_are(self) -> None:
        """Token, mechanisms, certificate, least TLS, and what the relay is to report."""
        arguments = "--username u --auth xoauth2 --certfile our.pem --keyfile key.pem --tls-minimum 1.3"
        notify = ["--notify", "FAILURE,DELAY", "--notify-return", "HDRS"]
        app = ConsoleApp(["x", *arguments.split(), "--token-command", "oama access u", *notify, "q"])
        settings = app.mailer.relay_settings()
        assert isinstance(settings.token, TokenFromCommand)
        self.assertEqual(settings.token.argv, ("oama", "access", "u"))
        self.assertEqual((settings.auth, settings.tls_minimum), ((Mechanism.XOAUTH2,), TlsVersion.TLS_1_3))
        self.assertEqual((settings.certfile, settings.keyfile), ("our.pem", "key.pem"))
        self.assertEqual(settings.notify, Notify(("FAILURE", "DELAY"), "HDRS"))

    def test_says_how_much_the_relay_gets(self) -> None:
        """How fast, and over how many connections."""
        mailer = self.app(*["--rate", "2.5", "--connections", "3", "--mails-per-connection", "50", "q"]).mailer
        self.assertEqual((mailer.rate, mailer.connections, mailer.keep.mails), (2.5, 3, 50))

    def test_has_everything_that_can_be_set(self) -> None:
        """What the ini file may say, the command line may say as well."""
        options = make_parser().format_help()
        for name in set(SETTINGS) - {"queue_path"}:
            self.assertIn(f"--{name.replace('_', '-')}", options)

    def test_says_how_to_drain(self) -> None:
        """Interval, concurrency and schedule reach the processor."""
        made: list[Any] = []

        class App(ConsoleApp):
            @staticmethod
            def QueueProcessorKind(**options: Any) -> QueueProcessorThread:
                made.append(options)
                return QueueProcessorThread(**options)

        arguments = "-q --interval 1 --concurrency 2 --first-retry 90s --retry-factor 3 --max-retry 2h --lifetime 2d"
        app = App(["zope-sendmail", *arguments.split(), "--on-unknown", "hold", self.queue])
        self.assertEqual(app.main(), 0)
        schedule = Schedule(first=90, factor=3, maximum=7200, lifetime=172800, on_unknown=OnUnknown.HOLD)
        self.assertEqual(made, [{"interval": 1.0, "concurrency": 2, "schedule": schedule}])

    def test_passes_on_only_what_was_said(self) -> None:
        """Mailers of other kinds need to know no more keywords than they are given."""

        class App(ConsoleApp):
            MailerKind = staticmethod(lambda **keywords: keywords)

        self.assertEqual(App(["x", "--port", "26", "q"]).mailer, {"port": 26})

    def test_refuses_half_a_login(self) -> None:
        """Username and password go together."""
        self.assertRefused(2, "password is missing", "--username", "u", "q")
        self.assertRefused(2, "username is missing", "--password", "p", "q")
        self.assertRefused(2, "username is missing", "--token-file", "f", "q")

    def test_refuses_two_secrets(self) -> None:
        """A token takes the place of the password."""
        secrets = ("--password", "p", "--token-file", "f")
        self.assertRefused(2, "password and token contradict", "--username", "u", *secrets, "q")

    def test_refuses_contradictions(self) -> None:
        """Forced TLS and no TLS cannot both be meant."""
        self.assertRefused(2, "--no-tls: not allowed with argument --force-tls", "--force-tls", "--no-tls", "q")

    def test_refuses_to_guess_the_queue(self) -> None:
        """Without a queue there is nothing to do."""
        self.assertRefused(2, "no queue; name its directory")

    def test_refuses_with_the_value_and_the_cure(self) -> None:
        """A wrong value is told as what it is."""
        self.assertRefused(2, "--interval: 'soon' is not a duration; write seconds", "--interval", "soon", "q")
        self.assertRefused(2, "'x' is not one of never, opportunistic", "--tls", "x", "q")
        self.assertRefused(2, "--notify: 'ALWAYS': write NEVER alone", "--notify", "ALWAYS", "q")
        self.assertRefused(2, "--auth: 'NTLM': only these mechanisms", "--auth", "NTLM", "q")

    def test_warns_of_passwords_in_the_process_list(self) -> None:
        """The help says who can see a password on the command line."""
        text = " ".join(ConsoleApp.parser.format_help().split())
        self.assertIn("every user of this machine can see it in the list of processes", text)


class TheIniFile(Fixture):
    def test_sets_what_the_command_line_leaves_out(self) -> None:
        """All settings of 7.3 can be made in the file."""
        path = self.ini(
            "interval = 5",
            "hostname = h",
            "port = 26",
            "username = u",
            "password = p",
            "no_tls = 1",
            "queue_path = q",
        )
        app = self.app("--config", path)
        self.assertEqual((app.queue_path, app.interval, app.hostname, app.port), ("q", 5.0, "h", 26))
        self.assertEqual((app.username, app.password, app.no_tls), ("u", "p", True))

    def test_sets_a_token(self) -> None:
        """In the place of the password, and what the command line says about one takes its place."""
        path = self.ini("username = u", "token_command = oama access u", "auth = XOAUTH2", "notify = NEVER")
        app = self.app("--config", path, "q")
        self.assertIsInstance(app.mailer.token, TokenFromCommand)
        self.assertEqual(app.mailer.notify, Notify(("NEVER",)))
        self.assertIsInstance(self.app("--config", path, "--token-file", "f", "q").mailer.token, TokenFromFile)
        wrong = self.ini("notify = SOMETIMES", "queue_path = q")
        self.assertRefused(78, "notify: 'SOMETIMES': write NEVER alone", "--config", wrong)

    def test_never_beats_the_command_line(self) -> None:
        """What is written on the command line holds, on whichever side of --config."""
        path = self.ini("hostname = ini", "port = 26", "queue_path = ini", "force_tls = on")
        app = self.app("--hostname", "line", "--config", path, "--port", "27", "--no-tls", "line")
        self.assertEqual((app.hostname, app.port, app.queue_path), ("line", 27, "line"))
        self.assertEqual((app.mailer.no_tls, app.mailer.force_tls), (True, False))

    def test_understands_every_yes(self) -> None:
        """On is yes, and a word that is neither yes nor no is refused."""
        self.assertTrue(self.app("--config", self.ini("force_tls = on"), "q").mailer.force_tls)
        self.assertFalse(self.app("--config", self.ini("force_tls = off"), "q").mailer.force_tls)
        self.assertRefused(78, "force_tls: 'maybe' is neither yes nor no", "--config", self.ini("force_tls = maybe"))

    def test_takes_percent_signs_literally(self) -> None:
        """A password may have any character, also when the command line replaces it."""
        path = self.ini("username = u", "password = 100%(sure)s #;%")
        self.assertEqual(self.app("--config", path, "q").password, "100%(sure)s #;%")
        self.assertEqual(self.app("--config", path, "--password", "p", "q").password, "p")

    def test_may_leave_settings_open(self) -> None:
        """Nothing, and the word None, mean: not set."""
        app = self.app("--config", self.ini("username = None", "password =", "port = None"), "q")
        self.assertEqual((app.username, app.password, app.port), (None, None, 25))

    def test_must_not_have_unknown_keys(self) -> None:
        """A misspelled key is refused together with the known ones."""
        path = self.ini("host = h", "queue_path = q")
        self.assertRefused(78, "unknown: host; did you mean hostname?; known are: queue_path,", "--config", path)

    def test_asks_which_option_was_meant(self) -> None:
        """Of one that there is none of; what is near to none is only named."""
        self.assertRefused(2, "unrecognized arguments: --prot=25; did you mean --port?", "q", "--prot=25")
        self.assertRefused(2, "unrecognized arguments: --xyz\n", "q", "--xyz")

    def test_must_not_contradict_itself(self) -> None:
        """Forced TLS and no TLS are refused here as well."""
        path = self.ini("force_tls = on", "no_tls = on", "queue_path = q")
        self.assertRefused(78, "contradict", "--config", path)

    def test_may_belong_to_others_as_well(self) -> None:
        """Other sections, and defaults meant for them, do no harm."""
        text = "[DEFAULT]\ndebug = true\nhostname = h\n[app:main]\nuse = egg:x\n[app:zope-sendmail]\nport = 26\n"
        app = self.app("--config", self.file("paste.ini", text), "q")
        self.assertEqual((app.hostname, app.port), ("h", 26))

    def test_may_come_from_standard_input(self) -> None:
        """A single hyphen is standard input."""
        with mock.patch("sys.stdin", io.StringIO("[app:zope-sendmail]\nhostname = piped\n")):
            self.assertEqual(self.app("--config", "-", "q").hostname, "piped")

    def test_is_refused_if_it_is_none(self) -> None:
        """A missing file, a missing section and other text are told apart, with status 78."""
        self.assertRefused(78, "No such file", "--config", "/nonexistent/mail.ini", "q")
        self.assertRefused(78, "no section [app:zope-sendmail]", "--config", self.ini(section="app"), "q")
        bare = self.file("bare.ini", "hostname = h\n")
        self.assertRefused(78, "line 1 stands before any section; begin with [app:zope-sendmail]", "--config", bare)

    def test_never_shows_the_password(self) -> None:
        """A line that cannot be read is told by its number, because it may hold the password."""
        path = self.ini("hostname = h", "pass word secret", "port = 25")
        said = io.StringIO()
        with contextlib.redirect_stderr(said), self.assertRaises(SystemExit):
            self.app("--config", path, "q")
        self.assertIn("line 3 ", said.getvalue())
        self.assertNotIn("secret", said.getvalue())
        self.assertRefused(78, "line 1 ", "--config", self.file("bare.ini", "password = secret\n"), "q")


class TheEnvironment(Fixture):
    def test_may_hold_the_password(self) -> None:
        """ZOPE_SENDMAIL_PASSWORD is less visible than the command line."""
        os.environ[arguments.PASSWORD] = "from environment"
        self.assertEqual(self.app("--username", "u", "q").mailer.password, "from environment")

    def test_beats_the_ini_file_but_not_the_command_line(self) -> None:
        """Nearest to the call wins."""
        os.environ[arguments.PASSWORD] = "environment"
        path = self.ini("username = u", "password_file = /nonexistent")
        self.assertEqual(self.app("--config", path, "q").password, "environment")
        self.assertEqual(self.app("--config", path, "--password", "line", "q").password, "line")


class SendOnly:
    """A mailer that does what a test says."""

    def __init__(self, fail: Callable[[str], None] = lambda recipient: None) -> None:
        self.fail = fail
        self.sent: list[str] = []

    def __call__(self, **keywords: Any) -> SendOnly:
        return self

    def send(self, fromaddr: str, toaddrs: Sequence[str], message: bytes) -> None:
        for recipient in toaddrs:
            self.fail(recipient)
        self.sent.extend(toaddrs)


def refuse(code: int) -> Callable[[str], None]:
    def fail(recipient: str) -> None:
        raise SMTPRecipientsRefused({recipient: (code, b"no")})

    return fail


class OnePass(Fixture):
    def main(self, mailer: SendOnly, *arguments: str) -> int:
        with mock.patch.object(ConsoleApp, "MailerKind", mailer):
            return self.app(*arguments, self.queue).main()

    def test_sends_everything_that_is_due(self) -> None:
        """All mails go, and the status is 0."""
        mailer = SendOnly()
        self.send("one@example.org")
        self.send("two@example.org")
        self.assertEqual((self.main(mailer), mailer.sent), (0, ["one@example.org", "two@example.org"]))

    def test_of_an_empty_queue_is_no_failure(self) -> None:
        """Nothing due is status 0, and the queue is made if there is none."""
        self.assertEqual(self.main(SendOnly()), 0)

    def test_tells_of_deferred_mail(self) -> None:
        """A temporary refusal is status 75; as long as the mail is not due again, the next pass is 0."""
        self.send()
        self.assertEqual(self.main(SendOnly(refuse(450))), 75)
        self.assertEqual(self.main(SendOnly(refuse(450))), 0)

    def test_tells_of_rejected_mail(self) -> None:
        """A final refusal is status 1, whatever else there was."""
        self.send("one@example.org")
        self.send("two@example.org")
        mailer = SendOnly(lambda recipient: refuse(550 if recipient.startswith("one") else 450)(recipient))
        self.assertEqual(self.main(mailer), 1)

    def test_tells_of_mail_whose_outcome_is_unknown(self) -> None:
        """A lost reply is tried again (75) or held for a person (1), as the policy says."""

        def hang_up(recipient: str) -> None:
            raise SMTPServerDisconnected("gone")

        self.send()
        self.assertEqual(self.main(SendOnly(hang_up)), 75)
        self.send()
        self.assertEqual(self.main(SendOnly(hang_up), "--on-unknown", "hold"), 1)

    def test_tells_of_a_relay_that_cannot_be_used(self) -> None:
        """Nobody listens: status 75, and no mail is lost."""
        self.send()
        with Relay() as relay:
            port = relay.port
        self.assertEqual(self.app("--hostname", "127.0.0.1", "--port", str(port), self.queue).main(), 75)
        self.assertEqual(MaildirQueue(self.queue).admin.count()[State.READY], 1)

    def test_tells_of_mail_that_was_set_aside(self) -> None:
        """A file that is no mail is status 1: somebody should look."""
        self.send()
        self.file("queue/new/1.2.host.3", "no mail\n")
        self.assertEqual(self.main(SendOnly()), 1)

    def test_tells_that_there_was_no_queue(self) -> None:
        """It is made, but whoever mistyped its path should hear of it."""
        with self.assertLogs("zope.sendmail.cli", "WARNING") as log:
            self.assertEqual(self.main(SendOnly()), 0)
        self.assertIn(f"There was no queue {self.queue}", log.output[0])
        with self.assertNoLogs("zope.sendmail.cli", "WARNING"):
            self.main(SendOnly())

    def test_tells_of_a_queue_that_cannot_be_used(self) -> None:
        """Something else in the queue's place is status 78, and named."""
        self.file("queue", "")
        with self.assertLogs("zope.sendmail.cli", "ERROR") as log:
            self.assertEqual(self.main(SendOnly()), 78)
        self.assertIn(self.queue, log.output[0])

    def test_goes_through_a_real_relay(self) -> None:
        """From the queue to the relay, as a site would call it."""
        self.send()
        with Relay() as relay:
            status = self.app("--hostname", relay.host, "--port", str(relay.port), self.queue).main()
            self.assertEqual((status, [mail.recipients for mail in relay.mails]), (0, [("b@example.org",)]))

    def test_sums_up(self) -> None:
        """One line says what was done; --quiet leaves it out."""
        self.send()
        with mock.patch.object(ConsoleApp, "MailerKind", SendOnly()):
            with self.assertLogs("zope.sendmail.cli", "INFO") as log:
                ConsoleApp(["zope-sendmail", self.queue]).main()
            self.assertIn("recipients: 1 accepted; the queue is empty", log.output[-1])
            with self.assertNoLogs("zope.sendmail.cli", "INFO"):
                ConsoleApp(["zope-sendmail", "--quiet", self.queue]).main()

    def test_says_nothing_to_cron_about_a_good_run(self) -> None:
        """As in 7.3: cron makes a mail of every word. On a terminal, and if somebody should look, it sums up."""
        for mailer, terminal, lines in (
            (SendOnly(), False, 0),
            (SendOnly(), True, 1),
            (SendOnly(refuse(550)), False, 1),
        ):
            self.send()
            with (
                self.subTest(terminal=terminal, lines=lines),
                mock.patch.object(ConsoleApp, "MailerKind", mailer),
                mock.patch.object(sys, "stderr", mock.Mock(isatty=mock.Mock(return_value=terminal))),
                mock.patch("logging.basicConfig"),
                self.assertLogs("zope.sendmail", "INFO") as log,
            ):
                logging.getLogger("zope.sendmail").info("assertLogs wants a line")
                run(["zope-sendmail", self.queue])
            self.assertEqual(len(log.output[1:]), lines, log.output)


class TheExitStatus(unittest.TestCase):
    FAULT = Reply(Answer.DEFERRED, "connection refused")

    def status(
        self,
        *answers: Answer,
        fault: Reply | None = None,
        before: dict[State, int] | None = None,
        after: dict[State, int] | None = None,
        on_unknown: OnUnknown = OnUnknown.RESEND,
    ) -> int:
        return exit_status(dict.fromkeys(answers, 1), fault, before or {}, after or {}, on_unknown)

    def test_is_0_if_nothing_failed(self) -> None:
        """Accepted, or nothing to do; mail that waits for its time is no failure."""
        self.assertEqual(self.status(), 0)
        self.assertEqual(self.status(Answer.ACCEPTED), 0)
        self.assertEqual(self.status(before={State.DEFERRED: 1}, after={State.DEFERRED: 1}), 0)
        self.assertEqual(self.status(before={State.REJECTED: 1}, after={State.REJECTED: 1}), 0)

    def test_is_75_if_time_helps(self) -> None:
        """Deferred, unknown and to be sent again, or the relay cannot be used."""
        self.assertEqual(self.status(Answer.ACCEPTED, Answer.DEFERRED), 75)
        self.assertEqual(self.status(Answer.UNKNOWN), 75)
        self.assertEqual(self.status(Answer.ACCEPTED, fault=self.FAULT), 75)

    def test_is_75_if_nothing_moved(self) -> None:
        """Mail that was due before and is due still was not sent, whatever the reason."""
        self.assertEqual(self.status(before={State.READY: 1}, after={State.READY: 1}), 75)

    def test_is_75_if_some_did_not_move(self) -> None:
        """Also if others left."""
        self.assertEqual(self.status(Answer.ACCEPTED, before={State.READY: 2}, after={State.READY: 1}), 75)

    def test_is_1_if_somebody_should_look(self) -> None:
        """Rejected, set aside, or unknown and held."""
        self.assertEqual(self.status(Answer.DEFERRED, Answer.REJECTED, fault=self.FAULT), 1)
        self.assertEqual(self.status(after={State.HELD: 1}), 1)
        self.assertEqual(self.status(after={State.REJECTED: 1}), 1)
        self.assertEqual(self.status(Answer.UNKNOWN, on_unknown=OnUnknown.HOLD), 1)


class TheSummary(unittest.TestCase):
    def test_says_what_was_done_and_what_is_left(self) -> None:
        """Recipients by answer, mails by state; what is nought is left out."""
        tally = {Answer.ACCEPTED: 3, Answer.DEFERRED: 1, Answer.REJECTED: 0}
        self.assertEqual(
            summary(tally, None, {State.DEFERRED: 1, State.READY: 0}),
            "recipients: 3 accepted, 1 deferred; mails left: 1 deferred",
        )

    def test_says_why_nothing_was_done(self) -> None:
        """The relay's fault is in it."""
        fault = Reply(Answer.DEFERRED, "refused")
        self.assertEqual(
            summary({}, fault, {}), "nothing was sent; the relay cannot be used (refused); the queue is empty"
        )


def hear_sigint(test: unittest.TestCase) -> None:
    """Until the end of the test; a shell lets what it starts in the background ignore it."""
    test.addCleanup(signal.signal, signal.SIGINT, signal.signal(signal.SIGINT, signal.default_int_handler))


class Signals(unittest.TestCase):
    def test_stop_however_often_they_come(self) -> None:
        """Each of them calls stop, and the handlers of before are back afterwards."""
        stopped: list[None] = []
        hear_sigint(self)
        before = signal.getsignal(signal.SIGTERM)
        with signals_to(lambda: stopped.append(None)):
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
                signal.raise_signal(number)
        self.assertEqual(len(stopped), 3)
        self.assertIs(signal.getsignal(signal.SIGTERM), before)

    def test_that_are_ignored_stay_so(self) -> None:
        """Under nohup the end of the terminal session means nothing."""
        self.addCleanup(signal.signal, signal.SIGHUP, signal.signal(signal.SIGHUP, signal.SIG_IGN))
        with signals_to(self.fail):
            signal.raise_signal(signal.SIGHUP)

    def test_are_left_alone_in_other_threads(self) -> None:
        """A program that runs the command in a thread keeps its own handlers."""
        before = signal.getsignal(signal.SIGTERM)
        seen: list[Any] = []

        def command() -> None:
            with signals_to(self.fail):
                seen.append(signal.getsignal(signal.SIGTERM))

        thread = threading.Thread(target=command)
        thread.start()
        thread.join(DEADLINE)
        self.assertEqual(seen, [before])


class ADaemon(Fixture):
    def start(self, relay: Relay) -> subprocess.Popen[str]:
        return self.start_with("--hostname", relay.host, "--port", str(relay.port), self.queue)

    def start_with(self, *words: str) -> subprocess.Popen[str]:
        hear_sigint(self)
        process = subprocess.Popen(
            [sys.executable, "-m", "zope.sendmail.cli", "--daemon", *words],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stderr=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        assert process.stderr is not None
        self.addCleanup(process.stderr.close)
        return process

    def test_sends_what_comes(self) -> None:
        """A mail committed while it runs goes, and SIGINT ends it with status 0."""
        with Relay() as relay:
            process = self.start(relay)
            self.send("first@example.org")
            relay.wait_until(lambda: len(relay.mails) == 1, DEADLINE)
            self.send("second@example.org")
            relay.wait_until(lambda: len(relay.mails) == 2, DEADLINE)
            process.send_signal(signal.SIGINT)
            self.assertEqual(process.wait(DEADLINE), 0)

    def test_reads_its_configuration_again_at_sighup(self) -> None:
        """The next mail goes to the relay that is named now; what cannot be used is told, and the former goes on.

        At the end all is summed up, not what came behind the last reading.
        """
        ini = os.path.join(os.path.dirname(self.queue), "mail.ini")

        def configure(line: str) -> None:
            with open(ini, "w", encoding="utf-8") as file:
                file.write(f"[app:zope-sendmail]\nqueue_path = {self.queue}\nhostname = 127.0.0.1\n{line}\n")

        with Relay() as first, Relay() as second:
            configure(f"port = {first.port}")
            self.send("first@example.org")
            process = self.start_with("--config", ini)
            first.wait_until(lambda: len(first.mails) == 1, DEADLINE)
            configure("port = nonsense")
            process.send_signal(signal.SIGHUP)
            assert process.stderr is not None
            told = next(line for line in process.stderr if "not reloaded" in line)
            self.assertIn("nonsense", told)
            self.send("second@example.org")
            first.wait_until(lambda: len(first.mails) == 2, DEADLINE)
            configure(f"port = {second.port}")
            process.send_signal(signal.SIGHUP)
            self.assertTrue(any("was reloaded" in line for line in process.stderr))
            self.send("third@example.org")
            second.wait_until(lambda: len(second.mails) == 1, DEADLINE)
            process.send_signal(signal.SIGTERM)
            self.assertIn("recipients: 3 accepted", process.stderr.read())
            self.assertEqual(process.wait(DEADLINE), 0)

    def test_finishes_the_message_in_hand(self) -> None:
        """However many signals come during a message, the relay gets it once, and it leaves the queue."""
        hang = Hang()
        with Relay() as relay:
            relay.on("DOT", hang)
            self.send()
            process = self.start(relay)
            self.assertTrue(hang.reached.wait(DEADLINE))
            for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
                process.send_signal(number)
            self.assertIsNone(process.poll())
            hang.release()
            self.assertEqual(process.wait(DEADLINE), 0)
            self.assertEqual(len(relay.mails), 1)
        self.assertEqual(sum(MaildirQueue(self.queue).admin.count().values()), 0)


class OldNames(Fixture):
    def test_are_where_they_were(self) -> None:
        """zope.sendmail.queue still has the command of 7.3."""
        for name in ("ConsoleApp", "run", "boolean", "string_or_none"):
            self.assertIs(getattr(queue, name), getattr(app, name))

    def test_mean_what_they_meant(self) -> None:
        """Helpers of 7.3."""
        self.assertEqual((string_or_none("None"), string_or_none("x"), string_or_none(None)), (None, "x", None))
        self.assertTrue(boolean("yes"))

    def test_run_takes_the_programs_name_and_main_does_not(self) -> None:
        """Both are the whole command."""
        self.enterContext(mock.patch("logging.basicConfig"))
        self.assertEqual(run(["any name", "--quiet", self.queue]), 0)
        self.assertEqual(main(["--quiet", self.queue]), 0)

    def test_the_settings_of_the_ini_file_are_listed(self) -> None:
        """INI_SECTION and INI_NAMES are class attributes, with everything 7.3 had."""
        old = {"interval", "hostname", "port", "username", "password", "force_tls", "no_tls", "queue_path"}
        self.assertEqual(ConsoleApp.INI_SECTION, "app:zope-sendmail")
        self.assertLessEqual(old, set(ConsoleApp.INI_NAMES))


if __name__ == "__main__":
    unittest.main()


class AsRoot(Fixture):
    def test_root_leaves_nothing_that_the_owner_cannot_use(self) -> None:
        """A queue of somebody else is drained as that somebody."""
        if os.geteuid() != 0:
            self.skipTest("only root can try this")
        path = tempfile.mkdtemp(prefix="zope-sendmail-test-", dir="/tmp")
        self.addCleanup(subprocess.run, ["rm", "-rf", path], check=True)
        os.chown(path, 65534, 65534)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, "-m", "zope.sendmail.cli", "--port", "1", path]
        done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        owners = {os.stat(os.path.join(at, name)).st_uid for at, some, files in os.walk(path) for name in some + files}
        self.assertEqual(owners, {65534})
