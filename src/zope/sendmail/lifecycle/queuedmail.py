"""One mail of a queue as an operator sees it.  Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.envelope import Envelope


@dataclass(frozen=True, slots=True)
class QueuedMail:
    """See `zope.sendmail.interfaces.IQueuedMail`, which says that this class implements it."""

    name: str
    state: State
    envelope: Envelope | None
    message_id: str
    since: float
    size: int
    due: float
    history: Sequence[Record]
