"""What docs/howto/docker.rst says of containers, without Docker: its command as process 1, users without a name."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

from zope.sendmail.queue.maildir.heartbeat import DEAD_AFTER
from zope.sendmail.sender import MailWriter
from zope.sendmail.system.disk import Disk
from zope.sendmail.testing.relay import Hang, Relay
from zope.sendmail.tests.support.documents import blocks
from zope.sendmail.tests.support.layers import Servers, in_layer
from zope.sendmail.tests.support.servers import wait_until

#: Becomes a user without a name, a group or a home, after everything is imported; then it is the command.
AS_STRANGER = """
import os, pwd, sys
from zope.sendmail.cli import app
import zope.sendmail.smtp.session, zope.sendmail.queue.maildir.queue
number = int(sys.argv.pop(1))
os.setgroups([]), os.setgid(number), os.setuid(number)
try:
    pwd.getpwuid(number)
except KeyError:
    os.environ.pop("HOME", None)
    sys.exit(app.main())
"""

#: Numbers that have no name here.
OURS, OTHER = 61001, 61002


@unittest.skipUnless(os.geteuid() == 0, "only root can be anybody")
class AContainer(unittest.TestCase):
    def setUp(self) -> None:
        block = blocks("howto/docker.rst", "docker")[0]
        self.entry = json.loads(re.findall(r"ENTRYPOINT (.+)", block.text)[0])
        self.relay = self.enterContext(Relay())
        self.directory = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.directory.chmod(0o755)
        self.queue = self.directory / "mail"
        self.config = self.directory / "mail.ini"
        lines = f"queue_path = {self.queue}\nhostname = {self.relay.host}\nport = {self.relay.port}\n"
        self.config.write_text(f"[app:zope-sendmail]\n{lines}", encoding="utf-8")
        self.config.chmod(0o644)

    def send(self, owner: int = 0) -> None:
        """Put a mail into the queue, which belongs to this number."""
        MailWriter(str(self.queue)).send("shop@example.org", ["jane@example.org"], "From: a@example.org\n\nx\n")
        for path in [self.queue, *self.queue.rglob("*")]:
            os.chown(path, owner, owner, follow_symlinks=False)

    def run_as(self, number: int) -> subprocess.CompletedProcess[str]:
        """Drain the queue once, as a user with this number."""
        command = [sys.executable, "-c", AS_STRANGER, str(number), "--config", str(self.config)]
        return subprocess.run(command, cwd="/", env=self.environment(), capture_output=True, text=True, check=False)

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONWARNINGS": "ignore"}

    def test_needs_no_name_for_its_user(self) -> None:
        """Its queue stays that user's, and private."""
        self.send(OURS)
        done = self.run_as(OURS)
        self.assertEqual((done.returncode, len(self.relay.mails)), (0, 1), done.stderr)
        self.assertEqual({path.stat().st_uid for path in self.queue.rglob("*")}, {OURS})
        self.assertEqual(stat.S_IMODE(self.queue.stat().st_mode), 0o700)

    def test_with_another_user_says_what_is_wrong(self) -> None:
        """With status 78, and the path; the mail stays."""
        self.send(OURS)
        done = self.run_as(OTHER)
        self.assertEqual((done.returncode, len(self.relay.mails)), (os.EX_CONFIG, 0), done.stderr)
        self.assertRegex(done.stderr, rf"(?i)permission.*{self.queue}|{self.queue}.*permission")

    def test_ends_with_its_first_process(self) -> None:
        """As process 1, which no signal ends that it does not handle, the daemon ends with SIGTERM."""
        probe = ["unshare", "--pid", "--fork", "true"]
        if not shutil.which("unshare") or subprocess.run(probe, capture_output=True, check=False).returncode:
            self.skipTest("no process namespaces here")
        self.assertEqual(self.entry[0], "zope-sendmail")
        self.send()
        command = [sys.executable, "-m", "zope.sendmail.cli", *self.entry[1:], "--config", str(self.config)]
        outer = subprocess.Popen(
            ["unshare", "--pid", "--fork", "--kill-child", *command], env=self.environment(), stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        try:
            self.assertTrue(wait_until(lambda: bool(self.relay.mails) or outer.poll() is not None))
            first = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text(encoding="ascii").split()
            self.assertEqual(
                Path(f"/proc/{first[0]}/status").read_text(encoding="utf-8").split("NSpid:")[1].split()[1], "1"
            )
            os.kill(int(first[0]), signal.SIGTERM)
            errors = outer.communicate(timeout=300)[1]
        finally:
            outer.kill()
        self.assertEqual(outer.returncode, 0, errors)


@unittest.skipUnless(os.geteuid() == 0, "only root can make process namespaces")
class TwoContainers(unittest.TestCase):
    """With one volume: in each the daemon is process 1, on a host with a name of its own."""

    def setUp(self) -> None:
        probe = ["unshare", "--pid", "--mount-proc", "--uts", "--fork", "hostname", "probe"]
        if not shutil.which("unshare") or subprocess.run(probe, capture_output=True, check=False).returncode:
            self.skipTest("no namespaces for processes and host names here")
        self.relay = self.enterContext(Relay())
        self.directory = self.enterContext(tempfile.TemporaryDirectory())
        if not Disk().is_local(os.stat(self.directory)):
            self.skipTest("the temporary directory is on a file system that other machines may have")
        self.queue = os.path.join(self.directory, "mail")

    def start(self, host: str) -> subprocess.Popen[bytes]:
        """Start a container, whose first process ends with the one that is returned."""
        place = ("--hostname", self.relay.host, "--port", str(self.relay.port), self.queue)
        daemon = [sys.executable, "-m", "zope.sendmail.cli", "--daemon", "--interval", "1", *place]
        script = f"hostname {host} && exec {shlex.join(daemon)}"
        command = ["unshare", "--pid", "--mount-proc", "--uts", "--fork", "--kill-child", "sh", "-c", script]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        log = self.enterContext(open(os.path.join(self.directory, f"{host}.log"), "wb"))
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.addCleanup(self.end, process)
        return process

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """Kill the container, and return when it is gone."""
        process.kill()
        process.wait(60)

    def test_know_the_dead_one_from_the_living(self) -> None:
        """While the one with the mail waits for its relay, the other lets it be; when it is killed, it goes at once."""
        hang = Hang("421 4.3.2 shutting down")
        self.relay.on("MAIL", hang, nth=1)
        MailWriter(self.queue).send("shop@example.org", ["jane@example.org"], "From: a@example.org\n\nx\n")
        first = self.start("one")
        self.assertTrue(wait_until(lambda: bool(self.relay.dialogues and "MAIL" in self.relay.verbs())))
        self.start("two")
        MailWriter(self.queue).send("shop@example.org", ["john@example.org"], "From: a@example.org\n\nx\n")
        self.assertTrue(wait_until(lambda: len(self.relay.mails) == 1))
        self.assertEqual(self.relay.mails[0].recipients, ("john@example.org",))

        died = time.monotonic()
        self.end(first)
        self.assertTrue(wait_until(lambda: len(self.relay.mails) == 2))
        self.assertLess(time.monotonic() - died, DEAD_AFTER)  # no heartbeat was waited for
        self.assertEqual(self.relay.mails[1].recipients, ("jane@example.org",))


load_tests = in_layer(Servers)
