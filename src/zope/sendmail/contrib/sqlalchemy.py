"""SQLAlchemy without Zope: mail that follows the transactions of a session.

::

    sender = MailSender("/var/lib/shop/mail", "mail.example.org")

    with Session(engine) as session, session.begin():
        session.add(order)
        sender.bind(SessionTransactions(session)).send("shop@example.org", [order.customer], message)

If the session commits, the mail leaves; if it rolls back, or to a savepoint before the mail, or is closed, nothing was
ever there.  The mail is made certain before the database is asked to commit, and let go after.  A session that
zope.sqlalchemy has joined to the ``transaction`` package works as well.  For a queue in the same PostgreSQL there is a
way without any doubt: ``connection=`` of `zope.sendmail.queue.postgresql.joining`.

Fails as `zope.sendmail.sender.MailWriter.send`; the commit of the session fails with `OSError` if the queue refuses.
"""

from __future__ import annotations

import weakref
from typing import Any

from sqlalchemy import event

from zope.sendmail.contrib.hooks import HookedTransaction

_KEY = "zope.sendmail.contrib.sqlalchemy"


class SessionTransactions:
    """The transactions of a session, in the form that `MailSender.bind` takes.  It is made quickly, for each mail.

    :param session: a session, one of asyncio, a scoped session, or a function that returns the session of this thread.

    The disk of the queue is written in the thread that sends and in the one that commits.
    """

    def __init__(self, session: Any) -> None:
        self._session = session

    def get(self) -> HookedTransaction:
        """Return what mail joins: it follows the innermost transaction of the session, which begins one if needed."""
        session = self._session() if callable(self._session) else self._session
        session = getattr(session, "sync_session", session)
        if not session.in_transaction():
            session.begin()
        return _mail_of(session).current()


def _mail_of(session: Any) -> _SessionMail:
    """Return what keeps the mail of a session; it is made with the first mail."""
    mail: _SessionMail | None = session.info.get(_KEY)
    if mail is None:
        mail = session.info[_KEY] = _SessionMail(session)
    return mail


def _innermost(session: Any) -> Any:
    """Return the transaction of a session in which statements run now: that of a savepoint, or the whole one."""
    return session.get_nested_transaction() or session.get_transaction()


class _SessionMail:
    """The mail of one session, and the hooks that drive it.

    A mail is kept with the transaction, or the savepoint, that it was sent in, until that is committed (a savepoint
    hands it to what is around it).  What is still kept when a transaction ends was not committed, however that came.
    """

    def __init__(self, session: Any) -> None:
        self._kept: dict[Any, HookedTransaction] = {}
        self._session = weakref.ref(session)
        event.listen(session, "before_commit", self._before_commit)
        event.listen(session, "after_commit", self._after_commit)
        event.listen(session, "after_transaction_end", self._after_end)

    def current(self) -> HookedTransaction:
        """Return what mail joins now."""
        return self._kept.setdefault(_innermost(self._session()), HookedTransaction())

    def _before_commit(self, session: Any) -> None:
        ending = _innermost(session)
        if ending in self._kept and not ending.nested:
            self._kept[ending].prepare()

    def _after_commit(self, session: Any) -> None:
        ending = _innermost(session)
        mail = self._kept.pop(ending, None)
        if mail is None:
            return
        if ending.nested:
            around = ending.parent
            while not around.nested and around.parent is not None:
                around = around.parent
            self._kept.setdefault(around, HookedTransaction()).absorb(mail)
        else:
            mail.commit()

    def _after_end(self, session: Any, ending: Any) -> None:
        mail = self._kept.pop(ending, None)
        if mail is not None:
            mail.abort()
