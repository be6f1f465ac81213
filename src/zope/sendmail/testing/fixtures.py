"""Fixtures for pytest, which finds them by itself where zope.sendmail is installed.

``mail_outbox`` keeps what a program sends; ``mail_relay`` is a relay on a real socket, of which a test decides how it
answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from zope.sendmail.testing.outbox import Outbox
    from zope.sendmail.testing.relay import Relay


@pytest.fixture
def mail_outbox() -> Outbox:
    """Return an empty `zope.sendmail.testing.outbox.Outbox`."""
    from zope.sendmail.testing.outbox import Outbox  # only where a test asks for it

    return Outbox()


@pytest.fixture
def mail_relay() -> Iterator[Relay]:
    """Yield a `zope.sendmail.testing.relay.Relay` that listens at ``host`` and ``port``."""
    from zope.sendmail.testing.relay import Relay

    with Relay() as relay:
        yield relay
