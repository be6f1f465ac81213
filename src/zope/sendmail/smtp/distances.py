"""How far away relays are: the shortest time that each of them took to answer EHLO.

The reply costs a relay next to nothing, so that time is the network's, even if the machine has much else to do.
Concurrency: any thread; a process after a fork goes on with what its parent knew.
"""

from __future__ import annotations

from zope.sendmail.system.clock import Clock

#: Seconds from which on a relay is far, since it is on another host: one beside us has answered in 0.4 ms at some time,
#: however busy the machine is.
FAR = 0.0007

#: Seconds for which the shortest time counts: a name may be another machine's then.
_MEMORY = 3600.0

#: More than these are not remembered: mail may go to many relays.
_MOST = 10_000


class Distances:
    """See the module."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or Clock()
        self._known: dict[str, tuple[float, float]] = {}

    def note(self, relay: str, seconds: float) -> None:
        """Note that a relay, such as ``mail.example.org:25``, took so long."""
        shortest = self.of(relay)
        if shortest is None or seconds <= shortest:
            if len(self._known) >= _MOST:
                self._known.clear()
            self._known[relay] = seconds, self._clock.monotonic() + _MEMORY

    def of(self, relay: str) -> float | None:
        """Return the shortest time in seconds; None: the relay has not answered lately."""
        seconds, until = self._known.get(relay, (0.0, 0.0))
        return seconds if self._clock.monotonic() < until else None

    def is_far(self, relay: str) -> bool:
        """Return whether a relay is known to be so far away that a round trip more is felt."""
        distance = self.of(relay)
        return distance is not None and distance >= FAR

    def clear(self) -> None:
        """Forget everything."""
        self._known.clear()


#: Those of this process.
DISTANCES = Distances()
