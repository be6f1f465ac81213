"""How tests with hypothesis run: with the same examples each time, however slow the machine is.

``ZOPE_SENDMAIL_LONGER=100`` has a hundred times as many, others each time: for a search beside the usual tests.
"""

import os

from hypothesis import HealthCheck, settings

#: How many times as many examples as usual.
LONGER = int(os.environ.get("ZOPE_SENDMAIL_LONGER") or 1)
SAME = settings(
    derandomize=LONGER == 1,
    max_examples=LONGER * 100,
    database=None,
    deadline=None,
    # A test runner that runs them twice in one process, as those that look for coverage do, makes two test cases.
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.differing_executors],
)
QUICK = settings(SAME, max_examples=LONGER * 40)
