"""What an application's connection has to be able to do, so that mail can follow its transactions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from zope.interface import Attribute, Interface


class IApplicationConnection(Interface):
    """The connection of an application to the database in which a queue is."""

    is_open = Attribute("Whether a transaction is open in which statements can be executed now.")

    def execute(statement: str, parameters: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """Execute a statement in the application's transaction, which begins with it if there is none.

        :param statement: SQL with ``%(name)s`` for the parameters.
        :returns: its rows; nothing if it has none.
        """

    def on_commit(call: Callable[[], object]) -> None:
        """Call something when the transaction has committed, where that can be had."""
