"""The console as a WSGI application: which request is answered by which page, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from werkzeug.exceptions import HTTPException, NotFound, Unauthorized
from werkzeug.routing import Map, MapAdapter, Rule
from werkzeug.utils import redirect
from werkzeug.wrappers import Request, Response

from zope.sendmail.console import templates
from zope.sendmail.console.changes import Changes
from zope.sendmail.console.drawing import Draw
from zope.sendmail.console.glance import GlanceCache
from zope.sendmail.console.pages import Pages
from zope.sendmail.console.places import Place, open_places
from zope.sendmail.console.search import RunningSearches
from zope.sendmail.console.security import Guard
from zope.sendmail.errors import MailError, NoSuchMail
from zope.sendmail.system.clock import Clock

_STATIC = Path(__file__).parent / "static"
_KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

_READS = {"GET", "HEAD"}


class _Request(Request):
    #: A form names some thousand mails at most.
    max_form_memory_size = 2_000_000
    max_form_parts = 20_000
    max_content_length = 2_000_000


class Console:
    """A WSGI application.

    :param queues: locations of queues, or a mapping of titles to locations
    :param writable: whether operators may change something; else they only look
    :param token: what an operator types to come in, at least 16 characters; None: the application around the console
        decides who comes in
    :param hosts: names by which browsers may call this server, without port; None: any
    :param secret: signs forms; processes that serve the same console share it
    :param links: titles and addresses of pages of the application around it, for the head of each page
    :param patience: seconds that a page waits for a deep queue before it says that it is still looking
    :raises ValueError: for a location that is none, or a token that is too short
    :raises TypeError: if there is no queue

    Concurrency: any number of threads.
    """

    def __init__(
        self,
        queues: Iterable[str] | Mapping[str, str],
        *,
        writable: bool = False,
        token: str | None = None,
        hosts: Collection[str] | None = None,
        secret: bytes | None = None,
        links: Iterable[tuple[str, str]] = (),
        patience: float = 0.1,
        clock: Clock | None = None,
    ) -> None:
        clock = clock or Clock()
        templates.prepare()
        self._places = open_places(queues)
        self._guard = Guard(token, hosts, secret, "\n".join(place.title for place in self._places))
        self._draw = Draw(self._places, self._guard, writable=writable, links=tuple(links))
        glances, searches = GlanceCache(self._places, clock, patience), RunningSearches(clock)
        self._pages = Pages(
            self._places,
            glances,
            searches,
            self._draw,
            guard=self._guard,
            clock=clock,
            patience=patience,
            has_login=token is not None,
        )
        self._changes = Changes(glances, searches, self._draw, clock, patience)
        read, write = _rules()
        self._routes = Map([*read, *(write if writable else ())])

    def look(self) -> None:
        """Look at all queues now, so that the first page is quick; else the first request does."""
        self._pages.look()

    def close(self) -> None:
        """Close the queues, when the application ends; a request that comes later opens them again.

        Without it, the next processor removes what verbs have left in ``locks/``.  Harmless when repeated.
        """
        for place in self._places:
            place.queue.close()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request."""
        request = _Request(environ)
        response = self._answer(request)
        self._guard.finish(request, response)
        return response(environ, start_response)

    def _answer(self, request: Request) -> Response:
        try:
            self._guard.check_host(request)
            return self._dispatch(request, self._routes.bind_to_environ(request.environ))
        except Unauthorized:
            return (
                redirect(f"{request.root_path}/login", 303)
                if request.method in _READS
                else self._refusal(request, 403, "Please log in.")
            )
        except HTTPException as error:
            if error.response is not None:
                return Response(status=error.code, headers=dict(error.response.headers.items()))  # a slash is missing
            return self._refusal(request, error.code or 500, error.description or error.name)
        except NoSuchMail:
            return self._refusal(request, 404, "This mail is not in the queue any more: it was sent or removed.")
        except (MailError, OSError, ValueError) as error:
            return self._refusal(request, 503 if isinstance(error, OSError) else 400, str(error))

    def _dispatch(self, request: Request, adapter: MapAdapter) -> Response:
        name, found = adapter.match()
        arguments = dict(found)
        if name == "static":
            return _file(arguments["name"])
        if name in ("login", "log_in"):
            if not self._pages.has_login:
                raise NotFound
            answer: Response = getattr(self._pages, name)(request)
            return answer
        self._guard.check_login(request)
        if request.method not in _READS:
            self._guard.check_form(request)
        place: Place | None = None
        if "queue" in arguments:
            number = arguments.pop("queue")
            if number >= len(self._places):
                raise NotFound("There is no such queue.")
            place = self._places[number]
        page: Callable[..., Response] = getattr(self._changes if name in ("confirm", "do") else self._pages, name)
        return page(request, place, **arguments) if place is not None else page(request)

    def _refusal(self, request: Request, status: int, text: str) -> Response:
        return self._draw(request, "refusal", None, status=status, title=text)


def _rules() -> tuple[list[Rule], list[Rule]]:
    """Return the addresses that show something, and those that change something."""
    read = [
        Rule("/", endpoint="home", methods=["GET"]),
        Rule("/login", endpoint="login", methods=["GET"]),
        Rule("/login", endpoint="log_in", methods=["POST"]),
        Rule("/static/<name>", endpoint="static", methods=["GET"]),
        Rule("/<int:queue>/", endpoint="overview", methods=["GET"]),
        Rule("/<int:queue>/mails", endpoint="mails", methods=["GET"]),
        Rule("/<int:queue>/mail/<path:name>", endpoint="mail", methods=["GET"]),
    ]
    write = [
        Rule("/<int:queue>/confirm", endpoint="confirm", methods=["POST"]),
        Rule("/<int:queue>/do", endpoint="do", methods=["POST"]),
    ]
    return read, write


def _file(name: str) -> Response:
    path = _STATIC / name
    if path.parent != _STATIC or path.suffix not in _KINDS or not path.is_file():
        raise NotFound
    return Response(path.read_bytes(), mimetype=_KINDS[path.suffix])
