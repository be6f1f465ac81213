"""When to try again, and when to give up.

Decides; does nothing.  Time and chance are arguments.  RFC 5321, 4.5.4.1 asks for four to five days; the first
delay is short because most deferrals are greylisting or a relay that restarts.  Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from zope.sendmail.errors import InvalidSettings
from zope.sendmail.lifecycle.outcome import Answer, Outcome, Reply
from zope.sendmail.lifecycle.record import Part, Record
from zope.sendmail.lifecycle.states import State
from zope.sendmail.lifecycle.suppression import Suppression
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.terms import written

MALFORMED = Reply(Answer.REJECTED, "the address is malformed; no relay was asked", None, "5.1.3")

_UNKNOWN = "the outcome is unknown; look at the relay's log, then retry or remove"
_UNKNOWN_PART = "the outcome is unknown for some recipients; it is held when the others are done"
_NO_PARTS: Mapping[str, Part] = {}
_UNTRIED = Record()

#: The note of a message that was given up at the moment that its sender has set.
EXPIRED = "expired"

#: Seconds between two attempts that count as lifetime, however soon the second one was planned; but no more than a
#: tenth of the whole.
_GAP = 43200.0

#: A message whose worker died this often is set aside.
MAX_DEATHS = 3


class OnUnknown(StrEnum):
    """What to do when it cannot be known whether the relay has the message."""

    RESEND = "resend"
    HOLD = "hold"


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long to wait between attempts; all times in seconds.  Raises `InvalidSettings` for what cannot be meant."""

    first: float = 60.0
    factor: float = 2.0
    maximum: float = 3600.0
    lifetime: float = 5 * 86400.0
    #: A delay is spread by this part of itself in both directions, so that mails do not come back in a flock.
    jitter: float = 0.2
    on_unknown: OnUnknown = OnUnknown.RESEND

    def __post_init__(self) -> None:
        if not (0 < self.first <= self.maximum < float("inf") and self.lifetime >= 0):
            raise InvalidSettings(
                f"retry: first delay {self.first} s, maximum {self.maximum} s, lifetime {self.lifetime} s do not fit; "
                "0 < first <= maximum < infinity and 0 <= lifetime are needed"
            )
        if not 1 <= self.factor <= 1000 or not 0 <= self.jitter < 1:
            raise InvalidSettings(
                f"retry: factor {self.factor} must be within 1 and 1000, jitter {self.jitter} at least 0 and below 1"
            )

    def delay(self, attempts: int, chance: float) -> float:
        """Return the seconds until the next attempt after `attempts`; `chance` is within 0 and 1."""
        steps = min(attempts - 1, 64)  # 2.0**64 is beyond every maximum, and 1000.0**64 is still a float
        return min(self.first * self.factor**steps, self.maximum) * (1 + self.jitter * (2 * chance - 1))


def judge(
    record: Record,
    envelope: Envelope,
    outcome: Outcome,
    schedule: Schedule,
    *,
    now: float,
    chance: float,
    part: str | None = None,
    others: Mapping[str, Part] = _NO_PARTS,
    again_in: float | None = None,
) -> Record:
    """Return what becomes of a message after an attempt for the recipients in `envelope`.

    `part`: they are those at the mailer of this name, and the message has, or had, others; `others`: how it stands with
    those of them that are not done.  Each has its own attempts, delays and lifetime.

    `again_in`: those who are left met a relay that wants less mail, and are tried again after so many seconds; that is
    no attempt.
    """
    if part is None and _is_first_and_yes_to_all(record, envelope, outcome):
        return sent_at_once(outcome, now=now, before=record)
    own = _own(record, envelope, part, now, schedule.lifetime)
    tried = _tried(record, envelope, outcome, own)
    pending = tried.outstanding(envelope.recipients)
    if not pending and not others:
        return _done(tried)
    takes_no_more = again_in is not None or bool(outcome.follow_at_once)
    tried = replace(tried, due=record.due, attempts=tried.attempts - takes_no_more)
    if pending and tried.unknowns > record.unknowns and schedule.on_unknown is OnUnknown.HOLD:
        own = replace(own, held=True)
    elif pending and own.spent >= schedule.lifetime:
        tried, pending = _given_up(tried, own, pending), ()
    elif pending and takes_no_more:  # RFC 5321, 4.5.3.1.10
        own = replace(own, attempts=own.attempts - 1, due=now + (again_in or 0.0))
    elif pending:
        own = replace(own, due=now + schedule.delay(own.attempts, chance))
    parts = {**others, part or "": own} if pending else others
    return replace(_summed_up(tried, parts.values(), now), parts={} if part is None else parts)


def sent_at_once(outcome: Outcome, *, now: float, before: Record = _UNTRIED) -> Record:
    """Return what becomes of a message that the relay has taken for all recipients at the first attempt."""
    return Record(
        State.SENT,
        attempts=1,
        time=now,
        spent=before.spent,
        deaths=before.deaths,
        unknowns=before.unknowns,
        relay=outcome.relay,
        replies=outcome.replies,
    )


def _is_first_and_yes_to_all(record: Record, envelope: Envelope, outcome: Outcome) -> bool:
    """Return whether the relay accepted all recipients at the first attempt, as it usually does."""
    replies = outcome.replies
    if record.attempts or record.replies or envelope.malformed or len(replies) != len(envelope.recipients):
        return False
    for recipient in envelope.recipients:
        if recipient not in replies or replies[recipient].answer is not Answer.ACCEPTED:
            return False
    return True


def _own(record: Record, envelope: Envelope, name: str | None, now: float, lifetime: float) -> Part:
    """Return the part after one more attempt; a message without parts is one."""
    all_of_it = Part(record.attempts, record.time, record.due, record.spent)
    part = all_of_it if name is None else record.part(name, envelope.recipients)
    return Part(part.attempts + 1, time=now, due=now, spent=part.spent + _used(part, now, lifetime))


def _tried(record: Record, envelope: Envelope, outcome: Outcome, own: Part) -> Record:
    """Return the record with the answers of this attempt, as if all recipients were accepted."""
    return Record(
        State.SENT,
        attempts=record.attempts + 1,
        time=own.time,
        spent=own.spent,
        deaths=record.deaths,
        unknowns=record.unknowns + bool(outcome.having(Answer.UNKNOWN)),
        relay=outcome.relay,
        replies={**record.replies, **dict.fromkeys(envelope.malformed, MALFORMED), **outcome.replies},
    )


def _done(tried: Record) -> Record:
    """Return what becomes of a message when no recipient is left to try."""
    return replace(tried, state=State.REJECTED) if tried.having(Answer.REJECTED) else tried


def _summed_up(tried: Record, parts: Collection[Part], now: float) -> Record:
    """Return what is to be done with the message, as its parts that are not done say."""
    if not parts:
        return _done(replace(tried, due=0.0))
    waiting = [part.due for part in parts if not part.held]
    if not waiting:
        return replace(tried, state=State.HELD, note=_UNKNOWN)
    note = _UNKNOWN_PART if len(waiting) < len(parts) else ""
    return replace(tried, state=State.DEFERRED, due=max(now, min(waiting)), note=note)


def set_aside(record: Record, envelope: Envelope, why: str, *, now: float) -> Record:
    """Return what becomes of a message that no relay can be asked about; served recipients stay served."""
    refused = dict.fromkeys((*envelope.recipients, *envelope.malformed), Reply(Answer.REJECTED, why))
    return replace(
        record, state=State.REJECTED, time=now, due=0.0, note=why, replies={**record.replies, **refused}, parts={}
    )


def expired(record: Record, envelope: Envelope, *, now: float) -> Record:
    """Return what becomes of a message at the moment that its sender has set; served recipients stay served.

    :param envelope: the recipients that are still to be served.
    """
    tried = f"{record.attempts} attempt{'s' * (record.attempts != 1)}" if record.attempts else "no attempt"
    replies = dict(record.replies)
    for recipient in (*envelope.recipients, *envelope.malformed):
        last = replies.get(recipient)
        said = f"; last: {last}" if last is not None else ""
        words = (
            f"given up after {tried}, for its sender wanted it to leave until {written(envelope.terms.expires)}{said}"
        )
        replies[recipient] = Reply(Answer.REJECTED, words, last.code if last else None, "4.4.7")  # RFC 3463, 3.5
    return replace(record, state=State.REJECTED, time=now, due=0.0, note=EXPIRED, replies=replies, parts={})


def suppressed(record: Record, envelope: Envelope, found: Mapping[str, Suppression], *, now: float) -> Record:
    """Return what becomes of a message of whose recipients some get no mail; the others are to be tried at once.

    :param envelope: the recipients that are still to be served.
    :param found: those of them that are on the suppression list.
    """
    refused = {who: each.reply for who, each in found.items()}
    done = refused.keys() >= {*envelope.recipients, *envelope.malformed}
    replies = {**record.replies, **refused}
    if done:
        return replace(record, state=State.REJECTED, time=now, due=0.0, replies=replies, parts={})
    return replace(record, state=State.READY, time=now, due=now, replies=replies)


def after_death(record: Record, envelope: Envelope, schedule: Schedule, *, intended: bool, now: float) -> Record:
    """Return what becomes of a message whose worker died with it in hand.

    :param intended: whether its last byte may have gone.
    :param now: seconds since the epoch.
    """
    dead = replace(record, state=State.READY, deaths=record.deaths + 1, time=now, due=now, note="its worker died")
    if intended:
        lost = Reply(Answer.UNKNOWN, "the worker died between the last byte and the relay's reply")
        dead = replace(
            dead, unknowns=dead.unknowns + 1, replies={**dead.replies, **dict.fromkeys(envelope.recipients, lost)}
        )
        if schedule.on_unknown is OnUnknown.HOLD:
            return replace(dead, state=State.HELD, note=lost.text)
    if dead.deaths >= MAX_DEATHS:
        return replace(dead, state=State.HELD, note=f"its worker died {dead.deaths} times")
    return dead


def sent_before_death(record: Record, envelope: Envelope, *, now: float) -> Record:
    """Return what becomes of a message that the relay had accepted for all recipients when its worker died."""
    accepted = Reply(Answer.ACCEPTED, "accepted; the worker died before it could remove the mail")
    replies = {**record.replies, **dict.fromkeys(envelope.recipients, accepted)}
    return replace(record, state=State.SENT, attempts=record.attempts + 1, time=now, due=0.0, note="", replies=replies)


def probe_delay(failures: int) -> float:
    """Return the seconds until an unusable relay is tried again after `failures` in a row: 5, 10, 20, ... 300."""
    return min(5.0 * 2.0 ** min(failures - 1, 16), 300.0)


def _used(part: Part, now: float, lifetime: float) -> float:
    """Return the part of the lifetime since the last attempt, at most half a day beyond the plan.

    So a clock that jumps a day ahead, or a processor that was switched off for a week, does not cost a mail its life;
    and a mail that is tried only twice a day, because its processor runs no more often, has an end.
    """
    if not part.attempts:
        return 0.0
    planned = max(part.due - part.time, 0.0)
    return min(max(now - part.time, 0.0), max(2 * planned + 600, min(_GAP, lifetime / 10)))


def _given_up(tried: Record, part: Part, pending: tuple[str, ...]) -> Record:
    replies = dict(tried.replies)
    for recipient in pending:
        last = replies.get(recipient)
        said = str(last) if last else "the relay said nothing about it"
        days = part.spent / 86400
        replies[recipient] = Reply(
            Answer.REJECTED,
            f"given up after {part.attempts} attempts in {days:.1f} days; last: {said}",
            last.code if last else None,
            "4.4.7",  # RFC 3463, 3.5: delivery time expired
        )
    return replace(tried, replies=replies)
