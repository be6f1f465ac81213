"""Readers of one process that share a queue: a mail leaves through the one that takes it first, so all do the same.

A second one that runs with another relay, or other routes, is refused.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from zope.sendmail.config.location import MEMORY, directories_of
from zope.sendmail.errors import InvalidSettings
from zope.sendmail.message.routes import Routes
from zope.sendmail.sender.namedrelays import addresses_of
from zope.sendmail.system.forklock import ForkLock


@dataclass(frozen=True)
class QueueUse:
    """What a reader does with the mail of its queue.

    :param location: that of the queue
    :param places: what the queue is known by, of which another name of the same queue has one as well
    :param relay: address and username for mail that names no relay; None if only the mailer knows where it sends
    """

    location: str
    places: frozenset[object]
    relay: object
    routes: Routes

    @classmethod
    def of(cls, location: str, queue: Any, mailer: Any, routes: Routes) -> QueueUse:
        """Return that of a reader.

        :param queue: the queue object that it was given, or None
        """
        if location == MEMORY or queue is not None:  # then the location may say anything
            places: Iterable[object] = {id(queue)}
        else:
            places = {os.path.realpath(path) for path in directories_of(location)} or {location}
        is_known = addresses_of([mailer]) and getattr(mailer, "settings", None) is None
        relay = (*addresses_of([mailer]), getattr(mailer, "username", None)) if is_known else None
        return cls(location, frozenset(places), relay, routes)

    def differs(self, other: QueueUse) -> str:
        """Return what another one does otherwise, or the empty string if both do the same, as far as that is known."""
        if None not in (self.relay, other.relay) and self.relay != other.relay:
            return "relay differs"
        return "relays or routes differ" if self.routes != other.routes else ""


_begun: weakref.WeakKeyDictionary[threading.Thread, QueueUse] = weakref.WeakKeyDictionary()
_lock = ForkLock()


def note_begin(thread: threading.Thread, use: QueueUse) -> None:
    """Remember what a thread does that has begun to send."""
    with _lock:
        _begun[thread] = use


def refuse_other_relay(use: QueueUse) -> None:
    """Compare what a reader would do with what is done in this process by threads that send.

    :raises InvalidSettings: if one sends from the same queue to another relay, or by other routes
    """
    with _lock:
        others = [other for thread, other in _begun.items() if thread.is_alive()]
    for other in others:
        shared = use.places & other.places
        if shared and (difference := use.differs(other)):
            raise InvalidSettings(
                f"the queue {use.location} has a sender in this process already, whose {difference}: each mail would "
                "leave through the one that takes it first; give each relay a queue of its own, or name both in one "
                "sender (relays=, mailers=)"
            )
