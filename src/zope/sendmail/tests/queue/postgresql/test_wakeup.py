"""What a processor learns without being asked: new mail, and what operators changed, with and without notifications."""

from __future__ import annotations

import threading
import time
import unittest
import uuid
from typing import Any

from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.states import State
from zope.sendmail.queue import open_queue, put
from zope.sendmail.testing.contracts import MESSAGE, envelope
from zope.sendmail.tests.support.layers import Databases, in_layer
from zope.sendmail.tests.support.postgresql import shared_pooler, shared_server

_PATIENCE = 300.0


class Fixture(unittest.TestCase):
    """A processor, and somebody else at the same queue."""

    #: Whether the processor is behind a pooler, which gives notifications to nobody.
    is_pooled = False

    def setUp(self) -> None:
        self.server = shared_server()
        queue = uuid.uuid4().hex
        url = shared_pooler(self.server).url(queue) if self.is_pooled else self.server.url(queue)
        self.queue: Any = open_queue(url)
        self.other: Any = open_queue(self.server.url(queue))
        self.addCleanup(self.queue.close)
        self.addCleanup(self.other.close)

    def park(self) -> str:
        """The processor leaves a mail alone; return its name."""
        put(self.other, [envelope()], MESSAGE)
        [lease] = self.queue.claim()
        lease.park("relay")
        self.assertEqual(self.queue.claim(), [])
        return str(lease.name)

    def next(self) -> str:
        """Wait for a mail as a processor does; return its name."""
        deadline = time.monotonic() + _PATIENCE
        while not (leases := self.queue.claim()):
            self.assertLess(time.monotonic(), deadline, "it learns nothing")
            self.queue.wait(_PATIENCE)
        leases[0].intend()
        leases[0].settle(Record(State.SENT))
        return str(leases[0].name)


class AProcessorThatWaits(Fixture):
    """Hears of it."""

    def test_learns_of_a_commit(self) -> None:
        """Wherever that was."""
        self.assertEqual(self.queue.claim(), [])
        thread = threading.Thread(target=put, args=(self.other, [envelope()], MESSAGE))
        thread.start()
        self.queue.wait(3600.0)
        thread.join()
        self.assertEqual(len(self.queue.claim()), 1)

    def test_learns_of_what_an_operator_wants_tried(self) -> None:
        """Also if the mail is one that it leaves alone."""
        name = self.park()
        self.other.admin.retry(name)
        self.queue.wait(3600.0)
        self.assertEqual(self.next(), name)

    def test_leaves_alone_what_no_operator_wants_tried(self) -> None:
        """Another mail was changed, and another one removed."""
        alone, changed, removed = (self.park() for _ in range(3))
        self.other.admin.retry(changed)
        self.other.admin.remove(removed)
        self.assertEqual(self.next(), changed)
        self.assertEqual((self.queue.claim(), list(self.other.admin.names())), ([], [alone]))

    def test_learns_of_it_between_other_mails(self) -> None:
        """Though there is always something else to do."""
        name, seen = self.park(), ""
        self.other.admin.retry(name)
        deadline = time.monotonic() + _PATIENCE
        while seen != name:
            self.assertLess(time.monotonic(), deadline, "it learns nothing")
            put(self.other, [envelope()], MESSAGE)
            seen = self.next()


class AProcessorBehindAPooler(AProcessorThatWaits):
    """Looks."""

    is_pooled = True


class AProcessorThatMissesANotification(Fixture):
    """Looks, too."""

    def test_learns_of_what_an_operator_wanted_while_it_was_cut_off(self) -> None:
        """The notification reached nobody."""
        name = self.park()
        self.server.kill_backends()
        self.other.admin.retry(name)
        self.assertEqual(self.next(), name)

    def test_learns_of_a_commit_that_nobody_announces(self) -> None:
        """Though it hears of other queues of the database all the time."""
        self.assertEqual(self.queue.claim(), [])
        over = threading.Event()

        def chatter() -> None:
            with self.server.connect() as connection:
                while not over.wait(0.05):
                    connection.execute("notify zope_sendmail, '0'")

        thread = threading.Thread(target=chatter)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(over.set)
        staged = self.other.stage()
        name = staged.add(envelope(), MESSAGE)
        staged.prepare()
        staged.reveal()
        self.queue.wait(3600.0)
        self.assertEqual(self.next(), name)


load_tests = in_layer(Databases)
