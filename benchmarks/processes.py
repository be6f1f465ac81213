"""One, two and four processes that drain one queue, this release against the newest before it.

This release forks them as ``zope-sendmail --processes`` does; of the other one so many processes begin at once, as an
administrator would start them.  Everything is imported before; measured until the relay has taken the last mail.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack

from figures import Aim, Figure, progress
from releases import Ours, Theirs, parser, place, report
from serve import Child

_COUNTS = (1, 2, 4)


class Relay:
    """A relay in several processes, so that it is not what limits."""

    def __init__(self, children: list[Child]) -> None:
        self._children = children
        self.port = children[0].ask("start")["port"]
        for child in children[1:]:
            child.ask("start", port=self.port)

    def count(self) -> dict[str, float]:
        """What has come since the last time, over how many connections, and when the last mail did."""
        heard = [child.ask("count", port=self.port) for child in self._children]
        found = {name: sum(each[name] for each in heard) for name in ("taken", "connections")}
        return found | {"last": max(each["last"] for each in heard)}


def main() -> None:
    """Measure, and print the table."""
    arguments = _arguments()
    theirs = Theirs(arguments.against, arguments.cache)
    found: defaultdict[tuple[str, int, str], list[float]] = defaultdict(list)
    with place(arguments.directory) as directory, ExitStack() as stack:
        made = report("Several processes, one queue", theirs, directory)
        one = stack.enter_context(Ours().child("pump.py"))
        others = [stack.enter_context(theirs.child("pump.py")) for _ in range(max(_COUNTS))]
        relay = Relay([stack.enter_context(Ours().child("sink.py")) for _ in range(arguments.relays)])
        for number in range(-1, arguments.rounds):  # the first warms up
            for count in _COUNTS:
                for side in sorted(("ours", "theirs"), reverse=bool(number % 2)):
                    progress(f"round {number + 1} of {arguments.rounds}: {count} processes, {side}")
                    queue = os.path.join(directory, f"{side}-{count}")
                    one.ask("fill", queue=queue, mails=arguments.mails, size=arguments.size)
                    answer = _drain(relay, queue, [one] if side == "ours" else others[:count], count)
                    if answer["taken"] < arguments.mails and not answer["died"]:
                        raise RuntimeError(f"{side}: {answer['taken']} of {arguments.mails} mails arrived")
                    for what in answer if number >= 0 else ():
                        found[side, count, what].append(answer[what])
    made.add(*_figures(found, theirs.name))
    progress("")
    made.show(as_json=arguments.json)


def _arguments() -> argparse.Namespace:
    found = parser(__doc__, rounds=5)
    found.add_argument("--mails", type=int, default=4000, help="a round (default: %(default)s)")
    found.add_argument("--size", type=int, default=2000, help="bytes of a message (default: %(default)s)")
    found.add_argument("--relays", type=int, default=1, help="processes of the relay (default: %(default)s)")
    return found.parse_args()


def _drain(relay: Relay, queue: str, children: list[Child], count: int) -> dict[str, float]:
    """Drain it; one child makes the processes itself."""
    relay.count()
    for child in children:
        child.post("drain_in", queue=queue, port=relay.port, processes=count if len(children) == 1 else 1)
    answers = [child.answer() for child in children]
    heard = relay.count()
    return heard | {
        "seconds": heard["last"] - min(each["began"] for each in answers),
        "cpu": sum(each["cpu"] for each in answers),
        "died": sum(each["died"] for each in answers),
    }


def _figures(found: dict[tuple[str, int, str], list[float]], theirs: str) -> Iterator[Figure]:
    for count in _COUNTS:
        name = f"{count} process{'es' if count > 1 else ''}"
        sides = {
            side: {what: found[side, count, what] for what in ("seconds", "cpu", "taken", "connections", "died")}
            for side in ("ours", "theirs")
        }
        rates, cpu = (
            {
                side: [change(mail, each) for mail, each in zip(values["taken"], values[what], strict=True)]
                for side, values in sides.items()
            }
            for what, change in (("seconds", _rate), ("cpu", _cost))
        )
        aim = Aim(least=11.0, of_ratio=True) if count > 1 else None
        yield Figure(name, "mails/s", rates["ours"], rates["theirs"], theirs, aim)
        yield Figure(f"{name}: CPU", "us/mail", cpu["ours"], cpu["theirs"], theirs)
        yield Figure(f"{name}: connections", "", sides["ours"]["connections"])
        if any(sides["theirs"]["died"]):
            yield Figure(f"{name}: that died", "", sides["ours"]["died"], sides["theirs"]["died"], theirs)


def _rate(mails: float, seconds: float) -> float:
    return mails / seconds


def _cost(mails: float, cpu: float) -> float:
    return cpu / mails * 1e6


if __name__ == "__main__":
    sys.exit(main())
