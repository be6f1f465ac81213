"""The relays of a processor by name, and which of them gets a message."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import chain, count
from typing import TYPE_CHECKING, Any

from zope.sendmail.config.settings import Tls
from zope.sendmail.errors import InvalidRelay
from zope.sendmail.interfaces import ILease
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.mailer import SMTPMailer
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.relayname import RelayName
from zope.sendmail.processor.job import Job
from zope.sendmail.processor.recipientshares import Share, next_share
from zope.sendmail.processor.relay import Relay
from zope.sendmail.processor.stopsignal import StopSignal
from zope.sendmail.system.clock import Clock
from zope.sendmail.system.sidebyside import side_by_side
from zope.sendmail.transports.redirect import refuse_detours

if TYPE_CHECKING:
    from zope.sendmail.message.routes import Routes

#: From so many relays on it is worth a look which are idle; within a pass, from twice as many as were in use at the
#: last look.
_MANY = 64


class RelayRegistry:
    """All relays of a processor, made when they are first needed.

    :param default: the mailer for mails that name none
    :param mailers: the others by name
    :param connections: to each relay; None: as many as are usual with its mailer
    :param signal: says whether the processor ends
    :raises ValueError: if the routes name a mailer that is not given

    Concurrency: any thread.
    """

    def __init__(
        self,
        default: Any,
        mailers: Mapping[str, Any],
        routes: Routes,
        clock: Clock,
        connections: int | None = None,
        *,
        signal: StopSignal | None = None,
    ) -> None:
        missing = sorted(set(routes.names) - set(mailers) - {routes.default})
        if missing:
            raise ValueError(f"the routes name the mailers {', '.join(missing)}, which were not given")
        self.routes = routes
        #: Whether there is no other relay than the default.
        self.is_single = routes.is_single
        self._mailers = mailers
        self._clock = clock
        self._signal = signal or StopSignal()
        self._mutex = threading.Lock()
        self._callbacks: tuple[Callable[[], None], Callable[[], None]] | None = None
        self.default = Relay(routes.default or "default", default, clock, connections, signal=self._signal)
        self._relays: dict[RelayName | None, Relay] = {None: self.default}
        self._many = _MANY

    @property
    def connections(self) -> int | None:
        """How many connections each relay may have; None: as many as are usual with its mailer."""
        return self.default.connections

    @connections.setter
    def connections(self, connections: int | None) -> None:
        for relay in self:
            relay.connections = connections

    def refuse_detours(self) -> None:
        """Check that no mail can go around a default mailer that redirects.

        :raises ValueError: if one can; see `zope.sendmail.transports.redirect`
        """
        mailers = {**self._mailers, self.routes.default: self.default.mailer}
        refuse_detours(self.routes, mailers.__getitem__)

    def __iter__(self) -> Iterator[Relay]:
        with self._mutex:
            return iter(list(self._relays.values()))

    def of(self, name: RelayName | None) -> Relay:
        """Return the relay of this name; None is the default.

        :raises InvalidRelay: if its login cannot be used
        """
        name = self._of_mailer(name)
        with self._mutex:
            relay = self._relays.get(name)
            if relay is None:
                mailer = self._mailer(name) if name is not None else None
                relay = Relay(self._new_name(str(name)), mailer, self._clock, self.connections, signal=self._signal)
                if self._callbacks is not None:
                    relay.changed, relay.met = self._callbacks
                self._relays[name] = relay
            return relay

    def call_on_change(self, changed: Callable[[], None], met: Callable[[], None]) -> None:
        """Let relays tell of themselves.

        :param changed: called whenever a relay can, or cannot, be used any more, or shows a limit
        :param met: called when a relay has answered for the first time
        """
        with self._mutex:
            self._callbacks = changed, met
            for relay in self._relays.values():
                relay.changed, relay.met = changed, met

    def expect_few(self) -> None:
        """Begin a new pass: what was in use in the last one may not be in this one."""
        self._many = _MANY

    @property
    def are_many(self) -> bool:
        """Whether it is time to `forget` some."""
        return len(self._relays) > self._many

    def forget(self, waited_for: Collection[str]) -> None:
        """Forget the users of queue files of CPSMailAccess for which nothing is done or planned.

        Configured relays stay, and so do those in trouble.  Concurrency: no other thread may ask for relays meanwhile.

        :param waited_for: names of relays for which mail is parked; they stay as well
        """
        forgotten: list[Relay] = []
        with self._mutex:
            for name, relay in list(self._relays.items()):
                if name is not None and name.username and relay.name not in waited_for and relay.is_unused:
                    forgotten.append(self._relays.pop(name))
            self._many = max(_MANY, 2 * len(self._relays))
        side_by_side([session.close for relay in forgotten for session in relay.end()])

    def share(self, lease: ILease) -> tuple[Relay, Job]:
        """Return which relay is next to get the message, and which part of it.

        :raises InvalidRelay: if the mail names a relay that it may not name
        """
        if self.is_single and lease.envelope.relay is None and not lease.record.parts:
            return self.default, _whole(lease, lease.envelope)
        parts = self.routes.parts(lease.envelope)
        if len(parts) == 1 and not lease.record.parts:
            [(name, envelope)] = parts.items()
            return self.of(name), _whole(lease, envelope)
        shares = [self._share_of(lease.record, name, envelope) for name, envelope in parts.items()]
        return next_share(lease, shares, self._clock.time())

    def _share_of(self, record: Record, name: RelayName | None, envelope: Envelope) -> Share:
        key = "" if name is None else str(name)
        return Share(key, self.of(name), envelope, record.part(key, envelope.recipients))

    def _of_mailer(self, name: RelayName | None) -> RelayName | None:
        """Return the mailer that is meant by an address: its pauses, its rate and its connections are one."""
        if name is None or name.mailer or name.username:
            return name
        address = (name.hostname, name.port)
        if _address_of(self.default.mailer) == address:
            return None
        found = (key for key, mailer in self._mailers.items() if _address_of(mailer) == address)
        return next((RelayName(mailer=key) for key in found if key), name)

    def _new_name(self, name: str) -> str:
        """Return what is parked for a relay is known by its name, so each has its own."""
        taken = {relay.name for relay in self._relays.values()}
        return next(each for each in chain((name,), (f"{name} ({n})" for n in count(2))) if each not in taken)

    def _mailer(self, name: RelayName) -> Any:
        if name.mailer:
            return self._mailers[name.mailer]
        tls = Tls.IMPLICIT if name.port == 465 else Tls.OPPORTUNISTIC
        if not name.username:
            return SMTPMailer.configured(hostname=name.hostname, port=name.port, tls=tls)
        return _mailer_with_login(name, Tls.REQUIRED if tls is Tls.OPPORTUNISTIC else tls)


def _whole(lease: ILease, envelope: Envelope) -> Job:
    """Return the job of a message that goes to one relay."""
    return Job(lease, envelope, text=getattr(lease, "text", None))


def _mailer_with_login(name: RelayName, tls: Tls) -> SMTPMailer:
    mailer = SMTPMailer.configured(
        hostname=name.hostname, port=name.port, username=name.username, password=name.password, tls=tls, verify=True
    )
    try:
        mailer.relay_settings()
        (name.username + name.password).encode()
    except UnicodeEncodeError:
        raise InvalidRelay(f"the login for {name} is not written in UTF-8") from None  # and the login is not shown
    except ValueError as error:  # it would be refused before each conversation
        raise InvalidRelay(str(error)) from error
    return mailer


def _address_of(mailer: Any) -> tuple[str, int] | None:
    try:
        return str(mailer.hostname).lower(), int(mailer.port)
    except (AttributeError, TypeError, ValueError):
        return None
