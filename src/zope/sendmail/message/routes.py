"""Which relay serves which mail.

A mail may name its relay; otherwise the recipient decides, then the sender, then the default.  Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from zope.sendmail.errors import InvalidRelay, InvalidSettings
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.relayname import RelayName


@dataclass(frozen=True, slots=True)
class Routes:
    """The relays of a queue, and which mail goes to which.

    `default` and `mailers` are names of mailers; any of them may be named by a mail.  `addresses` are the hosts and
    ports that may be named besides.  `recipients` and `senders` map an address (``one@example.org``), a domain
    (``@example.org``) or a domain with all below it (``@.example.org``) to a mailer; the longest match counts.

    Raises `InvalidSettings` for a route to a mailer that is not among them.
    """

    default: str = ""
    mailers: frozenset[str] = frozenset()
    addresses: frozenset[tuple[str, int]] = frozenset()
    recipients: Mapping[str, str] = field(default_factory=dict)
    senders: Mapping[str, str] = field(default_factory=dict)
    #: Use the username and password in a queue file of CPSMailAccess, over verified TLS only.
    legacy_passwords: bool = False

    def __post_init__(self) -> None:
        for name in "recipients", "senders":  # case does not matter in them
            table = {pattern.lower(): mailer for pattern, mailer in getattr(self, name).items()}
            object.__setattr__(self, name, table)
        for pattern, mailer in (*self.recipients.items(), *self.senders.items()):
            if mailer not in self.names:
                raise InvalidSettings(
                    f"the route {pattern}={mailer} leads to none of the mailers {', '.join(self.names)}"
                )
            if "@" not in pattern:
                raise InvalidSettings(
                    f"the route {pattern}={mailer} begins with no address; write @{pattern} for a domain"
                )

    @property
    def names(self) -> tuple[str, ...]:
        """All mailers, the default first."""
        return (self.default, *sorted(self.mailers - {self.default}))

    @property
    def is_single(self) -> bool:
        """Whether there is no more than one relay that a mail can go to."""
        return len(self.names) == 1 and not self.addresses

    def named(self, relay: object) -> RelayName:
        """Return the relay that a caller of ``send()`` names.

        :raises InvalidRelay: if mail may not name it.
        """
        if isinstance(relay, str) and relay and relay in self.names:
            return RelayName(mailer=relay)
        return self.check(RelayName.of(relay))

    def check(self, relay: RelayName) -> RelayName:
        """`relay`, if mail may name it.  Raises `InvalidRelay`."""
        if relay.mailer:
            if relay.mailer in self.names:
                return relay
            known = ", ".join(repr(name) for name in self.names if name)
            raise InvalidRelay(f"there is no mailer {relay.mailer!r} for this queue; {_such_as(known)}")
        if (relay.hostname, relay.port) in self.addresses:
            return relay if self.legacy_passwords else replace(relay, username="", password="")
        known = ", ".join(f"{host}:{port}" for host, port in sorted(self.addresses))
        raise InvalidRelay(f"mail may not name the relay {relay}; {_such_as(known)}")

    def parts(self, envelope: Envelope) -> dict[RelayName | None, Envelope]:
        """Return the relays that get this mail, each with its recipients; None stands for the default.

        Raises `InvalidRelay` if the mail names one that it may not.
        """
        if envelope.relay is not None:
            relay = self.check(envelope.relay)
            return {None if relay.mailer == self.default and relay.mailer else relay: envelope}
        parts: dict[str, list[str]] = {}
        for recipient in envelope.recipients:
            parts.setdefault(self._mailer(envelope.sender, recipient), []).append(recipient)
        if len(parts) <= 1:
            return {_named(name, self.default): envelope for name in parts or (self.default,)}
        shares = {_named(name, self.default): envelope.only(recipients) for name, recipients in parts.items()}
        first = next(iter(shares))
        shares[first] = replace(shares[first], malformed=envelope.malformed)
        return shares

    def _mailer(self, sender: str, recipient: str) -> str:
        if not self.recipients and not self.senders:
            return self.default
        return _find(self.recipients, recipient) or _find(self.senders, sender) or self.default


def _named(name: str, default: str) -> RelayName | None:
    return None if name == default else RelayName(mailer=name)


def _find(table: Mapping[str, str], address: str) -> str | None:
    """Return the route for `address`: its own, its domain's, then that of each domain above."""
    address = address.lower()
    domain = address.rpartition("@")[2]
    for pattern in (address, f"@{domain}"):
        if pattern in table:
            return table[pattern]
    while domain:
        if f"@.{domain}" in table:
            return table[f"@.{domain}"]
        domain = domain.partition(".")[2]
    return None


def _such_as(known: str) -> str:
    return f"it has {known}" if known else "none may be named"
