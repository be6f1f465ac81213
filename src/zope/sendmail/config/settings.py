"""How a relay is spoken with, as frozen values.  Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from zope.sendmail.errors import InvalidSettings
from zope.sendmail.message.domain import ascii_domain

if TYPE_CHECKING:
    import ssl


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


class TlsVersion(StrEnum):
    """The least version of TLS that is spoken (RFC 8996: older ones are broken)."""

    TLS_1_2 = "1.2"
    TLS_1_3 = "1.3"


class Mechanism(StrEnum):
    """How a login can be done."""

    #: RFC 4616.
    PLAIN = "PLAIN"
    #: draft-murchison-sasl-login.
    LOGIN = "LOGIN"
    #: RFC 7677.
    SCRAM_SHA_256 = "SCRAM-SHA-256"
    #: RFC 5802.
    SCRAM_SHA_1 = "SCRAM-SHA-1"
    #: RFC 2195.
    CRAM_MD5 = "CRAM-MD5"
    #: With a token; what Google and Microsoft had before the RFC, and most relays know.
    XOAUTH2 = "XOAUTH2"
    #: With a token; RFC 7628.
    OAUTHBEARER = "OAUTHBEARER"
    #: By the client's certificate; RFC 4422, appendix A.
    EXTERNAL = "EXTERNAL"

    @property
    def needs(self) -> str:
        """What it proves: ``password``, ``token`` or ``certificate``."""
        if self is Mechanism.EXTERNAL:
            return "certificate"
        return "token" if self in (Mechanism.XOAUTH2, Mechanism.OAUTHBEARER) else "password"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds to wait for the relay in each phase (RFC 5321, 4.5.3.2).

    Raises `InvalidSettings` for a time that no socket can wait.
    """

    #: For the connection, over all addresses of the relay.
    connect: float = 10.0
    #: For the relay's first words, and for TLS from the first byte: a busy relay lets its clients wait there.
    greeting: float = 300.0
    command: float = 300.0
    data: float = 120.0
    block: float = 180.0
    #: After the final dot.  Shorter times send mails twice: the relay goes on working, we give up.
    final: float = 600.0
    #: To say QUIT, which is not answered before we leave.
    quit: float = 5.0

    def __post_init__(self) -> None:
        for each in fields(self):
            seconds = getattr(self, each.name)
            if not isinstance(seconds, (int, float)) or not 0 < seconds <= LONGEST:  # NaN is neither
                raise InvalidSettings(
                    f"the timeout {each.name} is {seconds!r}; write seconds, more than 0 and at most {LONGEST:.0f}"
                )


#: Seconds; a socket cannot be told to wait for ever longer (its time is milliseconds in 32 bits).
LONGEST = 1_000_000.0


#: The times for a caller that waits, such as an editor's request: long after the final dot only.
INTERACTIVE = Timeouts(greeting=30.0, command=30.0, data=30.0, block=30.0)

#: The extensions that can be discarded: those that change what is said to a relay.
EXTENSIONS = frozenset({
    "8bitmime", "auth", "binarymime", "chunking", "dsn", "enhancedstatuscodes", "limits", "pipelining", "size",
    "smtputf8", "starttls",
})  # fmt: skip


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
    Raises `InvalidSettings`.
    """

    when: tuple[str, ...] = ()
    ret: str = ""

    def __post_init__(self) -> None:
        if not (self.when == ("NEVER",) or set(self.when) <= {"SUCCESS", "FAILURE", "DELAY"}):
            raise InvalidSettings(f"notify {self.when!r}: NEVER alone, or some of SUCCESS, FAILURE and DELAY")
        if self.ret not in {"", "FULL", "HDRS"}:
            raise InvalidSettings(f"notify: ret is {self.ret!r}; FULL, HDRS or nothing is needed")


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """One relay and how to speak with it.  Raises `InvalidSettings` for settings that contradict each other.

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
    #: Instead of a password: gives a token when it is called.  See `ITokenProvider`.
    token: Callable[[], str] | None = field(default=None, repr=False)
    #: Mechanisms in the order in which they are tried; none: those that fit, in the usual order.
    auth: tuple[Mechanism, ...] = ()
    #: File of our certificate and those of its issuers (PEM), and of its key if that is not in the same file.
    certfile: str | None = None
    keyfile: str | None = None
    tls_minimum: TlsVersion = TlsVersion.TLS_1_2
    #: Makes the TLS context for each connection, in place of ``cafile``, ``certfile``, ``keyfile`` and ``tls_minimum``.
    ssl_context: Callable[[], ssl.SSLContext] | None = None
    #: The name in EHLO; None: this host's name.  What is no host name is replaced by an address literal.
    local_hostname: str | None = None
    #: Recipients of one transaction with the relay at most; None: as many as it takes.
    recipient_limit: int | None = None
    #: Extensions that are not used although the relay offers them, in any case; see `EXTENSIONS`.
    discard_extensions: frozenset[str] = frozenset()
    #: The times for a caller that waits; None: `timeouts`, none before the final dot longer than `INTERACTIVE`.
    interactive_timeouts: Timeouts | None = None

    def __post_init__(self) -> None:
        check_relay(self.hostname, self.port)
        self._check_certificate()
        self._check_credentials()
        self._check_auth()
        self._check_extras()

    def _check_certificate(self) -> None:
        if self.keyfile is not None and self.certfile is None:
            raise InvalidSettings(
                f"relay {self.hostname}: keyfile is given without certfile, the certificate it belongs to"
            )
        own = [name for name in ("cafile", "certfile", "keyfile") if getattr(self, name) is not None]
        if self.ssl_context is not None and own:
            raise InvalidSettings(f"relay {self.hostname}: ssl_context takes the place of {own[0]}; choose one")
        if self.shows_certificate and self.tls is Tls.NEVER:
            raise InvalidSettings(
                f"relay {self.hostname}: a client certificate needs TLS, and tls is never; choose one"
            )

    def _check_credentials(self) -> None:
        if self.password is not None and self.token is not None:
            raise InvalidSettings(f"relay {self.hostname}: password and token contradict each other; choose one")
        secret = "token" if self.token is not None else "password"
        if self.username is None and (self.password, self.token) != (None, None):
            raise InvalidSettings(
                f"relay {self.hostname}: the username is missing; give {secret} and username or neither"
            )
        if self.username is None:
            return
        if (self.password, self.token) == (None, None) and Mechanism.EXTERNAL not in self.auth:
            raise InvalidSettings(f"relay {self.hostname}: the password is missing; give both or neither, or a token")
        if any(ord(character) < 32 or ord(character) == 127 for character in self.username):
            raise InvalidSettings(f"relay {self.hostname}: the username {self.username!r} has control characters in it")

    def _check_auth(self) -> None:
        for mechanism in self.auth:
            there = {
                "password": self.password is not None,
                "token": self.token is not None,
                "certificate": self.certfile is not None or self.ssl_context is not None,
            }
            if not there[mechanism.needs]:
                what = {"certificate": "client certificate (certfile)"}.get(mechanism.needs, mechanism.needs)
                raise InvalidSettings(
                    f"relay {self.hostname}: auth names {mechanism}, which needs a {what}; there is none"
                )

    def _check_extras(self) -> None:
        name: object = self.local_hostname
        if name is not None and not (isinstance(name, str) and name and name.isprintable() and " " not in name):
            raise InvalidSettings(f"relay {self.hostname}: local_hostname {name!r} is empty, or has blanks in it")
        if self.recipient_limit is not None and self.recipient_limit < 1:
            raise InvalidSettings(f"relay {self.hostname}: recipient_limit {self.recipient_limit} is less than 1")
        discarded = {name.lower() for name in self.discard_extensions}
        if unknown := sorted(discarded - EXTENSIONS):
            known = ", ".join(sorted(EXTENSIONS))
            raise InvalidSettings(
                f"relay {self.hostname}: discard_extensions has {', '.join(unknown)}; known are {known}"
            )
        if "starttls" in discarded and self.must_encrypt and self.tls is not Tls.IMPLICIT:
            raise InvalidSettings(
                f"relay {self.hostname}: discard_extensions has starttls, and the settings require TLS; choose one"
            )
        if "auth" in discarded and self.logs_in:
            raise InvalidSettings(
                f"relay {self.hostname}: discard_extensions has auth, and there is a login; choose one"
            )

    def interactive(self) -> RelaySettings:
        """Return the same settings with the times for a caller that waits."""
        times = self.interactive_timeouts or _capped(self.timeouts)
        return self if times == self.timeouts else replace(self, timeouts=times)

    def __str__(self) -> str:
        if self.hostname.startswith("/"):
            return self.hostname
        host = f"[{self.hostname}]" if ":" in self.hostname else self.hostname
        return f"{host}:{self.port}"

    @property
    def logs_in(self) -> bool:
        """Whether AUTH is said."""
        return self.username is not None or Mechanism.EXTERNAL in self.auth

    @property
    def shows_certificate(self) -> bool:
        """Whether the relay is to know us by our certificate."""
        return self.certfile is not None or Mechanism.EXTERNAL in self.auth

    @property
    def must_encrypt(self) -> bool:
        """Whether nothing may be sent without TLS."""
        if self.tls is Tls.NEVER:
            return False
        # A mailer that wants a proof, or gives one, does not want to go without.
        if self.tls is not Tls.OPPORTUNISTIC or self.verify or self.shows_certificate:
            return True
        return self.username is not None and not self.allow_clear_password

    @property
    def must_verify(self) -> bool:
        """Whether the relay has to prove who it is."""
        if self.verify is not None:
            return self.verify
        return self.logs_in or self.shows_certificate or self.tls in (Tls.REQUIRED, Tls.IMPLICIT)


def check_relay(hostname: str, port: int) -> None:
    """Raise `InvalidSettings` for a hostname or a port that no relay can have."""
    if not isinstance(hostname, str):
        raise InvalidSettings(f"the relay's hostname is {hostname!r}; write a name such as mail.example.org")
    lowest = " " if hostname.startswith("/") else "!"  # a path may have blanks
    if not hostname or any(character < lowest for character in hostname):
        raise InvalidSettings(
            f"the relay's hostname {hostname!r} is empty or has blanks in it; write a name such as mail.example.org"
        )
    # A path is a name.  An IPv6 address has two colons at least, and needs no brackets where nothing follows.
    has_port = hostname[0] == "[" or "://" in hostname or hostname.count(":") == 1
    if has_port and hostname[0] != "/":
        raise InvalidSettings(
            f"the relay's hostname {hostname!r} is more than a name; write hostname and port as two settings"
        )
    _check_labels(hostname)
    if not 0 < port < 65536:
        raise InvalidSettings(f"the relay's port {port} is not within 1 and 65535; usual are 25, 465 and 587")


def _check_labels(hostname: str) -> None:
    """Refuse a name that no resolver can be asked for (RFC 1035, 2.3.4)."""
    if hostname[0] == "/":
        return
    try:
        (ascii_domain(hostname) or hostname).encode("idna")
    except UnicodeError:
        raise InvalidSettings(
            f"the relay's hostname {hostname!r} has a part that is empty, longer than 63 characters, or no text; "
            "write a name such as mail.example.org"
        ) from None


def _capped(times: Timeouts) -> Timeouts:
    """Return `times` with nothing before the final dot longer than in `INTERACTIVE`; `connect` is as short anyway."""
    capped = {name: min(getattr(times, name), getattr(INTERACTIVE, name)) for name in _BEFORE_THE_DOT}
    return replace(times, **capped)


_BEFORE_THE_DOT = ("greeting", "command", "data", "block")
