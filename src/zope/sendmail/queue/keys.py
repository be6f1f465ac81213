"""The key of a mail: which one is free, and how long its user is waited for.

A key is taken by a committed mail, in use by a transaction that may still commit, or free.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from zope.sendmail.errors import InvalidMessage, KeyInUse
from zope.sendmail.message.headers import message_id
from zope.sendmail.message.pieces import Piece, beginning
from zope.sendmail.system.clock import Clock

#: Seconds for which another transaction is waited for, and between two looks at it.
PATIENCE, _PAUSE = 2.0, 0.02

#: So much of a message is looked at for its Message-Id.
_HEAD = 64 * 1024

_T = TypeVar("_T")


def in_use(key: str) -> KeyInUse:
    """Return what is said of a key that another transaction may still take."""
    return KeyInUse(
        f"another transaction has sent a mail with the key {key!r}, and has not ended for {PATIENCE:.0f} s; try this "
        "one again"
    )


def patiently(clock: Clock, attempt: Callable[[], _T]) -> _T:
    """Return what `attempt` returns; while it raises `KeyInUse`, wait for a moment and try again.

    :raises KeyInUse: the other transaction did not end in time.
    """
    deadline = clock.monotonic() + PATIENCE
    while True:
        try:
            return attempt()
        except KeyInUse:
            if clock.monotonic() >= deadline:
                raise
        clock.sleep(_PAUSE)


def id_of(message: tuple[Piece, ...]) -> str:
    """Return the Message-Id of a message in pieces, or the empty string."""
    try:
        return message_id(beginning(message, _HEAD))
    except InvalidMessage:
        return ""
