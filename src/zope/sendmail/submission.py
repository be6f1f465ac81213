"""The mails of one transaction on their way into a queue, at once or behind direct delivery.

What its disk refuses is told to callers as `QueueNotWritable`, with the cure.  Mail for a queue that no processor
drains is told once in a process, when the first one is committed.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from transaction.interfaces import TransientError
from zope.interface import implementer

from zope.sendmail.config.location import MEMORY
from zope.sendmail.errors import KeyInUse, KeyTaken, telling_refusals
from zope.sendmail.interfaces import IFirstAttempts, ILease, IMailQueue, IStagedMail, SendOptions
from zope.sendmail.lifecycle.outcome import Outcome
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.retry import judge
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.pieces import Piece
from zope.sendmail.reporting import maillog
from zope.sendmail.system.clock import Clock

#: Queues of which it is known in this process whether a processor is at work.
_looked_at: set[str] = set()


class KeyConflict(KeyInUse, TransientError):  # type: ignore[misc]  # transaction says nothing about its types
    """See `KeyInUse`; it lets what tries transactions again do that."""


@contextlib.contextmanager
def telling_conflicts() -> Iterator[None]:
    """Tell that a key is in use in a way that what tries transactions again understands.

    :raises KeyConflict: for `KeyInUse`.
    """
    try:
        yield
    except KeyInUse as error:
        raise KeyConflict(*error.args) from error


@contextlib.contextmanager
def _telling_late_conflicts() -> Iterator[None]:
    """Tell in the vote that a key is another mail's by now: the transaction is tried again, and learns whose.

    :raises KeyConflict: for `KeyInUse` and `KeyTaken`.
    """
    try:
        with telling_conflicts():
            yield
    except KeyTaken as taken:
        raise KeyConflict(f"{taken} since this transaction has sent one with it; try it again") from taken


@implementer(IStagedMail)
class QueueSubmission:
    """See `IStagedMail`.

    :param staged: the mails, as the queue has them.
    :param queue: where they are.
    :param location: the queue as people name it.
    """

    def __init__(self, staged: IStagedMail, queue: IMailQueue, location: str) -> None:
        self._staged = staged
        self._queue = queue
        self._location = location
        self.rollback, self.abort = staged.rollback, staged.abort

    def __len__(self) -> int:
        return len(self._staged)

    def add(self, envelope: Envelope, *message: Piece) -> str:
        """See `IStagedMail`."""
        with telling_refusals(self._location), telling_conflicts():
            return self._staged.add(envelope, *message)

    def prepare(self) -> None:
        """See `IStagedMail`."""
        with telling_refusals(self._location), _telling_late_conflicts():
            self._staged.prepare()

    def commit(self) -> None:
        """See `IStagedMail`."""
        self._staged.commit()
        tell_if_unattended(self._queue, self._location)

    def commit_with(self, attempts: IFirstAttempts) -> None:
        """Do as `commit`, and get the right to the first attempt."""
        attempts.commit(self._staged)
        tell_if_unattended(self._queue, self._location)


class Reserve:
    """The queue behind a direct delivery: it has each mail from the commit on; the delivery makes the first attempt.

    So a death of the process loses nothing, and what is known of an attempt is known to the next one.

    :param queue: the queue.
    :param location: the queue as people name it.
    """

    def __init__(self, queue: IMailQueue, location: str) -> None:
        self._queue = queue
        self.location = location
        self._attempts: Any = None

    def stage(self, envelope: Envelope, *message: Piece) -> tuple[QueueSubmission, str]:
        """Write a mail into the queue, durably, where no processor sees it yet; return it with its name.

        :raises QueueError: the disk refuses.
        """
        with telling_refusals(self.location):
            staged = QueueSubmission(self._queue.stage(), self._queue, self.location)
        name = staged.add(envelope, *message)
        staged.prepare()
        return staged, name

    def commit(self, staged: QueueSubmission) -> None:
        """Let the queue have a mail.

        :raises OSError: the queue tries that again later.
        """
        if self._attempts is None:
            self._attempts = self._queue.first_attempts()
        staged.commit_with(self._attempts)

    def claim(self, name: str) -> ILease | None:
        """Return the lease on a mail; None: a processor has it."""
        lease: ILease | None = self._attempts.claim(name)
        return lease

    def leave(self, name: str) -> None:
        """Leave a mail to processors."""
        self._attempts.leave(name)

    def settle(self, lease: ILease, outcome: Outcome) -> Record:
        """Write down how the attempt ended, by the rules of the queue; return what that is.

        A mail without a recipient left to try is taken out of the queue, rejected recipients or not: they are told.
        """
        clock = Clock()
        record = judge(
            lease.record, lease.envelope, outcome, self._queue.schedule, now=clock.time(), chance=clock.chance()
        )
        lease.settle(replace(record, state=State.SENT) if record.state is State.REJECTED else record)
        return record

    def close(self) -> None:
        """Leave the rest to processors.  Raises nothing."""
        attempts, self._attempts = self._attempts, None
        if attempts is not None:
            try:
                attempts.close()
            except Exception as error:  # noqa: BLE001 - the transaction has committed, and the mail is in the queue
                maillog.finish_failed(f"mail for the queue {self.location}", error)


def refuse_unknown(options: Iterable[str]) -> None:
    """Raise `TypeError` for a keyword that `IMailDelivery.send` does not have, with the one that is meant."""
    for name in options:
        if name not in SendOptions.__annotations__:
            near = difflib.get_close_matches(name, SendOptions.__annotations__, 1)
            meant = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(sorted(SendOptions.__annotations__))}"
            raise TypeError(f"send() has no option {name!r}; {meant}")


def tell_if_unattended(queue: IMailQueue, location: str) -> None:
    """Log it if no processor drains a queue to which mail was committed; the first time that this is asked about it.

    A queue in memory is left out: there programs look themselves for what they have sent.
    """
    if location not in _looked_at and location != MEMORY:
        _looked_at.add(location)
        if not _is_attended(queue):
            maillog.unattended(location)


def _is_attended(queue: Any) -> bool:
    """Say whether a processor is at work on the queue, or is about to be, in this process or another one."""
    ask = getattr(queue, "is_attended", None)
    if ask is None:
        return True
    parent, its_queues = _at_fork
    known = _drained_here() | (its_queues if os.getppid() == parent else set())
    try:
        return queue.location in known or bool(ask())
    except OSError:  # nothing depends on the answer
        return True


def _drained_here() -> set[str]:
    """Return the locations of the queues that threads of this process drain, or are about to."""
    queues = (getattr(each, "queue", None) for each in threading.enumerate())
    return {location for each in queues if isinstance(location := getattr(each, "location", None), str)}


def _note_for_child() -> None:
    global _at_fork
    _at_fork = os.getpid(), _drained_here()


#: The process that forked last, this one or its parent, and the queues that it drained: a processor that has just been
#: started cannot be seen on disk yet.
_at_fork: tuple[int, set[str]] = (0, set())

os.register_at_fork(before=_note_for_child)
