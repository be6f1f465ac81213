"""From a hostname to a connection on which the relay has said its greeting.

Where the class is smtplib's we connect ourselves: with the time for a connection and that for a greeting apart (RFC
5321, 4.5.3.2.1), and to the next address if one does not serve (RFC 5321, 5.1).  A class with a way of its own to
connect is left to it.  Fails with what smtplib and ssl raise, and leaves no socket open then.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import smtplib
import socket
import sys
import time
from collections.abc import Callable, Container, Hashable
from smtplib import LMTP, SMTP, SMTP_SSL  # by name: a test that patches ``smtplib.SMTP`` must not blind us
from typing import Any, NamedTuple

from zope.sendmail.config.settings import RelaySettings, Tls
from zope.sendmail.errors import RelayError
from zope.sendmail.message.domain import ascii_domain
from zope.sendmail.smtp.heloname import helo_name
from zope.sendmail.smtp.hostaddresses import FAILURES, HostAddress, host_addresses, open_first
from zope.sendmail.smtp.replylines import read_by_lines, set_timeout
from zope.sendmail.smtp.tls import tls_context
from zope.sendmail.smtp.tlsprobe import waits_for_tls

#: What makes connections: ``smtplib.SMTP``, ``smtplib.SMTP_SSL``, or what was put in their place.
Factory = Callable[..., Any]

#: A relay there waits for our TLS, and says nothing (RFC 8314, 7.3).
_IMPLICIT_TLS = 465

_CURE_AT_465 = f"at port {_IMPLICIT_TLS} TLS is from the first byte: say tls=implicit"

#: Seconds for the greeting of the next address, however long the others have taken.
_LEAST_SHARE = 5.0

#: Names of a host that has none which others know.
_NO_NAMES = frozenset({"localhost.localdomain", "localhost6.localdomain6"})


def dialer_for(settings: RelaySettings, factory: Factory) -> Dialer:
    """Return what makes connections to this relay."""
    return OwnDialer(settings, factory) if _connects_as_smtplib(factory) else Dialer(settings, factory)


class Dialer:
    """Makes connections to one relay in the way that their class has."""

    def __init__(self, settings: RelaySettings, factory: Factory) -> None:
        self._settings = settings
        self._factory = factory
        #: Why the first address did not serve.
        self.first_error: Exception | None = None

    def dial(self) -> Any:
        """Return a new connection, greeted by the relay.  Raises what the factory raises."""
        settings = self._settings
        try:
            return self._factory(settings.hostname, str(settings.port), **_arguments(settings, self._factory))
        except smtplib.SMTPServerDisconnected as error:
            if settings.port != _IMPLICIT_TLS or settings.tls is Tls.IMPLICIT:
                raise
            raise smtplib.SMTPServerDisconnected(f"{error}; {_CURE_AT_465}") from error

    def may_go_on(self, error: Exception) -> bool:
        """Return whether `dial` can be called again after the last connection did not serve."""
        return False

    def succeeded(self) -> None:
        """Take note that the last connection serves."""


class OwnDialer(Dialer):
    """Makes smtplib's connections, to one address after the other."""

    def __init__(self, settings: RelaySettings, factory: Factory) -> None:
        super().__init__(settings, factory)
        self._scope = settings.hostname, settings.port
        self._addresses = _addresses(settings)
        self._all = tuple(self._addresses)
        self._current: HostAddress | None = None
        #: Seconds that are left for greetings, over all addresses.
        self._left = settings.timeouts.greeting

    def dial(self) -> SMTP:
        """Return a new connection to the next address that can be reached, greeted by the relay.

        :raises OSError: no address can be reached, or the one that was does not greet us.
        """
        try:
            sock, self._current = open_first(self._scope, self._addresses, self._settings.timeouts.connect)
        except OSError:
            self._addresses.clear()
            raise
        share = self._left / len(self._addresses)
        self._addresses.remove(self._current)
        begin = time.monotonic()
        try:
            return self._greeted(sock, share)
        finally:
            self._left = max(self._left - (time.monotonic() - begin), _LEAST_SHARE)

    def may_go_on(self, error: Exception) -> bool:
        """Return whether there is another address, after this one did not serve because of `error`."""
        if isinstance(error, RelayError):
            return False  # it is our own files that are wrong
        if self._current is not None:
            FAILURES.note(self._scope, self._current)
        self.first_error = self.first_error or error
        return bool(self._addresses)

    def succeeded(self) -> None:
        """Take note that the last address serves."""
        FAILURES.forget(self._scope, self._current)

    def _greeted(self, sock: socket.socket, seconds: float) -> SMTP:
        """Return an smtplib connection over `sock`, with the greeting read.  Closes it if that fails."""
        settings = self._settings
        if settings.port == _IMPLICIT_TLS and settings.tls is not Tls.IMPLICIT:
            seconds = min(seconds, settings.timeouts.connect)  # most likely there will be none
        try:
            connection = self._made(sock, seconds)
            if not makes_tls(self._factory) and self._current is not None:
                seconds = self._unless_in_tls(sock, seconds)
            code, text = _greeting(connection, seconds, settings)
        except BaseException:
            with contextlib.suppress(OSError):
                sock.close()
            raise
        if code != 220:
            connection.close()
            raise smtplib.SMTPConnectError(code, text)
        vars(connection)["greeting"] = text
        vars(connection)[_PLACE] = _Place(self._scope, self._current, self._all)
        return connection

    def _unless_in_tls(self, sock: socket.socket, seconds: float) -> float:
        """Return the seconds that are left for a greeting in clear.

        :raises smtplib.SMTPServerDisconnected: the relay waits for TLS.
        """
        assert self._current is not None
        begin = time.monotonic()
        if waits_for_tls(sock, self._current, self._settings.port, seconds):
            words = f"the relay speaks TLS from the first byte at port {self._settings.port}: say tls=implicit"
            raise smtplib.SMTPServerDisconnected(words)
        waited = time.monotonic() - begin
        return seconds if waited < 1.0 else max(seconds - waited, _LEAST_SHARE)

    def _made(self, sock: socket.socket, seconds: float) -> SMTP:
        settings = self._settings
        arguments = _arguments(settings, self._factory)
        connection: SMTP = self._factory(**arguments)
        # What smtplib's classes do when they connect.
        sys.audit("smtplib.connect", connection, settings.hostname, settings.port)
        name = ascii_domain(settings.hostname) or settings.hostname
        vars(connection)["_host"] = name  # STARTTLS asks for a certificate of this name
        sock.settimeout(seconds)
        if sock.family != socket.AF_UNIX:
            # Each command waits for its reply; Nagle's algorithm would only delay the end of a message.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if makes_tls(self._factory):
            sock = arguments["context"].wrap_socket(sock, server_hostname=name)
        connection.sock = sock
        connection.file = None
        return connection


class _Place(NamedTuple):
    """Where a connection goes: one of the addresses of a relay."""

    scope: Hashable
    address: HostAddress | None
    addresses: tuple[HostAddress, ...]


#: The attribute of a connection that has it.
_PLACE = "zope_sendmail_place"


def leave_address(connection: object) -> bool:
    """Let the next connection begin with another address of the relay, since this one failed behind its greeting.

    :returns: whether there is one that has not failed lately.
    """
    place: _Place | None = getattr(connection, _PLACE, None)
    if place is None or len(place.addresses) < 2:
        return False
    FAILURES.note(place.scope, place.address)
    return not all(FAILURES.has(place.scope, each) for each in place.addresses)


def makes_tls(factory: object) -> bool:
    """Return whether its connections speak TLS from the first byte."""
    return isinstance(factory, type) and issubclass(factory, SMTP_SSL)


def introduce(connection: Any, settings: RelaySettings) -> None:
    """Let an smtplib connection say a name in EHLO that relays take; see `helo_name`."""
    if not isinstance(connection, SMTP) or connection.sock is None:
        return
    if connection.local_hostname != (settings.local_hostname or own_name()):
        return  # its class knows better
    is_local = connection.sock.family not in (socket.AF_INET, socket.AF_INET6)
    address = None if is_local else connection.sock.getsockname()[0]
    connection.local_hostname = helo_name(connection.local_hostname, address)


@functools.cache
def own_name() -> str:
    """Return the name of this host.  Asked for once in a process: a resolver that hangs must not delay everything."""
    name = socket.getfqdn()
    return "localhost" if name in _NO_NAMES else name


def _connects_as_smtplib(factory: Factory) -> bool:
    """Return whether it is one of smtplib's classes, or one made of it that changed nothing about connecting."""
    if not isinstance(factory, type) or not issubclass(factory, SMTP):
        return False
    home = next(kind for kind in factory.__mro__ if kind in _SMTPLIBS)
    return all(getattr(factory, name) is getattr(home, name) is function for name, function in _SMTPLIBS[home].items())


#: How these connect, as it was when this was imported: a patch of today is to be used.
_SMTPLIBS: dict[type, dict[str, object]] = {
    kind: {name: getattr(kind, name) for name in ("__init__", "connect", "_get_socket")}
    for kind in (LMTP, SMTP_SSL, SMTP)
}


def _addresses(settings: RelaySettings) -> list[HostAddress]:
    if settings.hostname.startswith("/"):
        return [HostAddress(socket.AF_UNIX, socket.SOCK_STREAM, 0, settings.hostname)]
    return host_addresses(settings.hostname, settings.port)


def _greeting(connection: SMTP, seconds: float, settings: RelaySettings) -> tuple[int, bytes]:
    set_timeout(connection, seconds)
    read_by_lines(connection)
    try:
        return connection.getreply()
    except smtplib.SMTPServerDisconnected as error:
        is_late = isinstance(error.__context__, TimeoutError)
        words = f"the relay said nothing for {seconds:.3g} s" if is_late else str(error)
        if settings.tls is Tls.IMPLICIT:
            cure = ""
        elif settings.port == _IMPLICIT_TLS:
            cure = f"; {_CURE_AT_465}"
        else:
            cure = "; if TLS is from the first byte at this port, say tls=implicit" if is_late else ""
        raise smtplib.SMTPServerDisconnected(words + cure) from error


def _arguments(settings: RelaySettings, factory: Factory) -> dict[str, Any]:
    """Return what the factory is given besides host and port: no more than it takes.  Fakes often take nothing."""
    arguments: dict[str, Any] = {"timeout": settings.timeouts.connect}
    if isinstance(factory, type) and issubclass(factory, SMTP):
        arguments["local_hostname"] = settings.local_hostname or own_name()
        if makes_tls(factory):
            arguments["context"] = tls_context(settings)
    if isinstance(factory, type):
        taken = _parameters_of_class(factory, getattr(factory, "__init__", None))  # a patch of today is to be used
    else:
        taken = _parameters(factory)
    return arguments if taken is None else {name: value for name, value in arguments.items() if name in taken}


@functools.lru_cache(maxsize=16)
def _parameters_of_class(factory: type, made_by: object) -> Container[str] | None:  # noqa: ARG001 - a part of the key
    """Do as `_parameters`, once."""
    return _parameters(factory)


def _parameters(factory: Factory) -> Container[str] | None:
    """Return the names of what a factory takes; None: whatever it is given."""
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):  # some built-in callables have no signature
        return None
    if any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        return None
    return frozenset(parameters)
