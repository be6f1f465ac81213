"""What subscribers are told about a mail.  Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from zope.interface import implementer

from zope.sendmail.interfaces import (
    IMailBouncedEvent,
    IMailDeferredEvent,
    IMailErrorEvent,
    IMailHandOverEvent,
    IMailSentEvent,
    IMailUnknownEvent,
)
from zope.sendmail.lifecycle.outcome import Answer, Outcome, Reply
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.states import State


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


@implementer(IMailHandOverEvent)
@dataclass
class MailHandOverEvent:
    """See `IMailHandOverEvent`."""

    sender: str
    recipients: Sequence[str]
    message: object
    delivery: object = None


@implementer(IMailBouncedEvent)
@dataclass(frozen=True)
class MailBouncedEvent:
    """See `IMailBouncedEvent`."""

    recipient: str
    verdict: str
    status: str = ""
    words: str = ""
    messageId: str = ""
    isAuthentic: bool = False


def news_of(outcome: Outcome, record: Record, *, before: Record | None = None) -> Mapping[str, Reply]:
    """Return what was new in one attempt, for each recipient.

    :param record: what the attempt led to
    :param before: what was known when it began, so that a rejection which is no relay's word (a malformed address, a
        lifetime that is over) is told once
    """
    if record.state is State.SENT:  # no recipient was rejected
        return outcome.replies
    told = {who: record.replies.get(who, reply) for who, reply in outcome.replies.items()}
    rejected = record.having(Answer.REJECTED)
    if rejected:
        # Without `before`: what a relay said was told when it said it.
        known = (
            {who for who, reply in rejected.items() if reply.code} if before is None else before.having(Answer.REJECTED)
        )
        told |= {who: reply for who, reply in rejected.items() if who not in told and who not in known}
    return told


def events_of(
    message_id: str, sender: str, outcome: Outcome, record: Record, *, before: Record | None = None
) -> list[MailEvent]:
    """Return the events of one attempt: its news (see `news_of`), one event for each kind of answer."""
    by_answer: dict[Answer, dict[str, Reply]] = {}
    for who, reply in news_of(outcome, record, before=before).items():
        by_answer.setdefault(reply.answer, {})[who] = reply
    events: list[MailEvent] = []
    for answer in sorted(by_answer, key=_ORDER.index):
        extra = {"due": record.due_again} if answer is Answer.DEFERRED else {}
        events.append(_KINDS[answer](message_id, sender, by_answer[answer], outcome.relay, **extra))
    return events


_KINDS: dict[Answer, type[MailEvent]] = {
    Answer.ACCEPTED: MailSentEvent,
    Answer.REJECTED: MailErrorEvent,
    Answer.UNKNOWN: MailUnknownEvent,
    Answer.DEFERRED: MailDeferredEvent,
}
_ORDER = list(_KINDS)
