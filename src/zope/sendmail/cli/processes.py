"""Several processes that drain one queue, and the one that looks after them.

The parent forks them, passes signals on, starts again what has died, and collects what each has done.  It has no
thread, no connection and no queue open of its own.  If it dies itself, they stop after the messages in hand.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from zope.sendmail.lifecycle.outcome import Answer, Reply

log = logging.getLogger("zope.sendmail.cli")

#: Seconds until a process that has died is started again: at first, and at most; it doubles if the process did not
#: live as long as that.
_RESTART = (1.0, 60.0)

#: So often a process that has died is started again where it has to drain once; then the rest is left.
_TRIES = 3


#: What stops a process, or lets it read its configuration again.
_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})


@dataclass(slots=True)
class Report:
    """What a process has done."""

    #: Recipients by answer.
    tally: Mapping[Answer, int] = field(default_factory=dict)
    #: Why a relay could not be used at last, or None.
    fault: Reply | None = None

    def written(self) -> bytes:
        """Return one line that says this."""
        fault = None if self.fault is None else str(self.fault)
        return json.dumps({"tally": {str(each): n for each, n in self.tally.items()}, "fault": fault}).encode()

    @classmethod
    def read(cls, line: bytes) -> Report | None:
        """Return what a process wrote; None if it died before it could."""
        try:
            told = json.loads(line)
        except ValueError:
            return None
        fault = told["fault"]
        tally = {Answer(each): count for each, count in told["tally"].items()}
        return cls(tally, None if fault is None else Reply(Answer.DEFERRED, fault))


def summed_up(reports: list[Report]) -> Report:
    """Return what all of them have done."""
    tally: Counter[Answer] = Counter()
    for report in reports:
        tally.update(report.tally)
    return Report(tally, next((report.fault for report in reports if report.fault is not None), None))


@dataclass(slots=True)
class _Process:
    """One process; `number` is that of its share."""

    number: int
    pid: int = 0
    #: Where its report comes from; it ends when the process does.
    pipe: int = -1
    started: float = 0.0
    told: bytes = b""
    deaths: int = 0
    delay: float = _RESTART[0]
    #: When it is to be started again; None: it runs, or has done its work.
    again_at: float | None = None


class Supervisor:
    """Starts `count` processes and looks after them until all have done their work.

    :param work: what process `number` does, of 0 and so on; it runs in the child's main thread
    :param forever: whether a process that ends by itself, or dies, is started again until `stop`

    Concurrency: one thread; `stop` and `hang_up` are for signal handlers.
    """

    def __init__(self, work: Callable[[int], Report], count: int, *, forever: bool) -> None:
        self._work = work
        self._forever = forever
        self._processes = [_Process(number) for number in range(count)]
        self._is_stopping = False
        self._lost = False
        self._lifeline: tuple[int, int] = (-1, -1)

    def stop(self) -> None:
        """Let all processes finish the messages in hand and end."""
        self._is_stopping = True
        self._signal(signal.SIGTERM)

    def hang_up(self) -> None:
        """Let all processes read their configuration again."""
        self._signal(signal.SIGHUP)

    def run(self, ready: Callable[[], None] = lambda: None) -> tuple[Report, bool]:
        """Return what all have done, and whether each lived to tell.

        :param ready: called when all have been started
        """
        reports: list[Report] = []
        self._lifeline = os.pipe()
        try:
            for process in self._processes:
                self._start(process)
            ready()
            while any(process.pid or process.again_at is not None for process in self._processes):
                self._look(reports)
        finally:
            for end in self._lifeline:
                os.close(end)
        return summed_up(reports), not self._lost

    def _look(self, reports: list[Report]) -> None:
        """Wait for something to happen, and do what is to be done."""
        now = time.monotonic()
        running = {process.pipe: process for process in self._processes if process.pid}
        waits = [each.again_at - now for each in self._processes if each.again_at is not None]
        readable, _, _ = select.select(list(running), [], [], max(0.0, min([*waits, 1.0])))
        for pipe in readable:
            process = running[pipe]
            told = os.read(pipe, 65536)
            process.told += told
            if not told:
                self._ended(process, reports)
        for process in self._processes:
            if process.again_at is not None and (self._is_stopping or process.again_at <= time.monotonic()):
                process.again_at = None
                if not self._is_stopping:
                    self._start(process)

    def _start(self, process: _Process) -> None:
        theirs: int
        process.pipe, theirs = os.pipe()
        process.told, process.started = b"", time.monotonic()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # else the child could take one for the parent
        try:
            pid = os.fork()
            if pid == 0:
                self._be(process, theirs, before)
            process.pid = pid
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(theirs)
        if self._is_stopping:  # a signal was faster
            os.kill(pid, signal.SIGTERM)

    def _be(self, process: _Process, pipe: int, mask: Iterable[int]) -> None:
        """Be the child; never returns.  A signal that comes before `work` has a handler ends it."""
        status = os.EX_SOFTWARE
        try:
            for number in _SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            for other in self._processes:
                if other.pipe >= 0:
                    os.close(other.pipe)
            os.close(self._lifeline[1])
            threading.Thread(target=_stop_with_parent, args=(self._lifeline[0],), daemon=True).start()
            report = self._work(process.number)
            os.write(pipe, report.written())
            status = os.EX_OK
        except BaseException:
            log.exception("A process that drains the queue has failed")
        finally:
            logging.shutdown()
            os._exit(status)

    def _ended(self, process: _Process, reports: list[Report]) -> None:
        _, status = os.waitpid(process.pid, 0)
        os.close(process.pipe)
        process.pid, process.pipe = 0, -1
        report = Report.read(process.told)
        if report is not None:
            reports.append(report)
        code = os.waitstatus_to_exitcode(status)
        if self._is_stopping or (report is not None and not self._forever):
            self._lost |= report is None and -code not in _SIGNALS
            return
        process.deaths += 1
        if not self._forever and process.deaths >= _TRIES:
            self._lost = True
            return
        self._start_again(process, code)

    def _start_again(self, process: _Process, code: int) -> None:
        how = f"signal {-code}" if code < 0 else f"status {code}"
        lived = time.monotonic() - process.started
        process.delay = _RESTART[0] if lived > _RESTART[1] else min(process.delay * 2, _RESTART[1])
        process.again_at = time.monotonic() + process.delay
        log.error("A process that drains the queue ended (%s); another one starts in %.0f s.", how, process.delay)

    def _signal(self, number: signal.Signals) -> None:
        for process in self._processes:
            if process.pid:
                os.kill(process.pid, number)


def _stop_with_parent(lifeline: int) -> None:
    """Return never while the parent lives; then stop as by SIGTERM."""
    os.read(lifeline, 1)
    os.kill(os.getpid(), signal.SIGTERM)
