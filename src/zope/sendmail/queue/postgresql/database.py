"""Connections to the database of a queue, and what its errors mean.

Every statement is a transaction of its own and uses nothing of the session before, so a pooler such as pgbouncer may
stand in between.  Trouble with the database is a `QueueError`, which is an `OSError`: temporary, as that with a disk.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg import Connection, errors

from zope.sendmail.errors import QueueError, QueueTrouble
from zope.sendmail.queue.postgresql.databaselocation import DatabaseLocation
from zope.sendmail.queue.postgresql.schemaversion import check_version, missing
from zope.sendmail.queue.postgresql.statements import STATEMENTS
from zope.sendmail.system.gilbaton import baton

#: What helps a user who lacks a right.
_GRANT = (
    "let the owner of the tables grant this user usage on schema zope_sendmail, and select, insert, update, delete "
    "on all tables in it"
)

#: Idle connections of one queue object; more are made while more are in use.
_IDLE = 4


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn what psycopg raises into a `QueueError` that says what to do."""
    try:
        yield
    except (errors.UndefinedTable, errors.InvalidSchemaName, errors.UndefinedColumn):
        raise missing() from None
    except errors.InsufficientPrivilege as error:
        raise QueueError(f"the database does not permit it: {_said(error)}; {_GRANT}") from error
    except psycopg.Error as error:
        raise QueueTrouble(f"the database of the queue: {_said(error)}") from error


def _said(error: psycopg.Error) -> str:
    """Return the words of the server, without the statement that they are about."""
    return " ".join((error.diag.message_primary or str(error)).split()) or type(error).__name__


class NotConnected(QueueTrouble):
    """The server could not be reached: nothing was asked."""


def is_lost(error: BaseException) -> bool:
    """Return whether a connection broke, or the server refused to go on: another connection may do better."""
    return isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))


class Connections:
    """The connections of one queue object to its database.

    Concurrency: any thread.  A forked child makes its own and leaves the parent's alone.
    """

    def __init__(self, location: DatabaseLocation) -> None:
        self.location = location
        self._are_pooled = False
        self._idle: list[Connection[Any]] = []
        self.renew()
        _all.add(self)
        # A delivery has no end, and so no call of `close`; nor has a program that forgets it.
        weakref.finalize(self, _close_each, self._idle)

    def renew(self) -> None:
        """Begin without any connection."""
        self._mutex = threading.Lock()
        self._idle.clear()
        self._made: weakref.WeakSet[Connection[Any]] = weakref.WeakSet()

    def are_pooled(self) -> bool:
        """Return whether a pooler stands in between, so that LISTEN reaches no one; known after the first `connect`."""
        return self._are_pooled

    def connect(self) -> Connection[Any]:
        """Return a new connection, whose schema is of the right version.

        :raises QueueError: if the server cannot be reached, or its schema is of another version.
        """
        try:
            connection = self._connect()
        except QueueTrouble as error:
            raise NotConnected(str(error)) from error.__cause__
        self._made.add(connection)
        return connection

    def _connect(self) -> Connection[Any]:
        with translated():
            parameters: Any = self.location.parameters
            # Text of a database that knows no encoding would be bytes.
            connection = psycopg.connect(autocommit=True, **(parameters | {"client_encoding": "utf8"}))
            try:
                self._greet(connection)
            except BaseException:
                connection.close()
                raise
            return connection

    def _greet(self, connection: Connection[Any]) -> None:
        connection.prepare_threshold = None
        [(version, backend)] = connection.execute(STATEMENTS["hello"])
        if version is None:
            raise missing()
        check_version(version)
        # A pooler has numbers of its own for its clients.
        self._are_pooled = backend != connection.info.backend_pid
        if not self._are_pooled:
            connection.prepare_threshold = 0
            connection.execute(STATEMENTS["settle_in"])

    @contextlib.contextmanager
    def use(self) -> Iterator[Connection[Any]]:
        """Lend a connection to the block; what psycopg raises there becomes a `QueueError`."""
        with self._mutex:
            connection = self._idle.pop() if self._idle else None
        if connection is None or connection.broken or connection.closed:
            connection = self.connect()
        try:
            with translated():
                yield connection
        finally:
            self._put_back(connection)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Connection[Any]]:
        """Lend a connection in a transaction, which ends with the block; otherwise as `use`.

        An idle connection that turns out to be broken is replaced before the block begins.
        """
        with contextlib.ExitStack() as stack:
            try:
                connection = self._enter(stack)
            except QueueError as error:
                if error.__cause__ is None or not is_lost(error.__cause__):
                    raise
                self.drop_idle()
                connection = self._enter(stack)
            yield connection

    def _enter(self, stack: contextlib.ExitStack) -> Connection[Any]:
        with contextlib.ExitStack() as tried:
            connection = tried.enter_context(self.use())
            tried.enter_context(connection.transaction())  # asks the server
            stack.push(tried.pop_all())
        return connection

    def _put_back(self, connection: Connection[Any]) -> None:
        if connection.closed or connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
            connection.close()
            return
        with self._mutex:
            if len(self._idle) < _IDLE:
                self._idle.append(connection)
                return
        connection.close()

    def execute(self, statement: str, /, **parameters: Any) -> list[Any]:
        """Execute a statement by its name, and return its rows.

        It is repeated once if an idle connection turns out to be broken: each of ours may be.
        """
        try:
            return self._execute(statement, parameters)
        except QueueError as error:
            if error.__cause__ is None or not is_lost(error.__cause__):
                raise
            self.drop_idle()
            with contextlib.suppress(NotConnected):
                return self._execute(statement, parameters)
            raise  # the first error, which says whether the server was asked

    def _execute(self, name: str, parameters: dict[str, Any]) -> list[Any]:
        baton.put_down()  # the server is waited for
        with self.use() as connection:
            return run(connection, name, parameters)

    def drop_idle(self) -> None:
        """Close what is not in use."""
        with self._mutex:
            idle = self._idle.copy()
            self._idle.clear()
        _close_each(idle)

    def close(self) -> None:
        """Close what is not in use; what is in use then is closed when the queue object is gone."""
        self.drop_idle()

    def forget_after_fork(self) -> None:
        """Let go of the parent's connections, in a child, without a word to the server."""
        for connection in list(self._made):
            _let_go(connection)
        self.renew()


def run(connection: Connection[Any], name: str, parameters: dict[str, Any]) -> list[Any]:
    """Execute a statement by its name on this connection; return its rows.

    The server sends them in binary: as text a message would have two octets for each of its own.
    """
    cursor = connection.execute(STATEMENTS[name], parameters, binary=True)
    rows: list[Any] = cursor.fetchall() if cursor.description else []
    return rows


def _close_each(idle: list[Connection[Any]]) -> None:
    while idle:
        idle.pop().close()


def _let_go(connection: Connection[Any]) -> None:
    """Let the descriptor lead nowhere: closing would say goodbye in the parent's name."""
    _inherited.append(connection)
    with contextlib.suppress(OSError, psycopg.Error):
        nowhere = os.open(os.devnull, os.O_RDWR)
        os.dup2(nowhere, connection.fileno())
        os.close(nowhere)


#: Never closed, never collected.
_inherited: list[Connection[Any]] = []

_all: weakref.WeakSet[Connections] = weakref.WeakSet()


def _after_fork() -> None:
    for connections in list(_all):
        connections.forget_after_fork()


os.register_at_fork(after_in_child=_after_fork)
