"""Serves metrics and health of a daemon: ``/metrics``, ``/healthz``, ``/readyz``.

An application that has a server of its own mounts `MetricsApp` there.
"""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from zope.sendmail.metrics.health import Health

_Start = Callable[..., Any]


class MetricsApp:
    """A WSGI application.

    :param registry: what ``/metrics`` shows
    :param health: what ``/healthz`` and ``/readyz`` ask
    """

    def __init__(self, registry: CollectorRegistry, health: Health) -> None:
        self._metrics: Any = make_wsgi_app(registry)
        self._checks = {"/healthz": health.alive, "/readyz": health.ready}

    def __call__(self, environ: dict[str, Any], start_response: _Start) -> Iterable[bytes]:
        """Answer a request: 200, or 503 with the reasons; 404 for any other path, 405 for any other method."""
        path = environ.get("PATH_INFO", "")
        if environ.get("REQUEST_METHOD") not in ("GET", "HEAD"):
            return _answer(start_response, "405 Method Not Allowed", {"error": "only GET and HEAD"})
        if path == "/metrics":
            answer: Iterable[bytes] = self._metrics(environ, start_response)
            return answer
        if path in self._checks:
            reasons = self._checks[path]()
            status = "503 Service Unavailable" if reasons else "200 OK"
            return _answer(start_response, status, {"ok": not reasons, "reasons": reasons})
        return _answer(start_response, "404 Not Found", {"error": "there are /metrics, /healthz and /readyz"})


def _answer(start_response: _Start, status: str, values: dict[str, Any]) -> list[bytes]:
    body = json.dumps(values).encode() + b"\n"
    start_response(
        status,
        [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
        ],
    )
    return [body]


class _Quiet(WSGIRequestHandler):
    #: Seconds for which a client may be silent.
    timeout = 30

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: requests come every few seconds."""


class _Threading(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that closed its connection."""


def serve(app: MetricsApp, host: str, port: int) -> _Threading:
    """Serve in a daemon thread, until ``shutdown()`` of what is returned.

    :param port: 0: any; ``server_port`` of what is returned says which
    :raises OSError: if the address cannot be had
    """
    server = make_server(host, port, app, server_class=_Threading, handler_class=_Quiet)
    threading.Thread(target=server.serve_forever, name="zope.sendmail.metrics", daemon=True).start()
    return server
