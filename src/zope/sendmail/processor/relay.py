"""One relay of a processor: whether it can be used, how fast, through how many connections, and what waits for it.

Trouble of one relay concerns no other.  Concurrency: any thread.
"""

from __future__ import annotations

import functools
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from zope.sendmail.interfaces import ISession
from zope.sendmail.lifecycle.outcome import Answer, Outcome, Reply, printable
from zope.sendmail.mailer import keeps_sessions, open_session
from zope.sendmail.processor.job import Job
from zope.sendmail.processor.lanes import Lanes
from zope.sendmail.processor.stopsignal import StopSignal
from zope.sendmail.processor.throttle import Hearing, MailInHand, Throttle
from zope.sendmail.reporting import maillog
from zope.sendmail.system.clock import Clock
from zope.sendmail.system.sidebyside import side_by_side
from zope.sendmail.transports.circuitbreaker import CircuitBreaker

#: Connections to one relay where neither processor nor mailer has a number: as many as Postfix makes
#: (default_destination_concurrency_limit).
MAX_CONNECTIONS = 20

#: Messages that wait for each connection, so that none waits for a claim, and few are out of other processes' reach.
_BACKLOG = 2

#: Seconds that sessions may take to rest, one after the other: a relay is waited for only if one is closed.
_MOMENT = 0.01

_NONE: Mapping[str, Reply] = {}
_NO_HAND = MailInHand()


class Relay:
    """What a processor knows about one relay, and what waits for it.

    :param name: names the relay in the queue, among the relays of its processor
    :param mailer: speaks with it; may be replaced at any time, also while connections are open
    :param connections: how many may be open; None: as many as are usual with the mailer
    :param signal: says whether the processor ends
    """

    def __init__(
        self,
        name: str,
        mailer: Any,
        clock: Clock,
        connections: int | None = None,
        *,
        signal: StopSignal | None = None,
    ) -> None:
        self.name = name
        self.mailer = mailer
        self.connections = connections
        self.circuit = CircuitBreaker(clock, self._tell_down)
        self.throttle = Throttle(clock)
        #: How many connections are worth while, if there may be more.
        self.lanes = Lanes()
        #: What waits for a worker; `workers` are those at work.  Both are changed under `mutex`.
        self.backlog: deque[Job] = deque()
        self.workers = 0
        #: Those of them that end as soon as the mail in hand has ended, since they are too many.
        self.leaving = 0
        self.mutex = threading.RLock()
        #: When it was asked last, seconds since the epoch; 0.0 for never.
        self.asked = 0.0
        #: Counts what was not only the yes to an ordinary mail: as long as it stays, the relay is as it was.
        self.news = 0
        #: Called when it can, or cannot, be used any more, or shows a limit.
        self.changed: Callable[[], None] = _nothing
        #: Called when it has answered for the first time.
        self.met: Callable[[], None] = _nothing
        self._clock = clock
        #: Jobs that were refused because of how much is sent, as long as no other mail was tried.
        self._put_by: list[Job] = []
        #: Sessions that no worker uses, and the mailer that they are of.
        self._idle: list[ISession] = []
        self._idle_of: Any = None
        self._signal = signal or StopSignal()
        #: The mailer that was asked last, and how many connections are usual with it.
        self._usual: tuple[Any, int] = (None, 1)

    # may it be used?

    def pause(self) -> float:
        """Return the seconds until the relay may be tried again."""
        return max(self.circuit.pause() if self.circuit.failures else 0.0, self.throttle.pause())

    @property
    def fault(self) -> Reply | None:
        """Why the relay could not be used when it was asked last, or None."""
        return self.circuit.fault or (self.throttle.reason if self.throttle.pause() else None)

    @property
    def is_on_probation(self) -> bool:
        """Whether the last attempt failed: one mail at a time until one gets through."""
        return self.circuit.failures > 0

    def heard(self, outcome: Outcome, complaints: Mapping[str, Reply] = _NONE, hand: MailInHand = _NO_HAND) -> Hearing:
        """Learn from an outcome: a fault pauses the relay, anything else ends the pause.

        While other connections work, a fault is about this one: the relay wants fewer.

        :param complaints: the replies that say that it is too much
        :param hand: the mail that it is about
        """
        self._note_asked()
        with self.mutex:
            self.news += 1
            was_down = self.circuit.failures > 0
            hearing = self.throttle.heard(outcome, complaints, self.workers, hand)
            if hearing is Hearing.USUAL:
                self.circuit.heard(outcome)
            elif hearing is Hearing.DOWN:
                self.circuit.heard(Outcome(outcome.relay, {}, self.throttle.reason))
        if was_down or outcome.fault is not None or hearing is not Hearing.USUAL:
            self.changed()
        return hearing

    @property
    def is_usual(self) -> bool:
        """Whether a mail that it takes would teach nothing about it: it was no trouble, and has shown no limit."""
        return not (self.circuit.failures or self._put_by) and self.throttle.is_usual

    def took(self, mails: int, relay: str) -> None:
        """Learn that it took so many mails, as usual.

        :param relay: as outcomes name it
        """
        self._note_asked()
        with self.mutex:
            self.throttle.took(mails, relay)

    def end_pause(self) -> None:
        """Let it be tried now."""
        self.circuit.end_pause()
        self.throttle.end_pause()

    # how many connections, how fast

    @property
    def limit(self) -> int:
        """How many connections may be open now."""
        if self.circuit.failures:
            return 1
        mailer = self.mailer
        own = getattr(mailer, "connections", None)
        if mailer is not self._usual[0]:
            self._usual = mailer, MAX_CONNECTIONS if keeps_sessions(mailer) else 1
        limit = self.connections or self._usual[1]
        return self.throttle.limit(min(limit, own or limit))

    @property
    def has_rate(self) -> bool:
        """Whether mails have to wait for their turn."""
        return bool(getattr(self.mailer, "rate", None) or self.shared_rate) or self.throttle.has_rate

    @property
    def shared_rate(self) -> float | None:
        """Mails a second that all processors of the queue may send together; None: as many as they like."""
        return getattr(self.mailer, "shared_rate", None) or None

    @property
    def address(self) -> str:
        """What the relay is called by all processors: its address, or its name where its mailer has none."""
        hostname = getattr(self.mailer, "hostname", None)
        return f"{hostname}:{getattr(self.mailer, 'port', 25)}" if isinstance(hostname, str) else self.name

    def turn(self) -> float:
        """Take the turn of a mail, if the mailer's `rate` and the relay allow one now.

        :returns: 0.0, or the seconds after which to ask again
        """
        return self.throttle.turn(getattr(self.mailer, "rate", None))

    @property
    def is_ahead(self) -> bool:
        """Whether all turns until now are taken, so that further connections would only wait."""
        return self.has_rate and self.throttle.is_ahead

    # what it has to do

    @property
    def is_unused(self) -> bool:
        """Whether it has no worker and no backlog, and nothing about it has to be remembered."""
        with self.mutex:
            return not (self.workers or self.backlog or self.circuit.failures)

    def room(self) -> int:
        """Return how many more messages the backlog may take."""
        if self.pause():
            return 0
        if self.is_on_probation:
            return 0 if self.backlog or self.workers else 1
        return max(0, _BACKLOG * max(1, self.workers) - len(self.backlog))

    def put(self, job: Job) -> bool:
        """Put a job into the backlog, behind those of its priority; False if the relay cannot take it now: park it.

        What is parked for the relay and goes before the job is let go in its place, so that nothing stands in a backlog
        before what should be ahead of it, whichever thread finds that there is room.  A job of a higher priority than
        one that waits takes that one's place, which is parked.
        """
        with self.mutex:
            rank = _rank(job)
            last = self.backlog[-1] if self.backlog else None
            is_before = last is not None and rank < _rank(last)
            has_room = self.room() > 0
            if not has_room and (not is_before or self.pause()):
                return False
            if job.give_way(self.name):
                return True
            if not has_room:
                self.backlog.pop().park(self.name)
            place = len(self.backlog)
            while place and _rank(self.backlog[place - 1]) > rank:
                place -= 1
            self.backlog.insert(place, job)
            return True

    def put_by(self, job: Job) -> None:
        """Keep the lease of a mail that was refused, so that another mail is tried next."""
        with self.mutex:
            self.news += 1
            self._put_by.append(job)

    def give_back(self) -> bool:
        """Release what was put by, as if untried; return whether there was anything."""
        if not self._put_by:
            return False
        with self.mutex:
            jobs, self._put_by = self._put_by, []
        for job in jobs:
            job.lease.release()
        return bool(jobs)

    # conversations

    def session(self, mailer: Any) -> ISession:
        """Return a session of this mailer: an idle one, or a new one.  Raises what the mailer raises."""
        with self.mutex:
            outdated = [] if self._idle_of is mailer else self._take_idle()
            self._idle_of = mailer
            session = self._idle.pop() if self._idle else None
        side_by_side([each.close for each in outdated])
        if session is None:
            session = open_session(mailer)
            self.lanes.distance = getattr(session, "distance", None)
        return session

    def refused(self, error: BaseException) -> None:
        """Note that the mailer made no session: as long as that is so, its relay cannot be used."""
        self.heard(Outcome(self.name, {}, Reply(Answer.DEFERRED, f"there is no session: {printable(repr(error))}")))

    def put_back(self, session: ISession, mailer: Any) -> bool:
        """Keep a session that its worker needs no more.

        :param mailer: the one that made it
        :returns: False if it is to be closed: there is another mailer meanwhile, or it is one too many, since relays
            count idle connections as well
        """
        with self.mutex:
            if mailer is not self._idle_of or len(self._idle) + self.workers >= self.limit:
                return False
            self._idle.append(session)
            return True

    def rest(self) -> None:
        """Close what has been idle for too long.  As soon as that takes its time, side by side."""
        if not self._idle:
            return
        with self.mutex:
            idle, mailer = deque(self._take_idle()), self._idle_of  # no worker may get one meanwhile

        def rest(session: ISession) -> None:
            session.rest()
            if not self.put_back(session, mailer):
                session.close()

        begun = self._clock.monotonic()
        while idle and self._clock.monotonic() - begun < _MOMENT:
            rest(idle.popleft())
        side_by_side([functools.partial(rest, session) for session in idle])

    def end(self) -> list[ISession]:
        """Release what was put by; return the idle sessions, which the caller has to close."""
        self.give_back()
        with self.mutex:
            return self._take_idle()

    def _note_asked(self) -> None:
        is_first = not self.asked
        self.asked = self._clock.time()
        if is_first:
            self.met()

    def _tell_down(self, relay: str, fault: Reply, seconds: float) -> None:
        maillog.relay_down(relay, fault, None if self._signal.is_ending else seconds)

    def _take_idle(self) -> list[ISession]:
        idle, self._idle = self._idle, []
        return idle


def _rank(job: Job) -> int:
    return job.envelope.terms.priority.rank


def _nothing() -> None:
    """Do nothing: the processor does not tell of its relays."""
