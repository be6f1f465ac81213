"""What answers at a link to unsubscribe: a WSGI application, to be mounted at the address of `UnsubscribeLinks`.

A mail program posts, and that is all (RFC 8058, 3.2); a person who follows the link sees one button, since programs
that look for viruses follow links as well (RFC 8058, 1).  Neither needs a cookie, and nothing is sent elsewhere.
"""

from __future__ import annotations

import html
import logging
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs

from zope.sendmail.message.unsubscribe import FIELD, ONE_CLICK, InvalidLink, Subscription, UnsubscribeLinks
from zope.sendmail.system.clock import Clock

log = logging.getLogger("zope.sendmail.contrib.unsubscribe")

#: Octets of a form that are read.
_MOST = 4096

_HEADERS = (
    ("Content-Type", "text/html; charset=utf-8"),
    ("Content-Security-Policy", "default-src 'none'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Robots-Tag", "noindex"),
    ("Cache-Control", "no-store"),
)

_PAGE = """\
<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title></head><body><main><h1>{title}</h1>
{body}</main></body></html>
"""

_FORM = """\
<form method="post"><input type="hidden" name="{field}" value="{value}">
<p>{question}</p><p><button>Unsubscribe</button></p></form>
"""

_STATUS = {
    200: "200 OK",
    400: "400 Bad Request",
    404: "404 Not Found",
    405: "405 Method Not Allowed",
    503: "503 Service Unavailable",
}


class UnsubscribeEndpoint:
    """See the module.  Concurrency: that of `on_unsubscribe`.

    :param links: what has made the links.
    :param on_unsubscribe: called with the subscription that ends; may be called again with the same one.  What it
        raises is logged, and told as 503: mail programs and people try again.
    """

    def __init__(self, links: UnsubscribeLinks, on_unsubscribe: Callable[[Subscription], object]) -> None:
        self._links = links
        self._on_unsubscribe = on_unsubscribe

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request."""
        status, title, body = self._answer(environ)
        page = _PAGE.format(title=html.escape(title), body=body).encode()
        headers = [*_HEADERS, ("Content-Length", str(len(page)))]
        if status == 405:
            headers.append(("Allow", "GET, HEAD, POST"))
        start_response(_STATUS[status], headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [page]

    def _answer(self, environ: dict[str, Any]) -> tuple[int, str, str]:
        """Return status, title and HTML."""
        try:
            subscription = self._links.read(environ.get("PATH_INFO", "").rpartition("/")[2])
        except InvalidLink as error:
            return 404, "No such link", f"<p>{html.escape(str(error))}</p>"
        method = environ["REQUEST_METHOD"]
        if method in ("GET", "HEAD"):
            return 200, "Unsubscribe", _form(subscription)
        if method != "POST":
            return 405, "Not here", "<p>Unsubscribing is a POST.</p>"
        if _posted(environ) != ONE_CLICK:
            return 400, "Not unsubscribed", _form(subscription)
        return self._unsubscribed(subscription)

    def _unsubscribed(self, subscription: Subscription) -> tuple[int, str, str]:
        try:
            self._on_unsubscribe(subscription)
        except Exception:
            log.exception("An address could not be unsubscribed from %r.", subscription.list_name)
            return 503, "Please try again", "<p>It did not work, and we know why. Please try again later.</p>"
        return 200, "Unsubscribed", f"<p>{_named(subscription, '{} gets no more mail{}.')}</p>"


def suppress_in(queue: Any) -> Callable[[Subscription], None]:
    """Return what puts an address on the suppression list of a queue: it gets no mail of that queue any more.

    :param queue: an `IMailQueue`.
    """
    from zope.sendmail.lifecycle.suppression import Suppression

    def suppress(subscription: Subscription) -> None:
        name = f" from {subscription.list_name}" if subscription.list_name else ""
        queue.suppressions.add(Suppression.of(subscription.address, f"unsubscribed{name}", since=Clock().time()))

    return suppress


def _form(subscription: Subscription) -> str:
    question = _named(subscription, "Shall {} get no more mail{}?")
    return _FORM.format(field=FIELD, value=ONE_CLICK, question=question)


def _named(subscription: Subscription, text: str) -> str:
    name = f" from {subscription.list_name}" if subscription.list_name else ""
    return text.format(f"<strong>{html.escape(subscription.address)}</strong>", html.escape(name))


def _posted(environ: dict[str, Any]) -> str:
    """Return what the form says, which mail programs send in either encoding of HTML (RFC 8058, 3.2)."""
    try:
        length = min(int(environ.get("CONTENT_LENGTH") or 0), _MOST)
    except ValueError:
        return ""
    body: str = environ["wsgi.input"].read(length).decode("utf-8", "replace")
    if environ.get("CONTENT_TYPE", "").lower().startswith("multipart/form-data"):
        return _in_multipart(body, environ["CONTENT_TYPE"])
    return parse_qs(body).get(FIELD, [""])[0].strip()


def _in_multipart(body: str, kind: str) -> str:
    from email import message_from_string

    for part in message_from_string(f"Content-Type: {kind}\n\n{body}").walk():
        if part.get_param("name", header="Content-Disposition") == FIELD:
            return str(part.get_payload()).strip()
    return ""
