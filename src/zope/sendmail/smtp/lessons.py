"""What an attempt at a mail teaches about its relay, when the mail is begun anew for some reason and then goes.

What helped is remembered (`zope.sendmail.smtp.relaymemory`); what did not says nothing.  Concurrency: one thread at
a time.
"""

from __future__ import annotations

import smtplib
from collections.abc import Callable
from functools import partial

from zope.sendmail.smtp.connect import leave_address
from zope.sendmail.smtp.openconnection import OpenConnection
from zope.sendmail.smtp.protocol.progress import Progress
from zope.sendmail.smtp.startover import (
    StartOver,
    is_about_server,
    reason_to_start_over,
    smaller_limit,
    told_mails_per_connection,
)

_Lesson = Callable[[], None]


class Lessons:
    """The reasons for which one mail was begun anew, each once, and what each teaches."""

    def __init__(self) -> None:
        self._tried: dict[StartOver, _Lesson] = {}

    @property
    def takes_pipelining(self) -> bool:
        """Whether commands may still go in flights."""
        return StartOver.PIPELINING not in self._tried

    def reason(
        self, progress: Progress, error: smtplib.SMTPException, current: OpenConnection, now: float
    ) -> StartOver | None:
        """Return why the mail is to be begun anew after `error` on the current connection; None: it is not."""
        is_new = current.mails == 1
        elsewhere = is_new and is_about_server(error) and leave_address(current.raw)
        reason = reason_to_start_over(
            progress, error, is_new=is_new, has_taken=current.has_taken, elsewhere=elsewhere, tried=self._tried
        )
        if reason is StartOver.TOO_MANY_RECIPIENTS:  # ever fewer until it is one
            current.memory.too_many_recipients(smaller_limit(progress, error), now)
        elif reason is not None:  # what another server does says nothing about this one
            self._tried[reason] = _nothing if elsewhere else _lesson(reason, error, current, now)
        return reason

    def learn(self, progress: Progress) -> None:
        """Remember what helped: the relay has taken the sender at the last attempt."""
        if progress.begun:
            for lesson in self._tried.values():
                lesson()


def _lesson(reason: StartOver, error: smtplib.SMTPException, current: OpenConnection, now: float) -> _Lesson:
    """Return what is to be remembered of the relay if another attempt goes better."""
    memory, mails = current.memory, current.mails - 1
    if reason is StartOver.OVERLAP and isinstance(error, smtplib.SMTPServerDisconnected):
        return partial(memory.overlap_failed, now)
    if reason is StartOver.PIPELINING:
        return partial(memory.pipelining_failed, now)
    if reason is StartOver.MAILS_PER_CONNECTION or told_mails_per_connection(error):
        return partial(memory.refused_after, mails, now, told=told_mails_per_connection(error))
    return _nothing


def _nothing() -> None:
    """Learn nothing."""
