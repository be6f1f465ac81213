"""``zope-sendmail console``."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import unittest
import urllib.error
import urllib.request

from zope.sendmail.cli.consolecommand import TOKEN, is_console
from zope.sendmail.queue.maildir import MaildirQueue

COMMAND = [sys.executable, "-m", "zope.sendmail.cli", "console"]


class TheCommand(unittest.TestCase):
    def setUp(self) -> None:
        self.path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "queue")

    def refused(self, *words: str) -> tuple[int, str]:
        done = subprocess.run([*COMMAND, *words], capture_output=True, text=True, check=False)
        return done.returncode, done.stderr

    def test_serves_until_it_is_told_to_end(self) -> None:
        """The address that it prints opens the console; without the token nothing is shown."""
        if importlib.util.find_spec("waitress") is None:
            self.skipTest("the console is not installed")
        MaildirQueue(self.path).stage().abort()
        command = [*COMMAND, "--listen", "127.0.0.1:0", self.path]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            self.addCleanup(process.kill)
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            found = re.fullmatch(r"(http://127\.0\.0\.1:\d+)/login\?token=\S+", address)
            assert found is not None, address
            jar = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
            self.assertIn("At a glance", jar.open(address, timeout=300).read().decode())
            with urllib.request.urlopen(found[1] + "/0/", timeout=300) as answer:
                self.assertTrue(answer.url.endswith("/login"))
            process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(300), 0)

    def test_does_not_print_a_token_that_it_was_given(self) -> None:
        """The output of a service is kept in a log."""
        if importlib.util.find_spec("waitress") is None:
            self.skipTest("the console is not installed")
        MaildirQueue(self.path).stage().abort()
        command = [*COMMAND, "--listen", "127.0.0.1:0", self.path]
        environment = {**os.environ, TOKEN: "a token that is known"}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            self.addCleanup(process.kill)
            assert process.stdout is not None
            self.assertRegex(process.stdout.readline(), r"^http://127\.0\.0\.1:\d+/login\n$")
            process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(300), 0)

    def test_wants_a_queue_and_an_address(self) -> None:
        """What is wrong is said, and nothing is made."""
        status, words = self.refused(self.path)
        self.assertEqual(status, 78)
        self.assertEqual(words, f"zope-sendmail console: there is no queue {self.path}\n")
        self.assertFalse(os.path.exists(self.path))
        self.assertEqual(self.refused("--listen", "here", self.path)[0], 2)
        self.assertEqual(self.refused()[0], 2)

    def test_says_which_address_is_taken(self) -> None:
        """And how to say another one."""
        if importlib.util.find_spec("waitress") is None:
            self.skipTest("the console is not installed")
        MaildirQueue(self.path).stage().abort()
        taken = self.enterContext(socket.create_server(("127.0.0.1", 0)))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        status, words = self.refused("--listen", address, self.path)
        self.assertEqual(status, 78)
        self.assertIn(f"zope-sendmail console: it cannot listen at {address}: Address already in use; ", words)
        self.assertIn("--listen", words)

    def test_may_have_a_queue_of_its_name(self) -> None:
        """A Maildir called ``console`` is drained as ever."""
        place = self.enterContext(tempfile.TemporaryDirectory())
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(place)
        self.assertTrue(is_console(["console"]))
        os.mkdir("console")
        self.assertFalse(is_console(["console"]))
        self.assertTrue(is_console(["console", "queue"]))
        self.assertFalse(is_console(["queue", "console"]))

    def test_takes_its_token_from_the_environment(self) -> None:
        """One that is too short is refused, and not repeated."""
        MaildirQueue(self.path).stage().abort()
        done = subprocess.run(
            [*COMMAND, self.path], capture_output=True, text=True, check=False, env={**os.environ, TOKEN: "hush"}
        )
        self.assertEqual(done.returncode, 78)
        self.assertNotIn("hush", done.stdout + done.stderr)
