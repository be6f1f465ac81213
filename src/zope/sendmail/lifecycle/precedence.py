"""Whose turn it is among the mails of several priorities.

The first class goes first, and none starves: one that was passed over often enough has its turn.  Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

#: How often a class is passed over by those before it, by its rank: so while there is enough of all, a ninth of the
#: mails is low, and of the others a fifth is normal.
_PATIENCE = (0, 4, 8)


class Precedence:
    """Decides which class is next.  Concurrency: one caller at a time.

    A class that waits alone, or behind one that has just come, uses nothing up: so a mail of a higher class never waits
    for more than the mails that are in hand already.
    """

    def __init__(self) -> None:
        self._passed = [0] * len(_PATIENCE)

    def next(self, waiting: Sequence[int]) -> int:
        """Return the rank whose turn it is, and take note that it is served.

        :param waiting: the ranks of which there is mail, ascending; at least one.
        """
        chosen = waiting[0]
        for rank in waiting[1:]:
            if self._passed[rank] >= _PATIENCE[rank]:
                chosen = rank
        self._passed[chosen] = 0
        for rank in waiting:
            self._passed[rank] += rank > chosen
        return chosen

    def served(self, rank: int) -> None:
        """Take note that a mail of this rank went, since there was none of the rank whose turn it was."""
        self._passed[rank] = 0
