"""Where mail waits between commit and relay: one contract (`IMailQueue`), several implementations."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from zope.sendmail.config.location import (
    SPOOL,
    absolute as absolute,
    directories_of as directories_of,
    is_maildir as is_maildir,
    scheme_of,
)
from zope.sendmail.queue.schemes import opener_of, register_scheme as register_scheme

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zope.sendmail.interfaces import IMailQueue
    from zope.sendmail.message.envelope import Envelope
    from zope.sendmail.message.pieces import Piece


def open_queue(location: str, **options: Any) -> IMailQueue:
    """Return the queue at `location`.  Opens nothing yet, and makes nothing.

    :param location: the path of a Maildir; ``memory:``; ``spool:`` with a directory of MaildropHost's;
        ``postgresql://user@host/database?queue=name``; of the last two, several with ``;``
        between them; or what else was registered with ``register_scheme``.
    :param options: those of the queue's class, such as ``schedule``.
    :raises InvalidLocation: if no queue can be there; a password in `location` is not repeated.
    """
    scheme = scheme_of(location)
    if scheme:
        return opener_of(scheme)(location.partition(":")[2], **options)
    from zope.sendmail.queue.maildir.queue import MaildirQueue

    return MaildirQueue(location, **options)


def put(queue: IMailQueue, envelopes: Iterable[Envelope], *message: Piece) -> None:
    """Commit a mail for each envelope, apart from any transaction: all of them, or none.

    What a disk refuses behind the instant of success is logged, and done at the queue's next use in this process.

    :raises OSError: if the queue refuses; nothing is in it then.
    """
    envelopes = list(envelopes)
    at_once: Any = getattr(queue, "put", None)  # one commit, where nothing has to be staged for that
    if at_once is not None and not any(envelope.terms.key for envelope in envelopes):
        at_once(envelopes, *message)
        return
    staged = queue.stage()
    try:
        for envelope in envelopes:
            staged.add(envelope, *message)
        staged.prepare()
        staged.commit()
    except BaseException as error:
        staged.abort()  # else the queue would reveal it later, and the caller may put it there again
        if not isinstance(error, OSError) or not getattr(staged, "is_revealed", False):
            raise
        from zope.sendmail.reporting import maillog

        maillog.finish_failed(f"{len(envelopes)} mails, which are in the queue", error)


def recognized(path: str) -> str:
    """Return the location of what lies at `path`: that of a spool if its queue has been used, else `path` itself."""
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
