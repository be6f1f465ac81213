"""What a relay said about one mail, for each recipient.

Every recipient gets one of four answers; a fault of the relay itself is told apart from what was said about the mail.
Pure.  RFC 5321, 4.2 (reply codes); RFC 3463 (enhanced status codes); RFC 1047 (unknown).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Answer(StrEnum):
    """How it stands with one recipient."""

    ACCEPTED = "accepted"
    DEFERRED = "deferred"
    REJECTED = "rejected"
    UNKNOWN = "unknown"


#: The first digit of a reply code decides (RFC 5321, 4.2.1).  What is no reply code at all is temporary.
_BY_DIGIT = {2: Answer.ACCEPTED, 4: Answer.DEFERRED, 5: Answer.REJECTED}

#: What stands for a reply without a code where smtplib wants one (RFC 5321, 4.2.3).
_CODES = {Answer.DEFERRED: 451, Answer.REJECTED: 550}

_ENHANCED = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?:\s+|$)")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_MAX_TEXT = 1000


@dataclass(frozen=True, slots=True)
class Reply:
    """The relay's words about one recipient, or ours where it said nothing (then `code` is None)."""

    answer: Answer
    text: str
    code: int | None = None
    enhanced: str | None = None

    @classmethod
    def of(cls, code: int, text: str | bytes) -> Reply:
        """A reply as it came over the wire."""
        words = printable(text)
        match = _ENHANCED.match(words)
        enhanced = match[1] if match else None
        return cls(
            _BY_DIGIT.get(code // 100, Answer.DEFERRED), words[match.end() :] if match else words, code, enhanced
        )

    @property
    def is_one_too_many(self) -> bool:
        """Whether the relay takes no more recipients with one mail (RFC 5321, 4.5.3.1.10; RFC 3463, 3.6)."""
        return self.code == 452 and (self.enhanced == "4.5.3" or "too many recipients" in self.text.lower())

    def as_pair(self) -> tuple[int, bytes]:
        """Return the code and the words as smtplib's errors have them."""
        words = " ".join(filter(None, (self.enhanced, self.text)))
        return self.code or _CODES.get(self.answer, 250), words.encode("utf-8", "backslashreplace")

    def __str__(self) -> str:
        return " ".join(str(part) for part in (self.code, self.enhanced, self.text) if part)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one attempt ended.

    `replies` has every recipient that something is known about.  `fault` is set if the relay could not be used; it
    blames no message, and recipients without a reply are as before.
    """

    relay: str
    replies: Mapping[str, Reply] = field(default_factory=dict)
    fault: Reply | None = None

    @classmethod
    def same(cls, relay: str, recipients: Iterable[str], reply: Reply) -> Outcome:
        """The same reply for all `recipients`."""
        return cls(relay, dict.fromkeys(recipients, reply))

    def having(self, answer: Answer) -> dict[str, Reply]:
        """The recipients with this answer."""
        return {recipient: reply for recipient, reply in self.replies.items() if reply.answer is answer}


def printable(text: str | bytes, limit: int = _MAX_TEXT) -> str:
    """`text` as one line that is safe in a log, a file and a terminal, at most `limit` characters."""
    words = text.decode("utf-8", "backslashreplace") if isinstance(text, bytes) else text
    if not words.isprintable():  # which says no to more than that
        words = _UNPRINTABLE.sub(" ", words)
    return words.strip()[:limit]
