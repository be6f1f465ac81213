"""What is unknown after a processor of a queue in PostgreSQL was killed, and how fast it was.

Starts a processor that drains a queue into a relay on the same machine, kills it with ``kill -9`` in the middle, and
reads what the database knows: mails of which it is not known whether they were sent, how many of these the relay has,
and how many the relay has that are not even known to be unknown (there should be none, ever).  Several source trees
take turns: ``python benchmarks/kills.py --tree before=../old/src --tree after=src``.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
from typing import Any, NamedTuple

if len(sys.argv) > 1 or sys.stdin.isatty():
    sys.path.insert(1, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "src"))

from serve import Child, serve

#: Which mails are left, and how far it is known to have come with each: 2 it may have been sent, 3 the relay has it.
_KNOWN = """
select m.message_id, coalesce((select a.phase from zope_sendmail.attempt a
    where a.processor = m.owner and a.mail = m.id and a.lease = m.lease), 0)
from zope_sendmail.mail m
"""


_INTENDED = 2


class Death(NamedTuple):
    """What a kill has left."""

    rate: float
    unknown: int
    sent: int
    without_a_record: int
    #: Taken for sent, and was not.
    lost: int
    connections: int


def main() -> None:
    """Kill processors, and print what they leave."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tree", action="append", metavar="NAME=SRC", help="source trees that take turns")
    parser.add_argument("--kills", type=int, default=6, help="of each")
    parser.add_argument("--delay", type=float, help="milliseconds of a line before the relay")
    parser.add_argument("--mails", type=int, default=4000)
    parser.add_argument("--disk", type=float, default=1.0, help="milliseconds that each commit waits")
    options = parser.parse_args()
    from zope.sendmail.queue.postgresql.upkeep import migrate
    from zope.sendmail.tests.support.postgresql import Server

    trees = dict(each.split("=", 1) for each in options.tree or ["this=src"])
    delay = {"commit_delay": int(options.disk * 1000), "commit_siblings": 0} if options.disk else {}
    place = "/dev/shm" if os.path.isdir("/dev/shm") else tempfile.gettempdir()
    server = Server(place=place, fsync="on", full_page_writes="on", shared_buffers="512MB", max_wal_size="4GB", **delay)
    try:
        migrate(server.url())
        found: dict[str, list[Death]] = {name: [] for name in trees}
        seconds = None if options.delay is None else options.delay / 1000
        with Child([sys.executable], "sink.py") as sink:
            port = sink.ask("start", notes=True, delay=seconds)["port"]
            for _ in range(options.kills):
                for name, path in trees.items():
                    found[name].append(one(server, sink, port, path, options.mails))
        tell(found)
    finally:
        server.stop()


def tell(found: dict[str, list[Death]]) -> None:
    """Print what was found of each tree."""
    print(f"load {os.getloadavg()[0]:.1f} of {os.cpu_count()} CPUs; mean (each)")
    for name, deaths in found.items():
        rates = sorted(death.rate for death in deaths)
        print(
            f"{name:<24} {statistics.median(rates):>6,.0f} mails/s (best {rates[-1]:,.0f})  "
            f"unknown {of(deaths, 1)}  of these sent {of(deaths, 2)}  without a record {of(deaths, 3)}  "
            f"lost {of(deaths, 4)}  connections {of(deaths, 5)}",
            flush=True,
        )


def of(deaths: list[Death], field: int) -> str:
    """Return a mean, and each."""
    values = [death[field] for death in deaths]
    return f"{statistics.mean(values):.1f} ({' '.join(map(str, values))})"


def one(server: Any, sink: Child, port: int, path: str, mails: int) -> Death:
    """Drain, kill, and count."""
    with server.connect() as connection:
        connection.execute(
            "truncate zope_sendmail.mail, zope_sendmail.body, zope_sendmail.processor, zope_sendmail.attempt"
        )
    location = server.url()  # of a queue of its own
    fill(location, mails)
    sink.ask("arrivals", port=port)
    sink.ask("count", port=port)
    with Child([sys.executable], "kills.py", os.path.abspath(path)) as processor:
        processor.post("drain", location=location, port=port)
        sink.ask("until", port=port, mails=random.randrange(mails // 3, mails * 4 // 5), seconds=60.0)
        processor.kill()
    sink.ask("until", port=port, mails=10**9, seconds=0.3)  # what is under way
    arrivals = sink.ask("arrivals", port=port)["arrivals"]
    numbers, times = {number for number, _ in arrivals}, sorted(at for _, at in arrivals)
    steady = times[len(times) // 4 :]
    with server.connect() as connection:
        left = {int(name.partition("@")[0]): phase for name, phase in connection.execute(_KNOWN)}
    return Death(
        (len(steady) - 1) / (steady[-1] - steady[0]),
        sum(phase == _INTENDED for phase in left.values()),
        sum(phase == _INTENDED for number, phase in left.items() if number in numbers),
        sum(phase < _INTENDED for number, phase in left.items() if number in numbers),
        sum(phase > _INTENDED for number, phase in left.items() if number not in numbers),
        sink.ask("count", port=port)["connections"],
    )


def fill(location: str, mails: int) -> None:
    """Put mails with numbers into a queue."""
    from zope.sendmail.queue import open_queue
    from zope.sendmail.testing.contracts import envelope

    queue = open_queue(location)
    staged = queue.stage()
    for number in range(1, mails + 1):
        head = f"Message-Id: <{number}@example.org>\nX-Number: {number}\nSubject: x\n\n"
        staged.add(envelope(), head.encode() + b"x" * 2000)
    staged.prepare()
    staged.commit()
    queue.close()


def drain(location: str, port: int) -> dict[str, Any]:
    """Drain a queue until this process ends."""
    from zope.sendmail.mailer import SMTPMailer
    from zope.sendmail.processor.thread import QueueProcessorThread
    from zope.sendmail.queue import open_queue

    mailer = SMTPMailer("127.0.0.1", port, no_tls=True)
    QueueProcessorThread(queue=open_queue(location), mailer=mailer).run(forever=True)
    return {}


if __name__ == "__main__":
    if sys.stdin.isatty() or len(sys.argv) > 1:
        main()
    else:
        serve({"drain": drain})
