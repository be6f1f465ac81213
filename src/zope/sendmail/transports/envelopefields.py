"""Header fields that show an envelope to people.  Pure.  RFC 5322, 2.1.1 and 2.2.3."""

from __future__ import annotations

from zope.sendmail.lifecycle.outcome import printable
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.headers import in_front, line_end

#: A line has at most 998 octets (RFC 5322, 2.1.1), with name, brackets and comma.
_LONGEST = 900


def with_envelope(message: bytes, envelope: Envelope, prefix: str) -> bytes:
    """Return the message with ``<prefix>-From`` and ``<prefix>-To`` in front, one recipient a line."""
    eol = line_end(message)
    recipients = (b"," + eol + b"\t").join(_shown(each) for each in envelope.recipients)
    name = prefix.encode("ascii")
    sender = name + b"-From: " + _shown(envelope.sender) + eol
    return in_front(message, sender + name + b"-To: " + recipients + eol)


def _shown(address: str) -> bytes:
    """Return an address in brackets; ASCII only, so that the relay of the new recipient needs no extension for it."""
    return b"<" + printable(address).encode("ascii", "backslashreplace")[:_LONGEST] + b">"
