"""What every `IMailQueue` can do: a suite that each implementation passes, with a module for each topic.

Use it as a mixin of a `unittest.TestCase` and say how a queue is made::

    class MyQueueTests(QueueContract, unittest.TestCase):
        def make_queue(self): ...

A queue that outlives its process also says how the same queue is opened a second time (``open_again``).
"""

from __future__ import annotations

from zope.sendmail.testing.contracts.asking import AskingContract
from zope.sendmail.testing.contracts.claiming import ClaimingContract
from zope.sendmail.testing.contracts.handover import HandOverContract
from zope.sendmail.testing.contracts.keeping import KeyContract
from zope.sendmail.testing.contracts.operating import OperatingContract
from zope.sendmail.testing.contracts.sharing import SharingContract
from zope.sendmail.testing.contracts.situation import (
    DEADLINE,
    LATER,
    MESSAGE,
    NEVER,
    OK,
    SCHEDULE,
    ManualClock,
    envelope,
)
from zope.sendmail.testing.contracts.suppressing import SuppressingContract


class QueueContract(
    HandOverContract,
    ClaimingContract,
    OperatingContract,
    SharingContract,
    AskingContract,
    KeyContract,
    SuppressingContract,
):
    """The promises of `IMailQueue`."""


__all__ = [
    "DEADLINE",
    "LATER",
    "MESSAGE",
    "NEVER",
    "OK",
    "SCHEDULE",
    "ManualClock",
    "QueueContract",
    "envelope",
]
