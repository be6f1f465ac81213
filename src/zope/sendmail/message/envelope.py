"""The envelope of a message, and the lines at the head of a queue file that keep it.

What stands in the message itself is never taken for envelope.  The lines are those of zope.sendmail 3.5 to 7.3, so
either side can read what the other wrote; CPSMailAccess's six lines and MaildropHost's two are recognised too.  A
mail that asks for a relay has further lines, which end with one that says so.  Pure.  Fails with `InvalidMail` for
what a caller says and with `MalformedEnvelope` for what a file says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import BinaryIO

from zope.sendmail.errors import InvalidAddress, InvalidRecipient, InvalidRelay, InvalidSender, MalformedEnvelope
from zope.sendmail.message.address import (
    MAX_OCTETS,
    PLAIN_OCTETS,
    names_nobody,
    parse_mailbox,
    parse_recipient,
    parse_recipients,
    parse_sender,
    split_list,
)
from zope.sendmail.message.cheapvalues import value
from zope.sendmail.message.pieces import Piece, beginning
from zope.sendmail.message.relayname import RelayName
from zope.sendmail.message.terms import NAMES, PLAIN, SUPPRESSED, Terms, read_terms, terms_lines
from zope.sendmail.message.tracecontext import parent_and_state

FROM = b"X-Zope-From:"
TO = b"X-Zope-To:"
END = b"X-Zope-Envelope: end\n"

#: The relay that a mail asks for: one of our mailers, or host and port.
MAILER = b"X-Zope-Mailer:"
HOSTNAME, PORT = b"X-Zope-Hostname:", b"X-Zope-Port:"

#: The trace that a mail belongs to.
TRACE = b"X-Zope-Trace:"

#: The lines that CPSMailAccess 1.4 wrote behind the first two, always all of them and in this order.
CPS_OPTIONS = (HOSTNAME, PORT, b"X-Zope-Username:", b"X-Zope-Password:")

#: The further lines by name, but for those of terms, and what each is called in an envelope.
OPTIONS = {
    "X-Zope-Mailer": "mailer",
    "X-Zope-Hostname": "hostname",
    "X-Zope-Port": "port",
    "X-Zope-Username": "username",
    "X-Zope-Password": "password",
    "X-Zope-Trace": "trace",
}

#: How a file of MaildropHost begins, and the two lines it needs (``docs/explanation/decisions/spool.rst``).
DROPPED = b"##"
_DROPPED_TO, _DROPPED_FROM = b"To", b"From"

#: Where a file of repoze.sendmail has its envelope: among the fields of the message.
_OF_REPOZE = b"\nX-Actually-To:"

#: So much of a file is looked through for that.
_HEADER = 64 * 1024

#: A file of MaildropHost has two such lines; other programs may have written further ones between them.
_DROPPED_LINES = 100

# A display name in front of an address.
_NAMED = re.compile(r"[^\s,]\s*<")

#: So much of a file is read to find the usual beginning; no address in it can be too long.
_BEGINNING = MAX_OCTETS

# The two lines, with addresses that need no closer look, and a message that cannot be taken for a third line.
_USUAL = re.compile(
    rb"X-Zope-From: (%b|)\nX-Zope-To: (%b(?:, %b)*)\n(?=[^xX])" % (PLAIN_OCTETS, PLAIN_OCTETS, PLAIN_OCTETS)
)

#: More than any relay takes in one transaction; keeps a foreign file without line ends out of memory.
MAX_LINE = 16 * 1024 * 1024


@value
class Envelope:
    """The sender and the recipients of a message (RFC 5321, 2.3.1).  The empty sender is the null reverse-path.

    `malformed` are recipients that a foreign queue file names and no relay can be given; `relay` is the one that the
    mail asks for; `trace` is what `zope.sendmail.message.tracecontext` has of the trace that it belongs to; `terms` is
    what else its sender asked for.
    """

    sender: str
    recipients: tuple[str, ...]
    malformed: tuple[str, ...] = ()
    relay: RelayName | None = None
    trace: str = ""
    terms: Terms = PLAIN

    @classmethod
    def of(cls, fromaddr: object, toaddrs: object) -> Envelope:
        """Return an envelope from the arguments of ``send()``.

        Raises `InvalidAddress`; a recipient named twice is kept once.
        """
        if fromaddr is None:
            raise InvalidSender("the sender is None; pass an address, or '' for the null reverse-path (bounces)")
        if isinstance(toaddrs, (str, bytes, bytearray)):
            toaddrs = (toaddrs,)
        try:
            entries = iter(toaddrs)  # type: ignore[call-overload]  # also what has no more than __getitem__: a BTree's
        except TypeError:
            why = f"the recipients are {toaddrs!r}; pass an address or a list of addresses"
            raise InvalidRecipient(why, repr(toaddrs)) from None
        recipients = parse_recipients(entries)
        if sum(map(len, recipients)) > MAX_LINE // 8:  # a character has up to four bytes; it must be read back
            raise InvalidRecipient(f"there are {len(recipients)} recipients, too many for one mail; send several")
        return cls(parse_sender(fromaddr), recipients)

    def only(self, recipients: Iterable[str]) -> Envelope:
        """Return the same envelope for some of the recipients."""
        return replace(self, recipients=tuple(recipients), malformed=())


def envelope_lines(envelope: Envelope, *message: Piece) -> bytes:
    """Return what a queue file has in front of `message`, which is given in pieces."""
    lines = b"%s %s\n%s %s\n" % (FROM, envelope.sender.encode(), TO, ", ".join(envelope.recipients).encode())
    if envelope.relay is not None or envelope.trace or envelope.terms is not PLAIN:
        options = _relay_lines(envelope.relay) + _trace_line(envelope.trace) + terms_lines(envelope.terms)
        if options:
            return lines + options + END
    return lines + END if beginning(message, 7).lower() == b"x-zope-" else lines


def read_envelope(stream: BinaryIO) -> Envelope:
    """Read the envelope lines and leave `stream` at the first byte of the message.

    Raises `MalformedEnvelope` if they are not there.
    """
    beginning = stream.read(_BEGINNING)
    usual = _USUAL.match(beginning)
    stream.seek((usual.end() if usual else 0) - len(beginning), 1)
    if usual:
        sender, recipients = usual.groups()
        return Envelope(sender.decode("ascii"), tuple(dict.fromkeys(recipients.decode("ascii").split(", "))))
    return _read_dropped(stream) if beginning.startswith(DROPPED) else _read_lines(stream)


def usual_envelope(text: bytes) -> tuple[Envelope, int] | None:
    """Return the envelope of a whole queue file if it is one of plain addresses, and where its message begins.

    None: `read_envelope` has to look closer.
    """
    usual = _USUAL.match(text, 0, _BEGINNING)
    if usual is None:
        return None
    sender, recipients = usual.groups()
    named = recipients.decode("ascii").split(", ")
    return Envelope(sender.decode("ascii"), tuple(dict.fromkeys(named) if len(named) > 1 else named)), usual.end()


def _read_lines(stream: BinaryIO) -> Envelope:
    """Return the envelope of any file that is no MaildropHost's."""
    start = stream.read(len(FROM))
    if start.lower() != FROM.lower():
        _refuse_mail_of_repoze(start + stream.read(_HEADER))
    sender_text = _field(stream, FROM, "first", start)
    recipients_text = _field(stream, TO, "second", stream.read(len(TO)))
    # 7.3 wrote names as they came: in ``Doe, John <john@example.org>`` Doe is no recipient.
    parse = parse_mailbox if _NAMED.search(recipients_text) else parse_recipient
    return _envelope(sender_text, recipients_text, dict(_read_options(stream)), parse)


def _refuse_mail_of_repoze(beginning: bytes) -> None:
    if _OF_REPOZE in beginning.partition(b"\n\n")[0]:
        raise MalformedEnvelope(
            "this is a mail of repoze.sendmail, as pyramid_mailer queues it, not of this queue; its program qp sends it"
        )


def _read_dropped(stream: BinaryIO) -> Envelope:
    """Return the envelope of a MaildropHost file: it ends with the line by which both To and From are known.

    Lines with other keys that follow are dropped, as MaildropHost 2.3 did.  What comes then is the message, even if it
    looks the same: 2.3 went on and let a message change its recipients.
    """
    found: dict[bytes, bytes] = {}
    for _ in range(_DROPPED_LINES):
        line = stream.readline(MAX_LINE)
        name, colon, value = line.partition(b":")
        if not (line.startswith(DROPPED) and colon and line.endswith(b"\n")):
            break
        found[name[len(DROPPED) :].strip()] = value
        if _DROPPED_TO in found and _DROPPED_FROM in found:
            _skip_unknown(stream)
            if not stream.read(1):
                raise MalformedEnvelope("there is no message behind the ##To: and ##From: lines")
            stream.seek(-1, 1)
            sender_text, recipients_text = _decoded(found[_DROPPED_FROM]), _decoded(found[_DROPPED_TO])
            return _envelope(sender_text, recipients_text, {})
    raise MalformedEnvelope("it does not begin with one line ##To: and one line ##From:")


def _skip_unknown(stream: BinaryIO) -> None:
    """Pass over lines of a MaildropHost file behind its envelope that have no known meaning."""
    for _ in range(_DROPPED_LINES):
        line = stream.readline(MAX_LINE)
        name, colon, _value = line.partition(b":")
        known = name[len(DROPPED) :].strip() in (_DROPPED_TO, _DROPPED_FROM)
        if known or not (line.startswith(DROPPED) and colon and line.endswith(b"\n")):
            stream.seek(-len(line), 1)
            return


def _decoded(value: bytes) -> str:
    """Python 2 wrote names in whatever encoding they had."""
    try:
        return value.decode("utf-8").strip()
    except UnicodeDecodeError:
        return value.decode("latin-1").strip()


def _envelope(
    sender_text: str,
    recipients_text: str,
    options: dict[str, str],
    parse: Callable[[object], str] = parse_recipient,
) -> Envelope:
    """Return the envelope that these texts name; what is no address is malformed, and what is empty is left out."""
    recipients: dict[str, None] = {}
    malformed: list[str] = []
    for text in split_list(recipients_text):
        if names_nobody(text):
            continue
        try:
            recipients[parse(text)] = None
        except InvalidAddress:
            malformed.append(text)
    if not recipients and not malformed:
        raise MalformedEnvelope("the envelope names no recipient")
    try:
        sender = parse_sender(sender_text)
    except InvalidAddress as error:
        raise MalformedEnvelope(str(error)) from error
    if not options:
        return Envelope(sender, tuple(recipients), tuple(malformed))
    trace = " ".join(filter(None, parent_and_state(options.get("X-Zope-Trace", ""))))
    terms = read_terms(options, split_list(options.get(SUPPRESSED, ""))) if not NAMES.isdisjoint(options) else PLAIN
    return Envelope(sender, tuple(recipients), tuple(malformed), _relay(options), trace, terms)


def _trace_line(trace: str) -> bytes:
    return b"%s %s\n" % (TRACE, trace.encode("ascii")) if trace else b""


def _relay_lines(relay: RelayName | None) -> bytes:
    if relay is None:
        return b""
    if relay.mailer:
        return b"%s %s\n" % (MAILER, relay.mailer.encode())
    return b"%s %s\n%s %d\n" % (HOSTNAME, relay.hostname.encode(), PORT, relay.port)


def _relay(options: dict[str, str]) -> RelayName | None:
    """Return the relay that these lines ask for.  CPSMailAccess wrote the word None for none."""
    unknown = sorted(set(options) - OPTIONS.keys() - NAMES)
    if unknown:
        raise MalformedEnvelope(f"it asks for {', '.join(unknown)}, which this version does not know")
    known = ((OPTIONS[name], value) for name, value in options.items() if name in OPTIONS)
    values = {name: value for name, value in known if value not in ("", "None")}
    if not values.keys() & {"mailer", "hostname"}:
        return None
    port = values.pop("port", "25")
    try:
        if "mailer" in values:
            return RelayName(mailer=values["mailer"])
        address = RelayName.of((values["hostname"], port))
        return replace(address, username=values.get("username", ""), password=values.get("password", ""))
    except InvalidRelay as error:
        raise MalformedEnvelope(str(error)) from error


def _field(stream: BinaryIO, name: bytes, ordinal: str, start: bytes) -> str:
    if start.lower() != name.lower():
        raise MalformedEnvelope(
            f"the {ordinal} line does not begin with {name.decode()!r}; this is not a mail of a queue"
        )
    line = stream.readline(MAX_LINE)
    if not line.endswith(b"\n"):
        raise MalformedEnvelope(f"the {name.decode()} line has no end")
    return line.decode("utf-8", "surrogateescape").strip(" \r\n")


def _read_options(stream: BinaryIO) -> tuple[tuple[str, str], ...]:
    """Consume further envelope lines, but only in the two forms that a message cannot have by accident."""
    start = stream.tell()
    lines: list[bytes] = []
    while (line := stream.readline(MAX_LINE)) and line[:7].lower() == b"x-zope-" and line.endswith(b"\n"):
        lines.append(line)
        if line == END:
            return _pairs(lines[:-1])
        if len(lines) == len(CPS_OPTIONS) and _is_cps(lines):
            return _pairs(lines)
        if len(lines) > 100:
            break
    stream.seek(start)
    return ()


def _is_cps(lines: list[bytes]) -> bool:
    return all(line.startswith(name) for line, name in zip(lines, CPS_OPTIONS, strict=True))


def _pairs(lines: list[bytes]) -> tuple[tuple[str, str], ...]:
    fields = (line.decode("utf-8", "surrogateescape").partition(":") for line in lines)
    return tuple((name, value.strip()) for name, _, value in fields)
