"""Bounces on their whole way: a real mail server bounces a mail of ours and hands that to ``zope-sendmail bounce``.

By LMTP, into a Maildir, and into a pipe, each as ``docs/bounces.rst`` says it; in the end the address is on the
suppression list of the queue.  Skipped without the servers.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import unittest
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

from zope.sendmail.bounces.handler import BounceHandler
from zope.sendmail.bounces.lmtpserver import BounceServer
from zope.sendmail.bounces.parser import Bounce
from zope.sendmail.mailer import SMTPMailer
from zope.sendmail.message.verpkey import VerpKey
from zope.sendmail.queue import open_queue
from zope.sendmail.testing.outbox import Outbox
from zope.sendmail.tests.scenarios.test_bounces import BouncingExim, BouncingOpenSMTPD, BouncingPostfix
from zope.sendmail.tests.support.layers import Servers, in_layer
from zope.sendmail.tests.support.servers import INSIDE, Server, hold_ports, wait_until

SECRET = b"sixteen octets and more"
KEY = VerpKey(SECRET)
SENDER, GONE = "news@test.org", "jane@gone.test"
MESSAGE = "From: news@test.org\nTo: jane@gone.test\nSubject: News\nMessage-Id: <1@test.org>\n\nText\n"


class Postfix(BouncingPostfix):
    """It hands bounces to `transport`, of which ``master.cf`` has `service`, and soon again what could not be taken."""

    transport: ClassVar[str] = "virtual:"
    service: ClassVar[str] = ""

    def configure(self) -> None:
        super().configure()
        soon = "queue_run_delay = 1s\nminimal_backoff_time = 1s\nmaximal_backoff_time = 2s\n"
        for name, more in (("main.cf", f"virtual_transport = {self.transport}\n{soon}"), ("master.cf", self.service)):
            path = self.root / "etc/postfix" / name
            os.utime(self.write(f"/etc/postfix/{name}", path.read_text() + more), (0, 0))

    def run_queue(self) -> None:
        """Nothing: it does so by itself."""


class Exim(BouncingExim):
    """It hands mail for test.org to `transport`."""

    transport: ClassVar[str] = ""

    def configure(self) -> None:
        super().configure()
        router = "begin routers\nback:\n  driver = accept\n  domains = test.org\n  transport = back\n"
        path = self.home / "exim.conf"
        retry = "begin retry\n* * F,1h,1s\n"  # without a rule it gives up a message at the first attempt
        text = path.read_text() + f"{router}begin transports\nback:\n{self.transport}{retry}"
        self.write(f"{INSIDE}/exim.conf", text)


class OpenSMTPD(BouncingOpenSMTPD):
    """It hands mail for test.org to `place`, by LMTP."""

    place: ClassVar[str] = ""

    def configure(self) -> None:
        super().configure()
        text = (self.root / "srv/smtpd.conf").read_text()
        back = f'action "back" lmtp "{self.place}" rcpt-to virtual {{ "@" = "nobody" }}\n'
        at = text.index("match from any for any")
        matches = 'match from any for domain "test.org" action "back"\n'
        self.write("/srv/smtpd.conf", text[:at] + back + matches + text[at:])

    def run_queue(self) -> None:
        """Nothing: it does so by itself."""


class Fixture(unittest.TestCase):
    """A queue, a configuration, and a mail server that bounces."""

    def setUp(self) -> None:
        self.directory = Path(self.enterContext(tempfile.TemporaryDirectory()))
        (self.directory / "queue").mkdir(0o700)
        #: What the command complained last.
        self.said = b""
        self.queue = open_queue(str(self.directory / "queue"))
        self.addCleanup(self.queue.close)
        (self.directory / "key").write_bytes(SECRET)
        self.config = self.directory / "bounces.ini"
        self.configure("")

    def configure(self, more: str) -> None:
        text = f"[bounces]\nsenders = {SENDER}\nkey_file = key\nqueue_path = {self.queue.location}\n{more}"
        self.config.write_text(text)

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "zope.sendmail.cli", "bounce", "--config", str(self.config), *arguments]

    def run_it(self, *arguments: str, message: bytes = b"", environment: Any = None) -> int:
        surroundings = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **(environment or {})}
        done = subprocess.run(
            self.command(*arguments), input=message, env=surroundings, capture_output=True, check=False
        )
        self.said = done.stderr
        return done.returncode

    def start(self, server_class: type[Server]) -> Server:
        """Start a server and give it a mail that will bounce."""
        if excuse := server_class.excuse():
            self.skipTest(excuse)
        server = server_class()
        server.start()
        self.addCleanup(server.stop)
        outbox = Outbox()
        outbox.sender(verp_key=KEY).send(SENDER, [GONE], MESSAGE, verp=True)
        [mail] = outbox.mails
        mailer = SMTPMailer(server.host, server.port, tls="never")
        mailer.send(mail.sender, list(mail.recipients), mail.data)
        return server

    def suppressed(self) -> list[str]:
        return [each.address for each in self.queue.suppressions.entries()]

    def check(self, server: Any) -> None:
        """See that the bounce has its effect; Exim has to be told twice to run its queue."""

        def is_there() -> bool:
            if not self.suppressed():
                server.run_queue()
            return bool(self.suppressed())

        self.assertTrue(wait_until(is_there), server.log())
        self.assertEqual(self.suppressed(), [GONE])


class ByLMTP(Fixture):
    """``zope-sendmail bounce --lmtp``, as a process of its own."""

    def serve(self, place: str) -> None:
        surroundings = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        process = subprocess.Popen(self.command("--lmtp", place), env=surroundings, stdout=subprocess.PIPE, text=True)

        def end() -> None:
            process.send_signal(signal.SIGTERM)
            assert process.stdout is not None
            process.stdout.close()
            self.assertEqual(process.wait(300), 0)

        self.addCleanup(end)
        assert process.stdout is not None
        self.assertIn("taking bounces at", process.stdout.readline())

    def free_port(self) -> int:
        held = self.enterContext(contextlib.ExitStack())
        return hold_ports(1, held)[0]

    def test_of_postfix(self) -> None:
        """Over TCP."""
        port = self.free_port()
        self.serve(f"127.0.0.1:{port}")
        made = type("Made", (Postfix,), {
            "transport": f"lmtp:inet:127.0.0.1:{port}", "service": "lmtp unix - - n - - lmtp\n"
        })  # fmt: skip
        self.check(self.start(made))

    def test_of_exim(self) -> None:
        """Over a Unix socket."""
        if excuse := Exim.excuse():
            self.skipTest(excuse)
        case = self

        class Served(Exim):
            transport = "  driver = lmtp\n  socket = /srv/back\n  user = Debian-exim\n"

            def configure(self) -> None:
                super().configure()
                case.serve(f"unix:{self.home}/back")  # its directory has to be there first

        self.check(self.start(Served))

    def test_of_opensmtpd(self) -> None:
        """Over TCP."""
        port = self.free_port()
        self.serve(f"127.0.0.1:{port}")
        self.check(self.start(type("Made", (OpenSMTPD,), {"place": f"127.0.0.1:{port}"})))


class IntoAMaildir(Fixture):
    def test_of_postfix(self) -> None:
        """Its virtual delivery agent says in the header where the bounce came to."""
        server = self.start(Postfix)
        maildir = server.home / "mail" / "all"
        self.assertTrue(wait_until(lambda: any((maildir / "new").glob("*"))), server.log())
        self.configure(f"maildir = {maildir}\n")
        self.assertEqual(self.run_it("--once"), 0)
        self.assertEqual((self.said, self.suppressed(), os.listdir(maildir / "new")), (b"", [GONE], []))


class Door:
    """A program that a confined server can run: it hands all that it gets out, and ends as it is told from outside."""

    def __init__(self, server: Server) -> None:
        self._directory = server.home / "pipe"
        self._directory.mkdir()
        self._directory.chmod(0o777)
        for program in ("sh", "cat"):
            place = server.root / "bin" / program
            place.unlink(missing_ok=True)
            shutil.copy2(shutil.which(program) or program, place)
        text = (
            "#!/bin/sh\ncd /srv/pipe\n/bin/cat > message\nexport -p > environment\n"
            "printf '%s\\n' \"$@\" > arguments\n: > ready\nread status < status\nexit $status\n"
        )
        server.write(f"{INSIDE}/pipe/run", text, mode=0o755)
        os.mkfifo(self._directory / "status")
        (self._directory / "status").chmod(0o666)

    @property
    def is_knocked_at(self) -> bool:
        """Whether the server has started the program and given it all."""
        return (self._directory / "ready").exists()

    def read(self) -> tuple[bytes, dict[str, str], list[str]]:
        """Return message, environment and arguments."""
        lines = (self._directory / "environment").read_text().splitlines()
        pairs = [shlex.split(line)[1].partition("=") for line in lines if "=" in line]
        arguments = (self._directory / "arguments").read_text().splitlines()
        environment = {name: value for name, _, value in pairs if name not in ("PATH", "PWD", "HOME")}
        return (self._directory / "message").read_bytes(), environment, arguments

    def answer(self, status: int) -> None:
        """Let the program end."""
        (self._directory / "ready").unlink()
        (self._directory / "status").write_text(f"{status}\n")


class IntoAPipe(Fixture):
    """The server's pipe; what it hands over goes to the command word by word, and the command's status back."""

    door: Door

    def check_pipe(self, made: Any) -> None:
        """See that the bounce has its effect: at the second attempt, as the command line is wrong at the first one."""
        case = self

        class Piping(made):  # type: ignore[misc]  # the class is made by a function
            def configure(self) -> None:
                super().configure()
                case.door = Door(self)

        if excuse := made.excuse():
            self.skipTest(excuse)
        server: Any = self.start(Piping)
        self.assertEqual((self.attempt(server, "--recipent"), self.suppressed()), (75, []))
        self.assertIn(b"did you mean --recipient", self.said)
        self.assertEqual((self.attempt(server), self.said, self.suppressed()), (0, b"", [GONE]))

    def attempt(self, server: Any, *more: str) -> int:
        """Let the server give the bounce to the command, with `more` on its command line; return its status."""
        knocked = threading.Event()
        running = threading.Thread(target=self.run_queue_until, args=[server, knocked], daemon=True)
        running.start()
        self.assertTrue(wait_until(lambda: self.door.is_knocked_at), server.log())
        knocked.set()
        message, environment, given = self.door.read()
        self.assertEqual(given[0], "bounce")
        status = self.run_it(*given[1:], *more, message=message, environment=environment)
        self.door.answer(status)
        running.join()
        return status

    def run_queue_until(self, server: Any, knocked: threading.Event) -> None:
        """Let Exim run its queue: for the bounce, and for its way back, which waits for the program to end."""
        wait_until(lambda: knocked.is_set() or server.run_queue() or knocked.is_set())

    def test_of_postfix(self) -> None:
        """The address is an argument."""
        service = (
            "bounces unix - n n - - pipe flags=R user=nobody\n"
            "  argv=/srv/pipe/run bounce --recipient ${original_recipient}\n"
        )
        self.check_pipe(type("Made", (Postfix,), {"transport": "bounces:", "service": service}))

    def test_of_exim(self) -> None:
        """The address is in the environment."""
        transport = "  driver = pipe\n  command = /srv/pipe/run bounce\n  user = Debian-exim\n"
        self.check_pipe(type("Made", (Exim,), {"transport": transport}))


class Refusing(BounceHandler):
    """A handler whose disk is full when a test wants it."""

    is_full = False

    def handle(self, message: bytes, return_path: str = "") -> list[Bounce]:
        if self.is_full:
            raise OSError(28, "No space left on device")
        return super().handle(message, return_path)


class TheServer(unittest.TestCase):
    """What ``--lmtp`` answers, word by word."""

    def setUp(self) -> None:
        self.told: list[Any] = []
        self.handler = Refusing([SENDER], KEY)
        self.server = BounceServer(self.handler, ("127.0.0.1", 0), self.told.append)
        thread = threading.Thread(target=self.server.run)
        thread.start()
        self.addCleanup(thread.join, 60)
        self.addCleanup(self.server.stop)
        host, _, port = self.server.address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), 60)
        self.addCleanup(self.socket.close)
        self.lines = self.socket.makefile("rb")
        self.addCleanup(self.lines.close)
        self.lines.readline()
        self.say("LHLO client.test")

    def say(self, line: str) -> str:
        """Send a line; return the last line of the reply."""
        self.socket.sendall(line.encode() + b"\r\n")
        while (reply := self.lines.readline().decode())[3:4] == "-":
            pass
        return reply.strip()

    def test_takes_bounces_to_its_senders_only(self) -> None:
        """One at a time; other addresses are refused, so that their mail is not lost here."""
        self.say("MAIL FROM:<>")
        self.assertEqual(self.say("RCPT TO:<jane@test.org>")[:3], "550")
        self.assertEqual(self.say("RCPT TO:<newspaper@test.org>")[:3], "550")
        self.assertEqual(self.say("RCPT TO:<News+jane=gone.test@TEST.org>")[:3], "250")
        self.assertEqual(self.say("RCPT TO:<news@test.org>")[:3], "452")
        self.assertEqual(self.say("DATA")[:3], "354")
        self.assertEqual(self.say("Subject: Hello\r\n\r\nHow are you?\r\n."), "250 2.0.0 no bounce")
        self.assertEqual(self.told, [[]])

    def test_refuses_what_a_person_writes(self) -> None:
        """To an address that persons know; else the writer would wait for an answer."""
        self.assertEqual(self.answer("jane@example.org", SENDER, "Subject: Hello\r\n\r\nHow are you?")[:9], "550 5.7.1")

    def test_says_nothing_to_programs(self) -> None:
        """What no person wrote is taken and forgotten, as is what comes to a signed address."""
        for header in ("Auto-Submitted: auto-replied", "Precedence: bulk", "List-Id: <a.b>"):
            said = self.answer("robot@example.org", SENDER, f"{header}\r\nSubject: Hello\r\n\r\nAway.")
            self.assertEqual(said, "250 2.0.0 no bounce", header)
        signed = KEY.signed("news+jane=gone.test@test.org", 20_000)
        said = self.answer("spam@example.org", signed, "Subject: Hello\r\n\r\nBuy.")
        self.assertEqual(said, "250 2.0.0 no bounce")

    def answer(self, sender: str, recipient: str, message: str) -> str:
        """Return what is said to a message."""
        self.say(f"MAIL FROM:<{sender}>")
        self.assertEqual(self.say(f"RCPT TO:<{recipient}>")[:3], "250")
        self.say("DATA")
        return self.say(f"{message}\r\n.")

    def test_leaves_what_it_cannot_handle_with_the_mail_server(self) -> None:
        """Which tries it again; the log says why."""
        self.handler.is_full = True
        self.say("MAIL FROM:<>")
        self.say("RCPT TO:<news@test.org>")
        self.say("DATA")
        with self.assertLogs("QueueProcessorThread", "WARNING") as logged:
            self.assertEqual(self.say("Subject: x\r\n\r\n.")[:3], "451")
        self.assertIn("No space left", logged.output[0])

    def test_leaves_what_it_cannot_tell_with_the_mail_server(self) -> None:
        """As when the output of ``--verbose`` goes nowhere any more; no mail server is told that it is in vain."""
        self.server._hooks._told = mock.Mock(side_effect=BrokenPipeError)
        self.say("MAIL FROM:<>")
        self.say("RCPT TO:<news@test.org>")
        self.say("DATA")
        with self.assertLogs("QueueProcessorThread", "WARNING"):
            self.assertEqual(self.say("Subject: x\r\n\r\n.")[:3], "451")

    def test_takes_lines_of_any_length(self) -> None:
        """What comes back is as it was sent."""
        self.say("MAIL FROM:<>")
        self.say("RCPT TO:<news@test.org>")
        self.say("DATA")
        self.assertEqual(self.say("Subject: x\r\n\r\n" + "long " * 20_000 + "\r\n.")[:3], "250")

    def test_says_when_a_place_is_taken(self) -> None:
        """And takes over the socket of a process that is dead."""
        path = self.enterContext(tempfile.TemporaryDirectory()) + "/socket"
        handler = BounceHandler([SENDER], KEY)
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(path)
        living = BounceServer(handler, path, self.told.append)
        self.addCleanup(living.close)
        with self.assertRaisesRegex(OSError, "another process listens"):
            BounceServer(handler, path, self.told.append)


load_tests = in_layer(Servers)
