"""Steps that need not wait for one another."""

from __future__ import annotations

import functools
import threading
import unittest
from unittest import mock

from zope.sendmail.system.sidebyside import side_by_side


class Steps(unittest.TestCase):
    def test_all_are_done_when_it_returns(self) -> None:
        """However many there are, and each once."""
        for count in 0, 1, 2, 100:
            done: list[int] = []
            side_by_side([functools.partial(done.append, number) for number in range(count)])
            self.assertEqual(sorted(done), list(range(count)))

    def test_none_waits_for_another(self) -> None:
        """Twenty of them go at a time."""
        barrier = threading.Barrier(20)
        side_by_side([lambda: barrier.wait(300)] * 20)
        self.assertFalse(barrier.broken)

    def test_without_threads(self) -> None:
        """The caller does them, one after the other."""
        callers: list[int] = []
        with mock.patch.object(threading.Thread, "start", side_effect=RuntimeError("can't start new thread")):
            side_by_side([lambda: callers.append(threading.get_ident())] * 3)
        self.assertEqual(callers, [threading.get_ident()] * 3)
