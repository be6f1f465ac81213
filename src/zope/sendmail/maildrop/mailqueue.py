"""The "Mail Queue" tab of mail hosts in the ZMI: the console, for the queue of that object.

It is a view of `Products.MailHost.interfaces.IMailHost`, so a Mail Host that queues has it as well as a Maildrop Host.
Zope decides about access (the permission *Change configuration*); all else is `zope.sendmail.console`.
"""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from Products.Five.browser import BrowserView
from Products.MailHost.MailHost import MailHostError
from zope.interface import implementer
from zope.publisher.interfaces import IPublishTraverse

from zope.sendmail.console import Console
from zope.sendmail.console.security import SECRET
from zope.sendmail.errors import MailError
from zope.sendmail.maildrop.host import MaildropHost

_NAME = "mail-queue"

_consoles = lru_cache(maxsize=64)(lambda location, title, links: Console({title: location}, writable=True, links=links))


class NoQueue(Exception):
    """A mail host has no queue, or it cannot be found; says why."""


@implementer(IPublishTraverse)
class MailQueue(BrowserView):  # type: ignore[misc]  # Zope says nothing about its types
    """The pages of the console below a mail host."""

    def __init__(self, context: Any, request: Any) -> None:
        super().__init__(context, request)
        self._path: list[str] = []

    def publishTraverse(self, request: Any, name: str) -> MailQueue:
        """Let the console have what stands behind the name of the view."""
        self._path.append(name)
        return self

    def __call__(self) -> bytes:
        """Answer a request."""
        try:
            location = location_of(self.context)
        except NoQueue as error:
            self.request.response.setStatus(404)
            self.request.response.setHeader("Content-Type", "text/plain; charset=utf-8")
            return str(error).encode()
        console = _consoles(location, str(self.context.title_or_id()), _links(self.context))
        return self._answer(console)

    def _answer(self, console: Console) -> bytes:
        response = self.request.response
        response.setBase(None)

        def start_response(status: str, headers: list[tuple[str, str]], *_: object) -> None:
            response.setStatus(int(status[:3]), lock=True)
            for name, value in headers:
                (response.addHeader if name.lower() == "set-cookie" else response.setHeader)(name, value)

        return b"".join(console(self._environ(), start_response))

    def _environ(self) -> dict[str, Any]:
        """Return the request as the console is to see it: below this view, under the name by which browsers call us."""
        request = self.request
        here = urlsplit(f"{self.context.absolute_url()}/@@{_NAME}")
        slash = "/" if not self._path or request.environ.get("PATH_INFO", "").endswith("/") else ""
        body = request.get("BODYFILE")
        if body is not None:
            body.seek(0)
        return {
            **request.environ,
            "SCRIPT_NAME": here.path,
            "PATH_INFO": f"/{'/'.join(self._path)}{slash}".replace("//", "/").encode().decode("latin-1"),
            "HTTP_HOST": here.netloc,
            "wsgi.url_scheme": here.scheme,
            "wsgi.input": body,
            SECRET: _secret(request),
        }


def _secret(request: Any) -> bytes | None:
    """Return what signs the forms of a manager: it is made of what the browser logs in with, so each process knows it.

    None if it logs in with nothing that is known here.
    """
    login = request.environ.get("HTTP_AUTHORIZATION") or request.cookies.get("__ac")
    return hashlib.sha256(f"zope.sendmail:{login}".encode()).digest() if login else None


def location_of(host: Any) -> str:
    """Return the location of the queue of a mail host.

    :raises NoQueue: if it has none.
    """
    if isinstance(getattr(host, "aq_base", host), MaildropHost):
        try:
            return str(host._queue().location)
        except (MailHostError, MailError, OSError) as error:
            raise NoQueue(str(error)) from error
    if not getattr(host, "smtp_queue", False):
        raise NoQueue(f"{host.getId()} sends directly: it has no queue. Its Edit tab has the setting 'Use mail queue'.")
    path: str = os.path.realpath(host.smtp_queue_directory)
    if not os.path.isdir(os.path.join(path, "new")):
        raise NoQueue(f"The queue of {host.getId()}, {path}, has not been used yet.")
    return path


def _links(host: Any) -> tuple[tuple[str, str], ...]:
    """Return the other tabs of an object, for the head of each page."""
    tabs = (each for each in host.filtered_manage_options() if _NAME not in each["action"])
    url = urlsplit(host.absolute_url()).path
    return tuple((str(each["label"]), f"{url}/{each['action']}") for each in tabs)
