"""Transactions of frameworks that call hooks when theirs begin to commit, have committed, or are given up.

Such a transaction takes the place of one of the ``transaction`` package, so that mail joins it as it joins
those.  Fails with what the mails raise in `HookedTransaction.prepare`; the other steps do not raise.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Any

from zope.sendmail.reporting import maillog


class HookedTransaction:
    """What mail joins, and what the hooks of a framework drive.

    Guarantee: mail leaves only after `commit`; whatever else happens to the transaction, also that it is forgotten,
    removes the mail.  Between the commit of the framework and `commit` a death of the process leaves it in the
    queue's list of staged mail.  Concurrency: that of the framework's transaction, one thread at a time.
    """

    def __init__(self) -> None:
        self._resources: list[Any] = []
        self._data: dict[int, Any] = {}
        self._is_prepared = False

    def data(self, key: object) -> Any:
        """Return what `set_data` keeps for `key`.

        :raises KeyError: nothing.
        """
        self._is_prepared = False  # it is asked for by each mail
        return self._data[id(key)]

    def set_data(self, key: object, value: Any) -> None:
        """Keep something for `key`, which the value keeps alive."""
        self._data[id(key)] = value

    def join(self, resource: Any) -> None:
        """Add a data manager; see `transaction.interfaces.IDataManager`."""
        self._resources.append(resource)
        self._is_prepared = False

    def absorb(self, inner: HookedTransaction) -> None:
        """Take over the mail of a transaction inside of this one, such as a savepoint that is released."""
        for resource in inner._resources:
            self.join(resource)
        inner._resources = []

    def prepare(self) -> None:
        """Make sure that the mail can leave; the last step that may raise, and may be repeated."""
        if not self._is_prepared:
            for resource in self._in_order():
                resource.tpc_begin(self)
                resource.commit(self)
                resource.tpc_vote(self)
            self._is_prepared = True

    def commit(self) -> None:
        """Let the mail leave: the framework's transaction has committed.  Harmless if it is over.

        Mail that came between `prepare` and the commit, from other hooks, is prepared now; what fails then is logged.
        """
        try:
            self.prepare()
        except Exception as error:  # noqa: BLE001 - the framework has committed; raising would only hide that
            maillog.finish_failed("mail that was sent while its transaction committed", error)
        resources, self._resources = self._in_order(), []
        for resource in resources:
            resource.tpc_finish(self)

    def abort(self) -> None:
        """Remove the mail.  Harmless if it is over."""
        resources, self._resources = self._in_order(), []
        for resource in resources:
            resource.abort(self)

    def _in_order(self) -> list[Any]:
        return sorted(self._resources, key=lambda resource: resource.sortKey())


class OneTransaction:
    """A transaction manager whose current transaction is always the given one; for ``MailSender.bind``."""

    def __init__(self, transaction: HookedTransaction) -> None:
        self._transaction = transaction

    def get(self) -> HookedTransaction:
        """Return the transaction."""
        return self._transaction


def abort_if_forgotten(hook: Callable[[], object], transaction: HookedTransaction) -> None:
    """Remove the mail of `transaction` when the framework lets go of `hook` without having called it.

    Frameworks with a hook after the commit, and none for a rollback, forget the former in a rollback.

    :param hook: a function that the framework alone keeps; must not be kept by `transaction`.
    """
    weakref.finalize(hook, _abort_here, transaction, os.getpid())


def _abort_here(transaction: HookedTransaction, pid: int) -> None:
    """Abort, unless this is a forked child: the mail is its parent's."""
    if pid == os.getpid():
        transaction.abort()
