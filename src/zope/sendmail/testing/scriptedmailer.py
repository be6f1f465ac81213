"""Mailers for tests: nothing leaves the process, and a test says what the relay answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import BinaryIO

from zope.interface import implementer

from zope.sendmail.interfaces import ISession, ISessionMailer
from zope.sendmail.lifecycle.outcome import Answer, Outcome, Reply
from zope.sendmail.message.envelope import Envelope

#: A mail as a relay got it: sender, recipients, message.
Delivered = tuple[str, tuple[str, ...], bytes]

ACCEPTED = Reply(Answer.ACCEPTED, "queued", 250, "2.0.0")


class SendOnlyMailer:
    """The least a mailer can be: it has ``send`` and keeps what it gets.

    `error`, if set, is raised instead.  Of `IMailer` it has nothing else, as many mailers in the wild.
    """

    def __init__(self, error: BaseException | None = None) -> None:
        self.sent: list[Delivered] = []
        self.error = error

    def send(self, fromaddr: str, toaddrs: Sequence[str], message: bytes) -> object:
        """See `IMailer`."""
        if self.error is not None:
            raise self.error
        self.sent.append((fromaddr, tuple(toaddrs), message))
        return None


@implementer(ISessionMailer)
class ScriptedMailer(SendOnlyMailer):
    """A mailer with sessions.

    `answers` gives each recipient's reply; ``fault``, while set, is a relay that cannot be used.
    """

    def __init__(self, answers: Callable[[str], Reply] | None = None) -> None:
        super().__init__()
        self.answers = answers or (lambda recipient: ACCEPTED)
        self.fault: Reply | None = None
        #: Called with the envelope before the mail is taken, e.g. to raise, to wait, or to change what comes next.
        self.before: Callable[[Envelope], None] = lambda envelope: None
        self.sessions: list[ScriptedSession] = []

    def vote(self, fromaddr: str, toaddrs: Sequence[str], message: bytes) -> None:
        """See `IMailer`."""

    def abort(self) -> None:
        """See `IMailer`."""

    def open_session(self) -> ScriptedSession:
        """See `ISessionMailer`."""
        self.sessions.append(ScriptedSession(self))
        return self.sessions[-1]


@implementer(ISession)
class ScriptedSession:
    """A conversation of a `ScriptedMailer`."""

    relay = "relay.example.org:25"

    def __init__(self, mailer: ScriptedMailer) -> None:
        self._mailer = mailer
        self.closed = False
        self.rested = 0

    def verify(self, envelope: Envelope, message: BinaryIO) -> Outcome:
        """See `ISession`."""
        if self._mailer.fault is not None:
            return Outcome(self.relay, {}, self._mailer.fault)
        return Outcome(self.relay, {who: self._mailer.answers(who) for who in envelope.recipients})

    def transfer(self, envelope: Envelope, message: BinaryIO, intend: Callable[[], None]) -> Outcome:
        """See `ISession`."""
        self._mailer.before(envelope)
        outcome = self.verify(envelope, message)
        if outcome.fault is None:
            intend()
            accepted = tuple(outcome.having(Answer.ACCEPTED))
            if accepted:
                self._mailer.sent.append((envelope.sender, accepted, message.read()))
        return outcome

    def rest(self) -> None:
        """See `ISession`."""
        self.rested += 1

    def close(self) -> None:
        """See `ISession`."""
        self.closed = True
