"""The mails of one transaction on their way straight to a relay.

The vote proves the connection, TLS, the login and each envelope on one connection; so a relay that cannot be
reached or that refuses somebody aborts the transaction.  The contents go afterwards; what fails then is logged and
told by an event.
"""

from __future__ import annotations

from typing import Any

from zope.interface import implementer

from zope.sendmail.errors import RelayError
from zope.sendmail.events import events_of
from zope.sendmail.interfaces import ISession, IStagedMail, MailRefused
from zope.sendmail.lifecycle.outcome import Answer, Outcome, Reply
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.mailer import open_session
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.headers import message_id
from zope.sendmail.message.pieces import Piece, open_pieces
from zope.sendmail.reporting import maillog, notifier


@implementer(IStagedMail)
class DirectMail:
    """See `IStagedMail`.  Nothing is durable here, and `commit` can fail for a mail: that is what a queue is for."""

    def __init__(self, mailer: Any) -> None:
        self._mailer = mailer
        self._mails: list[tuple[Envelope, tuple[Piece, ...]]] = []
        self._session: ISession | None = None
        #: How many of the mails the relay would take.
        self._proved = 0

    def __len__(self) -> int:
        return len(self._mails)

    def add(self, envelope: Envelope, *message: Piece) -> str:
        """See `IStagedMail`."""
        self._mails.append((envelope, message))
        return str(len(self._mails))

    def rollback(self, count: int) -> None:
        """See `IStagedMail`."""
        del self._mails[count:]
        self._proved = min(self._proved, count)

    def prepare(self) -> None:
        """See `IStagedMail`.  Raises `RelayError` and `MailRefused`."""
        for envelope, message in self._mails[self._proved :]:
            if self._session is None:
                self._session = open_session(self._mailer)
            _check(self._session.verify(envelope, open_pieces(message)), self._session.relay)
            self._proved += 1

    def commit(self) -> None:
        """See `IStagedMail`.  Trouble with one mail does not keep the next ones."""
        mails, self._mails = self._mails, []
        session = self._session or open_session(self._mailer)
        try:
            for envelope, message in mails:
                self._send(session, envelope, message)
        finally:
            session.close()

    def abort(self) -> None:
        """See `IStagedMail`."""
        self._mails, self._proved = [], 0
        if self._session is not None:
            self._session.close()
            self._session = None
        abort: Any = getattr(self._mailer, "abort", None)
        if abort is not None:
            abort()

    def _send(self, session: ISession, envelope: Envelope, message: tuple[Piece, ...]) -> None:
        try:
            outcome = session.transfer(envelope, open_pieces(message), _no_intent)
        except Exception as error:  # noqa: BLE001 - one mail's trouble must not keep the next ones
            maillog.finish_failed("a mail", error)
            reply = Reply(Answer.REJECTED, f"the mailer failed: {type(error).__name__}: {error}")
            outcome = Outcome.same(session.relay, envelope.recipients, reply)
        _tell(envelope, message_id(b"".join(message[:1])), _final(envelope, outcome))


def _check(outcome: Outcome, relay: str) -> None:
    """Raise if a recipient was not accepted."""
    if outcome.fault is not None:
        raise RelayError(f"the relay {relay} cannot be used: {outcome.fault}", outcome.fault.code)
    refused = {who: reply for who, reply in outcome.replies.items() if reply.answer is not Answer.ACCEPTED}
    if refused:
        words = "; ".join(f"<{who}>: {reply}" for who, reply in refused.items())
        permanent = all(reply.answer is Answer.REJECTED for reply in refused.values())
        raise MailRefused(f"the relay {relay} refused {words}", outcome, permanent=permanent)


def _final(envelope: Envelope, outcome: Outcome) -> Outcome:
    """The same outcome for somebody who does not try again: what is neither accepted nor unknown has failed."""
    nothing = outcome.fault or Reply(Answer.DEFERRED, "the relay said nothing about it")
    replies = {who: outcome.replies.get(who, nothing) for who in envelope.recipients}
    ended = {
        who: reply
        if reply.answer in (Answer.ACCEPTED, Answer.UNKNOWN)
        else Reply(
            Answer.REJECTED, f"not sent, and direct delivery tries once only: {reply.text}", reply.code, reply.enhanced
        )
        for who, reply in replies.items()
    }
    return Outcome(outcome.relay, ended)


def _tell(envelope: Envelope, identifier: str, outcome: Outcome) -> None:
    for who, reply in outcome.replies.items():
        maillog.direct_answered(
            message_id=identifier, sender=envelope.sender, recipient=who, reply=reply, relay=outcome.relay
        )
    notifier.tell(events_of(identifier, envelope.sender, outcome, Record(replies=outcome.replies)))


def _no_intent() -> None:
    """Nobody else can have the mail."""
