#!/usr/bin/env python3
"""Run each command of docs/proof.rst, and compare what is seen with what the page says was seen.

    .venv/bin/python .ci/promises.py --clone            in a fresh clone of the last commit, with its own set-up
    .venv/bin/python .ci/promises.py crash disk         sections whose title has one of these words, in this checkout
    .venv/bin/python .ci/promises.py --soak-minutes 3   the soak for so long, not for half an hour

It fails if a command fails, or if fewer tests pass than the page says; what is skipped here, for want of root or of a
server, is told, and is no failure.  ``--write`` puts what was seen, with the day,
into the page: the first paragraph of *Seen*, the rest of which is left alone.  All together takes an hour or two.
"""

import argparse
import datetime
import os
import re
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent.parent
PAGE = HERE / "docs" / "proof.rst"

_SECTION = re.compile(r"(?m)^(\S.*)\n=+\n")
_FIELD = re.compile(r"(?m)^:Seen:\n((?:    .*\n|\n(?=    ))+)")
_PYTEST = re.compile(r"(?m)^=*\s*((?:\d+ (?:passed|failed|errors?|skipped|warnings?|subtests passed)(?:, )?)+) in \d")
_UNITTEST = re.compile(r"(?m)^Ran (\d+) tests? in .*\n\n(?:OK|FAILED)(?: \((.*)\))?")
#: What endurance.py says: a figure behind its name.
_FIGURES = re.compile(r"(?m)^([a-z. -]*[a-z])  +(\d+)$")
#: What coverage.py says of a package.
_COVERED = re.compile(r"(?m)^TOTAL .* ([\d.]+%)$")
_STATES = re.compile(r"(?m)^([\d,]+) states: (.*)$")


class Section(NamedTuple):
    """A promise: its title, its commands, and what the page says was seen."""

    title: str
    commands: tuple[str, ...]
    seen: str


class Sight(NamedTuple):
    """What a command came to: its exit status, the seconds, and in words what it said."""

    command: str
    status: int
    seconds: float
    words: str


def main() -> int:
    """Run, compare, and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("words", nargs="*", help="only sections whose title has one of these words")
    parser.add_argument("--clone", action="store_true", help="in a fresh clone of the last commit")
    parser.add_argument("--soak-minutes", type=float, help="how long the soak is; default: as on the page")
    parser.add_argument("--write", action="store_true", help="write into the page what was seen")
    given = parser.parse_args()
    wanted = [each for each in sections(PAGE.read_text(encoding="utf-8")) if is_wanted(each.title, given.words)]
    with tempfile.TemporaryDirectory(prefix="proof-") as directory:
        where = fresh_clone(Path(directory) / "clone") if given.clone else HERE
        faults = sum(examine(each, where, given.soak_minutes, given.write) for each in wanted)
    print(f"{len(wanted)} sections, {faults} of them not as the page says")
    return 1 if faults else 0


def sections(text: str) -> Iterator[Section]:
    """Give the promises of the page that have commands."""
    parts = _SECTION.split(text)
    for title, body in zip(parts[1::2], parts[2::2], strict=True):
        seen = _FIELD.search(body)
        if seen and (found := tuple(commands(body))):
            yield Section(title, found, textwrap.dedent(seen[1]))


def commands(text: str) -> Iterator[str]:
    """Give the commands of a section, each in one line."""
    for block in re.findall(r"(?m)^::\n\n((?:    .*\n|\n)+)", text):
        joined = textwrap.dedent(block).replace("\\\n", " ")
        yield from (" ".join(line.split()) for line in joined.splitlines() if line.strip())


def is_wanted(title: str, words: list[str]) -> bool:
    """Return whether a section was asked for."""
    return not words or any(word.lower() in title.lower() for word in words)


def fresh_clone(where: Path) -> Path:
    """Make what a stranger has after the first command of the page."""
    subprocess.run(["git", "clone", "-q", str(HERE), str(where)], check=True)
    subprocess.run(["python3", "bootstrap.py"], cwd=where, check=True, env=stranger())
    return where


def stranger() -> dict[str, str]:
    """Return the environment without what points into this checkout."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}


def examine(section: Section, where: Path, soak_minutes: float | None, is_written: bool) -> bool:  # noqa: FBT001 - an option
    """Run the commands of a section; return whether it is not as the page says."""
    sights = [run(shortened(command, soak_minutes), where) for command in section.commands]
    fault = fault_of(section, sights)
    print(f"{section.title}: {fault or 'as the page says' + left_out(section, sights)}")
    for sight in sights:
        print(f"    {sight.command}\n        {sight.words}; status {sight.status}, {sight.seconds:.0f} s", flush=True)
    if is_written and not any(sight.status for sight in sights):
        text = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(with_seen(text, section.title, told(sights, datetime.date.today())), encoding="utf-8")  # noqa: DTZ011 - the reader's day
    return bool(fault)


def shortened(command: str, soak_minutes: float | None) -> str:
    """Return the command, with a soak of so many minutes."""
    return f"{command} --minutes {soak_minutes:g}" if soak_minutes and command.endswith("soak") else command


def run(command: str, where: Path) -> Sight:
    """Run one command as a shell does."""
    began = time.monotonic()
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        status = subprocess.run(
            ["bash", "-c", command], cwd=where, env=stranger(), stdin=subprocess.DEVNULL,
            stdout=output, stderr=subprocess.STDOUT, check=False,
        ).returncode  # fmt: skip
        output.seek(0)
        said = output.read()
    if status:
        print(said[-4000:])
    return Sight(command, status, time.monotonic() - began, summary(said))


def summary(said: str) -> str:
    """Return in a few words what a command said: the end of a run of tests, or figures."""
    if found := _COVERED.findall(said):
        return ", ".join(found)
    if found := _PYTEST.search(said):
        return found[1]
    if found := _UNITTEST.search(said):
        more = [f"{number} states {kind}" for number, kind in _STATES.findall(said)]
        return ", ".join([f"{found[1]} passed", *filter(None, [found[2]]), *more])
    if found := _FIGURES.findall(said):
        return ", ".join(f"{number} {name.strip(' .')}" for name, number in found)
    return "done"


def fault_of(section: Section, sights: list[Sight]) -> str:
    """Return what is not as the page says; nothing if all is."""
    if failed := [sight.command for sight in sights if sight.status]:
        return f"FAILED: {'; '.join(failed)}"
    said, seen = counted(section.seen), sum(counted(sight.words) for sight in sights)
    return f"{seen} passed or skipped, but the page says {said}" if seen < said else ""


def counted(text: str, what: str = "passed|skipped") -> int:
    """Return how many tests passed, or were skipped, all runs together."""
    return sum(int(number) for number in re.findall(rf"(\d+) (?:{what})\b", text))


def left_out(section: Section, sights: list[Sight]) -> str:
    """Return, in words, how many more tests were skipped than the page says; nothing if none was."""
    more = sum(counted(sight.words, "skipped") for sight in sights) - counted(section.seen, "skipped")
    return f", but for {more} tests that were skipped here" if more > 0 else ""


def told(sights: list[Sight], day: datetime.date) -> str:
    """Return the first paragraph of *Seen*."""
    parts = [f"{name(sight.command)}: {sight.words} ({duration(sight.seconds)})" for sight in sights]
    return textwrap.fill(f"{day.day} {day:%B %Y}. {'. '.join(parts)}.", 128, break_on_hyphens=False)


def name(command: str) -> str:
    """Return what a reader calls a command by."""
    if "bin/pytest" in command:
        return "``pytest``"
    module = re.search(r"-m [\w.]*?(\w+)$", command)
    return f"``{module[1]}``" if module else f"``{re.split(r'(?:benchmarks|[.]ci)/', command)[-1]}``"


def duration(seconds: float) -> str:
    """Return seconds as a reader says them."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def with_seen(text: str, title: str, paragraph: str) -> str:
    """Return the page with another first paragraph in one section's *Seen*."""
    head, found, rest = text.partition(f"\n{title}\n=")
    field = _FIELD.search(rest)
    assert found
    assert field
    _, _, more = field[1].partition("\n\n")
    new = textwrap.indent(paragraph, "    ") + "\n" + (f"\n{more}" if more else "")
    return head + found + rest[: field.start(1)] + new + rest[field.end(1) :]


if __name__ == "__main__":
    sys.exit(main())
