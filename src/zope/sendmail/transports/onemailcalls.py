"""`IMailer`'s calls for one mail, for mailers that are made of sessions."""

from __future__ import annotations

import smtplib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import BinaryIO

from zope.sendmail.errors import RelayError
from zope.sendmail.interfaces import ISession, type_of_message
from zope.sendmail.lifecycle.outcome import Answer, Outcome, Reply
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.mime import message_pieces
from zope.sendmail.message.pieces import open_pieces

_SILENCE = Reply(Answer.DEFERRED, "nothing was said about this recipient")


_Ask = Callable[[ISession, Envelope, BinaryIO], Outcome]


class OneMailCalls(ABC):
    """``send``, ``vote`` and ``abort`` of a mailer that has ``open_session``: each call is a session of its own."""

    @abstractmethod
    def open_session(self) -> ISession:
        """See `ISessionMailer`."""

    def open_interactive_session(self) -> ISession:
        """Return a session for a caller that waits; see `zope.sendmail.mailer.open_session`."""
        return self.open_session()

    def send(self, fromaddr: str, toaddrs: Sequence[str], message: type_of_message) -> dict[str, tuple[int, bytes]]:
        """See `IMailer`.

        Raises `RelayError`, ``SMTPServerDisconnected`` if it is not known, ``SMTPRecipientsRefused`` if none gets the
        mail; returns the others who do not get it.
        """
        refused = self._ask(fromaddr, toaddrs, message, _transfer)
        if len(refused) == len(Envelope.of(fromaddr, toaddrs).recipients):
            raise smtplib.SMTPRecipientsRefused(refused)
        return refused

    def vote(self, fromaddr: str, toaddrs: Sequence[str], message: type_of_message) -> None:
        """See `IMailer`.  Raises `RelayError`, and ``SMTPRecipientsRefused`` if a recipient would not get it."""
        refused = self._ask(fromaddr, toaddrs, message, _verify)
        if refused:
            raise smtplib.SMTPRecipientsRefused(refused)

    def abort(self) -> None:  # noqa: B027 - not every mailer has something to forget
        """See `IMailer`.  `vote` keeps nothing."""

    def _ask(
        self, fromaddr: str, toaddrs: Sequence[str], message: type_of_message, ask: _Ask
    ) -> dict[str, tuple[int, bytes]]:
        envelope = Envelope.of(fromaddr, toaddrs)
        session = self.open_interactive_session()
        try:
            outcome = ask(session, envelope, open_pieces(message_pieces(message)))
        finally:
            session.close()
        return _refused(envelope, outcome)


def _refused(envelope: Envelope, outcome: Outcome) -> dict[str, tuple[int, bytes]]:
    """Return the recipients that do not get the mail, as smtplib tells it."""
    if outcome.fault is not None and not outcome.replies:
        raise RelayError(f"{outcome.relay} cannot be used: {outcome.fault}", outcome.fault.code)
    replies = {who: outcome.replies.get(who, _SILENCE) for who in envelope.recipients}
    unknown = next((reply for reply in replies.values() if reply.answer is Answer.UNKNOWN), None)
    if unknown is not None:
        raise smtplib.SMTPServerDisconnected(unknown.text)
    return {who: reply.as_pair() for who, reply in replies.items() if reply.answer is not Answer.ACCEPTED}


def _transfer(session: ISession, envelope: Envelope, message: BinaryIO) -> Outcome:
    return session.transfer(envelope, message, _nothing)


def _verify(session: ISession, envelope: Envelope, message: BinaryIO) -> Outcome:
    return session.verify(envelope, message)


def _nothing() -> None:
    """Do nothing: no caller has to be told that the last byte goes."""
