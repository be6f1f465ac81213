"""Time and chance: the only place that asks for them, so that tests can decide both."""

from __future__ import annotations

import random
import time


class Clock:
    """The real ones."""

    #: Seconds since some moment; never jumps.  Used for waiting.
    monotonic = staticmethod(time.monotonic)  # a mail asks a dozen times, so there is no step between

    def time(self) -> float:
        """Wall clock: seconds since the epoch.  May jump; used for what is written down."""
        return time.time()

    def cpu(self) -> float:
        """Seconds of processor time that this process has used."""
        return time.process_time()

    def thread_cpu(self) -> float:
        """Seconds of processor time that the calling thread has used."""
        return time.thread_time()

    def chance(self) -> float:
        """Return a number within 0 and 1, for jitter; not for secrets."""
        return random.random()  # noqa: S311 - spreads retries, guards nothing

    def sleep(self, seconds: float) -> None:
        """Do nothing for so long."""
        time.sleep(seconds)
