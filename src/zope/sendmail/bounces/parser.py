"""What one bounce says.  Pure.

RFC 3464 for reports, RFC 6533 for those in UTF-8; whatever has another form, flufl.bounce reads.  RFC 3834 for answers
of machines, which are none.
"""

from __future__ import annotations

import email
import email.policy
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from email.message import EmailMessage, Message
from email.utils import getaddresses
from enum import StrEnum
from typing import Any

from zope.sendmail.errors import InvalidAddress
from zope.sendmail.lifecycle.outcome import printable
from zope.sendmail.lifecycle.suppression import says_gone
from zope.sendmail.message.address import parse_recipient
from zope.sendmail.message.verp import whom
from zope.sendmail.message.verpkey import VerpKey

#: Characters of what a bounce says that are kept, and octets of its text in which a code is looked for.
_MOST, _MOST_TEXT = 500, 4000

_ID = re.compile(r"<([^<>\s]+)>")
_STATUS = re.compile(r"\b([245]\.\d{1,3}\.\d{1,3})\b")
#: The types of a report in UTF-8 and of what it brings back, and those that say the same and that the standard library
#: knows.
_GLOBAL = re.compile(
    rb"^(content-type:\s*)message/global(-headers|-delivery-status)?(?=[\s;]|\Z)", re.IGNORECASE | re.MULTILINE
)
_AS_KNOWN = {
    b"": b"message/rfc822",
    b"-headers": b"text/rfc822-headers",
    b"-delivery-status": b"message/delivery-status",
}
#: A character in an address of the type ``utf-8`` (RFC 6533, 3).
_ESCAPED = re.compile(r"\\x\{(10[0-9A-F]{4}|[0-9A-F]{2,5})\}", re.IGNORECASE)
#: A code without a better one, in the words of a relay.
_CODE = re.compile(r"\b([45])\d\d\b")


#: Codes that say nothing of the recipient's address (RFC 3463, 3; RFC 7505; RFC 7372): the sender's address, a full
#: mailbox, the size, the host, loops and time, the protocol, the content, policy and authentication.
_NOT_THE_ADDRESS = re.compile(r"5\.(?:1\.[78]|2\.[23]|3\.[1-9]\d*|4\.[567]|[567]\.\d+)\Z")

#: The same in words, where there is no code, or the general one.
_NOT_THE_ADDRESS_IN_WORDS = re.compile(
    r"\b55[24][ -]|\b(?:spam|policy|blocked|(?:black|block|deny)-?list\w*|reputation|spf|dkim|dmarc|virus|malware|"
    r"content|too (?:large|big|long)|size|quota|full|storage|rate|relay(?:ing)? (?:access )?(?:denied|not))\b",
    re.IGNORECASE,
)


class Verdict(StrEnum):
    """How a recipient stands after a bounce."""

    #: The mail did not arrive, and the next one will not either: there is no such recipient.
    PERMANENT = "permanent"
    #: The mail was refused for what it is, where it comes from, or for want of room; another one may arrive.
    REFUSED = "refused"
    #: The mail did not arrive; the next one may.
    TEMPORARY = "temporary"
    #: It is still tried.
    DELAYED = "delayed"
    #: It did not arrive, and the bounce does not say why.
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Bounce:
    """What a bounce says about one recipient."""

    recipient: str
    verdict: Verdict
    #: The code of RFC 3463, such as ``5.1.1``; empty if there is none.
    status: str = ""
    #: What was said, printable and not long.
    words: str = ""
    #: The Message-Id of the mail that did not arrive, without angle brackets; empty if the bounce does not show it.
    message_id: str = ""
    #: Whether the bounce came to a return path that we have signed for this recipient.
    is_authentic: bool = False


def read_bounce(
    message: bytes, return_path: str = "", *, senders: Iterable[str] = (), key: VerpKey | None = None, day: int = 0
) -> list[Bounce]:
    """Return what a message says, if it is a bounce; a notice of delay is one; nothing for anything else.

    :param return_path: the address to which it came, the envelope's recipient.
    :param senders: the envelope senders whose mail was sent with ``verp=True``, as they were passed to ``send()``.
    :param key: what has signed the return paths.
    :param day: today, since the epoch.
    """
    message = _GLOBAL.sub(_as_known, message)
    parsed = email.message_from_bytes(message, policy=email.policy.default)
    assert isinstance(parsed, EmailMessage)
    if _is_answer(parsed):
        return []
    said = list(_reported(parsed)) or list(_detected(message))
    identifier = _original_id(parsed)
    said = [replace(each, message_id=identifier) for each in said]
    about = _signed_for(return_path, senders, key, day)
    if not about:
        return said
    if said:
        return [replace(_about(about, said), recipient=about, is_authentic=True)]
    if _has_null_sender(parsed):
        text = printable(str(parsed["Subject"] or ""))[:_MOST]
        return [Bounce(about, Verdict.UNKNOWN, "", text, identifier, is_authentic=True)]
    return []


def _as_known(match: re.Match[bytes]) -> bytes:
    return match[1] + _AS_KNOWN[(match[2] or b"").lower()]


def is_automatic(message: bytes) -> bool:
    """Return whether a program says that it wrote a message, or that many people get it (RFC 3834, RFC 2919)."""
    parsed = email.message_from_bytes(message)
    submitted = str(parsed["Auto-Submitted"] or "no").strip().lower()
    precedence = str(parsed["Precedence"] or "").strip().lower()
    return submitted != "no" or precedence in ("bulk", "junk", "list", "auto_reply") or "List-Id" in parsed


def _signed_for(return_path: str, senders: Iterable[str], key: VerpKey | None, day: int) -> str:
    """Return the recipient for which a return path was signed; empty if it was not."""
    if key is None:
        return ""
    try:
        path = key.checked(return_path, day)
    except InvalidAddress:
        return ""
    for sender in senders:
        try:
            return whom(path, sender)
        except InvalidAddress:
            continue
    return ""


def _about(recipient: str, said: list[Bounce]) -> Bounce:
    """Return what was said about a recipient; a forwarder reports its own addresses, of which the mildest counts."""
    for each in said:
        if each.recipient.lower() == recipient.lower():
            return each
    order = (Verdict.DELAYED, Verdict.TEMPORARY, Verdict.REFUSED, Verdict.UNKNOWN, Verdict.PERMANENT)
    return min(said, key=lambda each: order.index(each.verdict))


def _is_answer(message: EmailMessage) -> bool:
    """Say whether a machine of the recipient has answered: on holiday, ticket opened (RFC 3834, 5)."""
    submitted = str(message["Auto-Submitted"] or "").partition(";")[0].strip().lower()
    answers = message["X-Autoreply"] or message["X-Autorespond"]
    precedence = str(message["Precedence"] or "").strip().lower()
    return (submitted == "auto-replied" and not _is_report(message)) or bool(answers) or precedence == "auto_reply"


def _is_report(message: EmailMessage) -> bool:
    return message.get_content_type() == "multipart/report"


def _has_null_sender(message: EmailMessage) -> bool:
    return str(message["Return-Path"] or "").strip() == "<>"


# --- reports in the standard's form -----------------------------------------------------------------------------


def _reported(message: EmailMessage) -> Iterator[Bounce]:
    """Yield what the parts of type message/delivery-status say (RFC 3464, 2)."""
    for part in message.walk():
        if part.get_content_type() == "message/delivery-status":
            groups: Any = part.get_payload()
            for group in groups if isinstance(groups, list) else ():
                bounce = _of_group(group)
                if bounce is not None:
                    yield bounce


def _of_group(group: Message) -> Bounce | None:
    """Return what a group of fields says; None for that of the whole message, and for what arrived."""
    recipient = _address(group["Original-Recipient"]) or _address(group["Final-Recipient"])
    action = str(group["Action"] or "failed").split("(")[0].strip().lower()
    if not recipient or action not in ("failed", "delayed"):
        return None
    diagnostic = printable(str(group["Diagnostic-Code"] or "").partition(";")[2].strip())[:_MOST]
    found = _STATUS.search(str(group["Status"] or ""))
    status = _better(found[1] if found else "", diagnostic)
    return Bounce(recipient, _verdict(action, status, diagnostic), status, diagnostic)


def _better(status: str, diagnostic: str) -> str:
    """Return the relay's own code where the report has only the general one."""
    said = _STATUS.search(diagnostic)
    is_general = not status or status.endswith(".0.0")
    return said[1] if is_general and said and (not status or said[1][0] == status[0]) else status


def _verdict(action: str, status: str, diagnostic: str) -> Verdict:
    if action == "delayed":
        return Verdict.DELAYED
    code = status[:1] or (match[1] if (match := _CODE.search(diagnostic)) else "")
    if code == "5" and not _is_about_address(status, diagnostic):
        return Verdict.REFUSED
    return {"5": Verdict.PERMANENT, "4": Verdict.TEMPORARY}.get(code, Verdict.UNKNOWN)


def _is_about_address(status: str, words: str) -> bool:
    """Return whether a failure for good is one of the recipient's address, and not of the mail."""
    if status and not status.endswith(".0.0"):
        return _NOT_THE_ADDRESS.match(status) is None
    return says_gone(words) or _NOT_THE_ADDRESS_IN_WORDS.search(words) is None


def _address(field: object) -> str:
    """Return the address in ``rfc822; jane@example.org`` or ``utf-8; j\\x{FC}@example.org``; empty if there is none."""
    kind, _, text = str(field or "").partition(";")
    kind = kind.strip().lower()
    if kind == "utf-8":
        text = _ESCAPED.sub(lambda match: chr(int(match[1], 16)), text)
    try:
        return parse_recipient(text.strip()) if kind in ("rfc822", "utf-8") else ""
    except InvalidAddress:
        return ""


# --- everything else --------------------------------------------------------------------------------------------


def _detected(message: bytes) -> Iterator[Bounce]:
    """Yield what flufl.bounce finds in the forms of many MTAs."""
    try:
        from flufl.bounce import all_failures
    except ImportError:  # the extra is not installed: reports only
        return
    parsed = email.message_from_bytes(message)
    if not any(address for _, address in getaddresses([str(parsed["From"] or "")])):
        del parsed["From"]  # one of its detectors counts on an address there, and ends all
        parsed["From"] = "mailer-daemon@invalid"
    try:
        temporary, permanent = all_failures(parsed)
    except Exception:  # noqa: BLE001 - it reads whatever hosts send, and falls over some of it
        return
    code = _STATUS.search(_first_text(parsed))
    status = code[1] if code else ""
    for_good = _verdict("failed", status, "") if status else Verdict.PERMANENT
    for addresses, verdict in ((temporary, Verdict.TEMPORARY), (permanent, for_good)):
        for octets in sorted(addresses):
            try:
                yield Bounce(parse_recipient(octets.decode("utf-8", "replace")), verdict, status)
            except InvalidAddress:
                continue


def _first_text(message: Message) -> str:
    """Return what a host says in words: the first text, without what it brings back."""
    for part in message.walk():
        if part.get_content_maintype() == "text":
            octets: Any = part.get_payload(decode=True)
            return str(octets[:_MOST_TEXT].decode("utf-8", "replace")) if octets else ""
    return ""


def _original_id(message: EmailMessage) -> str:
    """Return the Message-Id of the mail that a bounce brings back, whole or its header."""
    for part in message.walk():
        kind = part.get_content_type()
        if kind == "text/rfc822-headers":
            match = _ID.search(_field(str(part.get_payload()), "message-id"))
            return match[1] if match else ""
        if part is not message and kind == "message/rfc822":
            payload: Any = part.get_payload()
            match = _ID.search(str(payload[0]["Message-Id"] or "")) if payload else None
            return match[1] if match else ""
    return ""


def _field(headers: str, name: str) -> str:
    return str(email.message_from_string(headers)[name] or "")
