#!/usr/bin/env python3
"""Measure how much of a package its own tests run, lines and branches; fail where that falls below what it was.

    .venv/bin/python .ci/covered.py message lifecycle      some packages; all without any, which takes minutes

Not what all tests together reach: a scenario that happens to come by a line does not say what the line promises.
A line that no test can reach says so where it stands: ``# pragma: no cover - why``.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent.parent
PACKAGE = "src/zope/sendmail"
DATA = HERE / "parts" / "coverage"


class Floor(NamedTuple):
    """A package: its tests, and per cent of its lines and branches below which it must not fall."""

    tests: tuple[str, ...]
    percent: float


FLOORS = {
    "message": Floor(("message", "test_asking.py"), 100.0),
    "lifecycle": Floor(("lifecycle", "test_events.py"), 100.0),
    "smtp": Floor(("smtp",), 93.0),
}


def main() -> int:
    """Measure, compare, and say what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("packages", nargs="*", metavar="PACKAGE", help=f"of {', '.join(FLOORS)}; all without any")
    wanted = parser.parse_args().packages or list(FLOORS)
    if strangers := [each for each in wanted if each not in FLOORS]:
        parser.error(f"no packages of these: {', '.join(strangers)}")
    found = [is_covered(name, FLOORS[name]) for name in wanted]  # all of them, also after one that is not
    return 0 if all(found) else 1


def is_covered(name: str, floor: Floor) -> bool:
    """Run the tests of a package and say what they leave out; return whether that is no more than before."""
    DATA.mkdir(parents=True, exist_ok=True)
    for old in DATA.glob("data*"):
        old.unlink()
    tests = [f"{PACKAGE}/tests/{path}" for path in floor.tests]
    passed = coverage("run", "-m", "pytest", "-q", "--no-header", "-m", "not slow", *tests)
    coverage("combine", "-q", str(DATA))
    print(f"\n{name}: at least {floor.percent:g} %", flush=True)
    report = ("report", "--skip-covered", f"--include={PACKAGE}/{name}/*", f"--fail-under={floor.percent:g}")
    return coverage(*report) and passed


def coverage(*arguments: str) -> bool:
    """Run coverage; return whether it went well."""
    environment = {**os.environ, "COVERAGE_FILE": str(DATA / "data")}
    return (
        subprocess.run(
            [sys.executable, "-m", "coverage", *arguments], cwd=HERE, env=environment, check=False
        ).returncode
        == 0
    )


if __name__ == "__main__":
    sys.exit(main())
