"""Traces for OpenTelemetry: a span for each ``send()``, one for each attempt.  Needs the extra ``otel``.

`instrument` is all that an application says; ``zope-sendmail --traces`` says it for a daemon.  The context of the
producer goes with the envelope, so the first attempt stands in the producer's trace, whichever process makes it.  No
address and no text of a mail or a reply is in a span.  ``docs/howto/monitoring.rst`` lists the attributes.
"""

from zope.sendmail.traces.instrument import Tracing, instrument

__all__ = ["Tracing", "instrument"]
