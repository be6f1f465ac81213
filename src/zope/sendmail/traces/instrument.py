"""Traces of this process in one call."""

from __future__ import annotations

from opentelemetry import trace

from zope.sendmail.reporting.observers import ignore, observe
from zope.sendmail.reporting.sendtraces import trace_with
from zope.sendmail.traces.attemptspans import AttemptSpans
from zope.sendmail.traces.sends import SendSpans


class Tracing:
    """What `instrument` has begun."""

    def __init__(self, attempts: AttemptSpans) -> None:
        self._attempts = attempts

    def end(self) -> None:
        """Make no more spans."""
        ignore(self._attempts)
        trace_with(None)


_tracing: Tracing | None = None


def instrument(tracer_provider: trace.TracerProvider | None = None) -> Tracing:
    """Make a span for each ``send()`` and for each attempt of this process from now on.

    :param tracer_provider: by default OpenTelemetry's, as the application has set it
    :returns: with the method ``end``; what an earlier call has begun is ended
    """
    global _tracing
    if _tracing is not None:
        _tracing.end()
    tracer = trace.get_tracer("zope.sendmail", tracer_provider=tracer_provider)
    attempts = AttemptSpans(tracer)
    observe(attempts)
    trace_with(SendSpans(tracer))
    _tracing = Tracing(attempts)
    return _tracing


def is_exported() -> bool:
    """Return whether the application has said where spans go; without that OpenTelemetry makes none."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
