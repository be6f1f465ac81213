"""Starts and stops queue processors: they run from the opening of the database to the end of the process.

ZCML only declares processors.  `database_opened` starts them; a program without a database calls `start`.
The environment variable ``ZOPE_SENDMAIL_START=never`` disables the automatic start, for scripts that load
a site; an explicit `start` still works.  Guarantee: a declaration never has two threads in a process, and a
forked child has none until its parent is gone or it calls `start`.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from zope.sendmail.processor.shutdown import EXIT_TIMEOUT
from zope.sendmail.processor.thread import QueueProcessorThread
from zope.sendmail.queue import open_queue
from zope.sendmail.system.clock import Clock
from zope.sendmail.system.greenthreads import refuse_green_threads

#: In the environment: ``never`` keeps every processor of this process from starting by itself
#: (`zope.sendmail.startup`).  Nothing else is affected: mail is written, and ``zope-sendmail`` sends.
SWITCH = "ZOPE_SENDMAIL_START"
_OFF = {"never", "off", "no", "false", "0"}
_ON = {"", "database", "on", "yes", "true", "1"}

#: Seconds between two looks of a forked child at its parent.
WATCH_INTERVAL = 1.0

log = logging.getLogger("zope.sendmail.startup")


class Start(StrEnum):
    """What starts a processor."""

    #: The opening of the database, or `start`.
    DATABASE = "database"
    #: Only `start`.
    EXPLICIT = "explicit"
    #: Nothing in this process; e.g. ``zope-sendmail --daemon`` drains the queue.
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Declaration:
    """A processor that may be started: `name` is its delivery's, `options` are keywords of the thread."""

    name: str
    queue_path: str
    mailer: Any
    start: Start = Start.DATABASE
    options: Mapping[str, Any] = field(default_factory=dict)

    def make(self) -> QueueProcessorThread:
        """Return a processor, not started.  Raises ``GreenThreads`` where eventlet has replaced the threads."""
        refuse_green_threads()
        processor = QueueProcessorThread(**self.options)
        processor.setMailer(self.mailer)
        # Not `setQueuePath`: a directory that is no queue yet must not keep a site from starting.
        processor.queue = open_queue(self.queue_path, schedule=processor.schedule)
        return processor


class Processors:
    """The processors of a process, declared and running.  Concurrency: any thread."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._declared: dict[str, Declaration] = {}
        self._threads: dict[str, QueueProcessorThread] = {}
        self._pid = os.getpid()
        #: What the parent of a forked child had running, until that is decided.
        self._inherited: frozenset[str] = frozenset()
        self._decided = threading.Event()
        self._parents: list[object] = []

    def declare(self, declaration: Declaration) -> None:
        """Remember a processor; start nothing.  A different one of the same name is replaced and stopped."""
        with self._lock:
            known = self._declared.get(declaration.name)
            self._declared[declaration.name] = declaration
            old = None if known == declaration else self._threads.pop(declaration.name, None)
        if old is not None:
            old.stop()

    def declared(self) -> list[Declaration]:
        """Return what was declared, in that order."""
        with self._lock:
            return list(self._declared.values())

    def running(self) -> list[QueueProcessorThread]:
        """Return the processors of this process that are alive."""
        with self._lock:
            return [thread for thread in self._threads.values() if thread.is_alive()]

    def start(self) -> list[QueueProcessorThread]:
        """Start what is declared, does not run, and is not `Start.NEVER`; return all of these, running."""
        return self._start(lambda each: each.start is not Start.NEVER)

    def start_automatically(self) -> list[QueueProcessorThread]:
        """Start what is declared `Start.DATABASE`; see `start`."""
        return self._start(lambda each: each.start is Start.DATABASE)

    def stop(self, timeout: float = EXIT_TIMEOUT) -> bool:
        """Stop all processors after the message in hand; say whether all ended within `timeout` seconds.

        Those that did not are named in the log; they still end after their message.
        """
        with self._lock:
            threads = list(self._threads.values())
            self._threads.clear()
            self._decide(self._inherited)
        for thread in threads:
            thread.stop()
        clock = Clock()
        deadline = clock.monotonic() + timeout
        for thread in threads:
            thread.join(max(0.0, deadline - clock.monotonic()))
        late = [thread for thread in threads if thread.is_alive()]
        for thread in late:
            log.warning(
                "The processor of %s did not end within %.0f s; it is still busy with a message.",
                thread.queuePath,
                timeout,
            )
        return not late

    def reset(self) -> None:
        """Stop everything and forget all declarations, as between two tests."""
        self.stop(5.0)
        with self._lock:
            self._declared.clear()

    def forked(self) -> None:
        """Forget the threads, in a child right after the fork: only the parent has them.

        The child takes over when its parent is gone: the program became a daemon, or its master died.
        """
        parent, self._pid = self._pid, os.getpid()
        self._lock = threading.RLock()
        self._inherited |= frozenset(self._threads)
        # Kept, so that their queues hear of the fork, too, and let go of the parent's locks.
        self._parents = list(self._threads.values())
        self._threads = {}
        self._decided = threading.Event()
        if self._inherited:
            threading.Thread(target=self._watch, args=(parent,), name="zope.sendmail.startup", daemon=True).start()

    def forget_parent(self) -> None:
        """Forget the parent: a child that ends does not take over."""
        with self._lock:
            self._decide(self._inherited)

    def _start(self, wanted: Callable[[Declaration], bool]) -> list[QueueProcessorThread]:
        with self._lock:
            threads = [self._started(each) for each in self._declared.values() if wanted(each)]
            self._decide(self._threads.keys())
            return threads

    def _started(self, declaration: Declaration) -> QueueProcessorThread:
        thread = self._threads.get(declaration.name)
        if thread is not None and thread.is_alive():
            return thread
        if thread is not None:
            log.error("The processor of %s had ended by itself; it is started anew.", thread.queuePath)
        thread = declaration.make()
        thread.start()
        self._threads[declaration.name] = thread
        return thread

    def _decide(self, names: Collection[str]) -> None:
        """Decide about these; with nothing left, the parent is not watched any more."""
        self._inherited -= frozenset(names)
        if not self._inherited:
            self._decided.set()

    def _watch(self, parent: int) -> None:
        decided = self._decided
        while not decided.wait(WATCH_INTERVAL):
            if os.getppid() != parent:
                try:
                    self._take_over()
                except Exception as error:  # noqa: BLE001 - no other thread is left to send this mail
                    log.error("The mail of the parent process cannot be sent yet: %s", error)  # noqa: TRY400 - says it all

    def _take_over(self) -> None:
        with self._lock:
            inherited = self._inherited
            if inherited:
                log.info("The parent process is gone; process %d sends its mail now.", os.getpid())
                self._start(lambda each: each.name in inherited)
                self._decide(inherited)


_processors = Processors()
declare = _processors.declare
declared = _processors.declared
start = _processors.start
stop = _processors.stop
running = _processors.running
reset = _processors.reset


def database_opened(event: object) -> None:  # noqa: ARG001 - subscribers get one
    """Subscriber to ``IDatabaseOpenedWithRoot``: start what waits for the database."""
    if switched_off():
        log.info("No mail is sent from this process, because %s=%s.", SWITCH, os.environ[SWITCH])
    else:
        _processors.start_automatically()


def switched_off() -> bool:
    """Return whether the environment forbids the automatic start.  Raises `ValueError` for an unknown word."""
    word = os.environ.get(SWITCH, "").strip().lower()
    if word not in _OFF | _ON:
        raise ValueError(f"{SWITCH}={word!r} is neither on nor off; write never, or nothing")
    return word in _OFF


# Before `zope.sendmail.processor.shutdown` ends the threads: no child takes over any more.
atexit.register(_processors.forget_parent)
os.register_at_fork(after_in_child=_processors.forked)

with contextlib.suppress(ImportError):
    from zope.testing.cleanup import addCleanUp

    addCleanUp(reset)
