"""``zope-sendmail check``: tries a relay step by step with the settings of ``zope-sendmail``, and sends nothing.

Each step makes a connection of its own, so that the first one that fails is the one that is wrong: the name, the
connection, TLS, the certificate, the login and, with ``--to``, an envelope.
"""

from __future__ import annotations

import io
import os
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import replace
from smtplib import SMTP, SMTP_SSL
from typing import Any

from zope.sendmail.cli.arguments import given_settings, make_check_parser, merged_settings
from zope.sendmail.cli.formatting import clean
from zope.sendmail.cli.terminal import say
from zope.sendmail.config.options import mailer_keywords
from zope.sendmail.config.settings import RelaySettings, Tls
from zope.sendmail.errors import InvalidAddress
from zope.sendmail.lifecycle.cures import cure_of
from zope.sendmail.lifecycle.outcome import Answer, Reply
from zope.sendmail.mailer import SMTPMailer
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.smtp.classification import fault
from zope.sendmail.smtp.connect import connect, drop, hang_up

#: Seconds that the relay has to say good-bye.
_QUIT = 5.0

#: Words of a step that works, or does not.
_OK, _FAILED, _SKIPPED = "ok", "FAILED", "-"


class _Failed(Exception):
    """A step did not work; `reply` says why."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


def is_check(arguments: Sequence[str]) -> bool:
    """Return whether a command line means the check; a Maildir that is called ``check`` is drained, as in 7.3."""
    return arguments[:1] == ["check"] and not os.path.isdir(os.path.join("check", "new"))


def main(arguments: Sequence[str]) -> int:
    """Carry out what stands behind ``zope-sendmail check``.

    :returns: the exit status: 0 if everything works, 1 if a step failed, 78 if the settings are wrong.
    :raises SystemExit: as argparse does.
    """
    parser = make_check_parser()
    parsed = vars(parser.parse_args(arguments))
    try:
        settings = merged_settings(parsed.get("config"), given_settings(parsed))
        mailer = SMTPMailer.configured(**mailer_keywords(settings))
        relay = mailer.relay_settings()
        envelope = _envelope(parsed)
    except (ValueError, InvalidAddress) as error:
        parser.exit(os.EX_CONFIG, f"{parser.prog}: {error}\n")
    return check(relay, envelope, mailer)


def check(relay: RelaySettings, envelope: Envelope | None, mailer: SMTPMailer) -> int:
    """Try each step, and say how it went.

    :returns: 0 if everything works, else 1.
    """
    say(f"checking {relay}" + (f" as {clean(relay.username)}" if relay.username else ""))
    steps = [("name", _name), ("connection", _connection), ("tls", _tls), ("certificate", _certificate)]
    steps += [("login", _login)]
    try:
        for name, step in steps:
            _say_step(name, _tried(step, relay))
        if envelope is not None:
            return _say_envelope(envelope, mailer)
    except _Failed as failed:
        say(f"        Cure: {cure_of(failed.reply)}")
        return 1
    say("everything works; nothing was sent")
    return 0


def _envelope(parsed: dict[str, Any]) -> Envelope | None:
    to = parsed.get("to")
    return Envelope.of(parsed.get("sender", ""), to) if to else None


def _tried(step: Callable[[RelaySettings], str], relay: RelaySettings) -> str | Reply:
    try:
        return step(relay)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what does not work
        return fault(error)


def _say_step(name: str, result: str | Reply) -> None:
    """Print how a step went.  Raises `_Failed`."""
    if isinstance(result, Reply):
        say(f"{_FAILED:7} {name:12} {clean(str(result))}")
        raise _Failed(result)
    say(f"{_OK if result[:1] != _SKIPPED else _SKIPPED:7} {name:12} {clean(result.removeprefix(_SKIPPED).strip())}")


# --- the steps --------------------------------------------------------------------------------------------------


def _name(relay: RelaySettings) -> str:
    found = socket.getaddrinfo(relay.hostname, relay.port, type=socket.SOCK_STREAM)
    addresses = ", ".join(dict.fromkeys(str(each[4][0]) for each in found))
    return f"{relay.hostname} is {addresses}"


def _connection(relay: RelaySettings) -> str:
    plain = Tls.IMPLICIT if relay.tls is Tls.IMPLICIT else Tls.NEVER
    own = {} if plain is Tls.IMPLICIT else {"certfile": None, "keyfile": None}  # which is shown in TLS only
    with _Connection(_without_login(relay, tls=plain, verify=False, **own)) as connection:
        offered = " ".join(sorted(each.upper() for each in connection.esmtp_features))
        return f"greets; offers {offered or 'no extensions'}"


def _tls(relay: RelaySettings) -> str:
    if relay.tls is Tls.NEVER:
        return f"{_SKIPPED} the settings want none"
    must = relay.tls is Tls.OPPORTUNISTIC and relay.must_encrypt  # for the sake of a login that is not made here
    with _Connection(_without_login(relay, verify=False, tls=Tls.REQUIRED if must else relay.tls)) as connection:
        sock = connection.sock
        if not isinstance(sock, ssl.SSLSocket):
            why = "it does not work with this relay" if connection.has_extn("starttls") else "the relay offers none"
            return f"{_SKIPPED} {why}; mail goes in clear"
        cipher = sock.cipher()
        return f"{sock.version()}" + (f", {cipher[0]}" if cipher else "")


def _certificate(relay: RelaySettings) -> str:
    if not relay.must_verify:
        return f"{_SKIPPED} it is not looked at (verify)"
    with _Connection(_without_login(relay, verify=True)) as connection:
        sock = connection.sock
        if not isinstance(sock, ssl.SSLSocket):
            return f"{_SKIPPED} there is none without TLS"
        shown: Any = sock.getpeercert()
        names = [name for kind, name in (shown or {}).get("subjectAltName", ()) if kind in ("DNS", "IP Address")]
        return f"valid until {(shown or {}).get('notAfter', '?')}, for {', '.join(names) or '?'}"


def _login(relay: RelaySettings) -> str:
    if not relay.logs_in:
        return f"{_SKIPPED} the settings have none"
    with _Connection(relay):
        return f"{relay.username or 'the certificate'} is accepted"


def _say_envelope(envelope: Envelope, mailer: SMTPMailer) -> int:
    """Ask for the sender and each recipient, as a mail would; nothing follows."""
    session = mailer.open_session()
    try:
        outcome = session.verify(envelope, io.BytesIO(b"Subject: check\r\n\r\n"))
    finally:
        session.close()
    if outcome.fault is not None:
        _say_step("envelope", outcome.fault)
    refused = 0
    for recipient in envelope.recipients:
        reply = outcome.replies.get(recipient)
        if reply is None or reply.answer is Answer.ACCEPTED:
            say(f"{_OK:7} {'envelope':12} {clean(recipient)}: {clean(str(reply)) if reply else 'accepted'}")
        else:
            refused += 1
            say(f"{_FAILED:7} {'envelope':12} {clean(recipient)}: {clean(str(reply))}")
    if refused:
        say("        Cure: the relay does not take this mail from this sender for this recipient; ask who runs it.")
        return 1
    say("everything works; nothing was sent")
    return 0


def _without_login(relay: RelaySettings, **changed: Any) -> RelaySettings:
    return replace(relay, username=None, password=None, token=None, auth=(), **changed)


class _Connection:
    """A connection for the length of a ``with`` block."""

    def __init__(self, settings: RelaySettings) -> None:
        self._settings = settings

    def __enter__(self) -> SMTP:
        factory = SMTP_SSL if self._settings.tls is Tls.IMPLICIT else SMTP
        connection: SMTP = connect(self._settings, factory)
        self._connection = connection
        return connection

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            hang_up(self._connection, _QUIT)
        else:
            drop(self._connection)
