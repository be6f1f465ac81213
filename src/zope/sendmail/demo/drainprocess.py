"""One more process that drains the queue, seen from both sides.

The process loads the same site.zcml, sends until its standard input ends, and writes on standard output, one
JSON object a line, what the mail events tell.  It does not outlive who started it: its input ends then.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from typing import Any

#: Seconds for the message in hand.
_LAST_MESSAGE = 30.0


# --- the process --------------------------------------------------------------------------------------------


def main(queue_path: str, port: str) -> int:
    """Drain the queue at `queue_path` to `port` until standard input ends."""
    from zope.component import provideHandler

    from zope.sendmail import startup
    from zope.sendmail.demo.shop import configure
    from zope.sendmail.interfaces import IMailEvent
    from zope.sendmail.reporting import notifier

    line = "%(asctime)s %(levelname)s %(name)s %(message)s"
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format=line)
    configure(queue_path, int(port))
    provideHandler(report_event, (IMailEvent,))
    startup.start()  # a process without a database says itself when to start
    report("started")
    sys.stdin.buffer.read()
    ended = startup.stop(_LAST_MESSAGE)
    return 0 if ended and notifier.flush(_LAST_MESSAGE) else 1


def report_event(event: Any) -> None:
    """Subscriber to mail events."""
    report(type(event).__name__, event.messageId, "; ".join(map(str, event.replies.values())))


def report(what: str, message_id: str = "", text: str = "") -> None:
    """Tell the program that started us."""
    print(json.dumps({"what": what, "message_id": message_id, "text": text}), flush=True)


# --- the program that started it ----------------------------------------------------------------------------


class DrainProcess:
    """A process that drains the queue through its own entrance of the catcher.  Its log is in `log_path`."""

    def __init__(self, queue_path: str, port: int, log_path: str) -> None:
        self.port = port
        #: What it reported.  Only its reader adds to it.
        self.reports: list[dict[str, str]] = []
        command = [sys.executable, "-m", "zope.sendmail.demo.drainprocess", queue_path, str(port)]
        # The same program finds the same modules: bin/demo knows its own way to them.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        with open(log_path, "wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - this very program
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                process_group=0,  # Ctrl-C is for the program that started it
            )
        self.pid = self._process.pid
        self._reader = threading.Thread(target=self._read, name=f"worker {self.pid}", daemon=True)
        self._reader.start()

    def has_started(self) -> bool:
        """Return whether it drains the queue.  Raises `ChildProcessError` if it never will."""
        if self._process.poll() is not None:
            status = self._process.returncode
            raise ChildProcessError(f"Process {self.pid} ended by itself, with status {status}.")
        return any(report["what"] == "started" for report in self.reports)

    def told(self, event: str) -> list[dict[str, str]]:
        """Return what it reported about events of this name."""
        return [report for report in self.reports if report["what"] == event]

    def kill(self) -> None:
        """kill -9, and wait until it is dead."""
        self._process.kill()
        self._process.wait()

    def tell_to_end(self) -> None:
        """Let it finish the message in hand and end."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def end(self, timeout: float) -> int:
        """Return its exit status, when it has ended and everything it reported is here.  Raises `TimeoutError`."""
        self.tell_to_end()
        try:
            status = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"Process {self.pid} did not end within {timeout:.0f} seconds.") from None
        self._reader.join(timeout)
        return status

    def close(self) -> None:
        """Make sure that it is gone."""
        self.kill()
        self.tell_to_end()
        self._reader.join()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                if line.endswith(b"\n"):  # not one that its death tore
                    self.reports.append(json.loads(line))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
