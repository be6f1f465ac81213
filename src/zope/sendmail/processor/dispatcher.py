"""Claims messages and says which relay gets each.

What no relay can be asked about is set aside here; what goes to a relay that cannot take it now is parked, so that it
delays no mail of another relay.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable

from zope.sendmail.errors import InvalidRelay
from zope.sendmail.interfaces import ILease, IMailQueue
from zope.sendmail.lifecycle.retry import set_aside
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.terms import PLAIN, Priority
from zope.sendmail.processor.context import Context
from zope.sendmail.processor.convoy import Convoy
from zope.sendmail.processor.job import Job, given_back_in_trouble
from zope.sendmail.processor.refusals import Refusals
from zope.sendmail.processor.registry import RelayRegistry
from zope.sendmail.processor.relay import Relay
from zope.sendmail.processor.turns import SharedTurns
from zope.sendmail.reporting import maillog
from zope.sendmail.reporting.reporter import MailId
from zope.sendmail.system.clock import Clock

#: So many messages that waited for a relay are taken up at a time when it can be used again.
_UNPARK = 8

#: Messages are reserved as many as are claimed in so many seconds, and not more than so many.
_SPAN, _AHEAD = 0.1, 128

#: Messages beyond which it does not matter how many are due.
ENOUGH = 1000

#: Is told which relay has something to do.
Call = Callable[[Relay], None]


class Pace:
    """How many messages are claimed within a tenth of a second.

    So many more may be reserved, for a queue for which each claim is a journey: they are sent before another process
    could have had them.  Concurrency: any thread; as well as possible.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._claims: deque[float] = deque(maxlen=_AHEAD)

    def ahead(self, messages: int = 1) -> int:
        """Return the pace, and count so many more messages."""
        now = self._clock.monotonic()
        claims = self._claims
        with contextlib.suppress(IndexError):  # another thread was faster
            while claims[0] < now - _SPAN:
                claims.popleft()
        count = len(claims)
        claims.extend([now] * messages)
        return count


class Dispatcher:
    """Between one queue and the relays of one processor.  Concurrency: any thread."""

    def __init__(self, context: Context, queue: IMailQueue, relays: RelayRegistry) -> None:
        self._context = context
        self._signal = context.signal
        self._queue = queue
        self._relays = relays
        self._pace = Pace(context.clock)
        self._turns = SharedTurns(queue, context.clock)
        self.refusals = Refusals(context, queue)
        self._mutex = threading.Lock()
        self._has_before: Callable[[Priority], bool] = getattr(queue, "has_before", _has_nothing)
        #: How many processes share the messages of the queue.
        self.processes: int = getattr(queue, "processes", 1)
        self._count_due: Callable[[int], int] | None = getattr(queue, "count_due", None)
        #: Seconds for which the queue is waited for with each mail, at least.
        self.queue_wait: Callable[[], float] = getattr(queue, "shortest_wait", lambda: 0.0)
        #: Whether the queue answers at once, so that no conversation gains from another one's wait for it.
        self.is_near: bool = getattr(queue, "answers_ahead", not hasattr(queue, "shortest_wait"))
        drain_bundles = getattr(queue, "drain_bundles", None)
        if relays.is_single and drain_bundles is not None:
            drain_bundles()

    def turn(self, relay: Relay) -> float:
        """Take one of the turns that all processors of the queue share; see `SharedTurns.turn`."""
        return self._turns.turn(relay)

    def is_ahead(self, relay: Relay) -> bool:
        """Return whether all those turns until now are taken."""
        return self._turns.is_ahead(relay)

    def next_for(self, relay: Relay, call: Call, convoy: Convoy, behind: Priority | None = None) -> Job | None:
        """Return the next message for this relay; None if there is none now.

        Messages for other relays that are met are put into the backlogs of those.

        :param convoy: of the worker; where there is one relay only, several messages are claimed together
        :param behind: the priority of the message in hand, if the next one is wanted ahead of its time.  Behind a low
            one there is no other low one: so high mail that comes now waits for the one in hand only.
        """
        is_behind_low = behind is Priority.LOW
        if self._relays.is_single:
            return self._claim_before_low(convoy) if is_behind_low else self._claim(convoy)
        while True:
            if relay.backlog:
                if is_behind_low and _is_low(relay.backlog):
                    return None
                with relay.mutex:
                    job = relay.backlog.popleft() if relay.backlog else None
                if job is not None and not self._has_expired(job):
                    return job
            with self._mutex:
                if not relay.backlog and not self._route_one(relay, call):
                    return None

    def follower(self, convoy: Convoy) -> Job | None:
        """Return the next of a convoy of usual priority; None if the processor stops, or other mail goes before."""
        if self._signal.stopped or self._has_before(Priority.NORMAL):
            return None
        return convoy.next()

    def claim_ahead(self, convoy: Convoy) -> None:
        """Fill a convoy, where there is one relay only."""
        if self._relays.is_single:
            self._fill(convoy)
            convoy.foresee()

    def _has_expired(self, job: Job) -> bool:
        """End a job whose mail's time is over since it was put into the backlog; return whether that was so."""
        if job.envelope.terms is PLAIN:
            return False
        with given_back_in_trouble([job.lease]):
            return self.refusals.end(job.lease)

    def route(self, call: Call) -> None:
        """Put everything that is due into the backlogs of its relays, or park it."""
        self._relays.expect_few()
        for relay in self._relays:
            self.take_up(relay)
        while not self._signal.stopped:
            with self._mutex:
                if not self._route_one(None, call):
                    return

    def take_up(self, relay: Relay, limit: int = _UNPARK) -> None:
        """Let as much of what is parked for the relay be claimed as it can take now, up to `limit` messages."""
        room = relay.room()
        if room:
            self._queue.unpark(relay.name, min(room, limit))

    def is_waited_for(self, relay: Relay) -> bool:
        """Return whether more is there for this relay than its workers have in hand."""
        if self._relays.is_single:
            return self._queue.next_due() == 0.0
        return bool(relay.backlog) or relay.name in self._queue.parked()

    def waiting(self) -> int:
        """Return how many messages are due, counted up to `ENOUGH`; that if the queue does not tell."""
        return self._count_due(ENOUGH) if self._relays.is_single and self._count_due is not None else ENOUGH

    def give_back(self, relay: Relay) -> None:
        """Park the backlog of a relay that has no worker any more."""
        with relay.mutex:
            while relay.backlog:
                relay.backlog.popleft().park(relay.name)

    def _claim(self, convoy: Convoy) -> Job | None:
        self._let_pass(convoy)
        while not self._signal.stopped:
            if convoy.jobs:
                return convoy.next()
            if not self._fill(convoy) and self._queue.next_due() != 0.0:
                break
        return None

    def _claim_before_low(self, convoy: Convoy) -> Job | None:
        """Claim what goes before a low message; what went before it a moment ago may be another worker's meanwhile."""
        job = self._claim(convoy) if self._has_before(Priority.LOW) else None
        if job is not None and job.envelope.terms.priority is Priority.LOW:
            job.lease.release()
            return None
        return job

    def _fill(self, convoy: Convoy) -> bool:
        """Claim messages for a convoy; return whether any could be claimed."""
        self.refusals.give_up()
        size = convoy.size()
        leases = deque(self._queue.claim(size, ahead=self._pace.ahead(size)))
        are_some = bool(leases)
        with given_back_in_trouble(leases):
            if leases and convoy.is_behind(leases[0].envelope.terms.priority):
                convoy.release()
            while leases:
                shared = self._share(leases[0])  # if that fails, it is given back with the others
                leases.popleft()
                if shared is not None:
                    convoy.add(shared[1])
        return are_some

    def _let_pass(self, convoy: Convoy) -> None:
        """Give back the messages of a convoy if something has come that goes before them.

        Those of several priorities go as they were claimed: else one whose turn has come would lose it.
        """
        if convoy.jobs and not convoy.are_mixed and self._has_before(convoy.jobs[0].envelope.terms.priority):
            convoy.release()

    def _route_one(self, relay: Relay | None, call: Call) -> bool:
        """Claim one message and put it where it belongs; False if nothing is due."""
        if self._relays.are_many:
            self._relays.forget(self._queue.parked())
        if relay is not None:
            self.take_up(relay, 1)
        self.refusals.give_up()
        leases = self._queue.claim(1, ahead=self._pace.ahead())
        for lease in leases:
            with given_back_in_trouble([lease]):
                shared = self._share(lease)
            if shared is not None:
                self._place(*shared, call)
        return bool(leases) or self._queue.next_due() == 0.0

    def _place(self, relay: Relay, job: Job, call: Call) -> None:
        with relay.mutex:
            if not relay.put(job):
                job.park(relay.name)
                return
        call(relay)

    def _share(self, lease: ILease) -> tuple[Relay, Job] | None:
        """Return which relay gets which part; None if none does, and then the lease has ended."""
        if lease.inherited is not None:
            self._context.reporter.inherited(lease)
        if lease.record.state is State.SENT:  # its owner died before it could remove it
            lease.settle(lease.record)
            return None
        if lease.record.state is State.HELD:
            maillog.held(lease.name, lease.record.note)
            lease.release()
            return None
        if self.refusals.end(lease):
            return None
        problem = lease.problem
        if not problem:
            try:
                return self._relays.share(lease)
            except InvalidRelay as error:
                problem = str(error)
        self._set_aside(lease, problem)
        return None

    def _set_aside(self, lease: ILease, problem: str) -> None:
        """End with a file that no relay can be asked about: a person has to look at it."""
        maillog.set_aside(lease.name, problem)
        mail, envelope = MailId.of(lease), lease.envelope
        record = set_aside(lease.record, envelope, problem, now=self._context.clock.time())
        lease.settle(record)
        replies = {who: record.replies[who] for who in (*envelope.recipients, *envelope.malformed)}
        self._context.reporter.set_aside(mail, replies)


def _has_nothing(_: Priority) -> bool:
    """Say of a queue that does not tell that nothing goes before a message."""
    return False


def _is_low(backlog: deque[Job]) -> bool:
    """Return whether the first job is a message of low priority; another thread may take it meanwhile."""
    with contextlib.suppress(IndexError):
        return backlog[0].envelope.terms.priority is Priority.LOW
    return False
