"""The relays of a processor: whether each can be used, how fast, and through how many connections.

Trouble of one relay concerns no other.  Concurrency: any thread.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, count
from math import inf
from typing import TYPE_CHECKING, Any, BinaryIO

from zope.interface import implementer

from zope.sendmail.config.settings import Tls
from zope.sendmail.errors import InvalidRelay
from zope.sendmail.interfaces import IJob, ILease, ISession
from zope.sendmail.lifecycle.outcome import Answer, Outcome, Reply, printable
from zope.sendmail.lifecycle.record import Part, Record
from zope.sendmail.mailer import SMTPMailer, keeps_sessions, open_session
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.relayname import RelayName
from zope.sendmail.reporting import maillog
from zope.sendmail.system.clock import Clock
from zope.sendmail.transports.circuitbreaker import CircuitBreaker
from zope.sendmail.transports.redirect import refuse_detours

if TYPE_CHECKING:
    from zope.sendmail.message.routes import Routes

#: Connections to one relay, unless somebody says how many: as many as Postfix makes
#: (default_destination_concurrency_limit).
MAX_CONNECTIONS = 20

#: A relay that took something so many seconds ago works; what fails now is one connection too many.
_WORKS = 10.0

#: For so long a relay that did not like so many connections is asked for no more.
_MODEST = 300.0

#: Refusals within so many seconds are about the same connections.
_AT_ONCE = 1.0

#: Messages in hand for each connection, so that none waits for a claim, and few are out of others' reach.
_BACKLOG = 2

#: So many relays are worth a look at who is idle; within a pass, twice as many as were in use at the last look.
_MANY = 64

#: Seconds after which a message that waits for one of its relays is looked at again for the sake of another.
_PATIENCE = 60.0

_TOO_MANY = re.compile(r"too many|concurren|throttl|rate.?limit|slow down", re.IGNORECASE)


@implementer(IJob)
@dataclass(slots=True, eq=False)
class Job:
    """A message, and the part of its envelope that one relay gets.

    `part` is the name of that, if there are, or were, several; `others` are those that are not done, and `patience` is
    in how many seconds one of them may go if this one cannot.
    """

    lease: ILease
    envelope: Envelope
    part: str | None = None
    others: Mapping[str, Part] = field(default_factory=dict)
    patience: float = inf
    #: Its last byte may have gone.
    intended: bool = False

    def open(self) -> BinaryIO:
        """See `IJob`."""
        return self.lease.open()

    def intend(self) -> None:
        """See `IJob`."""
        self.lease.intend()
        self.intended = True

    def park(self, relay: Relay) -> None:
        """Its relay cannot take it now; the lease ends."""
        self.lease.park(relay.name, self.patience)


class Relay:
    """One relay of a processor.

    `mailer` is called whenever a conversation begins; `connections` says how many may be open, None: as usual.
    """

    def __init__(
        self, name: str, mailer: Callable[[], Any], clock: Clock, connections: Callable[[], int | None] = lambda: None
    ) -> None:
        self.name = name
        self.circuit = CircuitBreaker(clock, maillog.relay_down)
        #: What waits for a worker; `workers` are those at work.  Both are changed under `mutex`.
        self.backlog: deque[Job] = deque()
        self.workers = 0
        self.mutex = threading.RLock()
        self._mailer = mailer
        self._clock = clock
        self._connections = connections
        #: What nobody uses, and the mailer that it is of.
        self._idle: list[ISession] = []
        self._idle_of: Any = None
        self._worked_at = self._modest_until = float("-inf")
        self._modest = MAX_CONNECTIONS
        self._next_turn = float("-inf")
        #: The mailer that was asked last, and how many connections are usual with it.
        self._usual: tuple[Any, int] = (None, 1)

    # may it be used?

    def pause(self) -> float:
        """Seconds until the relay may be tried again."""
        return self.circuit.pause()

    @property
    def fault(self) -> Reply | None:
        """Why the relay could not be used when it was asked last, or None."""
        return self.circuit.fault

    @property
    def is_on_probation(self) -> bool:
        """Whether the last attempt failed: one mail at a time until one gets through."""
        return self.circuit.failures > 0

    def heard(self, outcome: Outcome) -> None:
        """Learn from an outcome: a fault pauses the relay, anything else ends the pause.

        While other connections work, a fault is about this one: the relay wants fewer.
        """
        with self.mutex:
            now = self._clock.monotonic()
            if self.workers > 1 and (_is_too_many(outcome) or (outcome.fault and now - self._worked_at < _WORKS)):
                if now >= self._modest_until - _MODEST + _AT_ONCE:  # several that are refused at once are one refusal
                    self._modest, self._modest_until = max(1, self.workers // 2), now + _MODEST
                    maillog.fewer_connections(outcome.relay, self._modest, _what_was_said(outcome))
                return
            if outcome.fault is None:
                self._worked_at = now
            self.circuit.heard(outcome)

    # how many connections, how fast

    @property
    def limit(self) -> int:
        """How many connections may be open now."""
        if self.is_on_probation:
            return 1
        mailer = self._mailer()
        own = getattr(mailer, "connections", None)
        if mailer is not self._usual[0]:
            self._usual = mailer, MAX_CONNECTIONS if keeps_sessions(mailer) else 1
        limit = self._connections() or self._usual[1]
        limit = min(limit, own or limit)
        return min(limit, self._modest) if self._clock.monotonic() < self._modest_until else limit

    @property
    def has_rate(self) -> bool:
        """Whether mails have to wait for their turn."""
        return bool(getattr(self._mailer(), "rate", None))

    def turn(self) -> float:
        """Take the next place in the row that the mailer's `rate` allows; seconds until then."""
        rate = getattr(self._mailer(), "rate", None)
        if not rate:
            return 0.0
        with self.mutex:
            now = self._clock.monotonic()
            at = max(now, self._next_turn)
            self._next_turn = at + 1.0 / rate
            return at - now

    @property
    def is_ahead(self) -> bool:
        """Whether all turns until now are taken, so that further connections would only wait."""
        return self.has_rate and self._next_turn > self._clock.monotonic()

    # what it has to do

    @property
    def is_unused(self) -> bool:
        """Whether nobody works for it, nothing is in its hand, and nothing about it has to be remembered."""
        with self.mutex:
            return not (self.workers or self.backlog or self.circuit.failures)

    def room(self) -> int:
        """How many more messages may be put into the hand."""
        if self.pause():
            return 0
        if self.is_on_probation:
            return 0 if self.backlog or self.workers else 1
        return max(0, _BACKLOG * max(1, self.workers) - len(self.backlog))

    # conversations

    @property
    def mailer(self) -> Any:
        """The mailer for conversations that begin now."""
        return self._mailer()

    def session(self, mailer: Any) -> ISession:
        """One of this mailer that nobody uses, or a new one."""
        with self.mutex:
            outdated = [] if self._idle_of is mailer else self._take_idle()
            self._idle_of = mailer
            session = self._idle.pop() if self._idle else None
        for each in outdated:
            each.close()
        return open_session(mailer) if session is None else session

    def refused(self, error: BaseException) -> None:
        """The mailer made no session: as long as that is so, its relay cannot be used."""
        self.heard(Outcome(self.name, {}, Reply(Answer.DEFERRED, f"there is no session: {printable(repr(error))}")))

    def put_back(self, session: ISession, mailer: Any) -> bool:
        """Nobody uses this session of `mailer` now.

        False if there is another mailer meanwhile, or if it is one too many: relays count idle ones as well.
        """
        with self.mutex:
            if mailer is not self._idle_of or len(self._idle) + self.workers >= self.limit:
                return False
            self._idle.append(session)
            return True

    def rest(self) -> None:
        """Close what has been idle for too long."""
        with self.mutex:
            idle, mailer = self._take_idle(), self._idle_of  # nobody may get one meanwhile
        for session in idle:
            session.rest()
            if not self.put_back(session, mailer):
                session.close()

    def close(self) -> None:
        """Say goodbye."""
        with self.mutex:
            idle = self._take_idle()
        for session in idle:
            session.close()

    def _take_idle(self) -> list[ISession]:
        idle, self._idle = self._idle, []
        return idle


class Relays:
    """All relays of a processor, made when they are first needed."""

    def __init__(
        self,
        default: Callable[[], Any],
        mailers: Mapping[str, Any],
        routes: Routes,
        clock: Clock,
        connections: Callable[[], int | None] = lambda: None,
    ) -> None:
        missing = sorted(set(routes.names) - set(mailers) - {routes.default})
        if missing:
            raise ValueError(f"the routes name the mailers {', '.join(missing)}, which were not given")
        self.routes = routes
        #: Whether there is no other relay than the default.
        self.is_single = routes.is_single
        self._mailers = mailers
        self._clock = clock
        self._connections = connections
        self._mutex = threading.Lock()
        self.default = Relay(routes.default or "default", default, clock, connections)
        self._relays: dict[RelayName | None, Relay] = {None: self.default}
        self._many = _MANY

    def refuse_detours(self) -> None:
        """See `zope.sendmail.transports.redirect`.  Raises `ValueError`."""
        mailers = {**self._mailers, self.routes.default: self.default.mailer}
        refuse_detours(self.routes, mailers.__getitem__)

    def __iter__(self) -> Iterator[Relay]:
        with self._mutex:
            return iter(list(self._relays.values()))

    def of(self, name: RelayName | None) -> Relay:
        """The relay of this name; None is the default."""
        name = self._of_mailer(name)
        with self._mutex:
            relay = self._relays.get(name)
            if relay is None:
                mailer = self._mailer(name) if name is not None else None
                relay = Relay(self._new_name(str(name)), lambda: mailer, self._clock, self._connections)
                self._relays[name] = relay
            return relay

    def expect_few(self) -> None:
        """A new pass begins: what was in use in the last one may not be in this one."""
        self._many = _MANY

    @property
    def are_many(self) -> bool:
        """Whether it is time to `forget` some."""
        return len(self._relays) > self._many

    def forget(self, waited_for: Collection[str]) -> None:
        """Forget the users of queue files of CPSMailAccess for whom nothing is done, planned or `waited_for`.

        Nobody else may ask for relays meanwhile.  Configured relays stay, and so do those in trouble.
        """
        with self._mutex:
            for name, relay in list(self._relays.items()):
                if name is not None and name.username and relay.name not in waited_for and relay.is_unused:
                    del self._relays[name]
                    relay.close()
            self._many = max(_MANY, 2 * len(self._relays))

    def _of_mailer(self, name: RelayName | None) -> RelayName | None:
        """The mailer that is meant by an address: its pauses, its rate and its connections are one."""
        if name is None or name.mailer or name.username:
            return name
        address = (name.hostname, name.port)
        if _address_of(self.default.mailer) == address:
            return None
        found = (key for key, mailer in self._mailers.items() if _address_of(mailer) == address)
        return next((RelayName(mailer=key) for key in found if key), name)

    def _new_name(self, name: str) -> str:
        """What is parked for a relay is known by its name, so each has its own."""
        taken = {relay.name for relay in self._relays.values()}
        return next(each for each in chain((name,), (f"{name} ({n})" for n in count(2))) if each not in taken)

    def share(self, lease: ILease) -> tuple[Relay, Job]:
        """Which relay is next to get the message, and which part of it.

        Raises `InvalidRelay` if the mail names one that it may not.
        """
        if self.is_single and lease.envelope.relay is None and not lease.record.parts:
            return self.default, Job(lease, lease.envelope)
        parts = self.routes.parts(lease.envelope)
        if len(parts) == 1 and not lease.record.parts:
            [(name, envelope)] = parts.items()
            return self.of(name), Job(lease, envelope)
        shares = [self._share_of(lease.record, name, envelope) for name, envelope in parts.items()]
        return _next_share(lease, shares, self._clock.time())

    def _share_of(self, record: Record, name: RelayName | None, envelope: Envelope) -> _Share:
        key = "" if name is None else str(name)
        return _Share(key, self.of(name), envelope, record.part(key, envelope.recipients))

    def _mailer(self, name: RelayName) -> Any:
        if name.mailer:
            return self._mailers[name.mailer]
        tls = Tls.IMPLICIT if name.port == 465 else Tls.OPPORTUNISTIC
        if not name.username:
            return SMTPMailer(hostname=name.hostname, port=name.port, tls=tls)
        required = Tls.REQUIRED if tls is Tls.OPPORTUNISTIC else tls
        mailer = SMTPMailer(
            hostname=name.hostname,
            port=name.port,
            username=name.username,
            password=name.password,
            tls=required,
            verify=True,
        )
        try:
            mailer.relay_settings()
            (name.username + name.password).encode()
        except UnicodeEncodeError:
            raise InvalidRelay(f"the login for {name} is not written in UTF-8") from None  # and nobody sees it
        except ValueError as error:  # it would be refused before each conversation
            raise InvalidRelay(str(error)) from error
        return mailer


@dataclass(frozen=True, slots=True)
class _Share:
    """What one of several relays gets of a message, and how it stands with that."""

    name: str
    relay: Relay
    envelope: Envelope
    part: Part


def _next_share(lease: ILease, shares: list[_Share], now: float) -> tuple[Relay, Job]:
    """That of the shares which is due and whose relay can take it; else one that is due."""
    open_ones = sorted([each for each in shares if not each.part.held] or shares, key=lambda each: each.part.due)
    soonest = min(each.part.wait(now) for each in open_ones)
    due = [each for each in open_ones if each.part.wait(now) <= soonest]
    share = next((each for each in due if each.relay.room()), due[0])
    others = {each.name: each.part for each in shares if each is not share}
    patience = min((_patience(each, now) for each in open_ones if each is not share), default=inf)
    return share.relay, Job(lease, share.envelope, share.name, others, patience)


def _patience(share: _Share, now: float) -> float:
    """Seconds until this share may go; one that is due now, but whose relay cannot take it, is tried again then."""
    return share.part.wait(now) or max(share.relay.pause(), _PATIENCE)


def _address_of(mailer: Any) -> tuple[str, int] | None:
    try:
        return str(mailer.hostname).lower(), int(mailer.port)
    except (AttributeError, TypeError, ValueError):
        return None


def _is_too_many(outcome: Outcome) -> bool:
    """Whether the relay complains about how much we want of it; many recipients of one mail are no such thing."""
    replies = [*outcome.having(Answer.DEFERRED).values(), *([outcome.fault] if outcome.fault else [])]
    return any(
        each.code == 421 or (each.code and not each.is_one_too_many and _TOO_MANY.search(each.text)) for each in replies
    )


def _what_was_said(outcome: Outcome) -> Reply:
    return outcome.fault or next(iter(outcome.having(Answer.DEFERRED).values()))
