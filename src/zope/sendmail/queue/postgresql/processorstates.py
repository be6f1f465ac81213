"""What processors tell operators about themselves and their relays, kept in the database of a queue."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from zope.sendmail.lifecycle.relaystate import ProcessorState, read_processor_state, write_processor_state
from zope.sendmail.queue.postgresql.database import Connections


class ProcessorStateTable:
    """The words of the processors of one queue.  Concurrency: any thread.

    :param queue: returns the number of the queue in its database, None if it was never used.
    """

    def __init__(self, connections: Connections, queue: Callable[[], int | None]) -> None:
        self._connections = connections
        self._queue = queue

    def write(self, processor: int, state: ProcessorState) -> None:
        """Keep what a processor tells, and take over what those told that have ended.

        :raises QueueError: if the database refuses.
        """
        read = self._read()
        dead = {number: each for number, each in read.items() if not each.alive and number != processor}
        text = write_processor_state(state.absorb(dead.values())).decode("ascii")
        self._execute("report", processor=processor, state=text, absorbed=list(dead))

    def read(self) -> list[ProcessorState]:
        """Return what all processors told, each with whether it lives.

        Of those that have mail in hand and wait for a first reply it says no more than that.
        """
        silent = [ProcessorState(pid, host, alive=True) for _, pid, host in self._execute("silent")]
        return [*self._read().values(), *silent]

    def _read(self) -> dict[int, ProcessorState]:
        found = {}
        for number, text, alive in self._execute("reports"):
            state = read_processor_state(text.encode())
            if state is not None:
                found[number] = replace(state, alive=alive and not state.ended)
        return found

    def ask_for_probe(self, relay: str, at: float) -> None:
        """Ask all processors to try a relay now."""
        self._execute("ask_for_probe", relay=relay, at=at)

    def probe_asked(self, relay: str) -> float:
        """Return when that was asked last, in seconds since the epoch; 0.0 for never."""
        rows = self._execute("probe_asked", relay=relay)
        return float(rows[0][0]) if rows else 0.0

    def _execute(self, statement: str, **parameters: Any) -> list[Any]:
        queue = self._queue()
        return [] if queue is None else self._connections.execute(statement, queue=queue, **parameters)
