"""Several workers of one processor: none waits for what another one is doing for all."""

from __future__ import annotations

import threading
import time
import unittest
from typing import Any

from zope.sendmail.queue import open_queue, put
from zope.sendmail.testing.contracts import MESSAGE, envelope
from zope.sendmail.tests.support.layers import Databases, in_layer
from zope.sendmail.tests.support.postgresql import shared_server

#: Seconds that a machine with much else to do may take for anything.
_PATIENCE = 300.0

_WAITING = "select from pg_stat_activity where %s = any(pg_blocking_pids(pid))"


class WorkersOfOneProcessor(unittest.TestCase):
    """A database of their own, for a table of it is locked."""

    def setUp(self) -> None:
        from zope.sendmail.queue.postgresql.upkeep import migrate

        self.server = shared_server()
        self.database = self.server.create_database()
        migrate(self.server.url(database=self.database))
        self.queue: Any = open_queue(self.server.url(database=self.database))
        self.addCleanup(self.queue.close)

    def work(self) -> tuple[threading.Thread, list[Any]]:
        """A worker claims; return its thread, and where its leases come to be."""
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.extend(self.queue.claim(1, ahead=8)), daemon=True)
        thread.start()
        return thread, found

    def wait_until_one_waits(self, connection: Any) -> None:
        """Wait until the database lets a processor wait."""
        deadline = time.monotonic() + _PATIENCE
        while not connection.execute(_WAITING, [connection.info.backend_pid]).fetchall():
            self.assertLess(time.monotonic(), deadline, "no processor looks out")
            threading.Event().wait(0.02)

    def test_go_on_while_one_looks_out(self) -> None:
        """For mail of other priorities: the others get what is in reserve meanwhile."""
        put(self.queue, [envelope()] * 8, MESSAGE)
        self.queue.claim(1, ahead=8)
        with self.server.connect(self.database) as connection, connection.transaction():
            connection.execute("lock table zope_sendmail.queue in access exclusive mode")
            self.queue._claims.lines.look_out_soon()
            looking, its = self.work()
            self.wait_until_one_waits(connection)
            self.queue._claims.lines.look_out_soon()  # for the other one, too
            other, found = self.work()
            other.join(_PATIENCE)
            self.assertEqual((len(found), its), (1, []))
        looking.join(_PATIENCE)
        self.assertEqual(len(its), 1)


load_tests = in_layer(Databases)
