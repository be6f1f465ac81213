"""Several real processes, one queue, a real relay on a socket; some of them die."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from collections import Counter
from collections.abc import Callable

import transaction

from zope.sendmail.delivery import QueuedMailDelivery
from zope.sendmail.lifecycle.retry import MAX_DEATHS
from zope.sendmail.lifecycle.states import State
from zope.sendmail.mailer import SMTPMailer
from zope.sendmail.processor.thread import QueueProcessorThread
from zope.sendmail.queue.maildir.queue import MaildirQueue
from zope.sendmail.testing.relay import Hang, Relay
from zope.sendmail.tests.support.layers import Processes, in_layer


class ProcessesTest(unittest.TestCase):
    """A queue, a relay, and processes that end with the test."""

    def setUp(self) -> None:
        self.path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "queue")
        self.relay = self.enterContext(Relay())
        self.workers: list[subprocess.Popen[str]] = []
        self.output: list[str] = []
        self.addCleanup(self.end_all)

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        worker = subprocess.Popen(
            [sys.executable, "-m", "zope.sendmail.tests.support.worker", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
        self.workers.append(worker)
        return worker

    def start_draining(self, *concurrency_and_interval: int) -> subprocess.Popen[str]:
        return self.start("drain", self.path, self.relay.port, *concurrency_and_interval)

    def wait_ready(self, worker: subprocess.Popen[str]) -> None:
        assert worker.stdout is not None
        self.assertEqual(worker.stdout.readline(), "ready\n")

    def kill(self, worker: subprocess.Popen[str]) -> None:
        worker.send_signal(signal.SIGKILL)
        self.output.append(worker.communicate()[0])
        self.workers.remove(worker)

    def end_all(self) -> None:
        """Ask all workers to end, and keep what they said."""
        for worker in self.workers:
            worker.send_signal(signal.SIGTERM)
        for worker in self.workers:
            self.output.append(worker.communicate(timeout=300)[0])
        self.workers = []

    def commit(self, count: int) -> None:
        delivery = QueuedMailDelivery(self.path)
        for number in range(count):
            delivery.send("sender@example.org", [f"m-{number}@example.org"], f"Subject: {number}\n\nText\n")
        transaction.commit()

    def delivered(self) -> Counter[str]:
        return Counter(who for mail in self.relay.mails for who in mail.recipients)

    def wait_for(self, count: int, seconds: float) -> None:
        self.relay.wait_until(lambda: len(self.delivered()) >= count, seconds)

    def until(self, condition: Callable[[], object], seconds: float = 300.0) -> None:
        """What others do with a queue tells us nothing; what is missing in the end tells the test."""
        deadline = time.monotonic() + seconds
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.1)

    def test_four_processes_share_a_queue(self) -> None:
        """Each commits 1000 mails and drains with the others: every mail arrives once, and nobody complains."""
        drainers = [self.start_draining() for _ in range(4)]
        for worker in drainers:
            self.wait_ready(worker)  # else it is told that none is at work
        committers = [self.start("commit", self.path, f"p{n}", 1000, 50) for n in range(4)]
        for worker in committers:
            self.output.append(worker.communicate(timeout=600)[0])
            self.assertEqual(worker.returncode, 0, self.output[-1])
            self.workers.remove(worker)
        self.wait_for(4000, 600)
        self.end_all()
        self.assertEqual([worker.returncode for worker in drainers], [0, 0, 0, 0])
        expected = Counter(f"p{n}-{number}@example.org" for n in range(4) for number in range(1000))
        self.assertEqual(self.delivered(), expected)
        self.assertEqual("".join(self.output).replace("ready\n", ""), "")
        self.assertEqual(MaildirQueue(self.path).admin.count(), {})

    def test_killed_processes_lose_nothing(self) -> None:
        """30 times kill -9 over 1000 mails: none lost, sent twice only where that is recorded as unknown."""
        self.commit(1000)
        self.kill_thirty_times([self.start_draining() for _ in range(3)])

    def test_killed_processes_lose_nothing_of_a_bundle(self) -> None:
        """The same while they drain it where it lies: they were there when it was committed."""
        workers = [self.start_draining() for _ in range(3)]
        for worker in workers:
            self.wait_ready(worker)
        self.commit(1000)
        self.wait_for(20, 300)
        new = os.path.join(self.path, "new")
        [group] = [os.path.join(new, name) for name in os.listdir(new) if name.startswith(".group-")]
        self.assertIn(".progress", os.listdir(group))
        self.kill_thirty_times(workers)

    def kill_thirty_times(self, workers: list[subprocess.Popen[str]]) -> None:
        chance = random.Random(20261121)
        for number in range(30):
            self.wait_for(chance.randrange(20, 33) * (number + 1), 300)
            victim = workers.pop(chance.randrange(3))
            self.kill(victim)
            workers.append(self.start_draining())
        queue = MaildirQueue(self.path)
        self.until(lambda: not set(queue.admin.count()) - {State.HELD})
        for mail in queue.admin.mails([State.HELD]):  # three of the deaths hit the same mail
            self.assertEqual(mail.history[-1].deaths, MAX_DEATHS)
            queue.admin.release(mail.name)
        self.until(lambda: not queue.admin.count())
        self.end_all()
        self.assertEqual(queue.admin.count(), {}, [mail.history for mail in queue.admin.mails()])
        queue.close()
        delivered = self.delivered()
        self.assertEqual(set(delivered), {f"m-{number}@example.org" for number in range(1000)})
        twice = {who for who, count in delivered.items() if count > 1}
        unknown = set(re.findall(r"to <([^>]+)>: unknown", "".join(self.output)))
        self.assertLessEqual(twice, unknown)
        self.assertNotIn("Traceback", "".join(self.output))

    def test_a_survivor_takes_over_within_five_seconds(self) -> None:
        """The mail that a killed process had in hand is on its way soon; on a busy machine the best attempt counts."""
        self.assertTrue(any(self.seconds_to_take_over(mails=number) < 5.0 for number in range(1, 6)))

    def seconds_to_take_over(self, mails: int) -> float:
        """The mail of a process that is killed, with which the relay has `mails`."""
        hang = Hang()
        self.relay.on("MAIL", hang, nth=1)
        self.commit(1)
        victim = self.start_draining()
        self.assertTrue(hang.reached.wait(300))
        survivor = self.start_draining()
        self.wait_ready(survivor)
        began = time.monotonic()
        self.kill(victim)
        self.relay.wait_until(lambda: len(self.relay.mails) >= mails)
        seconds = time.monotonic() - began
        self.end_all()
        self.relay.forgive()
        return seconds

    def test_a_commit_wakes_another_process(self) -> None:
        """Twenty times, although that one looks only once in an hour by itself."""
        self.wait_ready(self.start_draining(1, 3600))
        for number in range(20):
            self.commit(1)
            self.wait_for_mails(number + 1)

    def wait_for_mails(self, count: int) -> None:
        """Until the relay has so many."""
        self.relay.wait_until(lambda: len(self.relay.mails) >= count, 300)

    def test_sigterm_finishes_the_message_in_hand(self) -> None:
        """The relay has it once, the queue no longer."""
        hang = Hang()
        self.relay.on("DOT", hang, nth=1)
        self.commit(2)
        worker = self.start_draining(1)
        self.assertTrue(hang.reached.wait(300))
        worker.send_signal(signal.SIGTERM)
        self.relay.forgive()
        worker.wait(300)
        self.assertEqual(worker.returncode, 0)
        self.assertEqual(sum(self.delivered().values()), 1)
        self.assertEqual(MaildirQueue(self.path).admin.count(), {"ready": 1})


class AForkedProcess(unittest.TestCase):
    def test_shares_no_lease_with_its_parent(self) -> None:
        """A child that forks while a message is leased keeps no lock alive, and can use the queue itself."""
        with tempfile.TemporaryDirectory() as directory, Relay() as relay:
            path = os.path.join(directory, "queue")
            QueuedMailDelivery(path).createDataManager("a@example.org", ["b@example.org"], b"\n").tpc_finish(None)
            queue = MaildirQueue(path)
            [lease] = queue.claim()
            child = os.fork()
            if not child:
                empty = not queue.claim()
                processor = QueueProcessorThread()
                processor.setQueuePath(path)
                processor.setMailer(SMTPMailer("127.0.0.1", relay.port))
                processor.run(forever=False)
                os._exit(0 if empty else 1)
            self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 0)
            self.assertEqual(relay.mails, [])
            lease.intend()
            lease.release()
            self.assertEqual(len(queue.claim()), 1)
            queue.close()


load_tests = in_layer(Processes)
