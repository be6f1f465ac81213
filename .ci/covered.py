#!/usr/bin/env python3
"""Measure how much of a package its own tests run, lines and branches; fail where something is left unexplained.

    .venv/bin/python .ci/covered.py message lifecycle      some packages; all without any

Not what all tests together reach: a scenario that happens to come by a line does not say what the line promises.
A line that no test of the package can reach, or that coverage cannot see, says why where it stands; nothing else may be
left out:

    return  # pragma: no cover - why no test comes here
    if it_is_so:  # pragma: no branch - why it is always so

The parts of a package's tests run side by side; most of them wait most of the time.
"""

import argparse
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent.parent
PACKAGE = "src/zope/sendmail"
DATA = HERE / "parts" / "coverage"

PRAGMA = re.compile(r"#\s*pragma:?\s*no\s*(?:cover|branch)(.*)", re.IGNORECASE)
REASON = re.compile(r" - \S.{10,}")


class Package(NamedTuple):
    """A package: its tests, what of them is left out, and per cent of lines and branches that must be reached."""

    tests: tuple[str, ...]
    without: tuple[str, ...] = ()
    #: Of the tests, those that take long and are measured all the same.
    slow: tuple[str, ...] = ()
    #: Folders of it that are measured by themselves.
    apart: tuple[str, ...] = ()
    percent: float = 100.0


PACKAGES = {
    "message": Package(("message", "test_asking.py")),
    "lifecycle": Package(("lifecycle", "test_events.py")),
    # All of these two as well, but not in each run: which branch a thread takes depends on how fast the others are.
    "smtp": Package(("smtp", "test_mailer.py test_directmail.py"), percent=99.9),
    "processor": Package(("processor", "processor/test_throttle.py"), percent=99.9),
    "transports": Package(("transports",), percent=99.8),
    # Without PostgreSQL; all of it as well, but not in each run.
    "queue": Package(
        (
            "queue/maildir",
            "queue/spool queue/test_schemes.py queue/test_moving.py queue/test_diagnosis_commands.py",
            "queue/test_contract.py queue/test_model.py queue/test_memory.py queue/test_several.py",
            "queue/test_places.py test_maildir.py test_datamanager.py",
            "scenarios/test_keys.py",
            # Each call of the disk fails once, and a disk is full: as a seam plays it, which needs no rights.
            "scenarios/test_faults.py",
            "scenarios/test_fulldisk.py::AQuota scenarios/test_fulldisk.py::ADirectoryWithoutRoom",
        ),
        without=("queue/test_moving.py::AMoveThatIsKilled",),
        slow=("scenarios/test_faults.py",),
        apart=("postgresql",),
        percent=99.8,
    ),
    # With the server that .ci/postgresql.py has fetched; it takes some three minutes.  What joins the connections of
    # RelStorage, SQLAlchemy and Django counts as left out where these are not installed: two per cent.
    "queue/postgresql": Package(
        ("queue/postgresql", "queue/test_moving.py queue/test_diagnosis_commands.py scenarios/test_keys.py"),
        without=("queue/test_moving.py::AMoveThatIsKilled",),
        percent=97.0,
    ),
}


def main() -> int:
    """Measure, compare, and say what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("packages", nargs="*", metavar="PACKAGE", help=f"of {', '.join(PACKAGES)}; all without any")
    parser.add_argument("-j", "--jobs", type=int, default=2 * (os.cpu_count() or 1), help="tests run side by side")
    options = parser.parse_args()
    wanted = options.packages or list(PACKAGES)
    if strangers := [each for each in wanted if each not in PACKAGES]:
        parser.error(f"no packages of these: {', '.join(strangers)}")
    with ThreadPoolExecutor(options.jobs) as pool:
        runs = {name: [pool.submit(run, name, part) for part in PACKAGES[name].tests] for name in wanted}
        found = [report(name, [each.result() for each in runs[name]]) for name in wanted]  # all, also after a failure
    return 0 if all(found) else 1


def data_of(name: str) -> Path:
    """Return the directory in which a package's data are."""
    return DATA / name.replace("/", "-")


def run(name: str, part: str) -> str:
    """Run tests of a package; return what they say if one fails, else nothing."""
    place = data_of(name) / part.partition(" ")[0].replace("/", "-")
    place.mkdir(parents=True, exist_ok=True)
    for old in place.glob("data*"):
        old.unlink()
    package = PACKAGES[name]
    others = " ".join(each for each in package.tests if each != part).split()
    without = [f"--deselect={PACKAGE}/tests/{each}" for each in package.without]
    without += [f"--ignore={PACKAGE}/tests/{each}" for each in others if each.startswith(f"{part}/")]
    tests = [f"{PACKAGE}/tests/{path}" for path in part.split()]
    marks = () if part in package.slow else ("-m", "not slow")
    pytest = ("-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", *marks, *without, *tests)
    done = coverage(place / "data", "run", *pytest)
    return "" if done.returncode == 0 else done.stdout


def report(name: str, failures: list[str]) -> bool:
    """Say what the tests of a package leave out; return whether all passed, and nothing is left out unexplained."""
    failed = [each for each in failures if each]
    explained, unexplained = pragmas(name)
    percent = PACKAGES[name].percent
    total = data_of(name) / "data"
    total.unlink(missing_ok=True)
    places = [str(place) for place in sorted(data_of(name).iterdir()) if place.is_dir()]
    coverage(total, "combine", "-q", *places)
    wanted = ("--skip-covered", f"--include={PACKAGE}/{name}/*", f"--fail-under={percent:g}")
    apart = [f"{PACKAGE}/{name}/{each}/*" for each in PACKAGES[name].apart]
    omitted = [f"--omit={','.join(apart)}"] if apart else []
    missing = coverage(total, "report", *wanted, *omitted)
    print(
        f"\n{name}: at least {percent:g} %, but for {explained} lines that say why", *failed, missing.stdout, sep="\n"
    )
    print(*(f"{each}: the pragma does not say why" for each in unexplained), sep="\n", flush=True)
    return missing.returncode == 0 and not failed and not unexplained


def pragmas(name: str) -> tuple[int, list[str]]:
    """Return how many lines of a package are left out with a reason, and which are without one."""
    explained, unexplained = 0, []
    apart = [HERE / PACKAGE / name / each for each in PACKAGES[name].apart]
    for path in sorted((HERE / PACKAGE / name).rglob("*.py")):
        if any(path.is_relative_to(each) for each in apart):
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if found := PRAGMA.search(line):
                explained += 1
                if not REASON.match(found[1]):
                    unexplained.append(f"{path.relative_to(HERE)}:{number}")
    return explained - len(unexplained), unexplained


def coverage(data: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run coverage; its output is kept."""
    environment = {**os.environ, "COVERAGE_FILE": str(data)}
    command = [sys.executable, "-m", "coverage", *arguments]
    return subprocess.run(
        command, cwd=HERE, env=environment, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


if __name__ == "__main__":
    sys.exit(main())
