"""Asking a relay about several mails in as few transactions as possible.

Each question is a transaction that comes to nothing, and relays count these: Postfix lets about a hundred pass, then
each costs a second (``in_flow_delay``), and other clients wait as well.  So mails of one sender are asked about as one
mail for the recipients of all, as large as the largest.  Fails with what reading a message raises.
"""

from __future__ import annotations

import smtplib
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

from zope.sendmail.lifecycle.outcome import Outcome, Reply
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.smtp.protocol.addressing import SAFE_RECIPIENTS
from zope.sendmail.smtp.protocol.body import Body
from zope.sendmail.smtp.protocol.progress import Progress
from zope.sendmail.smtp.protocol.sevenbit import CannotConvert, in_seven_bit

#: Asks about one mail, and raises what smtplib raises; see `zope.sendmail.smtp.session.SMTPSession.prove`.
Prove = Callable[[Progress, BinaryIO], None]

#: An envelope and its message.
Question = tuple[Envelope, BinaryIO]


@dataclass
class _Group:
    """Mails that are asked about as one, by their numbers."""

    numbers: list[int] = field(default_factory=list)
    recipients: dict[str, None] = field(default_factory=dict)
    #: Octets of the largest message.
    size: int = -1
    largest: int = 0

    def has_room(self, envelope: Envelope) -> bool:
        """Return whether the mail would not make them more recipients than every relay takes."""
        return not self.numbers or len(self.recipients.keys() | set(envelope.recipients)) <= SAFE_RECIPIENTS

    def add(self, number: int, envelope: Envelope, size: int) -> None:
        """Take one more mail."""
        self.numbers.append(number)
        self.recipients.update(dict.fromkeys(envelope.recipients))
        if size > self.size:
            self.size, self.largest = size, number


def ask_together(prove: Prove, relay: str, mails: Sequence[Question]) -> list[Outcome | None]:
    """Return for each mail what the relay says about it; None: it has to be asked about alone.

    A no may be about the others with which it was asked about.
    """
    outcomes: list[Outcome | None] = [None] * len(mails)
    for group in _groups(mails):
        envelope, message = mails[group.largest]
        try:
            replies = _replies(prove, Envelope(envelope.sender, tuple(group.recipients)), message)
        except OSError:  # smtplib's errors are kin: the relay cannot be used now, which the next question will say
            break
        for number in group.numbers:
            own = {who: replies[who] for who in mails[number][0].recipients if who in replies}
            if len(own) == len(mails[number][0].recipients):
                outcomes[number] = Outcome(relay, own)
    return outcomes


def _groups(mails: Sequence[Question]) -> Iterator[_Group]:
    """Return the groups of two mails and more."""
    groups: list[_Group] = []
    latest: dict[Hashable, _Group] = {}
    for number, (envelope, message) in enumerate(mails):
        start = message.tell()
        body = Body(message)
        kind = _kind(body)
        if kind is not None:
            key = envelope.sender, kind
            if key not in latest or not latest[key].has_room(envelope):
                latest[key] = _Group()
                groups.append(latest[key])
            latest[key].add(number, envelope, body.measure[0])
        message.seek(start)
    return (group for group in groups if len(group.numbers) > 1)


def _kind(body: Body) -> str | None:
    """Return what is equal for messages that ask the relay for the same extensions; None: that is not known."""
    if not body.measure[1]:
        return "7bit"
    whole = body.whole
    if whole is None:
        return None
    try:
        in_seven_bit(whole)
    except CannotConvert:  # a relay without 8BITMIME would not get it
        return None
    return "utf8" if body.has_utf8_header else "8bit"


def _replies(prove: Prove, envelope: Envelope, message: BinaryIO) -> dict[str, Reply]:
    progress = Progress(envelope)
    try:
        prove(progress, message)
    except smtplib.SMTPRecipientsRefused:
        pass
    except smtplib.SMTPResponseException:  # all of them are refused, perhaps because of one
        return {}
    return {**progress.refused, **progress.accepted}
