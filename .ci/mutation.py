#!/usr/bin/env python3
"""Change the pure parts of the package, one place at a time, and see which changes no test notices.

    parts/measure/bin/python .ci/mutation.py lifecycle smtp        (CONTRIBUTING.rst has how that is made)

`mutmut` does the work, in a copy in parts/mutation, with the tests that call the changed function.  It fails with what
survives and has no reason in docs/explanation/decisions/mutation.rst.  ``--minutes`` ends it after so long: what was
not tried is counted.  ``--keep`` goes on where the last run has ended.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
COPY = HERE / "parts" / "mutation" / "tree"
SURVIVORS = HERE / "docs" / "explanation" / "decisions" / "mutation.rst"
PACKAGE = "src/zope/sendmail"

#: What is pure -> the tests of it that are quick.
AREAS = {
    "lifecycle": (["lifecycle/*.py"], ["lifecycle", "test_events.py"]),
    "smtp": (
        ["smtp/protocol/*.py"],
        [
            "smtp/test_replies.py",
            "smtp/test_sevenbit.py",
            "smtp/test_dialogues.py",
            "smtp/test_runs.py",
            "smtp/test_protocol.py",
        ],
    ),
    "message": (["message/*.py"], ["message", "test_asking.py"]),
}
SETTINGS = """
[tool.mutmut]
source_paths = ["src"]
only_mutate = {files}
also_copy = ["docs", "setup.py", "README.txt"]
pytest_add_cli_args = ["-p", "no:cacheprovider"]
pytest_add_cli_args_test_selection = {tests}
use_git_change_detection = false
track_dependencies = false
"""

#: For the tests there: mutmut runs them several times in one process, each time by other instances of their classes.
HYPOTHESIS = """

from hypothesis import HealthCheck, settings

settings.register_profile("mutation", suppress_health_check=[HealthCheck.differing_executors])
settings.load_profile("mutation")
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("areas", nargs="*", choices=[*AREAS, []], help=f"of {', '.join(AREAS)}; all without any")
    parser.add_argument("--minutes", type=float, help="end after so long")
    parser.add_argument("--keep", action="store_true", help="go on with the last run")
    given = parser.parse_args()
    if not (given.keep and COPY.exists()):
        copy(given.areas or list(AREAS))
    run(given.minutes)
    return report()


def copy(areas: list[str]) -> None:
    """Make the tree in which mutmut works."""
    shutil.rmtree(COPY, ignore_errors=True)
    COPY.mkdir(parents=True)
    for name in ("src", "docs"):
        shutil.copytree(HERE / name, COPY / name, ignore=shutil.ignore_patterns("__pycache__", "_build", "*.egg-info"))
    for name in ("setup.py", "README.txt"):
        shutil.copy(HERE / name, COPY / name)
    files = [f"{PACKAGE}/{pattern}" for area in areas for pattern in AREAS[area][0]]
    tests = [f"{PACKAGE}/tests/{path}" for area in areas for path in AREAS[area][1]]
    settings = SETTINGS.format(files=json.dumps(files), tests=json.dumps(tests))
    with (COPY / PACKAGE / "tests" / "conftest.py").open("a", encoding="utf-8") as file:
        file.write(HYPOTHESIS)
    (COPY / "pyproject.toml").write_text((HERE / "pyproject.toml").read_text(encoding="utf-8") + settings)


def run(minutes: float | None) -> None:
    """Let mutmut try the changes."""
    try:
        subprocess.run(
            [sys.executable, "-m", "mutmut", "run", "--max-children", "2"],
            cwd=COPY, check=False, timeout=None if minutes is None else minutes * 60,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        print(f"\nended after {minutes:g} minutes")


def report() -> int:
    """Say what came of it."""
    results = dict(outcomes())
    known = known_survivors()
    print(", ".join(f"{count} {status}" for status, count in Counter(results.values()).most_common()))
    survivors = sorted(name for name, status in results.items() if status in ("survived", "no tests"))
    strangers = [name for name in survivors if name not in known]
    for name in strangers:
        print(f"\n{name}: {results[name]}")
        if results[name] == "survived":
            subprocess.run([sys.executable, "-m", "mutmut", "show", name], cwd=COPY, check=False)
    print(f"{len(survivors)} survived, {len(strangers)} of them without a reason in {SURVIVORS.relative_to(HERE)}")
    return 1 if strangers else 0


def outcomes() -> Iterator[tuple[str, str]]:
    """Yield each change with what came of it."""
    done = subprocess.run(
        [sys.executable, "-m", "mutmut", "results", "--all", "true"],
        cwd=COPY,
        check=True,
        capture_output=True,
        text=True,
    )
    for line in done.stdout.splitlines():
        name, colon, status = line.strip().partition(": ")
        if colon:
            yield name, status


def known_survivors() -> set[str]:
    """Return those that were looked at."""
    return set(re.findall(r"(?m)^    (zope\.sendmail\.\S+__mutmut_\d+)$", SURVIVORS.read_text(encoding="utf-8")))


if __name__ == "__main__":
    sys.exit(main())
