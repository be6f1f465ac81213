"""The log for programs: one JSON object a line; each attempt is one record with all that is known about it.

`configure` sets it up as ``zope-sendmail --log-format json`` does; an application names `JsonFormatter` and
`AttemptLog` in its own `logging` configuration (``docs/howto/monitoring.rst`` has one, and lists the keys).
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import IO, Any

from zope.sendmail.lifecycle.outcome import printable
from zope.sendmail.reporting.observers import AttemptRecord, FaultRecord, observe
from zope.sendmail.reporting.printablelog import traceback_of

#: Has one record for each attempt, whose attribute `attempt` is the object.  Quiet until it gets a handler.
attempt_log = logging.getLogger("zope.sendmail.attempts")
attempt_log.addHandler(logging.NullHandler())
attempt_log.propagate = False

#: Loggers with a sentence for each recipient of an attempt, which `attempt_log` has as well.
_SENTENCES = "QueueProcessorThread"

_MOST = 2000  # characters of a text


class AttemptLog:
    """An `AttemptObserver` that logs each attempt with `attempt_log`: INFO if the mail left, else WARNING."""

    def attempted(self, record: AttemptRecord) -> None:
        """Log an attempt."""
        level = logging.INFO if record.state == "sent" else logging.WARNING
        self._log(level, f"{record.name}: {record.state}", record)

    def faulted(self, record: FaultRecord) -> None:
        """Log a relay that could not be used."""
        self._log(logging.WARNING, f"{record.relay}: {record.reply}", record)

    def _log(self, level: int, text: str, record: AttemptRecord | FaultRecord) -> None:
        if attempt_log.isEnabledFor(level):
            attempt_log.log(level, "%s", text, extra={"attempt": record.as_json()})


class JsonFormatter(logging.Formatter):
    """Makes one line of JSON of a record: an attempt as it is, anything else as time, level, logger and message."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return json.dumps(self._values(record), ensure_ascii=True, default=str)

    def _values(self, record: logging.LogRecord) -> dict[str, Any]:
        attempt = getattr(record, "attempt", None)
        if isinstance(attempt, dict):
            return {"level": record.levelname, "logger": record.name, **attempt}
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        values = {
            "time": moment,
            "event": "message",
            "level": record.levelname,
            "logger": record.name,
            "message": printable(record.getMessage())[:_MOST],
        }
        if record.exc_info and record.exc_info[1] is not None:
            values["exception"] = traceback_of(record.exc_info[1])
        return values


def configure(level: int, stream: IO[str] | None = None) -> None:
    """Log as JSON: the root logger from `level` on, and every attempt.

    :param level: as in `logging`; sentences about single recipients are left out, since the attempts have them
    :param stream: where to; standard error by default
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler])
    logging.getLogger(_SENTENCES).addFilter(_is_no_answer)
    attempt_log.addHandler(handler)
    attempt_log.setLevel(logging.INFO)
    observe(AttemptLog())


def _is_no_answer(record: logging.LogRecord) -> bool:
    return not getattr(record, "is_answer", False)
