"""How fast a queue is drained into a relay, this release against the newest before it.

Both with default settings and one processor; the relay is the same, and so is the network in front of it.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from figures import Aim, Figure, progress
from releases import Ours, Theirs, parser, place, report
from serve import Child


@dataclass(frozen=True)
class Case:
    """One network and relay.  `share`: of the mails of a round that the other release gets, because it is slow.

    It makes a connection for each mail, so its figures do not depend on how many there are.
    """

    name: str
    aim: Aim
    tls: bool = False
    delay: float | None = None
    share: float = 1.0


CASES = (
    Case("loopback", Aim(least=6.0, of_ratio=True)),
    Case("STARTTLS and AUTH", Aim(least=25.0, of_ratio=True), tls=True),
    Case("1 ms", Aim(least=35.0, of_ratio=True), delay=0.001, share=0.5),
    Case("20 ms", Aim(least=110.0, of_ratio=True), delay=0.020, share=0.05),
    Case("20 ms, STARTTLS and AUTH", Aim(least=170.0, of_ratio=True), tls=True, delay=0.020, share=0.05),
)


class Measured:
    """One value for each round, by side and case."""

    def __init__(self) -> None:
        self.rate: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
        self.cpu: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
        self.turns: defaultdict[tuple[str, str], list[float]] = defaultdict(list)


def main() -> None:
    """Measure, and print the table."""
    arguments = _arguments()
    theirs = Theirs(arguments.against, arguments.cache)
    with place(arguments.directory) as directory:
        made = report("Draining a queue", theirs, directory)
        with Ours().child("pump.py") as one, theirs.child("pump.py") as other, Ours().child("sink.py") as sink:
            found = _measure({"ours": one, "theirs": other}, sink, directory, arguments)
    made.add(*_figures(found, theirs.name))
    made.notes.append("round trips are those after the TCP handshake, in all connections, divided by the mails")
    progress("")
    made.show(as_json=arguments.json)


def _arguments() -> argparse.Namespace:
    found = parser(__doc__, rounds=5)
    found.add_argument("--mails", type=int, default=500, help="a round, for us (default: %(default)s)")
    found.add_argument("--size", type=int, default=2000, help="bytes of a message (default: %(default)s)")
    return found.parse_args()


def _measure(sides: dict[str, Child], sink: Child, directory: str, arguments: argparse.Namespace) -> Measured:
    relays = {case.name: sink.ask("start", tls=case.tls, delay=case.delay) for case in CASES}
    found = Measured()
    for number in range(-1, arguments.rounds):  # the first warms up
        for case in CASES:
            progress(f"round {number + 1} of {arguments.rounds}: {case.name}")
            for side in sorted(sides, reverse=bool(number % 2)):
                into = found if number >= 0 else Measured()
                _drain(into, (side, case), sides[side], sink, relays[case.name], directory, arguments)
    return found


def _drain(  # noqa: PLR0917 - one measurement
    into: Measured,
    what: tuple[str, Case],
    child: Child,
    sink: Child,
    relay: dict[str, object],
    directory: str,
    arguments: argparse.Namespace,
) -> None:
    side, case = what
    mails = arguments.mails if side == "ours" else max(10, round(arguments.mails * case.share))
    queue = os.path.join(directory, f"{side} {case.name}".replace(" ", "-"))
    answer = child.ask("drain", queue=queue, mails=mails, size=arguments.size, login=case.tls, **relay)
    heard = sink.ask("count", port=relay["port"])
    if answer["left"] or heard["taken"] != mails:
        raise RuntimeError(f"{side}, {case.name}: {answer['left']} mails left, {heard['taken']} of {mails} arrived")
    key = side, case.name
    into.rate[key].append(mails / answer["seconds"])
    into.cpu[key].append(answer["cpu"] / mails * 1e6)
    into.turns[key].append(heard["turns"] / mails)


def _figures(found: Measured, theirs: str) -> Iterator[Figure]:
    for case in CASES:
        ours, other = ("ours", case.name), ("theirs", case.name)
        yield Figure(case.name, "mails/s", found.rate[ours], found.rate[other], theirs, case.aim)
        yield Figure(
            f"{case.name}: CPU", "us/mail", found.cpu[ours], found.cpu[other], theirs, Aim(most=0.25, of_ratio=True)
        )
        if case.delay is not None:
            yield Figure(
                f"{case.name}: round trips", "per mail", found.turns[ours], found.turns[other], theirs, Aim(most=1.1)
            )


if __name__ == "__main__":
    sys.exit(main())
