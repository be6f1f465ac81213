"""What a dead processor left is known, whatever happens to the one that takes it over before that is written down."""

from __future__ import annotations

import os
import subprocess
import sys
import unittest
from typing import Any
from unittest import mock

from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.queue import open_queue, put
from zope.sendmail.queue.postgresql.database import Connections
from zope.sendmail.tests.queue.postgresql import test_liveness
from zope.sendmail.tests.support.layers import Databases, in_layer
from zope.sendmail.tests.support.postgresql import shared_server

#: A processor that takes mail over when it is told: says the doubts in its record, and its own trouble.
_PROGRAM = """
import sys
from zope.sendmail.queue import open_queue
queue = open_queue(sys.argv[1])
assert queue.claim() == []
print("ready", flush=True)
sys.stdin.readline()
leases = []
while not leases:
    try:
        leases = queue.claim()
    except OSError as error:
        print(type(error).__name__, flush=True)
print(leases[0].record.unknowns, flush=True)
sys.stdin.readline()
"""

_ENDED = "select count(*) from zope_sendmail.processor where ended is not null and pid = %s"


class AnHeir(test_liveness.Fixture):
    """Has claimed a mail with which another one died while sending, and stands before what that one left."""

    def setUp(self) -> None:
        super().setUp()
        self.door: Any = self.enterContext(self.server().connect())
        self.heir = self.start_heir()
        self.put()
        dead = self.start("intend")
        dead.kill()
        self.eventually(lambda: self.door.execute(_ENDED, [dead.pid]).fetchone()[0])
        self.door.execute("begin")
        self.door.execute("lock table zope_sendmail.attempt in access exclusive mode")
        assert self.heir.stdin is not None
        self.heir.stdin.write("\n")
        self.heir.stdin.flush()
        self.seen: list[int] = []
        self.wait_until_it_asks()

    def start_heir(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, self.url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        self.assertEqual(self.said(process), "ready")
        return process

    def said(self, process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        return process.stdout.readline().strip()

    def wait_until_it_asks(self) -> None:
        """Once more what was left."""
        self.seen.append(self.eventually(self.asking))

    def asking(self) -> int:
        """The backend that asks what was left, if it did not do so before."""
        with self.server().connect() as connection:
            rows = connection.execute(
                "select pid from pg_stat_activity where wait_event_type = 'Lock' and query like '%%phase > 0%%'"
                " and pid <> all(%s)",
                [self.seen],
            ).fetchall()
        return int(rows[0][0]) if rows else 0

    def kill(self) -> None:
        self.heir.kill()
        self.heir.wait()
        self.door.execute("rollback")

    def test_that_is_killed_leaves_the_doubt_to_the_next_one(self) -> None:
        """Which is told of it."""
        self.kill()
        lease = self.taken()
        self.assertEqual((lease.record.unknowns, lease.inherited is None), (1, False))

    def test_that_is_killed_leaves_the_doubt_to_operators(self) -> None:
        """Whatever they do with the mail."""
        self.kill()
        other: Any = open_queue(self.server().url())  # its processor finds out
        self.addCleanup(other.close)
        other.claim()
        self.eventually(lambda: self.door.execute(_ENDED, [self.heir.pid]).fetchone()[0])
        [name] = self.queue.admin.names()
        self.queue.admin.retry(name)
        shown = self.queue.admin.show(name)
        self.assertEqual([record.unknowns for record in shown.history], [1, 1])

    def test_that_hears_no_answer_asks_again(self) -> None:
        """Its connections break, one after the other."""
        for _ in range(2):
            self.door.execute("select pg_terminate_backend(%s)", [self.seen[-1]])
            self.wait_until_it_asks()
        self.assertEqual(self.said(self.heir), "QueueTrouble")
        self.door.execute("rollback")
        self.assertEqual(self.said(self.heir), "1")


class ARowThatWaitsAlthoughItsMailIsHeld(unittest.TestCase):
    """As an earlier build left it where a processor had died with the mail."""

    def setUp(self) -> None:
        self.queue: Any = open_queue(shared_server().url())
        self.addCleanup(self.queue.close)
        put(self.queue, [Envelope("sender@example.org", ("someone@example.org",))] * 2, b"Subject: x\n\n")

        #: Looks from the beginning.
        self.other: Any = open_queue(self.queue.location)
        self.addCleanup(self.other.close)

    def leave(self, state: State) -> None:
        """Let one of the mails have a record that its row does not follow."""
        [lease] = self.queue.claim(1)
        lease.settle(Record(state, note="a processor died three times"))
        with shared_server().connect() as connection:
            connection.execute("update zope_sendmail.mail set state = 0, due = null where id = %s", [lease.id])

    def test_is_held_when_its_claim_is_given_back(self) -> None:
        self.leave(State.HELD)
        for lease in self.other.claim(2):
            lease.release()
        self.assertEqual(self.other.admin.count(), {State.READY: 1, State.HELD: 1})
        self.assertEqual([lease.record.state for lease in self.queue.claim(2)], [State.READY])

    def test_is_rejected_if_that_is_what_its_record_says(self) -> None:
        self.leave(State.REJECTED)
        for lease in self.other.claim(2):
            lease.release()
        self.assertEqual(self.other.admin.count(), {State.READY: 1, State.REJECTED: 1})

    def test_costs_other_mail_nothing(self) -> None:
        """It is not asked for: its record is at hand."""
        queue = self.queue
        with mock.patch.object(Connections, "execute", autospec=True, side_effect=Connections.execute) as execute:
            self.assertEqual(len(queue.claim(2)), 2)
        self.assertNotIn("mend", [call.args[1] for call in execute.mock_calls])


load_tests = in_layer(Databases)
