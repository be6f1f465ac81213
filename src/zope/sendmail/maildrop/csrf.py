"""Whether a request was made by a page of this site: what keeps other sites from using a manager's login (CSRF).

Browsers say it themselves, in headers that no script can set: ``Sec-Fetch-Site`` (W3C Fetch Metadata, sent to https and
localhost), else ``Origin`` (RFC 6454), else ``Referer``. No secret is needed, so it holds over restarts and across Zope
processes. A request without any of the three is refused too; programs that mean it send an ``Origin``. See
docs/explanation/decisions/maildrophost.rst.
"""

from __future__ import annotations

from urllib.parse import urlsplit

_PORTS = {"http": 80, "https": 443}


def refusal(method: str, site_url: str, *, fetch_site: str = "", origin: str = "", referer: str = "") -> str:
    """Return why the request must not change anything; the empty string if it may.

    `site_url` is scheme, host and port by which the site is known to its browsers; the others are headers.
    """
    if method != "POST":
        return f"changes are made by POST, not by {method}"
    if fetch_site:
        own = fetch_site.lower() in {"same-origin", "none"}  # none: the user did it without any page
    else:
        own = _same(origin or referer, site_url)
    return "" if own else f"the request does not come from a page of this site ({site_url})"


def _same(one: str, other: str) -> bool:
    return bool(one) and _place(one) is not None and _place(one) == _place(other)


def _place(url: str) -> tuple[str, str, int] | None:
    """Scheme, host and port; None if it does not say."""
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError:
        return None
    return (parts.scheme, parts.hostname, port) if parts.hostname else None
