"""The end of the process."""

from __future__ import annotations

import threading
import unittest

from zope.sendmail.processor.shutdown import Threads


class Running:
    """A processor's thread."""

    queuePath = "a queue"

    def is_alive(self) -> bool:
        """See `Stoppable`."""
        return True

    def stop(self) -> None:
        """See `Stoppable`."""

    def join(self, timeout: float | None = None) -> None:
        """See `Stoppable`."""


class Restless(Running):
    """While it is asked whether it runs, another one begins in a thread of its own."""

    def __init__(self, threads: Threads[Running]) -> None:
        self.other = Running()
        self.beginning = threading.Thread(target=threads.add, args=(self.other,))

    def is_alive(self) -> bool:
        """See `Stoppable`."""
        if self.beginning.ident is None:
            self.beginning.start()
            self.beginning.join(0.05)  # it may have to wait for us
        return True


class TheThreadsThatRun(unittest.TestCase):
    def test_may_become_more_while_they_are_asked(self) -> None:
        """Else the exit handler would fail, and no processor would finish the message in hand."""
        threads: Threads[Running] = Threads()
        first = Restless(threads)
        threads.add(first)
        self.assertEqual(threads.alive(), [first])
        first.beginning.join()
        self.assertEqual(set(threads.alive()), {first, first.other})

    def test_are_forgotten_with_their_owner(self) -> None:
        """Nothing here keeps a processor alive."""
        threads: Threads[Running] = Threads()
        threads.add(Running())
        self.assertEqual(threads.alive(), [])


if __name__ == "__main__":
    unittest.main()
