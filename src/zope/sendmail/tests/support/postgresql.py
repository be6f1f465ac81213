"""A PostgreSQL server of the tests' own, on a Unix socket in a directory that goes with it, and pgbouncer in front.

The tests take the newest one, the contract suite the oldest one, too.  Where there is no PostgreSQL, or psycopg is
missing, they skip with the reason.  ``ZOPE_SENDMAIL_POSTGRESQL`` names the directory of its programs where they are not
where Debian, others and ``.ci/postgresql.py`` put them; ``none`` does without.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import glob
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import uuid
from typing import Any
from unittest import SkipTest

with contextlib.suppress(ImportError):  # the tests that need it skip
    import psycopg

_PLACES = ("/usr/lib/postgresql/*/bin", "/usr/local/pgsql/bin", "/opt/homebrew/opt/postgresql*/bin", "/usr/pgsql-*/bin")

#: Where ``.ci/postgresql.py`` puts it: for root, and for others.
_FETCHED = (
    "/var/cache/zope.sendmail/postgresql",
    os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "zope.sendmail", "postgresql"),
)

#: Seconds until a server that does not answer is given up.
_PATIENCE = 300.0


def require_psycopg() -> None:
    """Skip where the extra ``postgresql`` is not installed."""
    if importlib.util.find_spec("psycopg") is None:
        raise SkipTest("psycopg is not installed (zope.sendmail[postgresql])")


def programs() -> str:
    """Return the directory of the newest PostgreSQL's programs.  Skips where there is none."""
    return _installed()[-1]


def oldest_programs() -> str:
    """Return the directory of the oldest PostgreSQL's programs.  Skips where there is no other than the newest."""
    found = _installed()
    if len(found) < 2:
        raise SkipTest(f"{found[0]} is the only PostgreSQL here; .ci/postgresql.py fetches another one")
    return found[0]


@functools.cache
def _installed() -> list[str]:
    """Return the directories of programs, oldest release first."""
    require_psycopg()
    wanted = os.environ.get("ZOPE_SENDMAIL_POSTGRESQL", "")
    if wanted == "none":
        raise SkipTest("ZOPE_SENDMAIL_POSTGRESQL=none: no PostgreSQL is wanted")
    places = [wanted] if wanted else [*_PLACES, *(f"{place}/[0-9]*/*/pginstall/bin" for place in _FETCHED)]
    found = {path: _version(path) for place in places for path in glob.glob(place) if os.path.exists(f"{path}/initdb")}
    if not found:
        raise SkipTest("there is no PostgreSQL server here (Debian: apt install postgresql; or .ci/postgresql.py)")
    return sorted(found, key=lambda path: found[path])


def _version(path: str) -> list[int]:
    """Return what a server says that it is, as ``postgres (PostgreSQL) 15.18 (Debian ...)``."""
    said = subprocess.run([f"{path}/postgres", "--version"], check=False, capture_output=True, text=True).stdout
    return [int(part) for word in said.split()[2:3] for part in word.split(".") if part.isdigit()]


def _other_user() -> dict[str, Any]:
    """How a program is started that refuses to run as root."""
    if os.geteuid():
        return {}
    user = pwd.getpwnam("nobody")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


#: Said by a server that was started while processes of one that was killed still end.
_ANOTHER = "pre-existing shared memory block"

_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}


class Server:
    """One PostgreSQL server.

    :param settings: lines of its postgresql.conf; without any it is fast and forgets everything when the machine dies.
    :param data: a data directory that is there already, such as that of a standby.
    :param place: where its directory is made.
    :param programs: the directory of its programs; the newest if none is named.
    """

    def __init__(self, *, data: str = "", place: str = "/tmp", programs: str = "", **settings: object) -> None:
        self._programs = programs or _installed()[-1]
        self._user = _other_user()
        self.directory = tempfile.mkdtemp(prefix="zope-sendmail-pg-", dir=place)
        if self._user:
            os.chown(self.directory, self._user["user"], self._user["group"])
        self.data = f"{self.directory}/data"
        if data:
            shutil.move(data, self.data)
        else:
            self.call("initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
        usual = {"fsync": "off", "synchronous_commit": "on", "full_page_writes": "off", "max_connections": 200}
        fixed = {"listen_addresses": "''", "unix_socket_directories": f"'{self.directory}'"}
        with open(f"{self.data}/postgresql.conf", "a", encoding="ascii") as file:
            file.writelines(f"{name} = {value}\n" for name, value in {**usual, **settings, **fixed}.items())
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def call(self, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs."""
        subprocess.run(
            [f"{self._programs}/{program}", *arguments],
            check=True,
            capture_output=True,
            cwd="/",
            env=_ENVIRONMENT,
            **self._user,
        )

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._launch()
        self.wait_until_it_answers()

    def _launch(self) -> None:
        self._log_begins = os.path.getsize(self._log) if os.path.exists(self._log) else 0
        with open(self._log, "ab") as log:
            self.process = subprocess.Popen(
                [f"{self._programs}/postgres", "-D", self.data],
                stdout=log,
                stderr=log,
                cwd="/",
                env=_ENVIRONMENT,
                **self._user,
            )

    @property
    def _log(self) -> str:
        return f"{self.directory}/log"

    def wait_until_it_answers(self) -> None:
        """Wait until it takes connections, also after a crash."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            assert self.process is not None
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(self.conninfo()).close()
                return
            has_ended, said = self.process.poll() is not None, self._said()
            if time.monotonic() > deadline or (has_ended and _ANOTHER not in said):
                raise RuntimeError(f"PostgreSQL did not start: {said[-2000:]}")
            if has_ended:
                self._launch()
            threading.Event().wait(0.05)

    def _said(self) -> str:
        """Return what it said since it was started."""
        with open(self._log, encoding="utf-8", errors="replace") as log:
            log.seek(self._log_begins)
            return log.read()

    def conninfo(self, database: str = "postgres") -> str:
        """Return how the database is connected to."""
        return f"host={self.directory} user=postgres dbname={database}"

    def url(self, queue: str = "", database: str = "postgres", user: str = "postgres") -> str:
        """Return the location of a queue in it; without a name it is a queue that nobody else has."""
        return f"postgresql://{user}@/{database}?host={self.directory}&queue={queue or uuid.uuid4().hex}"

    def create_database(self, template: str = "template0") -> str:
        """Return the name of a new database."""
        name = f"d{uuid.uuid4().hex}"
        with psycopg.connect(self.conninfo(), autocommit=True) as connection:
            connection.execute(f"create database {name} template {template}".encode())
        return name

    def connect(self, database: str = "postgres", **options: Any) -> Any:
        """Return a connection of the test's own; it commits each statement."""
        return psycopg.connect(self.conninfo(database), autocommit=True, **options)

    def kill_backends(self, application: str = "zope.sendmail") -> int:
        """Cut the connections of an application; return how many there were."""
        with self.connect() as connection:
            rows = connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where application_name = %s", [application]
            )
            return len(rows.fetchall())

    def crash(self) -> None:
        """Kill one backend with SIGKILL: the server ends all others, and recovers."""
        victim, witness = psycopg.connect(self.conninfo()), psycopg.connect(self.conninfo())
        os.kill(victim.info.backend_pid, signal.SIGKILL)
        with contextlib.suppress(psycopg.OperationalError):  # ended by the server, which takes no connections then
            while True:
                witness.execute("select 1")
        victim.close()
        self.wait_until_it_answers()

    def kill(self) -> None:
        """Kill the postmaster with SIGKILL, and start it again."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.start()

    def standby(self) -> Server:
        """Return a server that follows this one, asynchronously."""
        copy = f"{self.directory}/standby"
        self.call(
            "pg_basebackup", "-D", copy, "-h", self.directory, "-U", "postgres", "-R", "-X", "stream", "-c", "fast"
        )
        return Server(data=copy, programs=self._programs)

    def wait_for(self, primary: Server) -> None:
        """Wait until this standby has all that its primary has."""
        deadline = time.monotonic() + _PATIENCE
        with primary.connect() as first, self.connect() as second:
            [(end,)] = first.execute("select pg_current_wal_lsn()")
            while not second.execute("select pg_last_wal_replay_lsn() >= %s::pg_lsn", [end]).fetchone()[0]:
                if time.monotonic() > deadline:
                    raise RuntimeError("the standby does not follow")
                threading.Event().wait(0.05)

    def shut_down(self) -> None:
        """Stop it; it may be started again."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)  # a fast shutdown
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def stop(self) -> None:
        """Stop it, and remove all that it had."""
        self.shut_down()
        shutil.rmtree(self.directory, ignore_errors=True)


#: pgbouncer's own: a part of its socket's name, and so no other program can have it.
_POOLERS_PORT = 6432


class Pooler:
    """pgbouncer in transaction mode in front of a server, on a Unix socket of its own.  Skips where there is none."""

    def __init__(self, server: Server) -> None:
        program = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/sbin:/bin")
        if program is None:
            raise SkipTest("there is no pgbouncer here (Debian: apt install pgbouncer)")
        self.directory = tempfile.mkdtemp(prefix="zope-sendmail-pgb-", dir="/tmp")
        user = _other_user()
        if user:
            os.chown(self.directory, user["user"], user["group"])
        with open(f"{self.directory}/users", "w", encoding="ascii") as file:
            file.write('"postgres" ""\n')
        with open(f"{self.directory}/ini", "w", encoding="ascii") as file:
            file.write(
                f"[databases]\n* = host={server.directory} user=postgres\n"
                f"[pgbouncer]\npool_mode = transaction\nlisten_addr =\nunix_socket_dir = {self.directory}\n"
                f"auth_type = any\nauth_file = {self.directory}/users\n"
                "max_client_conn = 200\ndefault_pool_size = 20\nignore_startup_parameters = extra_float_digits\n"
                "server_round_robin = 1\n"
            )
        with open(f"{self.directory}/log", "ab") as log:
            self.process = subprocess.Popen(
                [program, f"{self.directory}/ini"], stdout=log, stderr=log, cwd="/", env=_ENVIRONMENT, **user
            )
        self._wait_until_it_answers()

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + _PATIENCE
        while True:
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(f"host={self.directory} port={_POOLERS_PORT} user=postgres dbname=postgres").close()
                return
            if self.process.poll() is not None or time.monotonic() > deadline:
                with open(f"{self.directory}/log", encoding="utf-8", errors="replace") as log:
                    raise RuntimeError(f"pgbouncer did not start: {log.read()[-2000:]}")
            threading.Event().wait(0.05)

    def url(self, queue: str = "", database: str = "postgres") -> str:
        """Return the location of a queue behind it."""
        place = f"host={self.directory}&port={_POOLERS_PORT}"
        return f"postgresql://postgres@/{database}?{place}&queue={queue or uuid.uuid4().hex}"

    def stop(self) -> None:
        """Stop it, and remove all that it had."""
        self.process.terminate()
        self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


_shared: dict[str, Server] = {}


def shared_server(programs: str = "") -> Server:
    """Return the server that the tests of this process share; its schema is there.  Skips where there is none.

    :param programs: the directory of its programs; the newest if none is named.
    """
    programs = programs or _installed()[-1]
    if programs not in _shared:
        from zope.sendmail.queue.postgresql.upkeep import migrate

        server = _shared[programs] = Server(programs=programs)
        atexit.register(server.stop)
        migrate(server.url())
    return _shared[programs]


_poolers: dict[Server, Pooler] = {}


def shared_pooler(server: Server) -> Pooler:
    """Return the pooler in front of a server that the tests of this process share.  Skips where there is none."""
    if server not in _poolers:
        pooler = _poolers[server] = Pooler(server)
        atexit.register(pooler.stop)
    return _poolers[server]
