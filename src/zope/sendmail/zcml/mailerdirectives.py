"""ZCML: mailers beyond SMTP, in the namespace ``http://namespaces.zope.org/mail``.

Mailers that are made of others find them by name when everything is registered, so the order in ZCML does not matter.
Fails with `ConfigurationError`: a missing mailer, and mailers that lead to each other in a circle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from zope.component.zcml import handler
from zope.configuration.exceptions import ConfigurationError
from zope.configuration.fields import Path, Tokens
from zope.schema import TextLine

from zope.sendmail.config.options import RELAY, one_of, positive, whole, words
from zope.sendmail.interfaces import IMailer
from zope.sendmail.transports.failover import BalancedMailer, FailoverMailer, Member, SeveralMailers
from zope.sendmail.transports.file import STDOUT, FileFormat, FileMailer
from zope.sendmail.transports.program import ProgramMailer
from zope.sendmail.transports.redirect import RedirectMailer
from zope.sendmail.zcml.actions import LINK, checked, find_mailer, in_two_steps
from zope.sendmail.zcml.schema import IMailerDirective, Setting


class PathOrDash(Path):  # type: ignore[misc]  # zope.configuration says nothing about its types
    """A path, or ``-`` for standard output."""

    def fromUnicode(self, value: str) -> Any:
        """See `IFromUnicode`."""
        return STDOUT if value.strip() == STDOUT else super().fromUnicode(value)


class ISendmailMailerDirective(IMailerDirective):
    """A mailer that hands mail to a program of this host with the command line of sendmail."""

    program = Path(title="Program", description="The program.", default="/usr/sbin/sendmail", required=False)
    options = Tokens(
        title="Options",
        description="Options for the program in front of ours, e.g. -odq.",
        value_type=TextLine(),
        required=False,
    )
    timeout = Setting(
        RELAY["timeout"],
        title="Timeout",
        description="Time that the program may take for a mail, then it is killed.",
        default=600.0,
    )
    recipientLimit = Setting(
        positive(whole),
        title="Recipient limit",
        description="Recipients for one run of the program at most; they all have its one answer.",
        default=100,
    )


class IFileMailerDirective(IMailerDirective):
    """A mailer that writes mail to files, for development."""

    path = PathOrDash(
        title="Path",
        description="Where to write, relative to the ZCML file; made if missing.  A dash is standard output.",
    )
    format = Setting(
        one_of(FileFormat),
        title="Format",
        description="'maildir', a directory with a file for each mail, or 'mbox', one file.",
        default=FileFormat.MAILDIR,
    )


class IRedirectMailerDirective(IMailerDirective):
    """A mailer that sends all mail to a few addresses through another mailer, for staging."""

    mailer = TextLine(title="Mailer", description="Name of the mailer to send through.")
    to = Setting(words, title="To", description="Addresses that get all mail, separated by blanks.", required=True)
    allow = Setting(
        words,
        title="Allow",
        description="Addresses and domains that get their mail nevertheless, separated by blanks.",
    )
    sender = TextLine(
        title="Sender",
        description="Envelope sender of redirected mail, where its bounces go; if omitted, the first of 'to'.",
        required=False,
    )


class IDkimSignerDirective(IMailerDirective):
    """A mailer that signs mail (DKIM) and sends it through another mailer."""

    mailer = TextLine(title="Mailer", description="Name of the mailer to send through.")
    keys = Setting(
        words,
        title="Keys",
        description="What to sign with, separated by blanks: domain=selector:file, with the private key in PEM, RSA or "
        "Ed25519; paths are relative to the ZCML file. Two keys of one domain sign both.",
        required=True,
    )


class IFailoverMailerDirective(IMailerDirective):
    """A mailer that uses the first of several mailers whose relay can be used."""

    mailers = Setting(
        words, title="Mailers", description="Names of the mailers in order, separated by blanks.", required=True
    )


class IBalancedMailerDirective(IMailerDirective):
    """A mailer that gives each of several mailers a share of the mail."""

    mailers = Setting(
        words,
        title="Mailers",
        description="Names of the mailers with their weights, separated by blanks, e.g. big=3 small=1; "
        "without a weight it is 1.",
        required=True,
    )


# --- handlers -----------------------------------------------------------------------------------------------


def sendmailMailer(
    _context: Any,
    name: str,
    program: str = "/usr/sbin/sendmail",
    options: Iterable[str] = (),
    timeout: float = 600.0,
    recipientLimit: int = 100,
) -> None:
    """See `ISendmailMailerDirective`."""
    keywords: dict[str, Any] = {"options": options, "timeout": timeout, "recipient_limit": recipientLimit}
    _register(_context, name, lambda: ProgramMailer(program, **keywords))


def fileMailer(_context: Any, name: str, path: str, format: FileFormat = FileFormat.MAILDIR) -> None:
    """See `IFileMailerDirective`."""
    _register(_context, name, lambda: FileMailer(path, format))


def redirectMailer(
    _context: Any, name: str, mailer: str, to: Iterable[str], allow: Iterable[str] = (), sender: str | None = None
) -> None:
    """See `IRedirectMailerDirective`."""

    def link(redirect: RedirectMailer) -> None:
        redirect.mailer = find_mailer(mailer)

    _register(_context, name, lambda: RedirectMailer(to=to, allow=allow, sender=sender), link)


def dkimSigner(_context: Any, name: str, mailer: str, keys: Iterable[str]) -> None:
    """See `IDkimSignerDirective`."""

    def make() -> Any:
        from zope.sendmail.transports.dkim import DKIMSigner  # needs an extra

        return DKIMSigner(keys=[_key(_context, each) for each in keys])

    def link(signer: Any) -> None:
        signer.mailer = find_mailer(mailer)

    _register(_context, name, make, link)


def failoverMailer(_context: Any, name: str, mailers: Iterable[str]) -> None:
    """See `IFailoverMailerDirective`."""
    _several(_context, name, FailoverMailer, lambda: [(each, 1) for each in mailers])


def balancedMailer(_context: Any, name: str, mailers: Iterable[str]) -> None:
    """See `IBalancedMailerDirective`."""
    _several(_context, name, BalancedMailer, lambda: [_share(each) for each in mailers])


# --- what they share ----------------------------------------------------------------------------------------


def _several(
    context: Any, name: str, make: Callable[[], SeveralMailers], read: Callable[[], list[tuple[str, int]]]
) -> None:
    """Register what `make` returns, to be made of the mailers and weights that `read` returns."""

    def link(several: SeveralMailers) -> None:
        shares = checked(read)
        names = [each for each, _ in shares]
        if not names or len(set(names)) < len(names):
            raise ConfigurationError(f"mailer {name!r} is made of {names}; name one mailer at least, and none twice")
        several.members = [Member(find_mailer(each), weight, several.clock) for each, weight in shares]

    _register(context, name, make, link)


def _key(context: Any, text: str) -> Any:
    """Return the key that is written as ``domain=selector:file``."""
    from zope.sendmail.transports.dkim import DKIMKey

    domain, equals, rest = text.partition("=")
    selector, colon, path = rest.partition(":")
    if not (domain and equals and selector and colon and path):
        raise ValueError(f"{text!r} is not a key; write example.org=mail2026:/etc/dkim/example.org.pem")
    return DKIMKey(domain, selector, context.path(path))


def _share(text: str) -> tuple[str, int]:
    name, sign, weight = text.rpartition("=")
    if not sign:
        return text, 1
    try:
        return name, positive(whole)(weight)
    except ValueError:
        raise ValueError(f"{text!r} is not a share; write a whole number from 1 on behind the name: name=3") from None


def _register(context: Any, name: str, make: Callable[[], Any], link: Callable[[Any], None] | None = None) -> None:
    """Register the mailer that `make` returns.

    `link`, if there is one, lets it find the mailers behind it when all are registered, before any delivery is.
    """

    def register() -> Callable[[], None]:
        mailer = checked(make)
        handler("registerUtility", mailer, IMailer, name, context.info)
        return lambda: finish(mailer)

    def finish(mailer: Any) -> None:
        if link is not None:
            link(mailer)
        if mailer in _behind(mailer):
            raise ConfigurationError(f"mailer {name!r} leads back to itself; let it end at a mailer that sends")

    in_two_steps(context, ("utility", IMailer, name), register, order=0, later=LINK)


def _behind(mailer: Any) -> list[Any]:
    """Return all mailers behind this one, at any distance."""
    found: list[Any] = []
    waiting = [mailer]
    while waiting:
        new = [each for each in getattr(waiting.pop(), "mailers", ()) if each not in found and each is not None]
        found += new
        waiting += new
    return found
