"""One spool directory or several as one queue: what stands behind ``spool:`` in the location of a queue.

Fails as `SpoolQueue`; a list without directories is a `QueueError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zope.sendmail.errors import QueueError
from zope.sendmail.interfaces import IMailQueue
from zope.sendmail.queue.several import SeveralQueues
from zope.sendmail.queue.spool.queue import PREFIX, SpoolQueue


def open_spool(directories: str, **options: Any) -> IMailQueue:
    """Return the queue over one spool directory, or over several with ``;`` between them: mail is written to the
    first.
    """
    paths = list(dict.fromkeys(path.strip() for path in directories.split(";") if path.strip()))
    if not paths:
        raise QueueError(f"{PREFIX}{directories} names no directory; write {PREFIX}/path")
    queues = [SpoolQueue(path, **options) for path in paths]
    return queues[0] if len(queues) == 1 else SeveralSpools(queues)


class SeveralSpools(SeveralQueues):
    """Several spool directories as one queue: written to the first, read from all.  See `IMailQueue`."""

    def __init__(self, queues: Sequence[SpoolQueue]) -> None:
        super().__init__(queues, PREFIX + ";".join(queue.spool for queue in queues))

    def wait(self, timeout: float) -> None:
        """See `IMailQueue.wait`; only the first directory's commits ring, as only they are ours."""
        self._queues[0].wait(timeout)

    def is_attended(self) -> bool:
        """Say whether the first spool is drained, into which mail is put."""
        return bool(self._queues[0].is_attended())
