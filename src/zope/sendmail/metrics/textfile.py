"""Metrics of a queue as its files tell them, for the textfile collector of Prometheus' node exporter.

The processors may be anywhere: what they know of relays stands beside the queue.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from zope.sendmail.interfaces import IMailQueueAdmin
from zope.sendmail.lifecycle.relaystate import RelayBoard
from zope.sendmail.metrics.collectors import QueueCollector
from zope.sendmail.metrics.relaylabel import RelayLabels
from zope.sendmail.system.clock import Clock


class RelayBoardCollector(Collector):
    """Relays and processors of one queue, as the processors have written them down."""

    def __init__(self, location: str, admin: IMailQueueAdmin) -> None:
        self._location = location
        self._admin = admin
        self._labels = RelayLabels()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Give the metrics of this moment."""
        board = RelayBoard(self._admin.processors())
        alive = GaugeMetricFamily("zope_sendmail_processors", "Processors that drain the queue.", labels=["queue"])
        alive.add_metric([self._location], len(board.living))
        usable = GaugeMetricFamily(
            "zope_sendmail_relay_usable", "Whether the relay could be used at the last attempt.", labels=["relay"]
        )
        for relay in board:
            usable.add_metric([self._labels.of(relay.address or relay.name)], float(relay.is_usable))
        return iter((alive, usable))


def exposition(location: str, admin: IMailQueueAdmin, clock: Clock | None = None) -> bytes:
    """Return the metrics of a queue in the text format of Prometheus.

    :raises OSError: if the queue cannot be read
    """
    admin.oldest()
    registry = CollectorRegistry()
    registry.register(QueueCollector(location, admin, clock))
    registry.register(RelayBoardCollector(location, admin))
    return generate_latest(registry)
