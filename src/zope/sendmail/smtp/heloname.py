"""How we introduce ourselves in EHLO: with a name that relays take.  Pure.

RFC 5321, 4.1.1.1 and 4.1.4: a fully qualified name or, where there is none, an address literal (4.1.3).  Containers
have names without a dot or with an underscore; relays that look refuse those (Postfix:
``reject_invalid_helo_hostname``, ``reject_non_fqdn_helo_hostname``).
"""

from __future__ import annotations

import ipaddress
import re

from zope.sendmail.message.domain import ascii_domain

_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?", re.ASCII)

_MAX_NAME = 255

#: For connections that have no address, such as Unix sockets.
_NOWHERE = "127.0.0.1"


def helo_name(name: str, address: str | None) -> str:
    """Return what is said in EHLO.

    :param name: the name that this host has, or that the settings give it.
    :param address: our side of the connection, an IP address; None if it has none.
    :returns: `name` if it is one, with A-labels where it is not ASCII; else an address literal, of the address that
        `name` is, or of the connection.
    """
    name = name.removesuffix(".")
    if (literal := _literal(name.strip("[]").removeprefix("IPv6:"))) is not None:
        return literal
    converted = ascii_domain(name) or ""
    if _is_host_name(converted):
        return converted
    return _literal(address or _NOWHERE) or f"[{_NOWHERE}]"


def _is_host_name(name: str) -> bool:
    labels = name.split(".")
    if len(name) > _MAX_NAME or len(labels) < 2 or labels[-1].isdigit():
        return False
    return all(_LABEL.fullmatch(label) for label in labels)


def _literal(address: str) -> str | None:
    """Return the literal of an IP address (RFC 5321, 4.1.3); None if it is none."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
    if isinstance(parsed, ipaddress.IPv6Address):
        mapped = parsed.ipv4_mapped
        return f"[IPv6:{parsed}]" if mapped is None else f"[{mapped}]"
    return f"[{parsed}]"
