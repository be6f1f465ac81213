"""A connection to a relay that is open, what it has done, and what more may go over it.

Concurrency: one thread at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from smtplib import SMTP
from typing import Any

from zope.sendmail.config.settings import RelaySettings
from zope.sendmail.smtp.connect import drop
from zope.sendmail.smtp.connection import SMTPConnection
from zope.sendmail.smtp.onemail import RelayConnection
from zope.sendmail.smtp.ordinary import StraightWay
from zope.sendmail.smtp.protocol.addressing import SAFE_RECIPIENTS
from zope.sendmail.smtp.protocol.progress import Progress
from zope.sendmail.smtp.relaymemory import RelayMemory
from zope.sendmail.smtp.sendmailconnection import SendmailConnection
from zope.sendmail.system.clock import Clock

#: A relay that took longer for the last mail is slow: the next one does not wait behind a mail in hand, since another
#: connection may be free for it.
_SLOW = 1.0

#: Envelopes that are only asked about over one connection: each needs a RSET, and relays count these as junk (Postfix:
#: smtpd_junk_command_limit, 100).
_MAX_VERIFIED = 50


@dataclass(slots=True)
class OpenConnection:
    """See the module.  Times are seconds of the monotonic clock."""

    #: The connection as it was made, and what mails go over.
    raw: Any
    connection: RelayConnection
    settings: RelaySettings
    memory: RelayMemory
    opened_at: float
    used_at: float
    #: How ordinary mails go over it; None if there is no short way.
    straight_way: StraightWay | None = None
    #: Mails that were begun over it; and those of them that were only asked about since the last one was sent.
    mails: int = 0
    verified: int = 0
    #: Whether the relay has taken a mail over it, or said that it would.
    has_taken: bool = False
    #: Seconds that the last mail took.
    took: float = inf
    #: Whether the relay has taken a mail over it whose envelope went with the end of the one before.
    has_overlapped: bool = False

    @property
    def is_quick(self) -> bool:
        """Whether the relay answers so soon that the next mail may wait here for its turn."""
        return self.took < _SLOW

    def has_room(self, now: float) -> bool:
        """Return whether one more mail may go over it."""
        keep = self.settings.keep
        return (
            self.mails < keep.mails
            and self.verified < _MAX_VERIFIED
            and now - self.opened_at < keep.age
            and self.memory.takes_mail_after(self.mails, now)
        )

    def may_overlap(self, now: float) -> bool:
        """Return whether it is good for one more mail behind the one in hand, envelope and end in one."""
        return self.connection.takes_overlap and self.memory.takes_overlap(now) and self.has_room(now)

    def has_rested(self, now: float) -> bool:
        """Return whether it has been open, or idle, for too long."""
        keep = self.settings.keep
        return now - self.used_at >= keep.idle or now - self.opened_at >= keep.age

    def note_ordinary(self, begin: float, now: float) -> None:
        """Take note of an ordinary mail that was taken; it was begun at `begin`."""
        self.mails += 1
        self.used_at, self.took = now, now - begin
        self.verified = 0
        if not self.has_overlapped:
            self.note_overlapped(now)

    def note_overlapped(self, now: float) -> None:
        """Take note that the relay has taken a mail whose envelope went with the end of the one before."""
        self.has_overlapped = True
        self.memory.overlap_worked(now)

    def note_taken(self, progress: Progress, begin: float, now: float) -> None:
        """Take note of a mail, or a question about one, that came to its end; it was begun at `begin`."""
        self.has_taken = True
        self.used_at, self.took = now, now - begin
        if progress.text_wanted:
            self.verified = 0
        if progress.has_too_many:
            self.memory.refused_further_recipients(len(progress.accepted), now)
        elif len(progress.accepted) > SAFE_RECIPIENTS:
            self.memory.took_recipients(len(progress.accepted))


def open_connection(
    settings: RelaySettings,
    connect: Callable[[RelaySettings], Any],
    memory: RelayMemory,
    clock: Clock,
    *,
    pipelining: bool,
) -> OpenConnection:
    """Return a new connection.  Raises what `connect` raises."""
    raw = connect(settings)
    now = clock.monotonic()
    if not isinstance(raw, SMTP):
        return OpenConnection(raw, SendmailConnection(raw), settings, memory, now, now)
    try:
        pipelining = pipelining and memory.takes_pipelining(now)
        connection = SMTPConnection(raw, settings, memory, clock, pipelining=pipelining)
    except BaseException:
        drop(raw)
        raise
    return OpenConnection(raw, connection, settings, memory, now, now, connection.straight_way)
