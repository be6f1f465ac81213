"""What is known about one attempt, and how single replies count.  Pure.

RFC 5321, 4.2; RFC 3463.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

from zope.sendmail.lifecycle.outcome import Answer, Reply, printable
from zope.sendmail.message.envelope import Envelope

#: These replies sound permanent, but speak of our or the operator's fault: no mail is lost for them.
NOT_THE_MAILS_FAULT = frozenset({503, 530, 534, 535, 538})


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
    #: Who has the mail, as far as recipients are answered for one by one (LMTP).
    served: dict[str, Reply] = field(default_factory=dict)
    #: The envelope went with the end of the mail before, and not all of it has been answered.
    riding: bool = False
    #: The last byte of the message may have gone, and no reply says that the relay does not have it.
    intended: bool = False
    #: The relay does not keep what it promised in EHLO about PIPELINING or CHUNKING, or so it seems.
    broken_promise: bool = False
    #: Nobody can tell any more what the relay will answer to; the connection must not be used again.
    out_of_step: bool = False

    def start_over(self) -> None:
        """Forget what a connection said that was dead already."""
        self.opened = self.begun = self.riding = self.intended = self.out_of_step = False
        self.accepted, self.refused, self.served = {}, {}, {}


@functools.lru_cache(maxsize=64)  # a relay has the same words for most recipients
def charge(code: int, text: str | bytes) -> Reply:
    """The reply as it counts for a mail: what is not its fault is temporary, whatever the first digit."""
    reply = Reply.of(code, text)
    if code in NOT_THE_MAILS_FAULT:
        return Reply(Answer.DEFERRED, reply.text, code, reply.enhanced)
    return reply


def note_refused(progress: Progress, returned: object) -> None:
    """Take note of what ``sendmail`` or ``send`` returned: a dict of the refused, or else nobody was."""
    refused = {}
    if isinstance(returned, dict):
        recipients = progress.envelope.recipients
        refused = {recipient: reply_from(returned[recipient]) for recipient in recipients if recipient in returned}
    progress.refused.update(refused)
    for recipient in refused:
        progress.accepted.pop(recipient, None)


def reply_from(said: object) -> Reply:
    """A reply from smtplib's pair of code and text; what is no such pair is temporary."""
    if isinstance(said, tuple) and len(said) == 2 and isinstance(said[0], int):
        return charge(said[0], said[1] if isinstance(said[1], (str, bytes)) else str(said[1]))
    return Reply(Answer.DEFERRED, printable(str(said)))


def pairs(refused: dict[str, Reply]) -> dict[str, tuple[int, bytes]]:
    """Refused recipients as smtplib tells them."""
    return {
        recipient: (reply.code or 553, " ".join(filter(None, (reply.enhanced, reply.text))).encode())
        for recipient, reply in refused.items()
    }
