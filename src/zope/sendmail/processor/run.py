"""One run of a processor over its queue: drain what is due, wait, until stopped.

With one relay it works in the caller's thread; with several it finds out which relay gets each message, and each relay
has threads of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from zope.sendmail.interfaces import IMailQueue
from zope.sendmail.processor.context import SLICE, Context
from zope.sendmail.processor.dispatcher import Dispatcher
from zope.sendmail.processor.doubts import DoubtfulMail
from zope.sendmail.processor.expiry import RejectedExpiry
from zope.sendmail.processor.pool import WorkerPool
from zope.sendmail.processor.probes import Probes
from zope.sendmail.processor.registry import RelayRegistry
from zope.sendmail.processor.worker import is_wish_to_end
from zope.sendmail.system.sidebyside import side_by_side

#: Seconds between two looks for mail of which another process is making files, and how often a pass waits so long.
_WAIT, _MOST_WAITS = 0.1, 300


class NextLook:
    """When a processor has to look at its queue again.

    :param interval: seconds until then at most

    Concurrency: any thread.
    """

    def __init__(self, queue: IMailQueue, relays: RelayRegistry, interval: float) -> None:
        self._queue = queue
        self._relays = relays
        self._interval = interval

    def wait(self) -> None:
        """Return when there may be something to do."""
        self._queue.wait(min(self._seconds(), self._interval))

    def bring_forward(self) -> None:
        """End a wait that is too long: the last worker of a relay may have left something that is due before."""
        if self._seconds() < self._interval:
            self._queue.wake()

    def is_due(self) -> bool:
        """Return whether something is due now whose relay can be used."""
        if self._relays.is_single:
            return self._queue.next_due() == 0.0 and self._relays.default.pause() == 0.0
        parked = self._queue.parked()
        return self._queue.next_due() == 0.0 or any(relay.name in parked and relay.room() for relay in self._relays)

    def _seconds(self) -> float:
        expiry = self._queue.next_expiry()
        return self._until_due() if expiry is None else min(expiry, self._until_due())

    def _until_due(self) -> float:
        due = self._queue.next_due()
        seconds = self._interval if due is None else due
        if self._relays.is_single:
            relay = self._relays.default
            return self._interval if relay.workers else max(seconds, relay.pause())
        parked = self._queue.parked()
        idle = [relay for relay in self._relays if relay.name in parked and not relay.workers]
        return min([seconds, *(relay.pause() for relay in idle)])


class Run:
    """One run over one queue.

    :param interval: seconds between two looks when nothing wakes it
    :param name: begins the names of threads
    :param before_rest: called before it waits
    :param keep_rejected: seconds after which rejected mail is removed; None: it is kept
    """

    def __init__(
        self,
        context: Context,
        queue: IMailQueue,
        relays: RelayRegistry,
        *,
        interval: float,
        name: str,
        before_rest: Callable[[], None] = lambda: None,
        keep_rejected: float | None = None,
    ) -> None:
        self._context = context
        self._signal = context.signal
        self._trouble = context.trouble
        self._queue = queue
        self._relays = relays
        self._before_rest = before_rest
        self._probes = Probes(queue, relays)
        self._expiry = RejectedExpiry(queue, context.clock, keep_rejected)
        self._doubts = DoubtfulMail(queue, context.clock)
        self._next_look = NextLook(queue, relays, interval)
        self.dispatcher = Dispatcher(context, queue, relays)
        self.pool = WorkerPool(context, self.dispatcher, name, self._next_look.bring_forward)

    def until_stopped(self) -> None:
        """Drain the queue until the processor is stopped or has finished."""
        while not self._signal.is_ending:
            self.guarded(self._drain)
            self.guarded(self._give_up)
            self.guarded(self._expiry.expire)
            self.guarded(self._doubts.tell)
            self.guarded(self._rest)
        if self._signal.finishing and not self._signal.stopped:
            self.guarded(self._begin_anew)
            self.once()

    def once(self) -> None:
        """Drain what is due, and what becomes due meanwhile."""
        self.guarded(self._expiry.expire)
        self.guarded(self._doubts.tell)
        waits = iter(range(_MOST_WAITS))
        while not self._signal.stopped:
            self.guarded(self._give_up)
            self.guarded(self._drain)
            self.pool.end()
            if self._trouble.count or not (self._next_look.is_due() or self._is_awaiting(waits)):
                break

    def _is_awaiting(self, waits: Iterator[int]) -> bool:
        """Wait a moment for mail of which another process is making files; False if there is none, or for too long."""
        awaits_files = getattr(self._queue, "awaits_files", False) and next(waits, None) is not None
        return awaits_files and self._context.sleep(_WAIT)

    def end(self) -> None:
        """Let all workers finish what they have in hand, and close the conversations and the queue."""
        self.pool.end()
        side_by_side([session.close for relay in self._relays for session in relay.end()])
        self._context.state_report.end()
        self._queue.close()

    def guarded(self, step: Callable[[], Any]) -> None:
        """Do a step; trouble with the queue is logged and waited for, never raised."""
        try:
            step()
        except BaseException as error:  # the thread cannot die
            if is_wish_to_end(error):
                self._signal.stopped = True
                raise
            self._trouble.happened(error)
        while self._trouble.is_lasting and not self._signal.stopped:  # here, not in a worker: else many would wait
            self._context.clock.sleep(SLICE)

    def _drain(self) -> None:
        """Try everything that is due."""
        self._probes.heed()
        if not self._relays.is_single:
            self.dispatcher.route(self.pool.call)
            self.pool.fill_in()
        elif self.pool.joins(self._relays.default):
            self.pool.work(self._relays.default)
        else:
            return
        self._trouble.ended()

    def _give_up(self) -> None:
        """End mail whose time is over, whatever it waits for."""
        self.dispatcher.refusals.give_up(at_once=True)

    def _begin_anew(self) -> None:
        """Forget what is known of the queue, so that everything that was committed until now is found."""
        self.pool.end()
        self._queue.close()

    def _rest(self) -> None:
        """Wait until there may be something to do."""
        self._before_rest()
        self._context.state_report.rest()
        for relay in self._relays:
            relay.rest()
        if not self._signal.is_ending:  # said since the last look; the queue could not be woken then
            self._next_look.wait()
