"""How fast a queue in PostgreSQL is, on a server of its own: ``.venv/bin/python benchmarks/postgresql.py [what ...]``.

Without a word it measures everything but the deep queue.  The server is in memory, and each of its commits waits for
``--disk`` milliseconds (commit_delay), as a disk in a data centre lets it wait; with ``--disk 0`` it is on the disk
that is there.  CPU for each mail, of our process and of the server, is steadier than a rate on a machine that others
use as well.  ``peers`` installs procrastinate and pgqueuer into environments of their own.
"""

from __future__ import annotations

import argparse
import contextlib
import glob
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

sys.path.insert(1, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "src"))

import peers
from releases import CACHE

from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.states import State
from zope.sendmail.mailer import SMTPMailer
from zope.sendmail.processor.thread import QueueProcessorThread
from zope.sendmail.queue import open_queue, put
from zope.sendmail.queue.postgresql.upkeep import migrate
from zope.sendmail.testing.contracts import envelope
from zope.sendmail.tests.support.postgresql import Server

MESSAGE = b"Message-Id: <1@example.org>\nSubject: x\n\n" + b"x" * 2000

_SENT = Record(State.SENT)

#: In which what is compared takes turns.
_ROUNDS = 5

_TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", choices=[*_PARTS, []])
    parser.add_argument("--mails", type=int, default=20_000)
    parser.add_argument(
        "--disk", type=float, default=1.0, help="milliseconds that each commit waits; 0: the disk's own"
    )
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--writer", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work_when_told(options.worker)
        return
    delay = {"commit_delay": int(options.disk * 1000), "commit_siblings": 0} if options.disk else {}
    place = "/dev/shm" if options.disk and os.path.isdir("/dev/shm") else tempfile.gettempdir()
    server = Server(place=place, fsync="on", full_page_writes="on", shared_buffers="512MB", max_wal_size="4GB", **delay)
    try:
        migrate(server.url())
        print(f"load {os.getloadavg()[0]:.1f} of {os.cpu_count()} CPUs", flush=True)
        for what in options.what or [name for name in _PARTS if name != "deep"]:
            _PARTS[what](server, options.mails)
    finally:
        server.stop()


def server_cpu(server: Server) -> float:
    """Return the seconds of CPU that the server and what it has started have used."""
    assert server.process is not None
    postmaster, total = server.process.pid, 0
    for path in glob.glob("/proc/[0-9]*/stat"):
        with contextlib.suppress(OSError), open(path, encoding="ascii", errors="replace") as file:
            pid, _, rest = file.read().partition(" ")
            fields = rest.rpartition(")")[2].split()
            if int(pid) == postmaster:
                total += sum(map(int, fields[11:15]))
            elif int(fields[1]) == postmaster:
                total += sum(map(int, fields[11:13]))
    return total / _TICKS


@contextlib.contextmanager
def measured(what: str, count: int, server: Server | None = None) -> Iterator[None]:
    """Print rate and CPU of this process, and of the server, for what the block does."""
    served = server_cpu(server) if server else 0.0
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    yield
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    more = f" + {(server_cpu(server) - served) / count * 1e6:>4.0f} server" if server else ""
    print(f"{what:<60} {count / seconds:>9,.0f}/s  {cpu / count * 1e6:>5.0f} us client{more}", flush=True)


# --- the way in -------------------------------------------------------------------------------------------------


def enqueue(server: Server, mails: int) -> None:
    """One mail a transaction, and many; our own connection, and the application's."""
    import psycopg

    from zope.sendmail.queue.postgresql.joining import PsycopgConnection

    queue = open_queue(server.url())
    count = min(mails, 500)
    with measured("own connection, a mail a transaction", count, server):
        for _ in range(count):
            put(queue, [envelope()], MESSAGE)
    for size in (1000, mails):
        with measured(f"own connection, {size:,} in a transaction (COPY)", size, server):
            put(queue, [envelope()] * size, MESSAGE)
        staged = queue.stage()
        with measured(f"own connection, {size:,} staged, prepared and revealed", size, server):
            for _ in range(size):
                staged.add(envelope(), MESSAGE)
            staged.prepare()
            staged.commit()
    connection = psycopg.connect(server.conninfo())
    joined = PsycopgConnection(connection)
    with measured("the application's connection, a mail a transaction", count, server):
        for _ in range(count):
            queue.stage_on(joined).add(envelope(), MESSAGE)
            connection.commit()
    connection.close()
    queue.close()


def writers(server: Server, mails: int) -> None:
    """Eight connections commit; with and without waking processors."""
    from zope.sendmail.queue.postgresql.wakeup import Announcer

    announce, count = Announcer.announce, min(mails, 8000) // 8
    rates: dict[str, list[float]] = {"told": [], "silent": []}
    for _ in range(3):
        for name, each in rates.items():
            Announcer.announce = announce if name == "told" else lambda *_: None  # type: ignore[method-assign]  # the comparison
            queue = open_queue(server.url())
            listening = open_queue(queue.location)
            listening.claim()
            began = time.perf_counter()
            in_threads(8, lambda queue=queue: [put(queue, [envelope()], MESSAGE) for _ in range(count)])
            each.append(8 * count / (time.perf_counter() - began))
            queue.close()
            listening.close()
    Announcer.announce = announce  # type: ignore[method-assign]  # as it was
    told, silent = statistics.median(rates["told"]), statistics.median(rates["silent"])
    print(
        f"8 writers, a mail a transaction: {told:,.0f}/s; {told / silent:.0%} of the rate without wake-up", flush=True
    )


def in_threads(count: int, work: Any) -> None:
    """Let threads do the same."""
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# --- the way out ------------------------------------------------------------------------------------------------


def fill(url: str, mails: int) -> None:
    """Put mails into a queue."""
    queue = open_queue(url)
    for _ in range(0, mails, 20_000):
        put(queue, [envelope()] * min(mails, 20_000), MESSAGE)
    queue.close()


def settled(server: Server) -> None:
    """Let vacuum have been there, as it has in a queue that is in use."""
    with server.connect() as connection:
        connection.execute("vacuum analyze zope_sendmail.mail")
        connection.execute("checkpoint")


def drain(url: str, workers: int = 16) -> int:
    """Claim, intend and settle until nothing is left; return how many it were."""
    queue = open_queue(url)
    counts = []

    def work() -> None:
        count = 0
        while leases := queue.claim(1, ahead=64):
            [lease] = leases
            lease.open().read()
            lease.intend()
            lease.settle(_SENT)
            count += 1
        counts.append(count)

    in_threads(workers, work)
    queue.close()
    return sum(counts)


def work_when_told(url: str) -> None:
    """Be one of several processes that drain a queue."""
    warm = open_queue(f"{url}warm")
    warm.claim()
    print("ready", flush=True)
    sys.stdin.readline()
    drain(url)
    warm.close()


def drains(server: Server, mails: int) -> None:
    """One process with one worker and with 16."""
    for workers in (1, 16):
        url = server.url()
        fill(url, mails)
        settled(server)
        with measured(f"claim, intend, settle: one process, {workers} workers", mails, server):
            drain(url, workers)


def processes(server: Server, mails: int) -> None:
    """One to eight processes with 16 workers each."""
    first = 0.0
    for count in (1, 2, 4, 8):
        url = server.url()
        fill(url, mails * 2)
        settled(server)
        words = [sys.executable, __file__, "--worker", url]
        started = [
            subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(count)
        ]
        for process in started:
            assert process.stdout is not None
            process.stdout.readline()
        served, children, began = server_cpu(server), resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        for process in started:
            process.communicate("\n")
        seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        each = 1e6 / (2 * mails)
        cpu = (after.ru_utime + after.ru_stime - children.ru_utime - children.ru_stime) * each
        first = first or 2 * mails / seconds
        print(
            f"claim, intend, settle: {count} processes, 16 workers each {2 * mails / seconds:>9,.0f}/s "
            f"({2 * mails / seconds / first:.2f} times one)  {cpu:>5.0f} us client (with start) + "
            f"{(server_cpu(server) - served) * each:>4.0f} server",
            flush=True,
        )


def relay(server: Server, mails: int) -> None:
    """A drain into a fast relay, of directories and of a database, in turn; with the CPU that it costs."""
    from serve import Child

    with Child([sys.executable], "sink.py") as sink, tempfile.TemporaryDirectory() as directory:
        port = sink.ask("start")["port"]
        kinds = ("a transaction in a directory", "single files", "a database")
        found: dict[str, list[tuple[float, ...]]] = {kind: [] for kind in kinds}
        for number in range(3):
            for kind, each in found.items():
                location = server.url() if kind == "a database" else f"{directory}/{kind[0]}{number}"
                if kind == "single files":
                    fill_one_by_one(location, mails // 4)
                else:
                    fill(location, mails // 4)
                settled(server)
                mailer = SMTPMailer("127.0.0.1", port, no_tls=True)
                processor = QueueProcessorThread(queue=open_queue(location), mailer=mailer)
                each.append(cost(server, mails // 4, lambda processor=processor: processor.run(forever=False)))
    first = statistics.median(rate for rate, _, _ in found[kinds[0]])
    for kind, each in found.items():
        rate, client, served = map(statistics.median, zip(*each, strict=True))
        print(
            f"into a fast relay, {kind}: {rate:,.0f}/s ({rate / first:.2f} times), "
            f"{client:.0f} us client + {served:.0f} server",
            flush=True,
        )


def fill_one_by_one(location: str, mails: int) -> None:
    """Put mails into a queue, each in a transaction of its own."""
    queue = open_queue(location)
    for _ in range(mails):
        put(queue, [envelope()], MESSAGE)
    queue.close()


def cost(server: Server, count: int, work: Callable[[], object]) -> tuple[float, float, float]:
    """Return mails a second, and the microseconds of CPU of this process and of the server for each."""
    served, cpu, began = server_cpu(server), time.process_time(), time.perf_counter()
    work()
    seconds, used = time.perf_counter() - began, time.process_time() - cpu
    return count / seconds, used / count * 1e6, (server_cpu(server) - served) / count * 1e6


def wakeup(server: Server, _: int) -> None:
    """From the end of a commit in one queue object until a claim in another has the mail."""
    url = server.url()
    queue, other = open_queue(url), open_queue(url)
    times = []
    for _ in range(100):
        while queue.claim(99):
            pass
        committed = []

        def commit(committed: list[float] = committed) -> None:
            put(other, [envelope()], MESSAGE)
            committed.append(time.perf_counter())

        timer = threading.Timer(0.05, commit)
        timer.start()
        while not (leases := queue.claim()):
            queue.wait(10.0)
        now = time.perf_counter()
        leases[0].intend()
        leases[0].settle(_SENT)
        timer.join()
        times.append(max(0.0, now - committed[0]))
    ordered = sorted(times)
    queue.close()
    other.close()
    print(f"wake-up: median {statistics.median(times) * 1000:.1f} ms, p95 {ordered[94] * 1000:.1f} ms", flush=True)


# --- deep queues, large mail ------------------------------------------------------------------------------------


def claims(server: Server, mails: int) -> None:
    """A claim of 64 in a queue of `mails`, and with a snapshot elsewhere that keeps what has gone; looking at it."""
    import psycopg

    url = server.url()
    fill(url, mails)
    settled(server)
    queue = open_queue(url)
    queue.claim()

    def claim_some(rounds: int) -> float:
        times = []
        for _ in range(rounds):
            began = time.perf_counter()
            leases = queue.claim(64)
            times.append(time.perf_counter() - began)
            for lease in leases:
                lease.settle(_SENT)
        return statistics.median(times) * 1000

    before = claim_some(30)
    print(f"claim of 64, {mails:,} queued: median {before:.1f} ms", flush=True)
    with psycopg.connect(server.conninfo()) as pinning:
        pinning.execute("begin isolation level repeatable read")
        pinning.execute("select count(*) from zope_sendmail.mail")
        rounds = min(200, mails // 128)
        claim_some(rounds)
        after = claim_some(30)
        gone = rounds * 64
        print(
            f"claim of 64 beside a snapshot that keeps {gone:,} gone mails: {after:.1f} ms, {after / before:.2f} times"
        )
    look_at(queue)
    queue.close()


def look_at(queue: Any) -> None:
    """What operators see, and how long that takes."""
    for name, look in (
        ("count", queue.admin.count),
        ("a page of the list", lambda: next(iter(queue.admin.mails()))),
        ("doctor", lambda: list(queue.admin.examine())),
    ):
        began = time.perf_counter()
        look()
        print(f"{name}: {(time.perf_counter() - began) * 1000:.0f} ms", flush=True)


def deep(server: Server, _: int) -> None:
    """The same with 400,000."""
    claims(server, 400_000)


def large(server: Server, _: int) -> None:
    """Eight mails of 25 MiB in one transaction, then out again: what they cost beside the application's own bytes."""
    queue = open_queue(server.url())
    message = b"Subject: large\n\n" + bytes(25 * 1024 * 1024)
    put(queue, [envelope()], MESSAGE)
    queue.claim()[0].settle(_SENT)
    tracemalloc.start()
    put(queue, [envelope()] * 8, memoryview(message))
    peak_in = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    for lease in queue.claim(8):
        with lease.open() as stream:
            while stream.read(65536):
                pass
        lease.settle(_SENT)
    peak_out = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    queue.close()
    print(f"8 mails of 25 MiB: {peak_in / 2**20:.1f} MiB on their way in, {peak_out / 2**20:.1f} MiB out", flush=True)


def others(server: Server, mails: int) -> None:
    """What others do with jobs of the same size, on the same server, in turn with ours."""
    for line in peers.measure(server, server_cpu, mails // 4, _ROUNDS, CACHE):
        print(line, flush=True)


_PARTS = {
    "enqueue": enqueue,
    "writers": writers,
    "drain": drains,
    "processes": processes,
    "relay": relay,
    "wakeup": wakeup,
    "claims": claims,
    "large": large,
    "deep": deep,
    "peers": others,
}


if __name__ == "__main__":
    main()
