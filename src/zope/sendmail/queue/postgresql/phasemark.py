"""How far a processor has come with a mail, as it is written down in the database, and how that went.  Pure."""

from __future__ import annotations

import threading
import uuid
from dataclasses import dataclass
from math import inf


@dataclass(slots=True, eq=False)
class PhaseMark:
    """How far a mail has come; the worker that waits for it finds here how it went."""

    mail: uuid.UUID
    lease: int
    slot: int
    phase: int
    #: Whether that was said ahead of its time.
    is_ahead: bool = False
    done: bool = False
    error: Exception | None = None
    #: When that was asked of the server, on the monotonic clock.
    asked_at: float = -inf
    #: Held as long as this one waits for another to speak.
    gate: threading.Lock | None = None
