"""What is common to all parts of the dialogue about one mail: bytes out, replies in, and whether to go on.  Pure."""

from __future__ import annotations

from zope.sendmail.smtp.protocol.commands import Verb
from zope.sendmail.smtp.protocol.progress import Progress
from zope.sendmail.smtp.protocol.replies import Response
from zope.sendmail.smtp.protocol.steps import Broken, Gone, Heard, Intend, Phase, Receive, Refused, Send, Steps

_RECEIVE = {phase: Receive(phase) for phase in Phase}

#: The relay does not know the command, or not here.
_NOT_UNDERSTOOD = frozenset({500, 502})
_NOT_HERE = _NOT_UNDERSTOOD | {503}


class Exchange:
    """The dialogue about one mail.  `proven`: the relay took one over this connection, so what it offers is true."""

    def __init__(self, progress: Progress, *, proven: bool) -> None:
        self.progress = progress
        self.proven = proven
        #: Nobody can be accepted any more; what still comes only keeps us in step.
        self.ended: Refused | None = None
        #: Sending failed; only the relay's last words are of interest.
        self.hurt: Gone | None = None

    def push(self, data: bytes, phase: Phase, *, asks: bool = False, more: bool = False) -> Steps:
        """Send; if that fails, hear what the relay has said: it may have refused, and hung up (RFC 5321, 4.2.5)."""
        try:
            yield Send(data, phase, asks, more)
        except Broken as broken:
            self.hurt = broken
            self.progress.out_of_step = True
            self.progress.intended = False  # its end has not gone

    def receive(self, phase: Phase) -> Heard:
        """The next reply.  Raises `Gone`."""
        try:
            response: Response = yield self.listen(phase)
        except Gone:
            if self.hurt is not None:
                raise self.hurt from None
            raise
        return response

    def listen(self, phase: Phase) -> Receive:
        """The step that waits for the next reply; not for long if nothing is to be expected."""
        return _RECEIVE[Phase.QUIT if self.hurt else phase]

    def intend(self) -> Steps:
        """Say that the end of the message goes now.  Raises `Gone` if it cannot."""
        if self.hurt is not None:
            raise self.hurt
        yield Intend()
        self.progress.intended = True

    def check(self, response: Response, *digits: int) -> None:
        """Raise `Gone` unless the reply begins with one of `digits`."""
        if response.digit not in digits:
            raise Gone(f"the relay's reply makes no sense here: {response}")

    def end(self, refused: Refused) -> Refused:
        """A relay answers in order: what it says no to before the message, no later reply can make a yes."""
        self.ended = refused
        self.progress.intended = False
        return refused

    def keep_to_promise(self, verb: Verb, response: Response, flight: int) -> None:
        """Tell a relay that does not do what it offers from one that means the mail.  Raises `Gone`."""
        if response.code not in _NOT_HERE:
            return
        if self.progress.riding:
            raise Gone(f"the relay does not take a mail right behind another; {verb.name} was answered: {response}")
        if self.proven or (flight == 1 and verb is not Verb.BDAT):
            return
        self.progress.broken_promise = True
        if response.code in _NOT_UNDERSTOOD:
            self.progress.intended = False
            raise Gone(f"the relay does not keep what it offers; {verb.name} was answered: {response}")
