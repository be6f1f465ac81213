"""What follows from a bounce."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import tempfile
import unittest
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from zope.sendmail.bounces.handler import BounceHandler
from zope.sendmail.bounces.watch import MOST, MaildirWatch
from zope.sendmail.cli import bouncecommand
from zope.sendmail.errors import InvalidSettings
from zope.sendmail.events import MailBouncedEvent
from zope.sendmail.message.verp import verp
from zope.sendmail.message.verpkey import VerpKey
from zope.sendmail.queue import open_queue
from zope.sendmail.sender import MailWriter
from zope.sendmail.system.clock import Clock
from zope.sendmail.testing.outbox import Outbox
from zope.sendmail.tests.bounces.test_parser import group, report
from zope.sendmail.tests.support.subscribing import hear

SECRET = b"sixteen octets and more"
KEY = VerpKey(SECRET)
SENDER, JANE = "news@example.org", "jane@example.com"


class Fixture(unittest.TestCase):
    """A queue, a handler, and what subscribers are told."""

    def setUp(self) -> None:
        self.directory = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.path = str(self.directory / "queue")
        self.writer = MailWriter(self.path, verp_key=KEY)
        self.suppressions: Any = self.writer.queue.suppressions
        self.handler = BounceHandler([SENDER], KEY, suppressions=self.suppressions)
        self.told: list[MailBouncedEvent] = hear(self, MailBouncedEvent)

    def return_path(self, recipient: str = JANE) -> str:
        return KEY.signed(verp(SENDER, recipient), int(Clock().time() // 86400))

    def suppressed(self) -> list[str]:
        return [each.address for each in open_queue(self.path).suppressions.entries()]


class AnAuthenticBounce(Fixture):
    def test_puts_who_is_gone_on_the_suppression_list(self) -> None:
        """Which says why; the next mail to that address does not leave."""
        words = "550 5.1.1 no such user"
        self.handler.handle(report(group(Diagnostic_Code=f"smtp; {words}")), self.return_path())
        [entry] = self.suppressions.entries()
        self.assertEqual(entry.address, JANE)
        self.assertIn(words, entry.reason)
        self.assertEqual(
            [(each.recipient, each.verdict, each.isAuthentic) for each in self.told], [(JANE, "permanent", True)]
        )

    def test_of_another_kind_is_only_told(self) -> None:
        """The address may take the next mail."""
        about_the_mail = [group(status=code) for code in ("5.7.1", "5.3.4", "5.6.0")]
        for text in (group(status="4.2.2"), group(action="delayed", status="4.4.1"), *about_the_mail):
            self.handler.handle(report(text), self.return_path())
        self.assertEqual([each.verdict for each in self.told], ["temporary", "delayed", *["refused"] * 3])
        self.assertEqual(self.suppressed(), [])

    def test_may_count_for_some_days_only(self) -> None:
        """Or be told only."""
        BounceHandler([SENDER], KEY, suppressions=self.suppressions, days=90).handle(
            report(group()), self.return_path()
        )
        [entry] = self.suppressions.entries()
        self.assertAlmostEqual(entry.until - entry.since, 90 * 86400)
        BounceHandler([SENDER], KEY).handle(report(group("jim@example.com")), self.return_path("jim@example.com"))
        self.assertEqual(self.suppressed(), [JANE])

    def test_answers_mail_that_was_sent_so(self) -> None:
        """The return path is the one that `send` makes."""
        outbox = Outbox()
        outbox.sender(verp_key=KEY).send(SENDER, [JANE, "jim@example.com"], "From: a@example.org\n\n", verp=True)
        for mail in outbox.mails:
            self.handler.handle(report(group(mail.recipients[0])), mail.sender)
        self.assertEqual(self.suppressed(), [JANE, "jim@example.com"])


class AForgedBounce(Fixture):
    def test_changes_nothing(self) -> None:
        """It is told, as one that nothing shows to be genuine."""
        for path in (verp(SENDER, JANE), SENDER, self.return_path("joan@example.com").replace("joan", "jane"), ""):
            self.handler.handle(report(group()), path)
        self.assertEqual(self.suppressed(), [])
        self.assertEqual([each.isAuthentic for each in self.told], [False] * 4)

    def test_cannot_be_about_others_than_its_path(self) -> None:
        """Jane can write what she likes to the path that she has got: it is about her."""
        self.handler.handle(report(group("jim@example.com")), self.return_path())
        self.assertEqual(self.suppressed(), [JANE])


class TheHeader(Fixture):
    def test_says_where_the_bounce_came_to(self) -> None:
        """Where no caller does: in a Maildir, a mailbox."""
        for name in ("X-Original-To", "Delivered-To", "Envelope-To"):
            path = self.return_path(f"{name.lower()}@example.com")
            self.handler.handle(report(group(), headers=f"{name}: <{path}>\n"))
        self.assertEqual(len(self.suppressed()), 3)


class AMaildir(Fixture):
    def setUp(self) -> None:
        super().setUp()
        self.maildir = self.directory / "bounces"
        for name in ("tmp", "new", "cur"):
            (self.maildir / name).mkdir(parents=True)
        self.watch = MaildirWatch(str(self.maildir), self.handler)

    def deliver(self, name: str, recipient: str = JANE) -> None:
        headers = f"Delivered-To: {self.return_path(recipient)}\n"
        (self.maildir / "new" / name).write_bytes(report(group(recipient), headers=headers))

    def test_is_emptied(self) -> None:
        """Each bounce is handled once, and stays as one that was read."""
        self.deliver("1")
        self.deliver("2", "jim@example.com")
        self.assertEqual([each.recipient for each in self.watch.look()], [JANE, "jim@example.com"])
        self.assertEqual(self.watch.look(), [])
        self.assertEqual(sorted(os.listdir(self.maildir / "cur")), ["1:2,S", "2:2,S"])

    def test_with_something_strange_in_it_is_emptied_all_the_same(self) -> None:
        """A pipe, a link, a directory, a message of any octets."""
        os.mkfifo(self.maildir / "new" / "0pipe")
        os.symlink("/etc/passwd", self.maildir / "new" / "1link")
        (self.maildir / "new" / "2directory").mkdir()
        (self.maildir / "new" / "3octets").write_bytes(bytes(range(256)) * 9)
        self.deliver("4")
        self.assertEqual([each.recipient for each in self.watch.look()], [JANE])
        self.assertIn("4:2,S", os.listdir(self.maildir / "cur"))

    def test_keeps_what_cannot_be_handled_now(self) -> None:
        """The list cannot be written: the bounce is there for the next look."""

        class Refusing:
            def add(self, *entries: object) -> None:
                raise OSError(28, "No space left on device")

        self.deliver("1")
        refusing = BounceHandler([SENDER], KEY, suppressions=Refusing())
        with self.assertLogs("QueueProcessorThread", "WARNING") as logged:
            for _ in range(2):
                self.assertEqual(MaildirWatch(str(self.maildir), refusing).look(), [])
        self.assertIn("No space left", logged.output[0])
        self.assertEqual(self.told, [])
        self.assertEqual(len(self.watch.look()), 1)


class ASetting(unittest.TestCase):
    def test_that_cannot_be_meant_is_refused(self) -> None:
        """A sender is needed."""
        for senders in ((), ("",)):
            with self.assertRaises(InvalidSettings):
                BounceHandler(senders, KEY)


class TheCommand(Fixture):
    def setUp(self) -> None:
        super().setUp()
        os.mkdir(self.path, 0o700)
        (self.directory / "key").write_bytes(SECRET + b"\n")
        self.config = self.directory / "bounces.ini"
        self.configure()

    def configure(self, more: str = "", senders: str = SENDER) -> None:
        queue = "" if "queue_path" in more else f"queue_path = {self.path}\n"
        text = f"[bounces]\nsenders = {senders}\nkey_file = key\n{queue}maildir = bounces\n{more}"
        self.config.write_text(text)

    def run_it(self, *arguments: str, message: bytes = b"", **environment: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "zope.sendmail.cli", "bounce", "--config", str(self.config), *arguments]
        surroundings = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment}
        done = subprocess.run(command, input=message, capture_output=True, env=surroundings, check=False)
        return done.returncode, (done.stdout + done.stderr).decode()

    def test_is_the_pipe_of_an_mta(self) -> None:
        """Which says where the message came to as an argument, or in the environment; it hears nothing."""
        names = ("a", "b", "c", "d")
        paths = {name: self.return_path(f"{name}@example.com") for name in names}
        local, _, domain = paths["c"].partition("@")
        for name, arguments, environment in (
            ("a", ["--recipient", paths["a"]], {}),
            ("b", [], {"ORIGINAL_RECIPIENT": paths["b"]}),
            ("c", [], {"LOCAL_PART": local, "DOMAIN": domain}),
            ("d", [], {"RECIPIENT": paths["d"]}),
        ):
            done = self.run_it(*arguments, message=report(group(f"{name}@example.com")), **environment)
            self.assertEqual(done, (0, ""), name)
        self.assertEqual(self.suppressed(), [f"{name}@example.com" for name in names])

    def test_says_what_it_read_if_it_is_asked(self) -> None:
        """One line for each bounce; another message is none, and no error: an MTA would bounce it."""
        status, text = self.run_it("--verbose", "--recipient", self.return_path(), message=report(group()))
        self.assertEqual((status, text.split()[:2]), (0, ["permanent", f"{JANE}:"]))
        status, text = self.run_it("--verbose", message=b"Subject: Hello\n\nHow are you?\n")
        self.assertEqual((status, text), (0, "no bounce\n"))

    def test_empties_a_maildir(self) -> None:
        """Once."""
        new = self.directory / "bounces" / "new"
        for name in ("tmp", "new", "cur"):
            (self.directory / "bounces" / name).mkdir(parents=True)
        (new / "1").write_bytes(report(group(), headers=f"Delivered-To: {self.return_path()}\n"))
        self.assertEqual(self.run_it("--once"), (0, ""))
        self.assertEqual((self.suppressed(), os.listdir(new)), ([JANE], []))

    def test_says_that_there_is_no_maildir(self) -> None:
        """Which one, and what to do; the mail server may make it any moment, so that it is no wrong configuration."""
        status, text = self.run_it("--once")
        self.assertEqual(status, 75)
        self.assertIn("let the mail server deliver a bounce first, which makes it", text)
        self.assertIn(f"'{self.directory}/bounces'", text)

    def test_watches_a_maildir_until_it_is_told_to_end(self) -> None:
        """What comes meanwhile is handled."""
        new = self.directory / "bounces" / "new"
        for name in ("tmp", "new", "cur"):
            (self.directory / "bounces" / name).mkdir(parents=True)
        self.configure("interval = 1s\n")
        start = [sys.executable, "-m", "zope.sendmail.cli", "bounce", "--config", str(self.config)]
        surroundings = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        with subprocess.Popen(
            [*start, "--watch", "--verbose"], env=surroundings, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            for number, who in enumerate((JANE, "jim@example.com")):
                headers = f"Delivered-To: {self.return_path(who)}\n"
                (new.parent / "tmp" / str(number)).write_bytes(report(group(who), headers=headers))
                (new.parent / "tmp" / str(number)).rename(new / str(number))
                self.assertIn(who, process.stdout.readline())
            process.terminate()
            self.assertEqual(process.wait(300), 0)
        self.assertEqual(self.suppressed(), [JANE, "jim@example.com"])

    def test_tells_a_function_of_the_application(self) -> None:
        """Each bounce is an event, as in a program that reads bounces itself."""
        (self.directory / "shop.py").write_text(
            "def bounced(event):\n    print(event.recipient, event.verdict, event.isAuthentic)\n"
        )
        self.configure("subscriber = shop:bounced\n")
        with mock.patch.object(sys, "path", [str(self.directory), *sys.path]):
            done = self.run_it("--recipient", self.return_path(), message=report(group()))
            (self.directory / "shop.py").write_text("def bounced(event):\n    raise ValueError('no database')\n")
            failed = self.run_it("--recipient", self.return_path(), message=report(group()))
        self.assertEqual(done, (0, f"{JANE} permanent True\n"))
        self.assertEqual((failed[0], "shop:bounced failed: ValueError: no database" in failed[1]), (75, True))

    def test_refuses_a_place_where_it_cannot_listen(self) -> None:
        """With 78, before it serves."""
        for place, words in (("24", "HOST:PORT is wanted"), (f"unix:{self.directory}/no/socket", "No such file")):
            status, text = self.run_it("--lmtp", place)
            self.assertEqual((status, words in text, "Traceback" in text), (78, True, False), text)

    def as_pipe(self, message: bytes = b"", *arguments: str) -> tuple[object, str]:
        """Carry out the command here, with a message in its standard input; return its status and complaints."""
        standard_input, said = io.TextIOWrapper(io.BytesIO(message)), io.StringIO()
        with mock.patch.object(sys, "stdin", standard_input), contextlib.redirect_stderr(said):
            try:
                status: object = bouncecommand.main(["--config", str(self.config), *arguments])
            except SystemExit as ended:
                status = ended.code
        self.assertEqual(standard_input.buffer.read(), b"")
        return status, said.getvalue()

    def test_keeps_no_message_from_an_mta_for_a_wrong_command_line(self) -> None:
        """With 75 and what is wrong; no MTA waits for the status 2 of a service."""
        for wrong, words in ("--recipent=a@b", "did you mean --recipient"), ("--recipient", "expected one argument"):
            status, text = self.run_it(wrong, message=report(group()))
            self.assertEqual((status, words in text), (75, True), text)
        for service in ["--once"], ["--lmtp=127.0.0.1:24"], ["--watc"]:
            status, text = self.run_it("--verbos", "--nothing", *service)
            self.assertEqual((status, "--nothing" in text), (2, True), text)

    def test_keeps_no_message_from_an_mta_for_a_fault_of_ours(self) -> None:
        """Whatever it is, it is shown, and the message is to be given again."""
        with mock.patch.object(BounceHandler, "handle", side_effect=RecursionError("too deep")):
            status, text = self.as_pipe(report(group()))
        self.assertEqual((status, "RecursionError: too deep" in text), (75, True), text)

    def test_keeps_no_message_from_an_mta_when_it_is_ended(self) -> None:
        """By a signal, for which some give a message up."""
        for number in signal.SIGTERM, signal.SIGHUP, signal.SIGINT:
            before = signal.getsignal(number)
            killed = partial(os.kill, os.getpid(), number)
            with mock.patch.object(BounceHandler, "handle", side_effect=lambda *_, kill=killed: kill()):
                self.assertEqual(self.as_pipe(report(group())), (75, ""))
            self.assertIs(signal.getsignal(number), before)

    def test_keeps_no_message_from_an_mta_for_what_cannot_be_told(self) -> None:
        """The reader of its output has gone, or there never was one."""
        command = [sys.executable, "-m", "zope.sendmail.cli", "bounce", "--config", str(self.config), "--verbose"]
        surroundings = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        ours, theirs = os.pipe()
        os.close(ours)
        with open(theirs, "wb") as output:
            done = subprocess.run(
                command, input=b"\n", stdout=output, stderr=subprocess.PIPE, env=surroundings, check=False
            )
        self.assertEqual((done.returncode, b"Broken pipe" in done.stderr), (75, True), done.stderr)
        with mock.patch.object(sys, "stdout", None):
            self.assertEqual(self.as_pipe(b"\n", "--verbose"), (0, ""))

    def test_reads_all_of_a_message_that_is_too_long_to_be_a_bounce(self) -> None:
        """An MTA that could not write all of it might take that for a failure."""
        self.assertEqual(self.as_pipe(b"\n" + bytes(MOST + 1)), (0, ""))

    def test_has_to_have_an_input(self) -> None:
        """Else there is no message, and none was handled."""
        said = io.StringIO()
        with mock.patch.object(sys, "stdin", None), contextlib.redirect_stderr(said):
            self.assertEqual(bouncecommand.main(["--config", str(self.config)]), 75)
        self.assertIn("standard input is closed", said.getvalue())

    def test_refuses_what_cannot_be_meant(self) -> None:
        """With 75 and what to do, so that an MTA keeps the message; a service ends with 78."""
        for change, words in (
            (lambda: self.configure("color = red\n"), "unknown: color"),
            (lambda: self.configure("subscriber = nowhere.at.all:f\n"), "nowhere.at.all:f"),
            (lambda: self.configure("subscriber = os:sep\n"), "is not a function"),
            (lambda: self.configure(senders=""), "senders is missing"),
            (lambda: self.configure(senders="a@b@c"), "a@b@c"),
            (lambda: self.configure(senders="news@example.org news"), "the sender 'news' has no domain"),
            (lambda: (self.directory / "key").write_text("short"), "openssl rand"),
            ((self.directory / "key").unlink, "cannot be read"),
            (lambda: self.config.write_text("[other]\n"), "no section [bounces]"),
            (self.config.unlink, "cannot be read"),
            (lambda: self.configure("queue_path = nowhere\n"), f"there is no queue {self.directory}/nowhere; correct"),
        ):
            change()
            for way, status in (([], 75), (["--once"], 78)):
                said = io.StringIO()
                with contextlib.redirect_stderr(said), self.assertRaises(SystemExit) as ended:
                    bouncecommand.main(["--config", str(self.config), *way])
                self.assertEqual((ended.exception.code, words in said.getvalue()), (status, True), said.getvalue())
            self.configure()
            (self.directory / "key").write_bytes(SECRET)
