"""Metrics of this process in one call."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import REGISTRY, CollectorRegistry

from zope.sendmail.metrics.attemptmeters import AttemptMetrics
from zope.sendmail.metrics.collectors import ProcessorCollector, QueueCollector
from zope.sendmail.processor import shutdown
from zope.sendmail.processor.thread import QueueProcessorThread
from zope.sendmail.queue import open_queue
from zope.sendmail.reporting.observers import observe


def instrument(registry: CollectorRegistry | None = None, queues: Iterable[str] = ()) -> AttemptMetrics:
    """Count and measure from now on what the processors of this process do.

    :param registry: the application's own; by default prometheus-client's
    :param queues: locations of queues whose mails are counted when the metrics are asked for, whichever process
        drains them
    :returns: the observer; `zope.sendmail.reporting.observers.ignore` ends what it does
    :raises ValueError: if the registry has these metrics already, or a location is none
    """
    registry = REGISTRY if registry is None else registry
    metrics = AttemptMetrics(registry)
    registry.register(ProcessorCollector(_running))
    for location in queues:
        queue = open_queue(location)
        registry.register(QueueCollector(queue.location, queue.admin))
    observe(metrics)
    return metrics


def _running() -> list[QueueProcessorThread]:
    return [thread for thread in shutdown.running() if isinstance(thread, QueueProcessorThread)]
