"""What has left a queue in a database, for a week: a partition for each of nine days, which take turns.

The one that the next day needs is emptied before that day begins.
"""

from __future__ import annotations

from zope.sendmail.errors import QueueError
from zope.sendmail.lifecycle.mailstatus import KEPT_DAYS, SentMail
from zope.sendmail.queue.postgresql.database import Connections
from zope.sendmail.queue.postgresql.rows import record_of
from zope.sendmail.queue.postgresql.statements import STATEMENTS

#: The partitions.
PARTS = range(9)

_DAY = 86400


def part_of(time: float) -> int:
    """Return the partition for what leaves then.

    :param time: seconds since the epoch, as all times here.
    """
    return int(time // _DAY) % len(PARTS)


def kept_since(now: float) -> float:
    """Return since when it is known what has left."""
    return now - KEPT_DAYS * _DAY


def is_storable(message_id: str) -> bool:
    """Return whether a database can be asked for it."""
    try:
        message_id.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in message_id


def sent_mail(time: float, line: str | None) -> SentMail:
    """Return what is known of a mail that has left.

    :param line: its last record, None if there is none.
    """
    record = record_of(line)
    return SentMail(time, record.relay, record.replies)


def find(connections: Connections, queue: int | None, message_id: str, now: float) -> SentMail | None:
    """Return what is known of the last mail of a queue that has left with this Message-Id.

    :raises QueueError: if the database refuses.
    """
    if queue is None:
        return None
    rows = connections.execute("sent", queue=queue, message_id=message_id, after=kept_since(now))
    return sent_mail(*rows[0]) if rows else None


def clean(connections: Connections, now: float) -> None:
    """Empty the partition that tomorrow needs.

    :raises QueueError: if the database refuses.
    """
    part, oldest = part_of(now + _DAY), kept_since(now)
    rows = connections.execute("oldest_in_partition", part=part)
    if rows and rows[0][0] is not None and rows[0][0] < oldest:
        try:
            with connections.use() as connection:
                connection.execute(STATEMENTS["empty_partition"].replace(b"{part}", str(part).encode()))
        except QueueError:  # not every user may truncate
            connections.execute("forget_sent", part=part, before=oldest)
