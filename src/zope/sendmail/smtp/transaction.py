"""One mail over a connection: MAIL, RCPT, DATA.

What became known stands in a `Progress`, whatever is raised; the errors are smtplib's.  The message is read
in pieces.  RFC 5321, 3.3; RFC 1870 (SIZE); RFC 6152 (8BITMIME); RFC 6531 (SMTPUTF8).
"""

from __future__ import annotations

import smtplib
import unicodedata
from collections.abc import Callable, Iterable
from smtplib import SMTP
from typing import BinaryIO, NoReturn

from zope.sendmail.address import is_ascii
from zope.sendmail.headers import dot_stuffed, wire
from zope.sendmail.outcome import Answer, Reply
from zope.sendmail.settings import Timeouts
from zope.sendmail.smtp.connect import set_timeout
from zope.sendmail.smtp.progress import NotSendable, Progress, charge, pairs

NEEDS_SMTPUTF8 = Reply(
    Answer.REJECTED, "the address is not ASCII, and the relay does not take such (SMTPUTF8)", None, "5.6.7"
)


class Transaction:
    """The three steps of RFC 5321, 3.3, to be done in their order."""

    def __init__(self, connection: SMTP, timeouts: Timeouts, progress: Progress) -> None:
        self._connection = connection
        self._timeouts = timeouts
        self._progress = progress
        self._spelled: dict[str, str] = {}
        self._utf8 = False

    def mail(self, message: BinaryIO | None) -> None:
        """Name the sender, and what the message needs if there is one."""
        sender = self._spell_all()
        options = self._options(message)
        code, text = self._ask(f"MAIL FROM:<{sender}>{options}", self._timeouts.command)
        if code // 100 != 2:
            self._check(code, text, 4, 5)
            raise smtplib.SMTPSenderRefused(code, text, self._progress.envelope.sender)

    def recipients(self) -> None:
        """Name the recipients, each with a reply.  Raises `smtplib.SMTPRecipientsRefused` if none is left."""
        progress = self._progress
        for recipient, spelled in self._spelled.items():
            code, text = self._ask(f"RCPT TO:<{spelled}>", self._timeouts.command)
            self._check(code, text, 2, 4, 5)
            if code == 421:
                raise smtplib.SMTPRecipientsRefused({recipient: (code, text)})
            reply = charge(code, text)
            (progress.accepted if reply.answer is Answer.ACCEPTED else progress.refused)[recipient] = reply
            progress.out_of_step |= code == 503
        if not progress.accepted:
            raise smtplib.SMTPRecipientsRefused(pairs(progress.refused))

    def content(self, message: BinaryIO, intend: Callable[[], None]) -> None:
        """Send the message; `intend` is called before the last piece of it."""
        code, text = self._ask("DATA", self._timeouts.data)
        if code != 354:
            self._check(code, text, 4, 5)
            raise smtplib.SMTPDataError(code, text)
        self._stream(dot_stuffed(wire(message)), intend)
        code, text = self._reply(self._timeouts.final)
        self._check(code, text, 2, 4, 5)
        if code // 100 != 2:
            raise smtplib.SMTPDataError(code, text)
        self._progress.accepted = dict.fromkeys(self._progress.accepted, Reply.of(code, text))

    def reset(self) -> None:
        """Let the relay forget this mail; the connection is as after EHLO."""
        code, text = self._ask("RSET", self._timeouts.command)
        self._check(code, text, 2)

    # addresses and options

    def _spell_all(self) -> str:
        """Find out how the addresses are written for this relay; return the sender."""
        envelope, progress = self._progress.envelope, self._progress
        progress.refused.clear()
        if not all(is_ascii(address) for address in (envelope.sender, *envelope.recipients)):
            self._utf8 = self._connection.has_extn("smtputf8")
        sender = self._spell(envelope.sender)
        if sender is None:
            raise NotSendable(553, NEEDS_SMTPUTF8, envelope.sender)
        for recipient in envelope.recipients:
            spelled = self._spell(recipient)
            if spelled is None:
                progress.refused[recipient] = NEEDS_SMTPUTF8
            else:
                self._spelled[recipient] = spelled
        if not self._spelled:
            raise smtplib.SMTPRecipientsRefused(pairs(progress.refused))
        return sender

    def _spell(self, address: str) -> str | None:
        if self._utf8 or is_ascii(address):
            return address
        local, at, domain = address.rpartition("@")
        ascii_domain = to_ascii(domain)
        return f"{local}{at}{ascii_domain}" if is_ascii(local) and ascii_domain else None

    def _options(self, message: BinaryIO | None) -> str:
        offers = self._connection.esmtp_features
        options = ""
        if message is not None and ("size" in offers or "8bitmime" in offers):
            size, is_8bit = _measure(message)
            if "size" in offers:
                self._check_size(size, offers["size"])
                options += f" SIZE={size}"
            if is_8bit and "8bitmime" in offers:  # without the offer it goes as it is; what else could be done with it
                options += " BODY=8BITMIME"
        return options + " SMTPUTF8" if self._utf8 else options

    def _check_size(self, size: int, limit: str) -> None:
        if limit.isdecimal() and 0 < int(limit) < size:  # RFC 1870, 4: 0 and nothing mean no fixed limit
            text = f"the message has {size} octets, the relay takes at most {limit}"
            raise NotSendable(552, Reply(Answer.REJECTED, text, None, "5.3.4"), self._progress.envelope.sender)

    # the wire

    def _ask(self, command: str, seconds: float) -> tuple[int, bytes]:
        set_timeout(self._connection, seconds)
        self._connection.command_encoding = "utf-8"
        self._connection.putcmd(command)
        return self._reply(seconds)

    def _reply(self, seconds: float) -> tuple[int, bytes]:
        set_timeout(self._connection, seconds)
        try:
            return self._connection.getreply()
        except smtplib.SMTPResponseException as error:  # smtplib says "500" to a line without end; the relay did not
            raise smtplib.SMTPServerDisconnected(f"the relay's reply has a line without end: {error}") from error

    def _check(self, code: int, text: bytes, *digits: int) -> None:
        if code // 100 not in digits:
            raise smtplib.SMTPServerDisconnected(f"the relay's reply makes no sense here: {code} {text[:200]!r}")

    def _stream(self, pieces: Iterable[bytes], intend: Callable[[], None]) -> None:
        set_timeout(self._connection, self._timeouts.block)
        held: list[bytes] = []
        for piece in pieces:
            held.append(piece)
            if len(held) > 2:  # the final dot shall travel with the text before it, not in a packet of its own
                self._push(held.pop(0))
        intend()
        self._progress.intended = True
        self._push(b"".join(held))

    def _push(self, piece: bytes) -> None:
        if self._connection.sock is None:
            raise smtplib.SMTPServerDisconnected("the connection is closed")
        try:
            self._connection.sock.sendall(piece)
        except OSError as error:
            self._last_words(error)

    def _last_words(self, error: OSError) -> NoReturn:
        """A relay may refuse a message before its end and hang up; its reply is worth more than the error."""
        self._progress.out_of_step = True
        try:
            code, text = self._reply(self._timeouts.quit)
        except smtplib.SMTPException:
            code, text = 0, b""
        if code // 100 in (4, 5):
            raise smtplib.SMTPDataError(code, text) from error
        raise smtplib.SMTPServerDisconnected(f"the connection broke within the message: {error}") from error


def to_ascii(domain: str) -> str | None:
    """A domain for a relay that knows no other than ASCII (RFC 5890), or None if that is not certain.

    The standard library's codec is that of 2003 and makes some domains into others ("straße" into "strasse");
    mail must not go there.
    """
    try:
        encoded = domain.encode("idna")
        same = encoded.decode("idna") == unicodedata.normalize("NFC", domain).lower()
    except UnicodeError:
        return None
    return encoded.decode("ascii") if same else None


def _measure(message: BinaryIO) -> tuple[int, bool]:
    """The size on the wire, and whether there is a byte beyond ASCII; the stream is left as it was."""
    start = message.tell()
    size, is_8bit = 0, False
    for piece in wire(message):
        size += len(piece)
        is_8bit = is_8bit or not piece.isascii()
    message.seek(start)
    return size, is_8bit
