"""A queue in PostgreSQL passes the contract suite whole: in the oldest and in the newest release that is here."""

from __future__ import annotations

import unittest
from typing import Any

from zope.sendmail.testing.contracts import SCHEDULE, QueueContract
from zope.sendmail.tests.support.layers import Databases, in_layer
from zope.sendmail.tests.support.postgresql import oldest_programs, shared_pooler, shared_server


class PostgreSQLQueueTests(QueueContract, unittest.TestCase):
    """Directly at the server."""

    def make_queue(self) -> Any:
        self.url = self.make_url()
        return self.open_again()

    def make_url(self) -> str:
        """Where the queue of a test is."""
        return shared_server().url()

    def open_again(self) -> Any:
        from zope.sendmail.queue.postgresql.queue import PostgreSQLQueue

        queue = PostgreSQLQueue(self.url, schedule=SCHEDULE, clock=self.clock)
        self.addCleanup(queue.close)
        return queue


class PooledQueueTests(PostgreSQLQueueTests):
    """Through pgbouncer in transaction mode."""

    def make_url(self) -> str:
        return shared_pooler(shared_server()).url()


class OldestPostgreSQLQueueTests(PostgreSQLQueueTests):
    """Directly at the server of the oldest release here."""

    def make_url(self) -> str:
        return shared_server(oldest_programs()).url()


class OldestPooledQueueTests(PostgreSQLQueueTests):
    """Through pgbouncer, in front of the oldest release here."""

    def make_url(self) -> str:
        return shared_pooler(shared_server(oldest_programs())).url()


del QueueContract


load_tests = in_layer(Databases)
