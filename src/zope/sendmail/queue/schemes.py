"""Which kind of queue is behind each scheme of a location: ``memory:``, ``spool:``, and what others register.

A kind is imported when a queue of it is opened first, so one that is not used costs nothing and may lack its libraries.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from zope.sendmail.config.location import add_scheme

if TYPE_CHECKING:
    from zope.sendmail.interfaces import IMailQueue

#: What makes the queue of a scheme: a function ``(rest, **options)``, where `rest` is what stands behind the colon, or
#: the place of one, ``package.module:function``.
Opener = Callable[..., "IMailQueue"] | str

_openers: dict[str, Opener] = {
    "memory": "zope.sendmail.queue.memory:open_memory",
    "postgresql": "zope.sendmail.queue.postgresql.opening:open_postgresql",
    "postgres": "zope.sendmail.queue.postgresql.opening:open_postgresql",
    "spool": "zope.sendmail.queue.spool.multiple:open_spool",
}


def register_scheme(scheme: str, opener: Opener) -> None:
    """Let `zope.sendmail.queue.open_queue` open locations of one more scheme.

    :param scheme: without the colon, in lower case.
    :param opener: a function ``(rest, **options)`` that returns an `IMailQueue`, or the place of one,
        ``package.module:function``; `rest` is what stands behind the colon.
    """
    add_scheme(scheme)
    _openers[scheme] = opener


def opener_of(scheme: str) -> Callable[..., IMailQueue]:
    """Return the function that opens a queue of this scheme."""
    opener = _openers[scheme]
    if isinstance(opener, str):
        module, _, name = opener.partition(":")
        found: Any = getattr(import_module(module), name)
        return found  # type: ignore[no-any-return]  # the code that registers a name answers for what it is
    return opener
