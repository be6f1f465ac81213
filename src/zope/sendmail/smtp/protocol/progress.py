"""What is known about one attempt, and how single replies count.  Pure.

RFC 5321, 4.2; RFC 3463.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

from zope.sendmail.lifecycle.outcome import Answer, Reply, printable
from zope.sendmail.lifecycle.throttling import is_quota
from zope.sendmail.message.envelope import Envelope

#: These replies sound permanent, but speak of our or the operator's fault: no mail is lost for them.
NOT_THE_MAILS_FAULT = frozenset({503, 530, 534, 535, 538})

#: What stands for a code where the relay was not asked.
_CODES = {Answer.DEFERRED: 451}


@dataclass(slots=True)
class Progress:
    """How far one attempt came."""

    envelope: Envelope
    #: There is a connection; from here to `intended`, an error that is not smtplib's is none of the relay.
    opened: bool = False
    #: Over this connection the relay has taken our login.
    logged_in: bool = False
    #: The relay took MAIL: from now on it speaks about this mail.
    begun: bool = False
    accepted: dict[str, Reply] = field(default_factory=dict)
    refused: dict[str, Reply] = field(default_factory=dict)
    #: The recipients that have the mail, as far as they are answered for one by one (LMTP).
    served: dict[str, Reply] = field(default_factory=dict)
    #: The recipients that were not asked about, because the relay takes no more with one mail.
    unasked: list[str] = field(default_factory=list)
    #: The relay has said that these are too many recipients.
    has_too_many: bool = False
    #: The envelope went with the end of the mail before, and not all of it has been answered.
    sent_ahead: bool = False
    #: The relay has asked for the text (354).
    text_wanted: bool = False
    #: The last byte of the message may have gone, and no reply says that the relay does not have it.
    intended: bool = False
    #: The relay announced PIPELINING and does not take it, or so it seems.
    pipelining_failed: bool = False
    #: It is not certain any more what the relay will answer to; the connection must not be used again.
    out_of_sync: bool = False

    def start_over(self) -> None:
        """Forget what was said on a connection that did not do."""
        self.opened = self.begun = self.sent_ahead = self.text_wanted = self.intended = False
        self.out_of_sync = self.has_too_many = False
        self.accepted, self.refused, self.served, self.unasked = {}, {}, {}, []

    def forget_replies(self) -> None:
        """Forget what recipients were answered: those may have been replies to something else."""
        self.accepted, self.refused, self.served = {}, {}, {}


@functools.lru_cache(maxsize=64)  # a relay has the same words for most recipients
def reply_about_mail(code: int, text: str | bytes) -> Reply:
    """Return the reply as it counts for a mail: what is not the mail's fault is temporary, whatever the first digit.

    A quota of the account is not.
    """
    reply = Reply.of(code, text)
    if code in NOT_THE_MAILS_FAULT or (reply.answer is Answer.REJECTED and is_quota(reply)):
        return Reply(Answer.DEFERRED, reply.text, code, reply.enhanced)
    return reply


@functools.lru_cache(maxsize=64)
def reply_about_recipient(code: int, text: str | bytes) -> Reply:
    """Return the reply to RCPT as it counts for a recipient.

    552 is temporary (RFC 5321, 4.5.3.1.10: older relays say it for too many recipients), and so is one recipient too
    many, whatever the code.
    """
    reply = reply_about_mail(code, text)
    if reply.answer is Answer.REJECTED and (code == 552 or reply.is_one_too_many):
        return Reply(Answer.DEFERRED, reply.text, code, reply.enhanced)
    return reply


def note_refused(progress: Progress, returned: object) -> None:
    """Take note of what ``sendmail`` or ``send`` returned: a dict of the refused, or else all were accepted."""
    refused = {}
    if isinstance(returned, dict):
        recipients = progress.envelope.recipients
        refused = {recipient: reply_from(returned[recipient]) for recipient in recipients if recipient in returned}
    progress.refused.update(refused)
    for recipient in refused:
        progress.accepted.pop(recipient, None)


def reply_from(said: object) -> Reply:
    """Return the reply to a recipient, made of smtplib's pair of code and text; what is no such pair is temporary."""
    if isinstance(said, tuple) and len(said) == 2 and isinstance(said[0], int):
        return reply_about_recipient(said[0], said[1] if isinstance(said[1], (str, bytes)) else str(said[1]))
    return Reply(Answer.DEFERRED, printable(str(said)))


def pairs(refused: dict[str, Reply]) -> dict[str, tuple[int, bytes]]:
    """Return refused recipients as smtplib tells them."""
    return {
        recipient: (
            reply.code or _CODES.get(reply.answer, 553),
            " ".join(filter(None, (reply.enhanced, reply.text))).encode(),
        )
        for recipient, reply in refused.items()
    }
