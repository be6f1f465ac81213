"""The mails of one transaction on their way into a queue.

What its disk refuses is told to callers as `QueueNotWritable`, with the cure.  Mail for a queue that no processor
drains is told once in a process, when the first one is committed.
"""

from __future__ import annotations

import threading
from typing import Any

from zope.interface import implementer

from zope.sendmail.config.location import MEMORY
from zope.sendmail.errors import telling_refusals
from zope.sendmail.interfaces import IMailQueue, IStagedMail
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.pieces import Piece
from zope.sendmail.reporting import maillog

#: Queues of which it is known in this process whether a processor is at work.
_looked_at: set[str] = set()


@implementer(IStagedMail)
class QueueMail:
    """See `IStagedMail`.

    :param staged: the mails, as the queue has them.
    :param queue: where they are.
    :param location: the queue as people name it.
    """

    def __init__(self, staged: IStagedMail, queue: IMailQueue, location: str) -> None:
        self._staged = staged
        self._queue = queue
        self._location = location
        self.rollback, self.abort = staged.rollback, staged.abort

    def __len__(self) -> int:
        return len(self._staged)

    def add(self, envelope: Envelope, *message: Piece) -> str:
        """See `IStagedMail`."""
        with telling_refusals(self._location):
            return self._staged.add(envelope, *message)

    def prepare(self) -> None:
        """See `IStagedMail`."""
        with telling_refusals(self._location):
            self._staged.prepare()

    def commit(self) -> None:
        """See `IStagedMail`."""
        self._staged.commit()
        tell_if_unattended(self._queue, self._location)


def tell_if_unattended(queue: IMailQueue, location: str) -> None:
    """Log it if no processor drains a queue to which mail was committed; the first time that this is asked about it.

    A queue in memory is left out: there programs look themselves for what they have sent.
    """
    if location not in _looked_at and location != MEMORY:
        _looked_at.add(location)
        if not _is_attended(queue):
            maillog.unattended(location)


def _is_attended(queue: Any) -> bool:
    """Say whether a processor is at work on the queue, or is about to be, in this process or another one."""
    ask = getattr(queue, "is_attended", None)
    if ask is None:
        return True
    threads = (getattr(each, "queue", None) for each in threading.enumerate())
    try:
        return any(getattr(each, "location", None) == queue.location for each in threads) or bool(ask())
    except OSError:  # nothing depends on the answer
        return True
