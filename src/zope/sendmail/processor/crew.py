"""Conversations that one thread carries.

To send an ordinary mail takes a tenth of a millisecond of Python, and then its relay is waited for.  A thread for each
conversation hands the interpreter to another one several times a mail, which costs more than the mail.  So those that
send one ordinary mail after the other are carried by one thread: it takes a step of each whose relay has said something
(poll(2)), up to where that relay is waited for again.  What may take long, such as connecting, or any answer but yes,
is done in a thread of its own: a conversation leaves with that, and comes back when it has gone well for a while.  A
new one comes with its first ordinary mail.

Where the interpreter has no lock, where poll(2) is not to be had, and for a queue that is waited for itself with each
mail, each conversation keeps its own thread.  So it does for a while where the thread was held up: by a disk that
lets it wait, as over a network, or on a machine that has too much to do, where several threads get more.
"""

from __future__ import annotations

import contextlib
import select
import threading
from collections import deque
from collections.abc import Callable, Container, Generator
from math import inf

from zope.sendmail.smtp.channel import MOMENT
from zope.sendmail.system.clock import Clock
from zope.sendmail.system.gilbaton import IS_NEEDED, baton

#: A conversation; see `zope.sendmail.processor.worker.Worker.steps`.
Steps = Generator[int | None, bool | None, None]

#: Mails that went well, one after the other, until a conversation that has left is carried with others again.
_STEADY = 8

#: The thread is held up if it spends more than this part of its time neither at work nor in wait for relays; so many
#: seconds later it may carry several again.
_HELD_UP, _APART = 0.5, 10.0

#: What is waited for; that the connection has ended is heard as well.
_HEARD = select.POLLIN if hasattr(select, "poll") else 0  # eventlet takes it away

#: In the place of a descriptor: the conversation has ended.
_ENDED = -1


class Crew:
    """The conversations with one relay; see the module.

    :param start_thread: begins a thread; raises `RuntimeError` if the system has none
    :param accepts: whether several are carried by one thread at all

    Concurrency: any thread.
    """

    def __init__(self, clock: Clock, start_thread: Callable[[Callable[[], None]], None], *, accepts: bool) -> None:
        self.clock = clock
        self._start_thread = start_thread
        #: From when on, by the monotonic clock.
        self._from = 0.0 if accepts and IS_NEEDED and _HEARD else inf
        self._mutex = threading.Lock()
        #: Those that are to be carried too, each with what it waits for, and what is told when it is taken; and whether
        #: there is a thread that carries.
        self._coming: deque[tuple[Steps, int, threading.Event]] = deque()
        self._is_carried = False

    @property
    def is_together(self) -> bool:
        """Whether several conversations are carried by one thread now."""
        return self.clock.monotonic() >= self._from

    def carry(self, steps: Steps) -> None:
        """Carry a conversation until it ends, or another thread carries it; meanwhile this one may carry others.

        Raises what the steps raise.
        """
        self._carry(steps, is_new=True)

    def _carry(self, steps: Steps, *, is_new: bool) -> None:
        left: Steps | None = steps
        taken = None
        with contextlib.nullcontext() if self.is_together else baton.running():  # one has no other to take turns with
            while left is not None and taken is None:
                descriptor = self._until_steady(left, _STEADY if is_new else 0)
                if descriptor == _ENDED:
                    return
                taken = self._begin(left, descriptor)
                if taken is None:
                    left, is_new = Carrier(self, left, descriptor).run(), False
        if taken is not None:
            taken.wait()  # a fork meanwhile must not leave it to the child, which would end it: this thread has it

    def _until_steady(self, steps: Steps, mails: int) -> int:
        """Carry one alone, until it may be carried with others; return what it waits for then, or `_ENDED`.

        :param mails: that went well before
        """
        has_waited = False
        while True:
            step = _next(steps, True if has_waited else None)
            if step is None:
                mails, has_waited = 0 if has_waited else mails, False
            elif step != _ENDED and (mails < _STEADY or not self.is_together):
                mails, has_waited = mails + 1, True
            else:
                return step

    def _begin(self, steps: Steps, descriptor: int) -> threading.Event | None:
        """Return None if this thread is the one that carries; else what is told when the other one has taken it."""
        with self._mutex:
            if not self._is_carried:
                self._is_carried = True
                return None
            taken = threading.Event()
            self._coming.append((steps, descriptor, taken))
        return taken

    # what the thread that carries says

    def take(self) -> list[tuple[Steps, int]]:
        """Return those that are to be carried too, each with what it waits for."""
        if not self._coming:
            return []
        with self._mutex:
            coming = list(self._coming)
            self._coming.clear()
        for _, _, taken in coming:
            taken.set()
        return [(steps, descriptor) for steps, descriptor, _ in coming]

    def ends(self) -> bool:
        """Return whether the thread that carries may carry no more: no further one is to be carried."""
        with self._mutex:
            if not self._coming:
                self._is_carried = False
            return not self._is_carried

    def part(self) -> None:
        """Let each conversation have its own thread for a while."""
        self._from = max(self._from, self.clock.monotonic() + _APART)

    def leave(self, steps: Steps) -> bool:
        """Let a thread of its own carry a conversation that may take long; return False if there is none."""
        try:
            self._start_thread(lambda: self._carry(steps, is_new=False))
        except RuntimeError:
            return False
        return True


class Carrier:
    """The thread that carries a crew.

    :param steps: its first conversation, which waits for `descriptor`

    Concurrency: one thread.
    """

    def __init__(self, crew: Crew, steps: Steps, descriptor: int) -> None:
        self._crew = crew
        self._poll = select.poll()
        #: Those that wait for a relay, by descriptor, and since when.
        self._members: dict[int, tuple[Steps, float]] = {}
        self._add(steps, descriptor)
        self._begin_count()
        self._is_held_up = False
        #: Whether it had one to carry, so that it did not count how long that has listened.
        self._was_alone = False

    def _begin_count(self) -> None:
        """Begin to count what this thread's time goes to."""
        #: When those were looked for last that wait for too long; what this thread had used of a processor then, how
        #: long it has waited for relays since: in seconds.
        self._looked, self._cpu, self._waited = self._crew.clock.monotonic(), self._crew.clock.thread_cpu(), 0.0

    def run(self) -> Steps | None:
        """Carry all of them until they have ended, or left; return one that is left alone and may take long, or None.

        Raises what a conversation raises; threads of their own carry the others then.
        """
        try:
            return self._carry()
        except BaseException:
            self._disband()
            raise

    def _carry(self) -> Steps | None:
        crew, members = self._crew, self._members
        while members or not crew.ends():
            for steps, descriptor in crew.take():
                self._add(steps, descriptor)
            for descriptor, may_go_on in self._heard():
                leaving = self._step(descriptor, may_go_on=may_go_on)
                if leaving is not None and not members and crew.ends():
                    return leaving
                if leaving is not None:
                    self._let_leave(leaving)
            if self._is_held_up:
                self._part()
        return None

    def _add(self, steps: Steps, descriptor: int) -> None:
        self._members[descriptor] = steps, self._crew.clock.monotonic()
        self._poll.register(descriptor, _HEARD)

    def _heard(self) -> list[tuple[int, bool]]:
        """Wait until a relay has said something; return whose, and those that were silent for too long.

        Each with what it is told, see `Stream.steps`.  One that is alone listens itself.
        """
        members, clock = self._members, self._crew.clock
        if len(members) < 2:
            self._was_alone = True
            return [(descriptor, True) for descriptor in members]
        if self._was_alone:
            self._was_alone = False
            self._begin_count()
        baton.put_down()
        begun = clock.monotonic()
        found = [(descriptor, True) for descriptor, _ in self._poll.poll(MOMENT * 1000)]
        baton.take()
        now = clock.monotonic()
        self._waited += now - begun
        if now - self._looked >= MOMENT:
            found += [(descriptor, False) for descriptor in self._look(now, dict(found))]
        return found

    def _look(self, now: float, heard: Container[int]) -> list[int]:
        """Return those that were silent for too long; find out whether this thread is held up."""
        elapsed, cpu = now - self._looked, self._crew.clock.thread_cpu()
        self._is_held_up = elapsed - self._waited - (cpu - self._cpu) > _HELD_UP * elapsed
        self._begin_count()
        return [each for each, (_, since) in self._members.items() if now - since >= MOMENT and each not in heard]

    def _step(self, descriptor: int, *, may_go_on: bool) -> Steps | None:
        """Let one go on, up to where it waits again, or ends; return it if it may take long instead."""
        steps, _ = self._members[descriptor]
        step = _next(steps, may_go_on)
        if step == descriptor:
            self._members[descriptor] = steps, self._crew.clock.monotonic()
            return None
        del self._members[descriptor]
        self._poll.unregister(descriptor)
        if step is not None and step != _ENDED:
            self._add(steps, step)
        return steps if step is None else None

    def _let_leave(self, steps: Steps) -> None:
        """Let a thread of its own carry one that may take long; without one, do that here."""
        if self._crew.leave(steps):
            return
        step = None
        while step is None:
            step = _next(steps, None)
        if step != _ENDED:
            self._add(steps, step)

    def _part(self) -> None:
        """Let threads of their own carry all but one, as far as they are to be had."""
        self._is_held_up = False
        self._crew.part()
        for descriptor in list(self._members)[1:]:
            steps, _ = self._members.pop(descriptor)
            self._poll.unregister(descriptor)
            if not self._crew.leave(steps):
                self._add(steps, descriptor)
                break

    def _disband(self) -> None:
        """Let threads of their own carry all that are left; without one, what is with a relay is unknown."""
        left = [steps for steps, _ in self._members.values()]
        while not self._crew.ends():
            left += [steps for steps, _ in self._crew.take()]
        for steps in left:
            if not self._crew.leave(steps):
                steps.close()


def _next(steps: Steps, may_go_on: bool | None) -> int | None:  # noqa: FBT001 - what the steps are told
    """Return the next step of a conversation, or `_ENDED`."""
    try:
        return steps.send(may_go_on)
    except StopIteration:
        return _ENDED
