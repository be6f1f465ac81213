"""What is looked up when metrics are asked for: relays and processors of this process, mails in queues."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from zope.sendmail.interfaces import IMailQueueAdmin
from zope.sendmail.lifecycle.states import State
from zope.sendmail.mailer import open_session
from zope.sendmail.metrics.relaylabel import RelayLabels
from zope.sendmail.processor.relay import Relay
from zope.sendmail.processor.thread import QueueProcessorThread
from zope.sendmail.system.clock import Clock

#: Seconds for which what was counted in a queue is told again: a deep queue takes a while to count.
FRESH = 10.0


class ProcessorCollector(Collector):
    """Processors of this process, and their relays.

    A queue whose last processor has ended goes on being told of, with 0: a series that ends says nothing.

    :param processors: gives those that are at work
    """

    def __init__(self, processors: Callable[[], Iterable[QueueProcessorThread]]) -> None:
        self._processors = processors
        self._labels = RelayLabels()
        #: Those that have had a processor since this was made.
        self._queues: set[str] = set()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Give the metrics of this moment."""
        alive = GaugeMetricFamily("zope_sendmail_processors", "Processors at work in this process.", labels=["queue"])
        usable = GaugeMetricFamily(
            "zope_sendmail_relay_usable", "Whether the relay could be used at the last attempt.", labels=["relay"]
        )
        connections = GaugeMetricFamily(
            "zope_sendmail_connections", "Conversations with the relay that are under way.", labels=["relay"]
        )
        by_queue = dict.fromkeys(self._queues, 0)
        by_relay: dict[str, tuple[bool, int]] = {}
        for processor in self._processors():
            by_queue[processor.queuePath] = by_queue.get(processor.queuePath, 0) + 1
            for relay in processor.relays:
                label = self._labels.of(_name(relay))
                was, count = by_relay.get(label, (True, 0))
                by_relay[label] = was and relay.fault is None, count + relay.workers
        self._queues.update(by_queue)
        for queue, count in by_queue.items():
            alive.add_metric([queue], count)
        for relay_label, (is_usable, count) in by_relay.items():
            usable.add_metric([relay_label], float(is_usable))
            connections.add_metric([relay_label], count)
        return iter((alive, usable, connections))


def _name(relay: Relay) -> str:
    """Return how the log and the metrics of attempts name a relay."""
    try:
        return open_session(relay.mailer).relay
    except Exception:  # noqa: BLE001 - a mailer may be any program's code
        return relay.name


class QueueCollector(Collector):
    """What waits in a queue, whichever process drains it.

    :param location: names the queue in the label ``queue``
    :param admin: is asked, every ten seconds at most

    Concurrency: any thread; one counts at a time.
    """

    def __init__(self, location: str, admin: IMailQueueAdmin, clock: Clock | None = None) -> None:
        self._location = location
        self._admin = admin
        self._clock = clock or Clock()
        self._mutex = threading.Lock()
        self._counted_at = float("-inf")
        self._counted: tuple[GaugeMetricFamily, ...] = ()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Give the metrics of this moment, or of ten seconds ago."""
        with self._mutex:
            now = self._clock.monotonic()
            if now - self._counted_at >= FRESH:
                self._counted, self._counted_at = self._count(), self._clock.monotonic()
            return iter(self._counted)

    def _count(self) -> tuple[GaugeMetricFamily, ...]:
        readable = GaugeMetricFamily(
            "zope_sendmail_queue_readable", "Whether the queue can be read at all.", labels=["queue"]
        )
        mails = GaugeMetricFamily(
            "zope_sendmail_queue_mails", "Mails in the queue, by state.", labels=["queue", "state"]
        )
        age = GaugeMetricFamily(
            "zope_sendmail_queue_oldest_age_seconds",
            "How long the oldest mail that is still to be sent has been waiting; 0 if there is none.",
            labels=["queue"],
        )
        try:
            counts, oldest = self._admin.count(), self._admin.oldest()
        except OSError:
            readable.add_metric([self._location], 0.0)
            return (readable,)
        readable.add_metric([self._location], 1.0)
        for state in State:
            if state is not State.SENT:
                mails.add_metric([self._location, state.value], counts.get(state, 0))
        age.add_metric([self._location], 0.0 if oldest is None else max(0.0, self._clock.time() - oldest))
        return readable, mails, age
