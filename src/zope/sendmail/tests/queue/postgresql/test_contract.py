"""A queue in PostgreSQL passes the contract suite whole."""

from __future__ import annotations

import atexit
import functools
import unittest
from typing import Any

from zope.sendmail.testing.contracts import SCHEDULE, QueueContract
from zope.sendmail.tests.support.layers import Databases, in_layer
from zope.sendmail.tests.support.postgresql import Pooler, shared_server


class PostgreSQLQueueTests(QueueContract, unittest.TestCase):
    """Directly at the server."""

    def make_queue(self) -> Any:
        self.url = shared_server().url()
        return self.open_again()

    def open_again(self) -> Any:
        from zope.sendmail.queue.postgresql.queue import PostgreSQLQueue

        queue = PostgreSQLQueue(self.url, schedule=SCHEDULE, clock=self.clock)
        self.addCleanup(queue.close)
        return queue


class PooledQueueTests(PostgreSQLQueueTests):
    """Through pgbouncer in transaction mode."""

    def make_queue(self) -> Any:
        self.url = _pooler().url()
        return self.open_again()


@functools.cache  # zope.testrunner knows no fixtures of classes
def _pooler() -> Pooler:
    """Return the pooler that these tests share."""
    pooler = Pooler(shared_server())
    atexit.register(pooler.stop)
    return pooler


del QueueContract


load_tests = in_layer(Databases)
