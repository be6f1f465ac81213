"""A queue in PostgreSQL under fire: processors killed, stopped and cut off, the server crashed and killed.

Counts what is lost, and what is sent again without a record that says so.  ``ZOPE_SENDMAIL_CHAOS`` has further seeds,
with blanks between them; with it the counts are told.
"""

from __future__ import annotations

import collections
import math
import operator
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from collections.abc import Callable, Collection

from zope.sendmail.queue import open_queue
from zope.sendmail.testing.contracts import MESSAGE, envelope
from zope.sendmail.tests.support.layers import Faults, in_layer
from zope.sendmail.tests.support.postgresql import Server, programs

_MAILS = 4000

#: So many more come before each blow: three processors send them within about a tenth of a second.
_MORE = 400

_PROCESSORS = 3

#: Seconds from the first blow to the last, and until all has to be sent after that.
_FIRE, _REST = 10.0, 300.0

#: Seconds after a failover in which processors withdraw what they sent.
_GRACE = 5.0

_KINDS = {
    "processors": ("kill", "stop", "cut"),
    "server": ("kill", "stop", "cut", "crash", "postmaster"),
}


class UnderFire(unittest.TestCase):
    """Every mail is sent, and one that is sent twice has a record that says so."""

    def setUp(self) -> None:
        programs()  # skips

    def with_seeds(self, first: int, check: Callable[[int], object]) -> None:
        """Check with this seed and further ones, each with servers of its own, whatever came of the one before."""
        for seed in (first, *further_seeds()):
            with self.subTest(seed=seed):
                try:
                    self.prepare()
                    check(seed)
                finally:
                    self.doCleanups()

    def prepare(self) -> None:
        """A server, and nothing in it."""
        from zope.sendmail.queue.postgresql.upkeep import migrate

        self.server = Server()
        self.addCleanup(self.server.stop)
        migrate(self.server.url())
        self.url = self.server.url("chaos")
        self.relay = self.enterContext(tempfile.NamedTemporaryFile(mode="r"))
        self.over = threading.Event()
        self.processors: list[subprocess.Popen[bytes]] = []
        self.addCleanup(self.end)

        #: When processors were struck that cannot withdraw what they sent: from then until then, by their numbers.
        self.struck: dict[int, tuple[float, float]] = {}

    def start(self) -> None:
        """One more processor."""
        program = [sys.executable, "-m", "zope.sendmail.tests.support.pgworker", self.url, self.relay.name, "2"]
        path = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self.processors.append(subprocess.Popen(program, stderr=subprocess.DEVNULL, env={**os.environ, **path}))

    def end(self) -> None:
        """No processor is left."""
        self.over.set()
        for process in self.processors:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()

    def strike(self, kind: str, chance: random.Random) -> None:
        """One blow."""
        if kind == "kill":
            victim = self.processors.pop(chance.randrange(len(self.processors)))
            victim.kill()
            victim.wait()
            self.struck[victim.pid] = (time.monotonic(), math.inf)
            self.start()
        elif kind == "stop":
            victim = chance.choice(self.processors)
            victim.send_signal(signal.SIGSTOP)
            seconds, now = chance.uniform(0.5, 7.0), time.monotonic()
            self.struck[victim.pid] = (min(now, self.struck.get(victim.pid, (now, now))[0]), now + seconds)
            timer = threading.Timer(seconds, victim.send_signal, [signal.SIGCONT])
            timer.start()
            self.addCleanup(timer.join)
            self.addCleanup(timer.cancel)
        else:
            blows: dict[str, Callable[[], object]] = {
                "cut": self.server.kill_backends,
                "crash": self.server.crash,
                "postmaster": self.server.kill,
            }
            blows[kind]()

    def fire(self, seed: int, kinds: tuple[str, ...]) -> None:
        """Strike at random, until all is sent: nothing is lost, and what is sent again has a record."""
        names, chance = self.begin(), random.Random(seed)
        self.strike_for(_FIRE, kinds, chance, before=lambda: names.update(self.put_if_possible()))
        sent = self.result()
        lost, silent = names - sent.keys(), [name for name, sends in sent.items() if unrecorded(sends)]
        self.assertEqual((lost, silent), (set(), []), f"seed {seed}; {self.told(seed, sent, lost, silent)}")

    def begin(self) -> set[str]:
        """Mail, and processors that send it; return its names."""
        self.queue = open_queue(self.url)
        self.addCleanup(self.queue.close)
        names = self.put(_MAILS)
        for _ in range(_PROCESSORS):
            self.start()
        return names

    def put(self, count: int) -> set[str]:
        """Commit mails; return their names."""
        staged = self.queue.stage()
        names = {staged.add(envelope(), MESSAGE) for _ in range(count)}
        staged.prepare()
        staged.commit()
        return names

    def put_if_possible(self) -> set[str]:
        """Commit mails, and wait until they are being sent; return their names, none if the server refuses."""
        size, late = os.path.getsize(self.relay.name), time.monotonic() + 1.0
        try:
            names = self.put(_MORE)
        except OSError:  # what was committed all the same is sent, too
            return set()
        while os.path.getsize(self.relay.name) == size and time.monotonic() < late:
            threading.Event().wait(0.002)
        return names

    def strike_for(
        self,
        seconds: float,
        kinds: tuple[str, ...],
        chance: random.Random,
        before: Callable[[], object] = lambda: None,
    ) -> None:
        """Blow after blow; `before` is called before each."""
        deadline = threading.Event()
        timer = threading.Timer(seconds, deadline.set)
        timer.start()
        while not deadline.wait(chance.uniform(0.2, 1.2)):
            before()
            self.strike(chance.choice(kinds), chance)
        timer.join()

    def result(self) -> dict[str, list[tuple[int, int]]]:
        """Wait until all is sent; return for each mail how often it was known to be unknown, and who sent it."""
        for process in self.processors:
            process.send_signal(signal.SIGCONT)
        self.wait_until_empty(self.queue)
        self.end()
        sent: dict[str, list[tuple[int, int]]] = collections.defaultdict(list)
        for line in self.relay:
            name, unknowns, pid = line.split()
            sent[name].append((int(unknowns), int(pid)))
        return sent

    def told(self, seed: int, sent: dict[str, list[tuple[int, int]]], lost: Collection[str], silent: list[str]) -> str:
        """The counts, in words."""
        again = sum(len(sends) - 1 for sends in sent.values())
        words = f"lost {len(lost)}, sent again {again}, of these without a record {len(silent)}"
        words += "".join(f"; {name}: {sent[name]}" for name in silent[:5])
        if os.environ.get("ZOPE_SENDMAIL_CHAOS"):
            sys.stderr.write(f"{self.id().rpartition('.')[2]}, seed {seed}: {words}\n")
        return words

    def wait_until_empty(self, queue: object) -> None:
        late = threading.Event()
        timer = threading.Timer(_REST, late.set)
        timer.start()
        try:
            while not late.wait(0.3):
                try:
                    if not queue.admin.count():  # type: ignore[attr-defined]  # an IMailQueue
                        return
                except OSError:  # the server is on its way up
                    continue
            self.fail("mail is left that nobody sends")
        finally:
            timer.cancel()
            timer.join()

    def test_at_its_processors(self) -> None:
        """Killed, stopped for up to seven seconds, their connections cut."""
        self.with_seeds(1, lambda seed: self.fire(seed, _KINDS["processors"]))

    def test_at_its_server(self) -> None:
        """All that, and a backend or the whole server killed with SIGKILL."""
        self.with_seeds(2, lambda seed: self.fire(seed, _KINDS["server"]))


class AStandbyTakesOver(UnderFire):
    """An asynchronous one, which lacks the last second: what the manual says of it, and no more, goes wrong."""

    # Those of the other class.
    test_at_its_processors = test_at_its_server = None  # type: ignore[assignment]  # not tests here

    def prepare(self) -> None:
        """A server, and one that follows it."""
        super().prepare()
        self.standby = self.server.standby()
        self.addCleanup(self.standby.stop)
        self.url = f"postgresql://postgres@/postgres?host={self.server.directory},{self.standby.directory}&queue=chaos"

    def take_over(self, during: Callable[[], object]) -> tuple[set[str], float, float]:
        """The primary dies; return the names of the mails of the lost second, when it began, and its end."""
        self.wait_until_sent(100)
        self.standby.shut_down()
        began = time.monotonic()
        late = self.put(100)
        self.wait_until_sent(self.count() + 100)
        during()
        self.wait_until_sent(self.count() + 100)
        assert self.server.process is not None
        self.server.process.kill()
        self.server.process.wait()
        self.standby.start()
        with self.standby.connect() as connection:
            connection.execute("select pg_promote(true, 60)")
        self.server = self.standby
        return late, began, time.monotonic()

    def count(self) -> int:
        """How often the relay took a mail."""
        with open(self.relay.name, encoding="ascii") as file:
            return sum(1 for _ in file)

    def wait_until_sent(self, count: int) -> None:
        """Wait until the relay took mail so often, or all of it."""
        deadline = time.monotonic() + _REST
        while self.count() < min(count, _MAILS):
            self.assertLess(time.monotonic(), deadline, "the processors send nothing")
            threading.Event().wait(0.02)

    def loses_no_more_than_is_said(self, seed: int, kinds: tuple[str, ...]) -> list[str]:
        """Nothing of before the lost second is lost; what is sent again without a record was sent by the struck."""
        names, chance = self.begin(), random.Random(seed)
        self.standby.wait_for(self.server)
        late, began, ended = self.take_over(lambda: self.strike_for(1.5, kinds, chance))
        self.strike_for(_FIRE / 2, kinds, chance)
        sent = self.result()
        lost, silent = names - sent.keys(), [name for name, sends in sent.items() if unrecorded(sends)]
        told = f"seed {seed}; {self.told(seed, sent, late - sent.keys() | lost, silent)}"
        self.assertEqual(lost, set(), told)
        struck = {pid for pid, (first, last) in self.struck.items() if first < ended + _GRACE and last > began}
        others = [name for name in silent if not struck & set(unrecorded(sent[name]))]
        self.assertEqual(others, [], told)
        return silent

    def test_while_all_processors_live(self) -> None:
        """Connections are cut: none of what was sent in the lost second goes again without a record."""
        self.with_seeds(3, lambda seed: self.assertEqual(self.loses_no_more_than_is_said(seed, ("cut",)), []))

    def test_while_processors_are_struck(self) -> None:
        """Killed, and stopped: what these sent may go again, and what others sent does not."""
        self.with_seeds(4, lambda seed: self.loses_no_more_than_is_said(seed, ("kill", "stop", "cut")))


def further_seeds() -> list[int]:
    """Return those that the environment names."""
    return [int(each) for each in os.environ.get("ZOPE_SENDMAIL_CHAOS", "").split()]


def unrecorded(sends: list[tuple[int, int]]) -> list[int]:
    """Return which processors had sent a mail before it was sent again without a record of that.

    :param sends: how often it was known to be unknown, and by which processor it was sent, as the relay has them.

    A processor that stood still between its question to the database and the relay sends after the one that took over,
    whose record has the doubt already: only among equals the relay's order counts.
    """
    ordered = sorted(sends, key=operator.itemgetter(0))
    for at, (unknowns, _) in enumerate(ordered):
        if unknowns < at:
            return [pid for _, pid in ordered[:at]]
    return []


class TheCount(unittest.TestCase):
    """Says which processor a repeat without a record is due to."""

    def test_names_the_one_that_sent_first(self) -> None:
        """Whatever its number is, which the system gives in no order."""
        self.assertEqual((unrecorded([(0, 9), (0, 3)]), unrecorded([(0, 3), (0, 9)])), ([9], [3]))

    def test_takes_the_record_before_the_order(self) -> None:
        """The one that stood still before the relay is second there, and no repeat is without a record."""
        self.assertEqual(unrecorded([(1, 3), (0, 9)]), [])


load_tests = in_layer(Faults)
