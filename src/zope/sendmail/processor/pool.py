"""Who works for a relay: workers, in threads of their own, as many as are worth while.

One begins.  As long as more is waiting than it can do, another thread stands by and looks: if the process mostly waits
for the relay, the workers are doubled, up to the relay's limit; if it is busy itself, more of them would only get in
each other's way.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from zope.sendmail.processor.dispatcher import Dispatcher
from zope.sendmail.processor.relay import Job, Relay
from zope.sendmail.processor.worker import Worker
from zope.sendmail.system.clock import Clock
from zope.sendmail.system.gilbaton import baton

if TYPE_CHECKING:
    from zope.sendmail.processor.thread import QueueProcessorThread

#: Seconds between two looks of the one who stands by: at first, and at most.
_WINDOW = (0.02, 0.5)

#: A process that uses more than this part of a CPU is not waiting for a relay.  A worker in front of a relay on the
#: same host uses 0.7 to 0.8; more workers cost a quarter more CPU there and send no more (benchmarks/README.rst).
_BUSY = 0.6

#: Longest time in seconds during which a stop may go unnoticed.
_SLICE = 0.2


class Meter:
    """How busy this process is."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._at, self._cpu = clock.monotonic(), clock.cpu()

    def is_waiting(self) -> bool:
        """Whether the process mostly waited since the last question."""
        at, cpu = self._clock.monotonic(), self._clock.cpu()
        elapsed, used = at - self._at, cpu - self._cpu
        self._at, self._cpu = at, cpu
        return elapsed > 0.0 and used / elapsed < _BUSY


class WorkerPool:
    """The workers of all relays of a processor.  Concurrency: any thread."""

    def __init__(self, processor: QueueProcessorThread) -> None:
        self._processor = processor
        self._mutex = threading.Lock()
        self._threads: set[threading.Thread] = set()
        self._standing_by: dict[Relay, threading.Event] = {}
        #: Somebody has to work for these, and the system had no thread for that, or Python ends.
        self._without_thread: set[Relay] = set()
        self.dispatcher: Dispatcher | None = None

    def call(self, relay: Relay) -> None:
        """See that somebody works for this relay."""
        with relay.mutex:
            is_first = not relay.workers
            if is_first:
                relay.workers += 1
        if is_first:
            try:
                self._start(relay)
            except RuntimeError:
                self._without_thread.add(relay)
        else:  # those at work may be waiting for their relay
            self._see_whether_more_are_needed(relay)

    def fill_in(self) -> None:
        """Work in the caller's thread for relays that have none, one after the other."""
        while self._without_thread:
            relay = self._without_thread.pop()
            if self.joins(relay):
                self.work(relay)

    def joins(self, relay: Relay) -> bool:
        """Whether the caller may `work` for this relay; if so, it is counted."""
        with relay.mutex:
            if relay.pause() or relay.workers >= relay.limit:
                return False
            relay.workers += 1
            return True

    def work(self, relay: Relay) -> None:
        """Be a worker until nothing is left to do for this relay; it was counted in `Relay.workers` already."""
        worker = self._new_lane(relay)
        if worker is None:
            return
        jobs, goes_on = _PoolJobs(self, relay, worker), True
        try:
            while goes_on:
                worker.run(jobs)
                with relay.mutex:  # somebody may have put in a message since
                    goes_on = bool(relay.backlog) and self._is_good(worker, relay) and self._goes_on(relay)
                    if not goes_on:
                        self._sign_off(relay)
        except BaseException:
            if goes_on:
                self._sign_off(relay)
            raise
        finally:
            if not (worker.works and relay.put_back(worker.session, worker.mailer)):
                worker.session.close()

    def _new_lane(self, relay: Relay) -> Worker | None:
        """A worker with a session; None if the mailer makes none."""
        try:
            mailer = relay.mailer
            return Worker(self._processor, relay, relay.session(mailer), mailer)
        except BaseException as error:  # noqa: BLE001 - it is the mailer's, and the thread goes on
            relay.refused(error)
            self._sign_off(relay)
            return None

    def end(self) -> None:
        """Let everybody finish what they have in hand."""
        while True:
            with self._mutex:
                threads = list(self._threads)
                for over in self._standing_by.values():
                    over.set()
            if not threads:
                return
            for thread in threads:
                thread.join()

    def _goes_on(self, relay: Relay) -> bool:
        return not self._processor.is_stopped and relay.pause() == 0.0 and not self._is_superfluous(relay)

    def _is_superfluous(self, relay: Relay) -> bool:
        return relay.workers > 1 and relay.workers > relay.limit

    def next_job(self, relay: Relay, worker: Worker) -> Job | None:
        """Claim what `worker` does next; None if it has nothing to do any more, or not now.

        A worker that met trouble gets nothing; the last one pauses the relay.
        """
        assert self.dispatcher is not None
        if not (self._is_good(worker, relay) and self._goes_on(relay)):
            return None
        job = self.dispatcher.next_for(relay)
        if job is None:
            return None
        self._see_whether_more_are_needed(relay)
        if relay.has_rate and not self._waits_for_turn(relay):
            job.lease.release()
            return None
        return job

    def _is_good(self, worker: Worker, relay: Relay) -> bool:
        """Whether it met no trouble, and the relay has the same mailer still (`setMailer`)."""
        return worker.works and relay.mailer is worker.mailer

    def _waits_for_turn(self, relay: Relay) -> bool:
        """Whether it came before we were stopped."""
        clock = self._processor.clock
        until = clock.monotonic() + relay.turn()
        baton.put_down()
        while (left := until - clock.monotonic()) > 0 and not self._processor.is_stopped:
            clock.sleep(min(left, _SLICE))
        return not self._processor.is_stopped

    def _sign_off(self, relay: Relay) -> None:
        """One worker is not counted any more; what nobody else is there for goes back."""
        assert self.dispatcher is not None
        with relay.mutex:
            relay.workers -= 1
            if relay.workers == 0:
                over = self._standing_by.get(relay)
                if over is not None:
                    over.set()
                self.dispatcher.give_back(relay)

    # more of them

    def _see_whether_more_are_needed(self, relay: Relay) -> None:
        assert self.dispatcher is not None
        if relay in self._standing_by or relay.workers >= relay.limit or not self.dispatcher.is_waited_for(relay):
            return
        with self._mutex:
            if relay in self._standing_by:
                return
            over = self._standing_by[relay] = threading.Event()
        try:
            self._start_thread(lambda: self._stand_by(relay, over))
        except RuntimeError:  # then there are no more than we are
            self._standing_by.pop(relay, None)

    def _stand_by(self, relay: Relay, over: threading.Event) -> None:
        assert self.dispatcher is not None
        meter, window = Meter(self._processor.clock), _WINDOW[0]
        try:
            while not over.wait(window) and not self._processor.is_stopped and self.dispatcher.is_waited_for(relay):
                if meter.is_waiting() and self._may_double(relay):
                    with contextlib.suppress(RuntimeError):  # the system has no more threads
                        self._double(relay)
                else:
                    window = min(window * 2, _WINDOW[1])
        finally:
            with self._mutex:
                self._standing_by.pop(relay, None)

    def _may_double(self, relay: Relay) -> bool:
        return relay.workers < relay.limit and not relay.is_ahead and not self._processor.is_troubled

    def _double(self, relay: Relay) -> None:
        with relay.mutex:
            more = max(0, min(relay.workers, relay.limit - relay.workers))
        for _ in range(more):
            with relay.mutex:
                relay.workers += 1
            self._start(relay)

    def _start(self, relay: Relay) -> None:
        """A new worker, which was counted already.  Raises `RuntimeError` if the system has no thread for it."""
        try:
            self._start_thread(lambda: self._processor.guarded_work(relay))
        except BaseException:
            self._sign_off(relay)
            raise

    def _start_thread(self, work: Callable[[], None]) -> None:
        def run() -> None:
            try:
                work()
            finally:
                with self._mutex:
                    self._threads.discard(threading.current_thread())

        thread = threading.Thread(target=run, name=f"{self._processor.name}-lane", daemon=True)
        with self._mutex:  # who waits for all threads never sees one that has not begun
            thread.start()
            self._threads.add(thread)


class _PoolJobs:
    """What a pool claims for one worker; see `zope.sendmail.processor.worker.JobSource`."""

    def __init__(self, pool: WorkerPool, relay: Relay, worker: Worker) -> None:
        self._pool, self._relay, self._worker = pool, relay, worker

    def next(self) -> Job | None:
        """See `JobSource`."""
        return self._pool.next_job(self._relay, self._worker)
