"""What is done to the database of queues as a whole: its schema, and its identity.

Everything that a schema lacks is done in one transaction.  One of a newer version than this release knows is left
alone.
"""

from __future__ import annotations

from typing import Any

import psycopg

from zope.sendmail.queue.postgresql.database import Connections, translated
from zope.sendmail.queue.postgresql.databaselocation import DatabaseLocation
from zope.sendmail.queue.postgresql.schemaversion import NEWEST, check_version, migrations
from zope.sendmail.queue.postgresql.statements import STATEMENTS

#: Of all who migrate at the same time, one does it.
_LOCK = 0x7A6F7065_6D61696C


def migrate(location: str, *, to: int = NEWEST) -> list[int]:
    """Bring the schema of a database to a version.

    :param location: the URL of a queue in it.
    :param to: the version.
    :returns: the versions that it was brought to, one after the other.
    :raises QueueError: if the database is of a newer version, or refuses; nothing was changed then.
    """
    parameters: Any = DatabaseLocation.parse(location).parameters
    with translated(), psycopg.connect(**parameters) as connection:
        connection.execute("select pg_advisory_xact_lock(%s)", [_LOCK])
        connection.execute("create schema if not exists zope_sendmail")
        connection.execute(
            "create table if not exists zope_sendmail.schema_version "
            "(version integer primary key, made timestamptz not null default clock_timestamp())"
        )
        [(version,)] = connection.execute("select coalesce(max(version), 0) from zope_sendmail.schema_version")
        if version > NEWEST:
            check_version(version)
        done = [number for number in migrations() if version < number <= to]
        for number in done:
            connection.execute(migrations()[number])
            connection.execute("insert into zope_sendmail.schema_version (version) values (%s)", [number])
        if done:
            connection.execute(STATEMENTS["pass_on_rights"])
        return done


def adopt(location: str) -> bool:
    """Say that a restored or copied database is the queue's from now on, so that processors claim its mail.

    :returns: whether it was another one before.
    :raises QueueError: if the database refuses.
    """
    connections = Connections(DatabaseLocation.parse(location))
    [(here, known)] = connections.execute("identity")
    connections.execute("adopt")
    connections.close()
    return bool(here != known)
