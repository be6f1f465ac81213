"""How tests with hypothesis run: with the same examples each time, however slow the machine is."""

from hypothesis import HealthCheck, settings

SAME = settings(derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow])
QUICK = settings(SAME, max_examples=40)
