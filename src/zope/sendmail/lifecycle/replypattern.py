"""What many replies have in common: the same words without what differs from mail to mail.

Relays put addresses, queue ids and numbers into their replies; without them a thousand refusals are one cause.  Pure.
"""

from __future__ import annotations

import re

from zope.sendmail.lifecycle.outcome import Reply, printable

_ADDRESS = re.compile(r"<?[^\s<>@:;,\"']{1,256}@[^\s<>@:;,\"']{1,256}>?")
_LINK = re.compile(r"https?://\S+")
#: Queue ids and session numbers: long words with digits in them, and numbers in hexadecimal.
_ID = re.compile(r"(?<![\w.])(?=[\w-]*\d)(?=[\w-]*[A-Za-z])[\w-]{8,}(?![\w.])")
_NUMBER = re.compile(r"(?<![\w.])(?<!Errno )\d{3,}(?![\w.])")
_IP = re.compile(r"\[?(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.])\]?")

_LONGEST = 120


def pattern_of(reply: Reply) -> str:
    """Return code, enhanced code and words of a reply, with ``*`` for addresses, links, ids and long numbers."""
    codes = " ".join(str(each) for each in (reply.code, reply.enhanced) if each)
    words = pattern_of_words(reply.text)
    return f"{codes} {words}".strip()


def pattern_of_words(text: str) -> str:
    """Return words of ours or of a relay, with ``*`` for what differs from mail to mail."""
    words = printable(text, 600)
    for part in (_LINK, _ADDRESS, _IP, _ID, _NUMBER):
        words = part.sub("*", words)
    words = " ".join(words.split())
    return words if len(words) <= _LONGEST else words[: _LONGEST - 1] + "\u2026"
