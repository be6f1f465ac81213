"""`zope.sendmail.queue.maildir.sweeper`: removals on the spot, whose space is free beside the way, as the disk is."""

from __future__ import annotations

import os
import tempfile
import threading
import unittest
from collections.abc import Callable, Sequence
from unittest import mock

from zope.sendmail.queue.maildir import sweeper
from zope.sendmail.queue.maildir.sweeper import Removal, Sweeper
from zope.sendmail.system.batchclose import BatchClose
from zope.sendmail.system.disk import Disk
from zope.sendmail.testing.contracts import ManualClock


class ASweeper(unittest.TestCase):
    """On a disk that takes so many `seconds` to free the space of each file."""

    seconds = 0.0

    def setUp(self) -> None:
        self.clock = ManualClock()
        self.gone: list[str] = []
        self.by: set[threading.Thread] = set()
        self.batches: list[BatchClose] = []
        self.directory = self.enterContext(tempfile.TemporaryDirectory())
        self.disk = Disk()
        #: How often it was told that space is free.
        self.freed: list[None] = []
        self.sweeper = Sweeper(self.clock, self.gone.extend, lambda: self.freed.append(None))
        self.addCleanup(self.sweeper.flush)
        #: Called before the space of some files is freed that were held open.
        self.before_closing: Callable[[], object] = lambda: None
        test = self

        class Slowly(BatchClose):
            def __init__(self, fds: Sequence[int]) -> None:
                super().__init__(fds)
                test.batches.append(self)

            def close(self) -> None:
                test.before_closing()
                test.by.add(threading.current_thread())
                test.clock.advance(self.count * test.seconds)
                super().close()

        self.enterContext(mock.patch.object(sweeper, "BatchClose", Slowly))

    def removal(self, key: str) -> Removal:
        path = os.path.join(self.directory, key)
        self.disk.create(path, b"a mail")

        def remove(held: list[int] | None) -> str | None:
            if held is None:
                self.by.add(threading.current_thread())
                self.clock.advance(self.seconds)
            else:
                fd = self.disk.hold(path)
                assert fd is not None, "it is there"
                held.append(fd)
            self.disk.unlink(path)
            return key

        return remove

    def take(self, *keys: str) -> None:
        self.sweeper.take([self.removal(key) for key in keys])

    def test_gone_at_once(self) -> None:
        """All that was taken, each once; only the space may have to wait."""
        names = [f"{number}" for number in range(100)]
        for begin in range(0, 100, 10):
            self.take(*names[begin : begin + 10])
        self.assertEqual((self.gone, os.listdir(self.directory)), (names, []))

    def count_open(self) -> int:
        """Return how many batches hold files."""
        return len([each for each in self.batches if each.is_open])

    def test_nothing_is_open_after_a_flush(self) -> None:
        """So all space is free."""
        for begin in range(5):
            self.take(*[f"{begin}.{number}" for number in range(10)])
        self.sweeper.flush()
        self.assertEqual(self.count_open(), 0)

    def test_one_that_cannot_be_removed(self) -> None:
        """Is not told as gone, and keeps no other."""
        for _ in range(2):
            self.sweeper.take([self.removal("one"), lambda _: None, self.removal("two")])
        self.assertEqual(self.gone, ["one", "two", "one", "two"])


class AQuickDisk(ASweeper):
    def test_on_the_spot(self) -> None:
        """No file is held open, and no thread is needed."""
        self.take("one")
        self.take("two")
        self.assertEqual((self.gone, self.by), (["one", "two"], {threading.current_thread()}))


class ADiskThatIsNotQuick(ASweeper):
    seconds = 0.0005

    def test_few(self) -> None:
        """Their space is freed on the spot, that of many beside the way."""
        self.take(*"abcdefghijklmnop")
        self.by.clear()
        self.take("one")
        self.assertEqual(self.by, {threading.current_thread()})
        self.by.clear()
        goes_on = threading.Event()
        self.before_closing = lambda: goes_on.wait(300)
        self.take(*"abcdefgh")
        self.assertEqual(self.by, set())
        goes_on.set()


class ASlowDisk(ASweeper):
    seconds = 0.002

    def setUp(self) -> None:
        super().setUp()
        self.take(*"abcdefghijklmnop")
        del self.gone[:]
        self.by.clear()

    def test_beside_the_way(self) -> None:
        """From the second batch on, when it is known how slow the disk is; the one that brings it does not wait."""
        goes_on = threading.Event()
        self.before_closing = lambda: goes_on.wait(300)
        self.take("slow")
        self.assertEqual((self.gone, self.by, self.freed), (["slow"], set(), []))
        goes_on.set()
        self.sweeper.flush()
        self.assertEqual((len(self.by), self.freed), (1, [None]))

    def test_a_disk_that_becomes_quick(self) -> None:
        """Is noticed by those that are held."""
        self.seconds = 0.0
        for number in range(16):
            self.take(*[f"{number}.{each}" for each in range(8)])
        self.sweeper.flush()
        self.by.clear()
        self.take("two")
        self.assertEqual(self.by, {threading.current_thread()})

    def test_where_a_held_file_keeps_a_name(self) -> None:
        """As on NFS, or where a copy of the queue shares its files: nothing is held from then on."""
        removal = self.removal("three")
        os.link(os.path.join(self.directory, "three"), os.path.join(self.directory, "copy"))
        self.sweeper.take([removal])
        self.assertEqual(self.by, {threading.current_thread()})
        held: list[list[int] | None] = []

        def looks(files: list[int] | None) -> str | None:
            held.append(files)
            return None

        self.sweeper.take([looks])
        self.assertEqual(held, [None])

    def test_none_of_many_can_be_removed(self) -> None:
        """Then there is no space to be freed, and no thread is begun."""
        self.sweeper.take([lambda _: None] * 8)
        self.assertEqual((self.gone, self.count_open(), self.sweeper._threads), ([], 0, 0))

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
        with mock.patch.object(threading.Thread, "start", side_effect=RuntimeError("can't start new thread")):
            self.take("two")
        self.assertEqual(self.by, {threading.current_thread()})
        self.take("three")
        self.sweeper.flush()
        self.assertEqual(self.count_open(), 0)

    def test_a_thread_that_fails(self) -> None:
        """Another one is begun in its place, and what is waiting does not wait for it."""
        told = self.enterContext(mock.patch.object(threading, "excepthook"))
        ended, goes_on = threading.Event(), threading.Event()
        told.side_effect = lambda _: ended.set()

        def fail() -> None:
            self.before_closing = goes_on.set
            raise MemoryError

        self.before_closing = fail
        self.take("two")
        self.assertTrue(ended.wait(300))
        self.take("three")
        self.assertTrue(goes_on.wait(300))
        self.sweeper.flush()
        self.assertEqual((self.batches[-1].is_open, self.gone), (False, ["two", "three"]))
        self.assertEqual(len(self.by - {threading.current_thread()}), 1)

    def test_a_flush(self) -> None:
        """Frees what waits for a thread that is busy, and then waits for that one."""
        main, begun, is_helped = threading.current_thread(), threading.Event(), threading.Event()

        def close() -> None:
            if threading.current_thread() is main:
                is_helped.set()
            else:
                begun.set()
                is_helped.wait(300)

        self.before_closing = close
        self.take("two")
        self.assertTrue(begun.wait(300))
        self.take("three")
        self.sweeper.flush()
        self.assertIn(main, self.by)
        self.assertEqual(self.count_open(), 0)

    def test_in_a_forked_child(self) -> None:
        """What waits is the parent's, which holds it; the first removals are made on the spot again."""
        self.sweeper._begin = lambda: True  # type: ignore[method-assign]  # the child has none of its threads
        self.take("one")
        self.assertEqual(self.count_open(), 1)
        self.sweeper.forget_after_fork()
        self.assertEqual(self.count_open(), 0)
        self.by.clear()
        self.take("two")
        self.assertEqual(self.by, {threading.current_thread()})

    def test_too_much_waits(self) -> None:
        """Then a caller that brings more frees the space itself."""
        goes_on = threading.Event()
        self.addCleanup(goes_on.set)
        main = threading.current_thread()
        self.before_closing = lambda: threading.current_thread() is not main and goes_on.wait(300)
        for begin in range(8):
            self.take(*[f"{begin}.{number}" for number in range(100)])
        self.by.clear()
        self.take("two")
        self.assertEqual(self.by, {main})
        goes_on.set()

    def test_a_thread_that_falls_behind(self) -> None:
        """Gets help from one more for as many as a worker brings, and from no more."""
        begun, goes_on = threading.Semaphore(0), threading.Event()
        self.addCleanup(goes_on.set)

        def stuck() -> None:
            begun.release()
            goes_on.wait(300)

        self.before_closing = stuck
        self.take("stuck")
        begun.acquire()
        self.take(*[f"{each}" for each in range(15)])
        self.assertEqual(self.sweeper._threads, 1)
        self.take("sixteenth")
        self.assertEqual(self.sweeper._threads, 2)


del ASweeper

if __name__ == "__main__":
    unittest.main()
