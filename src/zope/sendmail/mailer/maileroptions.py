"""The options of an `SMTPMailer` by name, and what is refused of them.

What no relay can have fails with `InvalidSettings`, which names the relay, the option and what would be right.
"""

from __future__ import annotations

import difflib
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, TypedDict, TypeVar

from zope.sendmail.config.options import extensions, mechanisms
from zope.sendmail.config.settings import (
    Keep,
    Mechanism,
    Notify,
    RelaySettings,
    Timeouts,
    Tls,
    TlsVersion,
    check_relay,
)
from zope.sendmail.errors import InvalidSettings
from zope.sendmail.system.clock import Clock

#: Seconds for a connection where `timeout` is None and the process has no other.
_PATIENT = 300.0


class KeywordOptions(TypedDict, total=False):
    """What an `SMTPMailer` can be told by keyword only; see its attributes.  None: as the class has it."""

    tls: Tls | str | None
    verify: bool | None
    cafile: str | None
    allow_clear_password: bool | None
    timeouts: Timeouts | None
    keep: Keep | None
    clock: Clock | None
    local_hostname: str | None
    notify: Notify | None
    token: Callable[[], str] | None
    auth: str | Iterable[str]
    certfile: str | None
    keyfile: str | None
    tls_minimum: TlsVersion | str | None
    ssl_context: Callable[[], ssl.SSLContext] | None
    rate: float | None
    shared_rate: float | None
    connections: int | None
    greeting_timeout: float | None
    command_timeout: float | None
    data_timeout: float | None
    recipient_limit: int | None
    discard_extensions: str | Iterable[str]
    settings: Callable[[], Mapping[str, Any] | RelaySettings] | None


class MailerOptions(KeywordOptions, total=False):
    """What an `SMTPMailer` can be told besides its relay and the login there; see its attributes."""

    no_tls: bool
    force_tls: bool
    implicit_tls: bool
    timeout: float | None


#: Options by name.
MAILER_OPTIONS = tuple(MailerOptions.__annotations__)


def checked_options(hostname: str, options: KeywordOptions) -> dict[str, Any]:
    """Return the options that are given, as attributes of a mailer.

    :raises InvalidSettings: one of them cannot be.
    :raises TypeError: there is no option of this name.
    """
    _refuse_unknown(options)
    given = {name: value for name, value in options.items() if value is not None}
    _check_limits(hostname, given)
    settings = given.get("settings")
    if settings is not None and not callable(settings):
        raise InvalidSettings(f"relay {hostname}: settings is {settings!r}, which is not a function")
    given |= {name: read(hostname, given[name]) for name, read in _READERS.items() if name in given}
    # An empty series is as if it were not given.
    return {name: value for name, value in given.items() if name not in ("auth", "discard_extensions") or value}


def _refuse_unknown(options: Mapping[str, object]) -> None:
    for name in options:
        if name not in KeywordOptions.__annotations__:
            near = difflib.get_close_matches(name, MAILER_OPTIONS, 1)
            meant = f"; did you mean {near[0]!r}?" if near else ""
            raise TypeError(f"SMTPMailer() got an unexpected keyword argument {name!r}{meant}")


def checked_port(hostname: str, port: int | str) -> int:
    """Return the port as a number.  Raises `InvalidSettings` for a relay that cannot be."""
    try:
        number = int(port)
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None or (isinstance(port, float) and port != number):
        raise InvalidSettings(f"relay {hostname}: the port {port!r} is not a whole number; write one such as 587")
    check_relay(hostname, number)
    return number


def _check_limits(hostname: str, given: Mapping[str, object]) -> None:
    """Refuse rates and a number of connections that let no mail through."""
    for name in ("rate", "shared_rate"):
        rate = given.get(name)
        if rate is not None and not (isinstance(rate, (int, float)) and rate > 0):
            raise InvalidSettings(f"relay {hostname}: {name} is {rate!r}; write a number, more than 0")
    connections = given.get("connections")
    if connections is not None and not (isinstance(connections, int) and connections >= 1):
        raise InvalidSettings(f"relay {hostname}: connections is {connections!r}; write a whole number, at least 1")


def as_text(value: str | bytes | None) -> str | None:
    """Return a username or a password as text, whatever its octets are."""
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value


def login_mechanisms(auth: str | Iterable[str]) -> tuple[Mechanism, ...]:
    """Return the mechanisms that are named, in their order.  Raises `InvalidSettings`."""
    try:
        return mechanisms(auth if isinstance(auth, str) else " ".join(auth))
    except (ValueError, TypeError) as error:
        raise InvalidSettings(f"auth: {error}") from None


_Choice = TypeVar("_Choice", Tls, TlsVersion)


def _chosen(kind: type[_Choice], hostname: str, word: str) -> _Choice:
    try:
        return kind(word)
    except ValueError:
        raise InvalidSettings(f"relay {hostname}: {word!r} is not one of {', '.join(kind)}") from None


def discarded_extensions(names: str | Iterable[str]) -> frozenset[str]:
    """Return the extensions that are named, in lower case.  Raises `InvalidSettings`."""
    try:
        return extensions(names if isinstance(names, str) else " ".join(names))
    except (ValueError, TypeError) as error:
        raise InvalidSettings(f"discard_extensions: {error}") from None


def usual_timeouts(connect_seconds: float | None, usual: Timeouts) -> Timeouts:
    """Return the usual times to wait, with that for a connection; None: what the process has, or five minutes."""
    seconds = socket.getdefaulttimeout() if connect_seconds is None else connect_seconds
    return replace(usual, connect=_PATIENT if seconds is None else float(seconds))


#: How options are read that are words, or series of words.
_READERS: Mapping[str, Callable[[str, Any], object]] = {
    "tls": partial(_chosen, Tls),
    "tls_minimum": partial(_chosen, TlsVersion),
    "auth": lambda _, auth: login_mechanisms(auth),
    "discard_extensions": lambda _, names: discarded_extensions(names),
}
