"""Whether mail can leave: a processor lives, its queue can be used, and a relay as well."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from zope.sendmail.processor.thread import QueueProcessorThread


class Health:
    """Answers for the processors of one process.

    :param processors: gives those that are at work
    """

    def __init__(self, processors: Callable[[], Iterable[QueueProcessorThread]]) -> None:
        self._processors = processors

    def alive(self) -> list[str]:
        """Return why this process is of no use; nothing if it works.

        A process whose processors have all ended, or whose queue refuses every step, had better be started anew.
        """
        processors = list(self._processors())
        if not processors:
            return ["no processor is at work"]
        return [reason for each in processors for reason in _queue_trouble(each)]

    def ready(self) -> list[str]:
        """Return why mail would not leave now; nothing if it would.

        That a relay is down mends no restart, so `alive` does not ask about it.
        """
        return self.alive() or [reason for each in self._processors() for reason in _relay_trouble(each)]


def _queue_trouble(processor: QueueProcessorThread) -> list[str]:
    queue = processor.queue
    if queue is None:
        return ["a processor has no queue"]
    if why := getattr(processor, "queue_trouble", ""):  # a subclass of a program may have no such word
        return [f"the queue {queue.location} cannot be used: {why}"]
    try:
        queue.admin.oldest()
    except OSError as error:
        return [f"the queue {queue.location} cannot be used: {error}"]
    return []


def _relay_trouble(processor: QueueProcessorThread) -> list[str]:
    relays = list(processor.relays)
    faults = [(relay.name, relay.fault) for relay in relays if relay.fault is not None]
    if len(faults) < len(relays):
        return []
    return [f"the relay {name} cannot be used: {fault}" for name, fault in faults]
