"""The parts of the comparison: each measures all contenders in turn, round by round, with the same relay."""

from __future__ import annotations

import glob
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from comparison import Column, Comparison
from contenders import Contender, Field
from figures import progress
from letters import status
from serve import Child

_MEBI = 1024 * 1024
_SIZE = 2000


@dataclass(frozen=True)
class Scale:
    """How much is measured.  `seconds` is about what one drain through a network with a delay takes."""

    rounds: int
    transactions: int
    group: int
    mails: int
    seconds: float
    moments: int
    depths: tuple[int, ...]
    kills: int
    patience: float
    networks: tuple[tuple[str, bool, float | None], ...]


#: Name, whether with STARTTLS and AUTH, seconds of a round trip.
NETWORKS = (
    ("loopback", False, None),
    ("TLS, AUTH", True, None),
    ("1 ms", False, 0.001),
    ("20 ms", False, 0.020),
    ("100 ms", False, 0.100),
)
QUICK = Scale(1, 60, 500, 300, 0.7, 4, (5_000,), 3, 5.0, (NETWORKS[0], NETWORKS[1], NETWORKS[3]))
FULL = Scale(5, 300, 1000, 1500, 3.0, 10, (50_000,), 20, 30.0, NETWORKS)
DEEP = (50_000, 400_000)


class Run:
    """One comparison under way."""

    def __init__(self, field: Field, sink: Child, found: Comparison, scale: Scale) -> None:
        self.field, self.sink, self.found, self.scale = field, sink, found, scale
        self._number = 0

    def relay(self, *, tls: bool = False, delay: float | None = None) -> dict[str, Any]:
        """A relay that notes what comes."""
        return self.sink.ask("start", tls=tls, delay=delay, notes=True) | {"login": tls}

    def numbers(self, count: int) -> int:
        """The first of so many numbers that no mail had before."""
        first, self._number = self._number, self._number + count
        return first

    def arrivals(self, relay: dict[str, Any]) -> list[tuple[int, float]]:
        """What has come since the last time."""
        return [(number, when) for number, when in self.sink.ask("arrivals", port=relay["port"])["arrivals"]]

    def in_turn(self, part: str, of: Callable[[Contender, int], None], rounds: int | None = None) -> None:
        """Call for each contender in each round, in another order each time.

        One that fails is told of, and left out from then on.
        """
        contenders = self.field.of(part)
        for number in range(rounds or self.scale.rounds):
            for each in contenders[number % len(contenders) :] + contenders[: number % len(contenders)]:
                progress(f"{part}: round {number + 1} of {rounds or self.scale.rounds}: {each.name}")
                try:
                    of(each, number)
                except (RuntimeError, OSError) as error:
                    self.found.notes.append(f"{part}, {each.name}: {str(error).strip().splitlines()[-1]}")
                    contenders = [other for other in contenders if other is not each]

    @contextmanager
    def opened(self, contender: Contender, relay: dict[str, Any], place: str = "") -> Iterator[Child]:
        """A process with a sender; a new queue if there is no place."""
        with self.field.open(contender, place or self.field.place(contender), relay) as child:
            yield child


class Kept:
    """Processes that live through all rounds of a part."""

    def __init__(self, run: Run, stack: ExitStack) -> None:
        self._run, self._stack = run, stack
        self._children: dict[tuple[str, ...], Child] = {}

    def child(self, contender: Contender, relay: dict[str, Any], *what: str, place: str = "") -> Child:
        """The process of a contender for something; made when it is first wanted."""
        key = (contender.key, *what)
        if key not in self._children:
            self._children[key] = self._stack.enter_context(self._run.opened(contender, relay, place))
        return self._children[key]


def enqueue(run: Run) -> None:
    """Measure the way in: one mail in a transaction, and many."""
    single = Column("enqueue", "a mail a transaction", "mails/s")
    cpu = Column("enqueue", "the same, CPU", "us/mail", less_is_better=True)
    many = Column("enqueue", f"{run.scale.group} mails a transaction", "mails/s")
    relay = run.relay()
    with ExitStack() as stack:
        kept = Kept(run, stack)

        def once(contender: Contender, number: int) -> None:
            child = kept.child(contender, relay)
            if number == 0:  # what is loaded late, and made once
                child.ask("enqueue", first=run.numbers(10), transactions=10, mails=1, size=_SIZE)
            count, group = run.scale.transactions, run.scale.group
            answer = child.ask("enqueue", first=run.numbers(count), transactions=count, mails=1, size=_SIZE)
            run.found.add(single, contender.key, count / answer["seconds"])
            run.found.add(cpu, contender.key, answer["cpu"] / count * 1e6)
            answer = child.ask("enqueue", first=run.numbers(group), transactions=1, mails=group, size=_SIZE)
            run.found.add(many, contender.key, group / answer["seconds"])

        run.in_turn("enqueue", once)


def drain(run: Run) -> None:
    """Measure a full queue into a relay, through networks of several kinds."""
    for name, tls, delay in run.scale.networks:
        relay = run.relay(tls=tls, delay=delay)
        column = Column("drain", name, "mails/s")
        with ExitStack() as stack:
            _drain_through(run, Kept(run, stack), column, relay, delay)


def _drain_through(run: Run, kept: Kept, column: Column, relay: dict[str, Any], delay: float | None) -> None:
    def once(contender: Contender, number: int) -> None:
        child = kept.child(contender, relay)
        mails = _how_many(contender, run.scale, relay, delay)
        for count in [5, mails] if number == 0 else [mails]:  # the first few warm up
            child.ask("fill", first=run.numbers(count), mails=count, size=_SIZE)
            answer = child.ask("drain")
            taken = len({number for number, _ in run.arrivals(relay)})
            if taken != count:
                raise RuntimeError(f"{taken} of {count} mails arrived")
        run.found.add(column, contender.key, mails / answer["seconds"])

    run.in_turn("drain", once)


def _how_many(contender: Contender, scale: Scale, relay: dict[str, Any], delay: float | None) -> int:
    """So many mails that all take about as long, for a rate does not depend on it."""
    handshake = 0.02 if relay["login"] and contender.makes_a_connection_a_mail else 0.0
    each = max(0.0005, (contender.turns * (delay or 0.0) + handshake) / contender.connections)
    return min(scale.mails, max(10, int(scale.seconds / each)))


class _Moments:
    """Mails one by one, from ``commit()`` in one process to the relay, with the sender in another."""

    standing = Column("latency", "commit() - relay", "ms", less_is_better=True)
    cron = Column("latency", "start of its cron job - relay", "ms", less_is_better=True)

    def __init__(self, run: Run, stack: ExitStack) -> None:
        self._run, self._relay, self._kept = run, run.relay(), Kept(run, stack)
        self._places: dict[str, str] = {}

    def once(self, contender: Contender, number: int) -> None:
        """Send one mail."""
        place = self._places.setdefault(contender.key, self._run.field.place(contender))
        child = self._kept.child(contender, self._relay, place=place)
        if not contender.stands:
            mail, _ = self._commit(child)
            began = time.monotonic()
            with self._run.opened(contender, self._relay, place) as job:
                job.ask("drain")
            self._run.found.add(self.cron, contender.key, (self._arrived(mail) - began) * 1000)
            return
        if number == 0:
            sender = self._kept.child(contender, self._relay, "sender", place=place) if contender.has_queue else child
            sender.ask("stand")
            self._arrived(self._commit(child)[0])
        time.sleep(random.uniform(0.05, 0.3))
        mail, began = self._commit(child)
        self._run.found.add(self.standing, contender.key, (self._arrived(mail) - began) * 1000)

    def _commit(self, child: Child) -> tuple[int, float]:
        number = self._run.numbers(1)
        return number, float(child.ask("moment", number=number, size=_SIZE)["began"])

    def _arrived(self, number: int) -> float:
        self._run.sink.ask("until", port=self._relay["port"], mails=1, seconds=90.0)
        came = self._run.arrivals(self._relay)
        if [each for each, _ in came] != [number]:
            raise RuntimeError(f"the relay got {len(came)} mails where it should get one")
        return came[0][1]


def latency(run: Run) -> None:
    """Measure from ``commit()`` in one process to the relay, with the sender in another."""
    with ExitStack() as stack:
        run.in_turn("latency", _Moments(run, stack).once, run.scale.moments)


def depth(run: Run) -> None:
    """Measure a backlog: how soon a new process sends, how fast, and how much memory it takes."""
    for mails in run.scale.depths:
        _at_depth(run, mails)


def _at_depth(run: Run, mails: int) -> None:
    start, rate, memory = (
        Column("depth", f"{mails:,} wait: {name}", unit, less_is_better=unit != "mails/s")
        for name, unit in (("start - first mail", "s"), ("first seconds", "mails/s"), ("growth of the process", "MiB"))
    )
    relay, places, left = run.relay(), dict[str, str](), dict[str, int]()

    def once(contender: Contender, _: int) -> None:
        if left.get(contender.key, 0) < mails // 2:  # also if a quick one has sent all of them in a round before
            places[contender.key], left[contender.key] = run.field.place(contender), mails
            with run.opened(contender, relay, places[contender.key]) as child:
                child.ask("fill", first=run.numbers(mails), mails=mails, size=500)
        for lock in glob.glob(os.path.join(places[contender.key], "*.lock")):
            os.unlink(lock)  # django-mailer's stays when its process dies
        run.arrivals(relay)
        with run.opened(contender, relay, places[contender.key]) as child:
            before, began = status(child.pid, "VmRSS:"), time.monotonic()
            child.post("drain")
            run.sink.ask("until", port=relay["port"], mails=1, seconds=120.0)
            time.sleep(3.0)
            peak = status(child.pid, "VmHWM:")
            child.kill()
        times = [when for _, when in run.arrivals(relay)]
        if len(times) < 2:
            raise RuntimeError("no mail within 120 s")
        left[contender.key] -= len(times)
        run.found.add(start, contender.key, times[0] - began)
        run.found.add(rate, contender.key, (len(times) - 1) / (times[-1] - times[0]))
        run.found.add(memory, contender.key, max(0, peak - before) / _MEBI)

    run.in_turn("depth", once, min(2, run.scale.rounds))
    for place in places.values():
        shutil.rmtree(place, ignore_errors=True)


def processes(run: Run) -> None:
    """Measure several processes on one queue."""
    relay, mails = run.relay(), run.scale.mails

    def once(contender: Contender, _: int) -> None:
        for count in (1, 2, 4):
            place = run.field.place(contender)
            with ExitStack() as stack:
                several = 1 if contender.forks else count
                children = [stack.enter_context(run.opened(contender, relay, place)) for _ in range(several)]
                children[0].ask("fill", first=run.numbers(mails), mails=mails, size=_SIZE)
                run.arrivals(relay)
                began = time.monotonic()
                for child in children:
                    child.post("drain", processes=count if contender.forks else 1)
                for child in children:
                    child.answer()
            came = run.arrivals(relay)
            if len({each for each, _ in came}) != mails:
                raise RuntimeError(f"{len(came)} of {mails} mails arrived from {count} processes")
            column = Column("processes", f"{count} process{'es' if count > 1 else ''}", "mails/s")
            run.found.add(column, contender.key, mails / (max(when for _, when in came) - began))
            run.found.add(
                Column("processes", f"twice, {count}", "mails", less_is_better=True), contender.key, len(came) - mails
            )

    run.in_turn("processes", once)


def memory(run: Run) -> None:
    """Measure a message of 25 MiB on its way in and out: by how much the process grows."""
    into = Column("memory", "25 MiB: send and commit", "MiB", less_is_better=True)
    out = Column("memory", "25 MiB: from the queue to the relay", "MiB", less_is_better=True)
    relay = run.relay()

    def once(contender: Contender, _: int) -> None:
        place = run.field.place(contender)
        for name, column in (("enqueue", into), ("drain", out)):
            with run.opened(contender, relay, place) as child:
                way = {"first": run.numbers(1), "transactions": 1, "mails": 1, "size": 25 * _MEBI}
                answer = child.ask(name, **(way if name == "enqueue" else {}))
            run.found.add(column, contender.key, answer["growth"] / _MEBI)
        if len(run.arrivals(relay)) != 1:
            raise RuntimeError("the message did not arrive")

    run.in_turn("memory", once, 1)


def kill(run: Run) -> None:
    """Kill the sender with -9 again and again while it drains; count at the relay."""
    units = {
        "kills": "times",
        "lost": "mails",
        "twice": "mails",
        "still waiting": "mails",
        "last kill - last mail": "s",
    }
    kills, lost, twice, left, after = (Column("kill", name, unit, less_is_better=True) for name, unit in units.items())
    relay = run.relay()

    def once(contender: Contender, number: int) -> None:
        chance, place, mails = random.Random(number), run.field.place(contender), run.scale.mails
        run.arrivals(relay)
        count, ended = _kill_it(run, contender, relay, (place, mails), chance)
        done = _let_it_end(run, contender, relay, place, mails)
        came = run.arrivals(relay)
        numbers = {each for each, _ in came}
        run.found.add(kills, contender.key, count)
        run.found.add(lost, contender.key, max(0, mails - len(numbers) - done))
        run.found.add(twice, contender.key, len(came) - len(numbers))
        run.found.add(left, contender.key, min(done, mails - len(numbers)))
        if len(numbers) == mails:
            run.found.add(after, contender.key, max(0.0, max(when for _, when in came) - ended))

    run.in_turn("kill", once, 1)


def _kill_it(
    run: Run, contender: Contender, relay: dict[str, Any], queue: tuple[str, int], chance: random.Random
) -> tuple[int, float]:
    """Kill it as often as it goes on; return how often that was, and when it was done last."""
    place, mails = queue
    step, count, ended = mails / (run.scale.kills + 1), 0, time.monotonic()
    patience = run.scale.patience if contender.has_queue else 1.0
    for number in range(run.scale.kills):
        wanted = int(step * number + chance.random() * step)
        with run.opened(contender, relay, place) as child:
            if number == 0:
                child.ask("fill", first=run.numbers(mails), mails=mails, size=_SIZE)
            child.post("drain")
            came = run.sink.ask("until", port=relay["port"], mails=max(1, wanted), seconds=patience)["mails"]
            child.kill()
            if came < wanted:
                break
            count, ended = count + 1, time.monotonic()
    return count, ended


def _let_it_end(run: Run, contender: Contender, relay: dict[str, Any], place: str, mails: int) -> int:
    """Run it as cron would, until all mails have come or patience ends; return how many are left in its queue."""
    end = time.monotonic() + (run.scale.patience if contender.has_queue else 1.0)
    with run.opened(contender, relay, place) as child:
        while True:
            child.ask("drain")
            came = run.sink.ask("until", port=relay["port"], mails=mails, seconds=1.0)["mails"]
            if came == mails or time.monotonic() >= end:
                return int(child.ask("waiting")["mails"])


PARTS: dict[str, Callable[[Run], None]] = {
    "enqueue": enqueue,
    "drain": drain,
    "latency": latency,
    "depth": depth,
    "processes": processes,
    "memory": memory,
    "kill": kill,
}
