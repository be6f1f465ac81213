"""What is common to all parts of the transaction about one mail: bytes out, replies in, and whether to go on.  Pure."""

from __future__ import annotations

from zope.sendmail.smtp.protocol.commands import CommandName
from zope.sendmail.smtp.protocol.progress import Progress
from zope.sendmail.smtp.protocol.replies import Response
from zope.sendmail.smtp.protocol.steps import (
    ConnectionLost,
    OutOfSync,
    Poll,
    Receive,
    Refused,
    Replying,
    Send,
    SendFailed,
    Steps,
    TimeoutName,
)

RECEIVE = {name: Receive(name) for name in TimeoutName}
#: Waits for a reply, not for long, where sending has failed, so that none is to be expected.
LAST_WORDS = RECEIVE[TimeoutName.QUIT]
_POLL = Poll()

#: The relay does not know the command, or not here.
NOT_UNDERSTOOD = frozenset({500, 502, 503})


class Exchange:
    """The commands and replies about one mail.

    :param proven: the relay took a mail over this connection, so what it announced is true
    """

    def __init__(self, progress: Progress, *, proven: bool) -> None:
        self.progress = progress
        self.proven = proven
        #: Every recipient is refused; further replies only keep client and relay in step.
        self.refusal: Refused | None = None
        #: Sending failed; only the relay's last words are of interest.
        self.send_error: SendFailed | None = None

    def send(self, data: bytes, timeout: TimeoutName, *, is_command: bool = False) -> Steps:
        """Send; if that fails, hear what the relay said; it may have refused, and hung up (RFC 5321, 4.2.5)."""
        try:
            yield Send(data, timeout, is_command)
        except SendFailed as failed:
            self.not_sent(failed)
        except OutOfSync:
            self.progress.forget_replies()
            self.progress.out_of_sync = True
            raise

    def not_sent(self, failed: SendFailed) -> None:
        """Note that the relay does not have the end of what was sent."""
        self.send_error = failed
        self.progress.out_of_sync = True
        self.progress.intended = False

    def receive(self, timeout: TimeoutName) -> Replying:
        """Return the next reply.  Raises `ConnectionLost`."""
        try:
            response: Response = yield RECEIVE[timeout] if self.send_error is None else LAST_WORDS
        except ConnectionLost:
            if self.send_error is not None:
                raise self.send_error from None
            raise
        return response

    def check(self, response: Response, *digits: int) -> None:
        """Raise `ConnectionLost` unless the reply begins with one of `digits`.

        Before the message is sent, a reply out of place says that another command's reply may have been taken for a
        recipient's: then none of them counts.
        """
        if response.digit in digits:
            return
        if not self.progress.intended:
            self.progress.forget_replies()
        self.progress.out_of_sync = True
        raise OutOfSync(f"the relay's reply makes no sense here: {response}")

    def check_quiet(self) -> Steps:
        """Raise `ConnectionLost` if the relay said more than it was asked."""
        try:
            response: Response | None = yield _POLL
        except ConnectionLost:  # it has hung up behind its last reply
            self.progress.out_of_sync = True
            return
        if response is not None and response.code != 421:
            self.progress.forget_replies()
            self.progress.out_of_sync = True
            raise OutOfSync(f"the relay said more than it was asked: {response}")

    def end(self, refused: Refused) -> Refused:
        """Note a refusal: a relay answers in order, so no later reply can make it a yes."""
        self.refusal = refused
        self.progress.intended = False
        return refused

    def check_extension(self, command: CommandName, response: Response, *, flight: int) -> None:
        """Tell a relay that does not do what it announced from one that means the mail.  Raises `ConnectionLost`.

        :param response: one of `NOT_UNDERSTOOD`
        """
        if self.progress.sent_ahead:
            raise ConnectionLost(
                f"the relay does not take a mail right behind another; {command.name} was answered: {response}"
            )
        if flight > 1 and not self.proven:
            self.progress.pipelining_failed = True
            self.progress.intended = False
            raise ConnectionLost(
                f"the relay does not keep to PIPELINING, which it announced; {command.name} was answered: {response}"
            )
