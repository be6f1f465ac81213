"""How mails and findings look: lines for people, objects for programs.

Whatever comes from files or relays is made harmless for a terminal.  The keys of the objects are a promise.  Pure.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from zope.sendmail.lifecycle.finding import Finding, age, moment
from zope.sendmail.lifecycle.outcome import Answer, Reply, printable
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.states import State
from zope.sendmail.lifecycle.status import MailStatus

if TYPE_CHECKING:
    from zope.sendmail.interfaces import IQueuedMail

#: What turns text around or hides it: not control characters, but able to lie on a terminal.
_DECEIVING = re.compile("[\u00ad\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

#: The columns in front of sender and recipients.
_COLUMNS = "{:<14} {:<8} {:>7} {:>7} {:>3}  "


# --- lines ------------------------------------------------------------------------------------------------------


def clean(text: str, limit: int = 1000) -> str:
    """`text` as one line that cannot do anything to a terminal."""
    return _DECEIVING.sub(" ", printable(text, limit))


def clean_line(line: bytes) -> str:
    """One line of a message, for a terminal; the tabs and the rest of its shape stay."""
    text = line.decode("utf-8", "replace").rstrip("\r\n")
    return _DECEIVING.sub("\ufffd", _CONTROL.sub("\ufffd", text))


def short(name: str) -> str:
    """The last part of a name of ours, by which operators can call the mail; other names whole."""
    parts = name.split(".")
    return clean(parts[-1] if len(parts) >= 4 and parts[-1].isdigit() else name)


def heading() -> str:
    """Above `mail_lines`."""
    return (_COLUMNS + "{}").format("NAME", "STATE", "AGE", "DUE IN", "TRY", "SENDER -> RECIPIENTS")


def mail_lines(mail: IQueuedMail, now: float, width: int) -> Iterator[str]:
    """A mail in a table of this width; what was said last stands in a line of its own."""
    record = mail.history[-1] if mail.history else Record()
    columns = _COLUMNS.format(
        short(mail.name), mail.state, age(now - mail.since), _due_in(mail, now), record.attempts or "-"
    )
    yield columns + _route(mail, width - len(columns))
    said = _last_words(record)
    if said:
        indent = " " * 15
        yield indent + _cut(said, width - len(indent))


def detail_lines(mail: IQueuedMail, now: float) -> Iterator[str]:
    """Everything about a mail but its text."""
    record = mail.history[-1] if mail.history else Record()
    yield f"name        {clean(mail.name)}"
    yield f"state       {mail.state}" + (f", due in {_due_in(mail, now)}" if mail.due else "")
    yield f"written     {moment(mail.since)} ({age(now - mail.since)} ago)"
    yield f"size        {mail.size} bytes"
    yield f"message id  {clean(mail.message_id) or '-'}"
    if mail.envelope is None:
        yield "envelope    none that can be read"
    else:
        yield f"sender      {clean(mail.envelope.sender) or '<>'}"
        for recipient in mail.envelope.recipients:
            yield f"recipient   {clean(recipient)}: {_course(record.replies.get(recipient))}"
        for recipient in mail.envelope.malformed:
            yield f"malformed   {clean(recipient)}: {_course(record.replies.get(recipient))}"
    yield from _history_lines(mail)


def status_lines(status: MailStatus, now: float) -> Iterator[str]:
    """What became of a mail."""
    when = f", left {moment(status.sent)}" if status.sent else ""
    due = f", next attempt in {age(status.due - now)}" if status.due > now else ""
    reason = f": {clean(status.reason)}" if status.reason else ""
    yield f"{clean(status.message_id)}  {status.standing}{when}{due}{reason}"
    for recipient, reply in status.replies.items():
        yield f"            {clean(recipient)}: {_course(reply)}"


def finding_lines(finding: Finding, width: int) -> Iterator[str]:
    """A finding as a paragraph."""
    yield clean(f"{finding.severity.upper():8} {finding.kind}" + (f": {finding.name}" if finding.name else ""))
    for text in (clean(finding.text), f"Cure: {clean(finding.cure)}"):
        yield from textwrap.wrap(text, width, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)


def _history_lines(mail: IQueuedMail) -> Iterator[str]:
    """Each record with what was new in it."""
    before = Record()
    for record in mail.history:
        relay = f" through {clean(record.relay)}" if record.relay else ""
        attempt = f"attempt {record.attempts}{relay}: " if record.attempts != before.attempts else ""
        due = f", next attempt {moment(record.due)}" if record.state is State.DEFERRED else ""
        note = f" ({clean(record.note)})" if record.note else ""
        yield f"history     {moment(record.time)} {attempt}{record.state}{note}{due}"
        for recipient, reply in record.replies.items():
            if reply != before.replies.get(recipient) or (attempt and reply.answer is Answer.DEFERRED):
                yield f"            {clean(recipient)}: {_course(reply)}"
        before = record


def _course(reply: Reply | None) -> str:
    return "not tried yet" if reply is None else clean(f"{reply.answer}: {reply}")


def _due_in(mail: IQueuedMail, now: float) -> str:
    if mail.state is State.DEFERRED and mail.due > now:
        return age(mail.due - now)
    return "now" if mail.state in (State.READY, State.DEFERRED) else "-"


def _route(mail: IQueuedMail, width: int) -> str:
    """From whom to whom; as many recipients as fit, and the number of the others."""
    if mail.envelope is None:
        return _cut("(no readable envelope)", width)
    everybody = [clean(each) for each in (*mail.envelope.recipients, *mail.envelope.malformed)]
    sender, more = clean(mail.envelope.sender) or "<>", ""
    for count in range(min(len(everybody), 4), 0, -1):
        more = f" +{len(everybody) - count}" if len(everybody) > count else ""
        line = f"{sender} -> {', '.join(everybody[:count])}{more}"
        if len(line) <= width:
            return line
    room = max(width - len(more) - len(" -> "), 8)
    first = everybody[0] if everybody else ""
    kept = max(room - len(first), room // 2)  # the recipient matters more to who looks
    return f"{_cut(sender, kept)} -> {_cut(first, room - min(kept, len(sender)))}{more}"


def _last_words(record: Record) -> str:
    """Why the mail is where it is."""
    replies = record.replies.items()
    said = [each for each in replies if each[1].answer is not Answer.ACCEPTED and each[1].text != record.note]
    words = [clean(record.note)] if record.note else []
    if said:
        more = f" (+{len(said) - 1})" if len(said) > 1 else ""
        words.append(clean(str(said[0][1])) + more)
    return "; ".join(words)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(width - 1, 0)] + "\u2026"


# --- objects ----------------------------------------------------------------------------------------------------


def mail_values(mail: IQueuedMail, *, history: bool = False) -> dict[str, Any]:
    """A mail; times are seconds since the epoch, null for open."""
    record = mail.history[-1] if mail.history else Record()
    envelope = mail.envelope
    values = {
        "name": mail.name,
        "state": mail.state.value,
        "since": mail.since,
        "due": mail.due or None,
        "size": mail.size,
        "message_id": mail.message_id,
        "sender": envelope.sender if envelope else None,
        "recipients": list(envelope.recipients) if envelope else [],
        "malformed": list(envelope.malformed) if envelope else [],
        **_record_values(record),
    }
    if history:
        values["history"] = [
            {"state": each.state.value, "time": each.time, "due": each.due or None, **_record_values(each)}
            for each in mail.history
        ]
    return values


def finding_values(finding: Finding) -> dict[str, str]:
    """A finding."""
    return {
        "kind": finding.kind.value,
        "severity": finding.severity.value,
        "name": finding.name,
        "text": finding.text,
        "cure": finding.cure,
    }


def status_values(status: MailStatus) -> dict[str, Any]:
    """What became of a mail; times are seconds since the epoch, null for never."""
    return {
        "message_id": status.message_id,
        "standing": status.standing.value,
        "reason": status.reason,
        "due": status.due or None,
        "sent": status.sent or None,
        "replies": {who: _reply_values(reply) for who, reply in status.replies.items()},
    }


def count_values(counts: Mapping[State, int], oldest: float | None) -> dict[str, float | None]:
    """How many mails there are; every state is named."""
    return {**{state.value: counts.get(state, 0) for state in State if state is not State.SENT}, "oldest": oldest}


def _record_values(record: Record) -> dict[str, Any]:
    return {
        "attempts": record.attempts,
        "deaths": record.deaths,
        "unknowns": record.unknowns,
        "relay": record.relay,
        "note": record.note,
        "replies": {who: _reply_values(reply) for who, reply in record.replies.items()},
    }


def _reply_values(reply: Reply) -> dict[str, Any]:
    return {"answer": reply.answer.value, "code": reply.code, "enhanced": reply.enhanced, "text": reply.text}
