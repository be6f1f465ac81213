"""This release beside what others use in its place: zope.sendmail 7.3, repoze.sendmail, django-mailer and others.

One command makes their environments, runs all of them in turn against one relay, and prints medians and ratios;
``--out`` writes JSON, the tables of the docs, and plots.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import sys
import time
from pathlib import Path

from comparison import Comparison, setting
from contenders import CONTENDERS, OURS, Field
from dots import plot
from figures import progress
from releases import Ours, file_system, parser, place
from rounds import DEEP, FULL, PARTS, QUICK, Run, Scale


def main() -> int:
    """Measure, and say what was found."""
    arguments = _arguments()
    if arguments.draw:
        write(Comparison.of(json.loads(arguments.draw.read_text(encoding="utf-8"))), arguments.draw.parent)
        return 0
    for number in (signal.SIGTERM, signal.SIGHUP):  # so that servers and queues are cleared away
        signal.signal(number, lambda *_: sys.exit(143))
    with place(arguments.directory) as directory:
        os.chmod(directory, 0o711)  # PostgreSQL runs as another user, if this one is root
        found = measure(arguments, directory)
    progress("")
    print(json.dumps(found.document(), indent=1) if arguments.json else found.text())
    return 0


def measure(arguments: argparse.Namespace, directory: str) -> Comparison:
    """Run the parts that are wanted, and write each if that is wanted, too."""
    field = Field(arguments.peers, arguments.cache, directory)
    try:
        found = Comparison(
            {each.key: each.name for each in field.contenders},
            {each.key: each.keeps for each in field.contenders},
            OURS.key,
            notes=field.notes,
        )
        for part in arguments.only or PARTS:
            began, load = time.monotonic(), os.getloadavg()[0]
            with Ours().child("sink.py") as sink:
                PARTS[part](Run(field, sink, found, _scale(arguments)))
            found.settings[part] = setting(file_system(directory), load, time.monotonic() - began)
            if arguments.out:  # now, for a later part may take long, or be stopped
                write(found, arguments.out)
    finally:
        field.close()
    return found


def write(found: Comparison, out: Path) -> None:
    """Write figures.json, and for each part a table and a plot; the same figures give the same files.

    What is there of other parts stays.
    """
    out.mkdir(parents=True, exist_ok=True)
    if (out / "figures.json").exists():
        found = found.over(Comparison.of(json.loads((out / "figures.json").read_text(encoding="utf-8"))))
    (out / "figures.json").write_text(json.dumps(found.document(), indent=1) + "\n", encoding="utf-8")
    for part in found.parts():
        (out / f"{part}.txt").write_text(found.rst(part), encoding="utf-8")
        (out / f"{part}.svg").write_text(plot(found, part), encoding="utf-8")


def _scale(arguments: argparse.Namespace) -> Scale:
    scale = QUICK if arguments.quick else FULL
    changes = {
        "rounds": arguments.rounds,
        "kills": arguments.kills,
        "depths": DEEP if arguments.deep else None,
    }
    return dataclasses.replace(scale, **{name: value for name, value in changes.items() if value is not None})


def _arguments() -> argparse.Namespace:
    found = parser(__doc__, rounds=5, before=False)
    found.set_defaults(rounds=None)
    found.add_argument("--only", nargs="+", choices=list(PARTS), metavar="PART", help=f"of {', '.join(PARTS)}")
    found.add_argument(
        "--peers",
        nargs="+",
        choices=[each.key for each in CONTENDERS],
        metavar="PEER",
        help="default: all; ours always",
    )
    found.add_argument("--quick", action="store_true", help="one round of little, in less than five minutes")
    found.add_argument("--deep", action="store_true", help="a backlog of 400,000 as well; some GB of disk")
    found.add_argument("--kills", type=int, help="how often each sender is killed (default: 20, quick 5)")
    found.add_argument(
        "--out",
        type=Path,
        metavar="DIRECTORY",
        help="write figures.json, tables and plots there; what is there of other parts stays",
    )
    found.add_argument("--draw", type=Path, metavar="FILE", help="measure nothing: tables and plots of a figures.json")
    return found.parse_args()


if __name__ == "__main__":
    sys.exit(main())
