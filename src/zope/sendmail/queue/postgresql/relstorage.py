"""Mail that commits with the objects of a ZODB in RelStorage, where both are in one database.

In the vote mail is written through a connection of the queue's own, where no processor sees it; then one statement on
the connection of RelStorage reveals it, so the commit of the objects is that of the mail.  Where the ZODB connection
has nothing to commit, mail is revealed as without it.  Uses what RelStorage 4.3 does not promise: its phase, and the
connection for stores.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zope.sendmail.errors import QueueError
from zope.sendmail.queue.postgresql.staging import PostgreSQLStagedMail
from zope.sendmail.queue.postgresql.statements import STATEMENTS


class RelStorageConnection:
    """The ZODB connection of an application; its storage is a RelStorage in the database of the queue.

    :param connection: the connection, or a function that returns that of this thread, such as
        ``lambda: getSite()._p_jar``.
    """

    def __init__(self, connection: Any) -> None:
        self._get: Callable[[], Any] = connection if callable(connection) else lambda: connection

    def stage(self, *arguments: Any) -> RelStorageMail:
        """Return an empty group for mails that commit with the objects of this connection.

        :param arguments: those of `PostgreSQLStagedMail`.
        """
        return RelStorageMail(self._get(), *arguments)


class RelStorageMail(PostgreSQLStagedMail):
    """See `IStagedMail`.

    :param connection: the ZODB connection.
    """

    def __init__(self, connection: Any, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._zodb = connection
        self._follows = False

    def prepare(self) -> None:
        """See `IStagedMail.prepare`.

        :raises QueueError: if RelStorage is in another database than the queue, or refuses.
        """
        super().prepare()
        cursor = _voting_cursor(self._zodb) if self._ids else None
        if cursor is not None:
            self._reveal_on(cursor)
            self._follows = True

    def _reveal_on(self, cursor: Any) -> None:
        """Reveal the mails in RelStorage's transaction; it holds no lock on their rows if that was not possible."""
        cursor.execute("savepoint zope_sendmail")
        try:
            cursor.execute(STATEMENTS["reveal_on"].decode(), (f"{{{','.join(map(str, self._ids))}}}",))
            count = cursor.rowcount
            trouble = ""
        except Exception as error:  # noqa: BLE001 - whatever the driver raises
            count, trouble = -1, f": {error}"
        if count != len(self._ids):
            cursor.execute("rollback to savepoint zope_sendmail")
            raise QueueError(
                "the mail cannot be revealed on the connection of RelStorage; is the queue in another database, or may "
                f"RelStorage's user not update zope_sendmail.mail{trouble}?"
            )
        cursor.execute("release savepoint zope_sendmail")

    def reveal(self) -> bool:
        """See `PostgreSQLStagedMail.reveal`.  Has been done, if the objects have been committed."""
        if not self._follows:
            return super().reveal()
        is_new, self._is_over = not self._is_over, True
        return is_new


def _voting_cursor(connection: Any) -> Any:
    """Return the cursor on which RelStorage has written what it will commit; None if it commits nothing."""
    from relstorage.storage.interfaces import ITPCStateVoting

    storage = connection._storage
    while storage is not None and not hasattr(storage, "_tpc_phase"):  # zc.zlibstorage and others stand in front
        storage = getattr(storage, "base", None)
    if storage is None:
        raise QueueError(f"the storage of {connection!r} is no RelStorage")
    phase = storage._tpc_phase
    return phase.shared_state.store_connection.cursor if ITPCStateVoting.providedBy(phase) else None
