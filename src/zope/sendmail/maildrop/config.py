"""The configuration file of maildrop: Products.MaildropHost's keys and defaults, as a frozen value.

Reads the file and nothing else; makes no directory.  Paths in it that are relative begin at its own directory.
Fails with `ConfigError`, which names the file, the line and the cure.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NoReturn, TypeVar

from zope.sendmail.config.location import DATABASES, scheme_of
from zope.sendmail.config.nearest import meant
from zope.sendmail.config.options import PATHS, QUEUE, RELAY, Parser, processor_keywords, read_password
from zope.sendmail.config.settings import Tls
from zope.sendmail.errors import InvalidAddress, MailError
from zope.sendmail.lifecycle.retry import OnUnknown
from zope.sendmail.maildrop.configsyntax import Assigned, Literal, Malformed, parse_assignments
from zope.sendmail.message.address import parse_mailbox, split_list

_Word = TypeVar("_Word", bound=StrEnum)

#: In the environment: the relay's password, if the configuration of ``maildrop`` has neither it nor a password file.
PASSWORD_VARIABLE = "MAILDROP_PASSWORD"  # noqa: S105 - the name of a variable

#: What the numbers of MAILDROP_TLS mean.
TLS = (Tls.NEVER, Tls.OPPORTUNISTIC, Tls.REQUIRED, Tls.IMPLICIT)

_TLS_WORDS = [str(each) for each in TLS]

#: Settings of the relay with the names that they have everywhere; for the others MaildropHost had keys and meanings.
RELAY_OPTIONS = (
    "local_hostname",
    "timeout",
    "greeting_timeout",
    "command_timeout",
    "data_timeout",
    "shared_rate",
    "recipient_limit",
    "discard_extensions",
    "token_command",
    "token_file",
    "auth",
    "certfile",
    "keyfile",
    "tls_minimum",
    "notify",
    "notify_return",
)

#: Settings of the queue, likewise.
QUEUE_OPTIONS = ("first_retry", "retry_factor", "max_retry", "lifetime", "notify_sender", "keep_rejected")

#: Seconds for which a lock of another program counts, if it is not set.
LOCK_AGE = 86400.0


class ConfigError(MailError, ValueError):
    """The configuration cannot be used.  Cure: the text names file, line, and what to write."""

    permanent = True


@dataclass(frozen=True, slots=True)
class Config:
    """What a configuration file says.  Times are seconds; paths are absolute; an empty text means: not set."""

    path: str
    smtp_host: str
    smtp_port: int
    home: str
    #: Spool directories; mail is written to the first and read from all.  None if it is in a database.
    spools: tuple[str, ...]
    var: str
    pid_file: str
    log_file: str
    #: Between two looks.
    interval: float
    debug: bool
    #: Recipients that replace those of every mail; the daemon does not look at it.
    debug_receiver: tuple[str, ...]
    #: Messages per connection; 0: as many as there are.
    batch: int
    #: 0 never, 1 if the relay offers it, 2 always, 3 from the first byte.
    tls: int
    login: str
    #: As it stands in the file; `read_password` knows the other places.
    password: str = field(repr=False)
    #: Between two messages.
    wait_interval: float
    add_messageid: bool
    supervised: bool
    password_file: str = ""
    #: File of CA certificates for the relay; empty: the system's.
    cafile: str = ""
    #: Whether the relay has to prove who it is; None: if TLS is 2, or a password goes over TLS.
    verify: bool | None = None
    #: How old the lock of a writer gets before its mail is taken all the same; 0.0: never taken.
    lock_age: float = LOCK_AGE
    #: What becomes of a mail of which it cannot be known whether the relay has it.
    on_unknown: OnUnknown = OnUnknown.RESEND
    #: The location of a queue in a database, in the place of spools.
    database: str = ""
    #: Further settings of the relay, by their names in `RELAY`.
    relay_options: tuple[tuple[str, Any], ...] = ()
    #: Further settings of the queue, by their names in `QUEUE`.
    queue_settings: tuple[tuple[str, Any], ...] = ()
    #: Of each key that looks like one of ours and is none: a sentence that names file, line and key.
    passed_over: tuple[str, ...] = ()

    @property
    def processor_options(self) -> Mapping[str, Any]:
        """What the processor is given besides: the schedule, and what is done about rejected mail."""
        return processor_keywords({**dict(self.queue_settings), "on_unknown": self.on_unknown})

    @property
    def queue_options(self) -> Mapping[str, Any]:
        """What `open_queue` is given besides, by the daemon and by commands that look at its mail."""
        schedule = self.processor_options["schedule"]
        return {"schedule": schedule} if self.database else {"lock_age": self.lock_age, "schedule": schedule}

    @property
    def location(self) -> str:
        """What `open_queue` is given."""
        return self.database or "spool:" + ";".join(self.spools)

    @property
    def place(self) -> str:
        """The directory whose owner the daemon is: the first spool, or that of its own files."""
        return self.spools[0] if self.spools else self.var

    @property
    def has_password(self) -> bool:
        """Whether there is a password somewhere; reads no password file."""
        return bool(self.password or self.password_file or os.environ.get(PASSWORD_VARIABLE))

    def read_password(self) -> str:
        """Return the password: of this file, else of the password file, else of the environment; empty: none.

        Raises `ConfigError` if the password file cannot be used.
        """
        if self.password:
            return self.password
        if self.password_file:
            try:
                return read_password(self.password_file)
            except ValueError as error:
                raise ConfigError(f"{self.path}: MAILDROP_PASSWORD_FILE: {error}") from error
        return os.environ.get(PASSWORD_VARIABLE, "")


def read_config(path: str) -> Config:
    """Read the configuration file at `path`.  Raises `ConfigError`."""
    path = os.path.abspath(path)
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
            return parse_config(file.read(), path)
    except OSError as error:
        raise ConfigError(
            f"{path}: the configuration cannot be read ({error.strerror or error}); name a file that exists and "
            "that this user may read"
        ) from error


def parse_config(text: str, path: str) -> Config:
    """Return what the `text` of the configuration file at `path` says.  Raises `ConfigError`."""
    try:
        return _config(_Reader(parse_assignments(text), path))
    except Malformed as error:
        raise ConfigError(f"{path}, line {error.line}: {error}") from None


def _config(read: _Reader) -> Config:
    database = read.database("MAILDROP_SPOOL")
    spools, var = () if database else read.paths("MAILDROP_SPOOL"), read.path("MAILDROP_VAR")
    home = read.path("MAILDROP_HOME")
    if not home and not ((spools or database) and var):
        read.refuse(
            "MAILDROP_HOME", 'is missing; name a directory of your own, such as MAILDROP_HOME="/var/lib/maildrop"'
        )
    home = home or var
    var = var or os.path.join(home, "var")
    return Config(
        path=read.file,
        smtp_host=read.text("SMTP_HOST") or "localhost",
        smtp_port=read.whole("SMTP_PORT", 25, 1, 65535),
        home=home,
        spools=spools or (() if database else (os.path.join(home, "spool"),)),
        database=database,
        var=var,
        pid_file=read.path("MAILDROP_PID_FILE") or os.path.join(var, "maildrop.pid"),
        log_file=read.path("MAILDROP_LOG_FILE") or os.path.join(var, "maildrop.log"),
        interval=read.seconds("MAILDROP_INTERVAL", 120.0),
        debug=bool(read.switch("DEBUG")),
        debug_receiver=read.addresses("DEBUG_RECEIVER"),
        batch=read.whole("MAILDROP_BATCH", 0),
        tls=read.tls("MAILDROP_TLS"),
        login=read.text("MAILDROP_LOGIN"),
        password=read.secret("MAILDROP_PASSWORD"),
        wait_interval=read.seconds("WAIT_INTERVAL", 0.0),
        add_messageid=bool(read.switch("ADD_MESSAGEID")),
        supervised=bool(read.switch("SUPERVISED_DAEMON")),
        password_file=read.path("MAILDROP_PASSWORD_FILE"),
        cafile=read.path("MAILDROP_CAFILE"),
        verify=read.switch("MAILDROP_VERIFY"),
        lock_age=read.seconds("MAILDROP_LOCK_AGE", LOCK_AGE),
        on_unknown=read.one_of(OnUnknown, "MAILDROP_ON_UNKNOWN", OnUnknown.RESEND),
        relay_options=tuple(read.options(RELAY_OPTIONS, RELAY)),
        queue_settings=read.queue_settings(),
        passed_over=tuple(read.passed_over()),  # the last one: by now all that are known have been asked for
    )


class _Reader:
    """The values in a file, each as what it shall be."""

    def __init__(self, assigned: Mapping[str, Assigned], file: str) -> None:
        self.file = file
        self._assigned = assigned
        self._known: set[str] = set()

    def refuse(self, key: str, why: str) -> NoReturn:
        """Raise `ConfigError` about a key."""
        line = f", line {self._assigned[key].line}" if key in self._assigned else ""
        raise ConfigError(f"{self.file}{line}: {key} {why}")

    def passed_over(self) -> Iterator[str]:
        """Yield a sentence about each key that has not been asked for, and begins as ours do or is nearly one."""
        for key in sorted(set(self._assigned) - self._known):
            nearest = meant([key], self._known)
            if nearest or key.startswith(("MAILDROP_", "SMTP_")):
                yield f"{self.file}, line {self._assigned[key].line}: there is no {key}, so it is passed over{nearest}"

    def text(self, key: str) -> str:
        """Return a text without the blanks around it."""
        return self.secret(key).strip()

    def secret(self, key: str) -> str:
        """Return a text to the letter."""
        text = self._printable(key)
        try:
            text.encode()
        except UnicodeEncodeError:
            self.refuse(key, "has a character that is not written in UTF-8; save the file as UTF-8")
        return text

    def addresses(self, key: str) -> tuple[str, ...]:
        """Mail addresses with commas between them."""
        addresses = tuple(split_list(self.text(key)))
        for each in addresses:
            try:
                parse_mailbox(each)
            except InvalidAddress as error:
                self.refuse(key, f"cannot be used: {error}")
        return addresses

    def path(self, key: str) -> str:
        """Return a path, made absolute."""
        return self._absolute(key, self._printable(key).strip())

    def database(self, key: str) -> str:
        """Return the location of a queue in a database; nothing if there is none."""
        text = self.text(key)
        try:
            return text if text.partition(":")[0] in DATABASES and scheme_of(text) else ""
        except ValueError as error:
            self.refuse(key, f"cannot be used: {error}")

    def paths(self, key: str) -> tuple[str, ...]:
        """Paths with ``;`` between them, none of them twice."""
        names = (name.strip() for name in self._printable(key).split(";"))
        return tuple(dict.fromkeys(self._absolute(key, name) for name in names if name))

    def whole(self, key: str, default: int, least: int = 0, most: int = 2**31) -> int:
        """Return a whole number; one in quotes is one, too."""
        number = self._number(key, default, _whole, "whole number")
        if not least <= number <= most:
            self.refuse(key, f"is {number}; write a number from {least} to {most}")
        return int(number)

    def seconds(self, key: str, default: float) -> float:
        """Seconds, not less than 0."""
        number = self._number(key, default, float)
        if not 0 <= number < 1e9:
            self.refuse(key, f"is {number}; write seconds, not less than 0")
        return float(number)

    def one_of(self, words: type[_Word], key: str, default: _Word) -> _Word:
        """Return one of a few words."""
        text = self.text(key) or default
        try:
            return words(text)
        except ValueError:
            self.refuse(key, f"is {text!r}; write one of: {', '.join(words)}")

    def options(self, names: Iterable[str], known: Mapping[str, Parser]) -> Iterator[tuple[str, Any]]:
        """Yield the settings that have no key of MaildropHost's: ``MAILDROP_`` and their usual names."""
        for name in names:
            key = f"MAILDROP_{name.upper()}"
            text = self.path(key) if name in PATHS else self.text(key)
            try:
                if text:
                    yield name, known[name](text)
            except ValueError as error:
                self.refuse(key, f"cannot be used: {error}")

    def queue_settings(self) -> tuple[tuple[str, Any], ...]:
        """Return the settings of the queue, which fit together."""
        settings = tuple(self.options(QUEUE_OPTIONS, QUEUE))
        try:
            processor_keywords(dict(settings))
        except ValueError as error:
            raise ConfigError(f"{self.file}: {error}") from error
        return settings

    def tls(self, key: str) -> int:
        """Return when TLS is used: a number of MaildropHost's, of which each beyond 2 means 2, or a word of `Tls`."""
        word = self.text(key).lower()
        if word in _TLS_WORDS:
            return _TLS_WORDS.index(word)
        return min(self.whole(key, 0), 2)

    def switch(self, key: str) -> bool | None:
        """Return whether it is on or off; None: it is not said."""
        value = self._value(key)
        return None if value is None or value == "" else bool(self._number(key, 0, _whole, "switch"))

    def _printable(self, key: str) -> str:
        """Return a text; a number is one, too, with all its digits."""
        value = self._value(key)
        text = "" if value is None else value if isinstance(value, str) else self._assigned[key].written
        if any(ord(character) < 32 or ord(character) == 127 for character in text):
            self.refuse(key, "has a control character in it; write printable characters only")
        return text

    def _value(self, key: str) -> Literal:
        self._known.add(key)
        return self._assigned[key].value if key in self._assigned else None

    def _number(self, key: str, default: float, kind: Callable[[Any], float], words: str = "number") -> float:
        value = self._value(key)
        if value is None or value == "":
            return default
        try:
            return kind(value)
        except (ValueError, OverflowError):
            self.refuse(key, f"is {value!r}, which is not a {words}; write one like {default}")

    def _absolute(self, key: str, path: str) -> str:
        if "$" in path:
            self.refuse(
                key, f"is {path!r}; '$' is not expanded here, although a shell would do it: write the whole path"
            )
        return os.path.normpath(os.path.join(os.path.dirname(self.file), path)) if path else ""


def _whole(value: str | float) -> int:
    """Raises `ValueError` for what is no whole number."""
    number = float(value)
    if not number.is_integer():
        raise ValueError(value)
    return int(number)
