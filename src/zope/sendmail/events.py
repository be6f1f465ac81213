"""What subscribers are told about a mail.  Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from zope.interface import implementer

from zope.sendmail.history import Record
from zope.sendmail.interfaces import IMailDeferredEvent, IMailErrorEvent, IMailSentEvent, IMailUnknownEvent
from zope.sendmail.outcome import Answer, Outcome, Reply


@dataclass(frozen=True)
class MailEvent:
    """What all events have in common."""

    messageId: str
    sender: str = ""
    replies: Mapping[str, Reply] = field(default_factory=dict)
    relay: str = ""


@implementer(IMailSentEvent)
@dataclass(frozen=True)
class MailSentEvent(MailEvent):
    """See `IMailSentEvent`."""


@implementer(IMailErrorEvent)
@dataclass(frozen=True)
class MailErrorEvent(MailEvent):
    """See `IMailErrorEvent`."""

    @property
    def errorMessage(self) -> str:
        """Each recipient with its reply."""
        return "; ".join(f"{recipient}: {reply}" for recipient, reply in self.replies.items())


@implementer(IMailDeferredEvent)
@dataclass(frozen=True)
class MailDeferredEvent(MailEvent):
    """See `IMailDeferredEvent`."""

    due: float = 0.0


@implementer(IMailUnknownEvent)
@dataclass(frozen=True)
class MailUnknownEvent(MailEvent):
    """See `IMailUnknownEvent`."""


def events_of(message_id: str, sender: str, outcome: Outcome, record: Record) -> list[MailEvent]:
    """The events of one attempt: what was new in it, one event for each kind of answer."""
    told = {who: record.replies.get(who, reply) for who, reply in outcome.replies.items()}
    told |= {who: reply for who, reply in record.having(Answer.REJECTED).items() if who not in told and not reply.code}
    events: list[MailEvent] = []
    for answer, kind in _KINDS.items():
        replies = {who: reply for who, reply in told.items() if reply.answer is answer}
        if replies:
            extra = {"due": record.due} if kind is MailDeferredEvent else {}
            events.append(kind(message_id, sender, replies, outcome.relay, **extra))
    return events


_KINDS: dict[Answer, type[MailEvent]] = {
    Answer.ACCEPTED: MailSentEvent,
    Answer.REJECTED: MailErrorEvent,
    Answer.UNKNOWN: MailUnknownEvent,
    Answer.DEFERRED: MailDeferredEvent,
}
