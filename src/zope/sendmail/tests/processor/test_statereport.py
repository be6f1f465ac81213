"""What a processor tells operators of its relays, and how they let it try one."""

from __future__ import annotations

import errno
import os
import tempfile
import threading
import unittest
from typing import Any

from zope.sendmail.config.passwordfile import follow_password_file
from zope.sendmail.lifecycle.outcome import Answer, Outcome, Reply
from zope.sendmail.lifecycle.relaystate import ProcessorState, RelayBoard, RelayState
from zope.sendmail.mailer import SMTPMailer
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.routes import Routes
from zope.sendmail.processor.thread import QueueProcessorThread
from zope.sendmail.queue import open_queue, put
from zope.sendmail.queue.maildir.queue import MaildirQueue
from zope.sendmail.system.disk import Disk
from zope.sendmail.testing.contracts import MESSAGE, OK, ManualClock
from zope.sendmail.testing.relay import Relay
from zope.sendmail.testing.scriptedmailer import ScriptedMailer
from zope.sendmail.tests.support.processing import ProcessorTest

REFUSED = Reply(Answer.DEFERRED, "authentication failed", 535, "5.7.8")
ENVELOPE = Envelope("sender@example.org", ("one@example.org",))


class ARelay(ProcessorTest):
    def relays(self) -> dict[str, RelayState]:
        return {relay.name: relay for relay in RelayBoard(self.queue.admin.processors())}

    def test_that_cannot_be_used_is_told_with_its_words(self) -> None:
        """Since when, and when it is tried next; mail that is due waits for it."""
        self.mailer.fault = REFUSED
        [name, _] = self.put(count=2)
        self.new_run().once()
        [relay] = self.relays().values()
        self.assertEqual((relay.name, relay.fault, relay.since), ("default", REFUSED, self.clock.time()))
        self.assertEqual(relay.probe, self.clock.time() + 5)
        self.assertEqual(self.queue.admin.show(name).blocked, relay)

    def test_that_stays_so_is_down_since_the_first_failure(self) -> None:
        """Over any number of passes."""
        self.mailer.fault = REFUSED
        self.put()
        began = self.clock.time()
        for _ in range(3):
            self.drain(600)
            self.processor = self.make_processor()
        self.assertEqual(self.relays()["default"].since, began + 600)

    def test_that_works_again_keeps_nothing_waiting(self) -> None:
        """The fault is gone, and the time is that of the first success."""
        self.mailer.fault = REFUSED
        [name] = self.put()
        self.drain()
        self.mailer.fault = None
        self.queue.admin.hold(self.put()[0])
        self.drain(600)
        [relay] = self.relays().values()
        self.assertEqual((relay.fault, relay.since), (None, self.clock.time()))
        self.assertNotIn(name, list(self.queue.admin.names()))

    def test_is_told_apart_from_others(self) -> None:
        """With routes, only the mail for the one that is down waits for it."""
        bulk = ScriptedMailer()
        bulk.fault = REFUSED
        routes = Routes("main", frozenset({"main", "bulk"}), frozenset(), {"@news.org": "bulk"})
        self.processor = self.make_processor(routes=routes, mailers={"bulk": bulk})
        [news] = self.put("a@news.org")
        self.put("a@example.org")
        self.drain()
        self.assertEqual(
            {name: relay.is_usable for name, relay in self.relays().items()}, {"main": True, "bulk": False}
        )
        mail = self.queue.admin.show(news)
        self.assertEqual((mail.relays, mail.blocked and mail.blocked.name), (("bulk",), "bulk"))

    def test_that_was_never_asked_is_left_out(self) -> None:
        """Nothing is known about it."""
        self.drain()
        self.assertEqual(self.relays(), {})
        self.assertEqual([each.sent for each in self.queue.admin.processors()], [0])

    def test_is_tried_when_an_operator_asks(self) -> None:
        """Before its pause has ended; if it fails again, it rests again."""
        self.mailer.fault = REFUSED
        self.put()
        run = self.new_run()
        run.once()
        self.queue.admin.probe("default")
        self.clock.advance(0.001)
        run.once()
        self.assertEqual(self.relays()["default"].failures, 1)
        self.clock.advance(1)
        self.queue.admin.probe("default")
        run.once()
        self.assertEqual(self.relays()["default"].failures, 2)
        self.mailer.fault = None
        run.once()
        self.assertEqual(self.sent_to(), [])
        self.clock.advance(1)
        self.queue.admin.probe("default")
        run.once()
        self.assertEqual(len(self.sent_to()), 1)


class OnADisk(unittest.TestCase):
    """A Maildir, a relay, and processors that are run pass by pass."""

    def setUp(self) -> None:
        self.directory = self.enterContext(tempfile.TemporaryDirectory())
        self.path = os.path.join(self.directory, "queue")
        self.clock = ManualClock()

    def queue(self, disk: Disk | None = None) -> MaildirQueue:
        queue = MaildirQueue(self.path, clock=self.clock, disk=disk)
        self.addCleanup(queue.close)
        return queue

    def processor(self, queue: MaildirQueue, mailer: Any) -> QueueProcessorThread:
        return QueueProcessorThread(queue=queue, mailer=mailer, clock=self.clock)

    def relay(self) -> RelayState:
        [relay] = RelayBoard(self.queue().admin.processors())
        return relay

    def test_a_living_processor_is_told_from_a_dead_one(self) -> None:
        """By the lock of its owner file."""
        queue = self.queue()
        put(queue, [ENVELOPE], MESSAGE)
        mailer = ScriptedMailer()
        mailer.fault = REFUSED
        run = self.processor(queue, mailer).new_run()
        run.once()
        [state] = self.queue().admin.processors()
        self.assertTrue(state.alive)
        self.assertEqual(state.pid, os.getpid())
        run.end()
        [state] = self.queue().admin.processors()
        self.assertEqual((state.alive, state.ended), (False, self.clock.time()))
        self.assertFalse(RelayBoard([state]).get("default").is_usable)  # type: ignore[union-attr]  # it is there

    def test_the_next_processor_takes_over_what_the_last_one_knew(self) -> None:
        """And its file goes."""
        mailer = ScriptedMailer()
        mailer.fault = REFUSED
        put(self.queue(), [ENVELOPE], MESSAGE)
        for _ in range(3):
            self.processor(self.queue(), mailer).run(forever=False)
            self.clock.advance(60)
        self.assertEqual(len(os.listdir(os.path.join(self.path, "processors"))), 1)
        [relay] = RelayBoard(self.queue().admin.processors())
        self.assertEqual(relay.since, 1_800_000_000.0)

    def test_the_next_processor_tells_at_once_that_a_relay_is_up_again(self) -> None:
        """Also if it has told of itself before: not ten seconds later, when the mail has left long ago."""
        mailer = ScriptedMailer()
        mailer.fault = REFUSED
        put(self.queue(), [ENVELOPE], MESSAGE)
        self.processor(self.queue(), mailer).run(forever=False)
        mailer.fault = None
        run = self.processor(self.queue(), mailer).new_run()
        self.addCleanup(run.end)
        run._context.state_report.rest()
        self.assertFalse(self.relay().is_usable)
        run.once()
        self.assertTrue(self.relay().is_usable)

    def test_mail_leaves_whatever_the_disk_says_to_it(self) -> None:
        """No space, no inode, no permission: nothing depends on it."""

        class NoReports(Disk):
            def create(self, path: str, *pieces: Any) -> None:
                if f"{os.sep}processors{os.sep}" in path:
                    raise OSError(errno.ENOSPC, "No space left on device", path)
                super().create(path, *pieces)

        queue = self.queue(NoReports())
        put(queue, [ENVELOPE], MESSAGE)
        mailer = ScriptedMailer()
        self.processor(queue, mailer).run(forever=False)
        self.assertEqual(len(mailer.sent), 1)
        self.assertEqual(queue.admin.processors(), [])

    def test_a_foreign_file_is_passed_over(self) -> None:
        """Whatever somebody put there."""
        self.queue().claim(0)
        for name, text in ("1.2.h.3", b"\0\xff"), ("README", b"x"), ("1.2.h.4", b"{}"):
            Disk().create(os.path.join(self.path, "processors", name), text)
        os.mkdir(os.path.join(self.path, "processors", "1.2.h.5"))
        self.assertEqual(list(self.queue().admin.mails()), [])
        self.processor(self.queue(), ScriptedMailer()).run(forever=False)

    def test_the_limit_that_a_relay_showed_is_told(self) -> None:
        """With its words."""
        queue = self.queue()
        queue.claim(0)
        run = self.processor(queue, ScriptedMailer())
        relay = run.relays.default
        relay.workers = 8
        new = run.new_run()
        relay.heard(Outcome("relay:25", {}, Reply(Answer.DEFERRED, "too many connections", 421)))
        [told] = RelayBoard(queue.admin.processors())
        self.assertEqual((told.connections, told.limit), (7, "421 too many connections"))
        relay.workers = 0
        new.end()

    def test_a_relay_is_tried_when_the_password_in_its_file_changes(self) -> None:
        """Nobody has to ask for it, and the mail leaves."""
        relay = self.enterContext(Relay(users={"user": "right"}))
        path = os.path.join(self.directory, "password")
        Disk().create(path, b"not it\n")  # of another length: within one tick a file keeps its time stamp
        mailer = SMTPMailer(relay.host, relay.port, "user", "not it", no_tls=True, allow_clear_password=True)
        follow_password_file(mailer, {"password_file": path})
        queue = self.queue()
        put(queue, [ENVELOPE], MESSAGE)
        run = self.processor(queue, mailer).new_run()
        run.once()
        run.once()
        self.assertEqual((relay.mails, len(relay.dialogues)), ([], 1))
        with open(path, "wb") as file:
            file.write(b"right\n")
        run.once()
        self.assertEqual(len(relay.mails), 1)
        run.end()

    def test_settings_that_differ_each_time_are_no_reason_to_try_a_relay(self) -> None:
        """Its pauses are kept: else it would be asked without end."""
        relay = self.enterContext(Relay(users={"user": "right"}))
        mailer = SMTPMailer(
            settings=lambda: {
                "hostname": relay.host,
                "port": relay.port,
                "username": "user",
                "no_tls": True,
                "allow_clear_password": True,
                "token": lambda: "wrong",
            }
        )
        queue = self.queue()
        put(queue, [ENVELOPE], MESSAGE)
        run = self.processor(queue, mailer).new_run()
        for _ in range(5):
            run.once()
        self.assertLessEqual(len(relay.dialogues), 1)
        run.end()

    def test_another_process_lets_a_relay_be_tried(self) -> None:
        """It wakes up at once; the clock of the pause stands still here."""
        relay = self.enterContext(Relay())
        relay.on("EHLO", "421 4.3.2 not now")
        put(self.queue(), [ENVELOPE], MESSAGE)
        told = threading.Event()

        class Watched(MaildirQueue):
            def report(self, state: ProcessorState) -> None:
                super().report(state)
                if not all(each.is_usable for each in state.relays):
                    told.set()

        processor = QueueProcessorThread(
            60.0,
            queue=Watched(self.path, clock=self.clock),
            mailer=SMTPMailer(relay.host, relay.port, no_tls=True),
            clock=self.clock,
        )
        processor.start()
        self.addCleanup(processor.join)
        self.addCleanup(processor.stop)
        self.assertTrue(told.wait(300))
        relay.forgive()
        operators = open_queue(self.path, clock=self.clock)
        self.clock.advance(1)
        operators.admin.probe("default")
        relay.wait_until(lambda: relay.mails)


class AProcessorThatHasBegun(unittest.TestCase):
    def test_is_at_work_while_its_relay_says_nothing(self) -> None:
        """To its first mail: operators do not hear that there is no processor."""
        path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "queue")
        operator = MaildirQueue(path)
        self.addCleanup(operator.close)
        put(operator, [ENVELOPE], MESSAGE)
        seen: list[ProcessorState] = []
        mailer = ScriptedMailer()
        mailer.before = lambda envelope: seen.extend(operator.admin.processors())
        processor = QueueProcessorThread()
        processor.setMailer(mailer)
        processor.setQueuePath(path)
        processor.run(forever=False)
        self.assertEqual([(each.pid, each.alive) for each in seen], [(os.getpid(), True)])
        self.assertEqual([each.alive for each in operator.admin.processors()], [False])


class WhatWasNotSent(ProcessorTest):
    def test_is_told_ten_seconds_later_at_the_most(self) -> None:
        """A rejection counts although nothing leaves, and nothing follows it."""
        run = self.new_run()
        self.put(count=2)
        self.mailer.answers = lambda recipient: Reply(Answer.REJECTED, f"no {recipient}", 550)
        run.once()
        run._rest()
        self.clock.advance(10)
        run._rest()
        [state] = self.queue.admin.processors()
        self.assertEqual(sum(minute.rejected for minute in state.minutes), 2)
        run.end()


class TheRate(ProcessorTest):
    def test_is_that_of_the_last_minute(self) -> None:
        """Or of the time since the start."""
        run = self.new_run()
        for _ in range(4):
            self.put(count=30)
            run.once()
            self.clock.advance(30)
            run._rest()
        [state] = self.queue.admin.processors()
        self.assertEqual((state.sent, state.alive), (120, True))
        self.assertAlmostEqual(state.per_minute, 60, delta=15)
        self.assertEqual({OK.answer}, {Answer.ACCEPTED})
        run.end()


if __name__ == "__main__":
    unittest.main()
