"""A standby takes over that lacks the last second: what is promised then, and that the doctor warns of it before."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import unittest
from typing import Any

from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.states import State
from zope.sendmail.queue import open_queue, put
from zope.sendmail.testing.contracts import MESSAGE, envelope
from zope.sendmail.tests.support.layers import Faults, in_layer
from zope.sendmail.tests.support.postgresql import Server

#: A processor that sends one mail, says which, and waits to be killed.
_PROGRAM = """
import sys
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.states import State
from zope.sendmail.queue import open_queue
queue = open_queue(sys.argv[1])
[lease] = queue.claim()
lease.open().read()
lease.intend()
lease.settle(Record(State.SENT))
queue.admin.count()
print(lease.name, flush=True)
sys.stdin.readline()
"""

_PATIENCE = 300.0


class AnAsynchronousStandby(unittest.TestCase):
    """Two servers on this machine, with streaming replication."""

    def setUp(self) -> None:
        from zope.sendmail.queue.postgresql.upkeep import migrate

        self.primary = Server(wal_level="replica", max_wal_senders=5)
        self.addCleanup(self.primary.stop)
        migrate(self.primary.url())
        self.standby = self.primary.standby()
        self.addCleanup(self.standby.stop)
        hosts = f"{self.primary.directory},{self.standby.directory}"
        self.url = f"postgresql://postgres@/postgres?host={hosts}&queue=q"
        self.queue: Any = open_queue(self.url)
        self.addCleanup(self.queue.close)

    def fail_over(self) -> None:
        """The primary dies, and the standby takes over."""
        assert self.primary.process is not None
        self.primary.process.kill()
        self.primary.process.wait()
        self.standby.start()
        with self.standby.connect() as connection:
            connection.execute("select pg_promote(true, 60)")

    def eventually(self, look: Any) -> Any:
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            try:
                if found := look():
                    return found
            except OSError:  # the servers change places
                pass
            threading.Event().wait(0.1)
        return self.fail("nothing came back")

    def send(self) -> str:
        """Another process sends a mail, and dies."""
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        words = [sys.executable, "-c", _PROGRAM, self.url]
        with subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        ) as process:
            assert process.stdout is not None
            name = process.stdout.readline().strip()
            process.kill()
        return name

    def test_is_told_of_by_the_doctor(self) -> None:
        """Before anything happens, with the setting that cures it."""
        self.standby.wait_for(self.primary)
        put(self.queue, [envelope()], MESSAGE)
        told = [each for each in self.queue.admin.examine() if "synchronous_standby_names" in each.cure]
        self.assertEqual([each.severity for each in told], ["warning"])

    def test_loses_the_last_second_and_no_more(self) -> None:
        """What was committed then is gone; what the living sent is withdrawn; what a dead one sent goes again."""
        put(self.queue, [envelope()] * 3, MESSAGE)
        names = list(self.queue.admin.names())
        self.standby.wait_for(self.primary)
        self.standby.shut_down()  # from here on all is lost
        [lease] = self.queue.claim()
        lease.intend()
        lease.settle(Record(State.SENT))
        self.queue.admin.count()
        killed = self.send()
        put(self.queue, [envelope()], MESSAGE)
        self.fail_over()
        found: dict[str, Any] = {}

        def all_are_back() -> bool:
            found.update((each.name, each) for each in self.queue.claim(9))
            return len(found) >= 2

        self.eventually(all_are_back)
        self.assertEqual(set(found), set(names) - {lease.name})
        self.assertEqual(found[killed].record.unknowns, 0)
        self.assertEqual(self.queue.claim(9), [])

    def test_leaves_no_mail_with_one_that_gave_it_back(self) -> None:
        """Though that was in the last second, and the claim before it."""
        put(self.queue, [envelope()], MESSAGE)
        [lease] = self.queue.claim()
        self.standby.wait_for(self.primary)
        self.standby.shut_down()
        lease.release()
        self.queue.admin.count()
        self.fail_over()
        other: Any = open_queue(self.url)
        self.addCleanup(other.close)
        [found] = self.eventually(other.claim)
        self.assertEqual((found.name, found.record.unknowns), (lease.name, 0))

    def test_takes_no_mail_from_the_living(self) -> None:
        """What they claimed in the last second is theirs, however long they take to send it."""
        put(self.queue, [envelope()] * 3, MESSAGE)
        self.standby.wait_for(self.primary)
        self.standby.shut_down()
        leases = self.queue.claim(2)
        self.fail_over()
        other: Any = open_queue(self.url)
        self.addCleanup(other.close)
        found = self.eventually(lambda: other.claim(9))
        self.assertEqual(len(found), 1)
        self.assertEqual(len({lease.name for lease in (*leases, *found)}), 3)
        for lease in (*leases, *found):
            lease.intend()
            lease.settle(Record(State.SENT))
        self.assertEqual((self.queue.admin.count(), other.admin.count()), ({}, {}))


load_tests = in_layer(Faults)
