"""What runs inside the Zope of `zopesite`."""

from __future__ import annotations

from typing import Any

import transaction


class SendAndConflict:
    """Sends the letter and changes the site; while it runs for the first time, somebody else changes the site too."""

    attempts = 0

    def __init__(self, context: Any, request: Any) -> None:
        self.context = context
        self.request = request

    def __call__(self) -> str:
        """How often the request ran."""
        SendAndConflict.attempts += 1
        self.context.letter(self.context, self.request)
        site = self.context.getPhysicalRoot()
        site.title = f"attempt {SendAndConflict.attempts}"
        if SendAndConflict.attempts == 1:
            self._somebody_else(site._p_jar.db())
        return f"attempts: {SendAndConflict.attempts}"

    def _somebody_else(self, database: Any) -> None:
        own = transaction.TransactionManager()
        connection = database.open(transaction_manager=own)
        connection.root()["Application"].title = "somebody else was here"
        own.commit()
        connection.close()
