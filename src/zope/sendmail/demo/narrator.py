"""How the demo speaks: plain lines, with a little colour where a person is looking."""

from __future__ import annotations

import os
import textwrap
from typing import TextIO

_GREEN, _RED, _BOLD, _DIM, _PLAIN = "\x1b[32m", "\x1b[31m", "\x1b[1m", "\x1b[2m", "\x1b[0m"


class Narrator:
    """Writes to `stream`, each line at once; coloured if that is a terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._colours = stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        self._marks = ("✓", "✗") if _can_write(stream, "✓✗") else ("ok", "NO")

    @property
    def marks(self) -> tuple[str, str]:
        """For right and wrong."""
        return self._coloured(_GREEN, self._marks[0]), self._coloured(_RED, self._marks[1])

    def title(self, text: str) -> None:
        """Print what comes now."""
        self._write("")
        self._write(self._coloured(_BOLD, text))

    def say(self, text: str) -> None:
        """Print what happens."""
        for line in _folded(text):
            self._write(line)

    def aside(self, text: str) -> None:
        """Print what only some readers want to know."""
        for line in _folded(text):
            self._write(self._coloured(_DIM, line))

    def row(self, text: str) -> None:
        """Print a line of a table."""
        self._write(f"   {text}")

    def right(self, text: str) -> None:
        """Print what came out well."""
        self._marked(_GREEN, self._marks[0], text)

    def wrong(self, text: str) -> None:
        """Print what did not."""
        self._marked(_RED, self._marks[1], text)

    def _marked(self, colour: str, mark: str, text: str) -> None:
        first, *rest = _folded(f"{mark} {text}", hanging=len(mark) + 1)
        self._write(first.replace(mark, self._coloured(colour, mark), 1))
        for line in rest:
            self._write(line)

    def _coloured(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_PLAIN}" if self._colours else text

    def _write(self, line: str) -> None:
        encoding = self._stream.encoding or "ascii"
        print(line.encode(encoding, "replace").decode(encoding), file=self._stream, flush=True)


def _folded(text: str, hanging: int = 0) -> list[str]:
    """`text` in lines, indented; from the second on by `hanging` more."""
    margin = " " * 3
    return textwrap.wrap(
        text,
        100,
        initial_indent=margin,
        subsequent_indent=margin + " " * hanging,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _can_write(stream: TextIO, text: str) -> bool:
    try:
        text.encode(stream.encoding or "ascii")
    except UnicodeError:
        return False
    return True
