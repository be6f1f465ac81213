"""A queue in PostgreSQL, ours or another one's, in a process of its own: filled, then drained against the clock.

procrastinate and pgqueuer through their own classes; river, which is written in Go, by SQL of ours that does as its
documentation says: rows locked with ``skip locked``, state ``running``, done in batches.  All have the same octets, and
none does anything with them.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import threading
import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg
from serve import serve

_MESSAGE = "Message-Id: <1@example.org>\nSubject: x\n\n" + "x" * 2000

_BATCH = 64


def main() -> None:
    """Do what the benchmark asks for."""
    serve({"fill": fill, "drain": drain})


def fill(kind: str, place: str, jobs: int) -> dict[str, Any]:
    """Put jobs into a queue, a thousand at a time."""
    _KINDS[kind][0](place, jobs)
    return {}


def drain(kind: str, place: str, jobs: int) -> dict[str, Any]:
    """Take all out again; return the seconds that this took, and the CPU of this process."""
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    _KINDS[kind][1](place, jobs)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return {"seconds": seconds, "cpu": cpu}


# --- ours ---------------------------------------------------------------------------------------------------------


def _fill_ours(place: str, jobs: int) -> None:
    from zope.sendmail.queue import open_queue, put
    from zope.sendmail.testing.contracts import envelope

    queue = open_queue(place)
    for start in range(0, jobs, 1000):
        put(queue, [envelope()] * min(1000, jobs - start), _MESSAGE.encode())
    queue.close()


def _drain_ours(workers: int) -> Callable[[str, int], None]:
    """With a durable word that a mail goes, before it goes."""

    def work(place: str, _: int) -> None:
        from zope.sendmail.lifecycle.record import Record
        from zope.sendmail.lifecycle.states import State
        from zope.sendmail.queue import open_queue

        queue, sent = open_queue(place), Record(State.SENT)

        def one() -> None:
            while leases := queue.claim(1, ahead=_BATCH):
                leases[0].open().read()
                leases[0].intend()
                leases[0].settle(sent)

        threads = [threading.Thread(target=one) for _ in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        queue.close()

    return work


def _drain_ours_by_batches(place: str, _: int) -> None:
    """As others do: claimed together, done together, and no word before each mail."""
    from zope.sendmail.lifecycle.record import Record
    from zope.sendmail.lifecycle.states import State
    from zope.sendmail.queue import open_queue

    queue, sent = open_queue(place), Record(State.SENT)
    while leases := queue.claim(_BATCH, ahead=_BATCH):
        for lease in leases:
            lease.settle(sent)
    queue.close()


# --- river --------------------------------------------------------------------------------------------------------

_TABLE = (
    "create table river_like (id bigint generated always as identity primary key, state text not null default"
    " 'available', priority smallint not null default 1, scheduled_at timestamptz not null default now(), args"
    " jsonb not null, attempt smallint not null default 0, attempted_at timestamptz, finalized_at timestamptz)"
)

_FETCH = (
    "with due as (select id from river_like where state = 'available' and scheduled_at <= now() order by"
    " priority, scheduled_at, id limit %s for update skip locked) update river_like j set state = 'running',"
    " attempt = attempt + 1, attempted_at = now() from due where j.id = due.id returning j.id, j.args"
)

_DONE = "update river_like set state = 'completed', finalized_at = now() where id = any(%s)"


def _fill_river(place: str, jobs: int) -> None:
    with psycopg.connect(place, autocommit=True) as connection:
        connection.execute("drop table if exists river_like")
        connection.execute(_TABLE)
        connection.execute("create index on river_like (state, priority, scheduled_at, id)")
        connection.execute(
            "insert into river_like (args) select jsonb_build_object('a', %s::text) from generate_series(1, %s)",
            [_MESSAGE, jobs],
        )


def _drain_river(place: str, jobs: int) -> None:
    done = 0
    with psycopg.connect(place, autocommit=True) as connection:
        connection.prepare_threshold = 0
        while done < jobs:
            rows = connection.execute(_FETCH, [_BATCH], binary=True).fetchall()
            connection.execute(_DONE, [[row[0] for row in rows]])
            done += len(rows)


# --- pgqueuer -----------------------------------------------------------------------------------------------------


def _fill_pgqueuer(place: str, jobs: int) -> None:
    async def fill() -> None:
        async with await psycopg.AsyncConnection.connect(place, autocommit=True) as connection:
            queries = _queries(connection)
            if not await queries.has_table(queries.qbe.settings.queue_table):
                await queries.install()
            for start in range(0, jobs, 1000):
                count = min(1000, jobs - start)
                await queries.enqueue(["mail"] * count, [_MESSAGE.encode()] * count, [0] * count)

    asyncio.run(fill())


def _drain_pgqueuer(place: str, jobs: int) -> None:
    from pgqueuer.queries import EntrypointExecutionParameter

    async def drain() -> None:
        points, manager, done = {"mail": EntrypointExecutionParameter(concurrency_limit=0)}, uuid.uuid4(), 0
        async with await psycopg.AsyncConnection.connect(place, autocommit=True) as connection:
            queries = _queries(connection)
            while done < jobs:
                found = await queries.dequeue(
                    batch_size=_BATCH,
                    entrypoints=points,
                    queue_manager_id=manager,
                    global_concurrency_limit=None,
                    heartbeat_timeout=timedelta(seconds=30),
                )
                await queries.log_jobs([(job, "successful", None) for job in found])
                done += len(found)

    asyncio.run(drain())


def _queries(connection: Any) -> Any:
    from pgqueuer.db import PsycopgDriver
    from pgqueuer.queries import Queries

    return Queries(PsycopgDriver(connection))


# --- procrastinate ------------------------------------------------------------------------------------------------


def _app(place: str) -> tuple[Any, Any]:
    import procrastinate

    logging.getLogger("procrastinate").setLevel(logging.ERROR)
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=place))

    @app.task(name="mail", queue="mail")
    def send(text: str) -> None:
        """Nothing."""

    return app, send


def _fill_procrastinate(place: str, jobs: int) -> None:
    async def fill() -> None:
        app, send = _app(place)
        async with app.open_async():
            with psycopg.connect(place) as connection:
                [(table,)] = connection.execute("select to_regclass('procrastinate_jobs')").fetchall()
            if table is None:
                await app.schema_manager.apply_schema_async()
            await send.batch_defer_async(*({"text": _MESSAGE} for _ in range(jobs)))

    asyncio.run(fill())


def _drain_procrastinate(place: str, _: int) -> None:
    from procrastinate import jobs as kinds, manager

    async def drain() -> None:
        app, _ = _app(place)
        async with app.open_async():
            jobs_of: Any = manager.JobManager(app.connector)
            worker = await jobs_of.register_worker()
            while (job := await jobs_of.fetch_job(queues=["mail"], worker_id=worker)) is not None:
                await jobs_of.finish_job(job, kinds.Status.SUCCEEDED, delete_job=True)

    asyncio.run(drain())


_KINDS: dict[str, tuple[Callable[[str, int], None], Callable[[str, int], None]]] = {
    "ours-16": (_fill_ours, _drain_ours(16)),
    "ours-1": (_fill_ours, _drain_ours(1)),
    "ours-batch": (_fill_ours, _drain_ours_by_batches),
    "river": (_fill_river, _drain_river),
    "pgqueuer": (_fill_pgqueuer, _drain_pgqueuer),
    "procrastinate": (_fill_procrastinate, _drain_procrastinate),
}


if __name__ == "__main__":
    main()
