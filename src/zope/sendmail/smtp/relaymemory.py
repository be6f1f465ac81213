"""What relays have shown about themselves and did not announce: broken promises and limits.

It outlives sessions, so that each new connection does not have to learn it again.  What was learnt counts for an hour:
the operator of the relay may have mended it.  Concurrency: any thread.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

#: Seconds for which something counts that a relay has shown.
MEMORY = 3600.0

_NEVER = float("-inf")

#: A relay that takes this many recipients, and no more, means their number.
_CERTAIN = 10


@dataclass(slots=True)
class _Limit:
    """A limit that a relay has shown, and until when it counts."""

    number: int = 0
    until: float = _NEVER

    def at(self, now: float) -> int | None:
        return self.number if now < self.until else None

    def lower(self, number: int, now: float) -> None:
        known = self.at(now)
        self.number, self.until = number if known is None else min(known, number), now + MEMORY


class RelayMemory:
    """What one relay has shown.  All times are seconds of the monotonic clock."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._no_pipelining_until = self._no_overlap_until = self._overlap_until = _NEVER
        self._mails, self._recipients = _Limit(), _Limit()
        #: After how many mails of a connection the relay refused one without saying why.
        self._suspected_mails = 0
        #: After how many recipients it said that there are too many.
        self._suspected_recipients = 0
        #: Whether `recipient_limit` may know one.
        self.has_recipient_limit = False
        #: The most recipients of one mail that the relay has taken.
        self.recipients_taken = 0

    def takes_pipelining(self, now: float) -> bool:
        """Return whether PIPELINING may be used if the relay announces it."""
        return now >= self._no_pipelining_until

    def pipelining_failed(self, now: float) -> None:
        """Note that the relay announced PIPELINING and did not take it."""
        self._no_pipelining_until = now + MEMORY

    def takes_overlap(self, now: float) -> bool:
        """Return whether an envelope may go together with the end of the mail before."""
        return now >= self._no_overlap_until

    def overlap_failed(self, now: float) -> None:
        """Note that the relay lost an envelope that went together with the end of the mail before."""
        self._no_overlap_until, self._overlap_until = now + MEMORY, _NEVER

    def has_overlapped(self, now: float) -> bool:
        """Return whether the relay has shown that it takes an envelope together with the end of the mail before."""
        return now < self._overlap_until

    def overlap_worked(self, now: float) -> None:
        """Note that the relay has taken a mail whose envelope went so."""
        if now >= self._no_overlap_until:  # one of several machines behind the same name may not
            self._overlap_until = now + MEMORY

    def takes_mail_after(self, mails: int, now: float) -> bool:
        """Return whether the relay takes one more mail over a connection that has had so many."""
        return mails < self._mails.number or now >= self._mails.until

    def refused_after(self, mails: int, now: float, *, told: bool) -> None:
        """Note that the relay took one more mail over a new connection only.

        :param mails: how many it had taken over the connection before
        :param told: whether its words say so; if not, the second time at the same number makes it a limit
        """
        with self._mutex:
            if told or mails == self._suspected_mails:
                self._mails.lower(mails, now)
            self._suspected_mails = mails

    def recipient_limit(self, now: float) -> int | None:
        """Return how many recipients of one mail the relay takes, or None if that is not known."""
        return self._recipients.at(now)

    def too_many_recipients(self, limit: int, now: float) -> None:
        """Note that the relay takes no more than `limit` recipients with one mail."""
        with self._mutex:
            self._recipients.lower(max(1, limit), now)
            self.has_recipient_limit = True
            self.recipients_taken = min(self.recipients_taken, limit)

    def refused_further_recipients(self, accepted: int, now: float) -> None:
        """Note that the relay took a mail for `accepted` recipients and refused further ones as too many.

        A small number may be about something else (Gmail wants the domains one by one), so it counts the second time.
        """
        if accepted >= _CERTAIN or accepted == self._suspected_recipients:
            self.too_many_recipients(accepted, now)
        self._suspected_recipients = accepted

    def took_recipients(self, number: int) -> None:
        """Note that the relay took a mail for so many recipients."""
        self.recipients_taken = max(self.recipients_taken, number)


class MemoryByRelay:
    """What the relays of one mailer have shown, by host and port."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._memories: dict[str, RelayMemory] = {}

    def of(self, relay: str) -> RelayMemory:
        """Return what is known of this relay, such as ``mail.example.org:25``."""
        with self._mutex:
            memory = self._memories.get(relay)
            if memory is None:
                memory = self._memories[relay] = RelayMemory()
            return memory
