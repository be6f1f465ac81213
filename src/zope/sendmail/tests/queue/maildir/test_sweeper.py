"""`zope.sendmail.queue.maildir.sweeper`: removals on the spot, or beside the way, as the disk is."""

from __future__ import annotations

import threading
import unittest
from collections.abc import Callable, Sequence

from zope.sendmail.queue.maildir.sweeper import Sweeper
from zope.sendmail.testing.contracts import ManualClock


class ASweeper(unittest.TestCase):
    """On a disk for which each removal takes `seconds`."""

    seconds = 0.0

    def setUp(self) -> None:
        self.clock = ManualClock()
        self.gone: list[str] = []
        self.by: set[threading.Thread] = set()
        self.sweeper = Sweeper(self.clock, self.gone.extend)
        self.addCleanup(self.sweeper.flush)

    def removal(self, key: str) -> Callable[[], str | None]:
        def remove() -> str | None:
            self.by.add(threading.current_thread())
            self.clock.advance(self.seconds)
            return key

        return remove

    def take(self, *keys: str) -> None:
        self.sweeper.take([self.removal(key) for key in keys])

    def test_gone_after_a_flush(self) -> None:
        """All that was taken until then, each once."""
        names = [f"{number}" for number in range(100)]
        for begin in range(0, 100, 10):
            self.take(*names[begin : begin + 10])
        self.sweeper.flush()
        self.assertEqual(sorted(self.gone), sorted(names))

    def test_one_that_cannot_be_removed(self) -> None:
        """Is not told as gone, and keeps no other."""
        for _ in range(2):
            self.sweeper.take([self.removal("one"), lambda: None, self.removal("two")])
        self.sweeper.flush()
        self.assertEqual(sorted(self.gone), ["one", "one", "two", "two"])


class AQuickDisk(ASweeper):
    def test_on_the_spot(self) -> None:
        """No thread is needed."""
        self.take("one")
        self.take("two")
        self.assertEqual((self.gone, self.by), (["one", "two"], {threading.current_thread()}))


class ADiskThatIsNotQuick(ASweeper):
    seconds = 0.0005

    def test_few(self) -> None:
        """Are removed on the spot, and many beside the way."""
        self.take(*"abcdefghijklmnop")
        self.by.clear()
        self.take("one")
        self.assertEqual(self.by, {threading.current_thread()})
        self.by.clear()
        goes_on = threading.Event()

        def waits() -> None:
            goes_on.wait(60)

        self.sweeper.take([waits, *[self.removal(each) for each in "abcdefg"]])
        self.assertEqual(self.by, set())
        goes_on.set()


class ASlowDisk(ASweeper):
    seconds = 0.002

    def setUp(self) -> None:
        super().setUp()
        self.take(*"abcdefghijklmnop")
        self.first = self.gone[:]
        del self.gone[:]

    def test_beside_the_way(self) -> None:
        """From the second batch on, when it is known how slow the disk is; who brings it does not wait."""
        self.assertEqual(len(self.first), 16)
        goes_on, done = threading.Event(), threading.Event()

        def slow() -> str | None:
            goes_on.wait(60)
            done.set()
            return "slow"

        self.sweeper.take([slow])
        self.assertEqual(self.gone, [])
        goes_on.set()
        self.sweeper.flush()
        self.assertEqual((self.gone, done.is_set()), (["slow"], True))

    def test_where_other_threads_are_busy(self) -> None:
        """It is done on the spot: one more thread would make them wait longer for the interpreter."""
        self.clock.cpu = lambda: self.clock.monotonic() * 0.2  # type: ignore[method-assign]  # a busy process
        self.sweeper.forget_after_fork()
        for _ in range(2):
            self.take(*"abcdefghijklmnop")
            self.clock.advance(1.0)
        self.by.clear()
        self.take(*"abcdefghijklmnop")
        self.assertEqual(self.by, {threading.current_thread()})

    def test_no_threads_are_to_be_had(self) -> None:
        """Then it is done on the spot."""

        def no_thread() -> bool:
            self.sweeper._threads -= 1
            return False

        self.sweeper._begin = no_thread  # type: ignore[method-assign]  # a fault in its place
        self.take("two")
        self.assertEqual(self.gone, ["two"])

    def test_in_a_forked_child(self) -> None:
        """What waits is the parent's, and the first removals are made on the spot again."""
        self.sweeper.forget_after_fork()
        self.take("two")
        self.assertEqual(self.gone, ["two"])

    def test_too_much_waits(self) -> None:
        """Then a caller that brings more does it."""
        goes_on = threading.Event()
        self.addCleanup(goes_on.set)

        def slow() -> str | None:
            goes_on.wait(60)
            return None

        removals: Sequence[Callable[[], str | None]] = [slow] * 600
        self.sweeper.take(removals)
        self.take("two")
        self.assertEqual(self.gone, ["two"])
        goes_on.set()

    def test_a_thread_that_falls_behind(self) -> None:
        """Gets help from one more for as much as may wait for each, and from no more."""
        begun, goes_on = threading.Semaphore(0), threading.Event()
        self.addCleanup(goes_on.set)

        def stuck() -> str | None:
            begun.release()
            goes_on.wait(60)
            return None

        self.sweeper.take([stuck])
        begun.acquire()
        for number in range(3):
            self.take(*[f"{number}.{each}" for each in range(16)])
        self.assertEqual((self.gone, self.sweeper._threads), ([], 1))
        self.sweeper.take([stuck])
        self.assertEqual(self.sweeper._threads, 2)
        begun.acquire()
        self.assertEqual(len(self.gone), 48)


del ASweeper

if __name__ == "__main__":
    unittest.main()
