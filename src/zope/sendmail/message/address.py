"""One mail address: from what a caller or a file says to what a relay can be given.

The raw text is checked before anything parses it: a control character is refused, never dropped.  Display names,
comments and source routes are dropped, the form ``local@domain`` stays, and so does the name of a user of the relay's
own, such as ``root``.  What has one meaning is taken (RFC 5322, 4.4), what is ambiguous is refused.  Fails with
`InvalidAddress`.  Pure.  RFC 5321, 4.1.2; RFC 6531 for characters beyond ASCII.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import TypeGuard

from zope.sendmail.errors import InvalidAddress, InvalidRecipient, InvalidSender
from zope.sendmail.message.domain import ascii_domain

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
# Half of a pair of brackets leaves no doubt about what it was to enclose.
_HALF_ANGLE = re.compile(r"(?P<name>[^<>]*)<(?P<spec>[^<>\"]*)|(?P<closed>[^<>\"]*)>")
_COMMENT = re.compile(r"\([^()]*\)")
_GROUP = re.compile(r"[^:;<>@\"]*:(?P<members>[^:;]*);")
_EMPTY_GROUP = re.compile(r"[^:;<>@\"]*:")
#: RFC 5321, 4.1.1.3: a source route is not to be followed, but to be left out.
_ROUTE = re.compile(r"@[^:<>\"]*:")
_AROUND = re.compile(r" *@ *")  # around a dot they may as well end a title: Dr. jane@example.org
# A quoted part that is longer than an address is none; without that bound unclosed quotes take quadratic time.
_SEPARATED = re.compile(r"(?:\"(?:[^\"\\]|\\.){0,1000}\"|\([^()]*\)|<[^<>]*>|[^,\"(<]++|[\"(<])+")

#: Escaped quotes in a list of addresses; each may cost as many steps as a quoted part has characters.
_MANY_ESCAPES = 1000

#: Characters that are not seen: Unicode's Default_Ignorable_Code_Point, and a pattern of Braille without dots.
_UNSEEN = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
#: ... and blanks that are none of ASCII's.
_HIDDEN = re.compile(f"[{_UNSEEN}\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_ENDS = re.compile(f"^[{_UNSEEN}\\s]+|[{_UNSEEN}\\s]+$")
#: The canonical combining class of a virama.
_VIRAMA = 9
_TRAILING = re.compile(r"\s*\([^()]*\)\s*$")
#: The two that some scripts write words with (RFC 5892, A.1 and A.2).
_JOINERS = "\u200c\u200d"


def parse_recipient(raw: object) -> str:
    """Return the address in `raw`, as ``local@domain`` or as the name of a user that the relay knows.

    :param raw: what a caller passed: ``str``, or ``bytes`` in UTF-8.
    :raises InvalidRecipient: it is empty, ambiguous, or no address.
    """
    if _is_plain(raw):
        return raw
    text = _text(raw, "recipient")
    spec = _bare(text)
    if not spec:
        raise InvalidRecipient(f"the recipient {text!r} is empty; every recipient needs an address", text)
    return _checked(spec, text, "recipient")


def parse_recipients(raws: Iterable[object]) -> tuple[str, ...]:
    """Return the addresses in `raws`, each of them once; what is empty beside others is left out.

    :raises InvalidRecipient: one of them is ambiguous or no address, or none is left.
    """
    raws = list(raws)
    if raws and all(map(_is_plain, raws)):
        return tuple(dict.fromkeys(raws))  # type: ignore[arg-type]  # they are str
    texts = [raw if _is_plain(raw) else _text(raw, "recipient") for raw in raws]
    recipients = tuple(dict.fromkeys(parse_recipient(text) for text in texts if not names_nobody(text)))
    if not recipients:
        raise InvalidRecipient("there are no recipients; pass at least one address", *texts)
    return recipients


def parse_mailbox(raw: object) -> str:
    """Return the address in `raw` as ``local@domain``; a name without a domain is refused, but ``postmaster``.

    For lists that other programs have cut at commas, where such a name is more likely a piece of another entry.

    :raises InvalidRecipient: as `parse_recipient`.
    """
    recipient = parse_recipient(raw)
    if "@" in recipient or recipient.lower() == "postmaster":
        return recipient
    raise InvalidRecipient(f"the recipient {recipient!r} has no domain; write it as local@domain", recipient)


def parse_sender(raw: object) -> str:
    """Return the address in `raw` as `parse_recipient` does, or ``""`` for the null reverse-path (``""``, ``<>``).

    :raises InvalidSender: it is ambiguous, or no address.
    """
    if _is_plain(raw):
        return raw
    text = _text(raw, "sender")
    spec = _bare(text)
    if not spec and (not text or text[-1] == ">"):
        return ""
    return _checked(spec, text, "sender")


def split_list(text: str) -> list[str]:
    """Cut a list of addresses at its commas, but not within quotes, comments and angle brackets."""
    # No honest list has so many; it would keep us busy.
    pieces = text.split(",") if text.count('\\"') > _MANY_ESCAPES else _SEPARATED.findall(text)
    return [part for piece in pieces if (part := piece.strip())]


def names_nobody(text: str) -> bool:
    """Say whether there is no address in it: blanks, separators, ``<>``, or a group without members."""
    if _is_plain(text):
        return False
    bare = text.strip(" ,;")
    return bare in {"", "<>"} or (bare[-1] == ":" and _EMPTY_GROUP.fullmatch(bare) is not None)


def is_ascii(address: str) -> bool:
    """Say whether a relay without SMTPUTF8 can be given this address (RFC 6531, 3.2)."""
    return address.isascii()


def to_ascii(address: str) -> str | None:
    """Return the address in ASCII, or None if it has no such spelling."""
    if is_ascii(address):
        return address
    local, at, domain = address.rpartition("@")
    spelled = ascii_domain(domain)
    return f"{local}{at}{spelled}" if is_ascii(local) and spelled else None


def _is_plain(raw: object) -> TypeGuard[str]:
    """Say whether this is an address as it stands; False says nothing."""
    return type(raw) is str and len(raw) <= MAX_OCTETS and _PLAIN.fullmatch(raw) is not None


def _text(raw: object, role: str) -> str:
    """Return the text of `raw`, without blanks and unseen characters at its ends."""
    if isinstance(raw, (bytes, bytearray, memoryview)):
        try:
            raw = bytes(raw).decode("utf-8")
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
    return _ENDS.sub("", str(raw))


def _bare(text: str) -> str:
    """Return the address in `text` as it is written: without display name, group, route and comments."""
    group = _GROUP.fullmatch(text.rstrip(" ,"))
    if group:
        return _bare(group["members"].strip())
    text = text.strip(" ,;")
    angle = _ANGLE.fullmatch(text) or _HALF_ANGLE.fullmatch(text)
    if angle is None:
        return _plainer(text)
    found = angle.groupdict()
    return _plainer(found["spec"] if found["spec"] is not None else found["closed"])


def _plainer(spec: str) -> str:
    """Drop what RFC 5322, 4.4 lets stand around the parts of an address: a route, comments, blanks."""
    spec = _ENDS.sub("", spec)
    if '"' in spec:
        return _TRAILING.sub("", spec)
    spec = _ROUTE.sub("", spec, count=1) if spec.startswith("@") else spec
    while "(" in spec and (shorter := _COMMENT.sub(" ", spec)) != spec:  # comments nest
        spec = shorter
    return _AROUND.sub("@", spec.strip())


def _checked(spec: str, text: str, role: str) -> str:
    if _LOCAL_NAME.fullmatch(spec):
        return spec
    hidden = _hidden_in(spec)
    if hidden:
        why = f"the {role} {text!r} has {hidden} in it, a character that is not seen; remove it"
        raise _invalid(why, role, text)
    match = _SPEC.fullmatch(spec)
    if match is None:
        why = f"the {role} {text!r} is not an address of the form local@domain; {_cure(spec, role)}"
        raise _invalid(why, role, text)
    return f"{match[1]}@{match[2]}"


def _hidden_in(spec: str) -> str:
    """Return the name of the first character that people do not see, or the empty string."""
    for match in _HIDDEN.finditer(spec):
        character, before = match[0], spec[match.start() - 1 : match.start()]
        if character in _JOINERS and before and _joins(before):
            continue
        return f"{unicodedata.name(character, 'an unnamed character')} (U+{ord(character):04X})"
    return ""


def _joins(before: str) -> bool:
    """Say whether a joiner has a meaning behind this character: behind a virama, or an Arabic letter."""
    return unicodedata.combining(before) == _VIRAMA or unicodedata.bidirectional(before) == "AL"


def _invalid(why: str, role: str, raw: object) -> InvalidAddress:
    passed = raw if isinstance(raw, str) else repr(raw)
    return InvalidSender(why, passed) if role == "sender" else InvalidRecipient(why, passed)


def _cure(spec: str, role: str) -> str:
    if spec.count("@") > 1 and ("," in spec or ";" in spec or " " in spec):
        return "a mail has one sender" if role == "sender" else "pass several recipients as a list"
    return "correct it"
