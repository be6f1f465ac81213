"""The daemon of maildrop, as real processes with a real relay, and the pieces that it is made of."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
from collections.abc import Callable
from unittest import mock

from zope.sendmail.config.settings import Tls
from zope.sendmail.errors import QueueError
from zope.sendmail.events import MailDeferredEvent, MailErrorEvent, MailSentEvent, MailUnknownEvent
from zope.sendmail.lifecycle.outcome import Answer, Reply
from zope.sendmail.lifecycle.states import State
from zope.sendmail.maildrop import script
from zope.sendmail.maildrop.config import ConfigError, parse_config, read_config
from zope.sendmail.maildrop.daemon import MaildropProcessor, make_mailer, make_queue, open_configured_queue
from zope.sendmail.maildrop.pidfile import AlreadyRunning, PidFile
from zope.sendmail.maildrop.runlog import RunLog
from zope.sendmail.system.disk import Disk
from zope.sendmail.testing.contracts import ManualClock
from zope.sendmail.testing.relay import Drop, Hang, Relay
from zope.sendmail.tests.support.layers import Processes, in_layer
from zope.sendmail.tests.support.sockets import socket_directory

MAIL = "##To:one@example.org\n##From:sender@example.org\nSubject: one\n\nText\n\n"

#: Files that killed the daemon of 2.3, or made it do the same again and again.
POISON = {
    "no colon": b"##To:one@example.org\n##oops\n",
    "no message": b"##To:one@example.org\n##From:sender@example.org\n",
    "no recipient": b"##To:@\n##From:sender@example.org\n\n",
    "no mail": b"\x7fELF\0\0\0",
    "empty": b"",
}


def wait_until(condition: Callable[[], object], what: str, seconds: float = 300.0) -> None:
    """Processes that are not ours tell nobody when they are done."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError(f"waited {seconds} s for {what}")
        time.sleep(0.02)


class DaemonTest(unittest.TestCase):
    """A configuration, a relay, and daemons that end with the test."""

    def setUp(self) -> None:
        self.home = self.enterContext(tempfile.TemporaryDirectory())
        self.relay = self.enterContext(Relay())
        self.config_path = os.path.join(self.home, "maildrop.conf")
        self.configure()
        os.mkdir(os.path.join(self.home, "spool"), 0o700)

    def configure(self, text: str = "", port: int = 0) -> None:
        with open(self.config_path, "w", encoding="utf-8") as file:
            file.write(f'MAILDROP_HOME="."\nSMTP_HOST="127.0.0.1"\nSMTP_PORT={port or self.relay.port}\n')
            file.write(f"MAILDROP_INTERVAL=0.2\n{text}\n")

    def drop(self, text: str | bytes = MAIL, name: str = "123456") -> None:
        """As a program does it that knows no lock: written elsewhere, moved in."""
        path = os.path.join(self.home, name)
        with open(path, "wb") as file:
            file.write(text.encode() if isinstance(text, str) else text)
        os.utime(path, (1e9, 1e9))
        os.rename(path, os.path.join(self.home, "spool", name))

    @property
    def log(self) -> str:
        with contextlib.suppress(FileNotFoundError), open(self.home + "/var/maildrop.log", encoding="utf-8") as file:
            return file.read()
        return ""

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "zope.sendmail.maildrop", "--config", "maildrop.conf", *arguments]

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": os.pathsep.join(os.path.abspath(each) for each in filter(None, sys.path))}

    def run_verb(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            cwd=self.home,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def start(self) -> int:
        """A daemon of its own; returns its process."""
        self.addCleanup(self.stop)
        done = self.run_verb("start")
        self.assertEqual(done.returncode, 0, done.stderr)
        return int(done.stdout.split()[-1])

    def stop(self) -> None:
        """As the verb does it, without a process of its own; there may be no daemon any more."""
        with contextlib.suppress(ProcessLookupError):
            self.assertTrue(PidFile(self.home + "/var/maildrop.pid").terminate(signal.SIGTERM, 120.0))

    def foreground(self, verb: str = "fg") -> subprocess.Popen[str]:
        """A daemon that is our child; returns when it is at work."""
        daemon = subprocess.Popen(
            self.command(verb), cwd=self.home, env=self.environment(), stderr=subprocess.PIPE, text=True
        )
        self.addCleanup(self.end, daemon)
        wait_until(lambda: self.holder() == daemon.pid or daemon.poll() is not None, "the daemon")
        return daemon

    def end(self, daemon: subprocess.Popen[str]) -> None:
        if daemon.poll() is None:
            daemon.terminate()
        daemon.communicate(timeout=300)

    def holder(self) -> int | None:
        return PidFile(self.home + "/var/maildrop.pid").holder()

    def took(self, count: int) -> None:
        self.relay.wait_until(lambda: len(self.relay.mails) >= count, 60.0)


class ADaemon(DaemonTest):
    def test_tells_of_a_key_that_there_is_not(self) -> None:
        """Where a person looks at it; cron would mail the words of ``once`` each time."""
        with open(self.home + "/maildrop.conf", "a", encoding="utf-8") as file:
            file.write("\nMAILDROP_INTERVL=5\n")
        for verb, told in (("status", True), ("once", False)):
            self.assertEqual("did you mean MAILDROP_INTERVAL?" in self.run_verb(verb).stderr, told, verb)

    def test_starts_sends_and_stops(self) -> None:
        """start, status and stop, each with its exit status; what was dropped has gone, as the log says."""
        self.drop()
        pid = self.start()
        self.took(1)
        self.assertEqual(self.relay.mails[0].recipients, ("one@example.org",))
        wait_until(lambda: "Finished" in self.log, "the end of the run")
        status = self.run_verb("status")
        self.assertEqual((status.returncode, status.stdout), (0, f"maildrop: it runs, process {pid}; mails: none\n"))
        stopped = self.run_verb("stop")
        self.assertEqual((stopped.returncode, stopped.stdout), (0, "maildrop: stopped\n"))
        self.assertEqual(self.run_verb("status").returncode, 3)
        self.assertFalse(os.path.exists(self.home + "/var/maildrop.pid"))
        time_ = r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d"
        line = r"OK\tone@example\.org\t<>\t250 .*"
        self.assertRegex(self.log, rf"^\n### Started at {time_}\n{line}\n### Finished at {time_}\n$")

    def test_belongs_to_no_terminal_and_keeps_its_files_private(self) -> None:
        """A session of its own, nothing open to us, and modes 0600."""
        pid = self.start()
        self.assertNotEqual(os.getsid(pid), os.getsid(0))
        if sys.platform == "linux":
            self.assertEqual([os.readlink(f"/proc/{pid}/fd/{n}") for n in range(3)], ["/dev/null"] * 3)
            self.assertEqual(os.readlink(f"/proc/{pid}/cwd"), "/")
        self.drop()
        wait_until(lambda: self.log, "the log")
        self.assertEqual(os.stat(self.home + "/var/maildrop.log").st_mode & 0o777, 0o600)
        self.assertEqual(os.stat(self.home + "/var").st_mode & 0o777, 0o700)

    def test_is_there_once(self) -> None:
        """A second start changes nothing; a second fg is refused."""
        pid = self.start()
        again = self.run_verb("start")
        self.assertEqual((again.returncode, again.stdout), (0, f"maildrop: it is already running, process {pid}\n"))
        refused = self.run_verb("fg")
        self.assertEqual((refused.returncode, refused.stderr), (1, f"maildrop: it is already running, process {pid}\n"))
        self.assertEqual(self.holder(), pid)

    def test_restart_makes_a_new_one(self) -> None:
        """And it works without an old one."""
        self.addCleanup(self.stop)
        self.assertEqual(self.run_verb("restart").returncode, 0)
        first = self.holder()
        self.assertEqual(self.run_verb("restart").returncode, 0)
        self.assertNotIn(self.holder(), (None, first))

    def test_restart_ends_nobody_whom_nothing_can_follow(self) -> None:
        """What is wrong with the new configuration is said first."""
        pid = self.start()
        self.configure('MAILDROP_LOGIN="me"\nMAILDROP_PASSWORD_FILE="nowhere"')
        refused = self.run_verb("restart")
        self.assertEqual((refused.returncode, self.holder()), (1, pid))
        self.assertIn("MAILDROP_PASSWORD_FILE: the password file", refused.stderr)

    def test_says_on_the_terminal_why_it_does_not_start(self) -> None:
        """Exit status 1, whether the fault is in the file or in the place."""
        self.configure("SMTP_PORT=x")
        refused = self.run_verb("start")
        self.assertEqual(refused.returncode, 1)
        self.assertIn("maildrop.conf, line 5: the value of SMTP_PORT is not a literal", refused.stderr)
        self.configure('MAILDROP_SPOOL="spool/file"')
        self.drop(name="file")
        refused = self.run_verb("start")
        self.assertEqual((refused.returncode, refused.stdout), (1, ""))
        self.assertIn("spool/file", refused.stderr)
        self.assertIsNone(self.holder())

    def test_starts_while_the_relay_is_down(self) -> None:
        """Mail waits; the log says why; SIGHUP lets it look at once."""
        self.relay.stop()
        self.drop()
        daemon = self.foreground()
        wait_until(lambda: "!!!!! Relay" in self.log and "Finished" in self.log, "the log")
        self.assertIsNone(daemon.poll())
        self.relay.start()
        daemon.send_signal(signal.SIGHUP)
        self.took(1)

    def test_survives_what_killed_the_old_one(self) -> None:
        """Poison in the spool, and files that vanish; the mail behind them goes."""
        for name, text in POISON.items():
            self.drop(text, name)
        daemon = self.foreground()
        self.drop()
        self.took(1)
        self.assertIsNone(daemon.poll())
        self.assertEqual([mail.recipients for mail in self.relay.mails], [("one@example.org",)])

    def test_finishes_the_message_in_hand(self) -> None:
        """SIGTERM comes between the dot and the reply: the message is not sent twice."""
        hang = Hang()
        self.relay.on("DOT", hang, nth=1)
        self.drop()
        daemon = self.foreground()
        self.assertTrue(hang.reached.wait(300))
        daemon.terminate()
        self.relay.forgive()
        self.assertEqual(daemon.wait(300), 0)
        self.assertEqual(len(self.relay.mails), 1)
        self.assertEqual(self.run_verb("once").returncode, 0)
        self.assertEqual(len(self.relay.mails), 1)

    def test_stop_tells_that_it_is_still_busy(self) -> None:
        """It waits for so long, and kills nobody."""
        hang = Hang()
        self.relay.on("DOT", hang, nth=1)
        self.drop()
        daemon = self.foreground()
        self.assertTrue(hang.reached.wait(300))
        stopped = self.run_verb("stop", "--timeout", "0.1")
        self.assertEqual(stopped.returncode, 1)
        self.assertIn("still busy", stopped.stderr)
        self.assertIsNone(daemon.poll())
        self.relay.forgive()
        self.assertEqual(daemon.wait(300), 0)

    def test_a_killed_one_loses_nothing(self) -> None:
        """kill -9 with a mail in hand: nobody is taken for the daemon, and the next one sends it."""
        hang = Hang()
        self.relay.on("MAIL", hang, nth=1)
        self.drop()
        daemon = self.foreground()
        self.assertTrue(hang.reached.wait(300))
        daemon.kill()
        daemon.wait()
        self.relay.forgive()
        self.assertEqual(self.run_verb("status").returncode, 3)
        self.foreground()
        self.took(1)

    def test_reloads_at_sighup(self) -> None:
        """The new relay gets the next mail; a configuration that cannot be used changes nothing."""
        daemon = self.foreground()
        self.configure("SMTP_PORT=oops")
        daemon.send_signal(signal.SIGHUP)
        wait_until(lambda: "The configuration is not reloaded" in self.log, "the refusal")
        with Relay() as other:
            self.configure(port=other.port)
            daemon.send_signal(signal.SIGHUP)
            before = self.relay.mails
            self.drop()
            wait_until(lambda: other.mails or self.relay.mails != before, "the mail")
            if not other.mails:  # the mail was faster than the signal
                self.drop(name="again")
                other.wait_until(lambda: other.mails, 60.0)
        self.assertIsNone(daemon.poll())

    def test_lets_its_log_be_rotated(self) -> None:
        """Renamed without a word; the next run begins a new one."""
        self.foreground()
        self.drop()
        wait_until(lambda: "Finished" in self.log, "the first run")
        os.rename(self.home + "/var/maildrop.log", self.home + "/var/maildrop.log.1")
        self.drop()
        wait_until(lambda: "OK\t" in self.log, "the second run")
        with open(self.home + "/var/maildrop.log.1", encoding="utf-8") as former:
            self.assertEqual(former.read().count("OK\t"), 1)
        self.assertEqual(self.log.count("OK\t"), 1)

    def test_stays_in_the_foreground_for_a_supervisor(self) -> None:
        """SUPERVISED_DAEMON=1: `start` is `fg`."""
        self.configure("SUPERVISED_DAEMON=1")
        daemon = self.foreground("start")
        self.assertEqual(self.holder(), daemon.pid)
        self.assertIsNone(daemon.poll())

    def test_reads_every_spool(self) -> None:
        """And a lock of another program in any of them counts."""
        self.configure('MAILDROP_SPOOL="spool;more"')
        os.mkdir(self.home + "/more")
        self.drop()
        self.drop(name="locked")
        with open(self.home + "/spool/locked.lck", "wb") as file:
            file.write(b"locked")
        self.drop(MAIL.replace("one@", "two@"), "second")
        os.rename(self.home + "/spool/second", self.home + "/more/second")
        self.assertEqual(self.run_verb("once").returncode, 0)
        self.assertEqual(
            sorted(mail.recipients[0] for mail in self.relay.mails), ["one@example.org", "two@example.org"]
        )
        self.assertTrue(os.path.exists(self.home + "/spool/locked"))


class UnderSystemd(DaemonTest):
    """What systemd makes of the unit in docs/howto/maildrop.rst."""

    def setUp(self) -> None:
        super().setUp()
        self.supervisor = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.supervisor.close)
        self.supervisor.settimeout(60.0)

    def environment(self) -> dict[str, str]:
        address = os.fsdecode(self.supervisor.getsockname()).replace("\0", "@")
        return {**super().environment(), "NOTIFY_SOCKET": address}

    def notified(self) -> subprocess.Popen[str]:
        """Type=notify: the daemon, when it says that it is at work."""
        daemon = subprocess.Popen(self.command("fg"), cwd=self.home, env=self.environment(), text=True)
        self.addCleanup(self.end, daemon)
        self.assertEqual(self.supervisor.recv(100), b"READY=1")
        return daemon

    def test_it_is_told_when_the_daemon_is_at_work(self) -> None:
        """Then signals do what they shall, and the main process is the one that it started."""
        self.supervisor.bind(self.enterContext(socket_directory()) + "/notify")
        daemon = self.notified()
        self.assertEqual(self.holder(), daemon.pid)
        self.configure("SMTP_PORT=oops")
        daemon.send_signal(signal.SIGHUP)
        wait_until(lambda: "The configuration is not reloaded" in self.log, "the reload")
        daemon.terminate()
        self.assertEqual(daemon.wait(300), 0)

    @unittest.skipUnless(sys.platform == "linux", "only Linux has sockets without a file")
    def test_it_may_listen_without_a_file(self) -> None:
        """Its address begins with @ then."""
        self.supervisor.bind("\0" + self.home[-80:])
        self.notified()

    def test_it_need_not_listen(self) -> None:
        """A daemon whose supervisor is gone goes on."""
        path = self.enterContext(socket_directory()) + "/notify"
        self.supervisor.bind(path)
        os.unlink(path)
        self.assertIsNone(self.foreground().poll())


class Strangers(DaemonTest):
    """The pid file names a process that is no daemon."""

    def stranger(self, *words: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-c", "import sys; sys.stdin.read()", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.addCleanup(process.communicate)
        os.makedirs(self.home + "/var", exist_ok=True)
        with open(self.home + "/var/maildrop.pid", "w", encoding="ascii") as file:
            file.write(str(process.pid))
        return process

    def test_stop_kills_nobody(self) -> None:
        """The number was given to somebody else, or somebody wrote it there."""
        process = self.stranger()
        stopped = self.run_verb("stop")
        self.assertEqual((stopped.returncode, stopped.stdout), (0, "maildrop: it does not run\n"))
        self.assertIsNone(process.poll())
        self.assertEqual(self.run_verb("status").returncode, 3)

    def test_start_is_not_kept_from_it(self) -> None:
        """2.3's script believed the number."""
        self.stranger()
        self.assertEqual(self.start(), self.holder())

    @unittest.skipUnless(sys.platform == "linux", "only /proc tells what a process is")
    def test_a_daemon_of_2_3_is_not_run_beside(self) -> None:
        """It takes no lock on what it sends, so everything would go twice."""
        process = self.stranger("/opt/maildrop/maildrop.py", "/etc/maildrop/config")
        self.drop()
        for verb in ("start", "once", "status", "stop"):
            with self.subTest(verb):
                refused = self.run_verb(verb)
                self.assertEqual(refused.returncode, 1)
                self.assertIn("is a daemon of Products.MaildropHost", refused.stderr)
        self.assertEqual((self.relay.mails, process.poll()), ([], None))


class AUserWithoutRights(DaemonTest):
    def start_refused(self, error: OSError) -> str:
        """Return what ``start`` says on standard error if the disk refuses to make a directory."""
        with (
            mock.patch("zope.sendmail.maildrop.daemon.make_directories", side_effect=error),
            contextlib.redirect_stderr(io.StringIO()) as said,
        ):
            self.assertEqual(script.main(["--config", self.config_path, "start"]), 1)
        return said.getvalue()

    def test_is_told_what_may_not_be_made_and_what_to_do(self) -> None:
        """The directory, the user, and a command for root."""
        said = self.start_refused(PermissionError(errno.EACCES, "Permission denied", "/srv/maildrop/var"))
        self.assertIn("/srv/maildrop/var: user ", said)
        self.assertIn("Permission denied. Start maildrop as the user that owns it, let root make it", said)
        self.assertIn(f"or name another one in {self.config_path}", said)

    def test_is_told_what_the_system_says_where_no_file_is_named(self) -> None:
        """There is nothing to be made then."""
        self.assertEqual(self.start_refused(PermissionError(errno.EPERM, "no")), "maildrop: [Errno 1] no\n")

    def test_is_told_where_a_directory_cannot_be_made(self) -> None:
        """As below a file, or in a file system that makes none; any other trouble is told with its path."""
        said = self.start_refused(FileNotFoundError(errno.ENOENT, "No such file or directory", "/proc/var"))
        self.assertIn(
            f"/proc/var: No such file or directory; make the directory, or name another one in {self.home}", said
        )
        said = self.start_refused(OSError(errno.EIO, "Input/output error", "/srv"))
        self.assertEqual(said, "maildrop: /srv: Input/output error\n")

    def test_may_have_no_name(self) -> None:
        """As in a container; its number is told."""
        with mock.patch("pwd.getpwuid", side_effect=KeyError):
            said = self.start_refused(PermissionError(errno.EACCES, "Permission denied", "/srv"))
        self.assertIn(f"user {os.geteuid()} may not", said)


class APidFile(unittest.TestCase):
    def setUp(self) -> None:
        self.path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "pid")

    def other_daemon(self) -> int:
        """A process that holds the file until it is ended; its number."""
        ready, write_end = os.pipe()
        child = os.fork()
        if not child:
            PidFile(self.path).hold()
            os.write(write_end, b".")
            signal.pause()
        os.read(ready, 1)
        for fd in (ready, write_end):
            os.close(fd)
        return child

    def test_the_kernel_says_who_holds_it(self) -> None:
        """Whatever somebody has written into it."""
        child = self.other_daemon()
        with open(self.path, "w", encoding="ascii") as file:
            file.write("1\n")
        self.assertEqual(PidFile(self.path).holder(), child)
        self.assertRaisesRegex(AlreadyRunning, f"process {child}", PidFile(self.path).hold)
        self.assertTrue(PidFile(self.path).terminate(signal.SIGTERM, 60.0))
        os.waitpid(child, 0)
        self.assertIsNone(PidFile(self.path).holder())

    def test_one_that_ends_in_this_moment_is_none(self) -> None:
        """It is not told of as process None; we are the daemon."""
        child = self.other_daemon()

        class Ending(PidFile):
            def _holder(self, fd: int) -> int | None:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return super()._holder(fd)

        ours = Ending(self.path)
        ours.hold()
        self.addCleanup(ours.release)
        with open(self.path, encoding="ascii") as file:
            self.assertEqual(file.read(), f"{os.getpid()}\n")

    def test_a_full_disk_keeps_nobody_from_sending(self) -> None:
        """The lock says who we are, and what is sent makes room; any other fault is told."""
        ours = PidFile(self.path)
        self.addCleanup(ours.release)
        for number in (errno.EIO, errno.ENOSPC):
            with mock.patch("os.pwrite", side_effect=OSError(number, "")), contextlib.suppress(OSError):
                ours.hold()
            with self.subTest(number):
                self.assertEqual(ours._fd >= 0, number == errno.ENOSPC)

    def test_a_symbolic_link_is_not_followed(self) -> None:
        """Somebody may want us to write over a file."""
        with open(self.path + "-other", "w", encoding="ascii") as file:
            file.write("precious")
        os.symlink(self.path + "-other", self.path)
        self.assertRaises(OSError, PidFile(self.path).hold)
        with open(self.path + "-other", encoding="ascii") as file:
            self.assertEqual(file.read(), "precious")

    def test_release_leaves_somebody_elses_file(self) -> None:
        """Who removed ours and made another one keeps it."""
        ours = PidFile(self.path)
        ours.hold()
        os.unlink(self.path)
        with open(self.path, "w", encoding="ascii") as file:
            fcntl.lockf(file, fcntl.LOCK_EX)
            ours.release()
            self.assertTrue(os.path.exists(self.path))


class OnePass(DaemonTest):
    def test_sends_what_is_due_and_says_how_it_went(self) -> None:
        """0: all is well; 75: time should help; 1: a person should look."""
        self.assertEqual(self.run_verb("once").returncode, 0)
        self.assertEqual(self.log, "")
        self.relay.on("RCPT", "450 4.2.0 later", about="later@")
        self.relay.on("RCPT", "550 5.1.1 never", about="never@")
        for word, status in (("one", 0), ("later", 75), ("never", 1)):
            self.drop(MAIL.replace("one@", f"{word}@"), word)
            self.assertEqual(self.run_verb("once").returncode, status, word)
        words = re.findall(r"^(OK|BAD|FATAL)\t(\w+)@", self.log, re.MULTILINE)
        self.assertEqual(words, [("OK", "one"), ("BAD", "later"), ("FATAL", "never")])
        queue = open_configured_queue(read_config(self.config_path))
        self.addCleanup(queue.close)
        self.assertEqual(queue.admin.count(), {State.DEFERRED: 1, State.REJECTED: 1})

    def test_the_relay_is_down(self) -> None:
        """75, and the mail waits."""
        self.relay.stop()
        self.drop()
        self.assertEqual(self.run_verb("once").returncode, 75)

    def test_what_is_unknown_waits_for_a_person_if_the_site_says_so(self) -> None:
        """The relay hangs up after the last byte: tried again, or held by MAILDROP_ON_UNKNOWN."""
        self.relay.on("DOT", Drop())
        for text, status, state in (("", 75, State.DEFERRED), ('MAILDROP_ON_UNKNOWN="hold"', 1, State.HELD)):
            self.configure(text)
            self.drop()
            self.assertEqual(self.run_verb("once").returncode, status)
            queue = open_configured_queue(read_config(self.config_path))
            self.addCleanup(queue.close)
            self.assertEqual(queue.admin.count()[state], 1)

    def test_the_relay_has_no_tls(self) -> None:
        """With MAILDROP_TLS=1 the mail goes all the same, where 2.3 died; with 2 it waits."""
        for tls, status in ((1, 0), (2, 75)):
            self.configure(f"MAILDROP_TLS={tls}")
            self.drop()
            self.assertEqual(self.run_verb("once").returncode, status)
        self.assertEqual(len(self.relay.mails), 1)
        self.assertIn("does not offer STARTTLS", self.log)

    def test_the_relay_hangs_up_in_the_middle(self) -> None:
        """2.3 died; the mail behind goes in the same pass or in the next one."""
        self.relay.on("DATA", Drop(), nth=1)
        self.relay.on("DATA", Drop(), nth=2)  # once more, one command at a time
        for name in ("1", "2"):
            self.drop(MAIL.replace("one@", f"{name}@"), name)
        self.run_verb("once")
        self.run_verb("once")
        self.assertEqual([mail.recipients for mail in self.relay.mails], [("2@example.org",)])
        self.assertRegex(self.log, r"BAD\t1@example.org")

    def test_runs_beside_a_daemon(self) -> None:
        """Each mail goes once."""
        self.foreground()
        for number in range(20):
            self.drop(name=str(number))
        self.assertEqual(self.run_verb("once").returncode, 0)
        self.took(20)
        self.assertEqual(len(self.relay.mails), 20)

    def test_adds_a_message_id_if_wanted(self) -> None:
        """ADD_MESSAGEID=1."""
        self.configure("ADD_MESSAGEID=1")
        self.drop()
        self.run_verb("once")
        self.assertRegex(self.relay.mails[0].data, rb"^Message-Id: <\S*123456\S*@\S+>\r\nSubject: one\r\n")

    def test_logs_in_by_a_password_file_or_the_environment(self) -> None:
        """Neither is in the configuration."""
        self.relay.users, self.relay.mechanisms = {"me": "secret"}, ["PLAIN"]
        with open(self.home + "/password", "w", encoding="utf-8") as file:
            file.write("secret\n")
        for text, environment in (('MAILDROP_PASSWORD_FILE="password"', {}), ("", {"MAILDROP_PASSWORD": "secret"})):
            with self.subTest(text), mock.patch.dict(os.environ, environment):
                self.configure(f'MAILDROP_LOGIN="me"\n{text}')
                self.drop()
                self.assertEqual(self.run_verb("once").returncode, 0)
        self.assertEqual(len([each for each in self.relay.commands if each.startswith("AUTH")]), 2)

    def test_says_why_a_spool_cannot_be_trusted(self) -> None:
        """With the sentence of the error, which names the part and the cure."""
        os.rmdir(os.path.join(self.home, "spool"))
        os.symlink("spool", os.path.join(self.home, "spool"))
        with self.assertRaises(QueueError) as caught:
            make_queue(read_config(self.config_path))
        self.assertRegex(str(caught.exception), "^/.*/spool leads to itself; correct that link$")

    def test_says_which_directory_the_disk_refuses(self) -> None:
        """The system does not say it when what it refuses is a write."""
        broken = OSError(errno.EIO, os.strerror(errno.EIO))
        with mock.patch.object(Disk, "open_locked", side_effect=broken), self.assertRaises(OSError) as raised:
            make_queue(read_config(self.config_path))
        self.assertIn(f"spool:{self.home}/spool", str(raised.exception))

    def test_debug_says_it_on_the_terminal_as_well(self) -> None:
        """DEBUG=1."""
        self.configure("DEBUG=1")
        self.drop()
        self.assertIn("OK\tone@example.org", self.run_verb("once").stdout)

    def test_bad_calls_are_told(self) -> None:
        """Exit status 2, as everywhere."""
        self.assertEqual(self.run_verb("dance").returncode, 2)

    def test_batch_is_the_number_of_mails_a_connection(self) -> None:
        """MAILDROP_BATCH=2: five mails take three."""
        self.configure("MAILDROP_BATCH=2")
        for number in range(5):
            self.drop(name=str(number))
        self.run_verb("once")
        self.assertEqual((len(self.relay.mails), len(self.relay.dialogues)), (5, 3))

    def test_wait_interval_is_kept_between_mails(self) -> None:
        """WAIT_INTERVAL=30: three mails take a minute."""
        self.configure("WAIT_INTERVAL=30.0")
        os.mkdir(self.home + "/var")
        for number in range(3):
            self.drop(name=str(number))
        config = read_config(self.config_path)
        clock = ManualClock()
        processor = MaildropProcessor(
            config, open_configured_queue(config), RunLog(config.log_file, clock), clock=clock
        )
        begin = clock.mono
        processor.run(forever=False)
        self.assertEqual(len(self.relay.mails), 3)
        self.assertAlmostEqual(clock.mono - begin, 60.0, places=3)


class TheRunLog(unittest.TestCase):
    def setUp(self) -> None:
        self.path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "log")
        self.runlog = RunLog(self.path, ManualClock())

    def lines(self) -> list[str]:
        with open(self.path, encoding="utf-8") as file:
            return file.read().splitlines()[2:]

    def test_one_line_tells_of_each_kind_of_answer(self) -> None:
        """OK, BAD for what is tried again, FATAL for what is not."""
        replies = {
            "a@x.org": Reply(Answer.REJECTED, "no", 550),
            "b@x.org": Reply(Answer.REJECTED, "no", 550),
        }
        for kind in (MailSentEvent, MailDeferredEvent, MailUnknownEvent, MailErrorEvent):
            self.runlog.tell([kind("1@x.org", "s@x.org", replies)])
        rest = "a@x.org, b@x.org\t<1@x.org>\t550 no"
        self.assertEqual(self.lines(), [f"{word}\t{rest}" for word in ("OK", "BAD", "BAD", "FATAL")])

    def test_nobody_can_write_a_line_of_his_own(self) -> None:
        """What a relay or a message says is made printable."""
        self.runlog.tell([MailSentEvent("1\nOK\tx", "", {"a@x.org\n": Reply(Answer.ACCEPTED, "a\r\nOK\tb", 250)})])
        self.assertEqual(len(self.lines()), 1)

    def test_a_run_without_mail_leaves_no_trace(self) -> None:
        """Not even a file."""
        self.runlog.finish()
        self.assertFalse(os.path.exists(self.path))

    def test_a_log_that_cannot_be_written_harms_no_mail(self) -> None:
        """It is told once, elsewhere."""
        runlog = RunLog(os.path.join(self.path, "nowhere", "log"), ManualClock())
        with self.assertLogs("zope.sendmail.maildrop.runlog", "ERROR") as logged:
            runlog.say("x")
            runlog.finish()
        self.assertEqual(len(logged.output), 1)


class TheRelay(unittest.TestCase):
    """What the configuration says about TLS and login."""

    def settings(self, text: str = "") -> tuple[object, ...]:
        got = make_mailer(parse_config(f'MAILDROP_HOME="/x" {text}', "/c")).relay_settings()
        return got.tls, got.must_encrypt, got.must_verify, got.username

    def test_tls(self) -> None:
        """0 never, 1 if offered, 2 always and proved."""
        self.assertEqual(self.settings("MAILDROP_TLS=0"), (Tls.NEVER, False, False, None))
        self.assertEqual(self.settings("MAILDROP_TLS=1"), (Tls.OPPORTUNISTIC, False, False, None))
        self.assertEqual(self.settings("MAILDROP_TLS=2"), (Tls.REQUIRED, True, True, None))

    def test_a_password_goes_in_clear_only_where_the_file_says_never_tls(self) -> None:
        """With 1, 2.3 gave the password away in its probe; here 1 means 2 where there is one."""
        login = ' MAILDROP_LOGIN="me" MAILDROP_PASSWORD="secret"'
        self.assertEqual(self.settings("MAILDROP_TLS=0" + login)[:2], (Tls.NEVER, False))
        self.assertEqual(self.settings("MAILDROP_TLS=1" + login), (Tls.OPPORTUNISTIC, True, True, "me"))
        self.assertEqual(self.settings("MAILDROP_TLS=2" + login), (Tls.REQUIRED, True, True, "me"))

    def test_a_relay_of_ones_own_need_not_be_proved(self) -> None:
        """MAILDROP_VERIFY=0, for who knows why."""
        self.assertEqual(self.settings("MAILDROP_TLS=2 MAILDROP_VERIFY=0")[2], False)

    def test_half_a_login_is_none(self) -> None:
        """As in 2.3."""
        self.assertIsNone(self.settings('MAILDROP_LOGIN="me"')[3])
        self.assertIsNone(self.settings('MAILDROP_PASSWORD="secret"')[3])

    def test_a_bad_host_is_told_at_the_start(self) -> None:
        """With the file's name."""
        self.assertRaisesRegex(ConfigError, "^/c: .*hostname", self.settings, 'SMTP_HOST="a b"')

    def test_the_password_in_clear_works(self) -> None:
        """MAILDROP_TLS=0 with a login, as many sites have it."""
        with Relay(users={"me": "secret"}) as relay, tempfile.TemporaryDirectory() as home:
            text = f'MAILDROP_HOME="{home}" SMTP_HOST="127.0.0.1" SMTP_PORT={relay.port} MAILDROP_LOGIN="me"'
            config = parse_config(text + ' MAILDROP_PASSWORD="secret"', "/c")
            self.assertEqual(make_mailer(config).send("a@example.org", ["b@example.org"], b"Subject: x\n\n"), {})


load_tests = in_layer(Processes)
