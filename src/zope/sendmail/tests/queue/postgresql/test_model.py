"""A queue in PostgreSQL and the queue in memory do the same, whatever is done with them, and in which order."""

from __future__ import annotations

import uuid
from typing import Any

from hypothesis import settings

from zope.sendmail.testing.contracts.situation import SCHEDULE, ManualClock
from zope.sendmail.tests.support.layers import Databases, in_layer
from zope.sendmail.tests.support.postgresql import shared_server
from zope.sendmail.tests.support.properties import examples
from zope.sendmail.tests.support.twoqueues import STEPS, TwoQueues


def _postgresql(path: str, clock: ManualClock) -> Any:
    from zope.sendmail.queue.postgresql.queue import PostgreSQLQueue

    name = uuid.uuid5(uuid.NAMESPACE_URL, path).hex
    return PostgreSQLQueue(shared_server().url(name), schedule=SCHEDULE, clock=clock)


class PostgreSQLAndModel(TwoQueues):
    make = staticmethod(_postgresql)


APostgreSQLQueue: Any = PostgreSQLAndModel.TestCase
APostgreSQLQueue.settings = settings(STEPS, max_examples=examples(15))  # each is a hundred transactions


load_tests = in_layer(Databases)
