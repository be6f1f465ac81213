"""The page of ``demo --serve``: the inbox, the queue, what the events told, a form that sends; beside it the console.

For this machine only: it listens on 127.0.0.1, answers to no other name (against DNS rebinding), and takes
orders from itself alone (against forms on other sites).  Whatever it shows is escaped.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import html
import os
import sys
import time
from collections import deque
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote
from wsgiref.handlers import SimpleHandler

import transaction

from zope.sendmail import startup
from zope.sendmail.console import Console
from zope.sendmail.demo.catcher import Caught
from zope.sendmail.demo.ledger import Surprise
from zope.sendmail.demo.narrator import Narrator
from zope.sendmail.demo.shop import visit
from zope.sendmail.demo.stage import Stage
from zope.sendmail.errors import MailError

_MAX_FORM = 64 * 1024

#: Where the console is, beside the inbox.
_CONSOLE = "/console"

#: So much is shown.
_INBOX = 15
_GLANCE = 100
_EVENTS = 10

with open(os.path.join(os.path.dirname(__file__), "page.html"), encoding="utf-8") as _file:
    _PAGE = _file.read()


def _source(element: str) -> str:
    """Return what the browser may apply or run: what is in this element of the page and nothing else."""
    text = _PAGE.split(f"<{element}>")[1].split(f"</{element}>")[0]
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    f"frame-ancestors 'none'; style-src {_source('style')}; script-src {_source('script')}",
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


class Server(ThreadingHTTPServer):
    """The server of the page.  It answers as soon as it has a `stage`."""

    daemon_threads = True
    block_on_close = False
    stage: Stage
    console: Console

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), InboxPage)
        #: What became of the orders, newest first: time and sentence.
        self.results: deque[tuple[float, str]] = deque(maxlen=10)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a browser that has closed its tab."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)

    def names(self) -> set[str]:
        """Return how a browser of this machine may call us."""
        return {f"{host}:{self.server_port}" for host in ("127.0.0.1", "localhost")}


class InboxPage(BaseHTTPRequestHandler):
    """One request."""

    server: Server
    timeout = 30
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer with the page, or the part of it that changes."""
        if not self.is_for_us():
            self.refuse(HTTPStatus.MISDIRECTED_REQUEST, "This page answers to 127.0.0.1 and localhost only.")
        elif self.is_for_console():
            self.ask_console()
        elif self.path == "/":
            self.answer(whole_page(self.server))
        elif self.path == "/state":
            self.answer(state(self.server))
        else:
            self.refuse(HTTPStatus.NOT_FOUND, "There is one page here, and this is not it.")

    def do_POST(self) -> None:
        """Take an order."""
        length = self.headers.get("Content-Length", "")
        if self.is_for_us() and self.is_for_console():
            self.ask_console()
        elif not (self.is_for_us() and self.is_from_us()):
            self.refuse(HTTPStatus.FORBIDDEN, "Orders are taken from this page only.")
        elif self.path != "/order":
            self.refuse(HTTPStatus.NOT_FOUND, "There is nothing to post to here.")
        elif not length.isdecimal() or int(length) > _MAX_FORM:
            self.refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "That is too long for an order.")
        else:
            form = parse_qs(self.rfile.read(int(length)).decode("utf-8", "replace"), keep_blank_values=True)
            self.server.results.appendleft((time.time(), order(self.server.stage, form)))
            self.answer("", HTTPStatus.SEE_OTHER, Location="/")

    def is_for_console(self) -> bool:
        """Return whether the console answers."""
        return self.path.startswith(f"{_CONSOLE}/")

    def ask_console(self) -> None:
        """Let the console answer; it looks itself at where forms come from."""
        self.close_connection = True
        path, _, query = self.path.partition("?")
        environ = {
            "REQUEST_METHOD": self.command,
            "SCRIPT_NAME": _CONSOLE,
            "PATH_INFO": unquote(path.removeprefix(_CONSOLE), "latin-1"),
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": self.headers.get("Content-Length", ""),
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": str(self.server.server_port),
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "127.0.0.1",
            **{f"HTTP_{name.upper().replace('-', '_')}": value for name, value in self.headers.items()},
        }
        streams: tuple[Any, Any] = (self.rfile, self.wfile)
        handler = SimpleHandler(*streams, sys.stderr, environ, multithread=True, multiprocess=False)
        handler.run(self.server.console)

    def is_for_us(self) -> bool:
        """Return whether the browser calls us by a name of this machine."""
        return self.headers.get("Host") in self.server.names()

    def is_from_us(self) -> bool:
        """Return whether the form that is posted is on our own page."""
        return self.headers.get("Origin") in {f"http://{name}" for name in self.server.names()}

    def answer(self, text: str, status: HTTPStatus = HTTPStatus.OK, **headers: str) -> None:
        """Send `text`, which is HTML."""
        body = text.encode()
        self.send_response(status)
        for name, value in {**_HEADERS, **headers, "Content-Type": "text/html; charset=utf-8"}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def refuse(self, status: HTTPStatus, why: str) -> None:
        """Send an error; what was not read of the request must not be taken for the next one."""
        self.close_connection = True
        self.answer(f"<p>{html.escape(why)}</p>", status, Connection="close")

    def log_message(self, format: str, *args: Any) -> None:
        """Not into the story."""


def bind(port: int) -> Server:
    """Return the server on `port`; 0: on any.  Raises `OSError` in words for people."""
    try:
        return Server(port)
    except OSError as error:
        raise OSError(f"port {port} cannot be used ({error.strerror}); choose another with --port") from error


def serve(server: Server, stage: Stage, narrator: Narrator) -> None:
    """Serve until Ctrl-C."""
    server.stage = stage
    places, links = {"The demo's queue": stage.queue_path}, [("Inbox of the demo", "/")]
    server.console = Console(places, writable=True, hosts=["127.0.0.1", "localhost"], links=links)
    startup.start()  # the story had stopped it for its last scene
    narrator.title(f"Your turn: http://127.0.0.1:{server.server_port}/   (Ctrl-C ends)")
    with contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()
    narrator.title("Stopped.")


# --- sending ------------------------------------------------------------------------------------------------


def order(stage: Stage, form: dict[str, list[str]]) -> str:
    """Send in a transaction, end that as the form says, and tell what became of it."""
    to, subject, text, end = (form.get(name, [""])[0] for name in ("to", "subject", "text", "end"))
    with visit(stage.database) as shop:
        try:
            message_id = shop.order(to.strip(), subject, text)
            if end != "commit":
                transaction.abort()
                return f"Aborted: no order is stored, and {to} gets no mail."
            began = time.monotonic()
            transaction.commit()
        except (MailError, ValueError, OSError) as error:
            return f"Refused, nothing was stored and nothing sent: {error}"
    return arrival(stage, message_id, to, began)


def arrival(stage: Stage, message_id: str, to: str, began: float) -> str:
    """Return when the mail that was committed came."""
    try:
        stage.wait_for([message_id], patience=20.0)
    except Surprise:
        return f"Committed: the order is stored; the mail to {to} waits in the queue."
    [moment, *_] = [mail.moment for mail in stage.catcher.caught() if mail.message_id == message_id]
    spent = (moment - began) * 1000
    return f"Committed: the order is stored, and the mail to {to} arrived after {spent:.1f} ms."


# --- showing ------------------------------------------------------------------------------------------------


def whole_page(server: Server) -> str:
    """Return the page."""
    return _PAGE.replace("<!-- state -->", state(server))


def state(server: Server) -> str:
    """Return what changes: results, queue, inbox, events."""
    stage = server.stage
    mails = stage.catcher.caught()
    events = [
        (each.messageId, type(each).__name__, "; ".join(map(str, each.replies.values()))) for each in list(stage.events)
    ]
    return "".join(
        (
            section("What happened", "", ((clock(when), text) for when, text in list(server.results))),
            section("Queue", "", queue_rows(stage)),
            section("Inbox", f"{len(mails)} mails, the newest first", map(inbox_row, mails[: -_INBOX - 1 : -1])),
            section("Events", "what subscribers in this process were told", events[:_EVENTS]),
        )
    )


def queue_rows(stage: Stage) -> Sequence[Sequence[str]]:
    """Return how much mail is in which state."""
    return [(str(state), str(count)) for state, count in stage.queue().admin.count().items()] or [("empty", "")]


def inbox_row(mail: Caught) -> Sequence[str]:
    """Return one mail."""
    subject, body = str(mail.message.get("Subject", "")), mail.message.get_body(("plain",))
    text = str(body.get_content()) if body is not None else ""
    return (clock(mail.clock), ", ".join(mail.recipients), subject, text[:_GLANCE])


def section(title: str, note: str, rows: Iterable[Iterable[str]]) -> str:
    """Return a table with a heading; what is in it is escaped here."""
    lines = ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows] or ["<td>nothing yet</td>"]
    return (
        f"<section><h2>{html.escape(title)} <small>{html.escape(note)}</small></h2>"
        f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table></section>"
    )


def clock(when: float) -> str:
    """Return the time of day."""
    return time.strftime("%H:%M:%S", time.localtime(when))
