"""What keeps the console from being used by others than operators: cookies, forms, headers, host names.

OWASP Cheat Sheets, *Cross-Site Request Forgery Prevention*: an HMAC of the session in each form, SameSite cookies, and
the browser's own word about where a request comes from (Fetch Metadata).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Collection
from urllib.parse import urlsplit

from werkzeug.exceptions import BadRequest, Forbidden, Unauthorized
from werkzeug.wrappers import Request, Response

#: How the names of cookies begin; consoles of other queues on other ports of the host have others.
_SESSION, _LOGIN = "zope_sendmail_session", "zope_sendmail_login"

#: A key of the WSGI environment: bytes that sign the forms of this request instead of the console's own.  The
#: application around the console may set it; a browser cannot.
SECRET = "zope.sendmail.secret"  # noqa: S105 - the name of a key

#: The form field that proves that a form is ours.
FIELD = "csrf"

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Guard:
    """Decides about requests.

    :param token: what an operator has to know; None: the application around it has decided already
    :param hosts: names by which browsers may call this server, without port; None: any.  A server on loopback needs
        them: another site's name may lead there (DNS rebinding)
    :param secret: signs forms; processes that serve one console share it
    :param whose: tells the cookies of this console from those of another one
    """

    def __init__(
        self, token: str | None, hosts: Collection[str] | None, secret: bytes | None = None, whose: str = ""
    ) -> None:
        if token is not None and len(token) < 16:
            raise ValueError(
                "the token of the console is shorter than 16 characters; secrets.token_urlsafe() makes one"
            )
        self._token = token
        self._hosts = None if hosts is None else frozenset(host.lower() for host in hosts)
        self._secret = secret or secrets.token_bytes(32)
        mark = hashlib.sha256(whose.encode("utf-8", "replace")).hexdigest()[:8]
        self._session, self._login = f"{_SESSION}_{mark}", f"{_LOGIN}_{mark}"

    def check_host(self, request: Request) -> None:
        """Refuse a request under a name that is not ours.

        :raises BadRequest: then
        """
        host = request.host.lower()
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() and not host.endswith("]") else host
        if self._hosts is not None and name not in self._hosts:
            raise BadRequest("This server has another name.")

    def check_login(self, request: Request) -> None:
        """Refuse a request without a login.

        :raises Unauthorized: then
        """
        if self._token is not None and not self._equal(
            request.cookies.get(self._login, ""), self._sign("login", self._token)
        ):
            raise Unauthorized("Please log in.")

    def is_token(self, said: str) -> bool:
        """Return whether this is the token."""
        return self._token is not None and self._equal(said, self._token)

    def log_in(self, request: Request, response: Response) -> None:
        """Let the browser keep the login until it is closed."""
        assert self._token is not None
        self._set_cookie(request, response, self._login, self._sign("login", self._token))

    def field(self, request: Request) -> str:
        """Return what a form of this session has to say in `FIELD`."""
        secret: bytes = request.environ.get(SECRET) or self._secret
        return self._sign("form", self.session(request), secret)

    def session(self, request: Request) -> str:
        """Return the session of a browser; a new one if it has none."""
        found = request.cookies.get(self._session, "")
        if len(found) < 32 or not found.isascii():
            found = request.environ.setdefault("zope.sendmail.session", secrets.token_urlsafe(32))
        return str(found)

    def check_form(self, request: Request) -> None:
        """Refuse a form that is not from a page of ours.

        :raises Forbidden: then
        """
        site = request.headers.get("Sec-Fetch-Site", "same-origin")
        if site not in ("same-origin", "none") or self._is_strange(request) or self._session not in request.cookies:
            raise Forbidden("This form came from another site, or your browser keeps no cookies.")
        if not self._equal(request.form.get(FIELD, ""), self.field(request)):
            raise Forbidden("This form is too old. Go back, reload the page, and try again.")

    def _is_strange(self, request: Request) -> bool:
        """Return whether the browser says that a form came from under another name than that by which it calls us.

        The scheme is not compared: where a web server in front encrypts, it is not known here.
        """
        origin = request.headers.get("Origin")
        return origin is not None and _without_default_port(urlsplit(origin).netloc) != _without_default_port(
            request.host
        )

    def finish(self, request: Request, response: Response) -> None:
        """Add what each response has."""
        response.headers.update(HEADERS)
        if "zope.sendmail.session" in request.environ:
            self._set_cookie(request, response, self._session, request.environ["zope.sendmail.session"])

    def _set_cookie(self, request: Request, response: Response, name: str, value: str) -> None:
        path = f"{request.root_path}/"
        response.set_cookie(name, value, path=path, httponly=True, samesite="Strict", secure=request.is_secure)

    def _sign(self, purpose: str, text: str, secret: bytes | None = None) -> str:
        return hmac.new(secret or self._secret, f"{purpose}:{text}".encode(), "sha256").hexdigest()

    def _equal(self, said: str, right: str) -> bool:
        return hmac.compare_digest(said.encode("utf-8", "replace"), right.encode("utf-8", "replace"))


def _without_default_port(host: str) -> str:
    name, _, port = host.lower().rpartition(":")
    return name if name and port in ("80", "443") else host.lower()
