"""The label ``relay``: few values, whatever relays there are."""

from __future__ import annotations

#: So many relays have labels of their own; further ones, such as those that single users have, share one.
MAX_RELAYS = 50

OTHERS = "others"


class RelayLabels:
    """Which relays have a label.  Concurrency: any thread; two that come first at once may both get one."""

    def __init__(self, most: int = MAX_RELAYS) -> None:
        self._most = most
        self._known: set[str] = set()

    def of(self, relay: str) -> str:
        """Return the label of a relay."""
        if relay not in self._known:
            if len(self._known) >= self._most:
                return OTHERS
            self._known.add(relay)
        return relay or "none"
