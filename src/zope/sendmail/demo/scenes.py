"""The scenes with one process: each a promise of this package, and what really happens.

A scene does what an application does and returns the sentence that came true, or raises `Surprise`.  Mails
that were aborted are not waited for: nothing of them may be in the queue, and at the end, when all that was
committed later has come, none of them may have.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import transaction

from zope.sendmail.demo.ledger import Account, Surprise
from zope.sendmail.demo.narrator import Narrator
from zope.sendmail.demo.shop import visit
from zope.sendmail.demo.stage import Stage


@dataclass(frozen=True)
class Act:
    """What a scene has to work with."""

    stage: Stage
    account: Account
    narrator: Narrator


def commit(act: Act) -> str:
    """Return a commit is delivered."""
    stage, account = act.stage, act.account
    with visit(stage.database) as shop:
        account.handed.append(shop.order("ann@example.org", "Your order"))
        if stage.catcher.caught():
            raise Surprise("The mail left before its transaction committed.")
        began = time.monotonic()
        transaction.commit()
    account.committed += account.handed
    stage.wait_for(account.committed)
    seconds = stage.catcher.caught()[0].moment - began
    return f"The order is stored; the catcher had its mail {seconds * 1000:.1f} ms after the call of commit()."


def abort(act: Act) -> str:
    """Return an abort sends nothing."""
    stage = act.stage
    with visit(stage.database) as shop:
        act.account.handed.append(shop.order("bob@example.org", "Your order"))
        staged = dict(stage.queue().admin.count())
        transaction.abort()
    left = dict(stage.queue().admin.count())
    if left or not staged:
        raise Surprise(f"The queue had {staged or 'nothing'} before the abort, {left or 'nothing'} after it.")
    return "No order, no mail: the mail was on the disk already, and abort() took it away again."


def savepoint(act: Act) -> str:
    """Return a savepoint rollback drops just the later mail."""
    account = act.account
    with visit(act.stage.database) as shop:
        account.handed.append(shop.order("cleo@example.org", "Your order"))
        point = transaction.savepoint()
        account.handed.append(shop.order("cleo@example.org", "Your second thought"))
        point.rollback()
        transaction.commit()
    account.committed.append(account.handed[0])
    act.stage.wait_for(account.committed)
    return "An order, a savepoint, another order, a rollback, a commit: the first mail came, no other."


def conflict(act: Act) -> str:
    """Return a conflict makes the transaction run again; its mail leaves once."""
    account = act.account
    with visit(act.stage.database) as shop:
        for attempt in transaction.manager.attempts(3):
            with attempt:
                account.handed.append(shop.order("dan@example.org", "Your order"))
                if len(account.handed) == 1:
                    buy_first(act.stage)
    account.committed.append(account.handed[-1])
    if len(account.handed) != 2:
        raise Surprise(f"One conflict was made, but the transaction ran {len(account.handed)} times.")
    act.stage.wait_for(account.committed)
    return "Another visitor was faster (a real ZODB conflict), so the transaction ran twice; one mail came."


def buy_first(stage: Stage) -> None:
    """Change in another transaction, which commits before ours, what ours has changed too."""
    with stage.database.transaction() as connection:
        connection.root()["stock"]["left"] -= 1


def several(act: Act) -> str:
    """Several mails of one transaction come in their order."""
    account = act.account
    with visit(act.stage.database) as shop:
        account.handed += [shop.order("eve@example.org", f"Parcel {number} of 10") for number in range(1, 11)]
        transaction.commit()
    account.committed += account.handed
    act.stage.wait_for(account.committed)
    mine = set(account.committed)
    came = [mail.message_id for mail in act.stage.catcher.caught() if mail.message_id in mine]
    if came != account.committed:
        raise Surprise("The mails did not come in the order in which they were sent.")
    return "Ten mails in one transaction: all came, in the order in which they were sent."
