"""What pytest is told about these tests.  All of them are plain unittest, which needs none of this."""

from __future__ import annotations

import pytest

#: Three quarters of the time all tests take; ``-m "not slow"`` leaves them out.
SLOW = frozenset(
    {
        "test_crash",
        "test_faults",
        "test_interop",
        "test_keycrash",
        "test_postgresql_chaos",
        "test_processes",
        "test_providers",
    }
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of these modules, and those of level 2."""
    for item in items:
        if item.path.stem in SLOW:
            item.add_marker("slow")
        module = item.getparent(pytest.Module)
        if module is not None and getattr(getattr(module.obj, "load_tests", None), "level", 1) > 1:
            item.add_marker("level2")
