"""`zope.sendmail.processor.crew`: conversations that one thread carries."""

from __future__ import annotations

import socket
import threading
import unittest
from collections.abc import Callable
from unittest import mock

from zope.sendmail.processor import crew as module
from zope.sendmail.processor.crew import Carrier, Crew, Steps
from zope.sendmail.smtp.channel import MOMENT
from zope.sendmail.testing.contracts import ManualClock


class Conversation:
    """A conversation with a relay that a test plays.  Each mail waits for one octet of the relay.

    :param mails: how many it sends
    :param long: before these it may take long, and waits until it may go on
    """

    def __init__(self, mails: int, long: tuple[int, ...] = ()) -> None:
        self.ours, self.relay = socket.socketpair()
        self.mails, self.long = mails, long
        #: The thread that made each step, and what the steps were told.
        self.threads: list[int] = []
        self.told: list[bool | None] = []
        self.takes_long, self.may_end_the_long = threading.Event(), threading.Event()
        self.is_over = threading.Event()
        self.waits = threading.Semaphore(0)
        self.error: BaseException | None = None
        self.after_each: Callable[[], object] = lambda: None

    def says(self, mails: int = 1) -> None:
        """Let the relay say yes so many times."""
        self.relay.sendall(b"y" * mails)

    def steps(self) -> Steps:
        try:
            for number in range(self.mails):
                if number in self.long:
                    yield None
                    self.takes_long.set()
                    self.may_end_the_long.wait(300)
                self.waits.release()
                told = yield self.ours.fileno()
                self.told.append(told)
                self.threads.append(threading.get_ident())
                if told:
                    self.ours.recv(1)
                self.after_each()
            if self.error is not None:
                raise self.error
        finally:
            self.is_over.set()
            self.ours.close()
            self.relay.close()


class ACrew(unittest.TestCase):
    accepts = True

    def setUp(self) -> None:
        self.clock = ManualClock()
        self.threads: list[threading.Thread] = []
        #: All of the time the threads work.
        self.clock.thread_cpu = self.clock.monotonic  # type: ignore[method-assign]  # until it is held up
        self.crew = Crew(self.clock, self.start, accepts=self.accepts)

    def start(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, daemon=True)
        self.threads.append(thread)
        thread.start()
        self.addCleanup(thread.join, 60)

    def begin(self, conversation: Conversation) -> None:
        """Let a thread of its own carry it until it waits for its relay for the first time."""
        self.start(lambda: self.crew.carry(conversation.steps()))
        self.assertTrue(conversation.waits.acquire(timeout=300))

    def end(self, *conversations: Conversation) -> None:
        for each in conversations:
            self.assertTrue(each.is_over.wait(300))


class Several(ACrew):
    def test_are_carried_by_the_thread_of_the_first(self) -> None:
        """From the time on when each waits for its relay, which it has known to answer."""
        one, two, three = (Conversation(20) for _ in range(3))
        for each in (one, two, three):
            self.begin(each)
        for _ in range(20):
            for each in (one, two, three):
                each.says()
        self.end(one, two, three)
        self.assertEqual({*one.threads, *two.threads, *three.threads}, {self.threads[0].ident})

    def test_one_that_has_left(self) -> None:
        """Is carried with others again when it has been steady for a while."""
        left, other = Conversation(module._STEADY + 2), Conversation(2)
        other.says()
        self.start(lambda: self.crew.carry(other.steps()))
        other.waits.acquire(timeout=300)
        other.waits.acquire(timeout=300)
        left.says(module._STEADY)
        self.crew.leave(left.steps())
        for _ in range(module._STEADY + 1):
            left.waits.acquire(timeout=300)
        other.says()
        left.says(2)
        self.end(left, other)
        alone, together = left.threads[: module._STEADY], left.threads[module._STEADY :]
        self.assertEqual(set(alone), {self.threads[1].ident})
        self.assertEqual(len({*together} - {*alone}), 1)

    def carry(self, *conversations: Conversation) -> None:
        """Carry these in this thread, each of which waits for its relay."""
        waiting = [(steps := each.steps(), next(steps)) for each in conversations]
        first, *_ = [self.crew._begin(steps, descriptor or 0) for steps, descriptor in waiting]
        self.assertIsNone(first)
        left = Carrier(self.crew, waiting[0][0], waiting[0][1] or 0).run()
        self.assertIsNone(left)

    def test_one_of_which_nothing_is_heard_keeps_no_other(self) -> None:
        """It is told after a moment that nothing came, so that it can wait for it elsewhere."""
        slow, quick = Conversation(1), Conversation(3)
        quick.says(3)
        quick.after_each = lambda: self.clock.advance(MOMENT / 2)
        self.carry(slow, quick)
        self.assertEqual((slow.told, quick.told), ([False], [True, True, True]))

    def hold_up(self) -> None:
        """Let the thread wait for something that is not its relays, such as a disk."""
        self.clock.thread_cpu = lambda: 0.0  # type: ignore[method-assign]  # it works for none of its time
        self.clock.advance(MOMENT)

    def test_a_thread_that_is_held_up(self) -> None:
        """As by a disk that lets it wait: it carries one, others carry the rest; for a while each has its own."""
        one, two, late = Conversation(3), Conversation(3), Conversation(3)
        one.after_each = self.hold_up
        one.says(3)
        two.says(3)
        self.carry(one, two)
        self.end(one, two)
        self.assertEqual(set(one.threads), {threading.get_ident()})
        self.assertEqual(two.threads[-1], self.threads[0].ident)
        self.begin(late)
        self.assertFalse(self.crew._is_carried)
        late.says(3)
        self.end(late)

    def test_a_thread_that_was_alone(self) -> None:
        """And has listened to its relay for long is not held up when a second one comes."""
        one, two = Conversation(3), Conversation(3)
        one.says(3)
        two.says(3)

        def comes() -> None:
            one.after_each = lambda: None
            self.hold_up()
            self.crew._begin(steps := two.steps(), next(steps) or 0)

        one.after_each = comes
        self.carry(one)
        self.end(one, two)
        self.assertEqual((self.threads, self.crew.is_together), ([], True))

    def test_a_thread_that_is_held_up_where_no_other_is_to_be_had(self) -> None:
        """Goes on with all of them."""
        one, two = Conversation(3), Conversation(3)
        one.after_each = self.hold_up
        one.says(3)
        two.says(3)
        with mock.patch.object(self.crew, "_start_thread", side_effect=RuntimeError("no thread")):
            self.carry(one, two)
        self.assertEqual((one.told, two.told), ([True] * 3, [True] * 3))

    def test_one_that_may_take_long_leaves(self) -> None:
        """A thread of its own carries it, and the others go on meanwhile."""
        long, other = Conversation(3, long=(1,)), Conversation(5)
        long.says(3)
        other.says(5)
        self.carry(other, long)
        self.assertFalse(long.is_over.is_set())
        long.may_end_the_long.set()
        self.end(long)
        here, there = threading.get_ident(), self.threads[0].ident
        self.assertEqual((set(other.threads), long.threads), ({here}, [here, there, there]))

    def test_one_that_may_take_long_where_no_thread_is_to_be_had(self) -> None:
        """Does that where it is carried; the others wait meanwhile."""
        long, other = Conversation(3, long=(1,)), Conversation(5)
        long.says(3)
        other.says(5)
        long.may_end_the_long.set()
        with mock.patch.object(self.crew, "_start_thread", side_effect=RuntimeError("no thread")):
            self.carry(other, long)
        self.assertEqual((len(long.told), len(other.told)), (3, 5))

    def test_one_that_ends_with_what_may_take_long(self) -> None:
        """As without a thread for that; the others are carried on."""
        other = Conversation(3)
        other.says(3)
        ours, relay = socket.socketpair()
        relay.send(b"y")
        self.addCleanup(ours.close)
        self.addCleanup(relay.close)

        def ends() -> Steps:
            yield ours.fileno()
            yield None

        waiting = [(steps := each, next(steps) or 0) for each in (ends(), other.steps())]
        for steps, descriptor in waiting:
            self.crew._begin(steps, descriptor)
        with mock.patch.object(self.crew, "_start_thread", side_effect=RuntimeError("no thread")):
            self.assertIsNone(Carrier(self.crew, *waiting[0]).run())
        self.assertEqual(len(other.told), 3)

    def test_one_that_goes_on_over_another_connection(self) -> None:
        """Is carried with what it waits for then."""
        pairs = [socket.socketpair() for _ in range(2)]
        for each in (*pairs[0], *pairs[1]):
            self.addCleanup(each.close)
        told: list[bool | None] = []

        def changes() -> Steps:
            for ours, relay in pairs:
                relay.send(b"y")
                told.append((yield ours.fileno()))

        other = Conversation(3)
        other.says(3)
        waiting = [(steps := each, next(steps) or 0) for each in (changes(), other.steps())]
        for steps, descriptor in waiting:
            self.crew._begin(steps, descriptor)
        self.assertIsNone(Carrier(self.crew, *waiting[0]).run())
        self.assertEqual((told, len(other.told)), ([True, True], 3))

    def test_when_one_raises(self) -> None:
        """As when Ctrl-C is pressed: the thread that carries them ends with that, and others carry on."""
        failing, other, coming = Conversation(1), Conversation(3), Conversation(3)
        failing.error = KeyboardInterrupt()
        failing.after_each = lambda: self.crew._begin(steps := coming.steps(), next(steps) or 0)
        failing.says()
        with self.assertRaises(KeyboardInterrupt):
            self.carry(failing, other)
        other.says(3)
        coming.says(3)
        self.end(other, coming)
        self.assertEqual((other.told[0], coming.told[0]), (None, None))  # nothing was heard when it had to change
        self.assertNotIn(threading.get_ident(), other.threads + coming.threads)

    def test_when_one_raises_and_no_thread_is_to_be_had(self) -> None:
        """The others are closed: what is with a relay is unknown then."""
        failing, other = Conversation(1), Conversation(3)
        failing.error = KeyboardInterrupt()
        failing.says()
        no_threads = mock.patch.object(self.crew, "_start_thread", side_effect=RuntimeError("no thread"))
        with no_threads, self.assertRaises(KeyboardInterrupt):
            self.carry(failing, other)
        self.assertTrue(other.is_over.is_set())


class Alone(ACrew):
    def test_it_may_take_long_in_its_thread(self) -> None:
        """No other one is begun for it."""
        alone = Conversation(3, long=(0, 2))
        alone.may_end_the_long.set()
        self.begin(alone)
        alone.says(3)
        self.end(alone)
        self.assertEqual((len(self.threads), set(alone.threads)), (1, {self.threads[0].ident}))

    def test_another_one_does_not_wait_for_it(self) -> None:
        """While the first one takes long, the second one is carried by its own thread."""
        long, other = Conversation(2, long=(1,)), Conversation(5)
        self.begin(long)
        long.says()
        self.assertTrue(long.takes_long.wait(300))
        self.begin(other)
        other.says(5)
        self.end(other)
        self.assertEqual(len(set(other.threads)), 1)
        long.may_end_the_long.set()
        long.says()
        self.end(long)


class NotCarriedTogether(ACrew):
    """Since that is no use with this queue, or this Python."""

    accepts = False

    def test_each_in_its_own_thread(self) -> None:
        one, two = Conversation(5), Conversation(5)
        for each in (one, two):
            self.begin(each)
        for each in (one, two):
            each.says(5)
        self.end(one, two)
        self.assertEqual((len(set(one.threads)), len(set(two.threads))), (1, 1))
        self.assertNotEqual(one.threads[0], two.threads[0])


del ACrew

if __name__ == "__main__":
    unittest.main()
