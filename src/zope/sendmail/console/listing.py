"""A page of mails: those behind a mail that still fit, read anew."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from zope.sendmail.interfaces import IMailQueueAdmin
from zope.sendmail.lifecycle.queuedmail import QueuedMail
from zope.sendmail.lifecycle.selection import Selection
from zope.sendmail.maildir import age_key
from zope.sendmail.system.clock import Clock

#: Mails on one page.
PAGE = 50


@dataclass(frozen=True, slots=True)
class MailPage:
    """Mails, oldest first."""

    mails: Sequence[QueuedMail]
    #: The name behind which the next page begins; empty if there is none.
    behind: str


def page_of(
    admin: IMailQueueAdmin,
    names: Sequence[str],
    selection: Selection,
    behind: str,
    *,
    clock: Clock,
    patience: float,
) -> MailPage:
    """Return the mails that are still there, and still fit.

    :param names: those that may be shown, oldest first
    :param behind: only mails behind this one, which may have gone; empty: from the first
    :param patience: seconds after which the page is shown as it is: where mail leaves quickly, most of the names that
        were known a moment ago have gone
    """
    until = clock.monotonic() + patience
    found: list[QueuedMail] = []
    for some in _in_pieces(names, place_behind(names, behind)):
        found += filter(selection.matches, admin.these(some))
        if len(found) > PAGE:
            return MailPage(found[:PAGE], found[PAGE - 1].name)
        if clock.monotonic() >= until:
            return MailPage(found, some[-1] if some[-1] != names[-1] else "")
    return MailPage(found, "")


def fitting(admin: IMailQueueAdmin, names: Sequence[str], selection: Selection, behind: str) -> Iterator[str]:
    """Yield the names behind a mail of those that are still there, and still fit."""
    for some in _in_pieces(names, place_behind(names, behind)):
        yield from (mail.name for mail in admin.these(some) if selection.matches(mail))


def place_behind(names: Sequence[str], name: str) -> int:
    """Return where to go on behind the mail of this name, which may have gone."""
    if not name:
        return 0
    try:
        return names.index(name) + 1
    except ValueError:
        return bisect_right(names, age_key(name), key=age_key)


def _in_pieces(names: Sequence[str], start: int) -> Iterator[Sequence[str]]:
    return (names[at : at + PAGE + 1] for at in range(start, len(names), PAGE + 1))
