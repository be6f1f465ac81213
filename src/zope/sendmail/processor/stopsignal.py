"""What ends a processor."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class StopSignal:
    """What `stop` and `finish` of a processor have said.

    Concurrency: written and read by any thread, and from signal handlers.
    """

    #: Stop after the messages in hand.
    stopped: bool = False
    #: Send what is due, then stop.
    finishing: bool = False

    @property
    def is_ending(self) -> bool:
        """Whether the processor will end by itself."""
        return self.stopped or self.finishing
