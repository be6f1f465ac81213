"""The story: all scenes one after the other, then what was committed against what was delivered."""

from __future__ import annotations

from collections.abc import Callable

import transaction
from transaction.interfaces import TransactionError

from zope.sendmail.demo import flood, scenes
from zope.sendmail.demo.ledger import Account, Balance, Surprise, balance, strangers, table, total
from zope.sendmail.demo.narrator import Narrator
from zope.sendmail.demo.scenes import Act
from zope.sendmail.demo.shop import visit
from zope.sendmail.demo.stage import PATIENCE, Stage
from zope.sendmail.errors import MailError
from zope.sendmail.interfaces import IMailUnknownEvent
from zope.sendmail.reporting import notifier

#: The scenes, by the titles that they have in the table.
SCENES: dict[str, Callable[[Act], str]] = {
    "A commit sends": scenes.commit,
    "An abort sends nothing": scenes.abort,
    "A savepoint rollback drops just the later mail": scenes.savepoint,
    "A conflict and its retry send once": scenes.conflict,
    "Several mails come in order": scenes.several,
    "Three processes share a queue, one is killed": flood.shared_queue,
}

_FAILURES = (Surprise, MailError, TransactionError, OSError)


def tell(stage: Stage, narrator: Narrator) -> bool:
    """Play all scenes and draw the balance; whether everything was as it must be."""
    accounts, well = [], True
    for number, (title, scene) in enumerate(SCENES.items(), 1):
        account = Account(title)
        accounts.append(account)
        narrator.title(f"{number}. {title}")
        try:
            narrator.right(scene(Act(stage, account, narrator)))
        except _FAILURES as error:
            transaction.abort()
            narrator.wrong(str(error) or type(error).__name__)
            well = False
    return draw_balance(stage, accounts, narrator) and well


def draw_balance(stage: Stage, accounts: list[Account], narrator: Narrator) -> bool:
    """Committed against delivered, for every scene; whether all agree."""
    add_own_unknowns(stage, accounts)
    delivered = stage.catcher.delivered()
    balances = [balance(account, delivered) for account in accounts]
    whole = total(balances, strangers(accounts, delivered))
    narrator.title("Committed against delivered")
    for line in table([*balances, whole], narrator.marks):
        narrator.row(line)
    narrator.title("Result")
    for fault in whole.faults:
        narrator.wrong(fault)
    stored = stored_orders(stage)
    if stored != whole.committed:
        narrator.wrong(f"The database has {stored} orders, but {whole.committed} mails were committed.")
    elif not whole.faults:
        narrator.right(conclusion(whole))
    return stored == whole.committed and not whole.faults


def add_own_unknowns(stage: Stage, accounts: list[Account]) -> None:
    """Add what this process itself recorded as unknown; nothing, unless the machine is in deep trouble."""
    notifier.flush(PATIENCE)
    for event in filter(IMailUnknownEvent.providedBy, list(stage.events)):
        for account in accounts:
            account.unknown[event.messageId] += event.messageId in account.handed


def conclusion(whole: Balance) -> str:
    """Return what the table says, in a sentence."""
    count = whole.committed
    text = f"{count} orders in the database, {count} mails committed, the same {count} delivered"
    if not whole.again:
        return f"{text}, each once."
    copies = "1 came a second time" if whole.again == 1 else f"{whole.again} copies came in addition"
    return f"{text}; {copies}, which is what the queue had recorded as unknown."


def stored_orders(stage: Stage) -> int:
    """Return how many orders the database has."""
    with visit(stage.database) as shop:
        return shop.count_orders()
