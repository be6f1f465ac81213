"""The first half of the transaction about one mail: sender and recipients.

The commands go in flights.  The first flight may have gone before it is this mail's turn, together with the end of the
mail before (RFC 2920, 3.1); then only its replies are awaited.  Pure.  RFC 5321, 3.3.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from zope.sendmail.smtp.protocol.commands import Command, CommandName, EnvelopeCommands
from zope.sendmail.smtp.protocol.exchange import LAST_WORDS, NOT_UNDERSTOOD, RECEIVE, Exchange
from zope.sendmail.smtp.protocol.progress import reply_about_recipient
from zope.sendmail.smtp.protocol.relaylimits import refuses_client
from zope.sendmail.smtp.protocol.replies import Response
from zope.sendmail.smtp.protocol.steps import (
    MAX_FLIGHT,
    ConnectionLost,
    Refused,
    SendFailed,
    Steps,
    TimeoutName,
)

#: So many recipients every relay takes (RFC 5321, 4.5.3.1.8).  Beyond them the flights are short: Postfix hangs up
#: after 20 refused ones (``smtpd_hard_error_limit``), and is slow from the tenth on.
SAFE_RECIPIENTS = 100
_SHORT_FLIGHT = 10

_REPLY, _TEXT_WANTED = RECEIVE[TimeoutName.COMMAND], RECEIVE[TimeoutName.DATA]
_DATA = Command(CommandName.DATA, b"DATA\r\n")


class Addressing:
    """Whether the relay takes a mail from this sender for these recipients.

    Raises `Refused` if there is no recipient to ask about.

    :param pipelined: the commands go in flights, and DATA with the last of them
    :param answers_each: after the message, with one reply for each accepted recipient (LMTP)
    :param taken_before: so many recipients of one mail the relay has taken before
    """

    def __init__(
        self,
        exchange: Exchange,
        commands: EnvelopeCommands,
        *,
        pipelined: bool,
        asks_for_data: bool,
        answers_each: bool,
        taken_before: int,
    ) -> None:
        self._exchange = exchange
        self._progress = exchange.progress
        self._commands = commands
        self._answers_each = answers_each
        if not commands.recipients:
            self._progress.refused.update(commands.refused)
            raise Refused(CommandName.RCPT, None)
        self._last_recipient = commands.recipients[-1].recipient
        all_commands = [commands.mail, *commands.recipients, *((_DATA,) if asks_for_data else ())]
        if not pipelined:
            self._flights = iter([[command] for command in all_commands])
        else:
            self._flights = _flights(all_commands, max(SAFE_RECIPIENTS, taken_before))
        self._sent: list[Command] | None = None
        #: Whether the relay said yes to a recipient, whatever it said before.
        self._has_recipients = False

    def first_flight(self) -> bytes:
        """Return the first flight, which goes with the end of the mail before."""
        self._sent = next(self._flights)
        self._progress.sent_ahead = True
        return b"".join([each.line for each in self._sent])

    def not_sent(self, failed: SendFailed) -> None:
        """Note that the first flight has not gone, or not all of it."""
        self._exchange.send_error = failed

    def ask(self) -> Steps:
        """Send what has not been sent, and hear the replies.  Raises `Refused` if no recipient was accepted."""
        self._progress.refused.update(self._commands.refused)
        self._progress.unasked = list(self._commands.unasked)
        if self._sent is not None:
            yield from self._listen(self._sent)
        for planned in self._flights:
            flight = self._stopped(planned) if self._progress.has_too_many else planned
            if not flight:
                continue
            yield from self._exchange.send(
                b"".join([each.line for each in flight]), TimeoutName.COMMAND, is_command=True
            )
            yield from self._listen(flight)

    def _stopped(self, flight: list[Command]) -> list[Command]:
        """Return what is left of a flight when the relay takes no more recipients."""
        self._progress.unasked += [each.recipient for each in flight if each.recipient]
        return [each for each in flight if not each.recipient]

    def _listen(self, flight: list[Command]) -> Steps:
        exchange = self._exchange
        reply: Response
        for command in flight:
            waits_for_text = command is _DATA and exchange.refusal is None
            try:
                reply = yield (
                    LAST_WORDS if exchange.send_error is not None else _TEXT_WANTED if waits_for_text else _REPLY
                )
            except ConnectionLost as lost:
                raise self._lost(lost, len(flight)) from lost.__cause__
            self._has_recipients |= command.name is CommandName.RCPT and reply.code < 300
            if exchange.refusal is None:
                self._hear(command, reply, len(flight))
            if exchange.refusal is not None and exchange.refusal.is_leaving:
                raise exchange.refusal
        if exchange.refusal is not None:
            yield from self._end_flight(flight, reply)
            raise exchange.refusal

    def _end_flight(self, flight: list[Command], last_reply: Response) -> Steps:
        """Make sure that a refused flight has come to its end."""
        if flight[-1] is _DATA:
            yield from self._take_back_data(last_reply)
        if len(flight) > 1:  # if one reply too many came before, all of these belong to other commands
            yield from self._exchange.check_quiet()

    def _lost(self, lost: ConnectionLost, flight: int) -> ConnectionLost | Refused:
        """Return how it ends when a reply did not come: that may not matter any more."""
        self._progress.pipelining_failed |= not self._exchange.proven and flight > 1
        if self._exchange.refusal is None:
            return self._exchange.send_error or lost
        self._progress.out_of_sync = True
        return self._exchange.refusal

    def _hear(self, command: Command, response: Response, flight: int) -> None:
        if response.code in NOT_UNDERSTOOD:
            self._exchange.check_extension(command.name, response, flight=flight)
        if command.name is CommandName.RCPT:
            self._hear_recipient(command.recipient, response)
        elif command.name is CommandName.MAIL:
            self._hear_mail(response)
        elif response.code != 354:  # it is about the message; a yes without a question for the text is out of place
            self._exchange.check(response, 4, 5)
            self._exchange.end(Refused(CommandName.DATA, response))

    def _hear_mail(self, response: Response) -> None:
        if response.code < 300:
            self._progress.begun = True
            return
        self._exchange.check(response, 4, 5)
        self._exchange.end(Refused(CommandName.MAIL, response))

    def _hear_recipient(self, recipient: str, response: Response) -> None:
        progress = self._progress
        if response.code < 300:
            progress.accepted[recipient] = reply_about_recipient(*response)
            return
        self._exchange.check(response, 4, 5)
        reply = reply_about_recipient(*response)
        if response.code == 421 or refuses_client(reply):
            self._exchange.end(Refused(CommandName.RCPT, response, recipient))
            return
        progress.refused[recipient] = replace(reply, to_rcpt=True)
        progress.out_of_sync |= response.code == 503
        progress.has_too_many |= bool(progress.accepted) and reply.is_one_too_many
        if recipient == self._last_recipient and not progress.accepted:
            self._exchange.end(Refused(CommandName.RCPT, None))

    def _take_back_data(self, response: Response) -> Steps:
        """End a message that was announced, and that no recipient gets."""
        if response.code == 354 and not self._answers_each and not self._has_recipients:
            # The relay waits for a text; the lone dot ends it (RFC 2920, 3.1).  It must not have a recipient, which
            # would get an empty mail.
            try:
                yield from self._exchange.send(b".\r\n", TimeoutName.BLOCK)
                yield from self._exchange.receive(TimeoutName.DATA)
            except ConnectionLost:
                self._progress.out_of_sync = True
        elif response.digit not in (4, 5):
            self._progress.out_of_sync = True


def _flights(commands: list[Command], trusted: int) -> Iterator[list[Command]]:
    """Return the commands in flights: long ones as far as the relay takes so many recipients, short ones beyond."""
    begin = 0
    while begin < len(commands):
        length = MAX_FLIGHT if begin + MAX_FLIGHT <= trusted + 1 else _SHORT_FLIGHT
        yield commands[begin : begin + length]
        begin += length
