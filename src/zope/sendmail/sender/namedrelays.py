"""Which relays mail may name, for programs without ZCML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from zope.sendmail.errors import InvalidRelay
from zope.sendmail.interfaces import type_of_relay
from zope.sendmail.message.relayname import RelayName
from zope.sendmail.message.routes import Routes

#: The name of the relay that gets what names none.
DEFAULT = "default"


def make_routes(
    relays: Iterable[type_of_relay] = (),
    mailers: Mapping[str, Any] | None = None,
    *,
    recipient_routes: Mapping[str, str] | None = None,
    sender_routes: Mapping[str, str] | None = None,
    legacy_passwords: bool = False,
) -> Routes:
    """Return the relays that mail may name: `mailers` by their names and addresses, and the addresses in `relays`.

    A writer and a reader of one directory need the same.  Raises `InvalidRelay`, `ValueError`.
    """
    for name in mailers or {}:
        if RelayName(mailer=name).mailer == DEFAULT:
            raise InvalidRelay(f"no further mailer can be called {DEFAULT!r}: that is the one for mail that names none")
    addresses = set()
    for each in relays:
        relay = RelayName.of(each)
        if not relay.hostname:
            raise InvalidRelay(f"the relay {each!r} has no port; write 'host:port', or a pair of host and port")
        addresses.add((relay.hostname, relay.port))
    return Routes(
        DEFAULT,
        frozenset((DEFAULT, *(mailers or ()))),
        frozenset(addresses.union(addresses_of((mailers or {}).values()))),
        recipient_routes or {},
        sender_routes or {},
        legacy_passwords=legacy_passwords,
    )


def addresses_of(mailers: Iterable[Any]) -> list[tuple[str, int]]:
    """Return the addresses of those mailers that have one."""
    known = (mailer for mailer in mailers if getattr(mailer, "hostname", None))
    return [(str(mailer.hostname).lower(), int(getattr(mailer, "port", 25))) for mailer in known]
