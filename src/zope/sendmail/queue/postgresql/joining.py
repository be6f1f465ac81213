"""Mail on the application's own connection: it commits with the application's rows, in the same transaction.

Nothing is in doubt then: there is one commit, and the database decides.  Made for psycopg (3 and 2), SQLAlchemy's
sessions and Django's connections; anything else that has `IApplicationConnection` will do.
"""

from __future__ import annotations

import contextlib
import sys
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from zope.interface import implementer

from zope.sendmail.errors import QueueError
from zope.sendmail.interfaces import IStagedMail
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.pieces import Piece
from zope.sendmail.queue.postgresql import keys
from zope.sendmail.queue.postgresql.interfaces import IApplicationConnection
from zope.sendmail.queue.postgresql.names import shown
from zope.sendmail.queue.postgresql.staging import NewMail
from zope.sendmail.queue.postgresql.statements import STATEMENTS
from zope.sendmail.queue.postgresql.storedbody import rows_of
from zope.sendmail.system.clock import Clock


@implementer(IApplicationConnection)
class PsycopgConnection:
    """A connection of psycopg 3, or psycopg2.

    :param connection: the connection, or a function that returns the one of this thread.
    """

    def __init__(self, connection: Any) -> None:
        self._get: Callable[[], Any] = connection if callable(connection) else lambda: connection

    @property
    def is_open(self) -> bool:
        """See `IApplicationConnection.is_open`."""
        status: int = self._get().info.transaction_status
        return status == 2  # PQTRANS_INTRANS

    def execute(self, statement: str, parameters: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """See `IApplicationConnection.execute`.

        :raises QueueError: if each statement would commit for itself.
        """
        connection = self._get()
        if connection.autocommit and not self.is_open:
            raise QueueError(
                "the connection commits each statement for itself, so the mail would not follow the application's "
                "transaction; send within one, or set autocommit to False"
            )
        with _cursor(connection) as cursor:
            cursor.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else ()

    def on_commit(self, call: Callable[[], object]) -> None:
        """See `IApplicationConnection.on_commit`.  A bare connection cannot tell; processors find the mail."""


def _cursor(connection: Any) -> Any:
    """Return a cursor whose rows are tuples, whatever those of the application are."""
    if type(connection).__module__.partition(".")[0] == "psycopg":
        from psycopg.rows import tuple_row

        return connection.cursor(row_factory=tuple_row)
    from psycopg2.extensions import cursor

    return connection.cursor(cursor_factory=cursor)


@implementer(IApplicationConnection)
class SQLAlchemySession:
    """A session of SQLAlchemy over psycopg or psycopg2, also one that zope.sqlalchemy has joined to the transaction.

    :param session: a session, a scoped session, or a function that returns the session of this thread.
    """

    def __init__(self, session: Any) -> None:
        self._session = session

    def _get(self) -> Any:
        """Return the session itself; calling a scoped session, or a function, gives the one of this thread."""
        return self._session() if callable(self._session) else self._session

    @property
    def is_open(self) -> bool:
        """See `IApplicationConnection.is_open`."""
        session = self._get()
        return bool(session.in_transaction() and session.is_active)

    def execute(self, statement: str, parameters: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """See `IApplicationConnection.execute`."""
        session = self._get()
        result = session.connection().exec_driver_sql(statement, parameters)
        _mark_changed(session)
        return [tuple(row) for row in result] if result.returns_rows else ()

    def on_commit(self, call: Callable[[], object]) -> None:
        """See `IApplicationConnection.on_commit`."""
        from sqlalchemy import event

        event.listen(self._get(), "after_commit", lambda _: call(), once=True)


def _mark_changed(session: Any) -> None:
    """Tell zope.sqlalchemy, where it has joined the session: else it would roll back what it has not seen."""
    if "zope.sqlalchemy.datamanager" in sys.modules:
        from zope.sqlalchemy import datamanager

        if session in datamanager._SESSION_STATE:
            datamanager.mark_changed(session)


@implementer(IApplicationConnection)
class DjangoConnection:
    """A connection of Django; outside of ``transaction.atomic`` a mail is on its way at once, as all else there.

    :param using: its alias.
    """

    def __init__(self, using: str = "default") -> None:
        self._using = using

    def _get(self) -> Any:
        from django.db import connections

        return connections[self._using]

    @property
    def is_open(self) -> bool:
        """See `IApplicationConnection.is_open`."""
        connection = self._get()
        return bool(connection.in_atomic_block and not connection.needs_rollback)

    def execute(self, statement: str, parameters: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """See `IApplicationConnection.execute`."""
        with self._get().cursor() as cursor:
            cursor.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else ()

    def on_commit(self, call: Callable[[], object]) -> None:
        """See `IApplicationConnection.on_commit`."""
        from django.db import transaction

        transaction.on_commit(call, using=self._using, robust=True)


@implementer(IStagedMail)
class JoinedMail:
    """The mails of one transaction of the application; see `IStagedMail`.

    They are rows of its transaction from `add` on, so there is nothing to do in the vote and in the second phase.

    :param queue: the number of the queue in its database.
    :param announce: tells processors that there is something new, and of which priorities (ranks).
    """

    def __init__(self, connection: Any, queue: int, announce: Callable[[Collection[int]], object]) -> None:
        self._connection = connection
        self._queue = queue
        self._announce = announce
        self._ids: list[uuid.UUID] = []
        self._ranks: set[int] = set()
        #: These were rolled back, and it was not possible to remove them then.
        self._undone: list[uuid.UUID] = []
        self._is_over = False

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, envelope: Envelope, *message: Piece) -> str:
        """See `IStagedMail.add`."""
        mail = NewMail.of(envelope, message)
        names = ("size", "message_id", "envelope", "due", "expires")
        values: dict[str, Any] = {name: getattr(mail, name) for name in names}
        values["priority"] = mail.terms.priority.rank
        with joined():
            if mail.terms.key:
                keys.take(self._ask, self._queue, mail, Clock().time())
            self._execute("join_mail", {"id": str(mail.id), "queue": self._queue, **values})
            for no, row in enumerate(rows_of(message)):
                self._execute("join_body", {"mail": str(mail.id), "no": no, "data": bytes(row)})
        if not self._ids:
            self._connection.on_commit(lambda: self._announce(self._ranks))
        self._ids.append(mail.id)
        self._ranks.add(mail.terms.priority.rank)
        return shown(mail.id)

    def _ask(self, name: str, parameters: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        return _texts(self._connection.execute(STATEMENTS[name].decode(), parameters))

    def _execute(self, name: str, parameters: Mapping[str, Any]) -> None:
        self._connection.execute(STATEMENTS[name].decode(), parameters)

    def rollback(self, count: int) -> None:
        """See `IStagedMail.rollback`.

        A savepoint of the database has removed the mails already, or will; then nothing is left to be removed here.
        """
        self._undone += self._ids[count:]
        del self._ids[count:]
        with contextlib.suppress(Exception):  # the transaction has failed, until it is rolled back to a savepoint
            self._take_back()

    def _take_back(self) -> None:
        if self._undone and self._connection.is_open:
            self._execute("join_take_back", {"ids": [str(each) for each in self._undone]})
            self._undone = []

    def prepare(self) -> None:
        """See `IStagedMail.prepare`.  Nothing is done, unless mail of a savepoint that was rolled back is left."""
        with joined():
            self._take_back()

    def commit(self) -> None:
        """See `IStagedMail.commit`.  The application's commit is the instant of success; processors are told."""
        if not self._is_over and self._ids:
            self._is_over = True
            self._announce(self._ranks)

    def abort(self) -> None:
        """See `IStagedMail.abort`.  The application's rollback removes the mails; if it does not come, this does."""
        if not self._is_over:
            self.rollback(0)
            self._is_over = True


def _texts(rows: Sequence[Sequence[Any]]) -> Sequence[Sequence[Any]]:
    """Return rows with text in the place of bytes, which it is in a database that knows no encoding."""
    return [[each.decode() if isinstance(each, bytes) else each for each in row] for row in rows]


class OtherDatabase(QueueError):
    """The application's connection leads to another database than the queue's.  Cure: name the queue's URL there."""


@contextlib.contextmanager
def joined() -> Any:
    """Turn what the application's driver raises into a `QueueError`, so that callers know what to catch."""
    try:
        yield
    except (QueueError, ImportError, AttributeError):
        raise
    except Exception as error:
        raise QueueError(f"the mail cannot be written on the application's connection: {error}") from error


def check_database(connection: Any, known: str) -> None:
    """Refuse a connection to another database than the queue's.

    :param known: what the statement ``place`` says on a connection of the queue's own.
    :raises OtherDatabase: if it says something else on the application's.
    """
    with joined():
        [(here,)] = _texts(connection.execute(STATEMENTS["place"].decode(), {}))
    if here != known:
        raise OtherDatabase("the application's connection leads to another database than the URL of the queue")
