"""What durability costs: transactions a second, this release against the newest before it and against the disk.

The other release syncs nothing; this one returns from ``commit()`` when all is on disk.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from figures import Aim, Figure, Report, progress
from releases import Ours, Theirs, parser, place, report
from serve import Child

THREADS = (1, 2, 4, 8)

#: Large transactions one after the other, while those before are still made into single files.
REPEATED = 5
_SYNCS = re.compile(r"\b(fsync|fdatasync|syncfs|sync_file_range|sync)\(")


@dataclass(frozen=True)
class Sides:
    """The processes that are measured in turn."""

    ours: Child
    theirs: Child
    disk: Child


class Rates:
    """What was measured, by what it is called; one value for each round."""

    def __init__(self) -> None:
        self.per_second: defaultdict[str, list[float]] = defaultdict(list)
        self.cpu: defaultdict[str, list[float]] = defaultdict(list)

    def add(self, name: str, answer: dict[str, float], expected: int) -> None:
        """One measurement of `expected` mails."""
        if answer["files"] - expected not in {0, 1}:  # one more to make the queue
            raise RuntimeError(f"{name}: {answer['files']} mails in the queue instead of {expected}")
        self.per_second[name].append(expected / answer["seconds"])
        self.cpu[name].append(answer["cpu"] / expected * 1e6)
        self.per_second[f"{name}, whole"].append(expected / answer["whole"])
        self.cpu[f"{name}, whole"].append(answer["whole_cpu"] / expected * 1e6)


def main() -> None:
    """Measure, and print the table."""
    arguments = _arguments()
    theirs = Theirs(arguments.against, arguments.cache)
    with place(arguments.directory) as directory:
        made = report("Committing mail", theirs, directory)
        with (
            Ours().child("committer.py") as one,
            theirs.child("committer.py") as other,
            Ours().child("committer.py") as disk,
        ):
            rates = _measure(Sides(one, other, disk), directory, arguments)
        made.add(*_figures(rates, theirs.name, arguments))
        _count_syncs(made, directory, arguments)
    progress("")
    made.show(as_json=arguments.json)


def _arguments() -> argparse.Namespace:
    found = parser(__doc__, rounds=9)
    found.add_argument("--mails", type=int, default=1000, help="in the large transaction (default: %(default)s)")
    found.add_argument("--transactions", type=int, default=240, help="of one mail, a round (default: %(default)s)")
    found.add_argument("--size", type=int, default=2000, help="bytes of a message (default: %(default)s)")
    return found.parse_args()


def _measure(sides: Sides, directory: str, arguments: argparse.Namespace) -> Rates:
    """One round after the other; each starts with another side, so that none is always the first."""
    _round(sides, directory, arguments, Rates(), first=0)  # warms up
    rates = Rates()
    for number in range(arguments.rounds):
        progress(f"round {number + 1} of {arguments.rounds}")
        _round(sides, directory, arguments, rates, first=number)
    return rates


def _round(sides: Sides, directory: str, arguments: argparse.Namespace, rates: Rates, *, first: int) -> None:
    """Each measurement has a queue of its own, and nothing is removed before the end: making files was several times
    slower on ext4 after many had been removed.
    """
    count, size = arguments.transactions, arguments.size
    path = tempfile.mkdtemp(dir=directory)
    for name, child in _turn([("ours", sides.ours), ("theirs", sides.theirs)], first):
        queue = os.path.join(path, f"{name}-large")
        answer = child.ask("commit", queue=queue, transactions=1, mails=arguments.mails, size=size)
        rates.add(f"{name} large", answer, arguments.mails)
    for name, child in _turn([("ours", sides.ours), ("theirs", sides.theirs)], first):
        queue = os.path.join(path, f"{name}-repeated")
        answer = child.ask("commit", queue=queue, transactions=REPEATED, mails=arguments.mails, size=size)
        rates.add(f"{name} repeated", answer, REPEATED * arguments.mails)
    for threads in THREADS:
        for name, child in _turn([("ours", sides.ours), ("theirs", sides.theirs), ("disk", sides.disk)], first):
            do = "raw" if name == "disk" else "commit"
            queue = os.path.join(path, f"{name}-{threads}")
            answer = child.ask(do, queue=queue, transactions=count, threads=threads, size=size)
            rates.add(f"{name} {threads}", answer, count)


def _turn(sides: list[tuple[str, Child]], first: int) -> Iterator[tuple[str, Child]]:
    for number in range(len(sides)):
        yield sides[(first + number) % len(sides)]


def _figures(rates: Rates, theirs: str, arguments: argparse.Namespace) -> Iterator[Figure]:
    speed, cpu = rates.per_second, rates.cpu
    large = f"{arguments.mails} mails in a transaction"
    yield Figure(large, "mails/s", speed["ours large"], speed["theirs large"], theirs, Aim(least=2.0, of_ratio=True))
    yield Figure(f"{large}: CPU", "us/mail", cpu["ours large"], cpu["theirs large"], theirs)
    whole = f"{large}, until all are single files"
    yield Figure(whole, "mails/s", speed["ours large, whole"], speed["theirs large, whole"], theirs)
    yield Figure(f"{whole}: CPU", "us/mail", cpu["ours large, whole"], cpu["theirs large, whole"], theirs)
    repeated = f"{REPEATED} such transactions without a pause"
    yield Figure(repeated, "mails/s", speed["ours repeated"], speed["theirs repeated"], theirs)
    whole = f"{repeated}, until all are single files"
    yield Figure(whole, "mails/s", speed["ours repeated, whole"], speed["theirs repeated, whole"], theirs)
    single = "one mail in a transaction"
    yield Figure(single, "mails/s", speed["ours 1"], speed["disk 1"], "the disk", Aim(least=0.8, of_ratio=True))
    yield Figure(single, "mails/s", speed["ours 1"], speed["theirs 1"], theirs)
    yield Figure(f"{single}: CPU", "us/mail", cpu["ours 1"], cpu["theirs 1"], theirs)
    yield Figure(f"{single}: CPU", "us/mail", cpu["ours 1"], cpu["disk 1"], "the disk")
    for threads in THREADS[1:]:
        name = f"the same, {threads} threads"
        mine = speed[f"ours {threads}"]
        yield Figure(name, "mails/s", mine, speed["ours 1"], "one thread", Aim(least=1.0, of_ratio=True))
        yield Figure(name, "mails/s", mine, speed[f"disk {threads}"], "the disk")
        yield Figure(name, "mails/s", mine, speed[f"theirs {threads}"], theirs)


def _count_syncs(made: Report, directory: str, arguments: argparse.Namespace) -> None:
    """How often a transaction asks the disk to sync, from strace."""
    if shutil.which("strace") is None:
        made.notes.append("strace is not installed; syncs are not counted")
        return
    progress("counting syncs")
    trace = os.path.join(directory, "trace")
    for mails in (1, 15, arguments.mails):
        # Once with five transactions, once with none: what makes the queue is not counted.
        many, none = (_syncs(tempfile.mkdtemp(dir=directory), trace, mails, transactions) for transactions in (5, 0))
        for call in sorted(many | none):
            count = (many.get(call, 0) - none.get(call, 0)) / 5
            made.add(Figure(f"{mails} mails in a transaction: {call}", "calls", [count]))


def _syncs(queue: str, trace: str, mails: int, transactions: int) -> dict[str, int]:
    with Ours().child(
        "committer.py", "strace", "-f", "-qq", "-e", "trace=fsync,fdatasync,syncfs", "-o", trace
    ) as child:
        child.ask("commit", queue=queue, transactions=transactions, mails=mails)
    counts: defaultdict[str, int] = defaultdict(int)
    with open(trace, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if found := _SYNCS.search(line):
                counts[found[1]] += 1
    return dict(counts)


if __name__ == "__main__":
    main()
