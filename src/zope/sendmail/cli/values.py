"""What the commands say to programs: mails, findings, relays as objects for JSON.

The keys are a promise; see `zope.sendmail.cli.queuearguments.KEYS`.  Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any

from zope.sendmail.lifecycle.finding import Finding
from zope.sendmail.lifecycle.mailstatus import MailStatus
from zope.sendmail.lifecycle.outcome import Reply
from zope.sendmail.lifecycle.queuedmail import QueuedMail
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.relaystate import ProcessorState, RelayState
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.terms import PLAIN, Terms


def mail_values(mail: QueuedMail, *, history: bool = False) -> dict[str, Any]:
    """Return a mail; times are seconds since the epoch, null for open."""
    record = mail.history[-1] if mail.history else Record()
    envelope = mail.envelope
    values = {
        "name": mail.name,
        "state": mail.state.value,
        "since": mail.since,
        "due": mail.due or None,
        **_term_values(envelope.terms if envelope else PLAIN),
        "size": mail.size,
        "message_id": mail.message_id,
        "sender": envelope.sender if envelope else None,
        "recipients": list(envelope.recipients) if envelope else [],
        "malformed": list(envelope.malformed) if envelope else [],
        "suppressed": list(envelope.terms.suppressed) if envelope else [],
        "relays": list(mail.relays),
        "locked_until": mail.locked_until or None,
        "waits_for": None if mail.blocked is None else _blocked_values(mail.blocked),
        **_record_values(record),
    }
    if history:
        values["history"] = [
            {"state": each.state.value, "time": each.time, "due": each.due or None, **_record_values(each)}
            for each in mail.history
        ]
    return values


def finding_values(finding: Finding, location: str) -> dict[str, Any]:
    """Return a finding in the queue at this location."""
    return {
        "kind": finding.kind.value,
        "severity": finding.severity.value,
        "name": finding.name,
        "text": finding.text,
        "cure": finding.cure,
        "cause": finding.cause,
        "commands": finding.command_lines(location),
    }


def status_values(status: MailStatus) -> dict[str, Any]:
    """Return what became of a mail; times are seconds since the epoch, null for never."""
    return {
        "message_id": status.message_id,
        "name": status.names[0] if status.names else None,
        "names": list(status.names),
        "standing": status.standing.value,
        "reason": status.reason,
        "due": status.due or None,
        "sent": status.sent or None,
        "replies": {recipient: reply_values(reply) for recipient, reply in status.replies.items()},
    }


def count_values(counts: Mapping[State, int], oldest: float | None, waiting: Mapping[str, int]) -> dict[str, Any]:
    """Return how many mails there are; every state is named."""
    states = {state.value: counts.get(state, 0) for state in State if state is not State.SENT}
    return {**states, "oldest": oldest, "waiting_for": dict(waiting)}


def relay_values(relay: RelayState, waiting: int) -> dict[str, Any]:
    """Return a relay, and how many mails wait for it."""
    return {
        "relay": relay.name,
        "address": relay.address or None,
        "usable": relay.is_usable,
        "reply": None if relay.fault is None else reply_values(relay.fault),
        "since": relay.since or None,
        "probe": relay.probe or None,
        "asked": relay.asked or None,
        "waiting": waiting,
        "connections": relay.connections or None,
        "limit": relay.limit or None,
        "rate": relay.rate or None,
        "members": [relay_values(member, 0) for member in relay.members],
    }


def processor_values(processor: ProcessorState, now: float) -> dict[str, Any]:
    """Return a processor."""
    return {
        "processor": processor.pid,
        "host": processor.host,
        "alive": processor.alive,
        "forever": processor.forever,
        "started": processor.started or None,
        "ended": processor.ended or None,
        "written": processor.written or None,
        "sent": processor.sent,
        "per_minute": processor.rate(now),
    }


def reply_values(reply: Reply) -> dict[str, Any]:
    """Return a reply."""
    return {"answer": reply.answer.value, "code": reply.code, "enhanced": reply.enhanced, "text": reply.text}


def _term_values(terms: Terms) -> dict[str, Any]:
    """Return what the sender asked for."""
    return {
        "not_before": terms.not_before or None,
        "expires": terms.expires if terms.expires < inf else None,
        "priority": terms.priority.value,
        "key": terms.key or None,
        "key_until": terms.key_until or None,
    }


def _blocked_values(relay: RelayState) -> dict[str, Any]:
    reply = None if relay.fault is None else reply_values(relay.fault)
    return {"relay": relay.name, "since": relay.since or None, "probe": relay.probe or None, "reply": reply}


def _record_values(record: Record) -> dict[str, Any]:
    return {
        "attempts": record.attempts,
        "deaths": record.deaths,
        "unknowns": record.unknowns,
        "relay": record.relay,
        "note": record.note,
        "replies": {recipient: reply_values(reply) for recipient, reply in record.replies.items()},
    }
