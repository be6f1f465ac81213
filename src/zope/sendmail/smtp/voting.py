"""What the ``vote`` of a mailer is about: the relay, as in zope.sendmail 3.5 to 7.3, or each envelope besides.

Classes around `SMTPMailer` call its vote without knowing what for; so direct delivery, which calls them, says it here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

_about_relay = ContextVar("_about_relay", default=False)


@contextlib.contextmanager
def voting_about_relay() -> Iterator[None]:
    """Let `SMTPMailer.vote` ask about no recipient in this block, whatever class or wrapper calls it."""
    before = _about_relay.set(True)
    try:
        yield
    finally:
        _about_relay.reset(before)


def is_about_relay() -> bool:
    """Say whether a vote is about the relay only."""
    return _about_relay.get()
