"""Which relay a mail asks for: a mailer by its name, or a host and port.  Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from zope.sendmail.errors import InvalidRelay

_HOST = re.compile(r"[^\W_](?:[\w.-]{0,252}[^\W_])?\.?|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")
_MAILER = re.compile(
    r"[^\x00-\x20\x7f\ud800-\udfff](?:[^\x00-\x1f\x7f\ud800-\udfff]{0,253}[^\x00-\x20\x7f\ud800-\udfff])?"
)

#: As long as a domain name may be (RFC 1035, 2.3.4), so that its line in a queue file stays short.
_MAX_OCTETS = 255


@dataclass(frozen=True, slots=True)
class RelayName:
    """A relay that a mail asks for.  Either `mailer` is set, or `hostname` and `port`.

    `username` and `password` stand in queue files of CPSMailAccess only; nothing of ours writes them.
    Raises `InvalidRelay`.
    """

    mailer: str = ""
    hostname: str = ""
    port: int = 0
    username: str = ""
    password: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if bool(self.mailer) == bool(self.hostname):
            raise InvalidRelay("a relay is the name of a mailer, or a host and port; pass one of them")
        if len((self.mailer or self.hostname).encode("utf-8", "replace")) > _MAX_OCTETS:
            raise InvalidRelay(
                f"the relay {(self.mailer or self.hostname)[:40]!r}... has more than {_MAX_OCTETS} octets"
            )
        if self.mailer and not _MAILER.fullmatch(self.mailer):
            raise InvalidRelay(f"the relay {self.mailer!r} is no name of a mailer")
        if self.hostname and not _HOST.fullmatch(self.hostname):
            raise InvalidRelay(
                f"the relay's hostname {self.hostname!r} is no hostname; write mail.example.org, and the port apart"
            )
        if self.hostname and not 0 < self.port < 65536:
            raise InvalidRelay(f"the port {self.port} of relay {self.hostname} is not within 1 and 65535")

    @classmethod
    def of(cls, relay: object) -> RelayName:
        """Return the relay that a caller wrote: a mailer's name, ``"relay.example.org:25"``, or host and port."""
        if isinstance(relay, RelayName):
            return relay
        if isinstance(relay, str):
            return _address(relay) or cls(mailer=relay)
        if isinstance(relay, tuple) and len(relay) == 2:
            return cls(hostname=str(relay[0]).lower(), port=_port(relay[1]))
        raise InvalidRelay(f"the relay {relay!r} is no name, no 'host:port', and no pair of host and port")

    def __str__(self) -> str:
        if self.mailer:
            return self.mailer
        return f"[{self.hostname}]:{self.port}" if ":" in self.hostname else f"{self.hostname}:{self.port}"


def _address(text: str) -> RelayName | None:
    """Return the host and port in `text`; None if there is no port, so that it is a name."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit():
        return None
    if host[:1] == "[" and host[-1:] == "]":
        host = host[1:-1]
    return RelayName(hostname=host.lower(), port=_port(port))


def _port(port: object) -> int:
    if isinstance(port, str) and port.isascii() and port.strip().isdigit() and len(port) < _MAX_OCTETS:
        return int(port)
    if isinstance(port, int) and not isinstance(port, bool):
        return port
    raise InvalidRelay(f"{port!r:.40} is no port; write a number such as 25")


def address_of(mailer: object) -> str:
    """Return ``host:port`` of the relay of a mailer; the empty text if the mailer does not say it."""
    try:
        return str(RelayName(hostname=str(getattr(mailer, "hostname", "")), port=int(getattr(mailer, "port", 25))))
    except (InvalidRelay, TypeError, ValueError):
        return ""
