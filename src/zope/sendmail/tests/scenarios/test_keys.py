"""Keys beside other processes, other threads, deaths and disks that refuse."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import unittest
from typing import Any

import transaction

from zope.sendmail.delivery import QueuedMailDelivery
from zope.sendmail.errors import KeyTaken, NotPossible
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.terms import Terms
from zope.sendmail.queue.maildir.queue import MaildirQueue
from zope.sendmail.testing.contracts import SCHEDULE, ManualClock
from zope.sendmail.testing.faultydisk import FaultyDisk
from zope.sendmail.tests.support.layers import Processes, in_layer
from zope.sendmail.tests.support.postgresql import shared_server

MESSAGE = b"From: a@example.org\nSubject: Hello\n\nText\n"

#: Sends with one key at a sign, and prints what it got.
SENDER = """
    import sys
    from zope.sendmail.delivery import QueuedMailDelivery

    delivery = QueuedMailDelivery(sys.argv[1])
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(20):
        text = "From: a@example.org\\n\\nText"
        print(delivery.put("a@example.org", "one@example.org", text, key=f"order {number}"), flush=True)
"""

#: Dies between vote and finish.
DEAD = """
    import os, signal, sys
    import transaction
    from zope.sendmail.delivery import QueuedMailDelivery

    class Killer:
        transaction_manager = transaction.manager
        def sortKey(self):
            return chr(0x10FFFF) * 9
        def tpc_vote(self, txn):
            os.kill(os.getpid(), signal.SIGKILL)
        abort = tpc_begin = commit = tpc_finish = tpc_abort = lambda self, txn: None

    QueuedMailDelivery(sys.argv[1]).send("a@example.org", "one@example.org", "From: a@example.org\\n\\nText", key="k")
    transaction.get().join(Killer())
    transaction.commit()
"""


class SeveralProcesses(unittest.TestCase):
    """In a Maildir."""

    def make_queue(self) -> str:
        """Return the location of a queue."""
        return os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "queue")

    def setUp(self) -> None:
        transaction.abort()
        self.path = self.make_queue()
        self.delivery = QueuedMailDelivery(self.path)

    def start(self, program: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        return subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program), self.path],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def test_have_one_mail_for_a_key(self) -> None:
        """All that send with it at once get the Message-Id of the one that is there."""
        processes = [self.start(SENDER) for _ in range(4)]
        for process in processes:
            assert process.stdout is not None
            self.assertEqual(process.stdout.readline(), "ready\n")
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        answers = [self._answers(process) for process in processes]
        self.assertEqual(len({tuple(each) for each in answers}), 1)
        mails = [mail.message_id for mail in self.delivery.queue.admin.mails()]
        self.assertEqual(sorted(mails), sorted(answers[0]))
        self.assertEqual(len(set(mails)), 20)

    def _answers(self, process: subprocess.Popen[str]) -> list[str]:
        output, errors = process.communicate(timeout=300)
        self.assertEqual(errors, "")
        return output.split()

    def test_leave_a_key_free_that_died_between_vote_and_finish(self) -> None:
        """The doubtful mail cannot be released once another mail has its key; before, it can, and has it."""
        for releases_first in (False, True):
            with self.subTest(releases_first):
                dead = self.start(DEAD)
                self.assertEqual((dead.communicate(timeout=300)[0], dead.returncode), ("", -signal.SIGKILL))
                [staged] = self.delivery.queue.admin.mails([State.STAGED])
                if releases_first:
                    self.delivery.queue.admin.release(staged.name)
                answer = self.delivery.send_now("a@example.org", "one@example.org", MESSAGE, key="k")
                self.assertEqual(answer == staged.message_id, releases_first)
                if not releases_first:
                    self.assertRaises(NotPossible, self.delivery.queue.admin.release, staged.name)
                    self.delivery.queue.admin.remove(staged.name)
                    again = self.delivery.send_now("a@example.org", "one@example.org", MESSAGE, key="k")
                    self.assertEqual(again, answer)
                    self.setUp()


class SeveralProcessesAtASpool(SeveralProcesses):
    """In a spool directory."""

    def make_queue(self) -> str:
        return f"spool:{self.enterContext(tempfile.TemporaryDirectory())}/spool"


class SeveralProcessesAtADatabase(SeveralProcesses):
    """In PostgreSQL; skipped without."""

    def make_queue(self) -> str:
        return str(shared_server().url())

    def test_leave_a_key_free_that_died_between_vote_and_finish(self) -> None:
        """On its host at once.  The doubtful mail cannot be released within an hour, nor when its key is another's."""
        dead = self.start(DEAD)
        self.assertEqual((dead.communicate(timeout=300)[0], dead.returncode), ("", -signal.SIGKILL))
        [staged] = self.delivery.queue.admin.mails([State.STAGED])
        self.assertRaises(NotPossible, self.delivery.queue.admin.release, staged.name)
        answer = self.delivery.send_now("a@example.org", "one@example.org", MESSAGE, key="k")
        self.assertNotEqual(answer, staged.message_id)
        self.assertEqual(self.delivery.send_now("a@example.org", "one@example.org", MESSAGE, key="k"), answer)
        self.assertRaises(NotPossible, self.delivery.queue.admin.release, staged.name)


class SeveralThreads(unittest.TestCase):
    def test_wait_for_a_transaction_that_ends_soon(self) -> None:
        """The second one gets the first one's mail, without an error."""
        path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "queue")
        delivery = QueuedMailDelivery(path)
        first = transaction.TransactionManager()
        answer = delivery.bind(first).send("a@example.org", "one@example.org", MESSAGE, key="k")
        got: list[str] = []
        other = threading.Thread(
            target=lambda: got.append(delivery.send_now("a@example.org", "one@example.org", MESSAGE, key="k"))
        )
        other.start()
        first.commit()
        other.join(300)
        self.assertEqual(got, [answer])


class ADiskThatRefuses(unittest.TestCase):
    """At each call in turn, while a mail with a key is handed over."""

    def test_leaves_a_key_that_is_free_or_a_mail_that_has_it(self) -> None:
        """Whichever call fails: the mail is committed and has its key, or neither is the case."""
        calls = 0
        failed = True
        while failed:
            calls += 1
            with tempfile.TemporaryDirectory() as directory, self.subTest(calls):
                failed = self.check(directory + "/queue", calls)
        self.assertGreater(calls, 10)

    def check(self, path: str, nth: int) -> bool:
        """Send with the n-th call failing; return whether there was such a call."""
        clock = ManualClock()
        MaildirQueue(path, clock=clock).stage()
        disk = FaultyDisk(nth)
        queue = MaildirQueue(path, schedule=SCHEDULE, disk=disk, clock=clock)
        sent = self.send(queue, clock, 1)
        after = MaildirQueue(path, schedule=SCHEDULE, clock=clock)
        after.stage()
        answer = self.send(after, clock, 2)
        committed = [mail.message_id for mail in after.admin.mails()]
        after.close()
        queue.close()
        if sent == "1@example.org":
            self.assertEqual((answer, committed), (sent, ["1@example.org"]))
        else:
            self.assertEqual(len(committed), 1)
            self.assertEqual(answer, committed[0])
        return bool(disk.failed)

    def send(self, queue: Any, clock: ManualClock, number: int) -> str:
        """Return the Message-Id of the mail, or that of the one with the key; nothing if the disk refuses."""
        terms = Terms(key="k", key_until=clock.time() + 3600)
        try:
            staged = queue.stage()
        except OSError:
            return ""
        try:
            text = b"Message-Id: <%d@example.org>\n\nText\n" % number
            staged.add(Envelope("a@example.org", ("one@example.org",), terms=terms), text)
            staged.prepare()
        except KeyTaken as taken:
            staged.abort()
            return taken.message_id
        except OSError:
            try:
                staged.abort()
            except OSError:
                staged.abort()
            return ""
        try:
            staged.commit()
        except OSError:  # late: the next use of the queue reveals it
            queue.stage()
        return f"{number}@example.org"


load_tests = in_layer(Processes)
