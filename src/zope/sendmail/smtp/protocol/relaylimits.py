"""What relays say about their limits, by enhanced codes and words, since each has reply codes of its own.

Sources: RFC 5321, 4.5.3.1.10 (552 for 452); RFC 3463, 3.6 (x.5.3); the texts of Exim, Postfix, Sendmail, OpenSMTPD,
Stalwart, Exchange, Gmail, Amazon SES.  Pure.
"""

from __future__ import annotations

import re

from zope.sendmail.lifecycle.outcome import Answer, Reply

_MAILS = r"(?:messages?|mails?|e-mails?|transactions?|deliveries)"
_CONNECTION = r"(?:session|connection)"

#: "too many messages in this connection" (Exim), "Too many messages sent" (OpenSMTPD), "Maximum number of messages per
#: session exceeded" (Stalwart), "session limit exceeded".
_MAILS_PER_CONNECTION = re.compile(
    rf"too many {_MAILS}\b(?! from| to\b)"
    rf"|{_MAILS}[^.;]{{0,30}} (?:per|in|on|for|over) (?:this |a |one |each )?{_CONNECTION}"
    rf"|{_CONNECTION}[^.;]{{0,30}}(?:limit|maximum|exceed|quota)|(?:limit|maximum)[^.;]{{0,30}}{_CONNECTION}",
    re.IGNORECASE,
)

#: What is about a time or a load is not about one connection.
_RATE = re.compile(
    r"\b(?:hour|hourly|minute|day|daily|second|rate|throttl\w*|concurren\w*|busy|too much|simultaneous)\b"
    r"|too many connections",
    re.IGNORECASE,
)

#: "Helo command rejected: Host not found", "Client host [192.0.2.1] blocked using zen.spamhaus.org".
_CLIENT_REFUSED = re.compile(
    r"(?<![<@.\w])(?:helo|ehlo)\b(?![@.])[^;<]{0,40}\b(?:reject|refus|denied|invalid)"
    r"|client host\b.{0,80}\b(?:reject|block|denied)",
    re.IGNORECASE,
)

_AT_MOST = re.compile(r"(?:exceeds?|limit(?: is| of)?|maximum(?: is| of)?|most|max)\D{0,20}(\d{1,5})\b", re.IGNORECASE)


def tells_mails_per_connection(text: str) -> bool:
    """Return whether the reply says that this connection has had its number of mails."""
    return _MAILS_PER_CONNECTION.search(text) is not None and not _RATE.search(text)


def refuses_client(reply: Reply) -> bool:
    """Return whether the reply refuses this client, by its address or its name in EHLO, and not the mail.

    Postfix delays both until RCPT (``smtpd_delay_reject``).
    """
    return reply.answer is not Answer.ACCEPTED and _CLIENT_REFUSED.search(reply.text) is not None


def recipient_limit_told(text: str) -> int | None:
    """Return the number of recipients that the reply names as the most, or None: "Recipient count exceeds 50" (SES)."""
    found = _AT_MOST.search(text)
    return int(found[1]) or None if found else None
