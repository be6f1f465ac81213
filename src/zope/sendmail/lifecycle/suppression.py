"""The addresses that get no mail, and why: the entries of a suppression list.  Pure.

An address counts as the same in whatever case its letters are, and with a domain in letters or as A-labels; RFC 5321,
2.4 lets hosts tell cases apart in a local part, and none does.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf

from zope.sendmail.errors import InvalidRecipient
from zope.sendmail.lifecycle.outcome import Answer, Reply, printable
from zope.sendmail.message.address import parse_recipient
from zope.sendmail.message.domain import ascii_domain
from zope.sendmail.message.terms import written

#: How the words begin that are said of a recipient.
_WORDS = "on the suppression list"

#: Characters of a reason that are kept.
_MOST = 200

_QUOTED_ATOM = re.compile(r'"([A-Za-z0-9!#$%&\'*+/=?^_`{|}~.-]+)"')

#: What a relay says about a recipient that does not exist (RFC 3463, 3.2 and 3.3): no such mailbox, no such host, not
#: its syntax, moved, a domain that takes no mail (RFC 7505), disabled.
_GONE_CODES = frozenset({"5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10", "5.2.1"})

#: The same in words, from a relay without such codes.
_GONE_WORDS = re.compile(
    r"\b(?:no such|unknown|invalid|non-?existent) (?:local )?(?:user|recipient|mailbox|account|person|address)\b"
    r"|\b(?:user|recipient|mailbox|account|address)\b[^.;]{0,60}\b(?:unknown|not found|disabled)\b"
    r"|\b(?:does not|doesn't) exist\b|\bno mailbox here\b",
    re.IGNORECASE,
)

#: Codes of replies about a mailbox, if nothing else is said (RFC 5321, 4.2.3).
_ABOUT_MAILBOX = frozenset({550, 551, 553})


@dataclass(frozen=True, slots=True)
class Suppression:
    """An address that gets no mail.  Times are seconds since the epoch; `until` is infinity for ever."""

    #: As `normalized` has it.
    address: str
    reason: str = ""
    since: float = 0.0
    until: float = inf

    @classmethod
    def of(cls, address: object, reason: str = "", *, since: float = 0.0, until: float = inf) -> Suppression:
        """Return an entry, from an address as people write it.

        :raises InvalidRecipient: it is none, or has no domain.
        """
        return cls(normalized(address), printable(reason, _MOST), since, until)

    def __str__(self) -> str:
        limit = f" until {written(self.until)}" if self.until < inf else ""
        return f"{_WORDS}{limit}" + (f": {self.reason}" if self.reason else "")

    @property
    def reply(self) -> Reply:
        """What is said of a recipient with this address."""
        return Reply(Answer.REJECTED, str(self), None, "5.7.1")


#: What is said of a recipient that was on the list when its mail was handed over, and is not any more.
AT_HAND_OVER = Suppression("", "since the mail was handed over")


def normalized(address: object) -> str:
    """Return the one form of an address as a suppression list has it.

    :raises InvalidRecipient: it is none, or has no domain.
    """
    local, at, domain = parse_recipient(address).rpartition("@")
    if not at:
        raise InvalidRecipient(f"the address {address!r} has no domain, so it cannot be suppressed", str(address))
    return _form(local, domain)


def _form(local: str, domain: str) -> str:
    quoted = _QUOTED_ATOM.fullmatch(local)
    if quoted:
        local = quoted[1]
    domain = (ascii_domain(domain) or domain).lower().removesuffix(".")
    return f"{local.lower() if local.isascii() else unicodedata.normalize('NFC', local).casefold()}@{domain}"


class SuppressionTable:
    """The entries of a list in memory.  Concurrency: one caller may change it while others look."""

    def __init__(self) -> None:
        self._by_address: dict[str, Suppression] = {}

    def __len__(self) -> int:
        return len(self._by_address)

    def among(self, recipients: Iterable[str], now: float) -> dict[str, Suppression]:
        """Return those of `recipients` that are suppressed, each with its entry."""
        known = self._by_address
        if not known:
            return {}
        found = ((who, known.get(_form(*who.rpartition("@")[::2]))) for who in recipients)
        return {who: each for who, each in found if each is not None and now < each.until}

    def get(self, address: str) -> Suppression | None:
        """Return the entry of a normalised address, whether its time is over or not."""
        return self._by_address.get(address)

    def put(self, entry: Suppression) -> None:
        """Add an entry, in the place of an older one of its address."""
        self._by_address[entry.address] = entry

    def drop(self, address: str) -> bool:
        """Remove the entry of a normalised address; return whether there was one."""
        return self._by_address.pop(address, None) is not None

    def entries(self, now: float) -> list[Suppression]:
        """Return the entries whose time is not over, sorted by address."""
        return sorted((each for each in self._by_address.values() if now < each.until), key=lambda each: each.address)


def is_of_list(reply: Reply) -> bool:
    """Return whether a suppression list has refused a recipient, and not a relay."""
    return reply.code is None and reply.text.startswith(_WORDS)


def gone(refused: Mapping[str, Reply]) -> dict[str, Reply]:
    """Return those recipients whose own refusal says that they do not exist.

    Anything else may be about the message, or about us: relays refuse a client at RCPT as well.
    """
    return {who: reply for who, reply in refused.items() if reply.to_rcpt and _says_gone(reply)}


def says_gone(words: str) -> bool:
    """Return whether a host says in words that there is no such recipient."""
    return _GONE_WORDS.search(words) is not None


def _says_gone(reply: Reply) -> bool:
    if reply.answer is not Answer.REJECTED or reply.code is None:
        return False
    if reply.enhanced:
        return reply.enhanced in _GONE_CODES
    return reply.code in _ABOUT_MAILBOX and says_gone(reply.text)
