"""The demo tells the truth: its story and its page, run as a user runs them."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import unittest
from collections.abc import Iterator
from typing import IO
from urllib.parse import urlencode

from zope.sendmail.demo.ledger import Account, Balance, balance, strangers, table, total
from zope.sendmail.tests.support.layers import Processes, in_layer

#: Seconds for what takes a few, on a machine that has a lot to do.
PATIENCE = 300.0

MISSING = [name for name in ("aiosmtpd", "ZODB", "zope.app", "zope.site") if importlib.util.find_spec(name) is None]
needs_demo = unittest.skipIf(MISSING, f"the demo needs {', '.join(MISSING)}: pip install 'zope.sendmail[demo]'")


class BalanceTests(unittest.TestCase):
    """The demo says that all is well only if it is."""

    def balance(self, handed: str, committed: str, delivered: str, unknown: str = "") -> Balance:
        account = Account("A scene", list(handed), list(committed))
        account.unknown.update(unknown)
        return balance(account, {mail: delivered.count(mail) for mail in delivered})

    def test_what_agrees_is_no_fault(self) -> None:
        self.assertEqual(self.balance("ab", "ab", "ab").faults, ())

    def test_an_aborted_mail_is_not_expected(self) -> None:
        self.assertEqual(self.balance("ab", "a", "a").faults, ())

    def test_a_committed_mail_that_did_not_come_is_missing(self) -> None:
        [fault] = self.balance("ab", "ab", "a").faults
        self.assertIn("Missing: <b>", fault)

    def test_an_aborted_mail_that_came_is_too_much(self) -> None:
        [fault] = self.balance("ab", "a", "ab").faults
        self.assertIn("Too much: <b>", fault)

    def test_a_copy_without_explanation_is_too_much(self) -> None:
        [fault] = self.balance("ab", "ab", "abb", unknown="a").faults
        self.assertIn("Too much: <b> came 2 times", fault)

    def test_a_copy_after_an_unknown_outcome_is_counted(self) -> None:
        result = self.balance("ab", "ab", "abb", unknown="b")
        self.assertEqual((result.faults, result.delivered, result.again, result.unknown), ((), 2, 1, 1))

    def test_mail_that_nobody_sent_is_too_much(self) -> None:
        [fault] = strangers([Account("A scene", ["a"])], ["a", "z"])
        self.assertIn("<z>", fault)

    def test_the_total_has_every_fault(self) -> None:
        whole = total([self.balance("a", "a", "a"), self.balance("b", "b", "")], ["strange"])
        self.assertEqual((whole.committed, whole.delivered, len(whole.faults)), (2, 1, 2))

    def test_the_table_marks_the_row_with_a_fault(self) -> None:
        lines = table([self.balance("a", "a", "a"), self.balance("b", "b", "")], ("ok", "NO"))
        self.assertEqual([line.split()[-1] for line in lines], ["unknown", "ok", "NO"])


@needs_demo
class StoryTests(unittest.TestCase):
    """``demo``, from beginning to end."""

    def test_everything_agrees(self) -> None:
        """Every scene comes true, the table agrees, the exit status is 0, and nothing is left behind."""
        with tempfile.TemporaryDirectory() as directory:
            done = run_demo(TMPDIR=directory)
            self.assertEqual(os.listdir(directory), [])
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
        self.assertEqual(len(re.findall(r"^\d\. ", done.stdout, re.MULTILINE)), 6)
        self.assertNotIn("✗", done.stdout)
        self.assertNotIn("\x1b", done.stdout)
        send, committed, delivered, again, unknown = last_row(done.stdout)
        self.assertEqual((committed, again), (delivered, unknown))
        self.assertGreater(send, committed)

    def test_a_directory_in_use_is_refused(self) -> None:
        """``--keep`` overwrites nothing."""
        with tempfile.TemporaryDirectory() as directory:
            with open(os.path.join(directory, "precious"), "w", encoding="ascii"):
                pass
            done = run_demo("--keep", directory)
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("not empty", done.stderr)
        self.assertNotIn("Traceback", done.stderr)

    def test_what_is_kept_stays(self) -> None:
        """``--keep`` leaves database, queue and logs, for whoever wants to look."""
        with tempfile.TemporaryDirectory() as directory:
            done = run_demo("--keep", os.path.join(directory, "kept"), PYTHONIOENCODING="ascii")
            self.assertLess({"Data.fs", "demo.log", "queue"}, set(os.listdir(os.path.join(directory, "kept"))))
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
        self.assertIn("   ok 163 orders", done.stdout)

    def test_a_switched_off_start_is_told(self) -> None:
        """The demo cannot work where nothing may be sent, and says so."""
        done = run_demo(ZOPE_SENDMAIL_START="never")
        self.assertEqual(done.returncode, 1)
        self.assertIn("ZOPE_SENDMAIL_START", done.stderr)
        self.assertNotIn("Traceback", done.stderr)


@needs_demo
class PageTests(unittest.TestCase):
    """``demo --serve``."""

    def test_the_page_keeps_its_promises(self) -> None:
        """One start for all of them, because it takes seconds, and not every test runner knows `setUpClass`."""
        self.port = self.enterContext(serving())
        promises = [getattr(self, name) for name in dir(self) if name.startswith("promise_")]
        for promise in promises:
            with self.subTest(promise.__name__):
                promise()

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        return self.request("GET", path, None, headers)

    def post(self, form: dict[str, str], **headers: str) -> tuple[int, str]:
        own = {"Origin": f"http://127.0.0.1:{self.port}", "Content-Type": "application/x-www-form-urlencoded"}
        return self.request("POST", "/order", urlencode(form), {**own, **headers})

    def request(self, verb: str, path: str, body: str | None, headers: dict[str, str]) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request(verb, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def promise_the_page_shows_what_came(self) -> None:
        status, text = self.get("/")
        self.assertEqual(status, 200)
        self.assertRegex(text, r"News \d+")
        self.assertIn("MailSentEvent", text)
        self.assertIn("<form", text)

    def promise_a_commit_is_delivered(self) -> None:
        status, _ = self.post({"to": "zoe@example.org", "subject": "<b>Yes</b>", "text": "x", "end": "commit"})
        self.assertEqual(status, 303)
        _, text = self.get("/state")
        self.assertIn("the mail to zoe@example.org arrived", text)
        self.assertIn("&lt;b&gt;Yes&lt;/b&gt;", text)
        self.assertNotIn("<b>", text)

    def promise_an_abort_sends_nothing(self) -> None:
        status, _ = self.post({"to": "noah@example.org", "subject": "Never", "text": "x", "end": "abort"})
        self.assertEqual(status, 303)
        self.post({"to": "later@example.org", "subject": "Later", "text": "x", "end": "commit"})
        _, text = self.get("/state")
        self.assertIn("noah@example.org gets no mail", text)
        self.assertIn("Later", text)
        self.assertNotIn("Never", text)

    def promise_a_bad_address_is_refused_in_words(self) -> None:
        self.post({"to": "nobody", "subject": "x", "text": "x", "end": "commit"})
        _, text = self.get("/state")
        self.assertIn("Refused", text)
        self.assertIn("nobody", text)

    def promise_another_site_cannot_send(self) -> None:
        form = {"to": "victim@example.org", "subject": "x", "text": "x", "end": "commit"}
        self.assertEqual(self.post(form, Origin="http://evil.example")[0], 403)
        self.assertEqual(self.post(form, Host="evil.example")[0], 403)
        self.assertEqual(self.request("POST", "/order", urlencode(form), {})[0], 403)
        self.assertNotIn("victim", self.get("/state")[1])

    def promise_another_name_for_this_machine_is_refused(self) -> None:
        self.assertEqual(self.get("/", Host="evil.example")[0], 421)

    def promise_the_console_is_beside_the_inbox(self) -> None:
        self.assertIn('href="/console/"', self.get("/")[1])
        status, text = self.get("/console/0/")
        self.assertEqual(status, 200)
        self.assertIn("The demo&#39;s queue".replace("&#39;", "'"), text.replace("&#39;", "'"))
        self.assertIn('href="/console/static/console.css"', text)
        self.assertEqual(self.get("/console/static/console.css")[0], 200)
        self.assertEqual(self.get("/console/0/", Host="evil.example")[0], 421)
        self.assertEqual(self.request("POST", "/console/0/do", "verb=remove&all=filter&until=1", {})[0], 403)

    def promise_a_closed_tab_says_nothing(self) -> None:
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", self.port)) as tab:
                tab.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # RST, as a dying browser
                tab.sendall(f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n\r\n".encode())
        self.assertEqual(self.get("/")[0], 200)

    def promise_there_is_nothing_else(self) -> None:
        self.assertEqual(self.get("/elsewhere")[0], 404)


def run_demo(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the demo as a user does, where nobody is looking."""
    return subprocess.run(
        command(*arguments),
        env=surroundings(**environment),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@contextlib.contextmanager
def serving() -> Iterator[int]:
    """The port of a demo that serves; Ctrl-C ends it, and it has written no error."""
    with tempfile.TemporaryFile("w+") as errors:
        with _serving(errors) as port:
            yield port
        errors.seek(0)
        if said := errors.read():
            raise AssertionError(f"the demo wrote: {said}")


@contextlib.contextmanager
def _serving(errors: IO[str]) -> Iterator[int]:
    """The same; what it says of errors goes to a file."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background may ignore it
    process = subprocess.Popen(
        command("--serve", "--port", "0"),
        env=surroundings(),
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        process_group=0,
    )
    signal.signal(signal.SIGINT, before)
    alarm = threading.Timer(PATIENCE, process.kill)
    alarm.start()
    assert process.stdout is not None
    try:
        text = ""
        while not (match := re.search(r"http://127\.0\.0\.1:(\d+)/", text)):
            line = process.stdout.readline()
            if not line:
                raise AssertionError(f"the demo ended before it served:\n{text}")
            text += line
        yield int(match[1])
        process.send_signal(signal.SIGINT)
        if process.wait(PATIENCE):
            raise AssertionError(f"the demo ended with {process.returncode} after Ctrl-C")
    finally:
        alarm.cancel()
        alarm.join()
        process.kill()
        process.stdout.close()
        process.wait()


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "zope.sendmail.demo.app", *arguments]


def surroundings(**environment: str) -> dict[str, str]:
    """The environment, with the modules that this test finds."""
    path = os.pathsep.join(filter(None, sys.path))
    return {**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8", "PYTHONWARNINGS": "", **environment}


def last_row(text: str) -> list[int]:
    """The numbers of the table's last row."""
    [row] = re.findall(r"^ *Together +([\d ]+)", text, re.MULTILINE)
    return [int(number) for number in row.split()]


load_tests = in_layer(Processes)
