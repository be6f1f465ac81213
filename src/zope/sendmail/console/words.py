"""Mails, relays and findings as the pages say them.  Pure; the templates escape."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote, unquote

from zope.sendmail.lifecycle.finding import Finding, age
from zope.sendmail.lifecycle.outcome import Reply, printable
from zope.sendmail.lifecycle.queuedmail import QueuedMail
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.relaystate import RelayState, fault_words, probe_words
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.terms import terms_values

_SECRETS = frozenset({b"x-zope-password", b"authorization"})


def token_of(name: str) -> str:
    """Return the name of a mail as it stands in addresses and forms: a file name may have any bytes."""
    return quote(name, safe="", errors="surrogateescape")


def name_of(token: str) -> str:
    """Return the name that `token_of` made a token of."""
    return unquote(token, errors="surrogateescape")


@dataclass(frozen=True, slots=True)
class Moment:
    """A time: for machines, and for people how long ago, or until then."""

    iso: str
    text: str


def moment(seconds: float, now: float) -> Moment | None:
    """Return a time; None for 0.0, which stands for never."""
    if not seconds:
        return None
    words = f"in {age(seconds - now)}" if seconds > now else f"{age(now - seconds)} ago"
    return Moment(datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds"), words)


def time_of_day(seconds: float) -> Moment:
    """Return a time as a clock on the wall shows it; the time zone is that of the server, as in the plots."""
    local = datetime.fromtimestamp(seconds, UTC).astimezone()
    return Moment(local.isoformat(timespec="minutes"), local.strftime("%H:%M"))


@dataclass(frozen=True, slots=True)
class MailRow:
    """One mail in a list."""

    name: str
    token: str
    state: str
    sender: str
    recipients: str
    written: Moment | None
    due: Moment | None
    size: str
    reply: str


def mail_row(mail: QueuedMail, now: float) -> MailRow:
    """Return a mail as a list has it."""
    envelope = mail.envelope
    recipients = (*envelope.recipients, *envelope.malformed) if envelope else ()
    more = f" and {len(recipients) - 2} more" if len(recipients) > 2 else ""
    return MailRow(
        name=printable(mail.name),
        token=token_of(mail.name),
        state=mail.state.value,
        sender=printable((envelope.sender or "<>") if envelope else "unreadable"),
        recipients=printable(", ".join(recipients[:2]) + more),
        written=moment(mail.since, now),
        due=moment(mail.due, now) if mail.state in (State.DEFERRED, State.SCHEDULED) else None,
        size=size_words(mail.size),
        reply=last_words(mail, now),
    )


def last_words(mail: QueuedMail, now: float) -> str:
    """Return why a mail waits: its relay's trouble, what was said last, or a note."""
    if mail.blocked is not None:
        return f"{printable(mail.blocked.title, 100)} cannot be used: {fault_words(mail.blocked)}; " + probe_words(
            mail.blocked, now
        )
    record = mail.history[-1] if mail.history else Record()
    replies = list(dict.fromkeys(str(reply) for reply in record.replies.values()))
    more = f" (and {len(replies) - 1} other replies)" if len(replies) > 1 else ""
    return printable(record.note or (replies[0] + more if replies else ""), 300)


def asked_rows(mail: QueuedMail) -> list[tuple[str, str]]:
    """Return what the sender of a mail asked for: names and values, for people."""
    values = terms_values(mail.envelope.terms) if mail.envelope is not None else {}
    return [(name.replace("_", " ").capitalize(), printable(value)) for name, value in values.items()]


@dataclass(frozen=True, slots=True)
class RecipientRow:
    """What was said last about one recipient."""

    address: str
    answer: str
    reply: str


def recipient_rows(mail: QueuedMail) -> list[RecipientRow]:
    """Return the recipients of a mail with what was said last."""
    if mail.envelope is None:
        return []
    replies = mail.history[-1].replies if mail.history else {}
    everyone = (*mail.envelope.recipients, *mail.envelope.malformed)
    return [_recipient_row(each, replies.get(each)) for each in everyone[:500]]


def _recipient_row(address: str, reply: Reply | None) -> RecipientRow:
    if reply is None:
        return RecipientRow(printable(address), "not tried yet", "")
    return RecipientRow(printable(address), reply.answer.value, printable(str(reply), 500))


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """One step of a mail's life."""

    at: Moment | None
    state: str
    attempts: int
    relay: str
    words: str


def history_rows(mail: QueuedMail, now: float) -> list[HistoryRow]:
    """Return the history of a mail, the latest first."""
    return [
        HistoryRow(
            moment(record.time, now),
            record.state.value,
            record.attempts,
            printable(record.relay, 100),
            printable(record.note or "; ".join(dict.fromkeys(map(str, record.replies.values()))), 500),
        )
        for record in reversed(mail.history[-100:])
    ]


@dataclass(frozen=True, slots=True)
class RelayRow:
    """One relay."""

    name: str
    title: str
    usable: bool
    words: str
    since: Moment | None
    probe: str
    limit: str


def relay_rows(relays: Iterable[RelayState], now: float) -> list[RelayRow]:
    """Return relays, those in trouble first."""
    rows = [
        RelayRow(
            relay.name,
            printable(relay.title, 200),
            relay.is_usable,
            fault_words(relay) or "works",
            moment(relay.since, now),
            "" if relay.is_usable else probe_words(relay, now),
            printable(relay.limit, 200),
        )
        for relay in relays
    ]
    return sorted(rows, key=lambda row: (row.usable, row.title))


@dataclass(frozen=True, slots=True)
class FindingRow:
    """What the doctor found, once for all mails with the same cause."""

    severity: str
    count: int
    text: str
    cure: str


def finding_rows(findings: Iterable[Finding]) -> list[FindingRow]:
    """Return findings grouped by cause, the worst first."""
    groups: dict[tuple[str, str, str], list[Finding]] = {}
    for each in findings:
        cause = each.cause or each.text
        groups.setdefault((each.severity.value, each.kind.value, cause), []).append(each)
    order = {"problem": 0, "warning": 1, "note": 2}
    rows = [
        FindingRow(severity, len(group), printable(group[0].text, 600), printable(group[0].cure, 600))
        for (severity, _, _), group in groups.items()
    ]
    return sorted(rows, key=lambda row: (order.get(row.severity, 3), -row.count))


def size_words(size: int) -> str:
    """Return a size for people."""
    for unit, factor in (("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} B"


def header_lines(head: bytes, limit: int = 100) -> Iterator[str]:
    """Yield the lines of a message's header, each harmless."""
    for line in head.splitlines()[:limit]:
        if not line:
            return
        name, colon, _ = line.partition(b":")
        is_secret = name.strip().lower() in _SECRETS  # CPSMailAccess wrote the user's password into its queue files
        yield printable(name + colon + b" (hidden)" if is_secret else line, 500)
