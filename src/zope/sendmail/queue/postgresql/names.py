"""The names of mails: UUIDs of version 7 (RFC 9562, 5.7), which sort by the time at which they were made.

People see them in two halves with a dot in between; the second half is chance, so its first letters are an abbreviation
that means one mail.  No name is ever given twice, in any database.  Pure, but for the clock and chance.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
import uuid

_NAME = re.compile(r"([0-9a-f]{16})\.([0-9a-f]{16})")

#: Where a UUID of version 7 says which version and variant it is.
_MARKS = 0x7000_8000_0000_0000_0000


class NameMaker:
    """Makes the names of one process; they ascend.  Concurrency: any thread."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Begin anew: in a forked child another thread of the parent may have had the mutex."""
        self._mutex = threading.Lock()
        self._last = 0

    def new(self) -> uuid.UUID:
        """Return a name that sorts behind all that this process made before."""
        with self._mutex:
            # Milliseconds, and 1/4096 of them where RFC 9562, 6.2 (method 3) allows a fraction.
            self._last = moment = max(time.time_ns() * 4096 // 1_000_000, self._last + 1)
        return _uuid(moment, int.from_bytes(os.urandom(8)))


def _uuid(moment: int, chance: int) -> uuid.UUID:
    """Return the UUID of a moment in 1/4096 ms since the epoch."""
    return uuid.UUID(int=(moment >> 12) << 80 | (moment & 0xFFF) << 64 | (chance & 0x3FFF_FFFF_FFFF_FFFF) | _MARKS)


def name_for(name: str, since: float) -> uuid.UUID:
    """Return the one name that a mail of another queue has here, if it comes twice as well.

    :param name: its name there.
    :param since: when it was written, in seconds since the epoch.
    """
    digest = int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8])
    moment = min(max(0, int(since * 1000)), 2**48 - 1) * 4096
    return _uuid(moment, digest)


def shown(identifier: uuid.UUID) -> str:
    """Return a name as people see it."""
    return f"{identifier.hex[:16]}.{identifier.hex[16:]}"


def parse_name(name: str) -> uuid.UUID | None:
    """Return what a name as people write it means; None if no mail can be called so."""
    match = _NAME.fullmatch(name)
    return uuid.UUID(match[1] + match[2]) if match else None


names = NameMaker()
os.register_at_fork(after_in_child=names.renew)
