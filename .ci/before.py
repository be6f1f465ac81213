"""The tests that the older release ships with itself, run against this one: ``before.py TESTS UPGRADING``.

`TESTS` is the older release's package of tests; a copy of it goes into a directory of its own for as long as this runs.
Which of them fail has to be what before.toml says, neither more nor less, and each entry has to quote what `UPGRADING`
says about it.  Each test has a process and a time limit of its own, so that none disturbs the next.
"""

import json
import os
import select
import shutil
import signal
import sys
import tempfile
import tomllib
import unittest
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

#: What the copy is called; the second one has what `instead` says.
AS_IT_IS, CORRECTED = "tests_before", "tests_before_corrected"

#: Seconds until a test counts as failed; what is known to fail may be known to hang.
PATIENCE, KNOWN_PATIENCE = 60.0, 5.0

#: Where the tests think that they write; as root they could.
PLACES = ("/path/to", "/foo/bar")


def copied(tests: Path, to: Path, changes: list[list[str]]) -> list[str]:
    """A copy under a name of its own; the names of its modules."""
    shutil.copytree(tests, to, ignore=shutil.ignore_patterns("__pycache__"))
    for path in to.glob("*.py"):
        text = path.read_text(encoding="utf-8").replace("zope.sendmail.tests", to.name)
        for place in PLACES:
            text = text.replace(f"'{place}", f"'{to.parent}{place}")
        for old, new in changes:
            text = text.replace(old, new)
        path.write_text(text, encoding="utf-8")
    return sorted(path.stem for path in to.glob("test_*.py"))


def flat(suite: Any) -> Iterator[Any]:
    """The tests of a suite."""
    if not isinstance(suite, unittest.TestSuite):
        yield suite
        return
    for each in suite:
        yield from flat(each)


def collected(package: str, names: list[str]) -> dict[str, Any]:
    """Tests by id, without the name of the package."""
    found = {}
    for name in names:
        module = import_module(f"{package}.{name}")
        make: Callable[[], Any] | None = getattr(module, "test_suite", None)
        suite = make() if make else unittest.defaultTestLoader.loadTestsFromModule(module)
        found.update({each.id().removeprefix(f"{package}."): each for each in flat(suite)})
    return found


def outcome(test: Any, patience: float) -> tuple[str, str]:
    """What becomes of a test in a process of its own: passed, skipped or failed; and why."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_RDWR), 1)
        os.dup2(1, 2)
        result = unittest.TestResult()
        test(result)
        trouble = [text for _, text in result.failures + result.errors]
        word = "failed" if trouble else "skipped" if result.skipped else "passed"
        os.write(writing, json.dumps([word, "\n".join(trouble)[-3000:]]).encode())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as answer:
        ready, _, _ = select.select([answer], [], [], patience)
        text = answer.read() if ready else b""
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    if not text:
        return "failed", "it died" if ready else f"it did not end within {patience:.0f} s"
    word, why = json.loads(text)
    return word, why


def check_entries(entries: list[dict[str, Any]], upgrading: str) -> list[str]:
    """What is wrong with the list itself."""
    said = " ".join(upgrading.split())
    silent = [entry for entry in entries if entry["see"] not in said]
    return [f"{entry['tests'][0]}: docs/howto/upgrading.rst does not say: {entry['see']}" for entry in silent]


def run(tests: Path, entries: list[dict[str, Any]], scratch: Path) -> list[str]:
    """Run them all; what is not as the list says."""
    known = {name: entry for entry in entries for name in entry["tests"]}
    as_it_is = collected(AS_IT_IS, copied(tests, scratch / AS_IT_IS, []))
    changes = [change for entry in entries for change in entry.get("instead", ())]
    corrected = collected(CORRECTED, copied(tests, scratch / CORRECTED, changes))
    count = dict.fromkeys(("passed", "skipped", "failed", "corrected"), 0)
    wrong = [f"{name}: on the list, but there is no such test" for name in sorted(set(known) - set(as_it_is))]
    for name, test in as_it_is.items():
        word, why = outcome(test, KNOWN_PATIENCE if name in known else PATIENCE)
        if (word == "failed") != (name in known):
            wrong.append(f"{name}: {word}, and is {'' if name in known else 'not '}on the list\n{why}")
        elif word == "failed" and "instead" in known[name]:
            word = "corrected"
            again, why = outcome(corrected[name], PATIENCE)
            if again != "passed":
                wrong.append(f"{name}: {again} even with what stands in its place\n{why}")
        count[word] += 1
    print(
        f"{len(as_it_is)} tests: {count['passed']} pass, {count['corrected']} pass with their addresses corrected, "
        f"{count['skipped']} skip themselves, {count['failed']} differ as .ci/before.toml says"
    )
    return wrong


def main() -> None:
    """Exit status 1 if something is not as the list says."""
    tests, upgrading = Path(sys.argv[1]), Path(sys.argv[2])
    entries = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))["different"]
    with tempfile.TemporaryDirectory() as directory:
        sys.path.insert(0, directory)
        wrong = check_entries(entries, upgrading.read_text(encoding="utf-8"))
        wrong += run(tests, entries, Path(directory))
    for each in wrong:
        print(f"\n{each}", file=sys.stderr)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
