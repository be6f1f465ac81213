"""One statement under way on a connection: it is sent, and its answer is fetched later, perhaps by another thread.

psycopg waits for the answer to what it executes.  A thread that carries conversations does not wait: it asks, goes on
with its mails, and looks now and then whether the answer is there.  Through libpq, as psycopg lends it.
"""

from __future__ import annotations

import functools
import re
from typing import Any

import psycopg
from psycopg import Connection, errors, generators
from psycopg.pq import ConnStatus, DiagnosticField, ExecStatus

_PARAMETER = re.compile(rb"%\((\w+)\)s")


class AsyncQuery:
    """See the module.

    Concurrency: one thread at a time.

    :param connection: which nothing else uses.
    """

    def __init__(self, connection: Connection[Any]) -> None:
        self._connection = connection
        self._is_prepared = connection.prepare_threshold is not None
        self._prepared: dict[bytes, bytes] = {}

    def ask(self, statement: bytes, parameters: dict[str, Any]) -> None:
        """Send a statement; what has not left when this returns leaves with `is_answered` or `answer`.

        :param statement: which says of each parameter of which type it is, where the server cannot know; it returns a
            row.
        :param parameters: what `str` makes of each is sent.
        :raises psycopg.Error: if the connection broke.
        """
        text, names = _numbered(statement)
        encoding = self._connection.info.encoding
        values = [str(parameters[name]).encode(encoding) for name in names]
        pgconn = self._connection.pgconn
        if not self._is_prepared:
            pgconn.send_query_params(text, values)
        else:
            name = self._prepared.get(statement)
            if name is None:
                name = self._prepare(statement, text)
            pgconn.send_query_prepared(name, values)
        pgconn.flush()

    def _prepare(self, statement: bytes, text: bytes) -> bytes:
        name = b"zope_sendmail_%d" % len(self._prepared)
        self._connection.pgconn.send_prepare(name, text)
        self._result(ExecStatus.COMMAND_OK)
        self._prepared[statement] = name
        return name

    def is_answered(self) -> bool:
        """Return whether `answer` has nothing to wait for.  Does not wait.

        :raises psycopg.Error: if the connection broke.
        """
        pgconn = self._connection.pgconn
        pgconn.flush()
        pgconn.consume_input()
        return not pgconn.is_busy()

    def answer(self) -> list[str | None]:
        """Return the values of the row, as text; waits for it.

        :raises psycopg.Error: if the server refuses, or the connection broke.
        """
        result = self._result(ExecStatus.TUPLES_OK)
        values = [result.get_value(0, column) for column in range(result.nfields)]
        return [None if value is None else value.decode("ascii") for value in values]

    def _result(self, wanted: ExecStatus) -> Any:
        *_, result = self._connection.wait(generators.execute(self._connection.pgconn))
        if result.status != wanted:
            raise self._error(result)
        return result

    def _error(self, result: Any) -> psycopg.Error:
        message = result.get_error_message(self._connection.info.encoding)
        state = (result.error_field(DiagnosticField.SQLSTATE) or b"").decode("ascii")
        if self._connection.pgconn.status == ConnStatus.BAD:
            return psycopg.OperationalError(message)
        try:
            return errors.lookup(state)(message)
        except KeyError:
            return psycopg.DatabaseError(message)


@functools.cache
def _numbered(statement: bytes) -> tuple[bytes, tuple[str, ...]]:
    """Return a statement with numbers in the place of names, and the names in the order of the numbers."""
    names: dict[bytes, bytes] = {}

    def number(found: re.Match[bytes]) -> bytes:
        return names.setdefault(found[1], b"$%d" % (len(names) + 1))

    return _PARAMETER.sub(number, statement), tuple(name.decode() for name in names)
