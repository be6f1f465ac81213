"""A queue object that is closed, or forgotten, leaves neither connections nor threads behind."""

from __future__ import annotations

import gc
import threading
import unittest
import warnings

from zope.sendmail.queue import open_queue, put
from zope.sendmail.testing.contracts import MESSAGE, envelope
from zope.sendmail.tests.support.layers import Databases, in_layer
from zope.sendmail.tests.support.postgresql import shared_server


class AQueue(unittest.TestCase):
    """That was written to and looked at."""

    def test_that_is_forgotten_closes_its_connections(self) -> None:
        """A delivery has no end of its own; the driver would complain of each connection."""
        queue = open_queue(shared_server().url())
        put(queue, [envelope()], MESSAGE)
        gc.collect()  # what others have left
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del queue
            gc.collect()
        self.assertEqual([str(each.message) for each in caught], [])

    def test_that_is_closed_leaves_no_thread(self) -> None:
        """What it had to tell of commits is told before."""
        queue = open_queue(shared_server().url())
        before = set(threading.enumerate())
        for _ in range(3):
            put(queue, [envelope()], MESSAGE)
        queue.claim(1)
        queue.close()
        self.assertEqual(set(threading.enumerate()) - before, set())


load_tests = in_layer(Databases)
