"""Who works for a relay: lanes, in threads of their own, as many as are worth while.

One begins.  As long as more is waiting than it can do, another thread stands by and looks: if the process mostly waits
for the relay, the lanes are doubled, up to the relay's limit; if it is busy itself, more of them would only get in each
other's way.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from zope.sendmail.clock import Clock
from zope.sendmail.intake import Intake
from zope.sendmail.lane import Lane
from zope.sendmail.relays import Job, Relay

if TYPE_CHECKING:
    from zope.sendmail.processor import QueueProcessorThread

#: Seconds between two looks of the one who stands by: at first, and at most.
_WINDOW = (0.02, 0.5)

#: A process that uses more than this part of a processor is not waiting for a relay.
_BUSY = 0.75

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


class Crew:
    """The lanes of all relays of a processor.  Concurrency: any thread."""

    def __init__(self, processor: QueueProcessorThread) -> None:
        self._processor = processor
        self._mutex = threading.Lock()
        self._threads: set[threading.Thread] = set()
        self._standing_by: dict[Relay, threading.Event] = {}
        self.intake: Intake | None = None

    def call(self, relay: Relay) -> None:
        """See that somebody works for this relay."""
        with relay.mutex:
            if relay.lanes:
                return
            relay.lanes += 1
        self._start(relay)

    def joins(self, relay: Relay) -> bool:
        """Whether the caller may `work` for this relay; if so, it is counted."""
        with relay.mutex:
            if relay.pause() or relay.lanes >= relay.limit:
                return False
            relay.lanes += 1
            return True

    def work(self, relay: Relay) -> None:
        """Be a lane until nothing is left to do for this relay; it was counted in `Relay.lanes` already."""
        lane = Lane(self._processor, relay, relay.session())
        try:
            while self._goes_on(relay):
                job = self._next(relay)
                if job is None:
                    return
                self._see_whether_more_are_needed(relay)
                self._attempt(relay, lane, job)
            self._leave(relay)
        except BaseException:
            self._leave(relay)
            raise
        finally:
            relay.put_back(lane.session)

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
        fits = relay.lanes <= 1 or relay.lanes <= relay.limit
        return fits and not self._processor.is_stopped and relay.pause() == 0.0

    def _next(self, relay: Relay) -> Job | None:
        """The next message; when there is none, this lane is not counted any more."""
        assert self.intake is not None
        while True:
            job = self.intake.next_for(relay)
            if job is not None:
                return job
            with relay.mutex:
                if not relay.hand:  # else somebody put in a message since
                    relay.lanes -= 1
                    self._dismiss(relay)
                    return None

    def _leave(self, relay: Relay) -> None:
        """There may be more to do, but not for this lane."""
        assert self.intake is not None
        with relay.mutex:
            relay.lanes -= 1
            if relay.lanes == 0:
                self._dismiss(relay)
                self.intake.give_back(relay)

    def _attempt(self, relay: Relay, lane: Lane, job: Job) -> None:
        clock = self._processor.clock
        until = clock.monotonic() + relay.turn()
        while (left := until - clock.monotonic()) > 0 and not self._processor.is_stopped:
            clock.sleep(min(left, _SLICE))
        if self._processor.is_stopped:
            job.lease.release()
        else:
            lane.attempt(job)

    # more of them

    def _see_whether_more_are_needed(self, relay: Relay) -> None:
        assert self.intake is not None
        if relay in self._standing_by or relay.lanes >= relay.limit or not self.intake.is_waited_for(relay):
            return
        with self._mutex:
            if relay in self._standing_by:
                return
            over = self._standing_by[relay] = threading.Event()
        self._start_thread(self._stand_by, relay, over)

    def _stand_by(self, relay: Relay, over: threading.Event) -> None:
        assert self.intake is not None
        meter, window = Meter(self._processor.clock), _WINDOW[0]
        try:
            while not over.wait(window) and not self._processor.is_stopped and self.intake.is_waited_for(relay):
                if meter.is_waiting():
                    self._double(relay)
                else:
                    window = min(window * 2, _WINDOW[1])
        finally:
            with self._mutex:
                self._standing_by.pop(relay, None)

    def _double(self, relay: Relay) -> None:
        with relay.mutex:
            more = min(relay.lanes, relay.limit - relay.lanes)
            relay.lanes += max(0, more)
        for _ in range(more):
            self._start(relay)

    def _dismiss(self, relay: Relay) -> None:
        """Nothing is waiting any more."""
        over = self._standing_by.get(relay)
        if over is not None and relay.lanes == 0:
            over.set()

    def _start(self, relay: Relay) -> None:
        self._start_thread(self._processor.guarded_work, relay)

    def _start_thread(self, *what: object) -> None:
        def run() -> None:
            try:
                what[0](*what[1:])  # type: ignore[operator]
            finally:
                with self._mutex:
                    self._threads.discard(threading.current_thread())

        thread = threading.Thread(target=run, name=f"{self._processor.name}-helper", daemon=True)
        with self._mutex:
            self._threads.add(thread)
        thread.start()
