"""How fast a queue in PostgreSQL is, on a server of its own: ``.venv/bin/python benchmarks/postgresql.py [what ...]``.

``enqueue``, ``drain``, ``wakeup``, ``claims`` or all of them.  The server syncs as it does by default; ``--disk MS``
makes each of its commits wait for so long besides, as a disk in a data centre does (commit_delay).  CPU per mail is
steadier than rates on a machine that others use as well.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "src"))

from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.states import State
from zope.sendmail.queue import open_queue, put
from zope.sendmail.queue.postgresql.upkeep import migrate
from zope.sendmail.testing.contracts import envelope
from zope.sendmail.tests.support.postgresql import Server

MESSAGE = b"Message-Id: <1@example.org>\nSubject: x\n\n" + b"x" * 2000

_SENT = Record(State.SENT)


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", choices=["enqueue", "drain", "wakeup", "claims", []])
    parser.add_argument("--mails", type=int, default=20_000)
    parser.add_argument("--disk", type=float, default=1.0, help="milliseconds that each commit waits besides")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        drain(options.worker)
        return
    delay = int(options.disk * 1000)
    server = Server(fsync="on", full_page_writes="on", commit_delay=delay, commit_siblings=0, shared_buffers="256MB")
    try:
        migrate(server.url())
        for what in options.what or ("enqueue", "drain", "wakeup", "claims"):
            {"enqueue": enqueue, "drain": drains, "wakeup": wakeup, "claims": claims}[what](server, options.mails)
    finally:
        server.stop()


@contextlib.contextmanager
def measured(what: str, count: int) -> Iterator[None]:
    """Print rate and CPU of this process for what the block does."""
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    yield
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    print(f"{what:<58} {count / seconds:>9,.0f}/s  {cpu / count * 1e6:>6.0f} us client CPU each", flush=True)


def enqueue(server: Server, mails: int) -> None:
    """One mail a transaction, and many; our own connection, and the application's."""
    import psycopg

    from zope.sendmail.queue.postgresql.joining import PsycopgConnection

    queue = open_queue(server.url())
    count = min(mails, 500)
    with measured("own connection, a mail a transaction", count):
        for _ in range(count):
            put(queue, [envelope()], MESSAGE)
    for size in (1000, mails):
        staged = queue.stage()
        for _ in range(size):
            staged.add(envelope(), MESSAGE)
        with measured(f"own connection, {size:,} in a transaction: the vote (COPY)", size):
            staged.prepare()
        with measured(f"own connection, {size:,} in a transaction: the reveal", size):
            staged.commit()
    connection = psycopg.connect(server.conninfo())
    joined = PsycopgConnection(connection)
    with measured("the application's connection, a mail a transaction", count):
        for _ in range(count):
            queue.stage_on(joined).add(envelope(), MESSAGE)
            connection.commit()
    with measured("8 threads, own connection, a mail a transaction", 8 * count // 2):
        threads = [
            threading.Thread(target=lambda: [put(queue, [envelope()], MESSAGE) for _ in range(count // 2)])
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    connection.close()
    queue.close()


def fill(url: str, mails: int) -> None:
    """Put mails into a queue."""
    queue = open_queue(url)
    put(queue, [envelope()] * mails, MESSAGE)
    queue.close()


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

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    queue.close()
    return sum(counts)


def drains(server: Server, mails: int) -> None:
    """One process with one worker and with 16; two and four processes with 16 each."""
    for workers in (1, 16):
        url = server.url()
        fill(url, mails)
        with measured(f"claim, intend, settle: one process, {workers} workers", mails):
            drain(url, workers)
    for processes in (2, 4):
        url = server.url()
        fill(url, mails)
        words = [sys.executable, __file__, "--worker", url]
        with measured(f"claim, intend, settle: {processes} processes, 16 workers each, with their start", mails):
            started = [subprocess.Popen(words) for _ in range(processes)]
            for process in started:
                process.wait()


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

        threading.Timer(0.05, commit).start()
        while not (leases := queue.claim()):
            queue.wait(10.0)
        now = time.perf_counter()
        leases[0].intend()
        leases[0].settle(_SENT)
        times.append(now - (committed[0] if committed else now))
    ordered = sorted(times)
    queue.close()
    other.close()
    print(f"wake-up: median {statistics.median(times) * 1000:.1f} ms, p95 {ordered[94] * 1000:.1f} ms", flush=True)


def claims(server: Server, mails: int) -> None:
    """A claim of 64 in a queue of `mails`, and with a snapshot elsewhere that keeps what has gone."""
    import psycopg

    url = server.url()
    fill(url, mails)
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

    print(f"claim of 64, {mails:,} queued: median {claim_some(30):.1f} ms", flush=True)
    with psycopg.connect(server.conninfo()) as pinning:
        pinning.execute("begin isolation level repeatable read")
        pinning.execute("select count(*) from zope_sendmail.mail")
        claim_some(100)
        print(f"claim of 64 beside a snapshot that keeps 6,400 gone mails: median {claim_some(30):.1f} ms", flush=True)
    began = time.perf_counter()
    queue.admin.count()
    print(f"count: {(time.perf_counter() - began) * 1000:.0f} ms", flush=True)
    queue.close()


if __name__ == "__main__":
    main()
