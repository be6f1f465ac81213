"""Variable envelope return paths: a bounce says by its address whom it is about.

The sender ``list@example.org`` and the recipient ``one@example.com`` make ``list+one=example.com@example.org``, as
Postfix writes it by default.  Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from zope.sendmail.errors import InvalidAddress
from zope.sendmail.message.address import parse_sender
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.verpkey import VerpKey

_BEFORE, _BETWEEN = "+", "="

#: Octets that the part before the ``@`` may have (RFC 5321, 4.5.3.1.1).
_MAX_LOCAL = 64


def verp(sender: str, recipient: str) -> str:
    """Return the envelope sender for one recipient.

    :raises InvalidAddress: if there can be none.
    """
    local, _, domain = sender.rpartition("@")
    who, _, where = recipient.rpartition("@")
    made = f"{local}{_BEFORE}{who}{_BETWEEN}{where}"
    if not local:
        raise _cannot(sender, recipient, "the sender has no domain" if domain else "the sender is empty")
    if not who:
        raise _cannot(sender, recipient, "the recipient has no domain")
    if '"' in made or len(made.encode()) > _MAX_LOCAL:
        raise _cannot(sender, recipient, "the local part is quoted, or too long")
    try:
        return parse_sender(f"{made}@{domain}")
    except InvalidAddress:  # a domain literal in a local part
        raise _cannot(sender, recipient, "it would be no address") from None


def _cannot(sender: str, recipient: str, why: str) -> InvalidAddress:
    return InvalidAddress(f"no return path can be made of {sender!r} and {recipient!r}: {why}")


def whom(return_path: str, sender: str) -> str:
    """Return the recipient for which `verp` made an address of `sender`.

    :param return_path: that address.
    :raises InvalidAddress: it was not made so.
    """
    made, _, domain = return_path.rpartition("@")
    local, _, home = sender.rpartition("@")
    who, between, where = made.removeprefix(local + _BEFORE).rpartition(_BETWEEN)
    if not made.startswith(local + _BEFORE) or domain.lower() != home.lower() or not (who and between and where):
        raise InvalidAddress(f"{return_path!r} was not made of {sender!r} and a recipient")
    return f"{who}@{where}"


def one_by_one(envelope: Envelope, key: VerpKey | None = None, day: int = 0) -> Iterator[Envelope]:
    """Return an envelope for each recipient, with a sender that says so.

    :param key: signs the senders, so that bounces to them are no forgeries; None: they stay as they are.
    :param day: today, since the epoch.
    :raises InvalidAddress: an address of it would be none.
    """
    for recipient in envelope.recipients:
        path = verp(envelope.sender, recipient)
        sender = path if key is None else key.signed(path, day)
        yield replace(envelope.only((recipient,)), sender=sender)
        if envelope.terms.key:  # all of them leave, or none does: the first one has the key for all
            envelope = replace(envelope, terms=replace(envelope.terms, key="", key_until=0.0))
