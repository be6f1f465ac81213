"""Which keys the mails of a queue in a database have: a row for each, written together with its mail.

A row whose mail is staged is in use; what a process left that died is free, and its mail cannot be released any more
once another one has the key.  Fails with `KeyTaken`, `KeyInUse`, and `QueueError` where the database refuses.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from zope.sendmail.errors import KeyTaken
from zope.sendmail.message.terms import Terms
from zope.sendmail.queue.keys import in_use
from zope.sendmail.system.hostname import host_name

#: Seconds after which a staged mail is in doubt: its transaction can hardly live.
_LONG = 3600.0

#: Executes a statement by its name; returns its rows.
Execute = Callable[[str, dict[str, Any]], Sequence[Sequence[Any]]]


class KeyedMail(Protocol):
    """A mail that is written."""

    @property
    def id(self) -> uuid.UUID:
        """Its name."""

    @property
    def message_id(self) -> str:
        """Its Message-Id."""

    @property
    def terms(self) -> Terms:
        """What its sender asked for."""


def check(execute: Execute, queue: int, key: str, now: float) -> list[uuid.UUID]:
    """Return if a key is free.

    :param now: seconds since the epoch.
    :returns: the mail that has it, which is given up, or nothing.
    :raises KeyTaken: a committed mail has it.
    :raises KeyInUse: that of another transaction has it, which may commit.
    """
    for mail, message_id, until, is_staged, maker, age in execute("key", {"queue": queue, "key": key}):
        if is_staged:
            if age < _LONG and not _is_dead(maker):
                raise in_use(key)
            return [mail if isinstance(mail, uuid.UUID) else uuid.UUID(str(mail))]
        if now < until:
            raise KeyTaken(key, message_id)
    return []


def take(execute: Execute, queue: int, mail: KeyedMail, now: float) -> None:
    """Let a mail have its key, in the transaction that is open.

    :param now: seconds since the epoch.
    :raises KeyTaken: another mail has it.
    :raises KeyInUse: that of another transaction has it.
    """
    terms = mail.terms
    dead = check(execute, queue, terms.key, now)
    values = {
        "queue": queue,
        "key": terms.key,
        "mail": str(mail.id),
        "message_id": mail.message_id,
        "until": terms.key_until,
        "dead": [str(each) for each in dead],
        "now": now,
    }
    if not execute("take_key", values):  # another one was faster
        check(execute, queue, terms.key, now)
        raise in_use(terms.key)


def is_anothers(execute: Execute, queue: int, key: str, mail: uuid.UUID) -> bool:
    """Return whether another mail has the key of this one."""
    return any(str(row[0]) != str(mail) for row in execute("key", {"queue": queue, "key": key}))


def _is_dead(maker: str | None) -> bool:
    """Return whether the process that staged a mail is known to be dead: one of this host, by its number."""
    host, _, pid = (maker or "").rpartition(":")
    if host != host_name() or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        return False
    return False
