"""The context of a trace goes through a database as it goes through a directory."""

from __future__ import annotations

from typing import Any

from zope.sendmail.queue import open_queue
from zope.sendmail.tests.support.layers import Databases, in_layer
from zope.sendmail.tests.support.postgresql import shared_server
from zope.sendmail.tests.traces.test_traces import MISSING, AQueue as _AQueue


class AQueueInPostgreSQL(_AQueue):
    def setUp(self) -> None:
        if MISSING:
            self.skipTest(MISSING)
        self.url = shared_server().url()
        super().setUp()

    def location(self) -> str:
        return self.url

    def open(self) -> Any:
        queue = open_queue(self.url, clock=self.clock)
        self.addCleanup(queue.close)
        return queue


del _AQueue
load_tests = in_layer(Databases)
