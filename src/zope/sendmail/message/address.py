"""One mail address: from what a caller or a file says to what a relay can be given.

The raw text is checked before anything parses it: a control character is refused, never dropped.  Display names and
comments are dropped, the form ``local@domain`` stays.  Fails with `InvalidAddress`.  RFC 5321, 4.1.2; RFC 6531 for
characters beyond ASCII.
"""

from __future__ import annotations

import re
from typing import TypeGuard

from zope.sendmail.errors import InvalidAddress, InvalidRecipient, InvalidSender

#: RFC 5321, 4.5.3.1.3 allows 256 octets for a path; long VERP senders exceed it and are accepted in practice.
#: 900 still fits into a command line (4.5.3.1.4 with the extensions' 998).
MAX_OCTETS = 900

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_ATOM = r"[^\s()<>\[\]:;@\\,\".]+"
_LOCAL = rf"(?:{_ATOM}(?:\.+{_ATOM})*\.?|\"(?:[^\"\\]|\\.)*\")"  # doubled and trailing dots: docomo.ne.jp had them
# Beyond ASCII anything but blanks: an Indic vowel sign is no \w.
_LETTER = r"(?:[A-Za-z0-9]|[^\x00-\x7f\s])"
_LABEL = rf"{_LETTER}(?:(?:{_LETTER}|[_-])*{_LETTER})?|_(?:{_LETTER}|[_-])+"
# A user's name as systems make them; RFC 5321, 4.5.3.1.1 allows 64 octets for a local part.
_LOCAL_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{,63}")
_DOMAIN = rf"(?:(?:{_LABEL})(?:\.(?:{_LABEL}))*|\[[A-Za-z0-9.:-]+\])"
_SPEC = re.compile(rf"({_LOCAL})@({_DOMAIN})\.?")
# What most addresses are: nothing to drop and nothing to refuse, so the patterns below would leave it as it is.
# No group here is repeated possessively: Python 3.11.2 goes on behind what such a group has only begun to match.
_PLAIN_LABEL = "[A-Za-z0-9]+(?:-+[A-Za-z0-9]+)*"
_PLAIN = re.compile(rf"[A-Za-z0-9_+=-]+(?:\.[A-Za-z0-9_+=-]+)*@{_PLAIN_LABEL}(?:\.{_PLAIN_LABEL})*")
#: Such addresses among them as a file may be searched for.
PLAIN_OCTETS = rb"[A-Za-z0-9_+=-]+(?:\.[A-Za-z0-9_+=-]+)*@[A-Za-z0-9]+(?:[.-][A-Za-z0-9]+)*"
_ANGLE = re.compile(r"(?P<name>[^<>]*|\s*\"(?:[^\"\\]|\\.)*\"\s*)<(?P<spec>(?:\"(?:[^\"\\]|\\.)*\"|[^<>\"])*)>")
_COMMENT = re.compile(r"\s*\([^()]*\)\s*$")
# A quoted part that is longer than an address is none; without that bound unclosed quotes take quadratic time.
_SEPARATED = re.compile(r"(?:\"(?:[^\"\\]|\\.){0,1000}\"|\([^()]*\)|<[^<>]*>|[^,\"(<]++|[\"(<])+")

#: Escaped quotes in a list of addresses; each may cost as many steps as a quoted part has characters.
_MANY_ESCAPES = 1000


def parse_recipient(raw: object) -> str:
    """Return the address in `raw` as ``local@domain``.

    Only ``postmaster`` may stand without a domain (RFC 5321, 4.1.1.3).
    """
    if _is_plain(raw):
        return raw
    text = _text(raw, "recipient")
    spec = _bare(text)
    if not spec:
        raise _invalid(f"the recipient {text!r} is empty; every recipient needs an address", "recipient", text)
    if spec.lower() == "postmaster":
        return spec
    return _checked(spec, text, "recipient")


def parse_sender(raw: object) -> str:
    """Return the address in `raw`, or the empty string for the null reverse-path ('' or '<>')."""
    if _is_plain(raw):
        return raw
    text = _text(raw, "sender")
    spec = _bare(text)
    return _checked(spec, text, "sender") if spec else ""


def parse_foreign_recipient(raw: object) -> str:
    """As `parse_recipient`, for files of other programs: a local name stays what it is, the relay knows whose it is."""
    local = _local_name(raw)
    return parse_recipient(raw) if local is None else local


def parse_foreign_sender(raw: object) -> str:
    """As `parse_sender`, likewise."""
    local = _local_name(raw)
    return parse_sender(raw) if local is None else local


def split_list(text: str) -> list[str]:
    """Cut a list of addresses at its commas, but not within quotes, comments and angle brackets."""
    # Nobody writes so many; who does wants to keep us busy.
    pieces = text.split(",") if text.count('\\"') > _MANY_ESCAPES else _SEPARATED.findall(text)
    return [part for piece in pieces if (part := piece.strip())]


def is_ascii(address: str) -> bool:
    """Whether a relay without SMTPUTF8 can be given this address (RFC 6531, 3.2)."""
    return address.isascii()


def _is_plain(raw: object) -> TypeGuard[str]:
    """Whether this is an address as it stands; False says nothing."""
    return type(raw) is str and len(raw) <= MAX_OCTETS and _PLAIN.fullmatch(raw) is not None


def _local_name(raw: object) -> str | None:
    """The name of a user of the relay's own, such as ``root``; None if it is anything else."""
    name = _bare(raw) if isinstance(raw, str) and len(raw) <= MAX_OCTETS else ""
    return name if _LOCAL_NAME.fullmatch(name) else None


def _text(raw: object, role: str) -> str:
    if isinstance(raw, bytes):
        try:
            raw = raw.decode("utf-8")
        except UnicodeDecodeError:
            raise _invalid(f"the {role} {raw!r} is not UTF-8; pass it as str", role, raw) from None
    if not isinstance(raw, str):
        raise _invalid(f"the {role} is {raw!r}; it must be a str or bytes address", role, raw)
    if _CONTROL.search(raw):
        raise _invalid(f"the {role} {raw!r} has a line break or another control character in it; remove it", role, raw)
    try:
        octets = len(raw.encode("utf-8"))
    except UnicodeEncodeError:
        why = f"the {role} {raw!r} has a character that no text can have (a lone surrogate)"
        raise _invalid(why, role, raw) from None
    if octets > MAX_OCTETS:
        raise _invalid(f"the {role} {raw[:60]!r}... has {octets} octets; at most {MAX_OCTETS} are possible", role, raw)
    return raw


def _bare(text: str) -> str:
    """What is left without display name and comment."""
    match = _ANGLE.fullmatch(text.strip())
    if match:
        return match["spec"].strip()
    return _COMMENT.sub("", text).strip()


def _checked(spec: str, text: str, role: str) -> str:
    match = _SPEC.fullmatch(spec)
    if match is None:
        raise _invalid(f"the {role} {text!r} is not an address of the form local@domain; {_cure(spec)}", role, text)
    return f"{match[1]}@{match[2]}"


def _invalid(why: str, role: str, raw: object) -> InvalidAddress:
    passed = raw if isinstance(raw, str) else repr(raw)
    return InvalidSender(why, passed) if role == "sender" else InvalidRecipient(why, passed)


def _cure(spec: str) -> str:
    if spec.count("@") > 1 and "," in spec:
        return "pass several recipients as a list"
    if "@" not in spec:
        return "it has no domain"
    return "correct it"
