"""Relays with the limits of providers, over real sockets: scripted, on a clock that runs faster than the wall's."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
import unittest
from collections import deque
from math import inf
from typing import Any

from zope.sendmail.lifecycle.outcome import Answer
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.retry import Schedule
from zope.sendmail.mailer import SMTPMailer
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.processor.thread import QueueProcessorThread
from zope.sendmail.queue.memory import MemoryQueue
from zope.sendmail.queue.memory.admin import MemoryAdmin
from zope.sendmail.queue.memory.store import MemoryStore
from zope.sendmail.system.clock import Clock
from zope.sendmail.testing.relay import Relay
from zope.sendmail.testing.relayscript import Action, Script
from zope.sendmail.tests.support.conversation import MESSAGE, TIMEOUTS, Conversation
from zope.sendmail.tests.support.layers import Servers, in_layer
from zope.sendmail.tests.support.servers import wait_until

THREADS = "432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded"
BUSY = "451 4.7.500 Server busy. Please try again later from [192.0.2.1]."

#: Real seconds after which the clock goes on, and for which it does so at most: for longer this process stood still.
_STEP, _LONGEST_STEP = 0.002, 0.01


class FasterClock(Clock):
    """A clock so many times as fast as the real one: a minute of a provider need not last one.

    It stands still while this process does, as on a machine that is halted or has much else to do: nobody could keep a
    pace there by the wall's time.  A thread lets it go on, in small steps, until `stop`.
    """

    def __init__(self, speed: float) -> None:
        self.speed = speed
        self._now = 1_000_000.0
        self._mutex = threading.Lock()
        #: Those that sleep, by the time at which they wake up; the number tells those apart that do so together.
        self._sleeping: list[tuple[float, int, threading.Event]] = []
        self._numbers = itertools.count()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="clock", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Do not go on; who sleeps wakes up."""
        self._over.set()
        self._thread.join()
        self._wake(inf)

    def _run(self) -> None:
        last = time.monotonic()
        while not self._over.wait(_STEP):
            now = time.monotonic()
            self._now += min(now - last, _LONGEST_STEP) * self.speed
            last = now
            self._wake(self._now)

    def _wake(self, now: float) -> None:
        with self._mutex:
            while self._sleeping and self._sleeping[0][0] <= now:
                heapq.heappop(self._sleeping)[2].set()

    def time(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._now

    def cpu(self) -> float:
        return time.process_time() * self.speed

    def sleep(self, seconds: float) -> None:
        woken = threading.Event()
        with self._mutex:
            heapq.heappush(self._sleeping, (self._now + seconds, next(self._numbers), woken))
        if not self._over.is_set():
            woken.wait()


class Provider(Script):
    """Takes `most` mails within so many seconds, each of which it has for a while, and over so many connections.

    At the final dot it looks how many are open, and refuses every mail as long as these are too many.
    """

    def __init__(self, clock: Clock, most: int, seconds: float, busy: str, *, connections: int, each: float) -> None:
        super().__init__()
        self.clock, self.most, self.seconds, self.busy = clock, most, seconds, busy
        self.connections, self.each = connections, each
        self.relay: Relay | None = None
        self.taken: list[float] = []
        self._times: deque[float] = deque()
        self._mutex = threading.Lock()

    def action(self, point: str, command: str) -> Action | None:
        """See `Script`."""
        if point != "DOT":
            return None
        self.clock.sleep(self.each)
        with self._mutex:
            if self.relay is not None and self.relay.open > self.connections:
                return THREADS
            now = self.clock.monotonic()
            while self._times and self._times[0] <= now - self.seconds:
                self._times.popleft()
            if len(self._times) >= self.most:
                return self.busy
            self._times.append(now)
            self.taken.append(now)
        return None

    def pace(self) -> float:
        """Mails a second, since the first one was taken."""
        return len(self.taken) / (self.taken[-1] - self.taken[0])


class NotingStore(MemoryStore):
    """Notes the mails that were charged with an attempt, and go on waiting."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.charged: list[Record] = []

    def write(self, mail: Any, record: Record) -> None:
        """See `MemoryStore`."""
        super().write(mail, record)
        if record.attempts:
            self.charged.append(record)


class NotingQueue(MemoryQueue):
    """A queue in memory with a `NotingStore`."""

    store: NotingStore

    def __init__(self, *, schedule: Schedule, clock: Clock) -> None:
        super().__init__(schedule=schedule, clock=clock)
        self.store = NotingStore(clock)
        self.admin = MemoryAdmin(self.store)

    @property
    def charged(self) -> list[Record]:
        """What the store has noted."""
        return self.store.charged


class ProvidersLimits(Conversation):
    """A queue goes at nine tenths of what each of them allows; no mail is rejected, and none is charged."""

    def gets_nine_tenths(
        self, speed: float, most: int, seconds: float, busy: str, *, connections: int, each: float, mails: int,
        part: float = 0.9,
    ) -> None:  # fmt: skip
        """With no setting that tells of the limits.

        Where other processes take the machine, threads fall behind the clock; then that is slower in a second try.
        """
        for slower in (1.0, 3.0):
            clock = FasterClock(speed / slower)
            self.addCleanup(clock.stop)
            provider = Provider(clock, most, seconds, busy, connections=connections, each=each)
            self.send_all(provider, clock, mails)
            if provider.pace() >= part * most / seconds:
                break
        self.assertGreaterEqual(provider.pace(), part * most / seconds)

    def send_all(self, provider: Provider, clock: Clock, mails: int) -> None:
        """Send so many mails; all arrive, none is rejected, and none is charged."""
        relay = provider.relay = self.start(keywords=["PIPELINING"])
        relay.script = provider
        queue = NotingQueue(schedule=Schedule(first=60.0, jitter=0.0), clock=clock)
        staged = queue.stage()
        for number in range(mails):
            staged.add(Envelope("sender@example.org", (f"r{number}@example.org",)), MESSAGE)
        staged.prepare()
        staged.commit()
        mailer = SMTPMailer(relay.host, relay.port, timeouts=TIMEOUTS, tls="never", clock=clock)
        processor = QueueProcessorThread(queue=queue, mailer=mailer, clock=clock)
        processor.start()
        self.addCleanup(processor.join)
        self.addCleanup(processor.stop)
        while (before := len(relay.mails)) < mails and wait_until(lambda known=before: len(relay.mails) > known):  # type: ignore[misc]  # bound in this round
            pass
        self.assertEqual(len(relay.mails), mails)
        self.assertTrue(wait_until(lambda: not queue.admin.count()))
        self.assertEqual((processor.tally[Answer.REJECTED], queue.charged), (0, []))
        processor.stop()

    def test_microsoft_365(self) -> None:
        """Three connections and 30 mails a minute together; a mail takes so long that one connection would not do."""
        self.gets_nine_tenths(15.0, 30, 60.0, BUSY, connections=3, each=2.5, mails=200)

    def test_one_saying_for_two_limits(self) -> None:
        """The same with words that say nothing of mails: what is meant is found out, which takes a while."""
        self.gets_nine_tenths(15.0, 30, 60.0, THREADS, connections=3, each=2.5, mails=200, part=0.8)

    def test_stalwart(self) -> None:
        """Ten in ten seconds."""
        busy = "452 4.4.5 Rate limit exceeded, try again later."
        self.gets_nine_tenths(6.0, 10, 10.0, busy, connections=100, each=0.5, mails=150)

    def test_amazon_ses(self) -> None:
        """14 a second; twenty connections meet the limit in one moment, which is no reason to wait for minutes."""
        busy = "454 Throttling failure: Maximum sending rate exceeded."
        self.gets_nine_tenths(0.5, 14, 1.0, busy, connections=100, each=0.05, mails=250)


if __name__ == "__main__":
    unittest.main()


load_tests = in_layer(Servers)
