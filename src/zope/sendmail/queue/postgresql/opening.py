"""Opens queues in a database, or says what is missing for that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zope.sendmail.config.location import urls_of
from zope.sendmail.errors import QueueError

if TYPE_CHECKING:
    from zope.sendmail.queue.postgresql.queue import PostgreSQLQueue
    from zope.sendmail.queue.postgresql.shards import Shards


def open_postgresql(rest: str, **options: Any) -> PostgreSQLQueue | Shards:
    """Return the queue at ``postgresql:`` and what stands behind the colon, or those at several URLs as one.

    See `zope.sendmail.queue.open_queue`.

    :raises QueueError: if psycopg cannot be imported.
    """
    try:
        from zope.sendmail.queue.postgresql.shards import open_shards
    except ImportError as error:
        raise QueueError(f"a queue in PostgreSQL needs psycopg ({error}); install zope.sendmail[postgresql]") from error
    return open_shards(urls_of(f"postgresql:{rest}"), **options)
