"""Secrets taken out of what a relay says: some relays repeat a command that they refuse, or a piece of it.

A relay may cut the command after so many characters, break it into lines, decode it, or put it into a challenge.  So
each piece of a secret that is long enough to tell something is replaced, in clear and in base64, whatever stands
around it.  Pure.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator

#: Characters of a piece.  Shorter ones are in many ordinary words, and to take them out would only show where in the
#: secret they stand.
PIECE = 6

#: A whole password of fewer characters is no secret; one of letters alone may be an ordinary word.
_LEAST = 4

#: Where a reply goes on with another line; smtplib has taken the codes away (RFC 5321, 4.2.1; RFC 2034, 4).
_SEAM = re.compile(rb"\s*\n\s*(?:[245]\.\d{1,3}\.\d{1,3}[ \t]+)?")

#: A relay may write a command in capitals, and base64 has two alphabets (RFC 4648, 4 and 5).
_FOLDED = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ-_", b"abcdefghijklmnopqrstuvwxyz+/")


class Redaction:
    """The secrets of one login, and what stands in their place."""

    def __init__(self) -> None:
        self._secrets: list[tuple[bytes, bytes]] = []
        self._pieces: set[bytes] = set()
        self._whole: list[tuple[re.Pattern[bytes], bytes]] = []

    def hide(self, secret: bytes, instead: str) -> None:
        """Let `secret` be replaced by ``[instead]``, in clear and in base64.

        :param secret: a password, a token, or a line that was said.
        :param instead: a word for it.
        """
        word = b"[%s]" % instead.encode("ascii")
        if _LEAST <= len(secret) < PIECE and not secret.isalpha():
            self._whole.append((re.compile(re.escape(secret), re.IGNORECASE), word))
        for form in (secret, *_in_base64(secret)):
            folded = form.translate(_FOLDED)
            if len(folded) >= PIECE:
                self._secrets.append((folded, word))
                self._pieces.update(folded[at : at + PIECE] for at in range(len(folded) - PIECE + 1))

    def redact(self, text: bytes) -> bytes:
        """Return `text` without the secrets and their pieces."""
        if not self._secrets and not self._whole:
            return text
        joined, places = _without_seams(text)
        redacted, after = b"", 0
        for begin, end, word in self._found(joined):
            redacted += text[after : places[begin]] + word
            after = places[end - 1] + 1
        redacted += text[after:]
        for pattern, word in self._whole:
            redacted = pattern.sub(word, redacted)
        return redacted

    def _found(self, text: bytes) -> Iterator[tuple[int, int, bytes]]:
        """Yield where pieces stand in `text`, and what belongs there; pieces that touch are one."""
        folded = text.translate(_FOLDED)
        at, last = 0, None
        while at <= len(folded) - PIECE:
            if folded[at : at + PIECE] not in self._pieces:
                at += 1
                continue
            end, word = max(self._extended(folded, at), key=lambda found: found[0])
            if last is not None and last[1] == at:
                last = last[0], end, last[2]
            else:
                if last is not None:
                    yield last
                last = at, end, word
            at = end
        if last is not None:
            yield last

    def _extended(self, text: bytes, begin: int) -> Iterator[tuple[int, bytes]]:
        """Yield how far the piece that begins there goes, in each secret that has it."""
        for secret, word in self._secrets:
            at = secret.find(text[begin : begin + PIECE])
            if at >= 0:
                length = PIECE
                while secret[at + length : at + length + 1] == text[begin + length : begin + length + 1] != b"":
                    length += 1
                yield begin + length, word


def _in_base64(secret: bytes) -> Iterator[bytes]:
    """Yield what is in a base64 text that `secret` is a part of: it may begin at any of three places there."""
    for before in range(3):
        usable = secret[: len(secret) - (len(secret) + before) % 3]
        yield base64.b64encode(bytes(before) + usable)[(0, 2, 3)[before] :]


def _without_seams(text: bytes) -> tuple[bytes, list[int]]:
    """Return `text` as if its lines were one, and where each of its octets stood."""
    kept: list[int] = []
    after = 0
    for seam in _SEAM.finditer(text):
        kept.extend(range(after, seam.start()))
        after = seam.end()
    kept.extend(range(after, len(text)))
    return bytes(text[at] for at in kept), kept
