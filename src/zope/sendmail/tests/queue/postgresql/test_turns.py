"""What a processor knows of priorities while its workers look, take and commit at the same time.

What happens in between is done within the statement that it happens beside: no thread, no wait.
"""

from __future__ import annotations

import unittest
from collections.abc import Callable
from typing import Any
from unittest import mock

from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.terms import Priority, Terms
from zope.sendmail.queue import open_queue, put
from zope.sendmail.queue.postgresql.database import Connections
from zope.sendmail.queue.postgresql.mailsource import HIGH
from zope.sendmail.tests.support.layers import Databases, in_layer
from zope.sendmail.tests.support.postgresql import shared_server


class WhileAWorkerAsks(unittest.TestCase):
    """There is mail of low priority only, and one of it is in hand."""

    def setUp(self) -> None:
        self.queue: Any = open_queue(shared_server().url())
        self.addCleanup(self.queue.close)
        for _ in range(5):
            self.put(Priority.LOW)
        [self.in_hand] = self.queue.claim(1)

    def put(self, priority: Priority) -> None:
        put(self.queue, [Envelope("s@example.org", ("r@example.org",), terms=Terms(priority=priority))], b"\ntext\n")

    def behind(self, statement: str, do: Callable[[], object], **having: Any) -> None:
        """Let something happen once, between the server's answer to a statement and our hearing it."""
        execute, left = Connections.execute, [do]

        def executing(connections: Connections, name: str, /, **parameters: Any) -> list[Any]:
            rows = execute(connections, name, **parameters)
            if name == statement and having.items() <= parameters.items() and left:
                left.pop()()
            return rows

        self.enterContext(mock.patch.object(Connections, "execute", executing))

    def claim(self) -> Priority:
        [lease] = self.queue.claim(1)
        priority: Priority = lease.terms.priority
        return priority

    def test_what_there_is_high_mail_may_come(self) -> None:
        """The answer does not know of it; what committed it does."""
        self.behind("outlook", lambda: self.put(Priority.HIGH))
        self.assertIs(self.claim(), Priority.HIGH)

    def test_for_high_mail_some_may_come(self) -> None:
        """That there was none does not say that there is none."""
        self.behind("outlook", self.queue._claims.lines.hurry)
        self.behind("claim_fresh", lambda: self.put(Priority.HIGH), priority=HIGH)
        self.claim()
        self.assertTrue(self.queue.has_before(Priority.NORMAL))

    def test_what_there_is_nothing_goes_before_low_mail(self) -> None:
        """That usual mail is looked for does not say that there is some: so no second one is taken ahead."""
        found: list[bool] = []
        self.behind("outlook", lambda: found.append(self.queue.has_before(Priority.LOW)))
        self.behind("claim_fresh", lambda: found.append(self.queue.has_before(Priority.LOW)))
        self.claim()
        self.assertEqual(found, [False, False])

    def test_usual_mail_goes_before_low_mail_once_some_was_found(self) -> None:
        self.put(Priority.NORMAL)
        self.put(Priority.NORMAL)
        self.assertIs(self.claim(), Priority.NORMAL)
        self.assertTrue(self.queue.has_before(Priority.LOW))


load_tests = in_layer(Databases)
