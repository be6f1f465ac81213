"""An ordinary mail, whose way to a relay is straight: ASCII, small, few plain recipients, and yes to everything.

What it says is made at once, without a `MailTransaction`; only *yes* exists twice, here as one expression for all
replies to an envelope.  Whatever else a relay says is left to the transaction, which goes on as for a flight that has
been sent already.  A test compares both ways on every dialogue.
"""

from __future__ import annotations

import functools
import re
from io import BytesIO
from typing import BinaryIO

from zope.sendmail.config.settings import RelaySettings
from zope.sendmail.interfaces import IJob
from zope.sendmail.lifecycle.outcome import Answer, Reply
from zope.sendmail.message.headers import without_bcc
from zope.sendmail.smtp.channel import StraightChannel
from zope.sendmail.smtp.onemail import Attempt
from zope.sendmail.smtp.protocol.body import WINDOW, Body
from zope.sendmail.smtp.protocol.commands import Extensions
from zope.sendmail.smtp.protocol.progress import Progress, reply_about_recipient
from zope.sendmail.smtp.protocol.replies import ReplyReader
from zope.sendmail.smtp.protocol.steps import SendFailed, Steps
from zope.sendmail.smtp.protocol.transaction import MailTransaction

#: Recipients of a mail that is ordinary.
_RECIPIENTS = 20

_YES, _TEXT_WANTED = rb"250 [!-~][ -~]{0,510}\r\n", rb"354 [!-~][ -~]{0,510}\r\n"

#: The relay has the message; with the words apart, as `Reply.of` has them.
_TAKEN = re.compile(rb"250 (?:(2\.\d{1,3}\.\d{1,3}) )?([!-~](?:[ -~]{0,509}[!-~])?)\r\n")


@functools.cache
def _yes_to_envelope(recipients: int) -> re.Pattern[bytes]:
    """Return what matches the replies to MAIL, so many times RCPT, and DATA, if the relay goes along with all."""
    return re.compile(b"(?:%b){%d}%b" % (_YES, recipients + 1, _TEXT_WANTED))


class OrdinaryAttempt(Attempt):
    """An attempt at an ordinary mail.  What an `Attempt` has is made when it is asked for.

    :param job: a mail whose text has been read, and is ASCII
    """

    def __init__(self, job: IJob, text: bytes) -> None:
        self.job = job
        self.intend = job.intend
        self._text = text
        #: What is sent: MAIL, RCPT and DATA; and the message with its final dot.
        self.flight = self.piece = b""
        #: Whether the flight went with the end of the mail before.
        self.is_ahead = False
        #: What was answered to the flight; empty as long as not everything was yes.
        self.heard = b""
        #: Whether the message has gone, its final dot too; and what kept its end from being sent.
        self.is_gone = False
        self.send_error: SendFailed | None = None

    @functools.cached_property
    def progress(self) -> Progress:  # type: ignore[override]  # made when something is unusual
        """How far it came."""
        return Progress(self.job.envelope, sent_ahead=self.is_ahead)

    @functools.cached_property
    def message(self) -> BinaryIO:  # type: ignore[override]  # likewise
        """The message."""
        return BytesIO(self._text)

    @functools.cached_property
    def body(self) -> Body:  # type: ignore[override]  # likewise
        """What is made of it."""
        return Body(self.message)

    # the mail of which the flight goes with the end of the one before; see `Overlapping`

    def first_flight(self) -> bytes:
        """See `Overlapping`."""
        self.is_ahead = True
        return self.flight

    def not_sent(self, error: SendFailed) -> None:
        """See `Overlapping`."""
        self.send_error = error

    # what is sent

    def write(self, extensions: Extensions) -> bool:
        """Make what is sent; return False if the mail is not that ordinary."""
        envelope, text = self.job.envelope, self._text
        recipients = envelope.recipients
        addresses = envelope.sender + "".join(recipients)
        if not (addresses.isascii() and addresses.isprintable()) or len(recipients) > _RECIPIENTS:
            return False
        head = text.partition(b"\n\n")[0]
        if b"bcc" in head.lower() and without_bcc(head) != head:  # most often it is base64 that has these letters
            return False
        if b"\r" in text:
            text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        has_dots = text.rfind(b"\n.") >= 0  # half the time of a search from the front, which is a sixth of all this
        text = text.replace(b"\n", b"\r\n")
        if not text.endswith(b"\n"):
            text += b"\r\n"
        size, limit = len(text), extensions.size
        if size > WINDOW or (limit and size > limit):
            return False
        self.piece = (text.replace(b"\n.", b"\n..") if has_dots else text) + b".\r\n"
        if text.startswith(b"."):
            self.piece = b"." + self.piece
        option = "" if limit is None else f" SIZE={size}"
        to = ">\r\nRCPT TO:<".join(recipients)
        self.flight = f"MAIL FROM:<{envelope.sender}>{option}\r\nRCPT TO:<{to}>\r\nDATA\r\n".encode("ascii")
        return True

    # leaving the straight way

    def resume(self, transaction: MailTransaction) -> Steps:
        """Let a transaction go on where this attempt is."""
        error, self.send_error = self.send_error, None
        transaction.addressing.first_flight()
        if not self.is_gone:
            if error is not None:
                transaction.addressing.not_sent(error)
            return transaction.deliver()
        self.is_gone = False
        progress, replies = self.progress, ReplyReader()
        replies.feed(self.heard)
        replies.next()
        for recipient in self.job.envelope.recipients:
            response = replies.next()
            assert response is not None, "it was matched"
            progress.accepted[recipient] = reply_about_recipient(*response)
        progress.begun = progress.text_wanted = progress.intended = True
        progress.sent_ahead = False
        return transaction.hear_end(error)


class StraightWay:
    """The straight way over one connection that has taken a mail before."""

    def __init__(self, channel: StraightChannel, extensions: Extensions, settings: RelaySettings) -> None:
        self._channel = channel
        self._extensions = extensions
        self._block = settings.timeouts.block

    @property
    def descriptor(self) -> int:
        """The file descriptor of the connection, which can be read when the relay has said something."""
        return self._channel.descriptor

    def takes(self, attempt: OrdinaryAttempt) -> bool:
        """Return whether a mail can go this way."""
        return attempt.write(self._extensions)

    def hear_flight(self, attempt: OrdinaryAttempt, *, more: bool = False) -> bool | None:
        """Hear the replies to a flight that has gone; return whether they are all yes, None if some are not here yet.

        If they are not, they are the channel's again.

        :param more: whether the relay is listened to for a moment; else only what was received before is heard.
        """
        channel, count = self._channel, len(attempt.job.envelope.recipients)
        heard = channel.take_heard()
        if _yes_to_envelope(count).fullmatch(heard) is not None:
            attempt.heard = heard
            return True
        is_whole = heard.count(b"\n") >= count + 2
        said = b"" if is_whole or not more else channel.hear_more()
        channel.put_back(heard + said)
        if said:
            return self.hear_flight(attempt)
        return False if is_whole or more else None

    def may_end(self, attempt: OrdinaryAttempt) -> bool:
        """Return whether nothing speaks against the end of the message: the relay is quiet, and the lease is ours."""
        if self._channel.is_quiet():
            try:
                attempt.intend()
            except Exception:  # noqa: BLE001, S110 - the transaction asks again, and raises it where it belongs
                pass
            else:
                return True
        self._channel.put_back(attempt.heard)
        attempt.heard = b""
        return False

    def send(self, attempt: OrdinaryAttempt, following: bytes) -> bool:
        """Send the message, and what follows it; return whether all of it has gone."""
        attempt.is_gone = True
        try:
            self._channel.send_at_once(attempt.piece + following, self._block)
        except SendFailed as failed:
            attempt.send_error = failed
            return False
        return True

    def hear_end(self) -> Reply | None:
        """Hear the yes to the message; None: the relay has not said that, or not yet."""
        channel = self._channel
        heard = channel.hear_more()
        taken = _TAKEN.match(heard)
        if taken is None:
            channel.put_back(heard)
            return None
        if taken.end() < len(heard):
            channel.put_back(heard[taken.end() :])
        enhanced, text = taken.groups()
        if enhanced is None:
            return Reply.of(250, text)
        return Reply(Answer.ACCEPTED, text.decode("ascii"), 250, enhanced.decode("ascii"))
