"""A span for each attempt, made when it has ended."""

from __future__ import annotations

from opentelemetry.context import Context
from opentelemetry.trace import (
    Link,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    get_current_span,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from zope.sendmail.lifecycle.outcome import Answer
from zope.sendmail.message.tracecontext import parent_and_state
from zope.sendmail.reporting.observers import AttemptRecord, FaultRecord
from zope.sendmail.traces import semconv

_propagator = TraceContextTextMapPropagator()

_NANOSECONDS = 1_000_000_000

#: What an attempt that did not end well is called, the worst first.
_TROUBLE = (Answer.UNKNOWN, Answer.REJECTED, Answer.DEFERRED)


class AttemptSpans:
    """An `AttemptObserver` that makes spans.  Concurrency: any thread."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def attempted(self, record: AttemptRecord) -> None:
        """Make a span: of the producer's trace for the first attempt, of its own with a link for a later one."""
        carried = _carried(record.trace)
        producer = get_current_span(carried).get_span_context()
        end = int(record.time * _NANOSECONDS)
        span = self._tracer.start_span(
            semconv.span_name("process", record.queue),
            context=carried if record.is_first else Context(),
            kind=SpanKind.CONSUMER,
            links=_links(producer),
            attributes=_attributes(record),
            start_time=end - int(record.duration * _NANOSECONDS),
        )
        trouble = _trouble(record)
        if trouble:
            span.set_attribute(semconv.ERROR, trouble)
            span.set_status(Status(StatusCode.ERROR, _codes(record)))
        span.end(end)

    def faulted(self, record: FaultRecord) -> None:
        """Make nothing: no mail was tried."""


def _carried(trace: str) -> Context:
    """Return the context that went with the envelope; an empty one without."""
    parent, state = parent_and_state(trace)
    return _propagator.extract({"traceparent": parent, "tracestate": state}, Context()) if parent else Context()


def _links(producer: SpanContext) -> list[Link]:
    """Return a link to the span that made the message: the conventions want it of the first attempt as well."""
    return [Link(producer)] if producer.is_valid else []


def _attributes(record: AttemptRecord) -> semconv.Attributes:
    found = semconv.common("process", record.queue) | semconv.server(record.relay)
    found |= {semconv.MESSAGE_ID: record.message_id, semconv.ATTEMPT: record.attempt}
    found |= {semconv.STATE: record.state}
    if record.size is not None:
        found[semconv.SIZE] = record.size
    return found | {f"{semconv.RECIPIENTS}.{answer.value}": count for answer, count in record.answers.items()}


def _trouble(record: AttemptRecord) -> str:
    """Return a word for what went wrong; empty if all recipients were accepted."""
    return next((answer.value for answer in _TROUBLE if record.answers[answer]), "")


def _codes(record: AttemptRecord) -> str:
    """Return the codes of the replies, without their texts, in which addresses may be."""
    bad = (reply for reply in record.replies.values() if reply.answer is not Answer.ACCEPTED)
    codes = (f"{reply.code or ''} {reply.enhanced}".strip() for reply in bad)
    return ", ".join(sorted({code for code in codes if code})[:5])
