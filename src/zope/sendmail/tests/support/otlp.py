"""A collector of traces that the tests have: it receives OTLP over HTTP on 127.0.0.1, as OpenTelemetry's own does."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class Collector:
    """Keeps the spans that exporters send to `url`.  Concurrency: any thread."""

    def __init__(self) -> None:
        self._spans: list[Any] = []
        self._mutex = threading.Lock()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                collector._take(self.path, self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def _take(self, path: str, body: bytes) -> None:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        if path != "/v1/traces":
            return
        request = ExportTraceServiceRequest.FromString(body)
        found = [span for each in request.resource_spans for scope in each.scope_spans for span in scope.spans]
        with self._mutex:
            self._spans += found

    @property
    def spans(self) -> list[Any]:
        """The spans that came, in the order in which they ended."""
        with self._mutex:
            return sorted(self._spans, key=lambda span: span.end_time_unix_nano)

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def attributes(span: Any) -> dict[str, Any]:
    """Return the attributes of a span that was received."""
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}
