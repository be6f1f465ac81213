"""Which processors live: one that is killed, stopped or cut off loses its mails, and what it may have sent is told.

Real processes; waits are for what the database says, never for a time.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import signal
import subprocess
import sys
import threading
import unittest
from collections.abc import Callable
from typing import Any

from zope.sendmail.errors import LeaseLost, QueueTrouble
from zope.sendmail.lifecycle.outcome import Answer, Outcome, Reply
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.relaystate import ProcessorState
from zope.sendmail.lifecycle.retry import OnUnknown, Schedule
from zope.sendmail.lifecycle.states import State
from zope.sendmail.queue import put
from zope.sendmail.testing.contracts import MESSAGE, envelope
from zope.sendmail.tests.support.layers import Databases, in_layer
from zope.sendmail.tests.support.postgresql import Server, shared_server

#: A processor that claims a mail, goes as far as it is told, says so, and waits to be killed.
_PROGRAM = """
import sys
from zope.sendmail.queue import open_queue
queue = open_queue(sys.argv[1])
[lease] = queue.claim()
if sys.argv[2] != "claim":
    lease.open().read()
if sys.argv[2] == "intend":
    lease.intend()
print(lease.name, flush=True)
sys.stdin.readline()
try:
    lease.intend()
    print("may send", flush=True)
except OSError as error:
    print(type(error).__name__, flush=True)
sys.stdin.readline()
"""

#: Locks what a processor has in hand, as soon as that is written.
_ITS_ATTEMPT = """
select from zope_sendmail.attempt a join zope_sendmail.processor p on p.id = a.processor
where p.pid = %s and a.phase > 0 for update of a
"""

_WAITING = "select count(*) from pg_stat_activity where %s = any(pg_blocking_pids(pid))"

#: Seconds that a machine with much else to do may take for anything.
_PATIENCE = 300.0


class Fixture(unittest.TestCase):
    schedule = Schedule()

    def server(self) -> Server:
        return shared_server()

    def setUp(self) -> None:
        self.url = self.server().url()
        self.queue: Any = self.open()

    def open(self) -> Any:
        from zope.sendmail.queue.postgresql.queue import PostgreSQLQueue

        queue = PostgreSQLQueue(self.url, schedule=self.schedule)
        self.addCleanup(queue.close)
        return queue

    def put(self, count: int = 1) -> None:
        put(self.queue, [envelope()] * count, MESSAGE)

    def start(self, phase: str) -> subprocess.Popen[str]:
        """A processor of its own that has claimed a mail and come so far."""
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, self.url, phase],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        assert process.stdout is not None
        self.assertTrue(process.stdout.readline())
        return process

    def eventually(self, ask: Callable[[], Any]) -> Any:
        """What is true at last."""
        over = threading.Event()
        timer = threading.Timer(_PATIENCE, over.set)
        timer.start()
        try:
            while not over.wait(0.1):
                with contextlib.suppress(QueueTrouble):  # the server is on its way up
                    if found := ask():
                        return found
        finally:
            timer.cancel()
            timer.join()
        return self.fail("it did not come")

    def stop(self, process: subprocess.Popen[str]) -> None:
        """Let a process stand still; return when it does: the signal only asks for that."""
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)

    def taken(self) -> Any:
        """The mail, as soon as it is ours."""
        [lease] = self.eventually(self.queue.claim)
        return lease


class AProcessorThatIsKilled(Fixture):
    """SIGKILL, at each step."""

    def kill(self, phase: str) -> Any:
        self.put()
        process = self.start(phase)
        self.assertEqual(self.queue.claim(), [])
        process.kill()
        return self.taken()

    def test_leaves_what_it_only_claimed_as_it_was(self) -> None:
        """Nothing was tried."""
        lease = self.kill("claim")
        self.assertEqual((lease.inherited, lease.record.deaths), (None, 0))

    def test_leaves_what_it_intended_as_unknown(self) -> None:
        """The relay may have it."""
        lease = self.kill("intend")
        self.assertEqual(lease.inherited.replies["one@example.org"].answer, Answer.UNKNOWN)
        self.assertEqual((lease.record.unknowns, lease.record.deaths), (1, 1))


class UnderThePolicyHold(Fixture):
    """What is unknown waits for a person."""

    schedule = Schedule(on_unknown=OnUnknown.HOLD)

    def test_what_it_intended_is_held(self) -> None:
        """And what it had only claimed goes."""
        self.put()
        self.start("intend").kill()
        lease = self.taken()
        self.assertEqual(lease.record.state, State.HELD)

    def test_what_is_held_is_not_claimed_again(self) -> None:
        """It is as held as by an operator, until one releases it."""
        self.put()
        self.start("intend").kill()
        lease = self.taken()
        lease.release()
        self.queue._claims.flush()
        self.assertEqual((self.queue.claim(), self.queue.admin.count()), ([], {State.HELD: 1}))
        self.queue.admin.release(lease.name)
        [again] = self.queue.claim()
        self.assertEqual(again.record.unknowns, 1)


class AProcessorThatIsStopped(Fixture):
    """SIGSTOP for longer than others wait."""

    def test_must_not_send_when_it_comes_to(self) -> None:
        """Another one has the mail; the stopped one is refused and begins anew."""
        self.put()
        process = self.start("open")
        self.stop(process)
        lease = self.taken()
        process.send_signal(signal.SIGCONT)
        out, _ = process.communicate("\n\n", timeout=_PATIENCE)
        self.assertEqual(out.strip(), "LeaseLost")
        lease.settle(Record(State.SENT))
        self.assertEqual(self.queue.admin.count(), {})

    def test_does_not_rely_on_an_old_answer(self) -> None:
        """It stood still between its question and the answer: that was yes, and another one has the mail since."""
        self.put()
        process = self.start("open")
        assert process.stdin is not None
        with self.server().connect() as door:
            door.execute("begin")
            self.eventually(lambda: door.execute(_ITS_ATTEMPT, [process.pid]).fetchall())
            process.stdin.write("\n")
            process.stdin.flush()
            self.eventually(lambda: self.waiting_for(door) > 0)
            self.stop(process)
            door.execute("commit")
        lease = self.taken()
        self.assertEqual(lease.record.unknowns, 1)  # so the answer was: go on
        process.send_signal(signal.SIGCONT)
        out, _ = process.communicate("\n", timeout=_PATIENCE)
        self.assertEqual(out.strip(), "LeaseLost")

    def waiting_for(self, door: Any) -> int:
        """How many statements stand before a lock that this connection has."""
        with self.server().connect() as connection:
            [(count,)] = connection.execute(_WAITING, [door.info.backend_pid])
        return int(count)


class AProcessorWhoseConnectionsAreCut(Fixture):
    """By a firewall, or an administrator."""

    def test_goes_on(self) -> None:
        """It connects again, and nothing is lost or sent twice."""
        self.put(3)
        first, second, third = self.queue.claim(3)
        first.intend()
        self.server().kill_backends()
        first.settle(Record(State.SENT))
        second.intend()
        second.settle(Record(State.SENT))
        third.release()
        self.assertEqual(self.queue.admin.count(), {State.READY: 1})
        self.assertEqual([lease.name for lease in self.queue.claim()], [third.name])


@functools.cache  # zope.testrunner knows no fixtures of classes
def _own_server() -> Server:
    """Return a server that nothing else uses."""
    from zope.sendmail.queue.postgresql.upkeep import migrate

    server = Server()
    atexit.register(server.stop)
    migrate(server.url())
    return server


class AProcessorThatHasToldNothing(Fixture):
    """It waits for the first reply of its relay."""

    def test_is_at_work_for_operators(self) -> None:
        self.put(2)
        process = self.start("intend")
        [found] = self.queue.admin.processors()
        self.assertEqual((found.pid, found.alive), (process.pid, True))

    def test_is_not_at_work_on_other_queues(self) -> None:
        self.put(2)
        self.start("intend")
        self.url = self.server().url()
        other = self.open()
        self.assertEqual(other.admin.processors(), [])

    def test_is_told_of_once(self) -> None:
        """From when it tells of itself, that counts."""
        self.put()
        [lease] = self.queue.claim()
        lease.intend()
        self.assertEqual([each.started for each in self.queue.admin.processors()], [0.0])
        self.queue.report(ProcessorState(os.getpid(), "host", started=1.0))
        self.assertEqual([each.started for each in self.queue.admin.processors()], [1.0])


class AServerThatCrashes(Fixture):
    """What is not logged is gone: who lives, and how far they had come."""

    def server(self) -> Server:
        return _own_server()

    def test_leaves_the_living_what_they_have(self) -> None:
        """They come back by themselves; what they intend is still theirs, and nobody else gets it."""
        self.put(2)
        [lease] = self.queue.claim()
        lease.intend()
        _own_server().crash()
        other = self.open()
        [rest] = self.eventually(other.claim)
        self.assertNotEqual(rest.name, lease.name)
        lease.settle(Record(State.SENT))
        rest.intend()
        rest.settle(Record(State.SENT))
        self.assertEqual(self.queue.admin.count(), {})

    def test_gives_nothing_back_to_one_that_was_taken_for_dead(self) -> None:
        """That is forgotten with the crash; what it had is another one's all the same."""
        self.put()
        process = self.start("open")
        self.stop(process)
        lease = self.taken()
        _own_server().crash()
        process.send_signal(signal.SIGCONT)
        out, _ = process.communicate("\n\n", timeout=_PATIENCE)
        self.assertEqual(out.strip(), "LeaseLost")
        lease.intend()
        lease.settle(Record(State.SENT))
        self.assertEqual(self.queue.admin.count(), {})

    def test_makes_unknown_what_the_dead_had(self) -> None:
        """How far they had come with it is not known any more."""
        self.put()
        process = self.start("claim")
        process.kill()
        process.wait()
        _own_server().crash()
        lease = self.taken()
        self.assertEqual(lease.inherited.replies["one@example.org"].answer, Answer.UNKNOWN)

    def test_keeps_what_was_committed(self) -> None:
        """Also when all of it is killed."""
        self.put(3)
        _own_server().kill()
        self.assertEqual(len(self.eventually(lambda: self.queue.claim(9))), 3)


class AFork(Fixture):
    """The child shares nothing with its parent."""

    def test_leaves_the_parents_connections_alone(self) -> None:
        """Both work; the child's end says nothing to the parent's server."""
        self.put(2)
        [lease] = self.queue.claim()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                [other] = self.queue.claim()
                other.intend()
                other.settle(Record(State.SENT))
                self.queue.close()
                status = int(other.name == lease.name)
            finally:
                os._exit(status)
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        lease.intend()
        lease.settle(Record(State.SENT))
        self.assertEqual(self.queue.admin.count(), {})


class ALeaseThatIsOver(Fixture):
    """Its words come to nothing."""

    def test_is_not_intended(self) -> None:
        """After the queue was closed, or it was given back."""
        self.put(2)
        first, second = self.queue.claim(2)
        first.release()
        self.assertRaises(LeaseLost, first.intend)
        self.queue.close()
        self.assertRaises(LeaseLost, second.intend)

    def test_is_not_settled(self) -> None:
        """Another one has the mail; its record is not touched."""
        self.put()
        [lease] = self.queue.claim()
        lease.open()
        self.queue.close()
        other = self.open()
        [taken] = other.claim()
        record = Record(
            State.DEFERRED, attempts=1, replies=Outcome.same("r", ["x"], Reply(Answer.DEFERRED, "x")).replies
        )
        lease.settle(record)
        taken.intend()
        taken.settle(Record(State.SENT))
        self.assertEqual(other.admin.count(), {})


load_tests = in_layer(Databases)
