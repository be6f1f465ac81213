"""Mail that is committed at once, apart from any transaction: one commit, also when the connection breaks in it."""

from __future__ import annotations

import unittest
from dataclasses import replace
from typing import Any

from zope.sendmail.errors import QueueError
from zope.sendmail.message.terms import Terms
from zope.sendmail.queue import open_queue, put
from zope.sendmail.testing.contracts import MESSAGE, envelope
from zope.sendmail.tests.support.layers import Databases, in_layer
from zope.sendmail.tests.support.postgresql import shared_server


class AConnectionThatBreaks(unittest.TestCase):
    """Before the commit, or behind it and before the answer."""

    def setUp(self) -> None:
        self.server = shared_server()
        self.queue: Any = open_queue(self.server.url())
        self.addCleanup(self.queue.close)
        put(self.queue, [envelope()], MESSAGE)

    def break_at_commit(self, *, behind: bool, times: int = 1) -> None:
        """Let the next transactions of the queue's connections end so."""
        import psycopg

        use, left = self.queue._connections.use, [times]

        class Breaking:
            def __init__(self) -> None:
                self.lent = use()

            def __enter__(self) -> Any:
                connection = self.lent.__enter__()
                if left[0] and not behind:
                    left[0] -= 1
                    connection.close()
                return connection

            def __exit__(self, *error: Any) -> Any:
                self.lent.__exit__(*error)
                if left[0] and behind and error[0] is None:
                    left[0] -= 1
                    broken = psycopg.OperationalError("the connection broke")
                    raise QueueError("broken") from broken
                return None

        self.queue._connections.use = Breaking

    def test_commits_once(self) -> None:
        """One mail, several, a large one."""
        for behind in (False, True):
            for count, message in ((1, MESSAGE), (3, MESSAGE), (1, MESSAGE + b"x" * 600_000)):
                before = self.queue.admin.count()["ready"]
                self.break_at_commit(behind=behind)
                put(self.queue, [envelope()] * count, message)
                del self.queue._connections.use
                self.assertEqual(self.queue.admin.count()["ready"], before + count, (behind, count))

    def test_says_so_if_it_does_not_come_back(self) -> None:
        """Nothing is in the queue then."""
        self.break_at_commit(behind=False, times=2)
        with self.assertRaises(QueueError):
            put(self.queue, [envelope()] * 2, MESSAGE)
        del self.queue._connections.use
        self.assertEqual(self.queue.admin.count(), {"ready": 1})


class IdleConnectionsThatBroke(unittest.TestCase):
    """As after the server has been started anew, or where it ends what is idle (``idle_session_timeout``)."""

    def setUp(self) -> None:
        self.server = shared_server()
        self.queue: Any = open_queue(self.server.url())
        self.addCleanup(self.queue.close)

    def break_idle(self) -> None:
        """Let the server end each connection that the queue keeps."""
        put(self.queue, [envelope()], MESSAGE)
        with self.server.connect() as connection:
            for each in self.queue._connections._idle:
                connection.execute("select pg_terminate_backend(%s, 10000)", [each.info.backend_pid])

    def test_cost_a_transaction_nothing(self) -> None:
        """One mail, several, a large one, one with a key."""
        keyed = replace(envelope(), terms=Terms(key="key", key_until=4e9))
        for each, count, message in (
            (envelope(), 1, MESSAGE),
            (envelope(), 3, MESSAGE),
            (envelope(), 1, MESSAGE + b"x" * 600_000),
            (keyed, 1, MESSAGE),
        ):
            with self.subTest(count=count, size=len(message), key=each.terms.key):
                self.break_idle()
                staged, before = self.queue.stage(), self.queue.admin.count()["ready"]
                self.break_idle()
                for _ in range(count):
                    staged.add(each, message)
                self.break_idle()
                staged.prepare()
                staged.commit()
                self.assertEqual(self.queue.admin.count()["ready"], before + count + 2)


load_tests = in_layer(Databases)
