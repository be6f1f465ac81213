"""A message as callers pass it, made into octets that any relay and any reader understands.

Bytes stay as they are.  Text beyond ASCII in a ``str`` or a message object becomes valid MIME: header fields as encoded
words, addresses outside of them (RFC 2047, 5), a charset for the body.  What a message declares itself is kept.  Pure.
Fails with `InvalidMessage`.  RFC 2045 to 2047; RFC 6532 for addresses that have no spelling in ASCII.
"""

from __future__ import annotations

import codecs
import copy
import re
from collections.abc import Callable, Iterable, Mapping
from email.errors import MessageError
from email.header import Header
from email.message import Message
from email.policy import EmailPolicy

from zope.sendmail.errors import InvalidMessage
from zope.sendmail.message.address import split_list, to_ascii
from zope.sendmail.message.generator import in_pieces
from zope.sendmail.message.headers import fields_of, in_front, line_end
from zope.sendmail.message.pieces import Piece, joined

#: Fields that hold addresses: names before them are encoded, the addresses are not.
_ADDRESSES = frozenset(
    b"from sender reply-to to cc bcc resent-from resent-sender resent-to resent-cc resent-bcc errors-to "
    b"disposition-notification-to return-receipt-to mail-followup-to".split()
)

#: Fields with a syntax of their own, in which an encoded word would be no word (RFC 2047, 5).
_STRUCTURED = frozenset(
    b"message-id in-reply-to references date resent-date resent-message-id received return-path mime-version "
    b"content-type content-transfer-encoding content-disposition content-id dkim-signature arc-seal "
    b"authentication-results list-id list-unsubscribe list-unsubscribe-post list-post list-help list-archive".split()
)

#: Fields among them that are made of identifiers and links, which may be longer than a line.
_LINKS = frozenset(
    b"message-id in-reply-to references resent-message-id list-id list-unsubscribe list-unsubscribe-post list-post "
    b"list-help list-archive".split()
)

#: Octets that a word may have before generators of the email package find it too long.
_LONG = 40

_FOLD = re.compile(r"(?:\r\n|\n|\r)(?=[ \t])")
_NAMED = re.compile(r"\s*(?P<name>\"(?:[^\"\\]|\\.)*\"|[^<>\"]*?)\s*<(?P<address>[^<>]*)>\s*")
_COMMENTED = re.compile(r"\s*(?P<address>[^\s()<>]+@[^\s()<>]+)\s*\((?P<name>[^()]*)\)\s*")
_ESCAPED = re.compile(r"\\(.)")
_CHARSET = re.compile(rb"charset\s*=\s*\"?([A-Za-z0-9_.:+-]+)", re.IGNORECASE)
_TEXT = re.compile(rb"\s*text/", re.IGNORECASE)

#: Octets of an encoded line, as RFC 2047, 2 has it.
_MAX_LINE = 76

#: What a generator of the email package raises for an object that it cannot write.
_UNWRITABLE = (MessageError, ValueError, LookupError, TypeError, AttributeError)


def message_pieces(message: object) -> tuple[Piece, ...]:
    """Return the message as it is handed on, in pieces; its whole header is in the first one.

    :param message: ``str``, ``bytes``, or an object of the email package.
    :raises InvalidMessage: it is none of these, or cannot be written.
    """
    return _of_object(message) if isinstance(message, Message) else (message_bytes(message),)


def message_bytes(message: object) -> bytes:
    """Return the message as it is handed on, in one piece; see `message_pieces`."""
    if isinstance(message, bytes):
        return message
    if isinstance(message, (bytearray, memoryview)):
        return bytes(message)
    if isinstance(message, str):
        return _of_text(message)
    if isinstance(message, Message):
        return joined(_of_object(message))
    raise InvalidMessage(f"the message is {message!r:.80}; pass str, bytes or an email.message object")


# --- a text ---------------------------------------------------------------------------------------------------


def _of_text(text: str) -> bytes:
    try:
        octets = text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidMessage(f"the message cannot be written as UTF-8: {error}") from error
    if len(octets) == len(text):  # ASCII, which is no question of MIME
        return octets
    fields = list(fields_of(octets))
    end = fields[-1].end() if fields else 0
    head, body = octets[:end], octets[end:]
    if not body.isascii():
        head, body = _with_charset(head, body)
    return _encoded_fields(head) + body if head else body


def _with_charset(head: bytes, body: bytes) -> tuple[bytes, bytes]:
    """Return header and body, which has text beyond ASCII in UTF-8, so that they fit together."""
    fields = {match["name"].lower(): match for match in fields_of(head)}
    kind = fields.get(b"content-type")
    if kind is not None and not _TEXT.match(kind["value"]):
        return head, body  # its parts declare what they are
    charset = None if kind is None else _CHARSET.search(kind["value"])
    if charset is not None:
        return head, _in_charset(body, charset[1].decode("ascii"))
    eol = line_end(head or body)
    if kind is not None:
        value = kind["value"].rstrip() + b'; charset="utf-8"' + eol
        head = head[: kind.start("value")] + value + head[kind.end() :]
    missing = {
        b"mime-version": b"MIME-Version: 1.0",
        b"content-type": b'Content-Type: text/plain; charset="utf-8"',
        b"content-transfer-encoding": b"Content-Transfer-Encoding: 8bit",
    }
    added = b"".join(line + eol for name, line in missing.items() if name not in fields)
    whole = in_front(head + body, added)
    return whole[: len(whole) - len(body)], body


def _in_charset(body: bytes, charset: str) -> bytes:
    """Return the body, which is UTF-8, in the charset that the message declares, if it has all the characters."""
    try:
        if codecs.lookup(charset).name == "utf-8":
            return body
        return body.decode("utf-8").encode(charset)
    except (LookupError, UnicodeError):
        return body


def _encoded_fields(head: bytes) -> bytes:
    """Return the header with encoded words where it has text beyond ASCII, given as UTF-8."""
    return _with_values(head, lambda name, value: None if value.isascii() else _encoded(name, value.decode("utf-8")))


def _with_values(head: bytes, change: Callable[[bytes, bytes], str | None]) -> bytes:
    """Return the header with other values for some fields.

    :param change: called with the name of a field in lower case, and its value; returns the new one, or None.
    """
    eol = line_end(head).decode("ascii")
    pieces, position = [], 0
    for match in fields_of(head):
        value = change(match["name"].lower(), match["value"])
        if value is not None:
            folded = re.sub(r"\r?\n", eol, value)
            pieces += [head[position : match.start("value")], b" ", folded.encode("utf-8")]
            position = match.end("value")
    return b"".join([*pieces, head[position:]])


def _encoded(name: bytes, value: str) -> str | None:
    """Return the value of a field in ASCII, but for addresses that have no such spelling; None: as it is."""
    if name in _STRUCTURED:
        return None
    text = _FOLD.sub("", value).strip()
    if name in _ADDRESSES:
        return _encoded_addresses(text, len(name) + 2)
    return _word(text, len(name) + 2)


# --- addresses in a header ------------------------------------------------------------------------------------


def _encoded_addresses(text: str, column: int) -> str:
    return ",\n ".join(_encoded_address(each, column) for each in split_list(text))


def _encoded_address(text: str, column: int) -> str:
    if text.isascii():
        return text
    match = _NAMED.fullmatch(text) or _COMMENTED.fullmatch(text)
    if match is None:
        return _spelled(text)
    name, address = match["name"], f"<{_spelled(match['address'])}>"
    if name.isascii():
        return f"{name} {address}" if name else address
    if name.startswith('"'):
        name = _ESCAPED.sub(r"\1", name[1:-1])
    return f"{_word(name, column)} {address}"


def _spelled(address: str) -> str:
    """Return an address in ASCII if it has such a spelling, or as it is (RFC 6532, 3.2)."""
    return to_ascii(address.strip()) or address.strip()


def _word(text: str, column: int) -> str:
    """Return `text` as encoded words, folded; a character that is lost stays lost."""
    return Header(text.encode("utf-8", "replace").decode("utf-8"), "utf-8", _MAX_LINE - column).encode()


# --- a message object -----------------------------------------------------------------------------------------


def _of_object(message: Message) -> tuple[Piece, ...]:
    try:
        head, *rest = _written(message)
    except _UNWRITABLE as error:
        raise InvalidMessage(f"the message object cannot be written: {type(error).__name__}: {error}") from error
    values = {name.lower(): message.get_all(name, []) for name in message.keys()}  # noqa: SIM118 - its keys repeat
    is_wrong = _has_addresses if isinstance(message.policy, EmailPolicy) else _has_text
    wrong = {
        name: found
        for name, found in values.items()
        if (name.encode() in _ADDRESSES and is_wrong(found)) or (name.encode() in _LINKS and _has_long_word(found))
    }
    return (_with_fields(bytes(head), wrong) if wrong else head, *rest)


def _written(message: Message) -> tuple[Piece, ...]:
    try:
        return in_pieces(message)
    except UnicodeEncodeError:  # text without a charset
        return in_pieces(_declared(message))


def _declared(message: Message) -> Message:
    """Return a copy in which every text beyond ASCII has a charset, the one that its part declares if it fits."""
    message = copy.deepcopy(message)
    for part in message.walk():
        payload = part.get_payload()
        if not isinstance(payload, str) or payload.isascii():
            continue
        charset = part.get_content_charset() or "utf-8"
        try:
            payload.encode(charset)
        except (LookupError, UnicodeError):
            charset = "utf-8"
        del part["Content-Transfer-Encoding"]
        part.set_payload(payload, charset)
    return message


def _has_text(values: Iterable[object]) -> bool:
    """Say whether there is anything beyond ASCII; older generators encode addresses together with the names."""
    return any(not str(value).isascii() for value in values)


def _has_addresses(values: Iterable[object]) -> bool:
    """Say whether an address itself, not only a name before it, has text beyond ASCII."""
    return any(not _address_part(each).isascii() for value in values for each in split_list(str(value)))


def _address_part(text: str) -> str:
    match = _NAMED.fullmatch(text) or _COMMENTED.fullmatch(text)
    return match["address"] if match else text


def _has_long_word(values: Iterable[object]) -> bool:
    """Say whether a word is longer than a line; generators of the email package put it into encoded words then."""
    return any(str(value).isascii() and max(map(len, str(value).split()), default=0) > _LONG for value in values)


def _with_fields(octets: bytes, values: Mapping[str, Iterable[object]]) -> bytes:
    """Write the fields anew of which the generator has put something into encoded words that has none (RFC 2047, 5)."""
    left = {name.encode(): [str(value) for value in found] for name, found in values.items()}

    def change(name: bytes, _: bytes) -> str | None:
        found = left.get(name)
        if not found:
            return None
        value = _FOLD.sub("", found.pop(0))
        return "\n ".join(value.split()) if name in _LINKS else _encoded_addresses(value, len(name) + 2)

    end = max((match.end() for match in fields_of(octets)), default=0)
    return _with_values(octets[:end], change) + octets[end:]
