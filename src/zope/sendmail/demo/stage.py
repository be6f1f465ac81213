"""Where the story plays: the configured site, its database, its queue, and the catcher that is its relay.

Everything lies in one directory and ends with the `with` statement that opened it.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from zope.component import provideHandler
from zope.configuration.exceptions import ConfigurationError

from zope.sendmail import startup
from zope.sendmail.demo.catcher import Catcher
from zope.sendmail.demo.drainprocess import DrainProcess
from zope.sendmail.demo.ledger import Surprise
from zope.sendmail.demo.shop import configure, open_database
from zope.sendmail.interfaces import IMailEvent, IMailQueue
from zope.sendmail.queue import open_queue
from zope.sendmail.reporting import notifier

#: Seconds that the story waits for something that takes milliseconds.
PATIENCE = 60.0

_LOOK_EVERY = 0.002


def until(condition: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
    """Wait until `condition` is true.  Raises `Surprise` with `what` after `patience` seconds."""
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            raise Surprise(f"Waited {patience:.0f} seconds, but {what}.")
        time.sleep(_LOOK_EVERY)


@dataclass
class Stage:
    """What the scenes share."""

    directory: str
    catcher: Catcher
    database: Any = None
    #: What the mail events told, newest first.
    events: deque[Any] = field(default_factory=lambda: deque(maxlen=1000))

    @property
    def queue_path(self) -> str:
        """The directory of the queue."""
        return os.path.join(self.directory, "queue")

    def queue(self) -> IMailQueue:
        """Return the queue, as an operator sees it."""
        return open_queue(self.queue_path)

    def worker(self, number: int) -> DrainProcess:
        """Return one more process that drains the queue."""
        return DrainProcess(self.queue_path, self.catcher.open(), self.path(f"process-{number}.log"))

    def path(self, name: str) -> str:
        """Return a file of the demo."""
        return os.path.join(self.directory, name)

    def wait_for(self, mails: Collection[str], patience: float = PATIENCE) -> None:
        """Wait until all these came and the queue has nothing left.  Raises `Surprise`."""
        until(
            lambda: self.catcher.delivered().keys() >= set(mails),
            f"the catcher does not have all of {len(mails)} committed mails",
            patience,
        )
        self.wait_for_empty_queue()

    def wait_for_empty_queue(self) -> None:
        """Wait until the queue has nothing left, staged mail included.  Raises `Surprise`."""
        queue = self.queue()
        until(lambda: not queue.admin.count(), "the queue is not empty")


@contextmanager
def open_stage(directory: str) -> Iterator[Stage]:
    """Configure the site and open its database, which starts the sending; if not, raise `Surprise`."""
    with ExitStack() as at_end:
        stage = Stage(directory, Catcher())
        at_end.callback(stage.catcher.close)
        _configure(stage)
        provideHandler(stage.events.appendleft, (IMailEvent,))
        stage.database = open_database(stage.path("Data.fs"))
        at_end.callback(stage.database.close)
        at_end.callback(_stop_sending)
        if not startup.running():
            raise Surprise(f"The opening of the database started nothing. Is {startup.SWITCH} set?")
        yield stage


def _configure(stage: Stage) -> None:
    try:
        configure(stage.queue_path, stage.catcher.open())
    except ConfigurationError as error:
        raise Surprise(f"The site cannot be configured: {error}") from error


def _stop_sending() -> None:
    startup.stop(PATIENCE)
    notifier.flush(PATIENCE)
