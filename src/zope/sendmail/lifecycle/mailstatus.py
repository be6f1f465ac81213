"""What became of a mail, for callers that have its Message-Id.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from zope.sendmail.lifecycle.outcome import Answer, Reply
from zope.sendmail.lifecycle.queuedmail import QueuedMail
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.relaystate import waiting_words
from zope.sendmail.lifecycle.states import State


class Standing(StrEnum):
    """How it stands with a mail.  Where several have the same Message-Id, the first of these counts."""

    #: It waits for its first attempt, or is being sent.
    QUEUED = "queued"
    #: It was tried, and will be tried again.
    DEFERRED = "deferred"
    #: It cannot be known: the connection broke between its last byte and the answer; or nothing is known about it here.
    UNKNOWN = "unknown"
    #: It waits for a person.
    HELD = "held"
    #: At least one recipient was rejected for good, and no recipient is tried any more.
    REJECTED = "rejected"
    #: Every recipient was accepted.
    SENT = "sent"


_ORDER = list(Standing)

#: Days for which it is known which mails have left, unless a queue is told otherwise.
KEPT_DAYS = 7


@dataclass(frozen=True, slots=True)
class SentMail:
    """What is known of a mail that has left a queue.

    `time` is seconds since the epoch.  `replies` has what the relay said about each recipient, or about some of very
    many; with most relays that names the mail in the relay's own queue.
    """

    time: float
    relay: str = ""
    replies: Mapping[str, Reply] = field(default_factory=dict)

    @property
    def record(self) -> Record:
        """The last line of its history, as far as it is known."""
        return Record(State.SENT, time=self.time, relay=self.relay, replies=self.replies)


@dataclass(frozen=True, slots=True)
class MailStatus:
    """The standing of a mail; `reason` is for people.

    `due` and `sent` are seconds since the epoch, 0.0 for never: when it is tried next, when it left.  `replies` has
    what was said last about each recipient, `relay` who said it.
    """

    message_id: str
    standing: Standing
    reason: str = ""
    due: float = 0.0
    sent: float = 0.0
    replies: Mapping[str, Reply] = field(default_factory=dict)
    #: The names of the mails in the queue that have this Message-Id, the one that the standing is of first.
    names: tuple[str, ...] = ()
    relay: str = ""


def status_of(
    message_id: str, mails: Iterable[QueuedMail], sent: SentMail | None, kept_days: int, *, now: float = 0.0
) -> MailStatus:
    """Return the status of a mail.

    :param mails: what is in the queue with its Message-Id.
    :param sent: the last one that left; None: none did.
    :param kept_days: for so many days it is known what left.
    :param now: seconds since the epoch.
    """
    found = sorted((_status(message_id, mail, now) for mail in mails), key=lambda each: _ORDER.index(each.standing))
    if found:
        replies = {who: reply for each in reversed(found) for who, reply in each.replies.items()}
        first = found[0]
        names = tuple(name for each in found for name in each.names)
        left = sent.time if sent is not None else 0.0
        return MailStatus(message_id, first.standing, first.reason, first.due, left, replies, names, first.relay)
    if sent is not None:
        rejected = next((str(reply) for reply in sent.replies.values() if reply.answer is Answer.REJECTED), "")
        standing = Standing.REJECTED if rejected else Standing.SENT
        reason = rejected or "every recipient was accepted"
        return MailStatus(message_id, standing, reason, 0.0, sent.time, sent.replies, (), sent.relay)
    reason = f"it is not in the queue, and none with this Message-Id left it in the last {kept_days} days"
    return MailStatus(message_id, Standing.UNKNOWN, reason)


def _status(message_id: str, mail: QueuedMail, now: float) -> MailStatus:
    last = mail.history[-1] if mail.history else None
    replies = dict(last.replies) if last is not None else {}
    unknown = last is not None and bool(last.having(Answer.UNKNOWN))
    said = next((str(reply) for reply in replies.values() if reply.answer is not Answer.ACCEPTED), "")
    note = last.note if last is not None else ""
    relay = last.relay if last is not None else ""
    if mail.state in (State.HELD, State.REJECTED):
        standing = Standing.HELD if mail.state is State.HELD else Standing.REJECTED
    elif unknown:
        standing = Standing.UNKNOWN
    else:
        standing = Standing.DEFERRED if mail.state is State.DEFERRED else Standing.QUEUED
    waits = waiting_words(mail.blocked, now) if mail.blocked is not None else ""
    return MailStatus(message_id, standing, waits or note or said, mail.due, 0.0, replies, (mail.name,), relay)
