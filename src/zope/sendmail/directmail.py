"""The mails of one transaction on their way straight to a relay.

The vote makes sure that the relay can be used: connection, TLS, login.  Mail is sent after the commit; if the relay
refuses a recipient then, the log and an event report it, and the transaction stays committed.  With `OnRefused.ABORT`
the vote also asks the relay about each envelope.  With a queue as reserve, the vote stages each mail there as well, and
the mail is committed there before it is sent.  Mail that the relay accepts or rejects is removed from the queue; mail
that it defers, or that could not be sent, is left to the queue's processor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import Any

from zope.interface import implementer

from zope.sendmail.errors import LeaseLost, RelayError
from zope.sendmail.events import events_of
from zope.sendmail.interfaces import ISession, IStagedMail, MailRefused
from zope.sendmail.lifecycle.outcome import Answer, Outcome, Reply
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.mailer import has_inherited_vote, open_session
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.headers import message_id
from zope.sendmail.message.pieces import Piece, joined, open_pieces
from zope.sendmail.reporting import maillog, notifier, observers
from zope.sendmail.smtp.sendonly import SendOnlySession
from zope.sendmail.smtp.voting import voting_about_relay
from zope.sendmail.submission import QueueSubmission, Reserve
from zope.sendmail.system.clock import Clock
from zope.sendmail.system.ownprocess import OwnProcess


class OnRefused(StrEnum):
    """What direct delivery does when the relay refuses a recipient."""

    #: Serve the others after the commit; the log and an event tell of this one.
    TELL = "tell"
    #: Ask about every recipient in the vote, and abort the transaction if one is refused.
    ABORT = "abort"


class _Mail:
    """One mail of the transaction, and its copy in the reserve."""

    def __init__(self, envelope: Envelope, message: tuple[Piece, ...]) -> None:
        self.envelope = envelope
        self.message = message
        self.staged: QueueSubmission | None = None
        #: Its name in the reserve, once that has it.
        self.name = ""

    @property
    def message_id(self) -> str:
        return message_id(joined(self.message[:1]))

    def stage(self, reserve: Reserve) -> None:
        """Write the mail into the reserve, durably, so that `commit` needs no more than a rename.

        :raises QueueError: the disk refuses.
        """
        self.staged, self.name = reserve.stage(self.envelope, *self.message)

    def commit(self, reserve: Reserve) -> None:
        """Let the reserve have the mail.  Raises nothing."""
        staged, self.staged = self.staged, None
        if staged is not None:
            try:
                reserve.commit(staged)
            except Exception as error:  # noqa: BLE001 - the transaction has committed, and the next mail has to leave
                maillog.finish_failed(f"mail <{self.message_id}>", error)
                self.name = ""  # the queue reveals it later

    def forget(self) -> None:
        """Take the copy out of the reserve."""
        if self.staged is not None:
            self.staged.abort()
            self.staged = None


@implementer(IStagedMail)
class DirectMail:
    """See `IStagedMail`.  Without a reserve nothing is durable here, and `commit` can fail for a mail.

    :param mailer: any `IMailer`.
    :param on_refused: what a refused recipient means for the transaction.
    :param reserve: finds, in the vote, the queue that takes what could not be sent; None: that mail is lost.
    """

    def __init__(
        self, mailer: Any, on_refused: OnRefused = OnRefused.TELL, reserve: Callable[[], Reserve] | None = None
    ) -> None:
        self._mailer = mailer
        self._on_refused = on_refused
        self._find_reserve = reserve
        self._reserve: Reserve | None = None
        self._mails: list[_Mail] = []
        self._process = OwnProcess()
        self._session: ISession | None = None
        #: How many of the mails can leave.
        self._proved = 0
        #: Why the relay cannot be used, once that is known.
        self._fault: Reply | None = None

    def __len__(self) -> int:
        return len(self._mails)

    def add(self, envelope: Envelope, *message: Piece) -> str:
        """See `IStagedMail`."""
        self._mails.append(_Mail(envelope, message))
        return str(len(self._mails))

    def rollback(self, count: int) -> None:
        """See `IStagedMail`."""
        for mail in self._mails[count:]:
            mail.forget()
        del self._mails[count:]
        self._proved = min(self._proved, count)

    def prepare(self) -> None:
        """See `IStagedMail`.

        :raises RelayError: the relay cannot be used, and there is no reserve.
        :raises MailRefused: a recipient is refused, and that is to abort.
        :raises QueueError: the reserve cannot be written.
        :raises QueueError: the mails were sent by the process from which this one was forked.
        :raises Exception: whatever the ``vote`` of a mailer without sessions raises.
        """
        self._process.check(len(self))
        mails = self._mails[self._proved :]
        if mails and self._reserve is None and self._find_reserve is not None:
            self._reserve = self._find_reserve()
        if self._reserve is not None:
            for mail in mails:
                if mail.staged is None:
                    mail.stage(self._reserve)
        prove = self._ask_about if self._on_refused is OnRefused.ABORT else self._prove
        if mails and self._fault is None:
            prove(mails)
        self._proved = len(self._mails)

    def commit(self) -> None:
        """See `IStagedMail`.  Trouble with one mail does not keep the next ones."""
        self._process.check(len(self))
        mails, self._mails = self._mails, []
        try:
            if self._reserve is not None:
                for mail in mails:
                    mail.commit(self._reserve)
            for mail in mails:
                self._end(mail)
        finally:
            self._close()
            if self._reserve is not None:
                self._reserve.close()
            if has_inherited_vote(self._mailer):  # a send() that failed may have left what the vote has opened
                self._mailer.abort()

    def abort(self) -> None:
        """See `IStagedMail`."""
        self.rollback(0)
        self._close()
        abort: Any = getattr(self._mailer, "abort", None)
        if abort is not None:
            abort()

    # the vote

    def _prove(self, mails: Sequence[_Mail]) -> None:
        """Make sure that the relay can be used."""
        session = self._opened()
        reach = getattr(session, "reach", None)
        for mail in mails:
            if self._fault is not None:
                return
            if isinstance(session, SendOnlySession):
                self._let_mailer_vote(mail)
            else:
                self._note_fault(session, reach() if reach is not None else self._verified(session, mail).fault)

    def _ask_about(self, mails: Sequence[_Mail]) -> None:
        """Make sure that each mail can leave.  The first question shows whether the relay can be used."""
        session = self._opened()
        first, *others = mails
        self._check(session, first)
        together = getattr(session, "verify_together", None) if len(others) > 1 and self._fault is None else None
        questions = [(mail.envelope, open_pieces(mail.message)) for mail in others]
        known = [None] * len(others) if together is None else together(questions)
        for mail, outcome in zip(others, known, strict=True):
            self._check(session, mail, outcome)

    def _check(self, session: ISession, mail: _Mail, known: Outcome | None = None) -> None:
        """Ask about one mail, unless it is `known` already that it can leave.

        :raises MailRefused: it cannot.
        """
        if self._fault is not None or (known is not None and not self._fatal(known)):
            return
        outcome = self._verified(session, mail)
        self._note_fault(session, outcome.fault)
        if refused := self._fatal(outcome):
            words = "; ".join(f"<{who}>: {reply}" for who, reply in refused.items())
            permanent = all(reply.answer is Answer.REJECTED for reply in refused.values())
            raise MailRefused(f"the relay {session.relay} refused {words}", outcome, permanent=permanent)

    @staticmethod
    def _verified(session: ISession, mail: _Mail) -> Outcome:
        return session.verify(mail.envelope, open_pieces(mail.message))

    def _fatal(self, outcome: Outcome) -> dict[str, Reply]:
        """Return whose answer stops the vote; one that is only deferred may wait in the reserve."""
        if self._reserve is not None:
            return outcome.having(Answer.REJECTED)
        return outcome.having(Answer.REJECTED, Answer.DEFERRED, Answer.UNKNOWN)

    def _let_mailer_vote(self, mail: _Mail) -> None:
        """Let a mailer without sessions of its own decide, as 7.3 did: what its vote raises stops the commit."""
        vote: Any = getattr(self._mailer, "vote", None)
        if vote is None:
            return
        try:
            with voting_about_relay():  # where it leads to ours, recipients are the matter of send()
                vote(mail.envelope.sender, mail.envelope.recipients, open_pieces(mail.message).read())
        except Exception as error:
            if self._reserve is None:
                raise
            self._fault = Reply(Answer.DEFERRED, f"{type(error).__name__}: {error}")

    def _note_fault(self, session: ISession, fault: Reply | None) -> None:
        if fault is not None and observers.is_observed():
            observers.tell(observers.FaultRecord(_clock.time(), "", session.relay, fault))
        if fault is not None and self._reserve is None:
            raise RelayError(f"the relay {session.relay} cannot be used: {fault}", fault.code)
        self._fault = fault

    # after the commit

    def _end(self, mail: _Mail) -> None:
        """Send one mail, tell what became of it, and leave to the queue what has to wait."""
        if self._reserve is None:
            begun = _clock.monotonic()
            outcome = _final(mail.envelope, self._sent(mail))
            if observers.is_observed():
                observers.tell(_record(mail, outcome, _clock.monotonic() - begun))
            _tell(mail, outcome)
            return
        try:
            self._end_in_reserve(mail, self._reserve)
        except Exception as error:  # noqa: BLE001 - the transaction has committed, and the next mail has to leave
            maillog.finish_failed(f"mail <{mail.message_id}>", error)

    def _end_in_reserve(self, mail: _Mail, reserve: Reserve) -> None:
        """Make the first attempt at a mail of the reserve, unless its processor has the mail."""
        if self._fault is not None:
            reserve.leave(mail.name)
            _tell(mail, _complete(mail.envelope, self._sent(mail)))
            return
        lease = reserve.claim(mail.name)
        if lease is None:
            return
        lease.open()  # from now on a death in the middle counts
        begun = _clock.monotonic()
        try:
            outcome = self._sent(mail, lease.intend)
        except LeaseLost as error:
            maillog.lease_lost(mail.name, error)
            lease.release()
            return
        complete = _complete(mail.envelope, outcome)
        if outcome.replies:
            if observers.is_observed():
                observers.tell(_record(mail, complete, _clock.monotonic() - begun, reserve.location))
            reserve.settle(lease, complete)
        else:
            lease.release()  # nothing was asked: that is no attempt
        _tell(mail, complete)

    def _sent(self, mail: _Mail, intend: Callable[[], None] | None = None) -> Outcome:
        session = self._opened()
        if self._fault is not None:
            return Outcome(session.relay, {}, self._fault)
        try:
            return self._transferred(session, mail, intend or _no_intent)
        except LeaseLost:
            raise
        except Exception as error:  # noqa: BLE001 - one mail's trouble must not keep the next ones
            maillog.finish_failed("a mail", error)
            reply = Reply(Answer.DEFERRED, f"the mailer failed: {type(error).__name__}: {error}")
            return Outcome.same(session.relay, mail.envelope.recipients, reply)

    def _transferred(self, session: ISession, mail: _Mail, intend: Callable[[], None]) -> Outcome:
        outcome = session.transfer(mail.envelope, open_pieces(mail.message), intend)
        if outcome.fault is not None and not outcome.replies:  # it was not reached, and is not waited for twice
            self._fault = outcome.fault
            if observers.is_observed():
                observers.tell(observers.FaultRecord(_clock.time(), "", outcome.relay, outcome.fault))
        return outcome

    def _opened(self) -> ISession:
        if self._session is None:
            self._session = open_session(self._mailer, interactive=True)
        return self._session

    def _close(self) -> None:
        """Close the connection; the session stays, and makes another one when it is used again."""
        if self._session is not None:
            self._session.close()


_SILENCE = Reply(Answer.DEFERRED, "the relay said nothing about it")


def _complete(envelope: Envelope, outcome: Outcome) -> Outcome:
    """Return the same outcome with a reply for every recipient."""
    nothing = outcome.fault or _SILENCE
    return Outcome(outcome.relay, {who: outcome.replies.get(who, nothing) for who in envelope.recipients})


def _final(envelope: Envelope, outcome: Outcome) -> Outcome:
    """Return the outcome where nothing is tried again: what is neither accepted nor unknown has failed."""
    ended = {
        who: reply
        if reply.answer in (Answer.ACCEPTED, Answer.UNKNOWN)
        else Reply(
            Answer.REJECTED, f"not sent, and direct delivery tries once only: {reply.text}", reply.code, reply.enhanced
        )
        for who, reply in _complete(envelope, outcome).replies.items()
    }
    return Outcome(outcome.relay, ended)


def _record(mail: _Mail, outcome: Outcome, duration: float, queue: str = "") -> observers.AttemptRecord:
    """Return what observers are told: what the queue gets is deferred, and what it does not get is tried no more."""
    record = observers.without_a_queue(
        mail.envelope,
        outcome,
        message_id=mail.message_id,
        size=sum(map(len, mail.message)),
        time=_clock.time(),
        duration=duration,
    )
    return replace(record, queue=queue, name=mail.name)


def _tell(mail: _Mail, outcome: Outcome) -> None:
    identifier = mail.message_id
    for who, reply in outcome.replies.items():
        maillog.direct_answered(
            message_id=identifier, sender=mail.envelope.sender, recipient=who, reply=reply, relay=outcome.relay
        )
    notifier.tell(events_of(identifier, mail.envelope.sender, outcome, Record(replies=outcome.replies)))


#: Times of attempts, for observers.
_clock = Clock()


def _no_intent() -> None:
    """Do nothing: no other process can have the mail."""
