"""The first half of the dialogue about one mail: sender and recipients.

The commands go in flights; a flight may have been said before it is this mail's turn, behind the text of the mail
before (RFC 2920, 3.1), and is then only listened for.  Pure.  RFC 5321, 3.3.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from zope.sendmail.outcome import Answer
from zope.sendmail.smtp.body import Body
from zope.sendmail.smtp.commands import Command, Speech, Verb
from zope.sendmail.smtp.progress import charge
from zope.sendmail.smtp.replies import Response
from zope.sendmail.smtp.steps import MAX_FLIGHT, Asked, Gone, Manner, Phase, Refused, Steps
from zope.sendmail.smtp.talk import Talk

_PHASES = {
    Verb.MAIL: Phase.COMMAND,
    Verb.RCPT: Phase.COMMAND,
    Verb.DATA: Phase.DATA,
    Verb.BDAT: Phase.FINAL,
}


class Asking:
    """Whether the relay takes a mail from this sender for these recipients.

    `last` goes in the flight of the last recipients.  `answers_each`: after the message, with one reply for each
    accepted recipient (LMTP).  Raises `NotSpeakable`, `Refused` if there is nobody to ask about, and what reading the
    message raises.
    """

    def __init__(
        self, talk: Talk, speech: Speech, manner: Manner, body: Body | None, last: Command | None, *, answers_each: bool
    ) -> None:
        self._talk = talk
        self._progress = talk.progress
        self._last = last
        self._answers_each = answers_each
        size, is_8bit = (None, False) if body is None or not speech.tells_size else body.measure
        self._progress.refused.update(speech.refused)
        mail, recipients = speech.mail(size, is_8bit=is_8bit), speech.recipients()
        if not recipients:
            raise Refused(Verb.RCPT, None)
        self._last_recipient = recipients[-1].recipient
        commands = [mail, *recipients, *([] if last is None else [last])]
        self._flights = _flights(commands, 1 if manner is Manner.ONE_BY_ONE else MAX_FLIGHT)
        self._said: list[Command] = []

    def board(self) -> Steps:
        """Say the first flight, before the reply to the mail before.  Raises nothing: its own replies tell."""
        self._said = next(self._flights)
        self._progress.riding = True
        try:
            yield from self._say(self._said)
        except Gone as gone:
            self._talk.hurt = gone

    def ask(self) -> Asked:
        """Say what has not been said; the reply to `last`, or None.  Raises `Refused` if nobody was accepted."""
        reply: Response | None = None
        if self._said:
            reply = yield from self._listen(self._said)
        for flight in self._flights:
            if flight[-1].verb is Verb.BDAT:
                yield from self._talk.intend()
            yield from self._say(flight)
            reply = yield from self._listen(flight)
        return reply

    def _say(self, flight: list[Command]) -> Steps:
        yield from self._talk.push(b"".join([each.line for each in flight]), Phase.COMMAND, asks=True)

    def _listen(self, flight: list[Command]) -> Asked:
        reply: Response | None = None
        talk = self._talk
        for command in flight:
            reply = yield from self._answer(command, len(flight))
            if talk.ended is not None and (reply is None or talk.ended.is_leaving):
                raise talk.ended
        if talk.ended is not None:
            if self._last is flight[-1]:
                yield from self._take_back(self._last, reply)
            raise talk.ended
        return reply

    def _answer(self, command: Command, flight: int) -> Asked:
        """The reply to a command; None if it did not come and does not matter any more."""
        talk = self._talk
        try:
            response = yield from talk.receive(Phase.COMMAND if talk.ended else _PHASES[command.verb])
        except Gone:
            self._progress.broken_promise |= not talk.proven and flight > 1
            if talk.ended is None:
                raise
            self._progress.out_of_step = True
            return None
        if talk.ended is None:
            talk.keep_to_promise(command.verb, response, flight)
            self._hear(command, response)
        return response

    def _hear(self, command: Command, response: Response) -> None:
        if command.verb is Verb.MAIL:
            self._hear_mail(response)
        elif command.verb is Verb.RCPT:
            self._hear_recipient(command.recipient, response)

    def _hear_mail(self, response: Response) -> None:
        if response.digit == 2:
            self._progress.begun = True
            return
        self._talk.check(response, 4, 5)
        self._talk.end(Refused(Verb.MAIL, response))

    def _hear_recipient(self, recipient: str, response: Response) -> None:
        progress = self._progress
        self._talk.check(response, 2, 4, 5)
        if response.code == 421:
            self._talk.end(Refused(Verb.RCPT, response, recipient))
            return
        reply = charge(response.code, response.text)
        (progress.accepted if reply.answer is Answer.ACCEPTED else progress.refused)[recipient] = reply
        progress.out_of_step |= response.code == 503
        if recipient == self._last_recipient and not progress.accepted:
            self._talk.end(Refused(Verb.RCPT, None))

    def _take_back(self, last: Command, response: Response | None) -> Steps:
        """The message was announced, and nobody gets it."""
        assert response is not None
        if last.verb is Verb.DATA and response.code == 354 and not self._answers_each:
            # The relay waits for a text; the lone dot ends it (RFC 2920, 3.1).  Whatever it says, nobody is served.
            try:
                yield from self._talk.push(b".\r\n", Phase.BLOCK)
                yield from self._talk.receive(Phase.DATA)
            except Gone:
                self._progress.out_of_step = True
        elif response.digit not in (4, 5):
            self._progress.out_of_step = True


def _flights(commands: list[Command], length: int) -> Iterator[list[Command]]:
    rest = iter(commands)
    while flight := list(islice(rest, length)):
        yield flight
