"""What the commands print: lines and JSON objects to standard output, complaints and progress to standard error."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from zope.sendmail.cli.formatting import clean

#: Progress is shown after so many items, and after each as many again.
_STEP = 100

_T = TypeVar("_T")


class CommandRefused(Exception):
    """A command that cannot be carried out; nothing was done.  `status` is the exit status."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


def say(line: str) -> None:
    """Print a line; what the encoding of standard output does not know is escaped."""
    encoding = sys.stdout.encoding or "utf-8"
    print(line.encode(encoding, "backslashreplace").decode(encoding))


def say_all(lines: Iterable[str]) -> None:
    """Print lines."""
    for line in lines:
        say(line)


def say_json(values: Mapping[str, Any]) -> None:
    """Print one JSON object in a line of its own."""
    print(json.dumps(values))


def tell(line: str) -> None:
    """Print a line about something that was done; once its reader has gone, nothing more is printed."""
    with _unread():
        say(line)


def tell_json(values: Mapping[str, Any]) -> None:
    """Print one JSON object, as `tell` prints a line."""
    with _unread():
        say_json(values)


def finish_telling() -> None:
    """Let everything that was told reach its reader, if there is one."""
    with _unread():
        sys.stdout.flush()


@contextlib.contextmanager
def _unread() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        stop_printing()


def complain(text: str, status: int) -> int:
    """Print a line on standard error; return `status`."""
    print(f"zope-sendmail queue: {clean(text)}", file=sys.stderr)
    return status


def is_terminal(stream: object) -> bool:
    """Return whether a person is at the other end of ``sys.stdin``, ``sys.stdout`` or ``sys.stderr``.

    Where a program was started without them they are None; whatever stands in their place may know no terminals.
    """
    try:
        return bool(stream.isatty())  # type: ignore[attr-defined]  # see above
    except (AttributeError, ValueError):  # ValueError: it is closed
        return False


def width() -> int:
    """Return the columns of the terminal, 60 at least."""
    return max(shutil.get_terminal_size((100, 24)).columns, 60)


def progress(items: Iterable[_T], verb: str) -> Iterator[_T]:
    """Yield the items, and show on a terminal how many were done; elsewhere say nothing."""
    if not is_terminal(sys.stderr):
        yield from items
        return
    count = 0
    for count, item in enumerate(items, 1):
        yield item
        if count % _STEP == 0:
            sys.stderr.write(f"\r{verb}: {count:,} ")
            sys.stderr.flush()
    if count >= _STEP:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()


def stop_printing() -> None:
    """Let nothing more go to standard output, whose reader has closed it."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    os.close(devnull)
