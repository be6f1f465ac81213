"""What a relay means that says "too many" or "too much".

RFC 5321 has no code for it, so providers use whatever they like: the words decide, and where they say nothing, some
codes that are used for nothing else.  Greylisting, a mailbox that gets too much mail, too many recipients of one mail
and too many mails of one connection sound alike, but are about something else.  A quota of the account is often told
with 5yz (Gmail: ``550 5.4.5 Daily sending quota exceeded``), and is over tomorrow: no mail is rejected for it.  Pure.

Sources: RFC 3463; Microsoft, "SMTP AUTH client submission" (432 4.3.2) and "Fix NDR error 4.7.500-699"; Google, "SMTP
errors in Workspace" (4.2.1, 4.7.28, 5.4.5); Exchange Online, "Non-delivery reports" (5.1.90, 5.7.232, 5.7.233,
5.7.705); cPanel, Zoho, cluebringer, postfwd; Amazon SES, "SMTP response codes" (454); Postfix, anvil(8) and smtpd(8);
Exchange receive connectors (421 4.4.2); Stalwart, "Inbound rate limits" (451 4.4.5); Exim, ``smtp_accept_max``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum

from zope.sendmail.lifecycle.outcome import Answer, Outcome, Reply


class TooMuch(StrEnum):
    """What a relay wants less of."""

    CONNECTIONS = "connections"
    MAILS = "mails"


def _any(*words: str) -> re.Pattern[str]:
    return re.compile("|".join(words), re.IGNORECASE)


#: The first pattern that is found in the text of the reply decides; None: it is about the mail, the recipient or the
#: connection at hand, and no matter of how much is sent.
_WORDS: tuple[tuple[re.Pattern[str], TooMuch | None], ...] = (
    (_any(r"gr[ea]y-?list"), None),
    # One mailbox gets too much, from all the world or from us.
    (
        _any(
            r"\buser\b.* receiving mail",
            r"recipient.* (rate|receiving)",
            r"(mailbox|inbox|storage|disk|account)\b[^.]{0,40}(full|busy|quota|over|exceed)",
            r"quota exceeded \(",
        ),
        None,
    ),
    (_any(r"(message|mail) (size|(is )?too (large|big|long))", r"size limit"), None),
    # One mail has too many recipients, unless something else is said to be too much.
    (
        _any(r"too many (recipients|rcpts?)(?! (from|per|in|by))", r"recipients? (count|limit|per)", r"per message"),
        None,
    ),
    # One connection has had its share: a new one will do.
    (
        _any(
            r"(messages|mails|transactions|emails?) (sent )?(per|in|on|for|over) (one|this|a|the|each|smtp)? ?"
            r"(session|connection)",
            r"per (session|connection)",
        ),
        None,
    ),
    (
        _any(
            r"(too many|concurren\w*|simultaneous|parallel|open|maximum( number of)?|number of|limit on)"
            r"( \w+){0,3} (connection|session|thread)s?",
            r"(connection|session|thread)s? (count )?(limit|quota)",
            r"(connection|session|thread)s? .{0,40}exceed",
            r"concurren",
            r"too many .{0,40}\b(connections?|sessions?)\b",
        ),
        TooMuch.CONNECTIONS,
    ),
    (
        _any(
            r"throttl",
            r"\brate\b.{0,60}(limit|exceed|over|unusual)",
            r"(limit|exceed|over|unusual|maximum|high).{0,60}\brate\b",
            r"rate-?limit",
            r"\boverlimit\b",
            r"too (much|many) (\w+ ){0,2}(e-?mails?|messages?|requests?|recipients|auth commands|volume)",
            r"too (much|many) (\w+ ){0,2}(mails?|deliver\w+)\b",
            r"too (fast|quickly|frequent(ly)?)",
            r"slow(er)?( \w+)? down|send (mail )?more slowly|more slowly",
            r"(send\w*|message|mail|submission|hourly|daily|relay)\b.{0,40}(limit|quota)?.{0,20}exceeded",
            r"(sending|submission|message|relay|hourly|daily) (limit|quota)",
            r"(server|system) (is )?(too )?busy",
            r"(excessive|unexpected|unusual) (\w+ )?volume",
        ),
        TooMuch.MAILS,
    ),
)

#: What these mean if the words say nothing: reply code (None: any), enhanced code.
_CODES: dict[tuple[int | None, str], TooMuch] = {
    (432, "4.3.2"): TooMuch.CONNECTIONS,
    (None, "4.7.28"): TooMuch.MAILS,
    (None, "4.7.500"): TooMuch.MAILS,
    (None, "4.4.5"): TooMuch.MAILS,
}


#: 5yz is about mail of ours and a time if it has one of these enhanced codes.
_QUOTA_CODES = frozenset({"5.1.90", "5.4.5", "5.7.28", "5.7.232", "5.7.233", "5.7.705"})

_PERIOD = r"(?:seconds?|minutes?|mins?|hours?|hourly|days?|daily|months?|monthly|24 ?h)"

#: What is limited, and that it was exceeded: both have to be there.
_QUOTA = re.compile(
    rf"\b(?:{_PERIOD}|sending|send|submission|outgoing|outbound|messaging|relay|rate|tenant)\b"
    rf"[^.;]{{0,60}}\b(?:limits?|quota|threshold|allowance|max(?:imum)?|rate)\b"
    rf"|\b(?:limits?|quota|threshold|max(?:imum)?|only|more than|number|too many|too much|exceed\w*)\b[^.;]{{0,60}}"
    rf"\b(?:sending|outgoing|outbound|(?:per|an?|each|in|last|within|this) (?:the )?(?:last )?\d*[- ]?{_PERIOD})\b"
    r"|\byou\b[^.;]{0,60}\b(?:quota|limit|threshold)\b",
    re.IGNORECASE,
)
_EXCEEDED = re.compile(
    r"exceed|reached|\bover\b|\bmax(?:imum)?\b|\bonly\b|too (?:many|much)|more than|used up|exhausted|\bhit\b",
    re.IGNORECASE,
)
_CERTAINLY_QUOTA = _any(
    r"SubmissionQuotaExceeded", r"policy rejection\W.{0,60}quota", r"throttl", r"rate[- ]?limit",
    r"unusual (\w+ )?(sending|rate)",
)  # fmt: skip

#: It is about a mailbox, or about this mail.
_NO_QUOTA = _any(
    r"mailbox|inbox|storage|disk|\bfull\b",
    r"receiv(e|ing)\b",
    r"gr[ea]y-?list",
    r"\bsize\b|too (large|big|long)|\bline\b|header|\bhops?\b|\bloop|attachment",
    r"you tried to|trying to contact",
)

_LINK = re.compile(r"https?://\S*")


def complaints_in(outcome: Outcome) -> Mapping[str, Reply]:
    """Return the replies that say so, by recipient."""
    replies = outcome.replies
    return {who: reply for who, reply in replies.items() if reply.answer is Answer.DEFERRED and too_much(reply)}


def too_much(reply: Reply) -> TooMuch | None:
    """Return what the relay wants less of, or None if the reply says nothing like that.

    Only replies of a relay that count as temporary can.
    """
    if reply.answer is not Answer.DEFERRED or reply.code is None or reply.code // 100 not in (4, 5):
        return None
    if reply.code // 100 == 4:
        meaning = next((meaning for pattern, meaning in _WORDS if pattern.search(reply.text)), None)
        if meaning is not None:
            return meaning
    if is_quota(reply):
        return TooMuch.MAILS
    if any(pattern.search(reply.text) for pattern, _ in _WORDS):
        return None
    enhanced = reply.enhanced or ""
    return _CODES.get((reply.code, enhanced)) or _CODES.get((None, enhanced))


def is_quota(reply: Reply) -> bool:
    """Return whether a refusal, whatever its first digit, tells of a quota for what we send within some time."""
    text = _LINK.sub("", reply.text)
    enhanced = reply.enhanced or ""
    if "SubmissionQuotaExceeded" not in text and (_NO_QUOTA.search(text) or enhanced[1:4] == ".2."):
        return False
    return (
        enhanced in _QUOTA_CODES
        or _CERTAINLY_QUOTA.search(text) is not None
        or (_QUOTA.search(text) is not None and _EXCEEDED.search(text) is not None)
    )
