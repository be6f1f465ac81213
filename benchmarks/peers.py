"""Queues of others in PostgreSQL beside ours, on one server, in turn: rates, CPU, and ratios round by round.

Each package is installed from the package index, in a pinned version, into an environment of its own in the user's
cache directory.  One that cannot be had is named and left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from figures import Spread
from releases import NotInstalled, Ours, environment
from serve import Child

from zope.sendmail.tests.support.postgresql import Server

_PSYCOPG = "psycopg[binary]==3.3.9"


@dataclass(frozen=True)
class Peer:
    """A queue; `share` of the jobs are given to one that is slow."""

    kind: str
    name: str
    requirements: tuple[str, ...] = ()
    share: float = 1.0


_PEERS = (
    Peer("ours-16", "ours: claim, a word before each mail, settle; 16 workers"),
    Peer("ours-1", "ours, one worker", share=0.25),
    Peer("ours-batch", "ours: claim and settle by 64, no word before each mail"),
    Peer("river", "river's way: claim and complete by 64"),
    Peer("pgqueuer", "pgqueuer 1.6.0: dequeue and log by 64", ("pgqueuer==1.6.0", _PSYCOPG)),
    Peer("procrastinate", "procrastinate 3.10.0: fetch, finish each", ("procrastinate==3.10.0", _PSYCOPG), 0.1),
)


@dataclass
class _Found:
    """What the rounds of one peer gave: mails a second, and microseconds of CPU a mail."""

    rates: list[float] = field(default_factory=list)
    client: list[float] = field(default_factory=list)
    server: list[float] = field(default_factory=list)


def measure(
    server: Server, server_cpu: Callable[[Server], float], jobs: int, rounds: int, cache: Path
) -> Iterator[str]:
    """Yield the lines of a table: medians, the middle half of the rates, and the rate to ours, round by round."""
    with ExitStack() as stack:
        children: dict[Peer, Child] = {}
        for peer in _PEERS:
            try:
                children[peer] = stack.enter_context(_child(peer, cache))
            except NotInstalled as error:
                yield f"{peer.name} is left out, pip says: {str(error).strip().splitlines()[-1]}"
        found = {peer: _Found() for peer in children}
        for turn in range(rounds + 1):
            for peer, child in children.items():
                one = _round(child, peer, server, server_cpu, max(1, int(jobs * peer.share)))
                if turn:  # the first one made tables and warmed up
                    for values, value in zip(
                        (found[peer].rates, found[peer].client, found[peer].server), one, strict=True
                    ):
                        values.append(value)
        ours = next(iter(found.values())).rates
        for peer, each in found.items():
            ratio = Spread.of([rate / first for rate, first in zip(each.rates, ours, strict=True)])
            client, served = Spread.of(each.client).median, Spread.of(each.server).median
            cpu = f"{client:.0f} us client + {served:.0f} server"
            yield f"{peer.name:<60} {Spread.of(each.rates)}/s  {ratio} of ours  {cpu}"


def _child(peer: Peer, cache: Path) -> Child:
    if not peer.requirements:
        return Ours().child("peer_postgresql.py")
    return Child([str(environment(peer.requirements, cache))], "peer_postgresql.py")


def _round(
    child: Child, peer: Peer, server: Server, server_cpu: Callable[[Server], float], jobs: int
) -> tuple[float, float, float]:
    place = server.url(peer.kind) if peer.kind.startswith("ours") else server.conninfo()
    asked: dict[str, Any] = {"kind": peer.kind, "place": place, "jobs": jobs}
    child.ask("fill", **asked)
    with server.connect() as connection:  # as autovacuum does in a queue that is in use
        connection.execute("vacuum analyze")
    served = server_cpu(server)
    answer = child.ask("drain", **asked)
    return jobs / answer["seconds"], answer["cpu"] / jobs * 1e6, (server_cpu(server) - served) / jobs * 1e6
