"""What draining costs the other threads of a process: one of them serves requests, while a processor drains a queue.

The requests are computing in small steps with short waits between them, as a web application has them; how many are
served in a second with and without the processor beside them is compared, for this release and the newest before it.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import defaultdict
from collections.abc import Iterator

from figures import Aim, Figure, progress
from releases import Ours, Theirs, parser, place, report


def main() -> None:
    """Measure, and print the table."""
    arguments = _arguments()
    theirs = Theirs(arguments.against, arguments.cache)
    found: defaultdict[str, list[float]] = defaultdict(list)
    with place(arguments.directory) as directory:
        made = report("A thread beside a processor", theirs, directory)
        with Ours().child("pump.py") as one, theirs.child("pump.py") as other, Ours().child("sink.py") as sink:
            relay = sink.ask("start", tls=False, delay=arguments.delay)
            for number in range(-1, arguments.rounds):  # the first warms up
                for side, child in sorted({"ours": one, "theirs": other}.items(), reverse=bool(number % 2)):
                    progress(f"round {number + 1} of {arguments.rounds}: {side}")
                    answer = child.ask(
                        "beside",
                        queue=os.path.join(directory, f"{side}-{number}"),
                        mails=arguments.mails,
                        size=arguments.size,
                        seconds=arguments.seconds,
                        port=relay["port"],
                    )
                    for what in ("alone", "beside", "mails") if number >= 0 else ():
                        found[f"{side} {what}"].append(answer[what])
    made.add(*_figures(found, theirs.name))
    made.notes.append("a processor that drains faster takes more of each second, and fewer seconds")
    progress("")
    made.show(as_json=arguments.json)


def _arguments() -> argparse.Namespace:
    found = parser(__doc__, rounds=5)
    found.add_argument("--mails", type=int, default=4000, help="that are drained at most (default: %(default)s)")
    found.add_argument("--size", type=int, default=2000, help="bytes of a message (default: %(default)s)")
    found.add_argument("--seconds", type=float, default=2.0, help="of a measurement at most (default: %(default)s)")
    found.add_argument("--delay", type=float, help="of the relay, in seconds (default: none)")
    return found.parse_args()


def _figures(found: dict[str, list[float]], theirs: str) -> Iterator[Figure]:
    least = Aim(least=0.9, of_ratio=True)
    yield Figure("requests beside the processor", "per s", found["ours beside"], found["ours alone"], "alone", least)
    yield Figure(f"the same, {theirs}", "per s", found["theirs beside"], found["theirs alone"], "alone", None)
    yield Figure("mails meanwhile", "per s", found["ours mails"], found["theirs mails"], theirs)
    for side, name in (("ours", "requests lost for 1000 mails"), ("theirs", f"the same, {theirs}")):
        lost = [
            max(0.0, alone - beside) / mails * 1000
            for alone, beside, mails in zip(
                found[f"{side} alone"], found[f"{side} beside"], found[f"{side} mails"], strict=True
            )
        ]
        yield Figure(name, "requests", lost)


if __name__ == "__main__":
    sys.exit(main())
