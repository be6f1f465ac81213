"""What all pages of the console have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from werkzeug.wrappers import Request, Response

from zope.sendmail.console.places import Place
from zope.sendmail.console.security import FIELD, Guard
from zope.sendmail.console.templates import render
from zope.sendmail.console.verbs import VERBS
from zope.sendmail.lifecycle.states import State


class Draw:
    """Draws a page for a request.

    :param writable: whether the pages offer to change something
    :param links: titles and addresses of pages of the application around the console, in the head of each page
    """

    def __init__(
        self, places: Sequence[Place], guard: Guard, *, writable: bool, links: Sequence[tuple[str, str]] = ()
    ) -> None:
        self._places = places
        self._guard = guard
        self._writable = writable
        self._links = links

    def __call__(
        self, request: Request, template: str, place: Place | None, *, status: int = 200, **values: Any
    ) -> Response:
        """Return the page that a template makes of these values."""
        text = render(
            template,
            root=request.root_path,
            place=place,
            places=self._places,
            links=self._links,
            writable=self._writable,
            verbs=VERBS,
            field=self._guard.field(request),
            field_name=FIELD,
            quote=lambda text: quote(text, safe="", errors="replace"),
            State=State,
            **values,
        )
        return Response(text.encode("utf-8", "replace"), status, mimetype="text/html")
