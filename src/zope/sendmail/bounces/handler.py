"""What follows from a bounce: subscribers are told, and an address that is gone gets no more mail.

Fails with `OSError` if the suppression list cannot be written; nothing was told then, and the bounce can be given
again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from zope.event import notify

from zope.sendmail.bounces.parser import Bounce, Verdict, read_bounce
from zope.sendmail.errors import InvalidSettings
from zope.sendmail.events import MailBouncedEvent
from zope.sendmail.message.address import parse_sender
from zope.sendmail.message.verpkey import VerpKey
from zope.sendmail.reporting import maillog
from zope.sendmail.system.clock import Clock

_DAY = 86400


class BounceHandler:
    """Takes bounces, wherever they come from: a pipe, a Maildir, a mailbox, LMTP.

    :param senders: the envelope senders whose mail is sent with ``verp=True``.
    :param key: what has signed their return paths.
    :param suppressions: the `ISuppressions` of a queue, to which an address that bounced for good is added; None:
        it is told only.
    :param days: for how long; None: for ever.
    :raises InvalidSettings: there is no sender, or one cannot be.

    Guarantee: a bounce that did not come to a signed return path changes nothing; subscribers are told that it is
    not authentic.  Concurrency: any thread.
    """

    def __init__(
        self,
        senders: Iterable[str],
        key: VerpKey,
        *,
        suppressions: Any = None,
        days: float | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._senders = tuple(parse_sender(each) for each in senders)
        if not all(self._senders) or not self._senders:
            raise InvalidSettings("no sender whose bounces are read; name one, as it is passed to send()")
        for each in self._senders:
            if "@" not in each:
                raise InvalidSettings(
                    f"the sender {each!r} has no domain; write it as it is passed to send(): local@domain"
                )
        self._key = key
        self._suppressions = suppressions
        self._days = days
        self._clock = clock or Clock()

    def expects(self, address: str) -> bool:
        """Return whether bounces to this address are ours: a sender, or what ``verp=True`` makes of one."""
        local, _, domain = address.lower().rpartition("@")
        for each in self._senders:
            name, _, home = each.lower().rpartition("@")
            if domain == home and (local == name or local.startswith(f"{name}+")):
                return True
        return False

    def handle(self, message: bytes, return_path: str = "") -> list[Bounce]:
        """Return what a message says, after all that follows from it; nothing if it is no bounce.

        :param return_path: the address to which it came; empty: that in its header (``Delivered-To``,
            ``X-Original-To``), which its delivery agent has put there.
        :raises OSError: the suppression list cannot be written.
        """
        now = self._clock.time()
        path = return_path or _delivered_to(message)
        bounces = read_bounce(message, path, senders=self._senders, key=self._key, day=int(now // _DAY))
        gone = [each for each in bounces if each.is_authentic and each.verdict is Verdict.PERMANENT]
        if gone and self._suppressions is not None:
            self._suppress(gone, now)
        for bounce in bounces:
            maillog.bounced(bounce.recipient, bounce.verdict, bounce.words, authentic=bounce.is_authentic)
            notify(_event(bounce))
        return bounces

    def _suppress(self, gone: Iterable[Bounce], now: float) -> None:
        from zope.sendmail.lifecycle.suppression import Suppression

        until = {} if self._days is None else {"until": now + self._days * _DAY}
        why = {each.recipient: each.words or each.status or "no reason given" for each in gone}
        entries = [Suppression.of(who, f"bounced: {words}", since=now, **until) for who, words in why.items()]
        self._suppressions.add(*entries)


def _event(bounce: Bounce) -> MailBouncedEvent:
    return MailBouncedEvent(
        bounce.recipient,
        bounce.verdict,
        bounce.status,
        bounce.words,
        messageId=bounce.message_id,
        isAuthentic=bounce.is_authentic,
    )


def _delivered_to(message: bytes) -> str:
    """Return the address in the topmost header field that a delivery agent writes; empty if there is none."""
    import email

    parsed = email.message_from_bytes(message)
    for name in ("X-Original-To", "Delivered-To", "Envelope-To"):
        if parsed[name]:
            return str(parsed[name]).strip().strip("<>")
    return ""
