"""What docs/tutorials/script.rst promises comes true, relay up and relay down; what zope.rst calls is there."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import unittest
from importlib import metadata
from pathlib import Path

from zope.sendmail.testing.relay import Relay
from zope.sendmail.tests.support.documents import DOCS, HERE, page_text, pages
from zope.sendmail.tests.support.layers import Processes, in_layer


class AScript(unittest.TestCase):
    def setUp(self) -> None:
        pages()
        self.directory = Path(self.enterContext(tempfile.TemporaryDirectory()))
        source = (DOCS / "examples" / "report.py").read_text(encoding="utf-8")
        (self.directory / "report.py").write_text(source, encoding="utf-8")
        self.relay = Relay()

    def run_python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONWARNINGS": "ignore"}
        command = [sys.executable, *arguments]
        return subprocess.run(
            command, cwd=self.directory, env=environment, capture_output=True, text=True, timeout=300, check=False
        )

    def report(self, recipient: str = "jane@example.org") -> subprocess.CompletedProcess[str]:
        """Run the script of the tutorial, against our port instead of 8025."""
        program = f"import report; report.main({recipient!r}, '127.0.0.1', {self.relay.port})"
        return self.run_python("-c", program)

    def test_sends(self) -> None:
        """And says so."""
        with self.relay:
            done = self.report()
        self.assertEqual((done.stdout, len(self.relay.mails)), ("sent\n", 1), done.stderr)

    def test_keeps_what_it_cannot_send(self) -> None:
        """The mail outlives the script, and the command sends it later."""
        with self.relay:
            port = self.relay.port
        done = self.report()
        self.assertEqual(done.stdout, "queued\n", done.stderr)
        self.assertIn("cannot be used", done.stderr)
        with Relay() as relay:
            self.assertNotEqual(port, 0)
            command = ["-m", "zope.sendmail.cli", "--hostname", relay.host, "--port", str(relay.port), "mail-queue"]
            self.assertEqual(self.run_python(*command).returncode, 0)
            self.assertEqual([mail.recipients for mail in relay.mails], [("jane@example.org",)])

    def test_sends_what_has_no_from_and_says_so(self) -> None:
        """With what to add."""
        path = self.directory / "report.py"
        lines = path.read_text(encoding="utf-8").splitlines(True)
        path.write_text("".join(line for line in lines if '"From"' not in line), encoding="utf-8")
        with self.relay:
            done = self.report()
        self.assertEqual((done.stdout, len(self.relay.mails)), ("sent\n", 1), done.stderr)
        self.assertIn("Add one to the message, such as From: ", done.stderr)

    def test_refuses_what_is_no_address(self) -> None:
        """With a sentence, and nothing is written."""
        with self.relay:
            done = self.report("jane@@example.org")
        self.assertEqual((done.returncode, self.relay.mails), (1, []))
        self.assertIn("This cannot be a mail: the recipient 'jane@@example.org'", done.stderr)


class AZopeApplication(unittest.TestCase):
    def test_is_started_by_programs_that_buildout_makes(self) -> None:
        """Each that the page calls is a script of one of its eggs; `py` hands on no options behind `-m`."""
        ours = re.findall(r'"([\w-]+) ?= ?zope\.sendmail', (HERE / "setup.py").read_text("utf-8"))
        made = {"buildout", "pip", *ours}
        for egg in re.findall(
            r"^(?:eggs =| +) ([\w.]+)", (DOCS / "examples/zope/buildout.cfg").read_text("utf-8"), re.M
        ):
            with contextlib.suppress(metadata.PackageNotFoundError):  # it comes with another egg, or not at all
                scripts = metadata.distribution(egg).entry_points.select(group="console_scripts")
                made |= {each.name for each in scripts}
        called = set(re.findall(r"(?<![\w/])bin/([\w-]+)", page_text("tutorials/zope.rst")))
        if not {"aiosmtpd", "waitress-serve"} <= made:
            self.skipTest("aiosmtpd or waitress is not installed")
        self.assertEqual(called - made, set())


load_tests = in_layer(Processes)
