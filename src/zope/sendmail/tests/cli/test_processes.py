"""``zope-sendmail --processes``: several processes drain one queue, and one looks after them."""

from __future__ import annotations

import contextlib
import io
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import unittest
from collections import Counter
from pathlib import Path

from zope.sendmail.cli.app import ConsoleApp
from zope.sendmail.cli.processes import Report, summed_up
from zope.sendmail.lifecycle.outcome import Answer, Reply
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.queue.maildir.queue import MaildirQueue
from zope.sendmail.queue.maildir.unfolder import flush
from zope.sendmail.testing.contracts import MESSAGE
from zope.sendmail.testing.relay import Hang, Relay
from zope.sendmail.tests.support.layers import Processes, in_layer

load_tests = in_layer(Processes)

#: Seconds after which a test gives up waiting.
DEADLINE = 300.0


class AReport(unittest.TestCase):
    def test_arrives_as_it_was_written(self) -> None:
        """What a process that died wrote is none."""
        fault = Reply(Answer.DEFERRED, "connection refused")
        for report in Report(), Report({Answer.ACCEPTED: 3, Answer.UNKNOWN: 1}, fault):
            self.assertEqual(Report.read(report.written()), report)
        for line in b"", b'{"tally": {"acc':
            self.assertIsNone(Report.read(line))

    def test_of_all_is_their_sum(self) -> None:
        """And a fault of one is one."""
        fault = Reply(Answer.DEFERRED, "connection refused")
        reports = [Report({Answer.ACCEPTED: 3}), Report({Answer.ACCEPTED: 1, Answer.REJECTED: 1}, fault)]
        self.assertEqual(summed_up(reports), Report({Answer.ACCEPTED: 4, Answer.REJECTED: 1}, fault))


class SeveralProcesses(unittest.TestCase):
    def setUp(self) -> None:
        self.path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "queue")
        self.queue = MaildirQueue(self.path)
        self.addCleanup(self.queue.close)
        self.relay = self.enterContext(Relay())
        self.count = 0

    def put(self, count: int) -> None:
        staged = self.queue.stage()
        for _ in range(count):
            staged.add(Envelope("a@example.org", (f"{self.count}@example.org",)), MESSAGE)
            self.count += 1
        staged.prepare()
        staged.commit()

    def start(self, *options: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "zope.sendmail.cli", "--processes", "3", *options),
                *("--hostname", self.relay.host, "--port", str(self.relay.port), self.path),
            ],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stderr=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        assert process.stderr is not None
        self.addCleanup(process.stderr.close)
        return process

    def wait_for(self, count: int) -> None:
        self.relay.wait_until(lambda: len({mail.recipients for mail in self.relay.mails}) >= count, DEADLINE)

    def children(self, process: subprocess.Popen[str]) -> list[int]:
        path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        if not path.exists():
            self.skipTest("the system does not tell which processes belong together")
        for _ in range(6000):  # the first may have sent something before the last is there
            pids = [int(pid) for pid in path.read_text(encoding="ascii").split()]
            if len(pids) == 3 or threading.Event().wait(0.01):
                break
        return pids

    def assert_each_once(self) -> None:
        found = Counter(mail.recipients[0] for mail in self.relay.mails)
        self.assertEqual(found, {f"{number}@example.org": 1 for number in range(self.count)})
        self.assertEqual(self.queue.admin.count(), {})

    def test_drain_a_queue_once(self) -> None:
        """Each mail leaves once, and one line says what all have done."""
        self.put(150)
        flush(DEADLINE)  # no thread of this process makes the transaction into files meanwhile
        process = self.start("--verbose")
        _, errors = process.communicate(timeout=DEADLINE)
        self.assertEqual(process.returncode, 0, errors)
        self.assertIn("recipients: 150 accepted; the queue is empty", errors)
        self.assert_each_once()

    def test_say_what_became_of_all(self) -> None:
        """1 if one of them met a rejection, 75 if a relay is down, 0 if nothing was due, as one process does."""
        self.assertEqual(self.start().wait(DEADLINE), 0)
        self.relay.on("RCPT", "550 5.1.1 no such user")
        self.put(1)
        self.assertEqual(self.start().wait(DEADLINE), 1)
        self.relay.stop()
        self.put(1)
        self.assertEqual(self.start().wait(DEADLINE), os.EX_TEMPFAIL)
        self.assertEqual(self.queue.admin.count(), {State.REJECTED: 1, State.READY: 1})

    def test_a_daemon_ends_with_its_signal(self) -> None:
        """Status 0, after the message in hand, however many signals come; no process is left."""
        hang = Hang()
        self.relay.on("DOT", hang)
        self.put(1)
        process = self.start("--daemon")
        self.assertTrue(hang.reached.wait(DEADLINE))
        children = self.children(process)
        self.assertEqual(len(children), 3)
        for number in signal.SIGTERM, signal.SIGINT, signal.SIGTERM:
            process.send_signal(number)
        self.assertIsNone(process.poll())
        hang.release()
        self.assertEqual(process.wait(DEADLINE), 0)
        self.assert_each_once()
        for pid in children:
            self.assertRaises(ProcessLookupError, os.kill, pid, 0)

    def test_one_that_is_killed_is_replaced(self) -> None:
        """Its mails leave, and the log tells of it."""
        process = self.start("--daemon")
        self.put(3)
        self.wait_for(3)
        for pid in self.children(process):
            os.kill(pid, signal.SIGKILL)
        self.put(30)
        self.wait_for(33)
        for _ in range(6000):  # what a dead one had in hand goes out a second time
            if not self.queue.admin.count() or threading.Event().wait(0.01):
                break
        process.terminate()
        _, errors = process.communicate(timeout=DEADLINE)
        self.assertEqual(process.returncode, 0)
        self.assertEqual(errors.count("ended (signal 9); another one starts"), 3)
        found = Counter(int(mail.recipients[0].partition("@")[0]) for mail in self.relay.mails)
        self.assertEqual(sorted(found), list(range(33)))
        self.assertLess(
            max(number for number in found if found[number] > 1 or number == 0), 3
        )  # in hand when they died
        self.assertEqual(self.queue.admin.count(), {})

    def test_they_end_when_their_parent_is_killed(self) -> None:
        """Else the next start would have twice as many."""
        process = self.start("--daemon")
        self.put(1)
        self.wait_for(1)
        children = self.children(process)
        process.kill()
        process.wait(DEADLINE)
        for pid in children:
            descriptor = None
            with contextlib.suppress(ProcessLookupError):
                descriptor = os.pidfd_open(pid)
            if descriptor is not None:
                self.addCleanup(os.close, descriptor)
                self.assertTrue(select.select([descriptor], [], [], DEADLINE)[0])

    def test_the_configuration_is_read_again_by_all(self) -> None:
        """SIGHUP reaches each of them."""
        ini = os.path.join(os.path.dirname(self.path), "mail.ini")
        Path(ini).write_text("[app:zope-sendmail]\ninterval = 3\n", encoding="ascii")
        process = self.start("--daemon", "--config", ini, "--verbose")
        self.put(1)
        self.wait_for(1)
        process.send_signal(signal.SIGHUP)
        assert process.stderr is not None
        seen = 0
        for line in process.stderr:
            seen += "The configuration was reloaded" in line
            if seen == 3:
                break
        process.terminate()
        self.assertEqual(process.wait(DEADLINE), 0)

    def test_metrics_are_for_one(self) -> None:
        """Said at once; so is a number that is none."""
        for words in ["--daemon", "--metrics", ":1", "--processes", "2"], ["--processes", "0"]:
            with self.assertRaises(SystemExit) as caught, contextlib.redirect_stderr(io.StringIO()):
                ConsoleApp(["zope-sendmail", *words, self.path])
            self.assertEqual(caught.exception.code, 2)


if __name__ == "__main__":
    unittest.main()
