"""Settings as people write them: in ZCML, in zope.conf, in ini files, on the command line.

Text becomes values, and several sources become one.  Fails with `ValueError` that names the setting, the
value and what would be right; a password is never in it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from datetime import timedelta
from enum import StrEnum
from typing import Any

from zope.sendmail.config.location import check_location
from zope.sendmail.config.nearest import meant
from zope.sendmail.config.settings import EXTENSIONS, LONGEST, Keep, Mechanism, Notify, RelaySettings, Tls, TlsVersion
from zope.sendmail.config.tokens import TokenFromCommand, TokenFromFile, split_command
from zope.sendmail.lifecycle.retry import OnUnknown, Schedule
from zope.sendmail.message.relayname import RelayName
from zope.sendmail.message.routes import Routes
from zope.sendmail.message.terms import Priority, TermDefaults
from zope.sendmail.message.verpkey import VerpKey

#: Settings by name, as values: what one source says.
Settings = Mapping[str, Any]
Parser = Callable[[str], Any]

_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([smhd]?)", re.ASCII | re.IGNORECASE)
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}

_SWITCH = {
    **dict.fromkeys(("true", "yes", "on", "t", "y", "1"), True),
    **dict.fromkeys(("false", "no", "off", "f", "n", "0"), False),
}


# --- text to value ------------------------------------------------------------------------------------------


def boolean(text: str | bool) -> bool:  # noqa: FBT001 - callers of 7.3 pass booleans as well
    """Return what a switch says.  Raises `ValueError`."""
    if isinstance(text, bool):
        return text
    try:
        return _SWITCH[text.strip().lower()]
    except KeyError:
        raise ValueError(f"{text!r} is neither yes nor no; write one of {', '.join(_SWITCH)}") from None


def duration(text: str) -> float:
    """Return the seconds in ``90``, ``90s``, ``10m``, ``2h``, ``1.5d``.  Raises `ValueError`."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(
            f"{text!r} is not a duration; write seconds, or a number with s, m, h or d: 90, 90s, 10m, 2h, 5d"
        )
    return float(match[1]) * _SECONDS[match[2].lower()]


def number(text: str) -> float:
    """Return a decimal number.  Raises `ValueError`."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is not a number; write one like 2 or 1.5")
    return value


def whole(text: str) -> int:
    """Return a whole number.  Raises `ValueError`."""
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a whole number; write one such as 5") from None


def positive(parse: Callable[[str], float]) -> Parser:
    """Return a parser that takes what `parse` takes, but neither zero nor less."""

    def parse_positive(text: str) -> float:
        value = parse(text)
        if value <= 0:
            raise ValueError(f"{text!r} is not more than zero; write a larger one, such as 1")
        return value

    return parse_positive


def pause(text: str) -> float:
    """Return the seconds of a time for which something is waited: more than none, and no more than a socket can wait.

    :raises ValueError: for any other.
    """
    seconds: float = positive(duration)(text)
    if seconds > LONGEST:
        raise ValueError(f"{text!r} is more than {LONGEST:.0f} seconds; nothing can be waited for so long")
    return seconds


def one_of(words: type[StrEnum]) -> Parser:
    """Return a parser for one of a few words."""

    def parse_word(text: str) -> StrEnum:
        try:
            return words(text.strip().lower())
        except ValueError:
            raise ValueError(f"{text!r} is not one of {', '.join(words)}") from None

    return parse_word


def mechanisms(text: str) -> tuple[Mechanism, ...]:
    """Return SASL mechanisms, whose names are separated by blanks or commas.  Raises `ValueError`."""
    try:
        return tuple(Mechanism(word.upper()) for word in text.replace(",", " ").split())
    except ValueError:
        raise ValueError(f"{text!r}: only these mechanisms are known: {', '.join(Mechanism)}") from None


def notify_when(text: str) -> tuple[str, ...]:
    """Return ``NEVER``, or some of ``SUCCESS``, ``FAILURE`` and ``DELAY`` (RFC 3461, 4.1).  Raises `ValueError`."""
    when = tuple(text.upper().replace(",", " ").split())
    try:
        Notify(when)
    except ValueError:
        raise ValueError(f"{text!r}: write NEVER alone, or some of SUCCESS, FAILURE and DELAY") from None
    return when


def notify_return(text: str) -> str:
    """Return ``FULL`` or ``HDRS`` (RFC 3461, 4.3).  Raises `ValueError`."""
    word = text.strip().upper()
    if word not in {"FULL", "HDRS"}:
        raise ValueError(f"{text!r} is not one of FULL (the whole mail), HDRS (its headers)")
    return word


def words(text: str) -> tuple[str, ...]:
    """Return the words that have blanks, commas or line ends between them."""
    return tuple(word for word in re.split(r"[\s,]+", text) if word)


def extensions(text: str) -> frozenset[str]:
    """Return names of SMTP extensions, which are separated by blanks or commas, in lower case.

    :raises ValueError: for one that changes nothing of what is said to a relay.
    """
    names = frozenset(words(text.lower()))
    if unknown := sorted(names - EXTENSIONS):
        raise ValueError(f"{', '.join(unknown)}: no such extension is used; known are {', '.join(sorted(EXTENSIONS))}")
    return names


def addresses(text: str) -> tuple[tuple[str, int], ...]:
    """Return relays, each written as ``host:port``.  Raises `ValueError`."""
    relays = [RelayName.of(word) for word in words(text)]
    for relay in relays:
        if not relay.hostname:
            raise ValueError(f"{str(relay)!r} is not the address of a relay; write host:port")
    return tuple((relay.hostname, relay.port) for relay in relays)


def routes(text: str) -> dict[str, str]:
    """Return routes, each written as ``pattern=mailer``; patterns are addresses, ``@domain`` and ``@.domain``."""
    table = {}
    for word in words(text):
        pattern, equals, mailer = word.partition("=")
        if not (pattern and equals and mailer):
            raise ValueError(f"{word!r} is not a route; write one@example.org=mailer or @example.org=mailer")
        table[pattern.lower()] = mailer
    return table


# --- what can be set ----------------------------------------------------------------------------------------

#: About a relay.
RELAY: dict[str, Parser] = {
    "hostname": str,
    "port": whole,
    "username": str,
    "password": str,
    "password_file": str,
    "tls": one_of(Tls),
    "no_tls": boolean,
    "force_tls": boolean,
    "implicit_tls": boolean,
    "verify": boolean,
    "cafile": str,
    "local_hostname": str,
    "timeout": pause,
    "greeting_timeout": pause,
    "command_timeout": pause,
    "data_timeout": pause,
    "allow_clear_password": boolean,
    "token_command": split_command,
    "token_file": str,
    "auth": mechanisms,
    "certfile": str,
    "keyfile": str,
    "tls_minimum": one_of(TlsVersion),
    "notify": notify_when,
    "notify_return": notify_return,
    "rate": positive(number),
    "shared_rate": positive(number),
    "connections": positive(whole),
    "mails_per_connection": positive(whole),
    "recipient_limit": positive(whole),
    "discard_extensions": extensions,
}

#: The login at the relay, and how that may go: never mixed with another user's.
LOGIN = ("password", "password_file", "token_command", "token_file", "auth", "allow_clear_password")

#: Files that a setting names; where a relative path has no meaning, the whole one is asked for.
PATHS = ("password_file", "cafile", "token_file", "certfile", "keyfile")

#: Settings of which something else is made for the mailer.
_MADE = {"password_file", "token_command", "token_file", "notify", "notify_return", "mails_per_connection"}

#: About a queue and its processor.
QUEUE: dict[str, Parser] = {
    "queue_path": check_location,
    "interval": pause,
    "concurrency": positive(whole),
    "first_retry": positive(duration),
    "retry_factor": positive(number),
    "max_retry": positive(duration),
    "lifetime": duration,
    "on_unknown": one_of(OnUnknown),
    "notify_sender": boolean,
    "keep_rejected": positive(duration),
    "suppress_refused": boolean,
}

#: What is asked for with mail, where its sender says nothing.
SENDING: dict[str, Parser] = {
    "not_before": positive(duration),
    "expires": positive(duration),
    "priority": one_of(Priority),
    "key_lifetime": positive(duration),
}

#: Which relays a queue has, and which recipients are sent to which.
ROUTING: dict[str, Parser] = {
    "mailers": words,
    "relays": addresses,
    "recipient_routes": routes,
    "sender_routes": routes,
    "legacy_passwords": boolean,
}

#: What `Schedule` calls them.
_SCHEDULE = {
    "first_retry": "first",
    "retry_factor": "factor",
    "max_retry": "maximum",
    "lifetime": "lifetime",
    "on_unknown": "on_unknown",
}

_TLS_SWITCHES = ("no_tls", "force_tls", "implicit_tls")

#: Settings that say one thing in several ways.
_ALTERNATIVES = (("tls", *_TLS_SWITCHES), ("password", "password_file", "token_command", "token_file"))


def read_settings(texts: Mapping[str, str], known: Mapping[str, Parser]) -> dict[str, Any]:
    """Return the values in `texts`; nothing, and the word ``None``, mean: not set.

    An unknown name is refused with the list of the known ones.
    """
    unknown = sorted(set(texts) - set(known))
    if unknown:
        raise ValueError(f"unknown: {', '.join(unknown)}{meant(unknown, known)}; known are: {', '.join(known)}")
    values = {}
    for name, text in texts.items():
        try:
            if text not in ("", "None"):
                values[name] = known[name](text)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return values


def merge(sources: Iterable[Settings]) -> dict[str, Any]:
    """Return one set of settings made of several, the strongest source first.

    What can be said in several ways is taken from one source only: one that says `tls` is not mixed with
    another's `force_tls`.  None, the empty text, and a TLS switch that is off say nothing.
    """
    merged: dict[str, Any] = {}
    for source in sources:
        said = {name: value for name, value in source.items() if _says_something(name, value)}
        _check_tls(said)
        closed = {name for names in _ALTERNATIVES if not merged.keys().isdisjoint(names) for name in names}
        merged.update((name, value) for name, value in said.items() if name not in merged and name not in closed)
    return merged


def mailer_keywords(settings: Settings) -> dict[str, Any]:
    """Return the keywords for a mailer, only those that were set: older subclasses know only the older ones.

    Reads the password file.  Raises `ValueError` if the settings contradict each other.
    """
    keywords = {name: settings[name] for name in RELAY if name in settings and name not in _MADE}
    if "password_file" in settings:
        keywords["password"] = read_password(settings["password_file"])
    keywords.update(_token_keyword(settings))
    if "notify" in settings or "notify_return" in settings:
        keywords["notify"] = Notify(settings.get("notify", ()), settings.get("notify_return", ""))
    if "mails_per_connection" in settings:
        keywords["keep"] = Keep(mails=settings["mails_per_connection"])
    checked = {field.name for field in fields(RelaySettings)}
    RelaySettings(**{name: value for name, value in keywords.items() if name in checked})
    return keywords


def routes_of(mailer: str, settings: Settings) -> Routes:
    """Return the routes of a queue whose default is `mailer`.  Raises `ValueError`."""
    return Routes(
        mailer,
        frozenset((mailer, *settings.get("mailers", ()))),
        frozenset(settings.get("relays", ())),
        settings.get("recipient_routes", {}),
        settings.get("sender_routes", {}),
        legacy_passwords=settings.get("legacy_passwords", False),
    )


#: What a processor calls as its settings do.
_PROCESSOR = ("interval", "concurrency", "notify_sender", "keep_rejected", "suppress_refused")


def processor_keywords(settings: Settings) -> dict[str, Any]:
    """Return the keywords for a processor, and only those that were set.  Raises `ValueError` like `Schedule`."""
    keywords = {name: settings[name] for name in _PROCESSOR if name in settings}
    schedule = {theirs: settings[ours] for ours, theirs in _SCHEDULE.items() if ours in settings}
    return {**keywords, "schedule": Schedule(**schedule)} if schedule else keywords


def term_defaults(settings: Settings) -> TermDefaults:
    """Return what is asked for where the sender of a mail says nothing, and only what was set."""
    found = {name: settings[name] for name in SENDING if name in settings}
    times: Any = {
        name: timedelta(seconds=value) if isinstance(value, (int, float)) else value for name, value in found.items()
    }
    return times  # type: ignore[no-any-return]  # the parsers see to it


def read_password(path: str) -> str:
    """Return the password in a file; a line end behind it does not count.  Raises `ValueError` if there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            password = file.read().rstrip("\r\n")
    except (OSError, UnicodeError) as error:
        raise ValueError(f"the password file {path!r} cannot be read: {error}") from error
    if not password or "\n" in password:
        raise ValueError(f"the password file {path!r} must hold the password and nothing else, in one line")
    return password


def read_verp_key(path: str) -> VerpKey:
    """Return the key for return paths in a file; blanks and line ends around it do not count.

    :raises ValueError: there is none, or it is too short.
    """
    try:
        with open(path, "rb") as file:
            secret = file.read().strip()
    except OSError as error:
        raise ValueError(f"the key file {path!r} cannot be read: {error.strerror}") from error
    return VerpKey(secret)


def _token_keyword(settings: Settings) -> dict[str, Any]:
    if "token_command" in settings and "token_file" in settings:
        raise ValueError("token_command and token_file contradict each other; keep one of them")
    if "token_command" in settings:
        return {"token": TokenFromCommand(settings["token_command"])}
    return {"token": TokenFromFile(settings["token_file"])} if "token_file" in settings else {}


def _says_something(name: str, value: Any) -> bool:
    return value is not None and value != "" and not (name in _TLS_SWITCHES and not value)


def _check_tls(said: Settings) -> None:
    switches = [name for name in _TLS_SWITCHES if name in said]
    if "tls" in said and switches:
        raise ValueError(f"tls = {said['tls']} and {switches[0]} say the same thing twice; keep tls")
    if "no_tls" in switches and len(switches) > 1:
        raise ValueError(f"no_tls and {switches[1]} contradict each other; keep one of them")
