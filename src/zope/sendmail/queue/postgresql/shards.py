"""Queues in several databases as one: shards.

Mail needs no order among all mails, so each database has a queue of its own.  Own connections write to the first; mail
on the connection of an application is in the database that the connection leads to.  Processors drain all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zope.sendmail.errors import QueueError
from zope.sendmail.queue.postgresql.queue import PostgreSQLQueue
from zope.sendmail.queue.several import SeveralQueues


class Shards(SeveralQueues):
    """See the module."""

    def __init__(self, queues: Sequence[PostgreSQLQueue]) -> None:
        super().__init__(queues, ";".join(queue.location for queue in queues))

    def stage_on(self, connection: Any) -> Any:
        """See `PostgreSQLQueue.stage_on`; the queue is that of the connection's database.

        :raises QueueError: if it leads to the database of none.
        """
        for queue in self._queues[:-1]:
            if queue.is_in_database_of(connection):
                return queue.stage_on(connection)
        return self._queues[-1].stage_on(connection)


def open_shards(locations: Sequence[str], **options: Any) -> PostgreSQLQueue | Shards:
    """Return the queue at a location, or those at several as one.

    :raises QueueError: for a location that is none.
    """
    if not locations:
        raise QueueError("there is no URL of a database; write postgresql://user@host/database?queue=name")
    queues = [PostgreSQLQueue(each, **options) for each in dict.fromkeys(locations)]
    return queues[0] if len(queues) == 1 else Shards(queues)
