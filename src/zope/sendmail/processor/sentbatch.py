"""The mails of one conversation that were sent at their first attempt, and whose leases end together.

The relay's yes to a mail is noted at once (`IOrdinaryLease.accepted`), so that a death makes nothing of it unknown.
What follows from it is done for some sixteen mails at a time, within a hundredth of a second, and while the relay has
the next mail.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

from zope.sendmail.interfaces import ISession
from zope.sendmail.lifecycle.outcome import Answer, Outcome
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.retry import sent_at_once
from zope.sendmail.processor.context import Context
from zope.sendmail.processor.job import Job
from zope.sendmail.processor.relay import Relay
from zope.sendmail.reporting import maillog
from zope.sendmail.reporting.reporter import Attempted, MailId, Measures

#: So many mails, and so many seconds from the first of them on; twice as much if the relay has no mail meanwhile.
_MOST, _SPAN = 16, 0.01


class SentBatch:
    """See the module.

    :param session: of the worker; may tell how long the relay was waited for (``waited()``)
    :param grows: whether the session says when a mail may take long (``lets_go``); else each mail ends by itself

    Concurrency: one thread.
    """

    def __init__(self, context: Context, relay: Relay, session: ISession, *, grows: bool) -> None:
        self._context = context
        self._relay = relay
        self._most = 2 * _MOST if grows else 1
        self._mails: list[tuple[Job, Outcome, Measures | None]] = []
        self._since = 0.0
        self._waited: Callable[[], float] = getattr(session, "waited", _not_known)
        self._error: Exception | None = None
        #: Whether the yes to a mail teaches nothing about the relay, as long as nothing else is heard of it.
        self._is_usual, self._news = False, -1

    def takes(self, job: Job, outcome: object) -> bool:
        """Return whether a mail may end here: the relay has taken it for all its recipients, as most mails."""
        if job.text is None or not isinstance(outcome, Outcome) or outcome.fault is not None:
            return False
        replies, recipients = outcome.replies, job.envelope.recipients
        if len(replies) != len(recipients):
            return False
        for recipient in recipients:
            if recipient not in replies or replies[recipient].answer is not Answer.ACCEPTED:
                return False
        if not self._mails or self._relay.news != self._news:
            self._news = self._relay.news
            # With a rate the next mail may have to wait for its turn.
            self._is_usual = self._relay.is_usual and not self._relay.has_rate
        return self._is_usual

    def add(self, job: Job, outcome: Outcome, measures: Measures | None) -> None:
        """Take a mail; its lease ends soon.

        :param measures: for observers
        """
        lease: Any = job.lease
        lease.accepted()
        mails, now = self._mails, self._context.clock.monotonic()
        if not mails:
            self._since = now
        mails.append((job, outcome, measures))
        if now >= self._since + 2 * _SPAN or len(mails) >= self._most or self._error is not None:
            self.end()

    def end_in_time(self) -> None:
        """Do as `end_quietly` if it is time to."""
        mails = self._mails
        if mails and (len(mails) >= _MOST or self._context.clock.monotonic() - self._since >= _SPAN):
            self.end_quietly()

    def end(self) -> None:
        """Settle and report what was added.  If that fails, the leases stay, as with any mail.

        Raises what has failed, now or in `end_quietly`.
        """
        self.end_quietly()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def end_quietly(self) -> None:
        """Do the same, but let the next `end` raise what fails."""
        mails, self._mails = self._mails, []
        if not mails:
            return
        try:
            self._end(mails)
        except Exception as error:  # noqa: BLE001 - it is raised by `end`
            for job, _, _ in mails:
                maillog.not_settled(job.lease.name, error)
            self._error = error

    def _end(self, mails: list[tuple[Job, Outcome, Measures | None]]) -> None:
        context, now = self._context, self._context.clock.time()
        self._relay.took(len(mails), mails[0][1].relay)
        self._measure(len(mails))
        together: list[tuple[Any, Outcome, Record]] = [
            (job.lease, outcome, sent_at_once(outcome, now=now)) for job, outcome, _ in mails
        ]
        together[0][0].settle_sent(together)
        context.reporter.sent(
            (
                Attempted(MailId(lease.name, lease.message_id, lease.envelope.sender), outcome, record, measures)
                for (lease, outcome, record), (_, _, measures) in zip(together, mails, strict=True)
            ),
            sum([len(outcome.replies) for _, outcome, _ in mails]),
        )
        context.state_report.count_sent([lease.written for lease, _, _ in together])

    def _measure(self, mails: int) -> None:
        """Tell what the mails have cost, with those of other conversations that this thread carries.

        The first batch of a thread only begins it; the first mails of a connection go another way, untimed.
        """
        lanes = self._relay.lanes
        cpu = lanes.used(self._context.clock.thread_cpu())
        if cpu is not None and ((wait := self._waited()) < inf or self._waited is _not_known):
            lanes.note(mails, cpu, wait)
        lanes.note_taken()


def _not_known() -> float:
    """Return how long the relay was waited for, where the session does not tell."""
    return inf
