"""Layers of zope.testrunner: what takes long, in groups that may run side by side (``-j``).

A module says ``load_tests = in_layer(Crashes)``.  Those of level 2 run with ``--all`` only: what takes many minutes, or
servers of others; under pytest they have the mark ``level2``.
"""

from __future__ import annotations

import unittest
from collections.abc import Callable, Iterator
from typing import Any


class Crashes:
    """States that a crash leaves on a disk: much computing."""

    level = 2


class Faults:
    """Calls of the disk that fail, one after the other, and chaos: likewise."""

    level = 2


class Processes:
    """Processes of their own: workers that are killed, daemons, applications, the demo."""


class Servers:
    """Real mail servers, disks, an init; and each block of the docs: mostly waiting."""

    level = 2


class Databases:
    """A PostgreSQL server that the tests start: its processes do most of the work."""

    level = 2


class Properties:
    """What hypothesis looks for."""


_Load = Callable[[unittest.TestLoader, unittest.TestSuite, str | None], unittest.TestSuite]


def in_layer(layer: type) -> _Load:
    """Return a ``load_tests`` that puts all tests of its module into a layer."""

    level: int = getattr(layer, "level", 1)

    def load_tests(loader: unittest.TestLoader, tests: Any, pattern: str | None) -> unittest.TestSuite:
        tests.layer = layer
        tests.level = level
        return tests  # type: ignore[no-any-return]  # a suite, which has no attribute `layer` of its own

    load_tests.level = level  # type: ignore[attr-defined]  # for pytest, see conftest.py
    return load_tests


def properties_apart(loader: unittest.TestLoader, tests: unittest.TestSuite, pattern: str | None) -> unittest.TestSuite:
    """Put those tests of a module that hypothesis runs into a layer of their own; serves as ``load_tests``."""
    for test in _each(tests):
        method = getattr(test, getattr(test, "_testMethodName", ""), None)
        if getattr(method, "is_hypothesis_test", False):
            test.layer = Properties  # type: ignore[attr-defined]  # zope.testrunner's
    return tests


def _each(tests: unittest.TestSuite | unittest.TestCase) -> Iterator[unittest.TestCase]:
    if isinstance(tests, unittest.TestCase):
        yield tests
        return
    for test in tests:
        yield from _each(test)
