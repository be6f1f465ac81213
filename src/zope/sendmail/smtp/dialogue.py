"""One mail in the language of a relay: commands out, replies in, answers for each recipient.

A `Dialogue` is a generator of `Step`; who runs it sends the bytes, waits for the replies, and throws in `Gone` where
that fails.  What became known stands in a `Progress`, whatever is raised: `Refused`, `Gone`, `NotSpeakable`.  Pure.
RFC 5321, 3.3; RFC 2920 (PIPELINING); RFC 3030 (CHUNKING).

The instant from which on nobody can know whether the relay has the message is `Intend`: behind it comes the piece with
the final dot or the last chunk.  It is over as soon as the relay says anything that means no, or that piece cannot be
sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from zope.sendmail.headers import dot_stuffed
from zope.sendmail.outcome import Answer, Reply
from zope.sendmail.smtp.body import Body
from zope.sendmail.smtp.commands import Command, Speech, Verb
from zope.sendmail.smtp.progress import Progress, charge
from zope.sendmail.smtp.replies import Response
from zope.sendmail.smtp.steps import (
    MAX_FLIGHT,
    Asked,
    Broken,
    Gone,
    Heard,
    Intend,
    Look,
    Manner,
    Phase,
    Receive,
    Refused,
    Send,
    Steps,
)

#: Chunks of a large message that may be without a reply: the relay's answers are small, its disk may be slow.
_CHUNKS_AHEAD = 4

#: The relay does not know the command, or not here.
_NOT_UNDERSTOOD = frozenset({500, 502})


class Dialogue:
    """One mail.  `proven`: the relay took one over this connection, so what it offers is true."""

    def __init__(self, speech: Speech, progress: Progress, manner: Manner, *, proven: bool = False) -> None:
        self._speech = speech
        self._progress = progress
        self._manner = manner
        self._proven = proven
        self._last_recipient = ""
        #: Nobody can be accepted any more; what still comes only keeps us in step.
        self._ended: Refused | None = None
        #: Sending failed; only the relay's last words are of interest.
        self._hurt: Gone | None = None

    def prove(self, body: Body | None) -> Steps:
        """Ask about sender and recipients, and let the relay forget it."""
        yield from self._envelope(body)
        yield from self.reset()

    def deliver(self, body: Body) -> Steps:
        """Send the mail."""
        if self._manner is Manner.AT_ONCE:
            assert body.whole is not None
            response = yield from self._envelope(body, _bdat(body.whole, last=True))
            assert response is not None
            self._final(response)
        elif self._manner is Manner.CHUNKED:
            yield from self._envelope(body)
            yield from self._chunks(body)
        else:
            yield from self._data(body)

    def reset(self) -> Steps:
        """Let the relay forget this mail; the connection is as after EHLO."""
        yield from self._push(b"RSET\r\n", Phase.COMMAND, asks=True)
        response = yield from self._receive(Phase.COMMAND)
        self._check(response, 2)

    # sender and recipients

    def _envelope(self, body: Body | None, last: Command | None = None) -> Asked:
        """Name sender and recipients; the reply to `last`, which goes in the flight of the last recipients.

        Raises `Refused` if nobody was accepted.
        """
        reply: Response | None = None
        for flight in self._flights(body, last):
            if flight[-1].verb is Verb.BDAT:
                yield from self._intend()
            yield from self._push(b"".join([each.line for each in flight]), Phase.COMMAND, asks=True)
            for command in flight:
                reply = yield from self._answer(command, len(flight))
                if self._ended is not None and (reply is None or self._ended.is_leaving):
                    raise self._ended
            if self._ended is not None:
                if last is flight[-1]:
                    yield from self._take_back(last, reply)
                raise self._ended
        return reply

    def _flights(self, body: Body | None, last: Command | None) -> Iterator[list[Command]]:
        size, is_8bit = (None, False) if body is None or not self._speech.tells_size else body.measure
        self._progress.refused.update(self._speech.refused)
        mail, recipients = self._speech.mail(size, is_8bit=is_8bit), self._speech.recipients()
        if not recipients:
            raise Refused(Verb.RCPT, None)
        self._last_recipient = recipients[-1].recipient
        commands = iter([mail, *recipients, *([] if last is None else [last])])
        length = 1 if self._manner is Manner.ONE_BY_ONE else MAX_FLIGHT
        while flight := list(islice(commands, length)):
            yield flight

    def _answer(self, command: Command, flight: int) -> Asked:
        """The reply to a command; None if it did not come and does not matter any more."""
        try:
            response = yield from self._receive(Phase.COMMAND if self._ended else _PHASES[command.verb])
        except Gone:
            self._progress.broken_promise |= not self._proven and flight > 1
            if self._ended is None:
                raise
            self._progress.out_of_step = True
            return None
        if self._ended is None:
            self._keep_to_promise(command, response, flight)
            self._hear(command, response)
        return response

    def _keep_to_promise(self, command: Command, response: Response, flight: int) -> None:
        """Tell a relay that does not do what it offers from one that means the mail."""
        if self._proven or (flight == 1 and command.verb is not Verb.BDAT):
            return
        self._progress.broken_promise |= response.code in _NOT_UNDERSTOOD | {503}
        if response.code in _NOT_UNDERSTOOD:
            self._progress.intended = False
            raise Gone(f"the relay does not keep what it offers; {command.verb.name} was answered: {response}")

    def _hear(self, command: Command, response: Response) -> None:
        if command.verb is Verb.MAIL:
            self._hear_mail(response)
        elif command.verb is Verb.RCPT:
            self._hear_recipient(command.recipient, response)

    def _hear_mail(self, response: Response) -> None:
        if response.digit == 2:
            self._progress.begun = True
            return
        self._check(response, 4, 5)
        self._end(Refused(Verb.MAIL, response))

    def _hear_recipient(self, recipient: str, response: Response) -> None:
        progress = self._progress
        self._check(response, 2, 4, 5)
        if response.code == 421:
            self._end(Refused(Verb.RCPT, response, recipient))
            return
        reply = charge(response.code, response.text)
        (progress.accepted if reply.answer is Answer.ACCEPTED else progress.refused)[recipient] = reply
        progress.out_of_step |= response.code == 503
        if recipient == self._last_recipient and not progress.accepted:
            self._end(Refused(Verb.RCPT, None))

    def _end(self, refused: Refused) -> None:
        """A relay answers in order: what it says no to before the message, no later reply can make a yes."""
        self._ended = refused
        self._progress.intended = False

    def _take_back(self, last: Command, response: Response | None) -> Steps:
        """The message was announced, and nobody gets it."""
        assert response is not None
        if last.verb is Verb.DATA and response.code == 354:
            # The relay waits for a text; the lone dot ends it (RFC 2920, 3.1).  Whatever it says, nobody is served.
            try:
                yield from self._push(b".\r\n", Phase.BLOCK)
                response = yield from self._receive(Phase.DATA)
            except Gone:
                self._progress.out_of_step = True
        elif response.digit not in (4, 5):
            self._progress.out_of_step = True

    # the message

    def _data(self, body: Body) -> Steps:
        data = Command(Verb.DATA, b"DATA\r\n")
        if self._manner is Manner.PIPELINED:
            response = yield from self._envelope(body, data)
        else:
            yield from self._envelope(body)
            yield from self._push(data.line, Phase.COMMAND, asks=True)
            response = yield from self._receive(Phase.DATA)
        assert response is not None
        if response.code != 354:
            self._check(response, 4, 5)
            raise Refused(Verb.DATA, response)
        yield from self._text(body)
        self._final((yield from self._receive(Phase.FINAL)))

    def _text(self, body: Body) -> Steps:
        pieces = dot_stuffed(body.pieces())
        if body.whole is not None:
            pieces = iter((b"".join(pieces),))
        held: list[bytes] = []
        for piece in pieces:
            held.append(piece)
            if len(held) > 2:  # the final dot shall travel with the text before it, not in a packet of its own
                yield from self._push(held.pop(0), Phase.BLOCK)
            if self._hurt:
                return
        yield from self._check_silence()
        yield from self._intend()
        yield from self._push(b"".join(held), Phase.BLOCK)

    def _check_silence(self) -> Steps:
        """A reply before the end may be a no; a yes is meant for something else, and would be taken for the last."""
        response = yield Look()
        if response is not None:
            self._progress.out_of_step = True
            self._check(response, 4, 5)
            raise Refused(Verb.DATA, response)

    def _chunks(self, body: Body) -> Steps:
        """The message in chunks; one is held back, so that the last is known."""
        owed = 0
        pieces = body.pieces()
        held = next(pieces)
        for piece in pieces:
            yield from self._push(_bdat(held, last=False).line, Phase.BLOCK)
            held, owed = piece, owed + 1
            if self._hurt:
                break
            if owed > _CHUNKS_AHEAD:
                yield from self._chunk_taken()
                owed -= 1
        if not self._hurt:
            yield from self._intend()
            yield from self._push(_bdat(held, last=True).line, Phase.BLOCK)
        for _ in range(owed):
            yield from self._chunk_taken()
        response = yield from self._receive(Phase.FINAL)
        self._keep_to_promise(Command(Verb.BDAT, b""), response, 1)
        self._final(response)

    def _chunk_taken(self) -> Steps:
        response = yield from self._receive(Phase.BLOCK)
        if response.digit == 2:
            return
        self._progress.out_of_step = True  # the relay will refuse the further chunks as well
        self._check(response, 4, 5)
        self._keep_to_promise(Command(Verb.BDAT, b""), response, 1)
        self._end(refused := Refused(Verb.DATA, response))
        raise refused

    def _final(self, response: Response) -> None:
        """The reply to the message: from here on the relay has it, or does not."""
        if self._hurt is not None and response.digit not in (4, 5):
            raise self._hurt
        self._check(response, 2, 4, 5)
        if response.digit != 2:
            self._end(refused := Refused(Verb.DATA, response))
            raise refused
        reply = Reply.of(response.code, response.text)
        self._progress.accepted = dict.fromkeys(self._progress.accepted, reply)

    # the wire

    def _intend(self) -> Steps:
        if self._hurt is not None:
            raise self._hurt
        yield Intend()
        self._progress.intended = True

    def _push(self, data: bytes, phase: Phase, *, asks: bool = False) -> Steps:
        """Send; if that fails, hear what the relay has said: it may have refused, and hung up (RFC 5321, 4.2.5)."""
        try:
            yield Send(data, phase, asks)
        except Broken as broken:
            self._hurt = broken
            self._progress.out_of_step = True
            self._progress.intended = False  # its end has not gone

    def _receive(self, phase: Phase) -> Heard:
        try:
            response = yield Receive(Phase.QUIT if self._hurt else phase)
        except Gone:
            if self._hurt is not None:
                raise self._hurt from None
            raise
        assert response is not None
        return response

    def _check(self, response: Response, *digits: int) -> None:
        if response.digit not in digits:
            raise Gone(f"the relay's reply makes no sense here: {response}")


_PHASES = {
    Verb.MAIL: Phase.COMMAND,
    Verb.RCPT: Phase.COMMAND,
    Verb.DATA: Phase.DATA,
    Verb.BDAT: Phase.FINAL,
}


def _bdat(octets: bytes, *, last: bool) -> Command:
    """A chunk (RFC 3030, 2)."""
    return Command(Verb.BDAT, b"BDAT %d%s\r\n" % (len(octets), b" LAST" if last else b"") + octets)
