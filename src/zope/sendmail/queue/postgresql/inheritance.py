"""What dead processors left: mails that they had claimed, some of them in their hands."""

from __future__ import annotations

from collections.abc import Sequence

from zope.sendmail.lifecycle.outcome import Answer, Outcome
from zope.sendmail.lifecycle.retry import Schedule, after_death, sent_before_death
from zope.sendmail.queue.postgresql.database import Connections
from zope.sendmail.queue.postgresql.lease import ACCEPTED, INTENDED, PostgreSQLLease
from zope.sendmail.queue.postgresql.liveness import Registration
from zope.sendmail.queue.postgresql.rows import NUMBERS, WAITING, line_of
from zope.sendmail.system.clock import Clock


class Inheritance:
    """Writes down what is known of such mails, before anything else is done with them."""

    def __init__(self, connections: Connections, liveness: Registration, schedule: Schedule, clock: Clock) -> None:
        self._connections = connections
        self._liveness = liveness
        self._schedule = schedule
        self._clock = clock

    def take(self, leases: Sequence[PostgreSQLLease]) -> None:
        """Take over those of these mails that another processor had.

        A row that waits although its record says that the mail is held, as an earlier build left it, is mended: given
        back, the mail would be claimed again and again.

        :raises QueueError: if the database refuses; their rows say then, as before, whose they were.
        """
        left = [each for each in leases if each.was is not None]
        if left:
            self._take_left(left)
        for each in leases:
            if not each.is_fresh and each.record.state in NUMBERS:
                self._connections.execute("mend", id=each.id, lease=each.lease, state=NUMBERS[each.record.state])

    def _take_left(self, left: Sequence[PostgreSQLLease]) -> None:
        rows = self._connections.execute(
            "inherited", dead=list({each.was for each in left}), mails=[each.id for each in left]
        )
        phases = {(owner, mail, lease): phase for owner, mail, lease, phase in rows}
        nothing = []
        for each in left:
            phase = phases.get((each.was, each.id, each.was_lease), 0)
            if each.was in self._liveness.lost:
                phase = INTENDED  # how far it had come, it is not known
            if phase:
                self._take_one(each, phase)
            else:
                nothing.append(each.id)
            # Until it has gone, a mail that was in a dead processor's hands is suspected of having killed it.
            each.is_suspect = True
        if nothing:
            self._connections.execute("succeed", ids=nothing, me=self._liveness.id)

    def _take_one(self, lease: PostgreSQLLease, phase: int) -> None:
        envelope, now, intended = lease.envelope, self._clock.time(), phase == INTENDED
        if phase == ACCEPTED:
            record = sent_before_death(lease.record, envelope, now=now)
        else:
            record = after_death(lease.record, envelope, self._schedule, intended=intended, now=now)
        line = line_of(record)
        state = NUMBERS.get(record.state, WAITING)
        self._connections.execute("inherit", id=lease.id, lease=lease.lease, state=state, record=line)
        lease.record, lease.line, lease.is_fresh = record, line, False
        if phase in (INTENDED, ACCEPTED):
            wanted = Answer.UNKNOWN if intended else Answer.ACCEPTED
            replies = {who: record.replies[who] for who in envelope.recipients}
            lease.inherited = Outcome("", {who: said for who, said in replies.items() if said.answer is wanted})
