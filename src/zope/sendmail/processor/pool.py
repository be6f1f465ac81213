"""The workers of each relay, as many as are worth while.

Each begins in a thread of its own; those that send one ordinary mail after the other are carried by one (`Crew`).

One begins.  As long as more is waiting than it can do, a further thread looks: if the process mostly waits for the
relay, the workers are doubled, up to the relay's limit and what the time for which the relay is waited for is worth
(`Lanes`); if it is busy itself, more of them would only get in each other's way.  To a relay that is known to be far
away, from connections before or since it has answered the first one, all begin at once.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import weakref
from collections.abc import Callable, Generator

from zope.sendmail.message.terms import Priority
from zope.sendmail.processor.context import SLICE, Context
from zope.sendmail.processor.crew import Crew
from zope.sendmail.processor.dispatcher import Dispatcher
from zope.sendmail.processor.job import Job
from zope.sendmail.processor.relay import Relay
from zope.sendmail.processor.worker import Worker, is_wish_to_end
from zope.sendmail.system.clock import Clock
from zope.sendmail.system.gilbaton import baton

#: Seconds between two looks whether more workers are needed: at first, and at most.
_WINDOW = (0.01, 0.5)

#: A process that uses more than this part of a CPU is not waiting for a relay.  A worker in front of a relay on the
#: same host uses 0.7 to 0.8: more of them, each in a thread of its own, cost a quarter more CPU there and send no more;
#: carried by one thread they cost nothing, and use what is left.
_BUSY, _BUSY_TOGETHER = 0.6, 0.9


class Meter:
    """How busy this process is.

    :param busy: the part of a CPU above which it is not waiting
    """

    def __init__(self, clock: Clock, busy: float) -> None:
        self._clock = clock
        self._busy = busy
        self._at, self._cpu = clock.monotonic(), clock.cpu()

    def is_waiting(self) -> bool:
        """Return whether the process mostly waited since the last question."""
        at, cpu = self._clock.monotonic(), self._clock.cpu()
        elapsed, used = at - self._at, cpu - self._cpu
        self._at, self._cpu = at, cpu
        return elapsed > 0.0 and used / elapsed < self._busy


class WorkerPool:
    """The workers of all relays of a processor.

    :param name: begins the names of threads
    :param when_idle: called when the last worker of a relay has ended

    Concurrency: any thread.
    """

    def __init__(self, context: Context, dispatcher: Dispatcher, name: str, when_idle: Callable[[], None]) -> None:
        self._context = context
        self._dispatcher = dispatcher
        self._name = name
        self._when_idle = when_idle
        self._mutex = threading.Lock()
        self._threads: set[threading.Thread] = set()
        #: Relays for which a thread looks whether they need more workers, and what ends that thread.
        self._scaling: dict[Relay, threading.Event] = {}
        #: What carries the workers of each relay.
        self._crews: weakref.WeakKeyDictionary[Relay, Crew] = weakref.WeakKeyDictionary()
        #: Relays that need a worker for which the system had no thread, or Python ends.
        self._without_thread: set[Relay] = set()

    def call(self, relay: Relay) -> None:
        """See that a worker is there for this relay."""
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
            self._consider_more(relay)

    def fill_in(self) -> None:
        """Work in the caller's thread for relays that have none, one after the other."""
        while self._without_thread:
            relay = self._without_thread.pop()
            if self.joins(relay):
                self.work(relay)

    def joins(self, relay: Relay) -> bool:
        """Count the caller as a worker of this relay; False if it needs none now, or no further one."""
        with relay.mutex:
            if relay.pause() or relay.workers >= relay.limit:
                return False
            relay.workers += 1
            return True

    def work(self, relay: Relay) -> None:
        """Be a worker, counted already, until nothing is left to do for this relay; carry others of it meanwhile.

        Raises what the queue raises.
        """
        failures: list[BaseException] = []
        self._crew(relay).carry(self._guarded_steps(relay, failures))
        if failures:
            raise failures[0]

    def _crew(self, relay: Relay) -> Crew:
        """Return what carries the workers of a relay; only the first call for a relay waits for another thread."""
        crew = self._crews.get(relay)
        if crew is not None:
            return crew
        with self._mutex:
            made = Crew(self._context.clock, self._start_thread, accepts=self._dispatcher.is_near)
            return self._crews.setdefault(relay, made)

    def _steps(self, relay: Relay) -> Generator[int | None, bool | None, None]:
        """Be a worker, in steps; see `Worker.steps`.  Raises what the queue raises."""
        worker = self._new_worker(relay)
        if worker is None:
            return
        claim, goes_on = functools.partial(self.claim_for, worker, relay), True
        claim_ahead = functools.partial(self._claim_ahead, worker, relay)
        try:
            while goes_on:
                yield from worker.steps(claim, claim_ahead)
                with relay.mutex:  # a message may have been put into the backlog since
                    goes_on = bool(relay.backlog) and worker.is_good and self._goes_on(relay, worker)
                    if not goes_on:
                        self._sign_off(relay, worker)
        except BaseException:
            if goes_on:
                self._sign_off(relay, worker)
            raise
        finally:
            if not (worker.works and relay.put_back(worker.session, worker.mailer)):
                worker.session.close()

    def end(self) -> None:
        """Return when all workers have finished what they have in hand."""
        while True:
            with self._mutex:
                threads = list(self._threads)
                for over in self._scaling.values():
                    over.set()
            if not threads:
                return
            for thread in threads:
                thread.join()

    def claim_for(self, worker: Worker, relay: Relay) -> Job | None:
        """Claim what `worker` does next; None if it has nothing to do any more, or not now.

        A worker that met trouble gets nothing; the last one pauses the relay.  Where mails have to wait for their turn,
        none is taken ahead: the mail in hand, whose end is not sent yet, would wait as well.
        """
        if worker.goes_on and (job := self._dispatcher.follower(worker.convoy)) is not None:
            return job
        if not (worker.is_good and self._goes_on(relay, worker)) or (worker.has_in_hand and relay.has_rate):
            return None
        behind = worker.in_hand
        job = self._dispatcher.next_for(relay, self.call, worker.convoy, behind)
        if job is None and behind is not Priority.LOW and relay.give_back():
            job = self._dispatcher.next_for(relay, self.call, worker.convoy, behind)
        if job is None:
            return None
        self._consider_more(relay)
        if not relay.has_rate:
            worker.asked()
            return job
        may_go = False
        try:
            may_go = not worker.has_in_hand and self._waits_for_turn(relay)
        finally:
            if not may_go:
                job.lease.release()
        return job if may_go else None

    def _claim_ahead(self, worker: Worker, relay: Relay) -> None:
        """Fill the convoy of `worker` if it is empty, and nothing speaks against it."""
        if not worker.convoy.is_low or not worker.knows_the_relay or relay.has_rate or not self._goes_on(relay, worker):
            return
        self._dispatcher.claim_ahead(worker.convoy)
        worker.asked()
        self._consider_more(relay)

    def _new_worker(self, relay: Relay) -> Worker | None:
        """Return a worker with a session; None if the mailer makes none."""
        try:
            mailer = relay.mailer
            return Worker(self._context, relay, relay.session(mailer), mailer)
        except BaseException as error:  # noqa: BLE001 - it is the mailer's, and the thread goes on
            relay.refused(error)
            self._sign_off(relay)
            return None

    def _goes_on(self, relay: Relay, worker: Worker) -> bool:
        """Return whether it does; one too many counts no more from now on, although its mail is in hand still."""
        if self._context.signal.stopped or relay.pause():
            return False
        with relay.mutex:
            stay = relay.workers - relay.leaving + worker.is_leaving
            goes_on = stay <= 1 or (stay <= relay.limit and not relay.lanes.are_too_many(stay))
            relay.leaving += (not goes_on) - worker.is_leaving
            worker.is_leaving = not goes_on
        return goes_on

    def _waits_for_turn(self, relay: Relay) -> bool:
        """Return whether it came before we were stopped; often it comes sooner, when another mail was taken."""
        while (seconds := relay.turn()) > 0.0:
            if not self._rests(min(seconds, SLICE)):
                return False
        while (seconds := self._dispatcher.turn(relay)) > 0.0:
            if not self._rests(seconds):
                return False
        return True

    def _rests(self, seconds: float) -> bool:
        baton.put_down()
        return self._context.sleep(seconds)

    def _sign_off(self, relay: Relay, worker: Worker | None = None) -> None:
        """Count one worker less; the last one gives the backlog back."""
        with relay.mutex:
            relay.workers -= 1
            relay.leaving -= worker is not None and worker.is_leaving
            if relay.workers == 0:
                over = self._scaling.get(relay)
                if over is not None:
                    over.set()
                self._dispatcher.give_back(relay)

    # more of them

    def _consider_more(self, relay: Relay) -> None:
        """Let a thread look whether this relay needs more workers."""
        if relay in self._scaling or relay.workers >= relay.limit or not self._dispatcher.is_waited_for(relay):
            return
        with self._mutex:
            if relay in self._scaling:
                return  # pragma: no cover - another thread was faster since the question above
            over = self._scaling[relay] = threading.Event()
        try:
            self._start_thread(lambda: self._scale(relay, over))
        except RuntimeError:  # then there are no more than we are
            self._scaling.pop(relay, None)

    def _scale(self, relay: Relay, over: threading.Event) -> None:
        busy = _BUSY_TOGETHER if self._crew(relay).is_together else _BUSY
        signal, meter = self._context.signal, Meter(self._context.clock, busy)
        relay.lanes.processes = self._dispatcher.processes
        window = 0.0 if relay.lanes.is_far() else _WINDOW[0]
        try:
            while not over.wait(window) and not signal.stopped and self._dispatcher.is_waited_for(relay):
                relay.lanes.queue_wait = self._dispatcher.queue_wait()
                relay.lanes.look()
                is_waiting = not window or meter.is_waiting()
                is_found_far = relay.lanes.are_guessed and relay.lanes.is_far()
                if is_waiting and self._may_double(relay):
                    with contextlib.suppress(RuntimeError):  # the system has no more threads
                        self._double(relay, all_at_once=not window or is_found_far)
                elif not (is_waiting and relay.lanes.are_guessed):
                    window = min(window * 2, _WINDOW[1])
                window = max(window, _WINDOW[0])
        finally:
            with self._mutex:
                self._scaling.pop(relay, None)

    def _may_double(self, relay: Relay) -> bool:
        is_ahead = relay.is_ahead or self._dispatcher.is_ahead(relay)
        return relay.workers < self._most(relay) and not is_ahead and not self._context.trouble.is_lasting

    def _most(self, relay: Relay) -> int:
        """Return how many workers there may be, if they are not there yet."""
        lanes = relay.lanes
        return int(min(relay.limit, lanes.worth, lanes.paid_by(self._dispatcher.waiting())))

    def _double(self, relay: Relay, *, all_at_once: bool) -> None:
        most = self._most(relay)
        with relay.mutex:
            step = most if all_at_once else max(relay.workers, relay.lanes.few - relay.workers)
            more = max(0, min(step, most - relay.workers))
        for _ in range(more):
            with relay.mutex:
                relay.workers += 1
            self._start(relay)

    def _start(self, relay: Relay) -> None:
        """Start a worker that was counted already.  Raises `RuntimeError` if the system has no thread for it."""
        self._crew(relay)  # made before the thread begins, which would have to wait until it is known here
        try:
            self._start_thread(lambda: self.guarded_work(relay))
        except BaseException:
            self._sign_off(relay)
            raise

    def guarded_work(self, relay: Relay) -> None:
        """Be a worker, counted already; trouble with the queue ends it, and nothing else."""
        self._crew(relay).carry(self._guarded_steps(relay))

    def _guarded_steps(
        self, relay: Relay, failures: list[BaseException] | None = None
    ) -> Generator[int | None, bool | None, None]:
        """Be a worker, in steps, of which the processor's thread learns with what trouble they ended.

        :param failures: for what is raised in the caller's thread; None: it is told as any trouble
        """
        caller = threading.get_ident()
        try:
            yield from self._steps(relay)
        except GeneratorExit:
            raise
        except BaseException as error:  # the processor's thread waits for the end of the trouble
            if is_wish_to_end(error):
                raise
            if failures is not None and threading.get_ident() == caller:
                failures.append(error)
            else:
                self._context.trouble.happened(error)
        if failures is None and not relay.workers:
            self._when_idle()

    def _start_thread(self, work: Callable[[], None]) -> None:
        def run() -> None:
            try:
                work()
            finally:
                with self._mutex:
                    self._threads.discard(threading.current_thread())

        thread = threading.Thread(target=run, name=f"{self._name}-worker", daemon=True)
        with self._mutex:  # a wait for all threads never sees one that has not begun
            thread.start()
            self._threads.add(thread)
