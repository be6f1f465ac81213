"""Links with which a recipient leaves a list, at the press of one button: RFC 2369, 3.2, and RFC 8058.

::

    links = UnsubscribeLinks("https://shop.example.org/unsubscribe", secret)
    for name, value in links.fields("jane@example.com", "news").items():
        message[name] = value

Pure.  `zope.sendmail.contrib.unsubscribe` is what answers at the address.  Gmail and Yahoo ask bulk senders for it, and
for a DKIM signature that covers both fields (`zope.sendmail.transports.dkim` does).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass
from urllib.parse import urlsplit

from zope.sendmail.errors import InvalidMail, InvalidSettings
from zope.sendmail.message.address import parse_recipient

#: Octets of a secret at least, and of a signature.
_LEAST = _SIGNATURE = 16

#: What is between the list and the address; neither can have it.
_BETWEEN = "\n"

#: What a mail program posts (RFC 8058, 3.2).
FIELD, ONE_CLICK = "List-Unsubscribe", "One-Click"


class InvalidLink(InvalidMail):
    """A link to unsubscribe that we have not made, or of which a piece is missing."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """An address, and the list that it is on; an empty list is all mail."""

    address: str
    list_name: str = ""


class UnsubscribeLinks:
    """Makes links, and reads them.

    :param url: the address below which they are, with https (RFC 8058, 3.1).
    :param secret: at least 16 random octets; a program that has it can unsubscribe any address.
    :raises InvalidSettings: one of them cannot be meant.
    """

    def __init__(self, url: str, secret: bytes) -> None:
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.netloc or parts.query or parts.fragment or not url.isascii():
            raise InvalidSettings(f"{url!r} cannot be one click away; write https://example.org/unsubscribe")
        if not isinstance(secret, bytes):
            raise InvalidSettings(
                f"the secret is a {type(secret).__name__}, not bytes; pass secret.encode(), or a file's read_bytes()"
            )
        if len(secret) < _LEAST:
            raise InvalidSettings(
                f"the secret has {len(secret)} octets, not {_LEAST}; make one: openssl rand -base64 24"
            )
        self.url = url.rstrip("/")
        self._secret = secret

    def token(self, address: str, list_name: str = "") -> str:
        """Return what stands for a subscription, in letters that any URL may have.

        :raises InvalidRecipient: it is no address.
        """
        if _BETWEEN in list_name:
            raise InvalidSettings(f"the list {list_name!r} has a line end in its name")
        text = f"{list_name}{_BETWEEN}{parse_recipient(address)}".encode()
        return base64.urlsafe_b64encode(self._signature(text) + text).rstrip(b"=").decode("ascii")

    def link(self, address: str, list_name: str = "") -> str:
        """Return the link, for a text such as "unsubscribe here": there a button has to be pressed."""
        return f"{self.url}/{self.token(address, list_name)}"

    def fields(self, address: str, list_name: str = "") -> dict[str, str]:
        """Return the header fields of a mail to one recipient; a mail to several cannot have them."""
        return {
            "List-Unsubscribe": f"<{self.link(address, list_name)}>",
            "List-Unsubscribe-Post": f"{FIELD}={ONE_CLICK}",
        }

    def read(self, token: str) -> Subscription:
        """Return the subscription that a token stands for.

        :raises InvalidLink: it was not made with this secret.
        """
        try:
            octets = base64.urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4))
        except (UnicodeEncodeError, binascii.Error):
            raise InvalidLink("this link is not whole; copy all of it") from None
        signature, text = octets[:_SIGNATURE], octets[_SIGNATURE:]
        if not hmac.compare_digest(signature, self._signature(text)):
            raise InvalidLink("this link is not whole, or not one of ours")
        list_name, _, address = text.decode("utf-8").partition(_BETWEEN)
        return Subscription(address, list_name)

    def _signature(self, text: bytes) -> bytes:
        return hmac.digest(self._secret, b"unsubscribe " + text, hashlib.sha256)[:_SIGNATURE]

    def __repr__(self) -> str:
        return f"UnsubscribeLinks({self.url!r}, ...)"
