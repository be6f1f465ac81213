"""Events: after the commit, in a thread and a transaction of their own."""

from __future__ import annotations

import threading
import unittest
from typing import Any
from unittest import mock

import transaction
import zope.event

from zope.sendmail.events import MailSentEvent
from zope.sendmail.reporting import notifier
from zope.sendmail.reporting.notifier import Notifier
from zope.sendmail.tests.support.subscribing import subscribe_alone


class TellingEvents(unittest.TestCase):
    def setUp(self) -> None:
        self.teller = Notifier()
        self.seen: list[Any] = []
        subscribe_alone(self, self.subscriber)

    def subscriber(self, event: Any) -> None:
        self.seen.append(event.messageId)

    def tell(self, *ids: str) -> None:
        self.teller.tell(MailSentEvent(each) for each in ids)

    def test_events_are_told_in_order(self) -> None:
        """All of them."""
        self.tell("1", "2")
        self.tell("3")
        self.assertTrue(self.teller.flush(60))
        self.assertEqual(self.seen, ["1", "2", "3"])

    def test_the_thread_is_another_one(self) -> None:
        """So that no subscriber can delay a mail."""
        threads = []
        zope.event.subscribers[:] = [lambda event: threads.append(threading.current_thread())]
        self.tell("1")
        self.teller.flush(60)
        self.assertIsNot(threads[0], threading.current_thread())

    def test_each_event_has_a_transaction_that_is_committed(self) -> None:
        """A subscriber may use the database."""
        ends: list[str] = []

        class Manager:
            transaction_manager = transaction.manager

            def sortKey(self) -> str:
                return ""

            def tpc_finish(self, txn: Any) -> None:
                ends.append("committed")

            def abort(self, txn: Any) -> None:
                ends.append("aborted")

            tpc_begin = tpc_vote = tpc_abort = commit = lambda self, txn: None

        zope.event.subscribers[:] = [lambda event: transaction.get().join(Manager())]
        self.tell("1", "2")
        self.teller.flush(60)
        self.assertEqual(ends, ["committed", "committed"])

    def test_a_subscriber_that_raises_is_logged(self) -> None:
        """Its transaction is aborted, and the next event is told."""

        def failing(event: Any) -> None:
            if event.messageId == "1":
                raise SystemExit("bug")
            self.subscriber(event)

        zope.event.subscribers[:] = [failing]
        with self.assertLogs("QueueProcessorThread", "ERROR"):
            self.tell("1", "2")
            self.teller.flush(60)
        self.assertEqual(self.seen, ["2"])

    def test_a_subscriber_that_hangs_delays_events_only(self) -> None:
        """tell() returns at once; flush() says that something is left."""
        go = threading.Event()
        zope.event.subscribers[:] = [lambda event: go.wait(300)]
        self.tell("1", "2")
        self.assertFalse(self.teller.flush(0.01))
        go.set()
        self.assertTrue(self.teller.flush(60))

    def test_what_waits_is_bounded(self) -> None:
        """And the log says that events were dropped."""
        go = threading.Event()
        zope.event.subscribers[:] = [lambda event: go.wait(300)]
        self.addCleanup(go.set)
        self.addCleanup(setattr, notifier, "MAX_WAITING", notifier.MAX_WAITING)
        notifier.MAX_WAITING = 3
        with self.assertLogs("QueueProcessorThread", "ERROR"):
            self.tell("1", "2", "3", "4")

    def test_a_system_without_threads_loses_no_event(self) -> None:
        """Nothing is raised, for other mails are to follow; what waits is told as soon as there is a thread."""
        with mock.patch.object(threading.Thread, "start", side_effect=RuntimeError("can't start new thread")):
            self.tell("1", "2")
        self.assertEqual(self.seen, [])
        self.tell("3")
        self.assertTrue(self.teller.flush(60))
        self.assertEqual(self.seen, ["1", "2", "3"])

    def test_nobody_subscribed_costs_nothing(self) -> None:
        """No thread is started."""
        zope.event.subscribers[:] = []
        self.tell("1")
        self.assertIsNone(self.teller._thread)
