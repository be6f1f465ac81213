"""What is said to a relay about an envelope: MAIL and RCPT with the parameters that the relay knows.

Addresses are spelled as the relay can take them; nothing else is done to them.  Pure.  RFC 5321, 4.1.1.2 and 4.1.1.3;
RFC 1870 (SIZE); RFC 6152 (8BITMIME); RFC 6531 (SMTPUTF8); RFC 3461 (DSN).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import NamedTuple

from zope.sendmail.config.settings import Notify
from zope.sendmail.lifecycle.outcome import Answer, Reply
from zope.sendmail.message.address import is_ascii
from zope.sendmail.message.envelope import Envelope

NEEDS_SMTPUTF8 = Reply(
    Answer.REJECTED, "the address is not ASCII, and the relay does not take such (SMTPUTF8)", None, "5.6.7"
)

_AS_IT_LIKES = Notify()
_NOT_IN_A_LINE = re.compile("[\r\n\0]")


class NotSpeakable(Exception):
    """This mail cannot be given to this relay, which was not asked; `code` and `reply` say why."""

    def __init__(self, code: int, reply: Reply) -> None:
        super().__init__(reply.text)
        self.code = code
        self.reply = reply


class Verb(Enum):
    """What a command is about."""

    MAIL = auto()
    RCPT = auto()
    DATA = auto()
    BDAT = auto()
    RSET = auto()


class Command(NamedTuple):
    """One command line; BDAT has its octets in it."""

    verb: Verb
    line: bytes
    recipient: str = ""


@dataclass(frozen=True, slots=True)
class Offers:
    """What a relay said in EHLO that it can do, as far as it matters for a mail."""

    pipelining: bool = False
    chunking: bool = False
    eightbit: bool = False
    smtputf8: bool = False
    dsn: bool = False
    #: None: not offered.  0: no fixed limit (RFC 1870, 4).
    size: int | None = None

    @classmethod
    def of(cls, features: Mapping[str, str]) -> Offers:
        """From keywords in lower case and their parameters."""
        limit = features.get("size")
        return cls(
            pipelining="pipelining" in features,
            chunking="chunking" in features,
            eightbit="8bitmime" in features,
            smtputf8="smtputf8" in features,
            dsn="dsn" in features,
            size=None if limit is None else int(limit) if limit.isdecimal() else 0,
        )

    def one_by_one(self) -> Offers:
        """The same without what needs trust."""
        return replace(self, pipelining=False, chunking=False)


class Speech:
    """The commands for one mail and one relay; `refused` has the recipients that cannot be spelled for it."""

    def __init__(self, envelope: Envelope, offers: Offers, notify: Notify = _AS_IT_LIKES) -> None:
        self._offers = offers
        self._notify = notify if offers.dsn else _AS_IT_LIKES
        as_they_are = is_ascii("".join((envelope.sender, *envelope.recipients)))
        self._utf8 = offers.smtputf8 and not as_they_are
        self._sender: str | None = envelope.sender
        self._recipients: dict[str, str | None] = {each: each for each in envelope.recipients}
        self.refused: dict[str, Reply] = {}
        if not as_they_are and not self._utf8:
            self._sender = _in_ascii(envelope.sender)
            self._recipients = {each: _in_ascii(each) for each in envelope.recipients}
            self.refused = {each: NEEDS_SMTPUTF8 for each, spelling in self._recipients.items() if spelling is None}

    @property
    def tells_size(self) -> bool:
        """Whether MAIL has something to say about the message, so that it has to be measured."""
        return self._offers.size is not None or self._offers.eightbit

    def mail(self, size: int | None, *, is_8bit: bool) -> Command:
        """MAIL for a message of `size` octets, None if that is not known.  Raises `NotSpeakable`."""
        if self._sender is None:
            raise NotSpeakable(553, NEEDS_SMTPUTF8)
        options = ""
        if size is not None and self._offers.size is not None:
            self._check_size(size, self._offers.size)
            options += f" SIZE={size}"
        if is_8bit and self._offers.eightbit:  # without the offer it goes as it is; what else could be done with it
            options += " BODY=8BITMIME"
        if self._utf8:
            options += " SMTPUTF8"
        if self._notify.ret:
            options += f" RET={self._notify.ret}"
        return Command(Verb.MAIL, _line(f"MAIL FROM:<{self._sender}>{options}"))

    def recipients(self) -> list[Command]:
        """One RCPT for each recipient that can be spelled."""
        options = f" NOTIFY={','.join(self._notify.when)}" if self._notify.when else ""
        return [
            Command(Verb.RCPT, _line(f"RCPT TO:<{spelling}>{options}"), recipient)
            for recipient, spelling in self._recipients.items()
            if spelling is not None
        ]

    def _check_size(self, size: int, limit: int) -> None:
        if 0 < limit < size:
            text = f"the message has {size} octets, the relay takes at most {limit}"
            raise NotSpeakable(552, Reply(Answer.REJECTED, text, None, "5.3.4"))


def _in_ascii(address: str) -> str | None:
    """An address for a relay that knows no other; None if there is no such spelling."""
    if is_ascii(address):
        return address
    local, at, domain = address.rpartition("@")
    ascii_domain = to_ascii(domain)
    return f"{local}{at}{ascii_domain}" if is_ascii(local) and ascii_domain else None


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


def _line(text: str) -> bytes:
    """The last gate before the wire: an envelope that nobody checked cannot smuggle in a command."""
    if not text.isprintable() and _NOT_IN_A_LINE.search(text):  # the first says no to more than that, and fast
        raise ValueError(f"a command cannot have a line break in it: {text!r}")
    return text.encode("utf-8") + b"\r\n"
