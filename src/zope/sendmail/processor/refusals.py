"""What a sender or the suppression list has decided about mail, and no relay has to be asked.

Mail is given up at the moment that its sender has set, even if it was never tried; recipients on the suppression list
are rejected, and the others go on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from zope.sendmail.errors import InvalidRecipient
from zope.sendmail.interfaces import ILease, IMailQueue
from zope.sendmail.lifecycle.outcome import Outcome, Reply
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.retry import expired, suppressed
from zope.sendmail.lifecycle.suppression import AT_HAND_OVER, Suppression, gone
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.terms import PLAIN
from zope.sendmail.processor.context import Context
from zope.sendmail.processor.job import given_back_in_trouble
from zope.sendmail.reporting import maillog
from zope.sendmail.reporting.reporter import MailId
from zope.sendmail.system.clock import Clock

#: Seconds between two looks for mail whose time is over, while there is other work.
_EVERY = 0.5

#: So many mails are given up at a time.
_MOST = 100


class RefusedRecipients:
    """Puts recipients that do not exist, as a relay says, on the suppression list.  Concurrency: any thread."""

    def __init__(self, queue: IMailQueue, clock: Clock) -> None:
        self._queue = queue
        self._clock = clock

    def __call__(self, replies: Mapping[str, Reply]) -> None:
        """Take note of what a relay said about the recipients of a mail.  Raises nothing because of the queue."""
        found = gone(replies)
        if not found:
            return
        try:
            known = self._queue.suppressions.among(found)
            entries = [Suppression.of(who, str(reply), since=self._clock.time()) for who, reply in found.items()]
            new = [entry for who, entry in zip(found, entries, strict=True) if who not in known]
            if new:
                self._queue.suppressions.add(*new)
        except (OSError, InvalidRecipient) as error:  # it is refused again, and noted then
            maillog.suppressing_failed(self._queue.location, error)


class Refusals:
    """Ends mail that no relay is to be asked about.  Concurrency: any thread."""

    def __init__(self, context: Context, queue: IMailQueue) -> None:
        self._context = context
        self._queue = queue
        self._next = float("-inf")

    def give_up(self, *, at_once: bool = False) -> None:
        """Give up mail whose time is over, whatever else it waits for.

        :param at_once: whether to look now; else only if the last look was a while ago.
        :raises QueueTrouble: if the queue refuses.
        """
        now = self._context.clock.monotonic()
        if now < self._next and not at_once:
            return
        self._next = now + _EVERY
        may_be_more = at_once or self._queue.next_expiry() == 0.0
        while may_be_more and not self._context.signal.stopped:
            leases = deque(self._queue.claim_expired(_MOST))
            may_be_more = len(leases) == _MOST
            with given_back_in_trouble(leases):
                while leases:
                    if not self.end(leases[0]):
                        leases[0].release()
                    leases.popleft()

    def end(self, lease: ILease) -> bool:
        """Settle a lease if its mail has expired, or if some of its recipients get no mail.

        :returns: whether the lease has ended.
        """
        envelope = lease.envelope
        if envelope.terms is not PLAIN and envelope.terms.expires <= self._context.clock.time():
            self._settle(lease, envelope, expired(lease.record, envelope, now=self._context.clock.time()))
            return True
        found = self._suppressed(lease, envelope)
        if found:
            record = suppressed(lease.record, envelope, found, now=self._context.clock.time())
            self._settle(lease, envelope, record)
        return bool(found)

    def _suppressed(self, lease: ILease, envelope: Envelope) -> Mapping[str, Suppression]:
        """Return the recipients that get no mail: they are on the list, or were when the mail was handed over."""
        listed: Mapping[str, Suppression] = self._queue.suppressions.among(envelope.recipients)
        at_hand_over = envelope.terms.suppressed
        if not at_hand_over or lease.record.early:  # a person wants it tried all the same
            return listed
        return {**dict.fromkeys(set(at_hand_over).intersection(envelope.recipients), AT_HAND_OVER), **listed}

    def _settle(self, lease: ILease, envelope: Envelope, record: Record) -> None:
        """Write down what no relay has said, and tell it as if one had."""
        reporter, before = self._context.reporter, lease.record
        mail = MailId(lease.name, lease.message_id, envelope.sender)
        new = {who: reply for who, reply in record.replies.items() if before.replies.get(who) != reply}
        reporter.report_rejected(lease, "", record)
        lease.settle(record)
        reporter.attempted(mail, Outcome("", new), record, before=before)
        self._context.state_report.count(record.state, unknown=False, written=lease.written)
