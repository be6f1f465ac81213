"""A mailer for staging: whatever the application sends, only the people named here get it.

The mail goes to `to` through another mailer; ``X-Original-Envelope-From`` and ``X-Original-Envelope-To`` in it show who
would have had it.  Recipients on the `allow` list get theirs unchanged.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, BinaryIO

from zope.interface import implementer

from zope.sendmail.errors import InvalidAddress, InvalidSettings
from zope.sendmail.interfaces import ISession, ISessionMailer
from zope.sendmail.lifecycle.outcome import Answer, Outcome, Reply
from zope.sendmail.mailer import open_session
from zope.sendmail.message.address import parse_mailbox, parse_recipient, parse_sender
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.transports.envelopefields import with_envelope
from zope.sendmail.transports.innerlimits import InnerLimits
from zope.sendmail.transports.onemailcalls import OneMailCalls

if TYPE_CHECKING:
    from zope.sendmail.message.routes import Routes

#: Which answer speaks for a mail that went to several people instead: none gets it twice because of another.
_ORDER = (Answer.ACCEPTED, Answer.UNKNOWN, Answer.DEFERRED, Answer.REJECTED)


@implementer(ISessionMailer)
class RedirectMailer(InnerLimits, OneMailCalls):
    """Sends all mail to `to` through `mailer`.

    `allow`: addresses, and domains with or without ``@`` (not what is below them), that get their mail nevertheless.
    `sender`: the envelope sender of redirected mail, where its bounces go; by default the first of `to`, because a
    bounce to the original sender would be mail to others.

    Raises `InvalidAddress`.

    Guarantee: the mailer behind is asked to send only to `to` and the addresses on the `allow` list.
    """

    def __init__(
        self, mailer: Any = None, to: Iterable[str] = (), *, allow: Iterable[str] = (), sender: str | None = None
    ) -> None:
        self.mailer = mailer
        self.to = tuple(dict.fromkeys(parse_mailbox(each) for each in _listed(to)))
        if not self.to:
            raise InvalidAddress("there is no address to redirect mail to; name at least one address")
        self.allow = frozenset(_rule(each) for each in _listed(allow))
        self.sender = self.to[0] if sender is None else parse_sender(sender)

    @property
    def mailers(self) -> tuple[Any, ...]:
        """See `InnerLimits`."""
        return (self.mailer,)

    def open_session(self) -> ISession:
        """See `ISessionMailer`.  Raises `InvalidSettings` if there is no mailer behind."""
        return RedirectSession(self, interactive=False)

    def open_interactive_session(self) -> ISession:
        """See `OneMailCalls`."""
        return RedirectSession(self, interactive=True)

    def allows(self, recipient: str) -> bool:
        """Return whether this recipient gets mail as it is."""
        try:
            if parse_recipient(recipient) != recipient:
                return False
        except InvalidAddress:
            return False
        local, _, domain = recipient.lower().rpartition("@")
        if recipient.lower() in self.allow:
            return True
        # Some relays send jane%elsewhere@here and elsewhere!jane@here on to elsewhere.
        return "@" in recipient and f"@{domain}" in self.allow and not set(local) & set("%!")

    def parts(self, envelope: Envelope) -> Iterator[RedirectedPart]:
        """Give the mails that become of one."""
        allowed = dict.fromkeys(each for each in envelope.recipients if self.allows(each))
        others = [each for each in envelope.recipients if each not in allowed]
        if others:
            sender = self.sender if envelope.sender else ""  # a bounce never bounces
            yield RedirectedPart(Envelope(sender, self.to), envelope.only(others))
        if allowed:
            yield RedirectedPart(envelope.only(allowed))


@dataclass(frozen=True, slots=True)
class RedirectedPart:
    """One of the mails that become of one: its envelope, and the one it stands for if it is redirected."""

    envelope: Envelope
    original: Envelope | None = None

    def text(self, message: BinaryIO) -> BinaryIO:
        """Return what is sent."""
        if self.original is None:
            return message
        return io.BytesIO(with_envelope(message.read(), self.original, "X-Original-Envelope"))

    def told(self, outcome: Outcome) -> Outcome:
        """Return the outcome, said of the original recipients."""
        replies = [outcome.replies[who] for who in self.envelope.recipients if who in outcome.replies]
        if self.original is None or not replies:
            return outcome
        best = min(replies, key=lambda reply: _ORDER.index(reply.answer))
        words = f"redirected to {', '.join(self.envelope.recipients)}: {best.text}"
        return Outcome.same(outcome.relay, self.original.recipients, replace(best, text=words))


@implementer(ISession)
class RedirectSession:
    """See `ISession`."""

    def __init__(self, mailer: RedirectMailer, *, interactive: bool) -> None:
        if mailer.mailer is None:
            raise InvalidSettings("RedirectMailer has no mailer to send through; name one")
        self._mailer = mailer
        self._session = open_session(mailer.mailer, interactive=interactive)

    @property
    def relay(self) -> str:
        """See `ISession`."""
        return self._session.relay

    def verify(self, envelope: Envelope, message: BinaryIO) -> Outcome:
        """See `ISession`."""
        return self._asked(envelope, message, self._session.verify)

    def transfer(self, envelope: Envelope, message: BinaryIO, intend: Callable[[], None]) -> Outcome:
        """See `ISession`.  `message` must be seekable."""
        return self._asked(envelope, message, lambda part, text: self._session.transfer(part, text, intend))

    def rest(self) -> None:
        """See `ISession`."""
        self._session.rest()

    def close(self) -> None:
        """See `ISession`."""
        self._session.close()

    def _asked(self, envelope: Envelope, message: BinaryIO, ask: Callable[[Envelope, BinaryIO], Outcome]) -> Outcome:
        """Ask for each part, until the relay cannot be used any more."""
        start = message.tell()
        replies: dict[str, Reply] = {}
        outcome = Outcome(self.relay)
        for part in self._mailer.parts(envelope):
            message.seek(start)
            outcome = part.told(ask(part.envelope, part.text(message)))
            replies.update(outcome.replies)
            if outcome.fault is not None:
                break
        return replace(outcome, replies=replies)


def redirects(mailer: Any) -> bool:
    """Return whether all mail through `mailer` is redirected, also by the mailers behind it."""
    if isinstance(mailer, RedirectMailer):
        return True
    behind = getattr(mailer, "mailers", ())
    return bool(behind) and all(map(redirects, behind))


def refuse_detours(routes: Routes, mailer_of: Callable[[str], Any]) -> None:
    """Refuse a redirection, on staging, that leaves a way around it: mail may name other relays.

    Raises `InvalidSettings` if the default of `routes` redirects and anything else that mail may name does not.
    """
    if not redirects(mailer_of(routes.default)):
        return
    around = [f"mailer {each!r}" for each in routes.names if not redirects(mailer_of(each))]
    around += [f"relay {host}:{port}" for host, port in sorted(routes.addresses)]
    if around:
        raise InvalidSettings(
            f"the mailer {routes.default!r} redirects mail, and {', '.join(around)} would let some go around it; "
            "leave that out, or name further redirecting mailers"
        )


def _listed(addresses: Iterable[str]) -> Iterable[str]:
    return (addresses,) if isinstance(addresses, str) else addresses


def _rule(text: str) -> str:
    """Return an address or ``@domain``, in lower case."""
    local, _, domain = text.strip().lower().rpartition("@")
    checked = parse_recipient(f"{local or 'anybody'}@{domain}")
    return checked if local else f"@{checked.rpartition('@')[2]}"
