"""What a processor may ask of a mailer that is made of others: no more than each of those allows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from zope.sendmail.lifecycle.relaystate import RelayState
from zope.sendmail.mailer import keeps_sessions


class InnerLimits(ABC):
    """Limits of a mailer that has `mailers` behind it; see `SMTPMailer` for their meaning."""

    @property
    @abstractmethod
    def mailers(self) -> tuple[Any, ...]:
        """The mailers behind this one."""

    @property
    def connections(self) -> int | None:
        """The least of theirs; one if a mailer has only ``send``, which need not bear two threads."""
        return min(filter(None, map(_connections, self.mailers)), default=None)

    @property
    def rate(self) -> float | None:
        """The least of theirs, because any mail may go to any of them."""
        return self._least("rate")

    @property
    def shared_rate(self) -> float | None:
        """The least of theirs, too."""
        return self._least("shared_rate")

    def relay_states(self, now: float) -> list[RelayState]:
        """Return what is known of each relay behind it that is one of several.

        :param now: seconds since the epoch
        """
        return [state for mailer in self.mailers for state in relay_states_of(mailer, now)]

    def _least(self, name: str) -> float | None:
        return min(filter(None, (getattr(mailer, name, None) for mailer in self.mailers)), default=None)


def relay_states_of(mailer: Any, now: float) -> list[RelayState]:
    """Return what any mailer knows of relays behind it; nothing for one that is not made of several."""
    tell: Callable[[float], list[RelayState]] | None = getattr(mailer, "relay_states", None)
    return [] if tell is None else tell(now)


def _connections(mailer: Any) -> int | None:
    connections: int | None = getattr(mailer, "connections", None)
    return connections or (None if keeps_sessions(mailer) else 1)
