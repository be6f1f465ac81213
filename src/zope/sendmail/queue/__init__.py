"""Where mail waits between commit and relay: one contract (`IMailQueue`), several implementations."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from zope.sendmail.config.location import MEMORY, SPOOL, check_location, directories_of, is_maildir

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zope.sendmail.interfaces import IMailQueue
    from zope.sendmail.message.envelope import Envelope
    from zope.sendmail.message.pieces import Piece

__all__ = ["directories_of", "is_maildir", "open_queue", "put", "recognized"]


def open_queue(location: str, **options: Any) -> IMailQueue:
    """Return the queue at a location.

    :param location: a path, ``memory:``, or ``spool:`` with a directory of MaildropHost's or several, with ``;``
        between them.
    :param options: keywords of its class.
    :raises InvalidLocation: for any other scheme.
    """
    location = check_location(location)
    if location == MEMORY:
        from zope.sendmail.queue.memory import MemoryQueue

        return MemoryQueue(**options)
    if location.startswith(SPOOL):
        from zope.sendmail.queue.spool.multiple import open_spool

        return open_spool(location.removeprefix(SPOOL), **options)
    from zope.sendmail.queue.maildir.queue import MaildirQueue

    return MaildirQueue(location, **options)


def put(queue: IMailQueue, envelopes: Iterable[Envelope], *message: Piece) -> None:
    """Commit a mail for each envelope, apart from any transaction: all of them, or none.  Raises `OSError`."""
    staged = queue.stage()
    try:
        for envelope in envelopes:
            staged.add(envelope, *message)
        staged.prepare()
        staged.commit()
    except BaseException:
        staged.abort()  # else the queue would reveal it later, and who called may put it there again
        raise


def recognized(path: str) -> str:
    """The location of what lies at `path`: that of a spool if it is one whose queue has been used, else `path`."""
    if is_maildir(path) and not os.path.isdir(os.path.join(path, "new")):
        from zope.sendmail.queue.spool.dropbox import PRIVATE

        if os.path.isdir(os.path.join(path, PRIVATE, "new")):
            return SPOOL + path
    return path


# BBB: in zope.sendmail 3.5 to 7.3 this was a module with the processor and the console script in it.
_MOVED = {
    "QueueProcessorThread": "zope.sendmail.processor.thread",
    "ConsoleApp": "zope.sendmail.cli.app",
    "run": "zope.sendmail.cli.app",
    "boolean": "zope.sendmail.cli.app",
    "string_or_none": "zope.sendmail.cli.app",
    "MAX_SEND_TIME": "zope.sendmail.queue.maildir.locks",
    "SMTPMailer": "zope.sendmail.mailer",
    "Maildir": "zope.sendmail.maildir",
}


_os_link = os.link


def __getattr__(name: str) -> Any:
    if name in _MOVED:
        from importlib import import_module

        return getattr(import_module(_MOVED[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
