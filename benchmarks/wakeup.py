"""How soon a processor has a mail that another process commits, and what it costs to wait."""

from __future__ import annotations

import argparse
import os
import random
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from figures import Aim, Figure, progress
from releases import Ours, Theirs, parser, place, report
from serve import Child


@dataclass
class Side:
    """One release: who commits, who drains, and what was measured."""

    queue: str
    committer: Child
    drainer: Child
    #: Seconds from the call of commit() and from its return to the mailer.
    since_call: list[float] = field(default_factory=list)
    since_return: list[float] = field(default_factory=list)
    #: CPU seconds in a second of waiting.
    waiting: list[float] = field(default_factory=list)

    def mails(self, count: int) -> None:
        """Commit so many mails, one after the other, and note how long each took to arrive."""
        for _ in range(count):
            time.sleep(random.uniform(0.005, 0.03))
            said = self.committer.ask("moment", queue=self.queue)
            arrived = self.drainer.ask("sent", count=len(self.since_call) + 1)["times"][-1]
            self.since_call.append(arrived - said["began"])
            self.since_return.append(arrived - said["done"])


def main() -> None:
    """Measure, and print the table."""
    arguments = _arguments()
    theirs = Theirs(arguments.against, arguments.cache)
    with (
        place(arguments.directory) as directory,
        Ours().child("committer.py") as our_committer,
        Ours().child("drainer.py") as our_drainer,
        theirs.child("committer.py") as their_committer,
        theirs.child("drainer.py") as their_drainer,
    ):
        made = report("Waking up", theirs, directory)
        ours = Side(os.path.join(directory, "ours"), our_committer, our_drainer)
        other = Side(os.path.join(directory, "theirs"), their_committer, their_drainer)
        for side in (ours, other):
            side.drainer.ask("start", queue=side.queue)
        _measure(ours, other, arguments)
        for side in (ours, other):
            side.drainer.ask("stop")
    made.add(*_figures(ours, other, theirs.name))
    progress("")
    made.show(as_json=arguments.json)


def _arguments() -> argparse.Namespace:
    found = parser(__doc__, rounds=12)
    found.add_argument("--mails", type=int, default=20, help="of this release, a round (default: %(default)s)")
    found.add_argument("--idle", type=float, default=3.0, help="seconds of waiting, a round (default: %(default)s)")
    return found.parse_args()


def _measure(ours: Side, theirs: Side, arguments: argparse.Namespace) -> None:
    for number in range(arguments.rounds):
        progress(f"round {number + 1} of {arguments.rounds}")
        ours.mails(arguments.mails)
        time.sleep(random.uniform(0.0, 3.0))  # anywhere in their interval of three seconds
        theirs.mails(1)
        for side in (ours, theirs):
            side.drainer.post("idle", seconds=arguments.idle)
        for side in (ours, theirs):
            side.waiting.append(side.drainer.answer()["cpu"])


def _figures(ours: Side, theirs: Side, name: str) -> Iterator[Figure]:
    yield Figure(
        "commit() called - mailer called, median",
        "ms",
        _ms(_medians(ours.since_call, theirs.since_call)),
        _ms(theirs.since_call),
        name,
        Aim(most=200.0),
    )
    yield Figure(
        "the same, 95th percentile", "ms", _ms([_late(ours.since_call)]), _ms([_late(theirs.since_call)]), name
    )
    yield Figure(
        "commit() returned - mailer called, median",
        "ms",
        _ms([statistics.median(ours.since_return)]),
        _ms([statistics.median(theirs.since_return)]),
        name,
    )
    yield Figure("the same, 95th percentile", "ms", _ms([_late(ours.since_return)]))
    yield Figure("CPU of a waiting processor, empty queue", "ms/s", _ms(ours.waiting), _ms(theirs.waiting), name)


def _medians(values: list[float], rounds: list[float]) -> list[float]:
    """The median of each round."""
    size = len(values) // len(rounds)
    return [statistics.median(values[start : start + size]) for start in range(0, len(values), size)]


def _late(values: list[float]) -> float:
    return statistics.quantiles(values, n=20, method="inclusive")[-1] if len(values) > 1 else values[0]


def _ms(values: list[float]) -> list[float]:
    return [value * 1000 for value in values]


if __name__ == "__main__":
    main()
