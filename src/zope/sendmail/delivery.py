"""Where applications hand over mail: `IMailDelivery`, queued and direct.

Refuses what cannot be a mail before anything is written, gives the message its Message-Id, and lets it follow the
transaction. Fails with `InvalidMail` and, where a disk refuses, with `OSError`.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Sequence
from typing import Any

import transaction
from zope.interface import implementer

from zope.sendmail import maillog
from zope.sendmail.datamanager import MailDataManager, mails_of
from zope.sendmail.direct import DirectMail
from zope.sendmail.headers import completed, message_bytes
from zope.sendmail.interfaces import (
    IDirectMailDelivery,
    IMailQueue,
    IQueuedMailDelivery,
    IStagedMail,
    type_of_message,
)
from zope.sendmail.maildir import host_name
from zope.sendmail.message import Envelope
from zope.sendmail.queue import open_queue


class AbstractMailDelivery:
    """What both deliveries have in common.

    `transaction_manager` is the one whose current transaction the mail follows; None: the thread's.
    """

    transaction_manager: Any = None

    def __init__(self, *, transaction_manager: Any = None) -> None:
        self.transaction_manager = transaction_manager

    def newMessageId(self) -> str:
        """A Message-Id that no other message has (RFC 5322, 3.6.4), without brackets."""
        moment = time.strftime("%Y%m%d%H%M%S")
        return f"{moment}.{os.getpid()}.{random.randrange(2**63)}@{host_name()}"  # noqa: S311 - unique, not secret

    def send(
        self, fromaddr: str | bytes, toaddrs: str | bytes | Sequence[str | bytes], message: type_of_message
    ) -> str:
        """See `IMailDelivery`."""
        envelope = Envelope.of(fromaddr, toaddrs)
        pieces, message_id = completed(message_bytes(message), self.newMessageId())
        manager = self.transaction_manager or transaction.manager
        if type(self).createDataManager not in _OURS:  # BBB: a subclass that makes its own data managers
            manager.get().join(self.createDataManager(envelope.sender, list(envelope.recipients), b"".join(pieces)))
        else:
            mails_of(self, manager, self._stage, self._what()).add(envelope, *pieces)
        return message_id

    def _stage(self) -> IStagedMail:
        """An empty group for the mails of a transaction."""
        raise TypeError(f"{type(self).__name__} does not say where its mail goes")

    def _what(self) -> str:
        """Names the delivery in the log."""
        return type(self).__name__

    def createDataManager(self, fromaddr: str, toaddrs: Sequence[str], message: bytes) -> Any:
        """BBB: a data manager for one mail."""
        staged = self._stage()
        staged.add(Envelope.of(fromaddr, toaddrs), message_bytes(message))
        return MailDataManager(_publish, (staged,), vote=_prepare, onAbort=staged.abort)


@implementer(IQueuedMailDelivery)
class QueuedMailDelivery(AbstractMailDelivery):
    """See `IQueuedMailDelivery`."""

    _queue: IMailQueue | None = None

    def __init__(self, queuePath: str, *, transaction_manager: Any = None) -> None:
        super().__init__(transaction_manager=transaction_manager)
        self._queuePath = queuePath

    @property
    def queuePath(self) -> str:
        """See `IQueuedMailDelivery`."""
        return self._queuePath

    @property
    def queue(self) -> IMailQueue:
        """The queue at `queuePath`, whatever that is now."""
        if self._queue is None or self._queue.location != os.path.abspath(self._queuePath):
            self._queue = open_queue(self._queuePath)
        return self._queue

    def __getstate__(self) -> dict[str, Any]:
        """What may be pickled: an open queue may not."""
        return {name: value for name, value in self.__dict__.items() if name != "_queue"}

    def _stage(self) -> IStagedMail:
        return self.queue.stage()

    def _what(self) -> str:
        return f"mail for the queue {self._queuePath}"


@implementer(IDirectMailDelivery)
class DirectMailDelivery(AbstractMailDelivery):
    """See `IDirectMailDelivery`."""

    def __init__(self, mailer: Any, *, transaction_manager: Any = None) -> None:
        super().__init__(transaction_manager=transaction_manager)
        self.mailer = mailer

    def _stage(self) -> IStagedMail:
        return DirectMail(self.mailer)

    def _what(self) -> str:
        return f"mail through {type(self.mailer).__name__}"


def _prepare(staged: IStagedMail) -> None:
    staged.prepare()


def _publish(staged: IStagedMail) -> None:
    """Also without a vote before, as some callers do it."""
    staged.prepare()
    staged.commit()


_OURS = (AbstractMailDelivery.createDataManager,)


log = maillog.transaction_log  # BBB

# BBB: in zope.sendmail 3.5 to 7.3 these could be imported from here.
_MOVED = {"QueueProcessorThread": "zope.sendmail.processor", "Maildir": "zope.sendmail.maildir"}


def __getattr__(name: str) -> Any:
    if name in _MOVED:
        from importlib import import_module

        return getattr(import_module(_MOVED[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
