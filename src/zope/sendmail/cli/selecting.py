"""Which mails a command means: those that are named, or those that fit the filters."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from zope.sendmail.cli.formatting import clean
from zope.sendmail.cli.terminal import complain
from zope.sendmail.interfaces import IMailQueue, IMailQueueAdmin
from zope.sendmail.lifecycle.selection import matching
from zope.sendmail.lifecycle.states import State
from zope.sendmail.system.clock import Clock


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a command: the queue, what the command line says, and the time."""

    queue: IMailQueue
    options: argparse.Namespace
    clock: Clock

    @property
    def admin(self) -> IMailQueueAdmin:
        """What operators see and do in the queue."""
        admin: IMailQueueAdmin = self.queue.admin
        return admin

    @property
    def now(self) -> float:
        """The time, seconds since the epoch."""
        return self.clock.time()


def filters(call: Call, states: Sequence[State] = ()) -> dict[str, Any]:
    """Return the arguments of `IMailQueueAdmin.mails`; `states` are meant if the command line names none."""
    options, now = call.options, call.now
    chosen: dict[str, Any] = {
        "states": [State(each) for each in options.state or ()] or list(states),
        "sender": options.sender,
        "recipient": options.recipient,
        "reply": options.reply,
        "relay": options.relay,
    }
    if options.older_than is not None:
        chosen["before"] = now - options.older_than
    if options.younger_than is not None:
        chosen["after"] = now - options.younger_than
    return chosen


def resolve(queue: IMailQueue, given: Sequence[str]) -> tuple[list[str], int]:
    """Return the whole names, and how many of the given ones mean no mail or several; these are complained about.

    :param given: names, unambiguous parts of names as `matching` understands them, or Message-Ids.
    """
    found = matching([text for text in given if not _is_staged(text)], queue.admin.names())
    names: list[str] = []
    missing = 0
    for text in given:
        if _is_staged(text):
            names.append(text)
            continue
        candidates = found[text] or list(_with_message_id(queue, text)) or _staged(queue, text)
        if len(candidates) == 1:
            names += candidates
            continue
        missing += 1
        if candidates:
            some = ", ".join(clean(each) for each in candidates[:3])
            complain(f"{clean(text)} is ambiguous: {some}{', ...' if len(candidates) > 3 else ''}", 1)
        else:
            complain(f"there is no mail {clean(text)!r} in the queue; it may have been sent in the meantime", 1)
    return list(dict.fromkeys(names)), missing


def _is_staged(text: str) -> bool:
    """Return whether a name is that of a staged mail, which is always given in full."""
    return text.startswith("tmp/")


def _staged(queue: IMailQueue, text: str) -> Sequence[str]:
    """Return the names of the staged mails with this whole name, or this Message-Id."""
    return [
        mail.name
        for mail in queue.admin.mails((State.STAGED,))
        if text == mail.name or ("@" in text and mail.message_id == bare_message_id(text))
    ]


def bare_message_id(message_id: str) -> str:
    """Return a Message-Id without its brackets."""
    return message_id.strip().removeprefix("<").removesuffix(">")


def _with_message_id(queue: IMailQueue, text: str) -> Sequence[str]:
    """Return the names of the mails with this Message-Id; what has no ``@`` is none."""
    return queue.status(bare_message_id(text)).names if "@" in text else ()
