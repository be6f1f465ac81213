"""One mail in the language of a relay: commands out, replies in, answers for each recipient.

A `MailTransaction` is a generator of steps; its connection sends the bytes, waits for the replies, and throws in
`ConnectionLost` where that fails.  What became known stands in a `Progress`, whatever is raised: `Refused`,
`ConnectionLost`.  Pure.  RFC 5321, 3.3; RFC 2920 (PIPELINING); RFC 2033 (LMTP).

The text goes with DATA, never in chunks (RFC 3030): the 354 between envelope and text is the one reply that cannot be
another command's, see ``docs/explanation/decisions/chunking.rst``.

The instant from which on the outcome is unknown is `Intend`: behind it comes the piece with the final dot.  It is over
as soon as the relay says anything that means no, or that piece cannot be sent.

A run of mails is one transaction after the other.  With its final dot each asks for the next mail (`TakeNext`), whose
envelope goes in the same flight: the replies to the message come before those to the envelope, so each transaction
hears its own, and what the next one hears changes nothing for the one before.
"""

from __future__ import annotations

from collections.abc import Generator

from zope.sendmail.lifecycle.outcome import Answer, Reply
from zope.sendmail.message.headers import dot_stuffed
from zope.sendmail.smtp.protocol.addressing import Addressing
from zope.sendmail.smtp.protocol.body import Body
from zope.sendmail.smtp.protocol.commands import CommandName, EnvelopeCommands
from zope.sendmail.smtp.protocol.exchange import RECEIVE, Exchange
from zope.sendmail.smtp.protocol.progress import Progress, reply_about_mail
from zope.sendmail.smtp.protocol.replies import Response
from zope.sendmail.smtp.protocol.steps import (
    Intend,
    OutOfSync,
    Overlapping,
    Poll,
    ReadAhead,
    Refused,
    Send,
    SendFailed,
    Step,
    StepAnswer,
    Steps,
    TakeNext,
    TimeoutName,
)

_TAKE_NEXT, _READ_AHEAD, _POLL, _INTEND = TakeNext(), ReadAhead(), Poll(), Intend()


class MailTransaction:
    """One mail.  Raises `Refused` if there is no recipient to ask about.

    :param body: the message; None: it is only asked about
    :param pipelined: commands go in flights, and the next mail's envelope with the end of this one
    :param proven: the relay took a mail over this connection, so what it announced is true
    :param overlapped: over another one it took an envelope with the end of a mail, so this mail need not prove it
    :param answers_each: the relay answers to the message with one reply for each accepted recipient (RFC 2033, 4.2)
    :param taken_before: so many recipients of one mail the relay has taken before
    """

    def __init__(
        self,
        commands: EnvelopeCommands,
        progress: Progress,
        body: Body | None,
        *,
        pipelined: bool,
        proven: bool,
        answers_each: bool,
        taken_before: int,
        overlapped: bool = False,
    ) -> None:
        self._progress = progress
        self._body = body
        self._takes_next = pipelined and (proven or overlapped)
        self._answers_each = answers_each
        self._exchange = Exchange(progress, proven=proven)
        self.addressing = Addressing(
            self._exchange,
            commands,
            pipelined=pipelined,
            asks_for_data=body is not None,
            answers_each=answers_each,
            taken_before=taken_before,
        )

    def deliver(self) -> Steps:
        """Send the mail."""
        assert self._body is not None, "it is not only asked about"
        yield from self.addressing.ask()
        self._progress.sent_ahead, self._progress.text_wanted = False, True
        whole = self._body.whole
        if whole is not None:
            last = b"".join(dot_stuffed((whole,)))
        else:
            last = yield from self._pieces(self._body)
        if self._exchange.send_error is None:  # pragma: no branch - coverage loses this frame when `send` has failed
            yield from self._end_text(last)
        yield from self._hear_end()

    def hear_end(self, error: SendFailed | None) -> Steps:
        """Hear the reply to a message that has gone already.

        :param error: what kept its end from being sent
        """
        if error is not None:
            self._exchange.not_sent(error)
        yield from self._hear_end()

    def _hear_end(self) -> Steps:
        if self._answers_each and self._exchange.send_error is None:
            yield from self._final_for_each()
        else:
            self._final((yield from self._exchange.receive(TimeoutName.FINAL)))

    def verify(self) -> Steps:
        """Ask about sender and recipients only."""
        yield from self.addressing.ask()

    # the message

    def _pieces(self, body: Body) -> Generator[Step, StepAnswer, bytes]:
        """Send the message in pieces, but for the last, which is returned."""
        held: list[bytes] = []
        for piece in dot_stuffed(body.pieces()):
            held.append(piece)
            if len(held) > 2:  # the final dot shall travel with the text before it, not in a packet of its own
                yield from self._exchange.send(held.pop(0), TimeoutName.BLOCK)
            if self._exchange.send_error is not None:
                return b""  # pragma: no cover - likewise; `ALargeMessageBreaksOff` is the test
        return b"".join(held)

    def _end_text(self, piece: bytes) -> Steps:
        """Send the last piece, and the next mail's envelope behind it."""
        exchange = self._exchange
        following: Overlapping | None = None
        if self._takes_next:
            following = yield _TAKE_NEXT
        unasked: Response | None = yield _POLL
        if unasked is not None:
            self._hear_before_end(unasked)
        yield _INTEND
        self._progress.intended = True
        try:
            yield Send(piece if following is None else piece + following.first_flight(), TimeoutName.BLOCK)
        except SendFailed as failed:
            if failed.sent < len(piece):
                exchange.not_sent(failed)
            if following is not None:
                following.not_sent(failed)
        if exchange.send_error is None:
            yield _READ_AHEAD

    def _hear_before_end(self, response: Response) -> None:
        """Take a reply before the end, which may be a no; a yes is meant for something else."""
        self._progress.out_of_sync = True
        self._exchange.check(response, 4, 5)
        raise Refused(CommandName.DATA, response)

    # the reply to the message

    def _final(self, response: Response) -> None:
        """Take the reply to the message: the relay has it, or does not."""
        exchange = self._exchange
        if exchange.send_error is not None and response.digit not in (4, 5):
            raise exchange.send_error
        if response.code >= 300:
            exchange.check(response, 4, 5)
            raise exchange.end(Refused(CommandName.DATA, response))
        reply = Reply.of(response.code, response.text)
        self._progress.accepted = dict.fromkeys(self._progress.accepted, reply)

    def _final_for_each(self) -> Steps:
        """Take the replies in the order of RCPT (RFC 2033, 4.2); each counts if the next does not come."""
        progress = self._progress
        for recipient in list(progress.accepted):
            response = yield from self._exchange.receive(TimeoutName.FINAL)
            self._exchange.check(response, 2, 4, 5)
            reply = reply_about_mail(response.code, response.text)
            (progress.served if reply.answer is Answer.ACCEPTED else progress.refused)[recipient] = reply
            progress.out_of_sync |= response.code == 421
        progress.accepted = progress.served
        if not progress.accepted:
            raise self._exchange.end(Refused(CommandName.RCPT, None))


def reset() -> Steps:
    """Let the relay forget a mail; the connection is as after EHLO."""
    yield Send(b"RSET\r\n", TimeoutName.COMMAND, is_command=True)
    response: Response = yield RECEIVE[TimeoutName.COMMAND]
    if response.digit != 2:
        raise OutOfSync(f"the relay's reply to RSET is: {response}")
