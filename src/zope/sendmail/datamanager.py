"""The mails of one transaction on their way through the two-phase commit.

One data manager belongs to one transaction and one delivery.  It sorts last, so mail is prepared after the
databases have voted and leaves after they have finished; what may fail happens in the vote.  Guarantee:
``tpc_finish`` and ``abort`` do not raise. Contract: `transaction.interfaces.ISavepointDataManager`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import transaction
from transaction.interfaces import IDataManagerSavepoint, ISavepointDataManager
from zope.interface import implementer

from zope.sendmail.interfaces import IStagedMail
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.pieces import Piece
from zope.sendmail.reporting import maillog

#: Sorts behind every name a storage can have: no text has a greater first character.
_LAST = "\U0010ffff"

_joined = itertools.count()


@implementer(ISavepointDataManager)
class TransactionMails:
    """See `ISavepointDataManager`.  `what` names the delivery in the log.

    A transaction knows `key`, the delivery, by its address only; kept here, no other can get that address meanwhile.
    """

    def __init__(self, key: object, staged: IStagedMail, what: str, transaction_manager: Any) -> None:
        self._whose = key
        self._staged = staged
        self._what = what
        self.transaction_manager = transaction_manager
        self._key = f"{_LAST}zope.sendmail:{next(_joined):020d}"
        #: Whether the transaction has let go of it: aborted, or rolled back to before the first mail.
        self.ended = False

    def add_all(self, envelopes: Iterable[Envelope], *message: Piece) -> None:
        """One more mail of this transaction for each envelope, or none: raises `OSError`."""
        before = len(self._staged)
        try:
            for envelope in envelopes:
                self._staged.add(envelope, *message)
        except BaseException:  # who called may go on and commit
            self._staged.rollback(before)
            raise

    def savepoint(self) -> MailSavepoint:
        """A point to which `rollback` leads back."""
        return MailSavepoint(self._staged)

    def abort(self, transaction: Any) -> None:
        """Remove the mails."""
        self.ended = True
        try:
            self._staged.abort()
        except Exception as error:  # noqa: BLE001 - an abort has to go on
            maillog.abort_failed(self._what, error)

    def tpc_begin(self, transaction: Any) -> None:
        """Nothing to do: the mails were staged when they were sent."""

    def commit(self, transaction: Any) -> None:
        """Nothing to do: `tpc_vote` comes after every database has written its data."""

    def tpc_vote(self, transaction: Any) -> None:
        """Make sure that the mails can leave.  The last step that may raise."""
        self._staged.prepare()

    def tpc_finish(self, transaction: Any) -> None:
        """Let the mails leave."""
        self.ended = True
        try:
            self._staged.commit()
        except Exception as error:  # noqa: BLE001 - the databases have committed; raising would only hide that
            maillog.finish_failed(self._what, error)

    tpc_abort = abort

    def sortKey(self) -> str:
        """Behind all databases; in the order in which deliveries joined."""
        return self._key


@implementer(IDataManagerSavepoint)
class MailSavepoint:
    """See `IDataManagerSavepoint`."""

    def __init__(self, staged: IStagedMail) -> None:
        self._staged = staged
        self._count = len(staged)

    def rollback(self) -> None:
        """Remove the mails that came later."""
        self._staged.rollback(self._count)


def mails_of(key: object, transaction_manager: Any, stage: Callable[[], IStagedMail], what: str) -> TransactionMails:
    """The data manager of `key` in the current transaction; it is made and joined if there is none yet."""
    current = transaction_manager.get()
    try:
        mails = current.data(key)
    except KeyError:
        mails = None
    if mails is None or mails.ended:
        mails = TransactionMails(key, stage(), what, transaction_manager)
        current.join(mails)
        current.set_data(key, mails)
    return mails  # type: ignore[no-any-return]  # transaction keeps data untyped


# BBB: the data manager of zope.sendmail 3.5 to 7.3, one for each mail; used by `createDataManager`.


@implementer(ISavepointDataManager)
class MailDataManager:
    """Calls `vote` in the vote and `callable` in the second phase, both with `args`; `onAbort` on abort."""

    def __init__(
        self,
        callable: Callable[..., object],
        args: Sequence[Any] = (),
        vote: Callable[..., object] | None = None,
        onAbort: Callable[[], object] | None = None,
    ) -> None:
        self.callable = callable
        self.args = args
        self.vote = vote
        self.onAbort = onAbort
        self.transaction_manager = transaction.manager
        self._key = f"{_LAST}zope.sendmail:{next(_joined):020d}"

    def commit(self, transaction: Any) -> None:
        """Nothing to do."""

    def abort(self, transaction: Any) -> None:
        """Call `onAbort`."""
        if self.onAbort is not None:
            self.onAbort()

    def sortKey(self) -> str:
        """Behind all databases."""
        return self._key

    def savepoint(self) -> MailDataManager:
        """Nothing to remember: a mail that joined after a savepoint is aborted by the transaction itself."""
        return self

    def rollback(self) -> None:
        """Nothing to do, see `savepoint`."""

    def tpc_begin(self, transaction: Any, subtransaction: bool = False) -> None:  # noqa: FBT001, FBT002 - API since 3.5
        """Nothing to do."""

    def tpc_vote(self, transaction: Any) -> None:
        """Call `vote`, which may raise."""
        if self.vote is not None:
            self.vote(*self.args)

    def tpc_finish(self, transaction: Any) -> None:
        """Call `callable`; what it raises is logged."""
        try:
            self.callable(*self.args)
        except Exception as error:  # noqa: BLE001 - as in `TransactionMails`
            maillog.finish_failed("a mail", error)

    tpc_abort = abort

    def abort_sub(self, transaction: Any) -> None:
        """Nothing to do."""

    commit_sub = beforeCompletion = afterCompletion = abort_sub
