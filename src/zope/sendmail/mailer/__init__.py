"""Mailers: what a delivery and a queue processor hand their mail to.

`open_session` gives them one conversation for many mails, whatever the mailer is made of; `SMTPMailer` is the
mailer that speaks SMTP.  Its attributes may be changed at any time and count for the next connection.
"""

from __future__ import annotations

import io
import ssl
from collections.abc import Callable, Mapping, Sequence
from smtplib import SMTP, SMTP_SSL
from threading import local
from typing import Any, ClassVar

from zope.interface import implementer

from zope.sendmail.config.settings import RelaySettings, Timeouts, Tls
from zope.sendmail.errors import RelayError
from zope.sendmail.interfaces import ISession, ISMTPMailer, type_of_message
from zope.sendmail.lifecycle.outcome import Outcome
from zope.sendmail.mailer.attributes import MailerAttributes
from zope.sendmail.mailer.maileroptions import MailerOptions
from zope.sendmail.mailer.opensession import conversation_of, keeps_sessions, open_session
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.headers import message_id_in
from zope.sendmail.message.mime import message_bytes
from zope.sendmail.reporting import observers
from zope.sendmail.smtp.classification import failed, succeeded
from zope.sendmail.smtp.connect import Factory, connect, leave, makes_tls
from zope.sendmail.smtp.protocol.progress import Progress, pairs
from zope.sendmail.smtp.relaymemory import MemoryByRelay
from zope.sendmail.smtp.sendmailconnection import OriginalMessage
from zope.sendmail.smtp.sendonly import SendOnlySession, is_within_session
from zope.sendmail.smtp.session import SMTPSession
from zope.sendmail.smtp.voting import is_about_relay

# SMTP, SMTP_SSL, SSLError: BBB, zope.sendmail 3.5 to 7.3 had them here.
__all__ = [
    "SMTP",
    "SMTP_SSL",
    "MailerOptions",
    "SMTPMailer",
    "SSLError",
    "SendOnlySession",
    "conversation_of",
    "has_inherited_vote",
    "keeps_sessions",
    "open_session",
]


#: Seconds for which mail that follows at once goes as the attributes of its mailer were: to read all of them costs as
#: much as to write down that the mail may go.
_MOMENT = 0.01


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


@implementer(ISMTPMailer)
class SMTPMailer(MailerAttributes):
    """See `ISMTPMailer`."""

    #: Makes connections from host and port; may be assigned on the class, a subclass and an instance.
    smtp: Any = _DefaultFactory()

    _smtp: _SMTPState | None = None
    _memories: MemoryByRelay | None = None
    #: Two objects of this class, not of a subclass, may share a connection if their settings are equal.
    _is_its_settings: ClassVar[bool] = True

    # one conversation, many mails

    def open_session(self) -> ISession:
        """See `ISessionMailer`."""
        return self._new_session(self.relay_settings)

    def open_interactive_session(self) -> ISession:
        """Return a session as `open_session` does, with the times for a caller that waits."""
        return self._new_session(self._interactive_settings)

    def _interactive_settings(self) -> RelaySettings:
        return self.relay_settings().interactive()

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
            observers.tell(observers.FaultRecord(now, "", outcome.relay, outcome.fault))
            return
        duration = self.clock.monotonic() - begun
        identifier = message_id_in(io.BytesIO(content))
        observers.tell(
            observers.without_a_queue(
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

    def _begins_with_tls(self) -> bool:
        return makes_tls(self._factory())

    def _new_session(self, settings: Callable[[], RelaySettings]) -> SMTPSession:
        return SMTPSession(
            settings,
            lambda settings: connect(settings, self._factory(settings)),
            self.clock,
            self._known_relays(),
            lambda: _MOMENT if self.settings is None else 0.0,
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

    def _known_relays(self) -> MemoryByRelay:
        """Return what this mailer's sessions have learnt about its relays; it stays when they are closed."""
        if self._memories is None:
            self.__dict__.setdefault("_memories", MemoryByRelay())  # two threads may come at once
        return self.__dict__["_memories"]  # type: ignore[no-any-return]  # by whichever thread came first

    def _close_connection(self) -> None:
        state = self._state()
        session, state.session = state.session, None
        connection, state.connection = state.connection, None
        if session is not None:
            session.close()
        elif connection is not None:
            leave(connection, (self.timeouts or Timeouts()).quit)

    def _state(self) -> _SMTPState:
        if self._smtp is None:  # ``__init__`` was replaced, or this is a copy
            self.__dict__.setdefault("_smtp", _SMTPState())  # two threads may come at once
        return self.__dict__["_smtp"]  # type: ignore[no-any-return]  # by whichever thread came first

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

    #: What `open_session` stands in for; a patch of this class replaces one of them.
    _own_calls: ClassVar[Mapping[str, object]] = {"send": send, "vote": vote}


def has_inherited_vote(mailer: Any) -> bool:
    """Say whether the mailer votes as `SMTPMailer` does, although it may send in a way of its own."""
    return getattr(type(mailer), "vote", None) is SMTPMailer.vote and "vote" not in getattr(mailer, "__dict__", {})


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _is_observed() -> bool:
    """Return whether an observer hears of attempts, and this one is not a part of another."""
    return observers.is_observed() and not is_within_session()


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
