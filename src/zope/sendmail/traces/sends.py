"""A span for each ``send()``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from zope.sendmail.message.tracecontext import trace_context
from zope.sendmail.traces import semconv

_propagator = TraceContextTextMapPropagator()


class SendSpans:
    """A `SendTracer` that makes spans.  Concurrency: any thread."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    @contextmanager
    def sending(self, destination: str) -> Iterator[_HandOver]:
        """Make a span under that of the caller; see `SendTracer`.

        Of an error its class is kept: its text may have an address in it.
        """
        with self._tracer.start_as_current_span(
            semconv.span_name("send", destination),
            kind=SpanKind.PRODUCER,
            attributes=semconv.common("send", destination),
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield _HandOver(span)
            except BaseException as error:
                span.set_attribute(semconv.ERROR, type(error).__qualname__)
                span.set_status(Status(StatusCode.ERROR))
                raise


class _HandOver:
    """See `zope.sendmail.reporting.sendtraces.HandOver`."""

    def __init__(self, span: Span) -> None:
        self._span = span

    def context(self, message_id: str, size: int, count: int) -> str:
        """Take note of what is handed over; return the context of its span."""
        self._span.set_attributes({semconv.MESSAGE_ID: message_id, semconv.SIZE: size})
        if count > 1:
            self._span.set_attribute(semconv.COUNT, count)
        carrier: dict[str, str] = {}
        _propagator.inject(carrier)
        return trace_context(carrier.get("traceparent", ""), carrier.get("tracestate", ""))
