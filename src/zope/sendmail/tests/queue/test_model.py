"""A queue on the disk and the queue in memory do the same, whatever is done with them, and in which order."""

from __future__ import annotations

from typing import Any

from zope.sendmail.queue.maildir.queue import MaildirQueue
from zope.sendmail.testing.contracts.situation import SCHEDULE, ManualClock
from zope.sendmail.tests.support.layers import Properties, in_layer
from zope.sendmail.tests.support.twoqueues import STEPS, TwoQueues


def _maildir(path: str, clock: ManualClock) -> Any:
    return MaildirQueue(path, schedule=SCHEDULE, clock=clock)


class MaildirAndModel(TwoQueues):
    make = staticmethod(_maildir)


AMaildir: Any = MaildirAndModel.TestCase
AMaildir.settings = STEPS


load_tests = in_layer(Properties)
