"""One mail in the language of a relay: commands out, replies in, answers for each recipient.

A `Dialogue` is a generator of `Step`; who runs it sends the bytes, waits for the replies, and throws in `Gone` where
that fails.  What became known stands in a `Progress`, whatever is raised: `Refused`, `Gone`, `NotSpeakable`.  Pure.
RFC 5321, 3.3; RFC 2920 (PIPELINING); RFC 3030 (CHUNKING); RFC 2033 (LMTP).

The instant from which on nobody can know whether the relay has the message is `Intend`: behind it comes the piece with
the final dot or the last chunk.  It is over as soon as the relay says anything that means no, or that piece cannot be
sent.

A run of mails is one dialogue after the other.  With its final dot each asks who is next (`Follow`), and lets that
one say its envelope in the same breath (`Dialogue.board`): the replies to the message come before those to the
envelope, so each dialogue hears its own, and what the next one says changes nothing for the one before.
"""

from __future__ import annotations

from zope.sendmail.lifecycle.outcome import Answer, Reply
from zope.sendmail.message.headers import dot_stuffed
from zope.sendmail.smtp.protocol.addressing import Addressing
from zope.sendmail.smtp.protocol.body import Body
from zope.sendmail.smtp.protocol.commands import Command, Speech, Verb
from zope.sendmail.smtp.protocol.exchange import Exchange
from zope.sendmail.smtp.protocol.progress import Progress, charge
from zope.sendmail.smtp.protocol.replies import Response
from zope.sendmail.smtp.protocol.steps import Follow, Look, Manner, Phase, Refused, Rider, Spare, Steps

#: Chunks of a large message that may be without a reply: the relay's answers are small, its disk may be slow.
_CHUNKS_AHEAD = 4

_DATA = Command(Verb.DATA, b"DATA\r\n")


class MailTransaction:
    """One mail.

    `proven`: the relay took one over this connection, so what it offers is true.  `answers_each`: it answers to the
    message with one reply for each accepted recipient (RFC 2033, 4.2); not together with chunks.
    """

    def __init__(
        self,
        speech: Speech,
        progress: Progress,
        manner: Manner,
        *,
        proven: bool = False,
        answers_each: bool = False,
    ) -> None:
        self._manner = manner
        self._speech = speech
        self._progress = progress
        self._answers_each = answers_each
        self._talk = Exchange(progress, proven=proven)
        self._asking: Addressing | None = None

    def prepare(self, body: Body) -> Addressing:
        """Make ready what is said first.  Raises `NotSpeakable`, `Refused`, and what reading the message raises."""
        last = None
        if self._manner is Manner.AT_ONCE:
            assert body.whole is not None
            last = _bdat(body.whole, last=True)
        elif self._manner is Manner.PIPELINED:
            last = _DATA
        self._asking = self._ask_about(body, last)
        return self._asking

    def board(self) -> Steps:
        """Say the first flight of the envelope behind the mail before; `deliver` goes on with it.  Raises nothing."""
        assert self._asking is not None, "prepare comes first"
        yield from self._asking.board()

    def prove(self, body: Body | None) -> Steps:
        """Ask about sender and recipients, and let the relay forget it."""
        yield from self._ask_about(body).ask()
        yield from self.reset()

    def deliver(self, body: Body) -> Steps:
        """Send the mail."""
        response = yield from (self._asking or self.prepare(body)).ask()
        if self._manner is Manner.AT_ONCE:
            self._final(response)
        elif self._manner is Manner.CHUNKED:
            yield from self._chunks(body)
        else:
            if self._manner is Manner.ONE_BY_ONE:
                yield from self._talk.push(_DATA.line, Phase.COMMAND, asks=True)
                response = yield from self._talk.receive(Phase.DATA)
            yield from self._data(body, response)

    def reset(self) -> Steps:
        """Let the relay forget this mail; the connection is as after EHLO."""
        yield from self._talk.push(b"RSET\r\n", Phase.COMMAND, asks=True)
        response = yield from self._talk.receive(Phase.COMMAND)
        self._talk.check(response, 2)

    def _ask_about(self, body: Body | None, last: Command | None = None) -> Addressing:
        return Addressing(self._talk, self._speech, self._manner, body, last, answers_each=self._answers_each)

    # the message as a text

    def _data(self, body: Body, response: Response) -> Steps:
        """`response`: the one to DATA."""
        if response.code != 354:
            self._talk.check(response, 4, 5)
            raise Refused(Verb.DATA, response)
        self._progress.riding = False  # it has arrived
        yield from self._text(body)
        if self._answers_each and self._talk.hurt is None:
            yield from self._final_for_each()
        else:
            self._final((yield from self._talk.receive(Phase.FINAL)))

    def _text(self, body: Body) -> Steps:
        pieces = dot_stuffed(body.pieces())
        if body.whole is not None:
            pieces = iter((b"".join(pieces),))
        held: list[bytes] = []
        for piece in pieces:
            held.append(piece)
            if len(held) > 2:  # the final dot shall travel with the text before it, not in a packet of its own
                yield from self._talk.push(held.pop(0), Phase.BLOCK)
            if self._talk.hurt:
                return
        yield from self._end_text(b"".join(held))

    def _end_text(self, piece: bytes) -> Steps:
        """The last piece, and the next mail's envelope behind it."""
        rider: Rider | None = None
        if self._manner is Manner.PIPELINED and self._talk.proven:
            rider = yield Follow()
        yield from self._check_silence()
        yield from self._talk.intend()
        yield from self._talk.push(piece, Phase.BLOCK, more=rider is not None)
        # Two pushes: whether the end of this message has gone shall not depend on what follows.
        if rider is not None and self._talk.hurt is None:
            yield from rider.board()
        if self._talk.hurt is None:
            yield Spare()

    def _check_silence(self) -> Steps:
        """A reply before the end may be a no; a yes is meant for something else, and would be taken for the last."""
        response: Response | None = yield Look()
        if response is not None:
            self._progress.out_of_step = True
            self._talk.check(response, 4, 5)
            raise Refused(Verb.DATA, response)

    # the message in chunks

    def _chunks(self, body: Body) -> Steps:
        """The message in chunks; one is held back, so that the last is known."""
        talk = self._talk
        owed = 0
        pieces = body.pieces()
        held = next(pieces)
        for piece in pieces:
            yield from talk.push(_bdat(held, last=False).line, Phase.BLOCK)
            held, owed = piece, owed + 1
            if talk.hurt:
                break
            if owed > _CHUNKS_AHEAD:
                yield from self._chunk_taken()
                owed -= 1
        if not talk.hurt:
            yield from talk.intend()
            yield from talk.push(_bdat(held, last=True).line, Phase.BLOCK)
            if not talk.hurt:
                yield Spare()
        for _ in range(owed):
            yield from self._chunk_taken()
        response = yield from talk.receive(Phase.FINAL)
        talk.keep_to_promise(Verb.BDAT, response, 1)
        self._final(response)

    def _chunk_taken(self) -> Steps:
        response = yield from self._talk.receive(Phase.BLOCK)
        if response.digit == 2:
            return
        self._progress.out_of_step = True  # the relay will refuse the further chunks as well
        self._talk.check(response, 4, 5)
        self._talk.keep_to_promise(Verb.BDAT, response, 1)
        raise self._talk.end(Refused(Verb.DATA, response))

    # the reply to the message

    def _final(self, response: Response) -> None:
        """From here on the relay has it, or does not."""
        if self._talk.hurt is not None and response.digit not in (4, 5):
            raise self._talk.hurt
        self._talk.check(response, 2, 4, 5)
        if response.digit != 2:
            raise self._talk.end(Refused(Verb.DATA, response))
        reply = Reply.of(response.code, response.text)
        self._progress.accepted = dict.fromkeys(self._progress.accepted, reply)

    def _final_for_each(self) -> Steps:
        """In the order of RCPT (RFC 2033, 4.2); who has a reply keeps it if the next one does not come."""
        progress = self._progress
        for recipient in list(progress.accepted):
            response = yield from self._talk.receive(Phase.FINAL)
            self._talk.check(response, 2, 4, 5)
            reply = charge(response.code, response.text)
            (progress.served if reply.answer is Answer.ACCEPTED else progress.refused)[recipient] = reply
            progress.out_of_step |= response.code == 421
        progress.accepted = progress.served
        if not progress.accepted:
            raise self._talk.end(Refused(Verb.RCPT, None))


def _bdat(octets: bytes, *, last: bool) -> Command:
    """A chunk (RFC 3030, 2)."""
    return Command(Verb.BDAT, b"BDAT %d%s\r\n" % (len(octets), b" LAST" if last else b"") + octets)
