"""Committed against delivered: what the story promised, and what came.  Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


class Surprise(Exception):
    """Something did not happen as it must; the text says what."""


@dataclass
class Account:
    """The mails of one scene, by Message-Id."""

    title: str
    #: What ``send()`` returned, whatever became of the transaction.
    handed: list[str] = field(default_factory=list)
    committed: list[str] = field(default_factory=list)
    #: Attempts whose outcome cannot be known: recorded by the queue and told by `IMailUnknownEvent`.
    unknown: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Balance:
    """An account, compared with what came."""

    title: str
    handed: int
    committed: int
    #: Different mails that came.
    delivered: int
    #: Copies beyond the first.
    again: int
    #: Attempts recorded as unknown.
    unknown: int
    #: What is wrong, for people; nothing if all agrees.
    faults: tuple[str, ...]


def balance(account: Account, delivered: Mapping[str, int]) -> Balance:
    """Compare: each committed mail must have come, no other, and copies only after an unknown outcome."""
    came = {mail: delivered[mail] for mail in account.handed if delivered.get(mail)}
    committed = set(account.committed)
    missing = [mail for mail in account.committed if mail not in came]
    uncommitted = [mail for mail in came if mail not in committed]
    repeated = [mail for mail in came if came[mail] - 1 > account.unknown[mail]]
    faults = [
        *(f"Missing: <{mail}> was committed and did not come." for mail in missing),
        *(f"Too much: <{mail}> was not committed and came." for mail in uncommitted),
        *(f"Too much: <{mail}> came {came[mail]} times, unknown: {account.unknown[mail]}." for mail in repeated),
    ]
    return Balance(
        account.title,
        len(account.handed),
        len(committed),
        len(came),
        sum(came.values()) - len(came),
        account.unknown.total(),
        tuple(faults),
    )


def strangers(accounts: Iterable[Account], delivered: Iterable[str]) -> tuple[str, ...]:
    """Faults for what came and belongs to no account."""
    known = {mail for account in accounts for mail in account.handed}
    return tuple(f"Too much: <{mail}> came, and no page sent it." for mail in delivered if mail not in known)


_HEADINGS = ("", "send()", "committed", "delivered", "again", "unknown")


def table(balances: Iterable[Balance], marks: tuple[str, str]) -> list[str]:
    """Return the lines of the table; `marks` stand for right and wrong."""
    rows = [
        (
            each.title,
            *map(str, (each.handed, each.committed, each.delivered, each.again, each.unknown)),
            marks[bool(each.faults)],
        )
        for each in balances
    ]
    cells = [(*_HEADINGS, ""), *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(_HEADINGS))]
    return [
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(text.rjust(width) for text, width in zip(row[1:-1], widths[1:], strict=True)),
            ]
        )
        + f"  {row[-1]}".rstrip()
        for row in cells
    ]


def total(balances: Iterable[Balance], faults: Iterable[str] = ()) -> Balance:
    """Return all balances together, with further `faults`."""
    all_of = list(balances)
    return Balance(
        "Together",
        sum(each.handed for each in all_of),
        sum(each.committed for each in all_of),
        sum(each.delivered for each in all_of),
        sum(each.again for each in all_of),
        sum(each.unknown for each in all_of),
        (*(fault for each in all_of for fault in each.faults), *faults),
    )
