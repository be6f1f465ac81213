"""The log of maildrop's daemon: what became of each message, in the words of Products.MaildropHost.

``OK``: accepted; ``BAD``: not now, it is tried again; ``FATAL``: rejected for good; ``!!!!!``: trouble.  Local time.
The file is open only while a line is written, so it may be renamed at any moment.  Never raises: what cannot be
written goes to the standard log.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterable, Mapping
from datetime import datetime

from zope.sendmail.events import MailErrorEvent, MailEvent, MailSentEvent
from zope.sendmail.lifecycle.outcome import printable
from zope.sendmail.reporting import maillog
from zope.sendmail.system.clock import Clock

#: What 2.3 said to what became of a mail; to anything else, BAD.
_WORDS: Mapping[type, str] = {MailSentEvent: "OK", MailErrorEvent: "FATAL"}

log = logging.getLogger("zope.sendmail.maildrop.runlog")


class RunLog:
    """One log file.  `echo`: to standard output as well.  Concurrency: any thread."""

    def __init__(self, path: str, clock: Clock, *, echo: bool = False) -> None:
        self.path = path
        self._clock = clock
        self._echo = echo
        self._mutex = threading.Lock()
        self._is_running = False
        self._is_broken = False

    def tell(self, events: Iterable[MailEvent]) -> None:
        """Write down what a relay said about a message: a line for each kind of answer."""
        for event in events:
            self.say(_line(event))

    def say(self, line: str) -> None:
        """Write a line; the first one of a run has the time before it."""
        with self._mutex:
            if not self._is_running:
                self._is_running = True
                line = f"\n### Started at {self._moment()}\n{line}"
            self._write(f"{line}\n")

    def finish(self) -> None:
        """End the run; one without a line leaves no trace."""
        with self._mutex:
            if self._is_running:
                self._is_running = False
                self._write(f"### Finished at {self._moment()}\n")

    def _write(self, text: str) -> None:
        if self._echo:
            sys.stdout.write(text)
            sys.stdout.flush()
        try:
            flags = os.O_CREAT | os.O_APPEND | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
            with open(os.open(self.path, flags, 0o600), "a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
            self._is_broken = False
        except OSError as error:
            if not self._is_broken:
                log.error("The log %s cannot be written: %s; mail goes on.", self.path, error)  # noqa: TRY400 - says it all
            self._is_broken = True

    def _moment(self) -> str:
        return datetime.fromtimestamp(self._clock.time()).astimezone().strftime("%Y/%m/%d %H:%M:%S")


class RunLogHandler(logging.Handler):
    """Puts the warnings of a processor into a run log; what relays answered stands there already."""

    def __init__(self, runlog: RunLog) -> None:
        super().__init__(logging.WARNING)
        self._runlog = runlog

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        if record.funcName != maillog.answered.__name__:
            self._runlog.say(f"!!!!! {printable(record.getMessage(), 2000)}")


def _line(event: MailEvent) -> str:
    word = _WORDS.get(type(event), "BAD")
    replies = "; ".join(dict.fromkeys(printable(str(reply)) for reply in event.replies.values()))
    recipients = ", ".join(printable(recipient) for recipient in event.replies)
    return f"{word}\t{recipients}\t<{printable(event.messageId)}>\t{replies}"
