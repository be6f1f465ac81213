"""The first half of the dialogue about one mail: sender and recipients.

The commands go in flights; a flight may have been said before it is this mail's turn, behind the text of the mail
before (RFC 2920, 3.1), and is then only listened for.  Pure.  RFC 5321, 3.3.
"""

from __future__ import annotations

from zope.sendmail.lifecycle.outcome import Answer
from zope.sendmail.smtp.protocol.body import Body
from zope.sendmail.smtp.protocol.commands import Command, Speech, Verb
from zope.sendmail.smtp.protocol.exchange import Exchange
from zope.sendmail.smtp.protocol.progress import charge
from zope.sendmail.smtp.protocol.replies import Response
from zope.sendmail.smtp.protocol.steps import MAX_FLIGHT, Gone, Heard, Manner, Phase, Refused, Spare, Steps

#: How long the reply to what goes behind the recipients may take.
_PHASES = {Verb.DATA: Phase.DATA, Verb.BDAT: Phase.FINAL}


class Addressing:
    """Whether the relay takes a mail from this sender for these recipients.

    `last` goes in the flight of the last recipients.  `answers_each`: after the message, with one reply for each
    accepted recipient (LMTP).  Raises `NotSpeakable`, `Refused` if there is nobody to ask about, and what reading the
    message raises.
    """

    def __init__(
        self,
        talk: Exchange,
        speech: Speech,
        manner: Manner,
        body: Body | None,
        last: Command | None,
        *,
        answers_each: bool,
    ) -> None:
        self._talk = talk
        self._progress = talk.progress
        self._last = last
        self._answers_each = answers_each
        self._unspeakable = speech.refused
        self._progress.refused.update(speech.refused)
        size, is_8bit = (None, False) if body is None or not speech.tells_size else body.measure
        commands = [speech.mail(size, is_8bit=is_8bit), *speech.recipients()]
        self._last_recipient = commands[-1].recipient
        if not self._last_recipient:
            raise Refused(Verb.RCPT, None)
        if last is not None:
            commands.append(last)
        length = 1 if manner is Manner.ONE_BY_ONE else MAX_FLIGHT
        self._flights = iter([commands[begin : begin + length] for begin in range(0, len(commands), length)])
        self._said: list[Command] = []

    def board(self) -> Steps:
        """Say the first flight, before the reply to the mail before.  Raises nothing: its own replies tell."""
        self._said = next(self._flights)
        self._progress.riding = True
        try:
            yield from self._say(self._said)
        except Gone as gone:
            self._talk.hurt = gone

    def ask(self) -> Heard:
        """Say what has not been said; the last reply.  Raises `Refused` if nobody was accepted."""
        self._progress.refused.update(self._unspeakable)
        if self._said:
            reply = yield from self._listen(self._said)
        for flight in self._flights:
            ends = flight[-1].verb is Verb.BDAT
            if ends:
                yield from self._talk.intend()
            yield from self._say(flight)
            if ends and self._talk.hurt is None:
                yield Spare()
            reply = yield from self._listen(flight)
        return reply

    def _say(self, flight: list[Command]) -> Steps:
        return self._talk.push(b"".join([each.line for each in flight]), Phase.COMMAND, asks=True)

    def _listen(self, flight: list[Command]) -> Heard:
        talk = self._talk
        reply: Response
        for command in flight:
            is_last = command is self._last and talk.ended is None
            try:
                reply = yield talk.listen(_PHASES[command.verb] if is_last else Phase.COMMAND)
            except Gone as gone:
                raise self._lost(gone, len(flight)) from gone.__cause__
            if talk.ended is None:
                self._hear(command, reply, len(flight))
            if talk.ended is not None and talk.ended.is_leaving:
                raise talk.ended
        if talk.ended is not None:
            if self._last is flight[-1]:
                yield from self._take_back(self._last, reply)
            raise talk.ended
        return reply

    def _lost(self, gone: Gone, flight: int) -> Gone | Refused:
        """How it ends when a reply did not come: that may not matter any more."""
        self._progress.broken_promise |= not self._talk.proven and flight > 1
        if self._talk.ended is None:
            return self._talk.hurt or gone
        self._progress.out_of_step = True
        return self._talk.ended

    def _hear(self, command: Command, response: Response, flight: int) -> None:
        self._talk.keep_to_promise(command.verb, response, flight)
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

    def _take_back(self, last: Command, response: Response) -> Steps:
        """The message was announced, and nobody gets it."""
        if last.verb is Verb.DATA and response.code == 354 and not self._answers_each:
            # The relay waits for a text; the lone dot ends it (RFC 2920, 3.1).  Whatever it says, nobody is served.
            try:
                yield from self._talk.push(b".\r\n", Phase.BLOCK)
                yield from self._talk.receive(Phase.DATA)
            except Gone:
                self._progress.out_of_step = True
        elif response.digit not in (4, 5):
            self._progress.out_of_step = True
