"""The senders that are compared: this release, what others use in its place, and the bare conversation without a queue.

Each package is installed from the package index, in a pinned version, into an environment of its own in the user's
cache directory.  One that cannot be had is named and left out.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import SkipTest

from releases import NotInstalled, Ours, environment
from serve import Child

from zope.sendmail.tests.support.postgresql import Server

ALL = frozenset({"enqueue", "drain", "latency", "depth", "processes", "memory", "kill"})
_DJANGO = ("Django==5.2.19", "psycopg[binary]==3.3.9")


@dataclass(frozen=True)
class Contender:
    """One measured sender.

    `connections` and `turns` (round trips a mail) say how long a network with a delay will take, so that all are given
    about as long; `stands` whether a process of its own waits for mail, else cron starts it.
    """

    key: str
    name: str
    program: str
    keeps: str
    requirements: Sequence[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    app: str = ""
    connections: int = 1
    turns: int = 4
    parts: frozenset[str] = ALL
    stands: bool = True
    has_queue: bool = True
    forks: bool = False

    @property
    def makes_a_connection_a_mail(self) -> bool:
        """Whether each mail costs a handshake."""
        return self.turns > 5


OURS = Contender(
    "ours", "zope.sendmail 8", "peer_zope.py", "transactional; synced to disk before commit() returns",
    connections=20, turns=1,
)  # fmt: skip

CONTENDERS = (
    OURS,
    Contender(
        "ours-1", "zope.sendmail 8, concurrency=1", "peer_zope.py", OURS.keeps, settings={"concurrency": 1}, turns=1,
        parts=frozenset({"drain", "kill"}),
    ),
    Contender(
        "zope-7.3", "zope.sendmail 7.3", "peer_zope.py", "transactional; no sync: a loss of power may take the mail",
        ["zope.sendmail==7.3"], turns=7,
    ),
    Contender(
        "repoze", "repoze.sendmail 4.5", "peer_repoze.py", "transactional; no sync",
        ["repoze.sendmail==4.5", "transaction==5.1", "zope.interface==8.7"], turns=7, stands=False,
    ),
    Contender(
        "django-mailer", "django-mailer 2.3.2", "peer_django.py", "transactional; synced by the database",
        ["django-mailer==2.3.2", *_DJANGO], app="mailer", turns=7,
    ),
    Contender(
        "django-mailer-rows", "django-mailer, MAILER_USE_FILE_LOCK=False", "peer_django.py",
        "transactional; synced by the database", ["django-mailer==2.3.2", *_DJANGO],
        {"MAILER_USE_FILE_LOCK": False}, "mailer", parts=frozenset({"processes", "kill"}),
    ),
    Contender(
        "post-office", "django-post-office 3.12.0", "peer_django.py", "transactional; synced by the database",
        ["django-post-office==3.12.0", *_DJANGO], app="post_office", connections=5, stands=False, forks=True,
    ),
    Contender(
        "smtplib", "smtplib, one connection kept", "peer_direct.py", "no queue: in memory only",
        parts=frozenset({"drain", "latency", "kill"}), has_queue=False,
    ),
    Contender(
        "aiosmtplib", "aiosmtplib 5.1.3, 20 connections kept", "peer_direct.py", "no queue: in memory only",
        ["aiosmtplib==5.1.3"], {"connections": 20}, connections=20, parts=frozenset({"drain", "kill"}),
        has_queue=False,
    ),
)  # fmt: skip


class Field:
    """The contenders that can be had, and where their queues are."""

    def __init__(self, wanted: Sequence[str], cache: Path, directory: str) -> None:
        self._cache, self._directory = cache, directory
        self._pythons: dict[str, Path] = {}
        self._places = itertools.count()
        self.notes: list[str] = []
        self.contenders: list[Contender] = []
        for each in CONTENDERS:
            if each is OURS or not wanted or each.key in wanted:
                self._admit(each)
        self._server = self._postgresql() if any(each.app for each in self.contenders) else None
        self._templates: dict[str, str] = {}
        self._databases: dict[str, str] = {}

    def _admit(self, contender: Contender) -> None:
        try:
            if contender.requirements:
                self._pythons[contender.key] = environment(contender.requirements, self._cache)
        except NotInstalled as error:
            self.notes.append(f"{contender.name} is left out, pip says: {str(error).strip().splitlines()[-1]}")
        else:
            self.contenders.append(contender)

    def _postgresql(self) -> Server | None:
        """A server with PostgreSQL's own settings, on the disk in question where its user may go there."""
        words = "no reason"
        for where in (self._directory, tempfile.gettempdir()):
            try:
                server = Server(place=where, fsync="on", full_page_writes="on")
            except SkipTest as error:
                words = str(error)
            except Exception as error:  # noqa: BLE001 - such as a directory that its user may not enter
                words = repr(error)
            else:
                at = "on the same disk" if where == self._directory else f"in {where}"
                self.notes.append(f"the Django packages use PostgreSQL {at}, which syncs each commit")
                return server
        self.notes.append(f"the Django packages use SQLite, which syncs each commit, since PostgreSQL has {words}")
        return None

    def of(self, part: str) -> list[Contender]:
        """Those that take part."""
        return [each for each in self.contenders if part in each.parts]

    def place(self, contender: Contender) -> str:
        """Where a new queue may be."""
        return os.path.join(self._directory, f"{next(self._places)}-{contender.key}")

    def open(self, contender: Contender, place: str, relay: Mapping[str, Any]) -> Child:
        """A process with this sender."""
        database = None
        if contender.app and self._server is not None:
            database = self._database(contender, place, self._server)
        return self._prepared(contender, place, relay, database)

    def _prepared(
        self, contender: Contender, place: str, relay: Mapping[str, Any], database: Mapping[str, str] | None
    ) -> Child:
        if contender.key in self._pythons:
            child = Child([str(self._pythons[contender.key])], contender.program)
        else:
            child = Ours().child(contender.program)
        settings = {"place": place, "relay": relay, "settings": contender.settings}
        if contender.app:
            settings |= {"app": contender.app, "database": database}
        try:
            child.ask("prepare", **settings)
        except BaseException:
            child.kill()
            raise
        return child

    def _database(self, contender: Contender, place: str, server: Server) -> dict[str, str]:
        """What Django is told; a new place gets a copy of a database in which the tables are."""
        if contender.app not in self._templates:
            self._templates[contender.app] = server.create_database()
            nowhere = {"port": 0, "cafile": "", "login": False}
            database = _in(server, self._templates[contender.app])
            with self._prepared(contender, self.place(contender), nowhere, database):
                pass
        if place not in self._databases:
            self._databases[place] = server.create_database(self._templates[contender.app])
            os.makedirs(place)
            Path(place, "migrated").touch()
        return _in(server, self._databases[place])

    def close(self) -> None:
        """Stop the server."""
        if self._server is not None:
            with suppress(OSError):
                self._server.stop()


def _in(server: Server, name: str) -> dict[str, str]:
    return {"ENGINE": "django.db.backends.postgresql", "NAME": name, "USER": "postgres", "HOST": server.directory}
