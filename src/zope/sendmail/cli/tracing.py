"""``--traces`` of ``zope-sendmail``.  OpenTelemetry is loaded when it is used."""

from __future__ import annotations

from collections.abc import Callable

_CURE = "traces need OpenTelemetry: pip install 'zope.sendmail[otel]'"

_NOWHERE = (
    "--traces: OpenTelemetry was not told where traces go; start the program with 'opentelemetry-instrument --' "
    "(pip install opentelemetry-distro opentelemetry-exporter-otlp)"
)


def begin_traces() -> Callable[[], object]:
    """Make spans from now on; return what lets those go that are waiting to be exported.

    :raises ValueError: if OpenTelemetry is not installed, or does not know where to.
    """
    try:
        from opentelemetry import trace

        from zope.sendmail.traces.instrument import instrument, is_exported
    except ImportError:
        raise ValueError(_CURE) from None
    if not is_exported():
        raise ValueError(_NOWHERE)
    instrument()
    flush: Callable[[], object] = getattr(trace.get_tracer_provider(), "force_flush", lambda: None)
    return flush
