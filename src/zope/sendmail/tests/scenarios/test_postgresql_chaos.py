"""A queue in PostgreSQL under fire: processors killed, stopped and cut off, the server crashed and killed.

Counts what is lost, and what is sent again without a record that says so.  ``ZOPE_SENDMAIL_CHAOS`` has further seeds,
with blanks between them.
"""

from __future__ import annotations

import collections
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import unittest
from collections.abc import Callable

from zope.sendmail.queue import open_queue
from zope.sendmail.testing.contracts import MESSAGE, envelope
from zope.sendmail.tests.support.layers import Faults, in_layer
from zope.sendmail.tests.support.postgresql import Server, programs

_MAILS = 4000

_PROCESSORS = 3

#: Seconds from the first blow to the last, and until all has to be sent after that.
_FIRE, _REST = 10.0, 120.0

_KINDS = {
    "processors": ("kill", "stop", "cut"),
    "server": ("kill", "stop", "cut", "crash", "postmaster"),
}


class UnderFire(unittest.TestCase):
    """Every mail is sent, and one that is sent twice has a record that says so."""

    def setUp(self) -> None:
        programs()  # skips
        from zope.sendmail.queue.postgresql.upkeep import migrate

        self.server = Server()
        self.addCleanup(self.server.stop)
        migrate(self.server.url())
        self.url = self.server.url("chaos")
        self.relay = self.enterContext(tempfile.NamedTemporaryFile(mode="r"))
        self.over = threading.Event()
        self.processors: list[subprocess.Popen[bytes]] = []
        self.addCleanup(self.end)

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
            self.start()
        elif kind == "stop":
            victim = chance.choice(self.processors)
            victim.send_signal(signal.SIGSTOP)
            timer = threading.Timer(chance.uniform(0.5, 7.0), victim.send_signal, [signal.SIGCONT])
            timer.start()
            self.addCleanup(timer.cancel)
        else:
            blows: dict[str, Callable[[], object]] = {
                "cut": self.server.kill_backends,
                "crash": self.server.crash,
                "postmaster": self.server.kill,
            }
            blows[kind]()

    def fire(self, seed: int, kinds: tuple[str, ...]) -> None:
        queue = open_queue(self.url)
        staged = queue.stage()
        names = {staged.add(envelope(), MESSAGE) for _ in range(_MAILS)}
        staged.prepare()
        staged.commit()
        for _ in range(_PROCESSORS):
            self.start()
        chance = random.Random(seed)
        deadline = threading.Event()
        threading.Timer(_FIRE, deadline.set).start()
        while not deadline.wait(chance.uniform(0.2, 1.2)):
            self.strike(chance.choice(kinds), chance)
        for process in self.processors:
            process.send_signal(signal.SIGCONT)
        self.wait_until_empty(queue)
        self.end()
        sent: dict[str, list[int]] = collections.defaultdict(list)
        for line in self.relay:
            name, unknowns, _ = line.split()
            sent[name].append(int(unknowns))
        lost = names - sent.keys()
        silent = [name for name, known in sent.items() if any(told < at for at, told in enumerate(sorted(known)))]
        repeated = sum(len(known) - 1 for known in sent.values())
        self.assertEqual((lost, silent), (set(), []), f"seed {seed}; {repeated} were sent again")

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

    def test_at_its_processors(self) -> None:
        """Killed, stopped for up to seven seconds, their connections cut."""
        for seed in (1, *map(int, os.environ.get("ZOPE_SENDMAIL_CHAOS", "").split())):
            self.fire(seed, _KINDS["processors"])

    def test_at_its_server(self) -> None:
        """All that, and a backend or the whole server killed with SIGKILL."""
        for seed in (2, *map(int, os.environ.get("ZOPE_SENDMAIL_CHAOS", "").split())):
            self.fire(seed, _KINDS["server"])


load_tests = in_layer(Faults)
