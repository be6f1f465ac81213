"""Mail of a queue in a database whose first attempt is made by the process that commits it: direct delivery.

That process is one more processor meanwhile, so after a death everything is as after that of a processor.  A processor
that looks in the moment between commit and claim may be faster.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zope.interface import implementer

from zope.sendmail.errors import QueueError
from zope.sendmail.interfaces import IFirstAttempts
from zope.sendmail.queue.postgresql.claims import Claims
from zope.sendmail.queue.postgresql.lease import PostgreSQLLease
from zope.sendmail.reporting import maillog


@implementer(IFirstAttempts)
class PostgreSQLFirstAttempts:
    """See `IFirstAttempts`.

    :param make: makes what leases are a part of.
    :param announce: tells processors that there is something for them.
    """

    def __init__(self, make: Callable[[], Claims], announce: Callable[[], object]) -> None:
        self._make = make
        self._announce = announce
        self._claims: Claims | None = None
        self._leases: dict[str, PostgreSQLLease] = {}

    def commit(self, staged: Any) -> None:
        """See `IFirstAttempts`."""
        if not staged.reveal():
            return
        try:
            if self._claims is None:
                claims = self._make()
                claims.start()
                self._claims = claims
            self._leases |= {lease.name: lease for lease in self._claims.claim_these(staged.ids)}
        except QueueError as error:
            maillog.left_to_processors(", ".join(map(str, staged.ids)), error)

    def claim(self, name: str) -> PostgreSQLLease | None:
        """See `IFirstAttempts`."""
        return self._leases.pop(name, None)

    def leave(self, name: str) -> None:
        """See `IFirstAttempts`."""
        lease = self._leases.pop(name, None)
        if lease is not None:
            lease.release()

    def close(self) -> None:
        """See `IFirstAttempts`."""
        for name in list(self._leases):
            self.leave(name)
        if self._claims is not None:
            self._claims.close()
        self._announce()
