"""Transactions that nobody ends, and queues that nobody drains: both are told."""

from __future__ import annotations

import gc
import multiprocessing
import os
import tempfile
import threading
import unittest
from collections.abc import Callable

import transaction

from zope.sendmail import datamanager
from zope.sendmail.datamanager import PATIENCE, UnendedTransactions, joined_mails
from zope.sendmail.delivery import DirectMailDelivery, QueuedMailDelivery
from zope.sendmail.interfaces import QueueError
from zope.sendmail.lifecycle.states import State
from zope.sendmail.processor.thread import QueueProcessorThread
from zope.sendmail.sender import MailSender, MailWriter
from zope.sendmail.testing.contracts import ManualClock
from zope.sendmail.testing.scriptedmailer import ScriptedMailer

SENDER, RECIPIENT = "s@example.org", "one@example.org"
MESSAGE = b"From: s@example.org\n\nx\n"
LOG = "MailDataManager"


class Fixture(unittest.TestCase):
    def setUp(self) -> None:
        transaction.abort()
        self.addCleanup(transaction.abort)
        gc.collect()  # what other tests have left behind is theirs
        self.path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "queue")
        self.delivery = QueuedMailDelivery(self.path)
        self.clock = ManualClock()
        former, datamanager.unended = datamanager.unended, UnendedTransactions(self.clock)
        self.addCleanup(setattr, datamanager, "unended", former)

    def send(self, delivery: QueuedMailDelivery | DirectMailDelivery | None = None) -> None:
        (delivery or self.delivery).send("s@example.org", ["one@example.org"], MESSAGE)

    def counts(self) -> dict[State, int]:
        return dict(self.delivery.queue.admin.count())


class ATransactionThatNobodyEnds(Fixture):
    """A delivery follows the thread's transaction, and the program commits another manager's."""

    def test_is_told_after_a_while(self) -> None:
        """With the next mail, once; the text names the number, the queue and the cure."""
        self.send()
        other = transaction.TransactionManager()
        self.clock.advance(PATIENCE + 1)
        with self.assertLogs(LOG, "WARNING") as logs:
            for _ in range(2):
                QueuedMailDelivery(self.path, transaction_manager=other).send("s@example.org", ["b@x.org"], MESSAGE)
        [line] = logs.output
        self.assertIn(f"1 mail(s) have not left (mail for the queue {self.path})", line)
        self.assertIn("bind(request.tm)", line)
        other.abort()

    def test_is_told_at_the_end_of_the_program(self) -> None:
        """What an ``atexit`` of the package does."""
        self.send()
        with self.assertLogs(LOG, "WARNING"):
            datamanager.unended.tell()

    def test_is_told_at_the_end_of_its_thread(self) -> None:
        """Nothing can commit it any more, so nothing of it stays."""

        def work() -> None:
            self.send()
            self.send()

        with self.assertLogs(LOG, "ERROR") as logs:
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
            gc.collect()
        self.assertIn("2 mail(s) do not leave", logs.output[0])
        self.assertEqual(self.counts(), {})

    def test_is_told_when_its_manager_goes(self) -> None:
        """As a request does that has a manager of its own."""
        manager = transaction.TransactionManager(explicit=True)
        manager.begin()
        self.send(self.delivery.bind(manager))
        with self.assertLogs(LOG, "ERROR"):
            del manager
            gc.collect()
        self.assertEqual(self.counts(), {})

    def test_is_no_news_if_it_has_ended(self) -> None:
        """Committed, aborted, rolled back, or without mail."""
        self.send()
        transaction.commit()
        self.send()
        transaction.abort()
        savepoint = transaction.savepoint()
        self.send()
        savepoint.rollback()
        self.clock.advance(PATIENCE + 1)
        with self.assertNoLogs(LOG, "WARNING"):
            datamanager.unended.tell()
            transaction.abort()
            gc.collect()

    def test_does_not_count_the_same_mail_for_ever(self) -> None:
        """What has ended is not kept."""
        for _ in range(10):
            self.send()
            transaction.commit()
        self.assertEqual(datamanager.unended._since, {})


class AQueueThatNobodyDrains(Fixture):
    def test_is_told_at_the_first_commit(self) -> None:
        """Once in a process."""
        with self.assertLogs(LOG, "WARNING") as logs:
            for _ in range(2):
                self.send()
                transaction.commit()
        [line] = logs.output
        self.assertIn(f"No processor is at work on the queue {self.path}", line)

    def test_is_told_of_every_way_in(self) -> None:
        """At once, without a transaction; a spool; several spools."""
        ways: dict[str, Callable[[str], object]] = {
            self.path: lambda path: QueuedMailDelivery(path).send_now(SENDER, RECIPIENT, MESSAGE),
            f"{self.path}-writer": lambda path: MailWriter(path).send(SENDER, RECIPIENT, MESSAGE),
            f"spool:{self.path}-a": lambda path: QueuedMailDelivery(path).send_now(SENDER, RECIPIENT, MESSAGE),
            f"spool:{self.path}-b;{self.path}-c": lambda path: MailWriter(path).send(SENDER, RECIPIENT, MESSAGE),
        }
        for location, send in ways.items():
            with self.subTest(location), self.assertLogs(LOG, "WARNING") as logs:
                send(location)
            self.assertIn(f"No processor is at work on the queue {location}", logs.output[-1])

    def test_is_no_news_between_two_passes(self) -> None:
        """Where cron starts one every few minutes, no processor lives most of the time."""
        processor = QueueProcessorThread()
        processor.setMailer(ScriptedMailer())
        processor.setQueuePath(self.path)
        processor.run(forever=False)
        with self.assertNoLogs(LOG, "WARNING"):
            self.send()
            transaction.commit()

    def test_is_no_news_for_what_sends_itself(self) -> None:
        """A sender begins to send with its first mail."""
        with MailSender(self.path, mailer=ScriptedMailer()) as sender, self.assertNoLogs(LOG, "WARNING"):
            sender.send(SENDER, RECIPIENT, MESSAGE)

    def test_is_no_news_with_a_processor(self) -> None:
        """One of this process that has just been made, or one that lives elsewhere."""
        processor = QueueProcessorThread()
        processor.setMailer(ScriptedMailer())
        processor.setQueuePath(self.path)
        processor.start()
        self.addCleanup(processor.join, 60)
        self.addCleanup(processor.stop)
        with self.assertNoLogs(LOG, "WARNING"):
            self.send()
            transaction.commit()


class AForkedChild(Fixture):
    """It has a copy of its parent's transaction."""

    def in_child(self, action: object) -> None:
        process = multiprocessing.get_context("fork").Process(target=action)  # type: ignore[arg-type]  # typeshed wants a function that returns None
        process.start()
        process.join()
        self.assertEqual(process.exitcode, 0)

    def test_does_not_delete_what_its_parent_has_staged(self) -> None:
        """It begins a transaction, aborts it, or ends; the parent's mail leaves all the same."""
        for count in (1, 3, 12):
            for action in (transaction.begin, transaction.abort, gc.collect):
                with self.subTest(action, count=count):
                    for _ in range(count):
                        self.send()
                    self.in_child(action)
                    transaction.commit()
                    self.assertEqual(self.counts(), {State.READY: count})
                    for name in list(self.delivery.queue.admin.names()):
                        self.delivery.queue.admin.remove(name)

    def test_cannot_send_it_as_well(self) -> None:
        """Neither through a queue nor straight to a relay: a commit in the child is refused."""
        mailer = ScriptedMailer()

        def commit() -> None:
            self.assertRaises(QueueError, transaction.commit)
            transaction.abort()
            assert not mailer.sent

        self.send()
        self.in_child(commit)
        transaction.commit()
        self.send(DirectMailDelivery(mailer))
        self.in_child(commit)
        transaction.commit()
        self.assertEqual((self.counts(), len(mailer.sent)), ({State.READY: 1}, 1))

    def test_cannot_finish_what_its_parent_has_voted_for(self) -> None:
        """The mail leaves with the parent's transaction, once."""
        self.send()
        current = transaction.get()
        [manager] = current._resources
        manager.tpc_vote(current)

        def finish() -> None:
            with self.assertLogs(LOG, "ERROR"):
                manager.tpc_finish(current)

        self.in_child(finish)
        self.assertEqual(self.counts(), {State.STAGED: 1})
        manager.tpc_finish(current)
        self.assertEqual(self.counts(), {State.READY: 1})


class TheVote(Fixture):
    """What can go wrong between ``send()`` and the commit."""

    def test_proves_that_the_mail_can_be_revealed(self) -> None:
        """A ``new`` that is gone stops the commit, and nothing is in doubt after the abort."""
        for count in (1, 3, 12):
            with self.subTest(count=count):
                for _ in range(count):
                    self.send()
                os.rename(os.path.join(self.path, "new"), os.path.join(self.path, "elsewhere"))
                self.assertRaises(QueueError, transaction.commit)
                transaction.abort()
                os.rename(os.path.join(self.path, "elsewhere"), os.path.join(self.path, "new"))
                self.assertEqual(self.counts(), {})

    def test_has_one_data_manager_for_each_delivery(self) -> None:
        """The same for all mails of a transaction."""
        first = joined_mails(self.delivery, transaction.manager, self.delivery._stage, "x")
        self.assertIs(joined_mails(self.delivery, transaction.manager, self.delivery._stage, "x"), first)
