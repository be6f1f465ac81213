"""What the console costs: how fast a queue is drained beside it, and how fast its pages are, with 100,000 mails.

The queue has as many mails that wait for their next attempt all the time; some thousand fresh ones are drained into a
relay on this host, in turn with the console closed and with it open in a browser.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.cookiejar import CookieJar
from pathlib import Path

from depth import build
from figures import Aim, Figure, Report, progress
from releases import Ours, file_system, our_version, parser, place
from serve import Child

#: What is open while mail is drained; the first one fetches itself anew every ten seconds, as it does here.
OPEN = ("/0/", "/0/mails")

#: What is asked for afterwards, each for the first time and again.
FILTERED = (
    "/0/mails?state=deferred",
    "/0/mails?recipient=nobody@example.org",
    "/0/mails?reply=450",
    "/0/mails?younger_than=1h",
)

_EVERY = 10.0

#: Seconds after which a page is too slow.
_PATIENCE = 60.0


class Eyes:
    """A person in front of the console.  `url` is what the command has printed."""

    def __init__(self, url: str) -> None:
        self._origin = "{0.scheme}://{0.netloc}".format(urllib.parse.urlsplit(url))
        around_no_proxy = urllib.request.ProxyHandler({})
        self._browser = urllib.request.build_opener(around_no_proxy, urllib.request.HTTPCookieProcessor(CookieJar()))
        self._get(url)
        #: Milliseconds that each page took.
        self.took: defaultdict[str, list[float]] = defaultdict(list)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Look away."""
        self._closed.set()
        self._thread.join()

    def filter(self) -> None:
        """Ask for lists that few or no mails fit."""
        for page in FILTERED * 2:
            self._time(page)

    def _look(self) -> None:
        while not self._closed.is_set():
            for page in OPEN:
                self._time(page)
            self._closed.wait(_EVERY)

    def _time(self, page: str) -> None:
        began = time.perf_counter()
        self._get(self._origin + page)
        self.took[page].append((time.perf_counter() - began) * 1000)

    def _get(self, url: str) -> None:
        with self._browser.open(url, timeout=_PATIENCE) as answer:
            answer.read()


def main() -> None:
    """Measure, and print the table."""
    arguments = _arguments()
    rates: defaultdict[str, list[float]] = defaultdict(list)
    took: defaultdict[str, list[float]] = defaultdict(list)
    with place(arguments.directory) as directory:
        made = Report("The console", f"zope.sendmail {our_version()}", file_system(directory))
        queue = os.path.join(directory, "queue")
        build(queue, "deferred", arguments.messages)
        with Ours().child("pump.py") as pump, Ours().child("sink.py") as sink:
            port = sink.ask("start")["port"]
            for number in range(-1, arguments.rounds):  # the first warms up
                for side in sorted(("closed", "open"), reverse=bool(number % 2)):
                    progress(f"round {number + 1} of {arguments.rounds}: {side}")
                    rate = _drain(queue, side, pump, port, took if number >= 0 else defaultdict(list), arguments)
                    if number >= 0:
                        rates[side].append(rate)
        progress("clearing up")
    made.add(*_figures(rates, took, arguments.messages))
    made.notes.append(
        "the first two pages are asked for while the queue is drained, over HTTP; the filters one behind the other"
    )
    progress("")
    made.show(as_json=arguments.json)


def _arguments() -> argparse.Namespace:
    found = parser(__doc__, rounds=3)
    found.add_argument("--messages", type=int, default=100_000, help="that wait in the queue (default: %(default)s)")
    found.add_argument("--mails", type=int, default=20_000, help="drained a round (default: %(default)s)")
    return found.parse_args()


def _drain(  # noqa: PLR0917 - one measurement
    queue: str, side: str, pump: Child, port: int, took: defaultdict[str, list[float]], arguments: argparse.Namespace
) -> float:
    """Return the mails a second, with the console open or closed."""
    with _console(queue, took, is_open=side == "open"):
        answer = pump.ask("drain", queue=queue, mails=arguments.mails, size=2000, port=port, beside=arguments.messages)
    if answer["left"]:
        raise RuntimeError(f"{answer['left']} mails are left")
    return float(arguments.mails / answer["seconds"])


@contextmanager
def _console(queue: str, took: defaultdict[str, list[float]], *, is_open: bool) -> Iterator[None]:
    if not is_open:
        yield
        return
    command = [sys.executable, "-m", "zope.sendmail.cli", "console", "--listen", ":0", "--writable", queue]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path[1:]))}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    try:
        eyes = Eyes(process.stdout.readline().strip())
        _wait_for_rest(process.pid)
        try:
            yield
            eyes.filter()
        finally:
            eyes.close()
            for page, values in eyes.took.items():
                took[page] += values
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def _wait_for_rest(pid: int, patience: float = 120.0) -> None:
    """Wait until the first look, which takes some seconds, is over: a tenth of a processor at most is used."""
    until = time.monotonic() + patience
    while time.monotonic() < until:
        before = _cpu(pid)
        time.sleep(2.0)
        if _cpu(pid) - before < 0.2:
            return


def _cpu(pid: int) -> float:
    """Return the seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _figures(
    rates: defaultdict[str, list[float]], took: defaultdict[str, list[float]], messages: int
) -> Iterator[Figure]:
    yield Figure(
        f"draining beside the open console, {messages} mails",
        "mails/s",
        rates["open"],
        rates["closed"],
        "the console closed",
        Aim(least=0.95, of_ratio=True),
    )
    for page in OPEN + FILTERED:
        if took[page]:
            yield Figure(f"page {page}", "ms", took[page], aim=Aim(most=200.0))
            yield Figure(f"page {page}, the slowest", "ms", [max(took[page])], aim=Aim(most=200.0))


if __name__ == "__main__":
    sys.exit(main())
