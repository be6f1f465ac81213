"""What a deep queue costs, and what a large message costs.

A hundred thousand messages that wait for their next attempt, then as many that are locked by a processor of an older
release; and a message of 25 MiB wherever it passes.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import time
from collections import defaultdict
from collections.abc import Iterator

from figures import Aim, Figure, Report, progress
from releases import Ours, Theirs, parser, place, report
from serve import Child

from zope.sendmail.lifecycle.record import Record, write_record
from zope.sendmail.lifecycle.states import State
from zope.sendmail.maildir import unique_name
from zope.sendmail.message.envelope import Envelope, envelope_lines

_MEBI = 1024 * 1024
_KINDS = ("bytes", "str", "bytes with Bcc", "message object")
_MODES = ("deferred", "locked")

#: Seconds after which the processor trusts the time stamp of a directory again, and some.
_QUIET = 2.2

#: Seconds for which a waiting processor is watched: more than its interval.
_IDLE = 4.0


def main() -> None:
    """Measure, and print the table."""
    arguments = _arguments()
    theirs = Theirs(arguments.against, arguments.cache)
    with place(arguments.directory) as directory:
        made = report("Deep queues and large messages", theirs, directory)
        for mode in () if arguments.no_depth else _MODES:
            queue = os.path.join(directory, mode)
            build(queue, mode, arguments.messages)
            _measure_depth(made, queue, mode, theirs, arguments)
            progress("clearing up")
            shutil.rmtree(queue)
        if not arguments.no_size:
            _measure_size(made, directory, theirs, arguments)
    progress("")
    made.show(as_json=arguments.json)


def _arguments() -> argparse.Namespace:
    found = parser(__doc__, rounds=1)
    found.add_argument("--messages", type=int, default=100_000, help="in the deep queues (default: %(default)s)")
    found.add_argument(
        "--patience", type=float, default=40.0, help="seconds to wait for the first message (default: %(default)s)"
    )
    found.add_argument("--size", type=int, default=25, help="MiB of the large message (default: %(default)s)")
    found.add_argument("--no-depth", action="store_true", help="leave out the deep queues")
    found.add_argument("--no-size", action="store_true", help="leave out the large message")
    return found.parse_args()


# deep queues


def build(queue: str, mode: str, count: int) -> None:
    """Make a queue of `count` messages that cannot be sent now, as the processors leave them."""
    for name in ("tmp", "new", "cur", "history", "locks"):
        os.makedirs(os.path.join(queue, name), mode=0o700)
    new, history = os.path.join(queue, "new"), os.path.join(queue, "history")
    text = b"From: sender@example.org\nTo: recipient@example.org\nSubject: Benchmark\n\n" + b"text\n" * 100
    content = envelope_lines(Envelope("sender@example.org", ("recipient@example.org",)), text) + text
    for number in range(count):
        if number % 1000 == 0:
            progress(f"making {count} {mode} messages: {number}")
        name = unique_name()
        path = os.path.join(new, name)
        _write(path, content)
        now = time.time()
        if mode == "locked":
            os.link(path, os.path.join(new, f".sending-{name}"))
            os.utime(path, (now - number % 5, now - number % 5))  # at nearly the same time, as in a burst
            continue
        due = now + random.uniform(1800.0, 6 * 3600.0)
        _write(
            os.path.join(history, name),
            write_record(Record(State.DEFERRED, attempts=3, time=now, due=due, relay="relay.example.org")),
        )
        os.utime(os.path.join(history, name), (due, due))
    os.sync()  # else the disk would do it while we measure


def _write(path: str, content: bytes) -> None:
    with open(path, "wb") as stream:
        stream.write(content)


def _measure_depth(made: Report, queue: str, mode: str, theirs: Theirs, arguments: argparse.Namespace) -> None:
    found: defaultdict[str, list[float]] = defaultdict(list)
    what = f"{arguments.messages} {mode}"
    for number in range(arguments.rounds):
        progress(f"{mode}: round {number + 1} of {arguments.rounds}")
        with Ours().child("committer.py") as committer, Ours().child("drainer.py") as drainer:
            through = _ours_at_depth(found, queue, committer, drainer, arguments.patience)
        if mode == "locked":  # it knows no deferred messages, and would try them all
            with theirs.child("committer.py") as committer, theirs.child("drainer.py") as drainer:
                _theirs_at_depth(found, queue, committer, drainer, arguments.patience)
        if not through:
            made.notes.append(f"{what}: no fresh message after {arguments.patience:g} s; the rest was not measured")
            break
    else:
        progress(f"{mode}: memory")
        _memory_at_depth(found, queue, arguments.messages)
    made.add(*(figure for figure in _figures_at_depth(found, what, theirs.name) if figure.ours))


def _ours_at_depth(
    found: defaultdict[str, list[float]], queue: str, committer: Child, drainer: Child, patience: float
) -> bool:
    """One round with this release; says whether it got through."""
    before = drainer.ask("memory")["resident"]
    if not _first_one(found["start"], queue, committer, drainer, patience):
        return False
    _settle(drainer)
    found["resident"].append(drainer.ask("memory")["resident"] - before)
    found["look"].append(drainer.ask("looks", count=200)["median"] * 1000)
    found["waiting"].append(drainer.ask("idle", seconds=_IDLE)["cpu"] * 1000)
    for number in range(10):
        time.sleep(random.uniform(0.05, 0.15))
        said = committer.ask("moment", queue=queue)
        arrived = drainer.ask("sent", count=number + 2)["times"][-1]
        found["fresh"].append((arrived - said["began"]) * 1000)
    _settle(drainer)
    drainer.ask("watch")
    opened = drainer.ask("idle", seconds=_IDLE)["opened"]
    found["read"].append(sum(opened.values()))
    return True


def _first_one(into: list[float], queue: str, committer: Child, drainer: Child, patience: float) -> bool:
    """Seconds from the start of a processor to the first fresh message; False if that took too long."""
    committer.ask("moment", queue=queue)
    began = drainer.ask("start", queue=queue)["began"]
    times = drainer.ask("sent", count=1, timeout=patience)["times"]
    into.append(times[0] - began if times else patience)
    return bool(times)


def _settle(drainer: Child) -> None:
    """Wait until the processor has seen the last change: a look costs time, and looks are rationed by their cost."""
    time.sleep(_QUIET)
    for _ in range(20):
        if drainer.ask("idle", seconds=3.2)["cpu"] < 0.005:
            return


def _theirs_at_depth(
    found: defaultdict[str, list[float]], queue: str, committer: Child, drainer: Child, patience: float
) -> bool:
    """One round with the other release."""
    if not _first_one(found["their start"], queue, committer, drainer, patience):
        return False
    found["their waiting"].append(drainer.ask("idle", seconds=2 * _IDLE)["cpu"] * 1000)
    said = committer.ask("moment", queue=queue)
    arrived = drainer.ask("sent", count=2)["times"][-1]
    found["their fresh"].append((arrived - said["began"]) * 1000)
    return True


def _memory_at_depth(found: defaultdict[str, list[float]], queue: str, count: int) -> None:
    """Tracing makes everything slow, so it has a process of its own."""
    with Ours().child("committer.py") as committer, Ours().child("drainer.py") as drainer:
        committer.ask("moment", queue=queue)
        drainer.ask("start", queue=queue, trace=True)
        drainer.ask("sent", count=1)
        _settle(drainer)
        found["traced"].append(drainer.ask("memory")["traced"] / count)
        drainer.ask("stop")
    found["resident"] = [each / count for each in found["resident"]]


def _figures_at_depth(found: defaultdict[str, list[float]], what: str, theirs: str) -> Iterator[Figure]:
    yield Figure(
        f"{what}: start to first fresh message", "s", found["start"], found["their start"], theirs, Aim(most=3.0)
    )
    yield Figure(f"{what}: an idle look, CPU", "ms", found["look"], aim=Aim(most=5.0))
    yield Figure(f"{what}: waiting, CPU", "ms/s", found["waiting"], found["their waiting"], theirs)
    yield Figure(f"{what}: files read while idle", "files", found["read"], aim=Aim(most=0.0))
    yield Figure(
        f"{what}: commit() of a fresh message - mailer",
        "ms",
        found["fresh"],
        found["their fresh"],
        theirs,
        Aim(most=200.0),
    )
    yield Figure(f"{what}: Python objects", "bytes/message", found["traced"], aim=Aim(most=200.0))
    yield Figure(f"{what}: growth of the process", "bytes/message", found["resident"])


# a large message


def _measure_size(made: Report, directory: str, theirs: Theirs, arguments: argparse.Namespace) -> None:
    size = arguments.size * _MEBI
    most, least = Aim(most=arguments.size + 5.0), Aim(most=5.0)
    with Ours().child("carrier.py") as relay:
        port = relay.ask("relay")["port"]
        for kind in _KINDS:
            progress(f"{arguments.size} MiB as {kind}")
            at = {"queue": os.path.join(directory, "large"), "size": size, "kind": kind}
            name = f"{arguments.size} MiB as {kind}: send() and commit()"
            is_object = kind == "message object"  # which 7.3 did not take
            made.add(*_peaks(name, "queued", at, None if is_object else theirs, least if is_object else most))
            shutil.rmtree(at["queue"])
        for kind in _KINDS[:2]:
            name = f"{arguments.size} MiB as {kind}: direct delivery"
            made.add(*_peaks(name, "direct", {"port": port, "size": size, "kind": kind}, theirs, most))
        progress(f"{arguments.size} MiB from the queue to the relay")
        made.add(*_drained(directory, size, port, theirs, most))


def _peaks(name: str, do: str, at: dict[str, object], theirs: Theirs | None, aim: Aim) -> Iterator[Figure]:
    """The peak of the process, and that of Python objects, each in a process of its own."""
    for trace, what in ((False, "process"), (True, "Python objects")):
        ours = _peak(Ours().child("carrier.py"), do, at, trace=trace)
        other = [_peak(theirs.child("carrier.py"), do, at, trace=trace)] if theirs else []
        yield Figure(f"{name}, {what}", "MiB", [ours], other, theirs.name if theirs else "", aim)


def _drained(directory: str, size: int, port: int, theirs: Theirs, aim: Aim) -> Iterator[Figure]:
    name = f"{size // _MEBI} MiB: from the queue to the relay"
    queue = os.path.join(directory, "large")
    for trace, what in ((False, "process"), (True, "Python objects")):
        peaks = []
        for carrier in (Ours().child, theirs.child):
            _peak(Ours().child("carrier.py"), "queued", {"queue": queue, "size": size, "kind": "bytes"}, trace=False)
            peaks.append(_peak(carrier("carrier.py"), "drain", {"queue": queue, "port": port}, trace=trace))
        yield Figure(f"{name}, {what}", "MiB", peaks[:1], peaks[1:], theirs.name, aim)


def _peak(carrier: Child, do: str, at: dict[str, object], *, trace: bool) -> float:
    with carrier:
        return float(carrier.ask(do, **at, trace=trace)["peak"]) / _MEBI


if __name__ == "__main__":
    main()
