"""A newsletter: one transaction of many mails, from the first ``send()`` until a near relay has taken the last one.

This release against the newest before it, each in a process that sends, commits and drains, one after the other.
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
        made = report("A newsletter", theirs, directory)
        with Ours().child("pump.py") as one, theirs.child("pump.py") as other, Ours().child("sink.py") as sink:
            relay = sink.ask("start", tls=False, delay=None)
            for number in range(-1, arguments.rounds):  # the first warms up
                for side, child in sorted({"ours": one, "theirs": other}.items(), reverse=bool(number % 2)):
                    progress(f"round {number + 1} of {arguments.rounds}: {side}")
                    queue = os.path.join(directory, f"{side}-{number}")
                    answer = child.ask(
                        "newsletter", queue=queue, mails=arguments.mails, size=arguments.size, port=relay["port"]
                    )
                    taken = sink.ask("count", port=relay["port"])["taken"]
                    if answer["left"] or taken != arguments.mails + 1:
                        raise RuntimeError(f"{side}: {answer['left']} mails left, {taken} of {arguments.mails} arrived")
                    for what in ("seconds", "committed", "cpu") if number >= 0 else ():
                        found[f"{side} {what}"].append(answer[what])
    made.add(*_figures(found, theirs.name, arguments.mails))
    progress("")
    made.show(as_json=arguments.json)


def _arguments() -> argparse.Namespace:
    found = parser(__doc__, rounds=5)
    found.add_argument("--mails", type=int, default=4000, help="of the transaction (default: %(default)s)")
    found.add_argument("--size", type=int, default=2000, help="bytes of a message (default: %(default)s)")
    return found.parse_args()


def _figures(found: dict[str, list[float]], theirs: str, mails: int) -> Iterator[Figure]:
    rates = {side: [mails / each for each in found[f"{side} seconds"]] for side in ("ours", "theirs")}
    yield Figure(
        f"{mails} mails, send() to the last one",
        "mails/s",
        rates["ours"],
        rates["theirs"],
        theirs,
        Aim(least=8.0, of_ratio=True),
    )
    yield Figure("until they are committed", "s", found["ours committed"], found["theirs committed"], theirs)
    yield Figure("the whole", "s", found["ours seconds"], found["theirs seconds"], theirs)
    yield Figure("the whole, CPU", "s", found["ours cpu"], found["theirs cpu"], theirs)


if __name__ == "__main__":
    sys.exit(main())
