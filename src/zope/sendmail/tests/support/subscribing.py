"""Subscribers for one test, who hear nothing of what another test has done.

Events are told by a thread of their own (`zope.sendmail.reporting.notifier`), which may still have to tell what
happened in the test before: it is waited for, before and after.
"""

from __future__ import annotations

import unittest
from collections.abc import Callable
from typing import Any

import zope.event

from zope.sendmail.reporting import notifier

#: Seconds, for a busy machine.
PATIENCE = 300.0


def subscribe_alone(test: unittest.TestCase, *subscribers: Callable[[Any], None]) -> None:
    """Have these subscribers, or none, and no other ones until the end of the test."""
    test.assertTrue(notifier.flush(PATIENCE))
    test.addCleanup(zope.event.subscribers.__setitem__, slice(None), list(zope.event.subscribers))
    test.addCleanup(notifier.flush, PATIENCE)
    zope.event.subscribers[:] = subscribers


def subscribe(test: unittest.TestCase, subscriber: Callable[[Any], object]) -> None:
    """Have a subscriber more until the end of the test."""
    test.assertTrue(notifier.flush(PATIENCE))
    zope.event.subscribers.append(subscriber)
    test.addCleanup(zope.event.subscribers.remove, subscriber)
    test.addCleanup(notifier.flush, PATIENCE)


def hear(test: unittest.TestCase, kind: type) -> list[Any]:
    """Return a list to which each event of a kind is added that is told during the test."""
    heard: list[Any] = []

    def subscriber(event: object) -> None:
        if isinstance(event, kind):
            heard.append(event)

    subscribe(test, subscriber)
    return heard
