"""System calls that `os` does not have: what they raise, and what a signal does to them."""

from __future__ import annotations

import ctypes
import errno
import os
import tempfile
import unittest
from collections.abc import Callable
from unittest import mock

from zope.sendmail.system import systemcalls


class Failing:
    """A system call that fails with each of these numbers in turn, and then does not."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = list(numbers)
        self.calls = 0

    def __call__(self, *_: object) -> int:
        self.calls += 1
        if not self.numbers:
            return 0
        ctypes.set_errno(self.numbers.pop(0))
        return -1


class ACall(unittest.TestCase):
    CALLS: tuple[tuple[str, Callable[[], None]], ...] = (
        ("_syncfs", lambda: systemcalls.syncfs(0, "a")),
        ("_renameat2", lambda: systemcalls.rename_new("a", "b")),
    )

    def test_that_a_signal_interrupts_is_made_again(self) -> None:
        """As those of `os` are."""
        for name, call in self.CALLS:
            failing = Failing(errno.EINTR, errno.EINTR)
            with self.subTest(name), mock.patch.object(systemcalls, name, failing):
                call()
                self.assertEqual(failing.calls, 3)

    def test_that_fails_names_its_paths(self) -> None:
        """And its error is one that tells the number."""
        for name, call in self.CALLS:
            with self.subTest(name), mock.patch.object(systemcalls, name, Failing(errno.EINTR, errno.EIO)):
                with self.assertRaises(OSError) as caught:
                    call()
                self.assertEqual((caught.exception.errno, caught.exception.filename), (errno.EIO, "a"))

    def test_that_the_system_does_not_have(self) -> None:
        """Is refused, and does nothing."""
        for name, call in self.CALLS:
            with self.subTest(name), mock.patch.object(systemcalls, name, None):
                with self.assertRaises(OSError) as caught:
                    call()
                self.assertEqual(caught.exception.errno, errno.ENOSYS)

    def test_that_renames_replaces_nothing(self) -> None:
        """A name that is taken stays what it is."""
        directory = self.enterContext(tempfile.TemporaryDirectory())
        one, other = (os.path.join(directory, name) for name in ("one", "other"))
        for path in (one, other):
            os.mkdir(path)
        with self.assertRaises(FileExistsError) as caught:
            systemcalls.rename_new(one, other)
        self.assertEqual((caught.exception.filename, caught.exception.filename2), (one, other))


if __name__ == "__main__":
    unittest.main()
