"""How mails and findings look to people: lines that are harmless for a terminal, whatever stands in files and replies.

Pure.  What programs get is in `zope.sendmail.cli.values`.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence

from zope.sendmail.lifecycle.finding import Finding, Kind, age, moment, together
from zope.sendmail.lifecycle.mailstatus import MailStatus
from zope.sendmail.lifecycle.outcome import Answer, Reply, printable
from zope.sendmail.lifecycle.queuedmail import QueuedMail
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.relaystate import fault_words, probe_words, waiting_words
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.terms import terms_values

#: What turns text around or hides it: not control characters, but able to lie on a terminal.
_DECEIVING = re.compile("[\u00ad\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

#: The columns in front of sender and recipients.
_COLUMNS = "{:<14} {:<8} {:>7} {:>7} {:>3}  "

#: What a list tells of what senders asked for.
_IN_A_LIST = ("expires", "priority", "key")

#: So many mails are named of those that have the same finding.
_NAMED = 3


def clean(text: str, limit: int = 1000) -> str:
    """Return `text` as one line that cannot do anything to a terminal."""
    return _DECEIVING.sub(" ", printable(text, limit))


def clean_line(line: bytes) -> str:
    """Return one line of a message for a terminal; the tabs and the rest of its shape stay."""
    text = line.decode("utf-8", "replace").rstrip("\r\n")
    return _DECEIVING.sub("\ufffd", _CONTROL.sub("\ufffd", text))


def cut(text: str, width: int) -> str:
    """Return as much of `text` as fits, with an ellipsis if that is not all."""
    return text if len(text) <= width else text[: max(width - 1, 0)] + "\u2026"


def mails_in_words(count: int) -> str:
    """Return a number of mails: ``1 mail``, ``2,000 mails``."""
    return f"{count:,} {'mail' if count == 1 else 'mails'}"


def short(name: str) -> str:
    """Return the last part of a name of ours, by which operators can call the mail; other names whole.

    What was asked for (``,P=l``) stands behind it in the name, and in a line of its own in the table.
    """
    parts = name.partition(",")[0].split(".")
    is_ours = len(parts) >= 4 and parts[-1].isdigit() and "/" not in name
    return clean(parts[-1] if is_ours else name)


def heading() -> str:
    """Return the line above `mail_lines`."""
    return (_COLUMNS + "{}").format("NAME", "STATE", "AGE", "DUE IN", "TRY", "SENDER -> RECIPIENTS")


def mail_lines(mail: QueuedMail, now: float, width: int) -> Iterator[str]:
    """Yield a mail in a table of this width; why it waits stands in a line of its own."""
    record = mail.history[-1] if mail.history else Record()
    columns = _COLUMNS.format(
        short(mail.name), mail.state, age(now - mail.since), _due_in(mail, now), record.attempts or "-"
    )
    yield columns + _route(mail, width - len(columns))
    said = "; ".join(filter(None, (reason(mail, now), _asked(mail))))
    if said:
        indent = " " * 15
        yield indent + cut(said, width - len(indent))


def reason(mail: QueuedMail, now: float) -> str:
    """Return why a mail is where it is: whose lock keeps it, the relay for which it waits, or what was said last; empty
    if nothing was.
    """
    if mail.locked_until > now:
        return f"locked by a release before 8.0, for {age(mail.locked_until - now)} at most; doctor --all says more"
    if mail.blocked is not None:
        words = clean(f"{fault_words(mail.blocked)}; {probe_words(mail.blocked, now)}")
        return f"waits for {clean(mail.blocked.name)}: {words}"
    return _last_words(mail.history[-1] if mail.history else Record())


def detail_lines(mail: QueuedMail, now: float) -> Iterator[str]:
    """Yield everything about a mail but its text."""
    record = mail.history[-1] if mail.history else Record()
    yield f"name        {clean(mail.name)}"
    yield f"state       {mail.state}" + (f", due in {_due_in(mail, now)}" if mail.due else "")
    yield from _obstacle_lines(mail, now)
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
    if mail.envelope is not None:
        for name, value in terms_values(mail.envelope.terms).items():
            yield f"{name.replace('_', ' '):11} {clean(value)}"
    if mail.relays:
        yield f"relay       {clean(', '.join(mail.relays))}"
    yield from _history_lines(mail)


def _obstacle_lines(mail: QueuedMail, now: float) -> Iterator[str]:
    """Yield what keeps a mail besides its time."""
    if mail.locked_until > now:
        yield f"locked      by a release before 8.0, until {moment(mail.locked_until)} at most"
    if mail.blocked is not None:
        yield f"waits       {clean(waiting_words(mail.blocked, now))}"


def status_lines(status: MailStatus, now: float) -> Iterator[str]:
    """Yield what became of a mail."""
    when = f", left {moment(status.sent)}" if status.sent else ""
    due = f", next attempt in {age(status.due - now)}" if status.due > now else ""
    why = f": {clean(status.reason)}" if status.reason else ""
    yield f"{clean(status.message_id)}  {status.standing}{when}{due}{why}"
    for recipient, reply in status.replies.items():
        yield f"            {clean(recipient)}: {_course(reply)}"
    for name in status.names:
        yield f"            in the queue as {clean(name)}"


def finding_lines(findings: Sequence[Finding], width: int, location: str) -> Iterator[str]:
    """Yield findings that have severity, kind and cause in common as one paragraph, with the first one's words.

    Below it stand the commands for all of them, each a line that can be pasted into a shell; see `together`.
    """
    first, many = findings[0], len(findings) > 1
    named = first.cause if first.kind is Kind.RELAY else first.name
    what = f"{first.kind}: {named}" if named else str(first.kind)
    if many:
        what = f"{len(findings):,} {first.kind}" + (f": {first.cause}" if first.cause else "")
    yield clean(f"{first.severity.upper():8} {what}")
    text = clean(first.text)
    if many:
        named = ", ".join(short(each.name) for each in findings[:_NAMED])
        more = f" and {len(findings) - _NAMED:,} more" if len(findings) > _NAMED else ""
        text = f"The first: {text} They are {named}{more}."
    for paragraph in (text, f"Cure: {clean(first.cure)}"):
        yield from textwrap.wrap(
            paragraph, width, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False
        )
    yield from (f"        {line}" for line in together(findings).command_lines(location))


def _history_lines(mail: QueuedMail) -> Iterator[str]:
    """Yield each record with what was new in it."""
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


def _asked(mail: QueuedMail) -> str:
    """Return what its sender asked for, but for the time that a column tells."""
    values = terms_values(mail.envelope.terms) if mail.envelope is not None else {}
    return clean(", ".join(f"{name} {value}" for name, value in values.items() if name in _IN_A_LIST))


def _due_in(mail: QueuedMail, now: float) -> str:
    if mail.state in (State.DEFERRED, State.SCHEDULED) and mail.due > now:
        return age(mail.due - now)
    if mail.locked_until > now:
        return age(mail.locked_until - now)
    if mail.blocked is not None:
        return age(mail.blocked.probe - now) if mail.blocked.probe > now else "now"
    return "now" if mail.state in (State.READY, State.DEFERRED) else "-"


def _route(mail: QueuedMail, width: int) -> str:
    """Return sender and recipients; as many recipients as fit, and the number of the others."""
    if mail.envelope is None:
        return cut("(no readable envelope)", width)
    everybody = [clean(each) for each in (*mail.envelope.recipients, *mail.envelope.malformed)]
    sender, more = clean(mail.envelope.sender) or "<>", ""
    for count in range(min(len(everybody), 4), 0, -1):
        more = f" +{len(everybody) - count}" if len(everybody) > count else ""
        line = f"{sender} -> {', '.join(everybody[:count])}{more}"
        if len(line) <= width:
            return line
    room = max(width - len(more) - len(" -> "), 8)
    first = everybody[0] if everybody else ""
    kept = max(room - len(first), room // 2)  # the recipient matters more to an operator
    return f"{cut(sender, kept)} -> {cut(first, room - min(kept, len(sender)))}{more}"


def _last_words(record: Record) -> str:
    """Return why a mail is where it is, as far as its history says."""
    replies = record.replies.items()
    said = [each for each in replies if each[1].answer is not Answer.ACCEPTED and each[1].text != record.note]
    words = [clean(record.note)] if record.note else []
    if said:
        more = f" (+{len(said) - 1})" if len(said) > 1 else ""
        words.append(clean(str(said[0][1])) + more)
    return "; ".join(words)
