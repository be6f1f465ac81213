"""How a mail gets into the spool of a configuration: with the transaction, or at once.

There is one open queue for each spool in a process. Fails with `InvalidMail` before anything is written, and with
`OSError` where the disk refuses.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

from transaction import TransactionManager

from zope.sendmail.delivery import AbstractMailDelivery
from zope.sendmail.errors import InvalidMessage, telling_refusals
from zope.sendmail.interfaces import IMailQueue, IStagedMail
from zope.sendmail.queue import open_queue
from zope.sendmail.submission import QueueSubmission

if TYPE_CHECKING:
    from zope.sendmail.maildrop.config import Config

_open: dict[Hashable, SpoolDelivery] = {}


class SpoolDelivery(AbstractMailDelivery):
    """An `IMailDelivery` into an open queue."""

    def __init__(self, queue: IMailQueue, *, transaction_manager: Any = None) -> None:
        super().__init__(transaction_manager=transaction_manager)
        self.queue = queue

    def send_at_once(self, sender: str | bytes, recipients: Sequence[str | bytes], message: str | bytes) -> str:
        """Send as `send` does, but at once, whatever becomes of the caller's transaction."""
        own = TransactionManager()
        with own:
            return SpoolDelivery(self.queue, transaction_manager=own).send(sender, recipients, message)

    def _stage(self) -> IStagedMail:
        with telling_refusals(self.queue.location):
            return QueueSubmission(self.queue.stage(), self.queue, self.queue.location)

    def _what(self) -> str:
        return f"mail for {self.queue.location}"


def delivery_to(config: Config) -> SpoolDelivery:
    """Return the delivery into the spool of a configuration.  Raises `OSError` if there is no way in."""
    options = config.queue_options
    key = (config.location, *options.values())
    delivery = _open.get(key)
    if delivery is None:
        delivery = _open.setdefault(key, SpoolDelivery(open_queue(config.location, **options)))
    return delivery


#: A line end, unless the line goes on with a blank (RFC 5322, 2.2.3), or nothing comes behind it.
_LINE_END = re.compile(r"(?:\r\n?|\n)(?![ \t\r\n]|\Z)|\0")


def refuse_line_ends(name: str, value: object) -> None:
    """Refuse a text for a header that would be several: what stands behind its line end would be headers, too.

    :param name: the argument, for the error.
    :param value: a text, or several.
    :raises InvalidMessage: which names the argument.
    """
    texts = value if isinstance(value, (list, tuple, set)) else [value]
    for each in texts:
        text = each.decode("latin-1") if isinstance(each, bytes) else each
        if isinstance(text, str) and _LINE_END.search(text):
            raise InvalidMessage(f"{name} {text!r} has a line end in it; what stands behind it would be headers")
