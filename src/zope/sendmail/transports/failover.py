"""Mailers that are made of several: the next one when a relay cannot be used, or a share of the mail for each.

Only a relay that cannot be used (fault), or that wants less mail for the moment, gives its mail to the next one, and
only for recipients about whom it said nothing final.  What it answers about a mail stands: a recipient whose mail it
has, or may have (unknown), is never given to a second relay; what it defers is for the queue to try again.
"""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from math import inf
from typing import Any, BinaryIO

from zope.interface import implementer

from zope.sendmail.errors import InvalidSettings
from zope.sendmail.interfaces import (
    ICollectiveSession,
    IJob,
    IJobSource,
    ISession,
    ISessionMailer,
    IStreamingSession,
)
from zope.sendmail.lifecycle.outcome import Answer, Outcome, Reply
from zope.sendmail.lifecycle.relaystate import RelayState
from zope.sendmail.lifecycle.throttling import TooMuch, complaints_in, too_much
from zope.sendmail.mailer import open_session
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.relayname import address_of
from zope.sendmail.reporting import maillog
from zope.sendmail.smtp.pipeline import Result, Step, results_of, stream_in_steps
from zope.sendmail.system.clock import Clock
from zope.sendmail.system.forklock import ForkLock
from zope.sendmail.transports.circuitbreaker import CircuitBreaker
from zope.sendmail.transports.givenjobs import GivenJobs
from zope.sendmail.transports.innerlimits import InnerLimits, relay_states_of
from zope.sendmail.transports.onemailcalls import OneMailCalls

_Ask = Callable[[ISession, Envelope], Outcome]


#: A relay that says so often in a row that there are too many connections is left out for a while.
_CROWDED = 3


class Member:
    """One of several mailers, with its weight and with what is known about its relay."""

    def __init__(self, mailer: Any, weight: int, clock: Clock) -> None:
        if weight < 1:
            raise InvalidSettings(f"the weight {weight} is less than 1; leave out a mailer that shall get no mail")
        self.mailer = mailer
        self.weight = weight
        #: How much mail is owed to it.
        self.credit = 0
        #: How often in a row its relay wanted less.
        self.crowded = 0
        self.circuit = CircuitBreaker(clock, maillog.relay_left_out)
        self._clock = clock
        #: What its relay is called, when it was asked last, and since when it can, or cannot, be used.
        self._relay, self._asked, self._since = "", 0.0, 0.0

    def heard(self, outcome: Outcome, complaint: Reply | None) -> None:
        """Leave the relay out if it cannot be used, or wants less mail; not at once for a connection too many."""
        was_usable = self.circuit.fault is None
        if complaint is None:
            self.crowded = 0
            self.circuit.heard(outcome)
        else:
            self.crowded += 1
            if too_much(complaint) is TooMuch.MAILS or self.crowded >= _CROWDED:
                self.circuit.heard(Outcome(outcome.relay, {}, complaint))
        self._relay, self._asked = outcome.relay, self._clock.time()
        if not self._since or was_usable is not (self.circuit.fault is None):
            self._since = self._asked

    def state(self, now: float) -> RelayState:
        """Return what is known of its relay; `now` is in seconds since the epoch."""
        fault = self.circuit.fault
        address = address_of(self.mailer)
        return RelayState(
            self._relay or address or type(self.mailer).__name__,
            address,
            fault=fault,
            since=self._since,
            probe=now + self.circuit.pause() if fault is not None else 0.0,
            asked=self._asked,
            failures=self.circuit.failures,
            members=tuple(relay_states_of(self.mailer, now)),
        )


class SeveralMailers(InnerLimits, OneMailCalls):
    """What failover and balance have in common.  Concurrency: any thread."""

    clock: Clock = Clock()

    def __init__(self, shares: Iterable[tuple[Any, int]], clock: Clock | None) -> None:
        if clock is not None:
            self.clock = clock
        self.members = [Member(mailer, weight, self.clock) for mailer, weight in shares]

    @property
    def mailers(self) -> tuple[Any, ...]:
        """See `InnerLimits`."""
        return tuple(member.mailer for member in self.members)

    def open_session(self) -> ISession:
        """See `ISessionMailer`.  Raises `InvalidSettings` if there are no mailers."""
        return self._open(interactive=False)

    def open_interactive_session(self) -> ISession:
        """See `OneMailCalls`."""
        return self._open(interactive=True)

    def _open(self, *, interactive: bool) -> ISession:
        return SeveralSession(self, interactive=interactive)

    def order(self) -> list[Member]:
        """Return the members to try with the next mail, one after the other; never none.

        If all relays are in trouble, that is the one whose time to be tried again comes first.
        """
        usable = [member for member in self.members if not member.circuit.pause()]
        return self.arranged(usable) if usable else [min(self.members, key=lambda member: member.circuit.pause())]

    def relay_states(self, now: float) -> list[RelayState]:
        """See `InnerLimits`."""
        return [member.state(now) for member in self.members]

    @abstractmethod
    def arranged(self, usable: list[Member]) -> list[Member]:
        """Return the usable members in the order in which they are to be tried."""


@implementer(ISessionMailer)
class FailoverMailer(SeveralMailers):
    """The first of `mailers` whose relay can be used.

    A relay that could not be used is left out for five seconds, then for ten, at most for five minutes; afterwards mail
    goes to it again.
    """

    def __init__(self, mailers: Iterable[Any] = (), *, clock: Clock | None = None) -> None:
        super().__init__(((mailer, 1) for mailer in mailers), clock)

    def _open(self, *, interactive: bool) -> ISession:
        return FailoverSession(self, interactive=interactive)

    def arranged(self, usable: list[Member]) -> list[Member]:
        """See `SeveralMailers`."""
        return usable


@implementer(ISessionMailer)
class BalancedMailer(SeveralMailers):
    """Each of several mailers gets its share; `shares` are pairs of mailer and weight, a whole number.

    Weights 3 and 1 give the mails a a b a, a a b a, ... (smooth weighted round robin).  A relay that cannot be used
    gets nothing meanwhile, as in `FailoverMailer`.
    """

    def __init__(self, shares: Iterable[tuple[Any, int]] = (), *, clock: Clock | None = None) -> None:
        super().__init__(shares, clock)
        self._mutex = ForkLock()

    def arranged(self, usable: list[Member]) -> list[Member]:
        """See `SeveralMailers`."""
        with self._mutex:
            for member in usable:
                member.credit += member.weight
            arranged = sorted(usable, key=lambda member: -member.credit)
            arranged[0].credit -= sum(member.weight for member in usable)
        return arranged


class TriedMail:
    """A mail, and what the relays of several members have said about it."""

    def __init__(self, envelope: Envelope) -> None:
        self.envelope = envelope
        self.replies: dict[str, Reply] = {}
        #: The relay that was asked last, and why it took no recipient if that is because it wants less mail.
        self.relay = ""
        self.complaint: Reply | None = None

    @property
    def rest(self) -> list[str]:
        """The recipients who have no final answer."""
        return [who for who in self.envelope.recipients if _is_open(self.replies.get(who))]

    def add(self, member: Member, outcome: Outcome) -> bool:
        """Take what a member's relay has said; return whether that can be used."""
        self.relay = outcome.relay
        self.complaint = _complaint(outcome)
        member.heard(outcome, self.complaint)
        self.replies.update(outcome.replies)
        return outcome.fault is None and self.complaint is None


@implementer(ICollectiveSession)
class SeveralSession:
    """See `ISession`.  A conversation with each relay that got mail, all of them kept."""

    def __init__(self, mailer: SeveralMailers, *, interactive: bool) -> None:
        if not mailer.members:
            raise InvalidSettings(f"{type(mailer).__name__} has no mailers; name at least one")
        self._mailer = mailer
        self._interactive = interactive
        self._sessions: dict[Member, ISession] = {}
        #: The members that agreed to a mail in `verify`, to be asked first in `transfer`.
        self._agreed: dict[Envelope, Member] = {}

    @property
    def relay(self) -> str:
        """See `ISession`: all of them."""
        return " or ".join(self._session(member).relay for member in self._mailer.members)

    def verify(self, envelope: Envelope, message: BinaryIO) -> Outcome:
        """See `ISession`."""
        start = message.tell()

        def ask(session: ISession, part: Envelope) -> Outcome:
            message.seek(start)
            return session.verify(part, message)

        return self._asked(envelope, ask, self._mailer.order(), agreed=self._agreed)

    def verify_together(self, mails: Sequence[tuple[Envelope, BinaryIO]]) -> list[Outcome | None]:
        """See `ICollectiveSession`.  What the relay that is next does not agree to has to be asked about alone."""
        outcomes: list[Outcome | None] = [None] * len(mails)
        shares: dict[Member, list[int]] = {}
        for number in range(len(mails)):
            shares.setdefault(self._mailer.order()[0], []).append(number)
        for member, numbers in shares.items():
            together = getattr(self._session(member), "verify_together", None)
            if together is not None:
                for number, outcome in zip(numbers, together([mails[each] for each in numbers]), strict=True):
                    if outcome is not None and _complaint(outcome) is None:
                        outcomes[number], self._agreed[mails[number][0]] = outcome, member
        return outcomes

    def transfer(self, envelope: Envelope, message: BinaryIO, intend: Callable[[], None]) -> Outcome:
        """See `ISession`.  `message` must be seekable."""
        start = message.tell()

        def ask(session: ISession, part: Envelope) -> Outcome:
            message.seek(start)
            return session.transfer(part, message, intend)

        return self._asked(envelope, ask, self._order_for(envelope))

    def rest(self) -> None:
        """See `ISession`."""
        for session in self._sessions.values():
            session.rest()

    def close(self) -> None:
        """See `ISession`."""
        sessions, self._sessions = self._sessions, {}
        self._agreed = {}
        for session in sessions.values():
            session.close()

    def _order_for(self, envelope: Envelope) -> list[Member]:
        agreed = self._agreed.pop(envelope, None)
        if agreed is None:
            return self._mailer.order()
        return [agreed, *(each for each in self._mailer.members if each is not agreed and not each.circuit.pause())]

    def _asked(
        self, envelope: Envelope, ask: _Ask, order: list[Member], agreed: dict[Envelope, Member] | None = None
    ) -> Outcome:
        """Ask one member after the other for the recipients who have no final answer, until one can be used.

        Those that could are noted in `agreed`.
        """
        return self._go_on(TriedMail(envelope), ask, order, agreed)

    def _go_on(
        self, mail: TriedMail, ask: _Ask, order: list[Member], agreed: dict[Envelope, Member] | None = None
    ) -> Outcome:
        """Do so with the recipients who have no final answer yet."""
        for member in _admitted(order):
            rest = mail.rest
            if not rest:
                return Outcome(mail.relay, mail.replies)
            if mail.add(member, ask(self._session(member), mail.envelope.only(rest))):
                if agreed is not None:
                    agreed[mail.envelope] = member
                return Outcome(mail.relay, mail.replies)
        return Outcome(self.relay, mail.replies, None if mail.complaint else self._fault())

    def _fault(self) -> Reply:
        """Return why none of them can be used."""
        known = ((self._session(member).relay, member.circuit.fault) for member in self._mailer.members)
        return Reply(Answer.DEFERRED, "; ".join(f"{relay}: {fault}" for relay, fault in known if fault is not None))

    def _session(self, member: Member) -> ISession:
        if member not in self._sessions:
            self._sessions[member] = open_session(member.mailer, interactive=self._interactive)
        return self._sessions[member]


@implementer(IStreamingSession)
class FailoverSession(SeveralSession):
    """See `IStreamingSession`.

    The mails of a stream go through a stream of the first member whose relay can be used.  A mail that finds that it
    cannot goes to the others by itself; those behind it go to the next member, and to the first one again as soon as
    its relay may be tried.
    """

    #: Whether a stream calls `IJobSource`'s ``let_go()``.
    lets_go = True

    def stream(self, jobs: IJobSource) -> Generator[tuple[IJob, Result], None, None]:
        """See `IStreamingSession`."""
        return results_of(self.stream_in_steps(jobs))

    def stream_in_steps(self, jobs: IJobSource) -> Generator[Step, bool | None, None]:
        """Do the same in steps; see `Stream.steps`."""
        given = GivenJobs(jobs)
        while True:
            if given.may_wait():
                yield None
            if not given.has_next():
                return
            yield from self._stream_through(next(_admitted(self._mailer.order())), given)

    def _stream_through(self, member: Member, given: GivenJobs) -> Generator[Step, bool | None, None]:
        """Send mail through a member as long as it is the first that can be used."""
        session = self._session(member)
        given.begin(lambda: self._mailer.order()[0] is member, lets_go=getattr(session, "lets_go", False))
        steps, told = stream_in_steps(session, given), None
        with contextlib.closing(steps), contextlib.suppress(StopIteration):
            while True:
                step = steps.send(told)
                told = None
                if not isinstance(step, tuple):
                    told = yield step
                    continue
                job, result = step
                given.ended(job)
                mail = TriedMail(job.envelope)
                if isinstance(result, Exception) or mail.add(member, result):
                    yield step
                    continue
                steps.close()
                given.take_back()
                given.let_go()  # it may take long
                yield None
                yield job, self._result_elsewhere(job, mail, member)
                return

    def _result_elsewhere(self, job: IJob, mail: TriedMail, member: Member) -> Result:
        """Send to the others what is left of a mail, as `transfer` does."""
        order = [each for each in self._mailer.order() if each is not member and not each.circuit.pause()]
        try:
            return self._go_on(mail, lambda session, part: session.transfer(part, job.open(), job.intend), order)
        except Exception as error:  # noqa: BLE001 - one mail's trouble is its own result
            return error

    def waited(self) -> float:
        """Return the shortest time that a session has waited for its relay, as `SMTPSession.waited` does."""
        return min((each.waited() for each in self._sessions.values() if hasattr(each, "waited")), default=inf)

    def distance(self) -> float | None:
        """Return how far away the first relay is that can be used, as `SMTPSession.distance` does."""
        tells: Callable[[], float | None] | None
        tells = getattr(self._sessions.get(self._mailer.order()[0]), "distance", None)
        return None if tells is None else tells()


def _admitted(order: list[Member]) -> Iterator[Member]:
    """Return those to ask: a relay that may be well again is tried by one conversation at a time.  Never none."""
    return (member for member in order if member is order[-1] or member.circuit.admits())


def _complaint(outcome: Outcome) -> Reply | None:
    """Return what the relay said if it took no recipient because it wants less mail."""
    if outcome.having(Answer.ACCEPTED) or outcome.having(Answer.UNKNOWN):
        return None
    return next(iter(complaints_in(outcome).values()), None)


def _is_open(reply: Reply | None) -> bool:
    return reply is None or reply.answer is Answer.DEFERRED
