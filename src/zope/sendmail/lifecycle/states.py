"""The life of a message as a table.

The words here are the same on disk, in code, in the log, on the command line and in the docs.  Pure.
"""

from __future__ import annotations

from enum import StrEnum

from zope.sendmail.errors import NotPossible


class State(StrEnum):
    """Where a message stands."""

    STAGED = "staged"
    READY = "ready"
    SENDING = "sending"
    DEFERRED = "deferred"
    HELD = "held"
    SENT = "sent"
    REJECTED = "rejected"


class Verb(StrEnum):
    """What an operator can ask for."""

    HOLD = "hold"
    RELEASE = "release"
    RETRY = "retry"
    REMOVE = "remove"


#: Messages in these states will still be tried without anybody's help.
WAITING = frozenset({State.READY, State.SENDING, State.DEFERRED})

#: What an operator's verb makes of a message; None: it is gone.  What is not here is not possible.
_AFTER: dict[tuple[State, Verb], State | None] = {
    (State.READY, Verb.HOLD): State.HELD,
    (State.DEFERRED, Verb.HOLD): State.HELD,
    (State.HELD, Verb.RELEASE): State.READY,
    (State.READY, Verb.RETRY): State.READY,
    (State.DEFERRED, Verb.RETRY): State.READY,
    (State.HELD, Verb.RETRY): State.READY,
    (State.REJECTED, Verb.RETRY): State.READY,
    (State.READY, Verb.REMOVE): None,
    (State.DEFERRED, Verb.REMOVE): None,
    (State.HELD, Verb.REMOVE): None,
    (State.REJECTED, Verb.REMOVE): None,
    (State.SENT, Verb.REMOVE): None,  # its worker died before it did so, and no processor has come since
}


def after(state: State, verb: Verb, name: str) -> State | None:
    """The state that `verb` leads to.  Raises `NotPossible` with the verbs that are possible."""
    if (state, verb) in _AFTER:
        return _AFTER[state, verb]
    possible = [str(other) for at, other in _AFTER if at is state]
    cure = f"possible: {', '.join(possible)}" if possible else "wait until the attempt has ended"
    raise NotPossible(f"cannot {verb} mail {name}: it is {state}; {cure}")
