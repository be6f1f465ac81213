"""The SQL of the queue, read from the ``.sql`` files beside this module.

A file holds several statements; each begins with a line ``-- name: NAME``.
"""

from __future__ import annotations

import re
from importlib.resources import files

_NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)

_FILES = ("processors", "claims", "staging", "operating", "reporting", "joining", "moving", "suppressions", "keys")


def _read() -> dict[str, bytes]:
    """Return every statement by its name."""
    found: dict[str, bytes] = {}
    for file in _FILES:
        text = files(__package__).joinpath("sql", f"{file}.sql").read_text("utf-8")
        _, *parts = _NAME.split(text)
        for name, statement in zip(parts[::2], parts[1::2], strict=True):
            if name in found:
                raise ValueError(f"two statements are called {name}")  # pragma: no cover - our own files never do
            found[name] = statement.strip().encode()
    return found


#: Every statement by its name.
STATEMENTS = _read()
