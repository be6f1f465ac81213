"""The life of a message as a table.

The words here are the same on disk, in code, in the log, on the command line and in the docs.  Pure.
"""

from __future__ import annotations

from enum import StrEnum

from zope.sendmail.errors import NotPossible


class State(StrEnum):
    """Where a message stands."""

    STAGED = "staged"
    #: Committed; its sender wants it to leave later.
    SCHEDULED = "scheduled"
    READY = "ready"
    SENDING = "sending"
    DEFERRED = "deferred"
    HELD = "held"
    SENT = "sent"
    REJECTED = "rejected"


class Action(StrEnum):
    """What an operator can do to a message."""

    HOLD = "hold"
    RELEASE = "release"
    RETRY = "retry"
    REROUTE = "reroute"
    BOUNCE = "bounce"
    REMOVE = "remove"
    MOVE = "move"


#: Messages in these states will still be tried if no operator does anything.
WAITING = frozenset({State.SCHEDULED, State.READY, State.SENDING, State.DEFERRED})

#: What an operator's action makes of a message; None: it is gone.  What is not here is not possible.
_AFTER: dict[tuple[State, Action], State | None] = {
    (State.STAGED, Action.RELEASE): State.READY,
    (State.STAGED, Action.REMOVE): None,
    (State.SCHEDULED, Action.HOLD): State.HELD,
    (State.SCHEDULED, Action.RETRY): State.READY,
    (State.SCHEDULED, Action.REROUTE): State.SCHEDULED,
    (State.SCHEDULED, Action.BOUNCE): State.REJECTED,
    (State.SCHEDULED, Action.REMOVE): None,
    (State.READY, Action.HOLD): State.HELD,
    (State.DEFERRED, Action.HOLD): State.HELD,
    (State.HELD, Action.RELEASE): State.READY,
    (State.READY, Action.RETRY): State.READY,
    (State.DEFERRED, Action.RETRY): State.READY,
    (State.HELD, Action.RETRY): State.READY,
    (State.REJECTED, Action.RETRY): State.READY,
    (State.READY, Action.REROUTE): State.READY,
    (State.DEFERRED, Action.REROUTE): State.READY,
    (State.HELD, Action.REROUTE): State.HELD,
    (State.READY, Action.BOUNCE): State.REJECTED,
    (State.DEFERRED, Action.BOUNCE): State.REJECTED,
    (State.HELD, Action.BOUNCE): State.REJECTED,
    (State.READY, Action.REMOVE): None,
    (State.DEFERRED, Action.REMOVE): None,
    (State.HELD, Action.REMOVE): None,
    (State.REJECTED, Action.REMOVE): None,
    (State.SCHEDULED, Action.MOVE): State.SCHEDULED,
    (State.READY, Action.MOVE): State.READY,
    (State.DEFERRED, Action.MOVE): State.DEFERRED,
    (State.HELD, Action.MOVE): State.HELD,
    (State.REJECTED, Action.MOVE): State.REJECTED,
    (State.SENT, Action.REMOVE): None,  # its worker died before it did so, and no processor has come since
}


def after(state: State, action: Action, name: str) -> State | None:
    """Return the state that an action leads to; None if the message is gone then.

    :raises NotPossible: with the actions that are possible.
    """
    if (state, action) in _AFTER:
        return _AFTER[state, action]
    possible = [str(other) for at, other in _AFTER if at is state]
    cure = f"possible: {', '.join(possible)}" if possible else "wait until the attempt has ended"
    raise NotPossible(f"cannot {action} mail {name}: it is {state}; {cure}")
