"""Whether this is still the process in which something was made: a forked child has a copy that is not its own."""

from __future__ import annotations

import os

from zope.sendmail.errors import QueueError


class OwnProcess:
    """The process in which this object was made."""

    def __init__(self) -> None:
        self._pid = os.getpid()

    def is_here(self) -> bool:
        """Say whether it is the one that asks."""
        return self._pid == os.getpid()

    def check(self, mails: int) -> None:
        """Refuse to go on with the mails of a transaction in a forked child: its parent's transaction decides.

        :param mails: how many there are; without any there is nothing to refuse.
        :raises QueueError: this is another process.
        """
        if mails and not self.is_here():
            raise QueueError(
                f"{mails} mails were sent by process {self._pid}, from which this one was forked, and leave if its "
                "transaction commits; abort the transaction in the child, and begin another one there"
            )
