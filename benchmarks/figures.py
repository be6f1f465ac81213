"""What a benchmark has found: figures with their spread, the ratio to what they are compared with, and the aims.

A figure keeps one value for each round.  The two sides of a comparison are measured in turn within a round, so the
ratio is taken round by round and what else the machine does falls on both; what is printed is the median and the
middle half of the rounds.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Spread:
    """The median and the middle half of some values."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of at least one value."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(low, median, high)

    def __str__(self) -> str:
        return f"{number(self.median)} ({number(self.low)} - {number(self.high)})"


@dataclass(frozen=True, slots=True)
class Aim:
    """What a figure should be: the ratio if `of_ratio`, else our own median."""

    least: float | None = None
    most: float | None = None
    of_ratio: bool = False

    def met(self, value: float) -> bool:
        """Whether a value is within the aim."""
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    def __str__(self) -> str:
        text = f">= {self.least:g}" if self.least is not None else f"<= {self.most:g}"
        return f"ratio {text}" if self.of_ratio else text


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the report.  `ours` and `theirs` have one value for each round; `against` says who they are."""

    name: str
    unit: str
    ours: Sequence[float]
    theirs: Sequence[float] = ()
    against: str = ""
    aim: Aim | None = None

    @property
    def ratio(self) -> Spread | None:
        """Ours divided by theirs, None if there is nothing to compare with."""
        if not self.theirs or not all(self.theirs):
            return None
        if len(self.ours) == len(self.theirs):
            return Spread.of([ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True)])
        return Spread.of([statistics.median(self.ours) / statistics.median(self.theirs)])

    @property
    def verdict(self) -> str:
        """Whether the aim is met; empty if there is none."""
        if self.aim is None:
            return ""
        if not self.aim.of_ratio:
            return _VERDICT[self.aim.met(statistics.median(self.ours))]
        return _VERDICT[self.aim.met(self.ratio.median)] if self.ratio else "not measured"

    def row(self) -> tuple[str, ...]:
        """The cells of its line in the table."""
        theirs = f"{Spread.of(self.theirs)}  {self.against}" if self.theirs else ""
        aim = f"{self.aim}: {self.verdict}" if self.aim else ""
        return self.name, self.unit, str(Spread.of(self.ours)), theirs, str(self.ratio or ""), aim

    def values(self) -> dict[str, Any]:
        """The same for a program."""
        return {
            "name": self.name,
            "unit": self.unit,
            "ours": list(self.ours),
            "theirs": list(self.theirs),
            "against": self.against,
            "ratio": self.ratio.median if self.ratio else None,
            "aim": str(self.aim or ""),
            "verdict": self.verdict,
        }


_VERDICT = {True: "met", False: "MISSED"}
_HEAD = ("figure", "unit", "ours: median (middle half)", "compared with", "ratio", "aim")


@dataclass
class Report:
    """All figures of one run, what was not measured and why."""

    title: str
    versions: str
    file_system: str
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, *figures: Figure) -> None:
        """More lines."""
        self.figures.extend(figures)

    def show(self, *, as_json: bool) -> None:
        """Print it."""
        print(self._json() if as_json else "\n".join(self._lines()))

    def _json(self) -> str:
        return json.dumps(
            {
                "title": self.title,
                "versions": self.versions,
                "machine": machine(),
                "file_system": self.file_system,
                "figures": [figure.values() for figure in self.figures],
                "notes": self.notes,
            },
            indent=1,
        )

    def _lines(self) -> Iterator[str]:
        yield f"{self.title}: {self.versions}"
        yield f"on {machine()}, {self.file_system}"
        yield ""
        rows = [_HEAD, *(figure.row() for figure in self.figures)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
        rows.insert(1, tuple("=" * width for width in widths))
        for row in rows:
            yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for note in self.notes:
            yield f"\nNote: {note}"


def number(value: float) -> str:
    """Three digits that count."""
    if value == 0:
        return "0"
    digits = max(0, 2 - _magnitude(value))
    return f"{value:.{min(digits, 4)}f}"


def _magnitude(value: float) -> int:
    return int(f"{abs(value):e}".partition("e")[2])


def machine() -> str:
    """The class of this machine, not its name."""
    return f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"


def progress(text: str) -> None:
    """One line that overwrites itself, for people who wait; an empty text removes it."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()
