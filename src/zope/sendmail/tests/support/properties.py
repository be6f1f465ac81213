"""How tests with hypothesis run: with the same examples each time, however slow the machine is.

``ZOPE_SENDMAIL_LONGER=100`` has a hundred times as many, others each time: for a search beside the usual tests.
``ZOPE_SENDMAIL_LONGER=0.2`` has the first fifth of the usual ones: for one more Python.
"""

import os

from hypothesis import HealthCheck, settings

#: How many times as many examples as usual.
LONGER = float(os.environ.get("ZOPE_SENDMAIL_LONGER") or 1)


def examples(usual: int) -> int:
    """As many examples as are wanted where `usual` are usual."""
    return max(1, round(LONGER * usual))


SAME = settings(
    derandomize=LONGER <= 1,
    max_examples=examples(100),
    database=None,
    deadline=None,
    # A test runner that runs them twice in one process, as those that look for coverage do, makes two test cases.
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.differing_executors],
)
QUICK = settings(SAME, max_examples=examples(40))
