"""Tokens in the place of a password (OAuth 2, RFC 6749), from a command or from a file.

Another program gets them from Google or Microsoft, and keeps the refresh token; it is only asked for what it has.
Fails with `RelayError`: mail waits, and no attempt is lost.  No token is ever in an error, a repr or a pickle.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shlex
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from zope.interface import implementer

from zope.sendmail.errors import RelayError
from zope.sendmail.interfaces import IRenewableToken, ITokenProvider
from zope.sendmail.lifecycle.outcome import printable
from zope.sendmail.system.clock import Clock
from zope.sendmail.system.forklock import ForkLock
from zope.sendmail.system.privileges import child_identity

#: Seconds that a command has: it may have to ask the provider over the net.
COMMAND_TIMEOUT = 30.0

#: Seconds for which a token is used again if it is not said how long it is valid.  If it is not, it is refused, and a
#: new one is asked for.
USUAL_LIFE = 300.0

#: Seconds before its end from which a token is not used any more: clocks differ, and a login takes a moment.
_MARGIN = 60.0

_NOTHING = float("-inf")


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A token, and the seconds for which it is valid if that is known."""

    text: str = field(repr=False)
    life: float | None = None


@implementer(IRenewableToken)
class TokenFromCommand:
    """See `IRenewableToken`: what a command prints, kept until it expires.

    `argv` is run without a shell, with this process's environment and effective rights (of root's, if those were given
    up, nothing is left) and an empty standard input; it has `timeout` seconds.  It prints the token in one line, or
    JSON with ``access_token`` and, if it knows, ``expires_in`` in seconds.  Concurrency: any thread; one command at a
    time.
    """

    def __init__(self, argv: Sequence[str], *, timeout: float = COMMAND_TIMEOUT, clock: Clock | None = None) -> None:
        if isinstance(argv, str) or not argv:
            raise ValueError("a token command is a list: the program and its arguments")
        self.argv = tuple(argv)
        self.timeout = timeout
        self.clock = clock or Clock()
        self._lock = ForkLock()
        self._token = ""
        self._until = _NOTHING

    def __call__(self) -> str:
        """See `ITokenProvider`."""
        with self._lock:
            if self.clock.monotonic() >= self._until:
                self._fetch()
            return self._token

    def renew(self, refused: str) -> str:
        """See `IRenewableToken`.  What another thread has fetched meanwhile is as good as new."""
        with self._lock:
            if self._token in (refused, ""):
                self._fetch()
            return self._token

    def __repr__(self) -> str:
        """Return it without the arguments: they may hold a secret."""
        return f"<{type(self).__name__} {_program(self.argv)}>"

    def __getstate__(self) -> dict[str, Any]:
        """Return what was asked for, not what was got."""
        return {"argv": self.argv, "timeout": self.timeout, "clock": self.clock}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["argv"], timeout=state["timeout"], clock=state["clock"])  # type: ignore[misc]  # a subclass has the same arguments

    def _fetch(self) -> None:
        self._until = _NOTHING  # also if this fails
        token = parse_token(_output(self.argv, self.timeout), f"token command {_program(self.argv)}")
        self._token = token.text
        life = USUAL_LIFE if token.life is None else token.life - _MARGIN
        self._until = self.clock.monotonic() + life


@implementer(ITokenProvider)
class TokenFromFile:
    """See `ITokenProvider`: what a file holds now, as `TokenFromCommand` would print it.

    It is read for each login: a program that renews the token has only to replace it.  Concurrency: any thread.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def __call__(self) -> str:
        """See `ITokenProvider`."""
        try:
            with open(self.path, encoding="utf-8") as file:
                text = file.read()
        except UnicodeError:
            raise RelayError(f"token file {self.path!r} holds something else than text") from None
        except OSError as error:
            raise RelayError(f"token file {self.path!r} cannot be read: {error.strerror}") from error
        return parse_token(text, f"token file {self.path!r}").text

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path!r}>"


def split_command(text: str) -> tuple[str, ...]:
    """Return the program and its arguments in `text`, which is quoted as for a shell.

    :raises ValueError: it is none; the text is not repeated.
    """
    try:
        argv = tuple(shlex.split(text))
    except ValueError as error:  # the text may hold a secret
        raise ValueError(f"this is not a command: {error}; close each quote that is opened") from None
    if not argv:
        raise ValueError("the command is empty; write the program and its arguments")
    return argv


def parse_token(text: str, source: str) -> AccessToken:
    """Return the token in what `source` gave: one line, or JSON as of a token endpoint (RFC 6749, 5.1)."""
    text = text.strip()
    if text.startswith("{"):
        return _parse_json(text, source)
    if not text or len(text.split()) > 1:
        lines = len(text.splitlines())
        raise RelayError(f"{source} gave {lines} lines; one with the token and nothing else is needed, or JSON")
    return AccessToken(text)


def _parse_json(text: str, source: str) -> AccessToken:
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        raise RelayError(f"{source} gave something that begins like JSON and is none") from None
    token = told.get("access_token")
    if not isinstance(token, str) or not token:
        why = printable(str(told.get("error_description") or told.get("error") or "no reason given"))
        raise RelayError(f"{source} gave JSON without an access_token: {why}")
    return AccessToken(token, _seconds(told.get("expires_in")))


def _seconds(told: object) -> float | None:
    """Return the seconds in ``expires_in``: a number, with some endpoints a text that holds one."""
    try:
        life = float(told)  # type: ignore[arg-type]  # what is no number raises
    except (TypeError, ValueError, OverflowError):
        return None
    return life if math.isfinite(life) else None


def _program(argv: Sequence[str]) -> str:
    """Return what is run, for people; what looks like a variable that was to be set has no value then."""
    name, equals, _ = argv[0].partition("=")
    return repr(f"{name}=..." if equals else name)


def _output(argv: Sequence[str], timeout: float) -> str:
    """Return what the command prints.  Raises `RelayError` with the last line of its complaints."""
    name = f"token command {_program(argv)}"
    try:
        process = subprocess.Popen(  # noqa: S603 - the administrator's command, and no shell
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # so that it ends with all it has started
            **child_identity(),
        )
    except (OSError, ValueError) as error:
        raise RelayError(f"{name} cannot be run: {getattr(error, 'strerror', None) or error}") from error
    with process:
        try:
            output, complaints = process.communicate(timeout=timeout)
        except BaseException as error:
            _kill(process)
            if isinstance(error, subprocess.TimeoutExpired):
                raise RelayError(f"{name} did not end within {timeout:g} s") from None
            raise
    if process.returncode != 0:
        last = complaints.decode("utf-8", "backslashreplace").strip().splitlines()[-1:]
        raise RelayError(f"{name} {_ended(process.returncode)}: {printable(''.join(last)) or 'it said nothing'}")
    text: str = output.decode("utf-8", "backslashreplace")
    return text


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _ended(status: int) -> str:
    return f"ended with status {status}" if status > 0 else f"was ended by signal {-status}"
