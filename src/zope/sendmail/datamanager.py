"""The mails of one transaction on their way through the two-phase commit.

One data manager belongs to one transaction and one delivery.  It sorts last, so mail is prepared after the
databases have voted and leaves after they have finished; what may fail happens in the vote.  Guarantee:
``tpc_finish`` and ``abort`` do not raise. Contract: `transaction.interfaces.ISavepointDataManager`.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import math
import os
import sys
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import transaction
from transaction.interfaces import IDataManagerSavepoint, ISavepointDataManager, NoTransaction
from zope.interface import implementer

from zope.sendmail.interfaces import IStagedMail
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.pieces import Piece
from zope.sendmail.reporting import maillog
from zope.sendmail.smtp.voting import voting_about_relay
from zope.sendmail.system.clock import Clock
from zope.sendmail.system.forklock import ForkLock

#: Sorts behind every name a storage can have: no text has a greater first character.
_LAST = "\U0010ffff"

_joined = itertools.count()

#: Seconds after which a transaction that has mail and does not end is told of.
PATIENCE = 600.0


class UnendedTransactions:
    """Mail whose transaction has neither been committed nor aborted yet.

    The usual cause is a delivery that follows the thread's transaction where the program commits another one, such as
    ``request.tm`` in Pyramid: nothing fails, and the mail never leaves.

    Concurrency: any thread.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._mutex = ForkLock()
        #: Since when, and the mails, oldest first.
        self._since: dict[int, tuple[float, weakref.ref[TransactionMails]]] = {}

    def add(self, mails: TransactionMails) -> None:
        """Take note of a transaction that has begun to send, and tell of old ones."""
        now = self._clock.monotonic()
        self.tell(before=now - PATIENCE)
        with self._mutex:
            self._since[id(mails)] = now, weakref.ref(mails)

    def remove(self, mails: TransactionMails) -> None:
        """Forget a transaction that has ended."""
        with self._mutex:
            self._since.pop(id(mails), None)

    def tell(self, *, before: float = math.inf) -> None:
        """Log each transaction that has sent since a time before `before`, once."""
        now = self._clock.monotonic()
        with self._mutex:
            old = {key: each for key, each in self._since.items() if each[0] <= before}
            for key in old:
                del self._since[key]
        for since, reference in old.values():
            mails = reference()
            if mails is not None and not mails.ended and len(mails):
                maillog.transaction_unended(mails.what, len(mails), now - since)

    def forget_after_fork(self) -> None:
        """Forget all of them in a forked child: they are its parent's."""
        self._since = {}


unended = UnendedTransactions(Clock())
atexit.register(unended.tell)
os.register_at_fork(after_in_child=unended.forget_after_fork)


@implementer(ISavepointDataManager)
class TransactionMails:
    """See `ISavepointDataManager`.

    :param key: the delivery.
    :param staged: the mails.
    :param what: names the delivery in the log.
    :param transaction_manager: whose current transaction the mails follow.

    A transaction knows `key`, the delivery, by its address only; kept here, no other can get that address meanwhile.
    """

    def __init__(self, key: object, staged: IStagedMail, what: str, transaction_manager: Any) -> None:
        self._whose = key
        self._staged = staged
        self.what = what
        self._pid = os.getpid()
        self.transaction_manager = transaction_manager
        self._key = f"{_LAST}zope.sendmail:{next(_joined):020d}"
        #: Whether the transaction has let go of it: aborted, or rolled back to before the first mail.
        self.ended = False

    def __len__(self) -> int:
        return len(self._staged)

    def __del__(self) -> None:
        """Tell of mail whose transaction is gone, with its thread or its request, and was never ended.

        Nothing can commit it any more, so it is removed.
        """
        if sys.is_finalizing() or self.ended or self._pid != os.getpid() or not len(self._staged):
            return  # at the end of the program `UnendedTransactions` has told it
        maillog.transaction_lost(self.what, len(self._staged))
        with contextlib.suppress(Exception):
            self._staged.abort()

    def _end(self) -> None:
        self.ended = True
        unended.remove(self)

    def add_all(self, envelopes: Iterable[Envelope], *message: Piece) -> None:
        """Add a mail of this transaction for each envelope, or none.

        :raises QueueError: the queue's disk refuses.
        """
        before = len(self._staged)
        try:
            for envelope in envelopes:
                self._staged.add(envelope, *message)
        except BaseException:  # the caller may go on and commit
            self._staged.rollback(before)
            raise

    def savepoint(self) -> MailSavepoint:
        """Return a point to which its `rollback` leads back."""
        return MailSavepoint(self._staged)

    def abort(self, transaction: Any) -> None:
        """Remove the mails."""
        self._end()
        try:
            self._staged.abort()
        except Exception as error:  # noqa: BLE001 - an abort has to go on
            maillog.abort_failed(self.what, error)

    def tpc_begin(self, transaction: Any) -> None:
        """Do nothing: the mails were staged when they were sent."""

    def commit(self, transaction: Any) -> None:
        """Do nothing: `tpc_vote` comes after every database has written its data."""

    def tpc_vote(self, transaction: Any) -> None:
        """Make sure that the mails can leave.  The last step that may raise."""
        self._staged.prepare()

    def tpc_finish(self, transaction: Any) -> None:
        """Let the mails leave."""
        self._end()
        try:
            self._staged.commit()
        except Exception as error:  # noqa: BLE001 - the databases have committed; raising would only hide that
            maillog.finish_failed(self.what, error)

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


def current_of(transaction_manager: Any) -> Any:
    """Return the current transaction of a manager.

    :raises NoTransaction: an explicit one has not begun any; the text says what to do.
    """
    try:
        return transaction_manager.get()
    except NoTransaction:
        raise NoTransaction(
            "the mail follows a transaction manager that is explicit, and no transaction has begun; begin one first: "
            "manager.begin(), `with manager:`, or pyramid_tm for a request"
        ) from None


def joined_mails(
    key: object, transaction_manager: Any, stage: Callable[[], IStagedMail], what: str
) -> TransactionMails:
    """Return the data manager of `key` in the current transaction; it is made and joined if there is none yet.

    :param key: the delivery.
    :param transaction_manager: whose current transaction is meant.
    :param stage: makes an empty group for its mails.
    :param what: names the delivery in the log.
    """
    current = current_of(transaction_manager)
    try:
        mails = current.data(key)
    except KeyError:
        mails = None
    if mails is None or mails.ended:
        mails = TransactionMails(key, stage(), what, transaction_manager)
        current.join(mails)
        current.set_data(key, mails)
        unended.add(mails)
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
        """Do nothing."""

    def abort(self, transaction: Any) -> None:
        """Call `onAbort`."""
        if self.onAbort is not None:
            self.onAbort()

    def sortKey(self) -> str:
        """Behind all databases."""
        return self._key

    def savepoint(self) -> MailDataManager:
        """Remember nothing: a mail that joined after a savepoint is aborted by the transaction itself."""
        return self

    def rollback(self) -> None:
        """Do nothing, see `savepoint`."""

    def tpc_begin(self, transaction: Any, subtransaction: bool = False) -> None:  # noqa: FBT001, FBT002 - API since 3.5
        """Do nothing."""

    def tpc_vote(self, transaction: Any) -> None:
        """Call `vote`, which may raise.  A mailer of ours asks about no recipient then, as in 7.3."""
        if self.vote is not None:
            with voting_about_relay():
                self.vote(*self.args)

    def tpc_finish(self, transaction: Any) -> None:
        """Call `callable`; what it raises is logged."""
        try:
            self.callable(*self.args)
        except Exception as error:  # noqa: BLE001 - as in `TransactionMails`
            maillog.finish_failed("a mail", error)

    tpc_abort = abort

    def abort_sub(self, transaction: Any) -> None:
        """Do nothing."""

    commit_sub = beforeCompletion = afterCompletion = abort_sub
