"""Mailers: what a delivery and a queue processor hand their mail to.

`open_session` gives them one conversation for many mails, whatever the mailer is made of; `SMTPMailer` is the
mailer that speaks SMTP.  Its attributes may be changed at any time and count for the next connection.
"""

from __future__ import annotations

import copy
import inspect
import io
import operator
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from smtplib import SMTP, SMTP_SSL, SMTPException
from threading import local
from typing import Any, TypedDict, TypeVar

from zope.interface import implementer

from zope.sendmail.config.options import extensions, mechanisms
from zope.sendmail.config.settings import (
    INTERACTIVE,
    Keep,
    Mechanism,
    Notify,
    RelaySettings,
    Timeouts,
    Tls,
    TlsVersion,
    check_relay,
)
from zope.sendmail.errors import InvalidSettings, RelayError
from zope.sendmail.interfaces import ISession, ISessionMailer, ISMTPMailer, type_of_message
from zope.sendmail.lifecycle.outcome import Outcome
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.headers import message_id_in
from zope.sendmail.message.mime import message_bytes
from zope.sendmail.reporting import attempts
from zope.sendmail.smtp.classification import failed, succeeded
from zope.sendmail.smtp.connect import Factory, connect, hang_up, makes_tls
from zope.sendmail.smtp.protocol.progress import Progress, pairs
from zope.sendmail.smtp.relaymemory import RelayMemories
from zope.sendmail.smtp.sendmailconnection import OriginalMessage
from zope.sendmail.smtp.sendonly import SendOnlySession, is_within_session
from zope.sendmail.smtp.session import SMTPSession
from zope.sendmail.smtp.voting import is_about_relay
from zope.sendmail.system.clock import Clock

# SMTP, SMTP_SSL, SSLError: BBB, zope.sendmail 3.5 to 7.3 had them here.
__all__ = ["SMTP", "SMTP_SSL", "SMTPMailer", "SSLError", "SendOnlySession", "open_session"]


class MailerOptions(TypedDict, total=False):
    """What an `SMTPMailer` can be told besides its relay and the login there; see its attributes."""

    no_tls: bool
    force_tls: bool
    implicit_tls: bool
    timeout: float | None
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


class _SMTPState(local):
    """What one thread has open between `SMTPMailer.vote` and `SMTPMailer.send`."""

    connection: Any = None
    code: int | None = None
    response: bytes | None = None
    session: SMTPSession | None = None


class _DefaultFactory:
    """`SMTPMailer.smtp` as long as it is not assigned: None on the class, smtplib's class on an instance."""

    def __get__(self, mailer: SMTPMailer | None, owner: type | None = None) -> Factory | None:
        return None if mailer is None else default_factory(mailer)


def default_factory(mailer: SMTPMailer) -> Factory:
    """Return the class that makes the connections of a mailer for which none was chosen."""
    implicit = mailer.implicit_tls if mailer.tls is None else mailer.tls == Tls.IMPLICIT
    return SMTP_SSL if implicit else SMTP


def wanted_tls(mailer: SMTPMailer) -> Tls:
    """Return what the mailer's attributes say about TLS.  Raises `InvalidSettings` if they contradict each other."""
    if mailer.tls is not None:
        return Tls(mailer.tls)
    if mailer.implicit_tls:
        return Tls.IMPLICIT
    if mailer.force_tls and mailer.no_tls:
        raise InvalidSettings(f"relay {mailer.hostname}: force_tls and no_tls contradict each other; choose one")
    if mailer.force_tls:
        return Tls.REQUIRED
    return Tls.NEVER if mailer.no_tls else Tls.OPPORTUNISTIC


@implementer(ISMTPMailer)
class SMTPMailer:
    """See `ISMTPMailer`.

    Everything has a default in the class, for classes and patches that replace ``__init__``.
    """

    hostname: str = "localhost"
    port: int = 25
    username: str | bytes | None = None
    password: str | bytes | None = None
    no_tls: bool = False
    force_tls: bool = False
    implicit_tls: bool = False
    #: Seconds to wait for a connection and a greeting; None: what ``socket.setdefaulttimeout`` says, or five minutes.
    timeout: float | None = 10
    #: Instead of the three flags above; None: as they say.
    tls: Tls | str | None = None
    verify: bool | None = None
    cafile: str | None = None
    allow_clear_password: bool = False
    #: All times to wait; None: the usual ones, with `timeout`.
    timeouts: Timeouts | None = None
    keep: Keep = Keep()
    clock: Clock = Clock()
    #: What the relay is asked to report to the sender.
    notify: Notify = Notify()
    #: Mails per second at most, over all connections of a processor; None: as fast as it goes.
    rate: float | None = None
    #: Mails per second at most, of all processors together that share the queue, on any machine.
    shared_rate: float | None = None
    #: Connections that a processor may have open at most; None: as many as it may have anyway.
    connections: int | None = None
    #: The name in EHLO; None: this host's name, asked for once in a process.
    local_hostname: str | None = None
    #: Seconds to wait for the greeting, for the reply to each command, and for each piece of the message to go; None:
    #: as RFC 5321, 4.5.3.2 has it in a queue, 30 seconds for a caller that waits.
    greeting_timeout: float | None = None
    command_timeout: float | None = None
    data_timeout: float | None = None
    #: Recipients of one transaction at most; None: as many as the relay takes.
    recipient_limit: int | None = None
    #: Extensions that are not used although the relay offers them, such as ``pipelining``.
    discard_extensions: str | Iterable[str] = ()
    #: Instead of a password; see `ITokenProvider`.
    token: Callable[[], str] | None = None
    #: Mechanisms for the login, in order; none: those that fit, in the usual order.
    auth: str | Iterable[str] = ()
    #: Files of our certificate and its key (PEM).
    certfile: str | None = None
    keyfile: str | None = None
    tls_minimum: TlsVersion | str = TlsVersion.TLS_1_2
    #: Makes the TLS context for each connection, in place of ``cafile``, ``certfile``, ``keyfile`` and ``tls_minimum``.
    ssl_context: Callable[[], ssl.SSLContext] | None = None

    #: Asked before each mail: attributes by name that count instead of the mailer's own, or `RelaySettings`.  What it
    #: raises is trouble of the relay.
    settings: Callable[[], Mapping[str, Any] | RelaySettings] | None = None

    #: Makes connections from host and port; may be assigned on the class, a subclass and an instance.
    smtp: Any = _DefaultFactory()

    _smtp: _SMTPState | None = None
    _memories: RelayMemories | None = None
    #: What the attributes were when they were last looked at, and the settings that this made.
    _made: tuple[object, RelaySettings] | None = None
    #: The same with what `settings` said.
    _said_made: tuple[object, RelaySettings] | None = None

    def __init__(  # noqa: PLR0917 - the order of zope.sendmail 3.5 to 7.3
        self,
        hostname: str = "localhost",
        port: int = 25,
        username: str | bytes | None = None,
        password: str | bytes | None = None,
        no_tls: bool = False,  # noqa: FBT001, FBT002 - likewise
        force_tls: bool = False,  # noqa: FBT001, FBT002 - likewise
        implicit_tls: bool = False,  # noqa: FBT001, FBT002 - likewise
        timeout: float | None = 10,
        *,
        tls: Tls | str | None = None,
        verify: bool | None = None,
        cafile: str | None = None,
        allow_clear_password: bool | None = None,
        timeouts: Timeouts | None = None,
        keep: Keep | None = None,
        clock: Clock | None = None,
        local_hostname: str | None = None,
        notify: Notify | None = None,
        token: Callable[[], str] | None = None,
        auth: str | Iterable[str] = (),
        certfile: str | None = None,
        keyfile: str | None = None,
        tls_minimum: TlsVersion | str | None = None,
        ssl_context: Callable[[], ssl.SSLContext] | None = None,
        rate: float | None = None,
        shared_rate: float | None = None,
        connections: int | None = None,
        greeting_timeout: float | None = None,
        command_timeout: float | None = None,
        data_timeout: float | None = None,
        recipient_limit: int | None = None,
        discard_extensions: str | Iterable[str] = (),
        settings: Callable[[], Mapping[str, Any] | RelaySettings] | None = None,
    ) -> None:
        if settings is None:  # else it is not known yet which relay it is
            _checked_port(hostname, port)
        self.hostname = hostname
        self.port = port
        self.username = username
        self.password = password
        self.no_tls = no_tls
        self.force_tls = force_tls
        self.implicit_tls = implicit_tls
        self.timeout = timeout
        _check_limits(hostname, {"rate": rate, "shared_rate": shared_rate}, connections)
        if settings is not None and not callable(settings):
            raise InvalidSettings(f"relay {hostname}: settings is {settings!r}, which is no function")
        given = {
            "tls": None if tls is None else _chosen(Tls, tls, hostname),
            "verify": verify,
            "cafile": cafile,
            "allow_clear_password": allow_clear_password,
            "timeouts": timeouts,
            "keep": keep,
            "clock": clock,
            "notify": notify,
            "rate": rate,
            "shared_rate": shared_rate,
            "connections": connections,
            "local_hostname": local_hostname,
            "greeting_timeout": greeting_timeout,
            "command_timeout": command_timeout,
            "data_timeout": data_timeout,
            "recipient_limit": recipient_limit,
            "discard_extensions": _extensions(discard_extensions) or None,
            "token": token,
            "auth": _mechanisms(auth) or None,
            "certfile": certfile,
            "keyfile": keyfile,
            "tls_minimum": None if tls_minimum is None else _chosen(TlsVersion, tls_minimum, hostname),
            "ssl_context": ssl_context,
            "settings": settings,
        }
        # What is not given stays as the class has it: a subclass may have methods in these places, and a site may set
        # there what Products.MailHost does not pass on.
        vars(self).update({name: value for name, value in given.items() if value is not None})

    # one conversation, many mails

    def open_session(self) -> ISession:
        """See `ISessionMailer`."""
        return self._new_session(self.relay_settings)

    def open_interactive_session(self) -> ISession:
        """Return a session as `open_session` does, with the times for a caller that waits."""
        return self._new_session(self._interactive_settings)

    def _interactive_settings(self) -> RelaySettings:
        return self.relay_settings().interactive()

    def relay_settings(self) -> RelaySettings:
        """Return the settings that count now.

        :raises InvalidSettings: they contradict each other, or no relay can have them.
        :raises RelayError: ``settings`` has failed.
        """
        if self.settings is not None:
            return self._said(self._asked())
        try:
            return self._own_settings()
        except InvalidSettings:
            raise
        except (ValueError, TypeError) as error:  # a port that is no number, a word that is no choice
            raise InvalidSettings(f"relay {self.hostname}: {error}") from error

    def _asked(self) -> Mapping[str, Any] | RelaySettings:
        """Return what `settings` says."""
        assert self.settings is not None, "it was asked for"
        try:
            said = self.settings()
        except (OSError, SMTPException):
            raise
        except Exception as error:  # callers of send() do not know what a program may raise here
            raise RelayError(f"the settings of a relay cannot be had: {type(error).__name__}: {error}") from error
        if not isinstance(said, (Mapping, RelaySettings)):
            raise InvalidSettings(f"the settings of a mailer are {said!r}; return a dict of its attributes")
        return said

    def _own_settings(self) -> RelaySettings:
        said = (*_settable(self), socket.getdefaulttimeout())
        made = self._made
        if made is None or made[0] != said or not isinstance(self.auth, (str, tuple)):
            made = said, self._make_settings()
            self.__dict__["_made"] = made  # past Persistent, for which this would be a change
        return made[1]

    def _make_settings(self) -> RelaySettings:
        auth, token = _mechanisms(self.auth), self._wanted_token()
        without_password = token is not None or Mechanism.EXTERNAL in auth
        # A name with nothing to prove it is no login, as in 7.3.
        username = (_as_text(self.username) or None) if without_password or self.password is not None else None
        password = _as_text(self.password) if username else None
        if without_password:
            password = password or None  # a form without an entry gives the empty text
        return RelaySettings(
            hostname=self.hostname,
            port=_checked_port(self.hostname, self.port),
            username=username,
            password=password,
            tls=Tls.IMPLICIT if makes_tls(self._factory()) else wanted_tls(self),
            verify=self.verify,
            cafile=self.cafile,
            allow_clear_password=self.allow_clear_password,
            timeouts=self._times(Timeouts()),
            interactive_timeouts=self._times(INTERACTIVE),
            local_hostname=self.local_hostname or None,
            recipient_limit=self.recipient_limit,
            discard_extensions=_extensions(self.discard_extensions),
            keep=self.keep,
            notify=self.notify,
            token=token,
            auth=auth,
            certfile=self.certfile,
            keyfile=self.keyfile,
            tls_minimum=TlsVersion(self.tls_minimum),
            ssl_context=self.ssl_context,
        )

    def _times(self, usual: Timeouts) -> Timeouts:
        """Return the times as the attributes say them; what none of them says is as in `usual`."""
        times = self.timeouts or _timeouts(self.timeout, usual)
        said = {
            "greeting": self.greeting_timeout,
            "command": self.command_timeout,
            "data": self.data_timeout,
            "block": self.data_timeout,
        }
        return replace(times, **{name: float(seconds) for name, seconds in said.items() if seconds is not None})

    def _wanted_token(self) -> Callable[[], str] | None:
        """Return the token provider; that of the class is for mailers with a username and without a password."""
        is_own = "token" in vars(self)
        return self.token if is_own or (self.username and not self.password) else None

    def _said(self, said: Mapping[str, Any] | RelaySettings) -> RelaySettings:
        if isinstance(said, RelaySettings):
            return said
        unknown = sorted(set(said) - _SETTABLE)
        if unknown:
            raise InvalidSettings(
                f"the settings of a mailer have {', '.join(unknown)}; known are {', '.join(sorted(_SETTABLE))}"
            )
        made, key = self._said_made, (dict(said), _settable(self), socket.getdefaulttimeout())
        if made is None or made[0] != key or not isinstance(self.auth, (str, tuple)):
            mailer = copy.copy(self)
            vars(mailer).update(said, settings=None)
            made = key, mailer.relay_settings()
            self.__dict__["_said_made"] = made
        return made[1]

    # one mail at a time, with smtplib's errors

    def send(self, fromaddr: str, toaddrs: Sequence[str], message: type_of_message) -> dict[str, tuple[int, bytes]]:
        """See `IMailer`.  Raises what ``smtplib.SMTP.sendmail`` raises, and returns the recipients that were
        refused, as it does.

        Concurrency: any thread.
        """
        progress = Progress(Envelope.of(fromaddr, toaddrs))
        content = message_bytes(message)
        as_text = isinstance(message, str) and _is_utf8(content)
        stream = OriginalMessage(content, as_text=as_text, in_list=isinstance(toaddrs, list))
        session, begun = self._session(), self.clock.monotonic()
        try:
            session.deliver(progress, stream, _nothing)
        except Exception as error:
            if _is_observed():
                self._tell_observers(failed(session.relay, progress, error), progress.envelope, content, begun)
            raise
        else:
            if _is_observed():  # else the settings, which may differ each time, are not asked for once more
                self._tell_observers(succeeded(session.relay, progress), progress.envelope, content, begun)
        finally:
            self._close_connection()
        return pairs(progress.refused)

    def _tell_observers(self, outcome: Outcome, envelope: Envelope, content: bytes, begun: float) -> None:
        """Tell how the attempt went."""
        now = self.clock.time()
        if outcome.fault is not None and not outcome.replies:
            attempts.tell(attempts.FaultRecord(now, "", outcome.relay, outcome.fault))
            return
        duration = self.clock.monotonic() - begun
        identifier = message_id_in(io.BytesIO(content))
        attempts.tell(
            attempts.without_a_queue(
                envelope, outcome, message_id=identifier, size=len(content), time=now, duration=duration
            )
        )

    def vote(self, fromaddr: str, toaddrs: Sequence[str], message: type_of_message) -> None:
        """Prove all but the message itself; see `IMailer`.  `send` in the same thread goes on with this connection.

        Within ``voting_about_relay`` it does as `reach`.
        """
        if is_about_relay():
            self.reach()
            return
        progress = Progress(Envelope.of(fromaddr, toaddrs))
        session = self._session()
        try:
            session.prove(progress, io.BytesIO(message_bytes(message)))
        except BaseException:
            self._close_connection()
            raise
        self._note_connection(session)

    def reach(self) -> None:
        """Make the connection, encrypted and logged in, with which `send` in the same thread goes on.

        :raises RelayError: the relay cannot be used.
        """
        session = self._session()
        fault = session.reach()
        if fault is not None:
            self._close_connection()
            raise RelayError(f"the relay {session.relay} cannot be used: {fault}", fault.code)
        self._note_connection(session)

    def _note_connection(self, session: SMTPSession) -> None:
        self.connection = _as_of_old(session.connection)
        self.code = 250
        self.response = getattr(session.connection, "ehlo_resp", None) or getattr(session.connection, "helo_resp", None)

    def abort(self) -> None:
        """See `IMailer`."""
        self._close_connection()

    def __getstate__(self) -> dict[str, Any]:
        """Return everything but the open connections, which belong to this process."""
        passing = {"_smtp", "_made", "_said_made", "_memories"}
        return {name: value for name, value in self.__dict__.items() if name not in passing}

    def _factory(self, settings: RelaySettings | None = None) -> Factory:
        factory: Factory = self.smtp or default_factory(self)  # None may have been put back
        if settings is not None and factory in (SMTP, SMTP_SSL):  # as the settings are now
            return SMTP_SSL if settings.tls is Tls.IMPLICIT else SMTP
        return factory

    def _new_session(self, settings: Callable[[], RelaySettings]) -> SMTPSession:
        return SMTPSession(
            settings,
            lambda settings: connect(settings, self._factory(settings)),
            self.clock,
            self._known_relays(),
        )

    def _session(self) -> SMTPSession:
        """Return what `vote` has opened in this thread, or a new one; with what a ``vote`` of old has left."""
        state = self._state()
        if state.session is None:
            state.session = (
                self._new_session(self._interactive_settings)
                if state.connection is None
                else self._adopted(state.connection)
            )
        return state.session

    def _adopted(self, connection: Any) -> SMTPSession:
        return SMTPSession(
            self._interactive_settings,
            lambda settings: connect(settings, lambda *_: connection),
            self.clock,
            self._known_relays(),
        )

    def _known_relays(self) -> RelayMemories:
        """Return what this mailer's sessions have learnt about its relays; it stays when they are closed."""
        if self._memories is None:
            self.__dict__.setdefault("_memories", RelayMemories())  # two threads may come at once
        return self.__dict__["_memories"]  # type: ignore[no-any-return]

    def _close_connection(self) -> None:
        state = self._state()
        session, state.session = state.session, None
        connection, state.connection = state.connection, None
        if session is not None:
            session.close()
        elif connection is not None:
            hang_up(connection, (self.timeouts or Timeouts()).quit)

    def _state(self) -> _SMTPState:
        if self._smtp is None:  # ``__init__`` was replaced, or this is a copy
            self.__dict__.setdefault("_smtp", _SMTPState())  # two threads may come at once
        return self.__dict__["_smtp"]  # type: ignore[no-any-return]

    # BBB: what subclasses of zope.sendmail 4.1 to 7.3 look at between `vote` and `send`.

    @property
    def connection(self) -> Any:
        """The connection that `vote` has opened in this thread, or None."""
        return self._state().connection

    @connection.setter
    def connection(self, connection: Any) -> None:
        self._state().connection = connection

    @property
    def code(self) -> int | None:
        """The code of the relay's reply to EHLO."""
        return self._state().code

    @code.setter
    def code(self, code: int | None) -> None:
        self._state().code = code

    @property
    def response(self) -> bytes | None:
        """The relay's reply to EHLO."""
        return self._state().response

    @response.setter
    def response(self, response: bytes | None) -> None:
        self._state().response = response


#: What `SMTPMailer.settings` may say.
_SETTABLE = frozenset(inspect.signature(SMTPMailer.__init__).parameters) - {
    "self", "settings", "clock", "rate", "shared_rate", "connections",
}  # fmt: skip

# All of them at once, and what else makes the settings: they are looked at before each mail.
_settable = operator.attrgetter(*sorted(_SETTABLE), "smtp")

#: Seconds for a connection where `timeout` is None and the process has no other.
_PATIENT = 300.0

#: Classes whose objects are no more than their settings.
_SHARING = {SMTPMailer}

_OWN = {"send": SMTPMailer.send, "vote": SMTPMailer.vote}


def open_session(mailer: Any, *, interactive: bool = False) -> ISession:
    """Return a session with the relay of any mailer.

    A mailer's own session is used only if its ``send`` and ``vote`` came with it: code that has replaced one of them,
    in a subclass, on an instance or by a patch, wants it to be called.

    :param interactive: the caller waits, so that the relay has less time before the final dot, where the mailer knows
        such times (``open_interactive_session``).
    """
    if keeps_sessions(mailer):
        own = getattr(mailer, "open_interactive_session", None) if interactive and _has_times(mailer) else None
        session: ISession = mailer.open_session() if own is None else own()
        return session
    return SendOnlySession(mailer)


def keeps_sessions(mailer: Any) -> bool:
    """Return whether the mailer has sessions of its own that are to be used.

    Mailers of old that say `ISMTPMailer` may have none.
    """
    known = ISessionMailer.providedBy(mailer) and callable(getattr(mailer, "open_session", None))
    return known and _is_of_one_piece(mailer)


def has_inherited_vote(mailer: Any) -> bool:
    """Say whether the mailer votes as `SMTPMailer` does, although it may send in a way of its own."""
    return getattr(type(mailer), "vote", None) is SMTPMailer.vote and "vote" not in getattr(mailer, "__dict__", {})


def conversation_of(mailer: Any) -> object:
    """Return what is equal for two mailers that may share a connection: the mailer itself, or class and settings."""
    if type(mailer) not in _SHARING or mailer.settings is not None or not _is_of_one_piece(mailer):
        return mailer
    try:
        key = (type(mailer), mailer.relay_settings(), mailer.smtp)
        hash(key)
    except Exception:  # noqa: BLE001 - the vote tells what is wrong with the settings
        return mailer
    return key


def _has_times(mailer: Any) -> bool:
    """Say whether `open_interactive_session` is as new as `open_session`, which a subclass may have replaced."""
    kind = type(mailer)
    return issubclass(_home(kind, "open_interactive_session"), _home(kind, "open_session"))


def _home(kind: type, name: str) -> type:
    """Return the class that has this attribute, or `kind`."""
    return next((each for each in kind.__mro__ if name in vars(each)), kind)


def _is_of_one_piece(mailer: Any) -> bool:
    kind = type(mailer)
    home = _home(kind, "open_session")
    expected = _OWN if home is SMTPMailer else {name: getattr(home, name, None) for name in _OWN}
    on_instance = getattr(mailer, "__dict__", {})
    return all(name not in on_instance and getattr(kind, name, None) is function for name, function in expected.items())


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _checked_port(hostname: str, port: int | str) -> int:
    """Return the port as a number.  Raises `InvalidSettings` for a relay that cannot be."""
    try:
        number = int(port)
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None or (isinstance(port, float) and port != number):
        raise InvalidSettings(f"relay {hostname}: the port {port!r} is no whole number; write one such as 587")
    check_relay(hostname, number)
    return number


def _check_limits(hostname: str, rates: Mapping[str, object], connections: object) -> None:
    """Refuse rates and a number of connections that let no mail through."""
    for name, rate in rates.items():
        if rate is not None and not (isinstance(rate, (int, float)) and rate > 0):
            raise InvalidSettings(f"relay {hostname}: {name} is {rate!r}; write a number, more than 0")
    if connections is not None and not (isinstance(connections, int) and connections >= 1):
        raise InvalidSettings(f"relay {hostname}: connections is {connections!r}; write a whole number, at least 1")


def _as_text(value: str | bytes | None) -> str | None:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value


def _mechanisms(auth: str | Iterable[str]) -> tuple[Mechanism, ...]:
    try:
        return mechanisms(auth if isinstance(auth, str) else " ".join(auth))
    except (ValueError, TypeError) as error:
        raise InvalidSettings(f"auth: {error}") from None


_Choice = TypeVar("_Choice", Tls, TlsVersion)


def _chosen(kind: type[_Choice], word: str, hostname: str) -> _Choice:
    try:
        return kind(word)
    except ValueError:
        raise InvalidSettings(f"relay {hostname}: {word!r} is none of {', '.join(kind)}") from None


def _extensions(names: str | Iterable[str]) -> frozenset[str]:
    try:
        return extensions(names if isinstance(names, str) else " ".join(names))
    except (ValueError, TypeError) as error:
        raise InvalidSettings(f"discard_extensions: {error}") from None


def _timeouts(connect_seconds: float | None, usual: Timeouts) -> Timeouts:
    seconds = socket.getdefaulttimeout() if connect_seconds is None else connect_seconds
    return replace(usual, connect=_PATIENT if seconds is None else float(seconds))


def _is_observed() -> bool:
    """Return whether an observer hears of attempts, and this one is not a part of another."""
    return attempts.is_observed() and not is_within_session()


def _nothing() -> None:
    """Do nothing: no queue has to know that the last byte goes."""


# BBB
SSLError = ssl.SSLError


def _as_of_old(connection: Any) -> Any:
    """Prepare a connection for a ``send`` of an older release that asks for STARTTLS behind `SMTPMailer.vote`.

    A connection that is encrypted already says that it can be, and has nothing left to do then.
    """
    encrypted = isinstance(getattr(connection, "sock", None), ssl.SSLSocket)
    if encrypted and isinstance(connection, SMTP) and not isinstance(connection, SMTP_SSL):
        connection.esmtp_features.setdefault("starttls", "")
        vars(connection)["starttls"] = _encrypted_already
    return connection


def _encrypted_already(context: object = None, **keyfiles: object) -> tuple[int, bytes]:  # noqa: ARG001 - nothing to do
    return 220, b"2.0.0 encrypted already"
