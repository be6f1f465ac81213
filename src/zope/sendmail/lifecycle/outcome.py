"""What a relay said about one mail, for each recipient.

Every recipient gets one of four answers; a fault of the relay itself is told apart from what was said about the mail.
Pure.  RFC 5321, 4.2 (reply codes); RFC 3463 (enhanced status codes); RFC 1047 (unknown).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import field
from enum import StrEnum

from zope.sendmail.message.cheapvalues import value


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

#: "Too many recipients" (Postfix, Sendmail, Exchange), "Recipient count exceeds 50" (Amazon SES), "Maximum limit of 3
#: recipients reached".
_TOO_MANY_RECIPIENTS = re.compile(
    r"too many (?:\w+ )?(?:recipients?|rcpts?)\b|\brecipients?\b[^.;:]{0,40}\b(?:exceed|limit|maximum)"
    r"|\b(?:exceed\w*|limit|maximum|max)\b[^.;]{0,40}\brecipients?\b",
    re.IGNORECASE,
)
#: "Too many recipients this hour", "daily limit for message recipients": no matter of one mail.
_IN_SOME_TIME = re.compile(
    r"\b(?:seconds?|minutes?|hours?|hourly|days?|daily|months?|monthly|rate)\b|throttl", re.IGNORECASE
)
_ENHANCED = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?:\s+|$)")
_TOO_MANY_CODES = frozenset({"4.5.3", "5.5.3"})

#: Control characters, halves of characters, and what changes how a line is shown without being seen itself: soft
#: hyphens, marks of direction, joiners, fillers, tags (Unicode categories Cc, Cf, Cs, Zl, Zp; UTR 36, 2.5).
_UNPRINTABLE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\xad\u061c\u115f\u1160\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufeff\uffa0"
    r"\ufff0-\ufffb\U0001d173-\U0001d17a\U000e0000-\U000e0fff]+"
)
_MAX_TEXT = 1000


@value
class Reply:
    """The relay's words about one recipient, or ours where it said nothing (then `code` is None)."""

    answer: Answer
    text: str
    code: int | None = None
    enhanced: str | None = None
    #: Whether it is the reply to this recipient's own RCPT, and so says nothing about the message.  Not written down.
    to_rcpt: bool = field(default=False, compare=False, repr=False)

    @classmethod
    def of(cls, code: int, text: str | bytes) -> Reply:
        """Return a reply as it came over the wire."""
        words = printable(text)
        match = _ENHANCED.match(words)
        enhanced = match[1] if match else None
        return cls(
            _BY_DIGIT.get(code // 100, Answer.DEFERRED), words[match.end() :] if match else words, code, enhanced
        )

    @property
    def is_one_too_many(self) -> bool:
        """Whether the relay takes no more recipients with one mail (RFC 5321, 4.5.3.1.10; RFC 3463, 3.6).

        Relays have codes of their own for it (450, 451, 452, 550, 552, 554), so the words count.
        """
        if self.answer is Answer.ACCEPTED or self.answer is Answer.UNKNOWN:
            return False
        if self.enhanced in _TOO_MANY_CODES:
            return True
        return _TOO_MANY_RECIPIENTS.search(self.text) is not None and not _IN_SOME_TIME.search(self.text)

    def as_pair(self) -> tuple[int, bytes]:
        """Return the code and the words as smtplib's errors have them."""
        words = " ".join(filter(None, (self.enhanced, self.text)))
        return self.code or _CODES.get(self.answer, 250), words.encode("utf-8", "backslashreplace")

    def __str__(self) -> str:
        return " ".join(str(part) for part in (self.code, self.enhanced, self.text) if part)


@value
class Outcome:
    """How one attempt ended.

    `replies` has every recipient that something is known about.  `fault` is set if the relay could not be used; it
    blames no message, and recipients without a reply are as before.  `unasked` are the recipients that the relay was
    not asked about, because it takes no more with one mail.
    """

    relay: str
    replies: Mapping[str, Reply] = field(default_factory=dict)
    fault: Reply | None = None
    unasked: tuple[str, ...] = ()

    @classmethod
    def same(cls, relay: str, recipients: Iterable[str], reply: Reply) -> Outcome:
        """Return the same reply for all `recipients`."""
        return cls(relay, dict.fromkeys(recipients, reply))

    def having(self, *answers: Answer) -> dict[str, Reply]:
        """Return the recipients with one of these answers, and their replies."""
        return {recipient: reply for recipient, reply in self.replies.items() if reply.answer in answers}

    @property
    def follow_at_once(self) -> tuple[str, ...]:
        """The recipients beyond what the relay takes with one mail, for another mail that can be sent now.

        There are none if no recipient got a final answer at this attempt: then the next one would do no better.
        """
        if self.fault is not None:
            return ()
        accepted = refused = False
        too_many = []
        for recipient, reply in self.replies.items():
            accepted |= reply.answer is Answer.ACCEPTED
            refused |= reply.answer is Answer.REJECTED
            if reply.answer is Answer.DEFERRED and reply.is_one_too_many:
                too_many.append(recipient)
        return (*self.unasked, *too_many) if accepted else self.unasked if refused else ()

    def joined(self, further: Outcome) -> Outcome:
        """Return this outcome with that of a further mail for the recipients that were too many."""
        return Outcome(further.relay, {**self.replies, **further.replies}, further.fault, further.unasked)

    def told(self) -> Outcome:
        """Return the same with a reply for each recipient that the relay was not asked about."""
        if not self.unasked:
            return self
        reply = Reply(Answer.DEFERRED, "the relay takes no more recipients with one mail", None, "4.5.3")
        return Outcome(self.relay, {**self.replies, **dict.fromkeys(self.unasked, reply)}, self.fault)


def printable(text: str | bytes, limit: int = _MAX_TEXT) -> str:
    """Return `text` as one line that is safe in a log, a file and a terminal.

    :param limit: so many characters at most.
    """
    words = text.decode("utf-8", "backslashreplace") if isinstance(text, bytes) else text
    if not words.isascii() or not words.isprintable():
        words = _UNPRINTABLE.sub(" ", words)
    return words.strip()[:limit]
