"""Log records that are safe in a file and on a terminal, whatever file names, replies and errors say.

A name with line ends would forge lines of the log, one with control or bidi characters what a terminal shows of them.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator

from zope.sendmail.lifecycle.outcome import printable

#: How the sentences between an error and the next one begin.
_BETWEEN = ("The above exception", "During handling")

#: Characters of a line at most.
_MOST = 10_000


class PrintableFilter(logging.Filter):
    """Makes the arguments and the traceback of a record printable, for each handler that gets it."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return True; see `logging.Filter`."""
        if isinstance(record.args, tuple):
            record.args = tuple(each if isinstance(each, int | float) else printable(str(each)) for each in record.args)
        if record.exc_info and record.exc_info[1] is not None:
            record.exc_text = traceback_of(record.exc_info[1])
        return True


class PrintableFormatter(logging.Formatter):
    """Makes printable what any logger of a program says."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        record.message = printable(record.message, _MOST)
        return super().formatMessage(record)

    def formatException(self, ei: object) -> str:
        """See `logging.Formatter`."""
        error = ei[1] if isinstance(ei, tuple) else None
        return traceback_of(error) if isinstance(error, BaseException) else ""


def traceback_of(error: BaseException) -> str:
    """Return the traceback of an error; what the error says begins no line of its own."""
    return "\n".join(_lines(error))


def _lines(error: BaseException) -> Iterator[str]:
    is_told = False  # what follows the line of an error are its notes
    for chunk in traceback.TracebackException.from_exception(error).format():
        first, *more = chunk.strip("\n").split("\n")
        is_frame = first.startswith((" ", "Traceback (")) or first.startswith(_BETWEEN)
        yield _line(first, 4 if is_told and not is_frame else 0)
        yield from (_line(line, 4) for line in more)
        is_told = not is_frame


def _line(line: str, least: int) -> str:
    """Return a line that is printable and indented at least so far."""
    indent = len(line) - len(line.lstrip(" "))
    return " " * max(indent, least) + printable(line, _MOST)


def configure(level: int) -> None:
    """Log to standard error as lines for people: the root logger from `level` on, unless a program has set it up."""
    handler = logging.StreamHandler()
    handler.setFormatter(PrintableFormatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])
