"""What has happened to a message: records, and the JSON lines that keep them.

One record is one line.  It says everything that is known at that time, or everything but the replies that are still as
the lines before it say: of a thousand recipients one may be deferred for days.  A line torn by a crash is left out; the
next one was written by a reader that had left it out as well.  Pure; reading never fails.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from zope.sendmail.lifecycle.outcome import Answer, Reply
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.cheapvalues import value
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.terms import PLAIN, Terms

#: A record from further in the future than this was written before the clock was set back; clocks of hosts that
#: share a queue may differ by less.
SET_BACK = 600.0


#: These are not asked about again.
_FINAL = (Answer.ACCEPTED, Answer.REJECTED)


@dataclass(frozen=True, slots=True)
class Part:
    """How it stands with those recipients of a message who are at one of several relays; the fields are `Record`'s."""

    attempts: int = 0
    time: float = 0.0
    due: float = 0.0
    spent: float = 0.0
    #: It cannot be known whether the relay has it, and a person decides when the other parts are done.
    held: bool = False

    def wait(self, now: float) -> float:
        """Return the seconds until it is due; see `Record.wait`."""
        return _wait(self.time, self.due, now)


@value
class Record:
    """How it stands with a message.  Times are seconds since the epoch, 0.0 for never."""

    state: State = State.READY
    #: Attempts that reached a relay which could be used.
    attempts: int = 0
    #: When this was written.
    time: float = 0.0
    #: When the message is due again.
    due: float = 0.0
    #: Seconds of its lifetime that the message has used up, measured so that a jump of the clock costs little.
    spent: float = 0.0
    #: How many workers died with it.
    deaths: int = 0
    #: How many attempts ended with an unknown outcome.
    unknowns: int = 0
    relay: str = ""
    #: Why, for people.
    note: str = ""
    #: What was said last about each recipient.
    replies: Mapping[str, Reply] = field(default_factory=dict)
    #: If its recipients are at several relays: those of them that were tried and are not done, by the mailer's name.
    #: `due` is the time of the first part then, and `attempts` counts those of all.
    parts: Mapping[str, Part] = field(default_factory=dict)
    #: Whether an operator wants it tried, whatever its sender asked for.
    early: bool = False

    def outstanding(self, recipients: Iterable[str]) -> tuple[str, ...]:
        """Return those of `recipients` neither accepted nor rejected; first those that no relay was asked about."""
        said = self.replies
        if not said:
            return tuple(recipients)
        open_ones = [each for each in recipients if each not in said or said[each].answer not in _FINAL]
        return tuple(sorted(open_ones, key=said.__contains__))

    def left_of(self, envelope: Envelope) -> Envelope:
        """Return the envelope with the recipients that are still to be served."""
        recipients = self.outstanding(envelope.recipients)
        return replace(envelope, recipients=recipients, malformed=self.outstanding(envelope.malformed))

    def having(self, answer: Answer) -> dict[str, Reply]:
        """Return the recipients whose last answer was this."""
        return {recipient: reply for recipient, reply in self.replies.items() if reply.answer is answer}

    def wait(self, now: float) -> float:
        """Seconds until the message is due; never more than was planned, even if the clock was set back since."""
        return _wait(self.time, self.due, now) if self.state is State.DEFERRED else 0.0

    def before_time(self, terms: Terms, now: float) -> float:
        """Seconds until a mail with these terms may be tried first; 0.0 for one that was tried, or is tried early."""
        return 0.0 if terms is PLAIN or self.attempts or self.early else terms.wait(now)

    @property
    def due_again(self) -> float:
        """When those who were tried last are due; `due` may be that of others, at another relay."""
        return next((part.due for part in self.parts.values() if part.time == self.time), self.due)

    def part(self, name: str, recipients: Iterable[str]) -> Part:
        """Return how it stands with `recipients` at the mailer of this name; as with all, if no part is known."""
        if name in self.parts:
            return self.parts[name]
        if self.replies.keys().isdisjoint(recipients):
            return Part()
        return Part(self.attempts, self.time, self.due, self.spent)

    def released(self, now: float) -> Record:
        """Return the record of a message that was held and shall go on now, with all its parts."""
        parts = {name: replace(part, time=now, due=now, held=False) for name, part in self.parts.items()}
        return replace(self, state=State.READY, time=now, due=now, deaths=0, note="released", parts=parts)

    def again(self, now: float, note: str) -> Record:
        """Return the record of a message that shall be tried now, as if new, for the recipients not accepted yet."""
        accepted = self.having(Answer.ACCEPTED)
        return replace(self.released(now), attempts=0, spent=0.0, note=note, replies=accepted, parts={}, early=True)


def _wait(time: float, due: float, now: float) -> float:
    """Return the seconds from `now` until `due`, which was planned at `time`."""
    return 0.0 if time - now > SET_BACK else max(0.0, min(due - now, due - time))


_FRESH = Record()
_FIELDS = tuple(each.name for each in fields(Record))

_encode = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode


def write_record(record: Record, base: Record | None = None) -> bytes:
    """Return the line of a history file that tells of `record`.

    :param base: what the lines before it say, if the line may be short and tell of changed replies only.
    """
    values = {name: getattr(record, name) for name in _FIELDS}
    values["state"] = record.state.value
    replies: Mapping[str, Reply] = values.pop("replies")
    if base is None or not base.replies or not base.replies.keys() <= replies.keys():
        values["replies"] = {who: reply_values(reply) for who, reply in replies.items()}
    else:
        changed = {who: reply for who, reply in replies.items() if base.replies.get(who) != reply}
        values["changed"] = {who: reply_values(reply) for who, reply in changed.items()}
    values["parts"] = {name: [getattr(part, each) for each in Part.__slots__] for name, part in record.parts.items()}
    if not record.parts:
        del values["parts"]
    if not record.early:
        del values["early"]
    return _encode(values).encode("ascii") + b"\n"


def read_records(text: bytes) -> Iterator[Record]:
    """Yield the records in a history file, oldest first; lines that are torn or foreign are left out."""
    replies: Mapping[str, Reply] = {}
    for line in text.splitlines(keepends=True):
        found = _read_line(line)
        if found is not None:
            record, is_whole = found
            replies = record.replies if is_whole else {**replies, **record.replies}
            yield record if is_whole else replace(record, replies=replies)


def last_record(text: bytes) -> Record:
    """Return the record that rules in a whole history file; a fresh one if no line of it can be read."""
    return record_at_end(text) or Record()


def record_at_end(text: bytes, *, is_all: bool = True) -> Record | None:
    """Return the record that rules: what the last whole line says together with those before it.

    :param text: a history file, or its end.
    :param is_all: whether it is the whole file.
    :returns: None if there is no line that can be read, or if what is missing of the file may say more.
    """
    later: list[Record] = []
    for line in reversed(text.splitlines(keepends=True)):
        found = _read_line(line)
        if found is None:
            continue
        later.append(found[0])
        if found[1]:
            break
    else:
        if not is_all or not later:
            return None
    replies: dict[str, Reply] = {}
    for record in reversed(later):
        replies.update(record.replies)
    return later[0] if len(later) == 1 else replace(later[0], replies=replies)


def compacted(text: bytes) -> bytes:
    """Return a shorter history file that says the same: of all records but the last one, the replies are left out."""
    records = list(read_records(text))
    return b"".join(
        [*(write_record(replace(each, replies={})) for each in records[:-1]), *map(write_record, records[-1:])]
    )


def _read_line(line: bytes) -> tuple[Record, bool] | None:
    """Return the record of a line, and whether it has every reply; None if the line is torn or foreign."""
    if not line.endswith(b"\n"):
        return None
    try:
        values = json.loads(line)
        is_whole = "changed" not in values
        replies = values.pop("replies" if is_whole else "changed")
        values["state"] = State(values["state"])
        values["replies"] = {who: reply_of(each) for who, each in replies.items()}
        values["parts"] = {name: _part(each) for name, each in values.get("parts", {}).items()}
        # What a later version knows and this one does not is passed over, and the other way round.
        known = ((name, value) for name, value in values.items() if name in _FIELDS)
        return Record(**{name: checked(getattr(_FRESH, name), value) for name, value in known}), is_whole
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def checked(fresh: Any, value: Any) -> Any:
    """Return the value if it is of the kind that belongs in the place of `fresh`.  Raises `TypeError`."""
    if isinstance(fresh, float) and isinstance(value, int):
        value = float(value)
    if not isinstance(value, type(fresh)) or (isinstance(value, float) and not math.isfinite(value)):
        raise TypeError(f"there cannot be {value!r} in the place of {fresh!r}")
    return value


def _part(values: list[Any]) -> Part:
    fresh = (getattr(Part(), name) for name in Part.__slots__)
    return Part(*(checked(*each) for each in zip(fresh, values, strict=True)))


def reply_values(reply: Reply) -> list[Any]:
    """Return a reply as a JSON array."""
    return [reply.answer.value, reply.code, reply.enhanced, reply.text]


def reply_of(values: list[Any]) -> Reply:
    """Return the reply that `reply_values` made an array of.  Raises `ValueError` and `TypeError`."""
    answer, code, enhanced, text = values
    return Reply(Answer(answer), text, code, enhanced)
