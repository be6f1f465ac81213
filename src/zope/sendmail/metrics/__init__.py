"""Metrics for Prometheus: what processors do, how relays are, what waits in queues.  Needs the extra ``metrics``.

An application says `instrument` once and serves its registry as it does already; ``zope-sendmail --daemon --metrics
HOST:PORT`` serves its own (`zope.sendmail.metrics.server`).  No address, no domain of a recipient and no Message-Id is
ever a label.  ``docs/howto/monitoring.rst`` lists the metrics, with alerts and a dashboard.
"""

from zope.sendmail.metrics.attemptmeters import AttemptMetrics
from zope.sendmail.metrics.collectors import ProcessorCollector, QueueCollector
from zope.sendmail.metrics.instrument import instrument

__all__ = ["AttemptMetrics", "ProcessorCollector", "QueueCollector", "instrument"]
