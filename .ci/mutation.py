#!/usr/bin/env python3
"""Change the pure parts of the package, one place at a time, and see which changes no test notices.

    .venv/bin/python .ci/mutation.py                     all of it: much of an hour
    .venv/bin/python .ci/mutation.py lifecycle           one part
    .venv/bin/python .ci/mutation.py --list              what is known to survive, and whether it is still there

Each change is tried in a process of its own, by the tests that run the changed line, the quickest first, until one
fails.  A test that goes on for ten times its time (of the processor, not of the clock), has noticed it as well.

It fails with what survives and has no reason in docs/explanation/decisions/survivors.txt.  ``--write`` puts that
there, for a person to say why.  A run that ended is gone on with; ``--anew`` begins again.  ``--sample`` takes some of
the changes, the same with each run; ``--only`` those with a text in their name.  ``--quick 0.05`` leaves out the tests
that take longer; what survives that is tried again by a run without it.
"""

import argparse
import contextlib
import hashlib
import io
import json
import os
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from mutants import Mutant
from trial import (
    ALIVE,
    AREAS,
    HERE,
    Covered,
    Way,
    attempt,
    changes_of,
    cover,
    exchange,
    load_around,
    load_functions,
    outcome_of,
    prepare,
    start,
    tests_of,
)

RESULTS = HERE / "parts" / "mutation"
SURVIVORS = HERE / "docs" / "explanation" / "decisions" / "survivors.txt"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("areas", nargs="*", metavar="PART", help=f"of {', '.join(AREAS)}; all without any")
    parser.add_argument("--list", action="store_true", help="only compare the list of survivors with the code")
    parser.add_argument("--anew", action="store_true", help="forget what earlier runs have found")
    parser.add_argument("--sample", type=int, metavar="N", help="try so many of each part, the same each time")
    parser.add_argument("--only", default="", metavar="TEXT", help="try those with this text in their name")
    parser.add_argument("--quick", type=float, metavar="SECONDS", help="leave out the tests that take longer")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="processes at once (2)")
    parser.add_argument("--write", action="store_true", help="put survivors without a reason into the list")
    given = parser.parse_args()
    if strangers := [each for each in given.areas if each not in AREAS]:
        parser.error(f"no parts of these: {', '.join(strangers)}")
    if given.list:
        return 0 if is_current() else 1
    prepare()
    survivors = []
    for name in given.areas or AREAS:
        run = Run(name, given)
        run.work()
        survivors += run.survivors()
    return report(survivors, write=given.write)


class Run:
    """Tries the changes of one area."""

    def __init__(self, area: str, given: argparse.Namespace) -> None:
        self.area = area
        self.jobs = given.jobs
        self.most = given.quick
        self.everything = changes_of(area)
        self.wanted = [each for each in self.everything if given.only in each.name]
        if given.sample is not None and given.sample < len(self.wanted):
            by_chance = sorted(self.wanted, key=lambda each: _digest([], each.name))
            self.wanted = by_chance[: given.sample]
        self.file = RESULTS / f"{area}.jsonl"
        if given.anew:
            self.file.unlink(missing_ok=True)
        self.state = _digest(sorted((HERE / "src").rglob("*.py")), str(self.most or ""))

    def work(self) -> None:
        """Try what is left, in a process of its own, which loads modules that are as they are."""
        known = dict(self.known())
        left = [each for each in self.wanted if _key(each) not in known]
        print(f"{self.area}: {len(self.everything)} changes, {len(left)} to try", flush=True)
        if left:
            self.apart(lambda: self.attempt_all(left))

    def apart(self, call: Callable[[], None]) -> None:
        """Call it in a process of its own."""
        process = os.fork()
        if not process:
            try:
                call()
            except BaseException:  # noqa: BLE001 - it is told, and ends this process
                traceback.print_exc()
                os._exit(1)
            sys.stdout.flush()
            os._exit(0)
        if os.waitpid(process, 0)[1]:
            sys.exit(f"{self.area}: not tried to the end")

    def attempt_all(self, left: list[Mutant]) -> None:
        """Try first those of what is done at an import, for which nothing must be loaded yet."""
        covered = cover(self.area)
        if self.most is not None:
            covered = covered.quick(self.most)
        for name in covered.left_out:
            print(f"  left out, for it fails or is skipped as things are: {name}")
        early = [each for each in left if covered.is_imported(each)]
        late = [each for each in left if not covered.is_imported(each)]
        for path in sorted({each.path for each in early}):
            some = [each for each in early if each.path == path]
            self.apart(lambda path=path, some=some: self.attempt_early(path, some, covered))
        list(tests_of(self.area))  # which loads them
        load_functions(late)
        self.attempt_some(late, covered, exchange)

    def attempt_early(self, path: Path, left: list[Mutant], covered: Covered) -> None:
        """Try changes of one module, with all loaded that does not import it."""
        load_around(path, covered.loaded)
        self.attempt_some(left, covered, attempt)

    def attempt_some(self, left: list[Mutant], covered: Covered, way: Way) -> None:
        for number, (mutant, outcome) in enumerate(self.tried(left, covered, way), 1):
            if outcome in ALIVE:
                print(f"  {mutant.name}", flush=True)
            if not number % 250:
                print(f"  ... {number} of {len(left)}", flush=True)

    def survivors(self) -> list[str]:
        """Say what was found; return the names of those that no test notices."""
        known = dict(self.known())
        found = [(each.name, known[_key(each)]) for each in self.wanted if _key(each) in known]
        counted = Counter(outcome for _, outcome in found)
        print(f"{self.area}: " + ", ".join(f"{count} {outcome}" for outcome, count in counted.most_common()))
        return sorted(name for name, outcome in found if outcome in ALIVE)

    def known(self) -> Iterator[tuple[str, str]]:
        """Yield what earlier runs have found, as far as it still stands: tests that change notice no less."""
        if self.file.exists():
            for line in self.file.read_text().splitlines():
                entry = json.loads(line)
                if entry["outcome"] not in ALIVE or entry["state"] == self.state:
                    yield entry["key"], entry["outcome"]

    def tried(self, left: list[Mutant], covered: Covered, way: Way) -> Iterator[tuple[Mutant, str]]:
        """Yield each with its outcome, as they end."""
        RESULTS.mkdir(parents=True, exist_ok=True)
        running: dict[int, Mutant] = {}
        waiting = iter(left)
        with self.file.open("a") as file:
            while True:
                for mutant in waiting:
                    tests = covered.tests(mutant)
                    if not tests:
                        yield self.told(file, mutant, "no test")
                        continue
                    running[start(mutant, tests, way)] = mutant
                    if len(running) >= self.jobs:
                        break
                if not running:
                    return
                process, status = os.wait()
                if process in running:
                    with contextlib.suppress(OSError):
                        os.killpg(process, signal.SIGKILL)
                    yield self.told(file, running.pop(process), outcome_of(status))

    def told(self, file: io.TextIOWrapper, mutant: Mutant, outcome: str) -> tuple[Mutant, str]:
        entry = {"key": _key(mutant), "outcome": outcome, "state": self.state}
        file.write(json.dumps(entry) + "\n")
        file.flush()
        return mutant, outcome


def _key(mutant: Mutant) -> str:
    return _digest([mutant.path], mutant.name)


def _digest(paths: Sequence[Path], more: str = "") -> str:
    found = hashlib.sha256(more.encode())
    for path in paths:
        found.update(path.read_bytes())
    return found.hexdigest()[:24]


# --- the list ---------------------------------------------------------------------------------------------------


def listed() -> list[str]:
    """Return the names in the list; its other lines say why."""
    if not SURVIVORS.exists():
        return []
    return [line.strip() for line in SURVIVORS.read_text(encoding="utf-8").splitlines() if line.startswith("    ")]


def is_current() -> bool:
    """Return whether each survivor in the list can still be tried, is there once, and has a reason."""
    names = listed()
    changes = {area: changes_of(area) for area in AREAS}
    empty = [area for area, found in changes.items() if not found]
    possible = {mutant.name for found in changes.values() for mutant in found}
    gone = sorted(set(names) - possible)
    for area in empty:
        print(f"Nothing can be changed in {area}: its modules have other names now")
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    for name in gone:
        print(f"Not in the code any more: {name}")
    for name in twice:
        print(f"There more than once: {name}")
    print(f"{len(names)} of {len(possible)} changes are known to survive")
    return not gone and not twice and not empty


def report(survivors: list[str], *, write: bool) -> int:
    """Say which have no reason."""
    known = set(listed())
    strangers = [name for name in survivors if name not in known]
    for name in strangers:
        print(f"\n{name}")
    where = SURVIVORS.relative_to(HERE)
    print(f"{len(survivors)} survived, {len(strangers)} of them without a reason in {where}")
    if write and strangers:
        with SURVIVORS.open("a", encoding="utf-8") as file:
            file.write("\nTo be looked at:\n\n" + "".join(f"    {name}\n" for name in strangers))
    return 1 if strangers else 0


if __name__ == "__main__":
    sys.exit(main())
