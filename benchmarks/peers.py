"""Queues of others in PostgreSQL: fetch a job, mark it as done, for the figures beside ours.

procrastinate and pgqueuer through their own classes, one process each; river, which is written in Go, by SQL of ours
that does as its documentation says: rows locked with ``skip locked``, state ``running``, done in batches.  What is not
installed is left out.
"""

from __future__ import annotations

import asyncio
import importlib.util
import time
import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg

_PAYLOAD = "x" * 2048

_BATCH = 64


def measure(conninfo: str, jobs: int) -> Iterator[tuple[str, int, float]]:
    """Yield what was measured: whose it is, how many jobs, seconds."""
    yield "river's way: claim and complete by 64", jobs, _river(conninfo, jobs)
    if importlib.util.find_spec("pgqueuer"):
        yield "pgqueuer: dequeue and log by 64", jobs, asyncio.run(_pgqueuer(conninfo, jobs))
    if importlib.util.find_spec("procrastinate"):
        few = min(jobs, 3000)
        yield "procrastinate: fetch and finish each", few, asyncio.run(_procrastinate(conninfo, few))


def _river(conninfo: str, jobs: int) -> float:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(
            "create table river_like (id bigint generated always as identity primary key, state text not null default"
            " 'available', priority smallint not null default 1, scheduled_at timestamptz not null default now(), args"
            " jsonb not null, attempt smallint not null default 0, attempted_at timestamptz, finalized_at timestamptz)"
        )
        connection.execute("create index on river_like (state, priority, scheduled_at, id)")
        connection.execute(
            "insert into river_like (args) select jsonb_build_object('a', %s::text) from generate_series(1, %s)",
            [_PAYLOAD, jobs],
        )
        connection.execute("vacuum analyze river_like")
        connection.prepare_threshold = 0
        began, done = time.perf_counter(), 0
        while done < jobs:
            rows = connection.execute(
                "with due as (select id from river_like where state = 'available' and scheduled_at <= now() order by"
                " priority, scheduled_at, id limit %s for update skip locked) update river_like j set state ="
                " 'running', attempt = attempt + 1, attempted_at = now() from due where j.id = due.id returning j.id,"
                " j.args",
                [_BATCH],
            ).fetchall()
            connection.execute(
                "update river_like set state = 'completed', finalized_at = now() where id = any(%s)",
                [[row[0] for row in rows]],
            )
            done += len(rows)
        seconds = time.perf_counter() - began
        connection.execute("drop table river_like")
        return seconds


async def _pgqueuer(conninfo: str, jobs: int) -> float:
    from pgqueuer.db import PsycopgDriver
    from pgqueuer.queries import EntrypointExecutionParameter, Queries

    connection = await psycopg.AsyncConnection.connect(conninfo, autocommit=True)
    async with connection:
        queries: Any = Queries(PsycopgDriver(connection))
        await queries.install()
        for start in range(0, jobs, 1000):
            count = min(1000, jobs - start)
            await queries.enqueue(["mail"] * count, [_PAYLOAD.encode()] * count, [0] * count)
        points, manager = {"mail": EntrypointExecutionParameter(concurrency_limit=0)}, uuid.uuid4()
        began, done = time.perf_counter(), 0
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
        seconds = time.perf_counter() - began
        await queries.uninstall()
        return seconds


async def _procrastinate(conninfo: str, jobs: int) -> float:
    import procrastinate
    from procrastinate import jobs as kinds, manager

    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=conninfo))

    @app.task(name="mail", queue="mail")
    def send(text: str) -> None:
        """Nothing."""

    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        await send.batch_defer_async(*({"text": _PAYLOAD} for _ in range(jobs)))
        jobs_of: Any = manager.JobManager(app.connector)
        worker = await jobs_of.register_worker()
        began = time.perf_counter()
        while (job := await jobs_of.fetch_job(queues=["mail"], worker_id=worker)) is not None:
            await jobs_of.finish_job(job, kinds.Status.SUCCEEDED, delete_job=True)
        return time.perf_counter() - began
