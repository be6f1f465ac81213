"""What a comparison of several senders has found: tables for people and for the docs, and JSON for programs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from figures import Figure, Spread, machine, number

#: Units of what is counted: whole numbers, of which a ratio would say nothing.
COUNTS = {"mails", "times"}


@dataclass(frozen=True)
class Column:
    """One thing that is measured."""

    part: str
    name: str
    unit: str
    less_is_better: bool = False


@dataclass
class Comparison:
    """The values of each round, by column and sender."""

    names: dict[str, str]
    keeps: dict[str, str]
    ours: str
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    values: dict[Column, dict[str, list[float]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, column: Column, key: str, *values: float) -> None:
        """More rounds of one sender."""
        self.values.setdefault(column, {}).setdefault(key, []).extend(values)

    def parts(self) -> list[str]:
        """What was measured, in its order."""
        return list(dict.fromkeys(column.part for column in self.values))

    def columns(self, part: str) -> list[Column]:
        """The columns of one table."""
        return [column for column in self.values if column.part == part]

    def spread(self, column: Column, key: str) -> Spread | None:
        """Median and middle half; None if it was not measured."""
        values = self.values[column].get(key)
        return Spread.of(values) if values else None

    def ratio(self, column: Column, key: str) -> float | None:
        """Ours divided by theirs, round by round; None for ours, for counts, and where there is nothing to divide."""
        found = self.values[column]
        if key.startswith(self.ours) or column.unit in COUNTS or not found.get(key) or not found.get(self.ours):
            return None
        ratio = Figure("", "", found[self.ours], found[key]).ratio
        return ratio.median if ratio else None

    # for people

    def text(self) -> str:
        """Tables for a terminal."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield "zope.sendmail beside others: medians of the rounds; in parentheses: ours divided by theirs"
        for part in self.parts():
            yield f"\n{part} ({self.circumstances(part)})"
            rows = self.rows(part)
            widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
            rows.insert(1, ["=" * width for width in widths])
            for row in rows:
                yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        yield "\nwhat each keeps"
        for key, name in self.names.items():
            yield f"{name}: {self.keeps[key]}"
        for note in self.notes:
            yield f"\nNote: {note}"

    def circumstances(self, part: str) -> str:
        """When and where a part was measured, and how often."""
        at = self.settings[part]
        rounds = max(len(values) for column in self.columns(part) for values in self.values[column].values())
        return (
            f"{at['date']}, {at['machine']}, {at['file_system']}, load {at['load']}; {rounds} round{'s' * (rounds > 1)}"
            f" in {at['seconds']} s"
        )

    def rows(self, part: str) -> list[list[str]]:
        """The cells of one table, with its head."""
        columns = self.columns(part)
        keys = [key for key in self.names if any(key in self.values[column] for column in columns)]
        head = ["", *(f"{column.name} [{column.unit}]" for column in columns)]
        return [head, *([self.names[key], *(self._cell(column, key) for column in columns)] for key in keys)]

    def _cell(self, column: Column, key: str) -> str:
        ratio = self.ratio(column, key)
        return f"{self.median(column, key)} ({number(ratio)})" if ratio else self.median(column, key)

    def median(self, column: Column, key: str) -> str:
        """The median as it is shown; nothing if it was not measured."""
        spread = self.spread(column, key)
        if spread is None:
            return ""
        return f"{spread.median:.0f}" if column.unit in COUNTS else number(spread.median)

    def rst(self, part: str) -> str:
        """One table for the docs."""
        head, *rows = self.rows(part)
        lines = [f".. list-table:: {self.circumstances(part)}", "   :header-rows: 1", ""]
        for row in [head, *rows]:
            lines += [f"   {'*' if first else ' '} - {cell}".rstrip() for first, cell in _first(row)]
        return "\n".join([*lines, ""])

    # for programs

    def document(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {
            "settings": self.settings,
            "ours": self.ours,
            "names": self.names,
            "keeps": self.keeps,
            "figures": [
                {"part": column.part, "name": column.name, "unit": column.unit,
                 "less_is_better": column.less_is_better, "values": values}
                for column, values in self.values.items()
            ],
            "notes": self.notes,
        }  # fmt: skip

    @classmethod
    def of(cls, document: dict[str, Any]) -> Comparison:
        """The same, read again."""
        made = cls(document["names"], document["keeps"], document["ours"], document["settings"], {}, document["notes"])
        for each in document["figures"]:
            column = Column(each["part"], each["name"], each["unit"], each["less_is_better"])
            made.values[column] = each["values"]
        return made

    def over(self, before: Comparison) -> Comparison:
        """These figures, and those of `before` for parts that were not measured now."""
        kept = {column: values for column, values in before.values.items() if column.part not in self.settings}
        return Comparison(
            {**before.names, **self.names},
            {**before.keeps, **self.keeps},
            self.ours,
            {**before.settings, **self.settings},
            {**kept, **self.values},
            list(dict.fromkeys([*before.notes, *self.notes])),
        )


def _first(row: Sequence[str]) -> Iterator[tuple[bool, str]]:
    return ((not place, cell) for place, cell in enumerate(row))


def setting(file_system: str, load: float, seconds: float) -> dict[str, Any]:
    """When and where a part was measured, how much else was to be done there, and how long it took."""
    return {
        "date": time.strftime("%d %B %Y", time.gmtime()).lstrip("0"),
        "machine": machine(),
        "file_system": file_system,
        "load": round(load, 1),
        "seconds": round(seconds),
    }
