"""What a person may have meant who wrote a name that there is none of."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable


def meant(unknown: Iterable[str], known: Collection[str]) -> str:
    """Return the end of a message that asks for the known names nearest to `unknown`; nothing if none is near."""
    near = [close for name in unknown for close in difflib.get_close_matches(name, known, 1)]
    return f"; did you mean {', '.join(near)}?" if near else ""
