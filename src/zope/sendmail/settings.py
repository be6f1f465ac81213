"""How a relay is spoken with, as frozen values.  Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Tls(StrEnum):
    """When to use TLS with a relay."""

    #: Never, whatever the relay offers.
    NEVER = "never"
    #: STARTTLS if the relay offers it (RFC 3207).  With credentials this is `REQUIRED`.
    OPPORTUNISTIC = "opportunistic"
    #: STARTTLS, or nothing is sent.
    REQUIRED = "required"
    #: TLS from the first byte (RFC 8314, 3.3), usually on port 465.
    IMPLICIT = "implicit"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds to wait for the relay in each phase (RFC 5321, 4.5.3.2)."""

    connect: float = 10.0
    command: float = 300.0
    data: float = 120.0
    block: float = 180.0
    #: After the final dot.  Shorter times send mails twice: the relay goes on working, we give up.
    final: float = 600.0
    quit: float = 5.0


@dataclass(frozen=True, slots=True)
class Keep:
    """How long a connection is kept: seconds of age, mails, seconds without work."""

    age: float = 300.0
    mails: int = 1000
    idle: float = 15.0


@dataclass(frozen=True, slots=True)
class Notify:
    """What the relay is asked to report to the sender, if it knows DSN; nothing: as it likes (RFC 3461, 4.1 and 4.3).

    `when` has ``NEVER`` alone, or some of ``SUCCESS``, ``FAILURE`` and ``DELAY``; `ret` is ``FULL`` or ``HDRS``.
    Raises `ValueError`.
    """

    when: tuple[str, ...] = ()
    ret: str = ""

    def __post_init__(self) -> None:
        if not (self.when == ("NEVER",) or set(self.when) <= {"SUCCESS", "FAILURE", "DELAY"}):
            raise ValueError(f"notify {self.when!r}: NEVER alone, or some of SUCCESS, FAILURE and DELAY")
        if self.ret not in {"", "FULL", "HDRS"}:
            raise ValueError(f"notify: ret is {self.ret!r}; FULL, HDRS or nothing is needed")


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """One relay and how to speak with it.  Raises `ValueError` for settings that contradict each other.

    A hostname that begins with ``/`` is the path of a Unix socket (LMTP only); the port means nothing then.
    """

    hostname: str = "localhost"
    port: int = 25
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: Tls = Tls.OPPORTUNISTIC
    #: Verify the relay's certificate and name; None: wherever credentials go or TLS is required.
    verify: bool | None = None
    #: File of CA certificates (PEM) instead of the system's.
    cafile: str | None = None
    #: Let credentials go over a connection without TLS.
    allow_clear_password: bool = False
    timeouts: Timeouts = Timeouts()
    keep: Keep = Keep()
    notify: Notify = Notify()

    def __post_init__(self) -> None:
        if not self.hostname or any(ord(character) < 33 for character in self.hostname):
            raise ValueError(f"the relay's hostname {self.hostname!r} is empty or has blanks in it")
        if not 0 < self.port < 65536:
            raise ValueError(f"the relay's port {self.port} is not within 1 and 65535")
        if (self.username is None) != (self.password is None):
            missing = "password" if self.password is None else "username"
            raise ValueError(f"relay {self.hostname}: the {missing} is missing; give both or neither")

    def __str__(self) -> str:
        if self.hostname.startswith("/"):
            return self.hostname
        host = f"[{self.hostname}]" if ":" in self.hostname else self.hostname
        return f"{host}:{self.port}"

    @property
    def must_encrypt(self) -> bool:
        """Whether nothing may be sent without TLS."""
        if self.tls is Tls.NEVER:
            return False
        if self.tls is not Tls.OPPORTUNISTIC or self.verify:  # who wants a proof does not want to go without
            return True
        return self.username is not None and not self.allow_clear_password

    @property
    def must_verify(self) -> bool:
        """Whether the relay has to prove who it is."""
        if self.verify is not None:
            return self.verify
        return self.username is not None or self.tls in (Tls.REQUIRED, Tls.IMPLICIT)
