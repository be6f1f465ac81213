"""MAIL and RCPT for an envelope, with the parameters of the extensions that the relay announces.

Addresses are spelled as the relay can take them; nothing else is done to them.  Pure.  RFC 5321, 4.1.1.2 and 4.1.1.3;
RFC 1870 (SIZE); RFC 6152 (8BITMIME); RFC 6531 (SMTPUTF8); RFC 3461 (DSN).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import NamedTuple

from zope.sendmail.config.settings import Notify
from zope.sendmail.lifecycle.outcome import Answer, Reply
from zope.sendmail.message.address import is_ascii, to_ascii
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.smtp.protocol.body import Body

NEEDS_SMTPUTF8 = Reply(
    Answer.REJECTED, "the address is not ASCII, and the relay does not take such (SMTPUTF8)", None, "5.6.7"
)

_AS_IT_LIKES = Notify()
_NOT_IN_A_LINE = re.compile("[\r\n\0]")


class MailNotSupported(Exception):
    """This mail cannot be given to this relay, which was not asked; `code` and `reply` say why."""

    def __init__(self, code: int, reply: Reply) -> None:
        super().__init__(reply.text)
        self.code = code
        self.reply = reply


class CommandName(Enum):
    """A command about a mail."""

    MAIL = auto()
    RCPT = auto()
    DATA = auto()


class Command(NamedTuple):
    """One command line."""

    name: CommandName
    line: bytes
    recipient: str = ""


@dataclass(frozen=True, slots=True)
class Extensions:
    """The service extensions of a relay that matter for a mail, as it announced them in its reply to EHLO."""

    pipelining: bool = False
    eightbit: bool = False
    smtputf8: bool = False
    dsn: bool = False
    #: None: not announced.  0: no fixed limit (RFC 1870, 4).
    size: int | None = None

    @classmethod
    def of(cls, features: Mapping[str, str], discarded: frozenset[str] = frozenset()) -> Extensions:
        """Return what `features`, keywords in lower case and their parameters, announce.

        :param discarded: keywords that do not count, in upper or lower case
        """
        if discarded:
            ignored = {keyword.lower() for keyword in discarded}
            features = {keyword: value for keyword, value in features.items() if keyword not in ignored}
        limit = features.get("size")
        eightbit = "8bitmime" in features
        return cls(
            pipelining="pipelining" in features,
            eightbit=eightbit,
            smtputf8="smtputf8" in features,
            dsn="dsn" in features,
            size=None if limit is None else int(limit) if limit.isdecimal() else 0,
        )

    def without_pipelining(self) -> Extensions:
        """Return the same for a relay whose PIPELINING is not to be used."""
        return replace(self, pipelining=False)


class EnvelopeCommands:
    """MAIL and RCPT for one mail and one relay.

    `refused` has the recipients that cannot be spelled for the relay, `unasked` those beyond `limit`, which have to
    follow in another mail.  Raises `MailNotSupported` if the sender or the message cannot be given to the relay.

    :param body: the message; None: the relay is not told its size
    """

    def __init__(
        self,
        envelope: Envelope,
        body: Body | None,
        extensions: Extensions,
        notify: Notify = _AS_IT_LIKES,
        limit: int | None = None,
    ) -> None:
        self._extensions = extensions
        self._notify = notify if extensions.dsn else _AS_IT_LIKES
        self.refused: dict[str, Reply] = {}
        sender: str | None = envelope.sender
        spelled: Iterable[tuple[str, str]] = [(each, each) for each in envelope.recipients]
        utf8 = not is_ascii("".join((envelope.sender, *envelope.recipients)))
        if utf8 and not extensions.smtputf8:
            sender, utf8 = to_ascii(envelope.sender), False
            spellings = {each: to_ascii(each) for each in envelope.recipients}
            self.refused = {each: NEEDS_SMTPUTF8 for each, spelling in spellings.items() if spelling is None}
            spelled = [(each, spelling) for each, spelling in spellings.items() if spelling is not None]
        if sender is None:
            raise MailNotSupported(553, NEEDS_SMTPUTF8)
        self.mail = Command(CommandName.MAIL, _line(f"MAIL FROM:<{sender}>{self._mail_options(body, utf8)}"))
        options = f" NOTIFY={','.join(self._notify.when)}" if self._notify.when else ""
        commands = [Command(CommandName.RCPT, _line(f"RCPT TO:<{as_said}>{options}"), who) for who, as_said in spelled]
        self.recipients = commands if limit is None else commands[:limit]
        self.unasked = [] if limit is None else [each.recipient for each in commands[limit:]]

    def _mail_options(self, body: Body | None, utf8: bool) -> str:  # noqa: FBT001 - what the addresses need
        options = ""
        extensions = self._extensions
        if body is not None:
            size, is_8bit = body.measure
            if extensions.size is not None:
                self._check_size(size, extensions.size)
                options += f" SIZE={size}"
            if is_8bit and extensions.eightbit:
                options += " BODY=8BITMIME"
                utf8 = utf8 or (extensions.smtputf8 and body.has_utf8_header)
        if utf8:
            options += " SMTPUTF8"
        if self._notify.ret:
            options += f" RET={self._notify.ret}"
        return options

    def _check_size(self, size: int, limit: int) -> None:
        if 0 < limit < size:
            text = f"the message has {size} octets, the relay takes at most {limit}"
            raise MailNotSupported(552, Reply(Answer.REJECTED, text, None, "5.3.4"))


def _line(text: str) -> bytes:
    """Return a command line.  Raises `ValueError` for a line break, which would smuggle in a command."""
    if not text.isprintable() and _NOT_IN_A_LINE.search(text):  # the first says no to more than that, and fast
        raise ValueError(f"a command cannot have a line break in it: {text!r}")
    return text.encode("utf-8") + b"\r\n"
