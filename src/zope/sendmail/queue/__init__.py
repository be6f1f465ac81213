"""Where mail waits between commit and relay: one contract (`IMailQueue`), several implementations."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zope.sendmail.interfaces import IMailQueue


def open_queue(location: str, **options: Any) -> IMailQueue:
    """The queue at `location`: a path, ``memory:``, or ``spool:`` with a directory of MaildropHost's or several, with
    ``;`` between them.  `options` are those of its class.
    """
    if location == "memory:":
        from zope.sendmail.queue.memory import MemoryQueue

        return MemoryQueue(**options)
    if location.startswith("spool:"):
        from zope.sendmail.queue.spool import open_spool

        return open_spool(location.removeprefix("spool:"), **options)
    from zope.sendmail.queue.maildir import MaildirQueue

    return MaildirQueue(location, **options)


# BBB: in zope.sendmail 3.5 to 7.3 this was a module with the processor and the console script in it.
_MOVED = {
    "QueueProcessorThread": "zope.sendmail.processor",
    "ConsoleApp": "zope.sendmail.cli",
    "run": "zope.sendmail.cli",
    "boolean": "zope.sendmail.cli",
    "string_or_none": "zope.sendmail.cli",
    "MAX_SEND_TIME": "zope.sendmail.queue.locks",
    "SMTPMailer": "zope.sendmail.mailer",
    "Maildir": "zope.sendmail.maildir",
}


_os_link = os.link


def __getattr__(name: str) -> Any:
    if name in _MOVED:
        from importlib import import_module

        return getattr(import_module(_MOVED[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
