"""The state of relays and processors as a queue keeps it for operators: values, and the JSON that holds them.

A processor writes a `ProcessorState` beside its queue whenever something in it changes.  A program that looks at it
reads all of them and asks a `RelayBoard` why a mail waits.  Pure; reading never fails.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from zope.sendmail.errors import InvalidRelay
from zope.sendmail.lifecycle.finding import age, moment
from zope.sendmail.lifecycle.outcome import Reply, printable
from zope.sendmail.lifecycle.rates import Minute, merged_minutes, of_texts
from zope.sendmail.lifecycle.record import Record, checked, reply_of, reply_values
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.relayname import RelayName
from zope.sendmail.message.routes import Routes

#: Days after which it is of no interest how a relay was that was not asked since.
KEPT_DAYS = 7

#: Seconds for which a rate that was written down holds.
_RECENT = 60.0

#: Seconds after a pass over a queue, as cron starts them, in which the next one may be expected.
_BETWEEN_PASSES = 900.0

#: What a relay is called to which all mail goes that names none.
DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class RelayState:
    """What a processor knows of one relay.  Times are seconds since the epoch, 0.0 for never or unknown."""

    #: The name of its mailer, or ``host:port``.
    name: str
    #: Where it is, ``host:port``; empty if its mailer does not say.
    address: str = ""
    #: Why it could not be used when it was asked last; None if it could.
    fault: Reply | None = None
    #: Since when it can, or cannot, be used.
    since: float = 0.0
    #: When it is tried next, if it cannot be used.
    probe: float = 0.0
    #: When it was asked last.
    asked: float = 0.0
    #: Failures in a row.
    failures: int = 0
    #: Connections that may be open to it; 0: no limit is known.
    connections: int = 0
    #: What the relay said when it wanted fewer connections, or fewer mails a second, than it got.
    limit: str = ""
    #: Mails a second that its mailer allows, or that it has shown to take; 0.0: as fast as it goes.
    rate: float = 0.0
    #: Each of the relays behind it, if its mailer is made of several.
    members: tuple[RelayState, ...] = ()

    @property
    def is_usable(self) -> bool:
        """Whether mail can go there, as far as is known."""
        return self.fault is None

    @property
    def title(self) -> str:
        """The relay for people: its name, and its address if that says more."""
        return f"{self.name} ({self.address})" if self.address and self.address != self.name else self.name


@dataclass(frozen=True, slots=True)
class ProcessorState:
    """What one processor tells of itself.  Times are seconds since the epoch, 0.0 for never."""

    pid: int = 0
    host: str = ""
    started: float = 0.0
    #: When this was written.
    written: float = 0.0
    #: When the processor ended; 0.0 as long as it has not said so.
    ended: float = 0.0
    #: Whether it goes on until it is stopped; else it ends when nothing is due.
    forever: bool = True
    #: Mails that left through it, and how many in the last minute.
    sent: int = 0
    per_minute: float = 0.0
    #: What it, and processors that ended before it began, did in the last minutes.
    minutes: tuple[Minute, ...] = ()
    relays: tuple[RelayState, ...] = ()
    #: Which of its relays serves which mail.
    routes: Routes = field(default_factory=Routes)
    #: Whether it lives; the reader of the state says so.
    alive: bool = False

    def rate(self, now: float) -> float:
        """Return the mails a minute: nothing is written while none leaves, so what is old means none."""
        return self.per_minute if now - self.written <= _RECENT and not self.ended else 0.0

    def absorb(self, dead: Iterable[ProcessorState]) -> ProcessorState:
        """Return this state with what processors that have ended knew of relays.

        A relay that is still down is down since it was first seen so.  What is older than `KEPT_DAYS` is left out.
        """
        known: dict[str, RelayState] = {}
        minutes = list(self.minutes)
        for state in sorted(dead, key=lambda each: each.written):
            known |= {relay.name: relay for relay in state.relays}
            minutes += state.minutes
        own = tuple(_continued(relay, known.pop(relay.name, None)) for relay in self.relays)
        limit = self.written - KEPT_DAYS * 86400
        relays = own + tuple(each for each in known.values() if each.asked > limit)
        return replace(self, relays=relays, minutes=merged_minutes(minutes, self.written))


def _continued(now: RelayState, before: RelayState | None) -> RelayState:
    if before is None or not before.since or before.is_usable is not now.is_usable:
        return now
    return replace(now, since=min(now.since, before.since))


class RelayBoard:
    """What all processors of a queue know of its relays, and which mail waits for which."""

    def __init__(self, processors: Iterable[ProcessorState]) -> None:
        #: Living processors first, then the one that wrote last.
        self.processors = sorted(processors, key=lambda each: (not each.alive, -each.written))
        self._relays: dict[str, RelayState] = {}
        for processor in self.processors:
            for relay in processor.relays if processor.alive else map(_without_probe, processor.relays):
                self._relays[relay.name] = _better(self._relays.get(relay.name), relay, alive=processor.alive)
        self._names = {relay.address: relay.name for relay in self._relays.values() if relay.address}
        self._members = {
            member.address: relay.name for relay in self._relays.values() for member in relay.members if member.address
        }
        told = [
            each for each in self.processors if each.written
        ] or self.processors  # one that has just begun knows none
        self._routes = told[0].routes if told else None

    def __iter__(self) -> Iterator[RelayState]:
        return iter(self._relays.values())

    def get(self, name: str) -> RelayState | None:
        """Return the relay with this name or address, if something is known about it."""
        return self._relays.get(name) or self._relays.get(self._names.get(name, ""))

    def name_of(self, address: str) -> str:
        """Return the name of the relay with this address, or that has a member with it; empty if none is known."""
        return self._names.get(address, "") or self._members.get(address, "")

    def names(self) -> set[str]:
        """Return the names of all relays that are known: those that were asked, and those of the routes."""
        known = set(self._relays)
        if self._routes is not None:
            known |= {self._routes.default or DEFAULT, *self._routes.mailers}
            known |= {str(RelayName(hostname=host, port=port)) for host, port in self._routes.addresses}
        return known

    def left_out(self) -> Iterator[tuple[RelayState, RelayState]]:
        """Yield those of several relays that cannot be used although their mail goes through others, each behind the
        relay whose mailer is made of them.
        """
        for relay in self:
            for member in relay.members if relay.is_usable else ():
                if not member.is_usable:
                    yield relay, member

    @property
    def living(self) -> list[ProcessorState]:
        """The processors that are at work."""
        return [each for each in self.processors if each.alive]

    def relays_of(self, envelope: Envelope | None, record: Record) -> tuple[str, ...]:
        """Return the names of the relays that are to get what is left of a mail."""
        if envelope is None or self._routes is None:
            return ()
        left = record.outstanding(envelope.recipients)
        try:
            parts = self._routes.parts(envelope.only(left)) if left else {}
        except InvalidRelay:
            return ()
        return tuple(self._name(each) for each in parts)

    def blocking(self, envelope: Envelope | None, record: Record) -> RelayState | None:
        """Return the relay that keeps what is left of a mail waiting; None if one of its relays can be used.

        Meaningful for mail that is due: what is deferred for a later time waits for that.
        """
        found = [self.get(name) for name in self.relays_of(envelope, record)]
        down = [relay for relay in found if relay is not None and relay.fault is not None]
        return down[0] if down and len(down) == len(found) else None

    def _name(self, relay: RelayName | None) -> str:
        default = (self._routes.default if self._routes is not None else "") or DEFAULT
        if relay is None:
            return default
        name = str(relay)
        return name if relay.mailer else self._names.get(name, name)


def is_drained(processors: Iterable[ProcessorState], now: float) -> bool:
    """Say whether a queue is drained: by a processor that lives, or by passes, of which the last one ended lately.

    :param processors: what those of the queue told.
    :param now: seconds since the epoch.
    """
    told = list(processors)
    return any(each.alive for each in told) or last_pass(told, now) is not None


def last_pass(processors: Iterable[ProcessorState], now: float) -> float | None:
    """Return when the last pass ended if no processor lives and the next pass may be expected; else None.

    :param processors: what those of the queue told.
    :param now: seconds since the epoch.
    """
    told = list(processors)
    last = max(told, key=lambda each: each.written, default=None)
    if last is None or last.forever or any(each.alive for each in told) or now - last.ended >= _BETWEEN_PASSES:
        return None
    return last.ended


def _without_probe(relay: RelayState) -> RelayState:
    """Return what a processor told of a relay that has ended: the try that it planned will not come."""
    return replace(relay, probe=0.0)


def _better(known: RelayState | None, other: RelayState, *, alive: bool) -> RelayState:
    """Return the better of two processors' words: one for which the relay works sends the mail, if it lives."""
    if known is None or (alive and other.is_usable and not known.is_usable and other.asked > known.since):
        return other
    return known


def is_due(state: State, record: Record, now: float) -> bool:
    """Return whether a mail in this state waits for nothing but its relay."""
    return state is State.READY or (state is State.DEFERRED and record.wait(now) <= 0.0)


# --- on disk ----------------------------------------------------------------------------------------------------


_ROUTES = ("default", "mailers", "addresses", "recipients", "senders", "legacy_passwords")


def write_processor_state(state: ProcessorState) -> bytes:
    """Return the content of a state file: one JSON object."""
    values = {each.name: getattr(state, each.name) for each in fields(state) if each.name != "alive"}
    values["relays"] = [_relay_values(relay) for relay in state.relays]
    values["minutes"] = [minute.as_text() for minute in state.minutes]
    routes = {name: getattr(state.routes, name) for name in _ROUTES}
    values["routes"] = {**routes, "mailers": sorted(routes["mailers"]), "addresses": sorted(routes["addresses"])}
    return json.dumps(values, ensure_ascii=True, indent=1).encode("ascii") + b"\n"


def read_processor_state(text: bytes) -> ProcessorState | None:
    """Return what a state file says; None if it is torn, or something else."""
    try:
        values = dict(json.loads(text))
        values["relays"] = tuple(_relay_of(each) for each in values.get("relays", ()))
        values["minutes"] = of_texts(values.get("minutes"))
        values["routes"] = _routes_of(values.get("routes", {}))
        return ProcessorState(**_known(ProcessorState(), values))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def _relay_values(relay: RelayState) -> dict[str, Any]:
    values = {each.name: getattr(relay, each.name) for each in fields(relay)}
    values["fault"] = None if relay.fault is None else reply_values(relay.fault)
    values["members"] = [_relay_values(member) for member in relay.members]
    return values


def _relay_of(values: Mapping[str, Any]) -> RelayState:
    fault = values.get("fault")
    members = tuple(_relay_of(each) for each in values.get("members", ()))
    others = {name: value for name, value in values.items() if name != "fault"}
    known = _known(RelayState(""), {**others, "members": members})
    return RelayState(**known, fault=None if fault is None else reply_of(fault))


def _routes_of(values: Mapping[str, Any]) -> Routes:
    known = {name: values[name] for name in _ROUTES if name in values}
    known["mailers"] = frozenset(known.get("mailers", ()))
    known["addresses"] = frozenset((str(host), int(port)) for host, port in known.get("addresses", ()))
    return Routes(**known)


def _known(fresh: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return those values that `fresh` has, if they are of the kind that belongs there.  Raises `TypeError`."""
    names = {each.name for each in fields(fresh)}
    return {name: checked(getattr(fresh, name), value) for name, value in values.items() if name in names}


# --- in words ---------------------------------------------------------------------------------------------------


def fault_words(relay: RelayState) -> str:
    """Return why a relay cannot be used, in its words or ours; empty if it can."""
    return "" if relay.fault is None else printable(str(relay.fault), 300)


def waiting_words(relay: RelayState, now: float) -> str:
    """Return for what the mail waits that a relay keeps waiting."""
    since = f" since {moment(relay.since)} ({age(now - relay.since)})" if relay.since else ""
    title = printable(relay.title, 200)
    return f"relay {title} cannot be used{since}: {fault_words(relay)}; {probe_words(relay, now)}"


def probe_words(relay: RelayState, now: float) -> str:
    """Return when a relay that cannot be used is tried again."""
    if not relay.probe:
        return "it is tried when a processor looks next"
    return f"next try in {age(relay.probe - now)}" if relay.probe > now else "it is tried now"


def fault_says(relay: RelayState | None, text: str) -> bool:
    """Return whether the fault of a relay has this reply code, or these words in it."""
    if relay is None or relay.fault is None:
        return False
    if len(text) == 3 and text.isascii() and text.isdigit():
        return relay.fault.code == int(text)
    return text.casefold() in str(relay.fault).casefold()
