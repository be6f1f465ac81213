"""How the rows of a mail become values for operators.  Pure."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from zope.sendmail.errors import MalformedEnvelope
from zope.sendmail.lifecycle.queuedmail import QueuedMail
from zope.sendmail.lifecycle.record import Record, last_record, write_record
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.queue.postgresql.envelopecolumn import read_envelope
from zope.sendmail.queue.postgresql.names import shown

#: What `mail.state` says.
WAITING, HELD, REJECTED, STAGED = 0, 1, 2, 3

#: Added to that of a mail which has arrived from another queue and did not appear.
ARRIVING = 10

#: How the rows of `count` call mails that a living processor has.
SENDING = 4

#: How they call mails that leave later.
SCHEDULED = 5

STATES = {WAITING: State.READY, HELD: State.HELD, REJECTED: State.REJECTED, STAGED: State.STAGED}

#: How a state that a record says is kept; all others wait.
NUMBERS = {State.HELD: HELD, State.REJECTED: REJECTED}


def record_of(line: str | None) -> Record:
    """Return the record that is kept as a line; a fresh one if there is none."""
    return Record() if line is None else last_record(line.encode() + b"\n")


def line_of(record: Record) -> str:
    """Return a record as it is kept: as one line of JSON."""
    return write_record(record).decode("ascii").rstrip("\n")


def state_of(number: int, record: Record) -> State:
    """Return the state of a mail that no processor has."""
    if number == WAITING:
        return State.DEFERRED if record.state is State.DEFERRED else State.READY
    return STATES[number]


def mail_of(row: Any, now: float) -> QueuedMail:
    """Return a mail as an operator sees it.

    :param now: seconds since the epoch.
    """
    identifier, number, is_sending, since, size, message_id, envelope, line = row
    record = record_of(line)
    state = State.SENDING if is_sending else state_of(number, record)
    whole: Envelope | None = None
    with contextlib.suppress(MalformedEnvelope):
        whole = read_envelope(envelope)
    history: Sequence[Record] = () if line is None else (record,)
    return QueuedMail.at(
        now, shown(identifier), state, whole, message_id=message_id, since=since, size=size, history=history
    )
