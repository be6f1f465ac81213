"""Claims messages and says which relay gets each.

What nobody can be asked about is set aside here; what goes to a relay that cannot take it now is parked, so that it
delays nobody else's mail.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from zope.sendmail.errors import InvalidRelay
from zope.sendmail.events import MailErrorEvent, MailEvent, MailSentEvent, MailUnknownEvent
from zope.sendmail.interfaces import ILease, IMailQueue
from zope.sendmail.lifecycle.outcome import Answer
from zope.sendmail.lifecycle.retry import set_aside
from zope.sendmail.lifecycle.states import State
from zope.sendmail.processor.relay import Job, Relay, Relays
from zope.sendmail.reporting import maillog

if TYPE_CHECKING:
    from zope.sendmail.processor.thread import QueueProcessorThread

#: So many messages that waited for a relay are taken up at a time when it can be used again.
_UNPARK = 8


class Dispatcher:
    """Between one queue and the relays of one processor.

    `call` is told which relay was given something to do.  Concurrency: any thread.
    """

    def __init__(
        self, processor: QueueProcessorThread, queue: IMailQueue, relays: Relays, call: Callable[[Relay], None]
    ) -> None:
        self._processor = processor
        self._queue = queue
        self._relays = relays
        self._call = call
        self._mutex = threading.Lock()

    def next_for(self, relay: Relay) -> Job | None:
        """The next message for this relay; None if there is none now.  Others that are met find their way, too."""
        if self._relays.is_single:
            return self._only_one()
        while True:
            if relay.backlog:
                with relay.mutex:
                    if relay.backlog:
                        return relay.backlog.popleft()
            with self._mutex:
                if not relay.backlog and not self._route_one(relay):
                    return None

    def route(self) -> None:
        """Find the way of everything that is due."""
        self._relays.expect_few()
        for relay in self._relays:
            self.take_up(relay)
        while not self._processor.is_stopped:
            with self._mutex:
                if not self._route_one(None):
                    return

    def take_up(self, relay: Relay, limit: int = _UNPARK) -> None:
        """Let as much of what is parked for the relay be claimed as it can take now."""
        room = relay.room()
        if room:
            self._queue.unpark(relay.name, min(room, limit))

    def is_waited_for(self, relay: Relay) -> bool:
        """Whether more is there for this relay than those at work have in hand."""
        if self._relays.is_single:
            return self._queue.next_due() == 0.0
        return bool(relay.backlog) or relay.name in self._queue.parked()

    def give_back(self, relay: Relay) -> None:
        """Nobody works for this relay any more: its hand goes back."""
        with relay.mutex:
            while relay.backlog:
                relay.backlog.popleft().park(relay)

    def _only_one(self) -> Job | None:
        while not self._processor.is_stopped:
            leases = self._queue.claim(1)
            if leases:
                shared = self._share(leases[0])
                if shared is not None:
                    return shared[1]
            elif self._queue.next_due() != 0.0:
                break
        return None

    def _route_one(self, relay: Relay | None) -> bool:
        """Claim one message and put it where it belongs; False if nothing is due."""
        if self._relays.are_many:
            self._relays.forget(self._queue.parked())
        if relay is not None:
            self.take_up(relay, 1)
        leases = self._queue.claim(1)
        for lease in leases:
            shared = self._share(lease)
            if shared is not None:
                self._place(*shared)
        return bool(leases) or self._queue.next_due() == 0.0

    def _place(self, relay: Relay, job: Job) -> None:
        with relay.mutex:
            if relay.room():
                relay.backlog.append(job)
            else:
                job.park(relay)
                return
        self._call(relay)

    def _share(self, lease: ILease) -> tuple[Relay, Job] | None:
        """Which relay gets which part; None if none does.  The lease has ended then."""
        self._tell_inherited(lease)
        if lease.record.state is State.SENT:  # its owner died before it could remove it
            lease.settle(lease.record)
            return None
        if lease.record.state is State.HELD:
            maillog.held(lease.name, lease.record.note)
            lease.release()
            return None
        problem = lease.problem
        if not problem:
            try:
                return self._relays.share(lease)
            except InvalidRelay as error:
                problem = str(error)
        self._set_aside(lease, problem)
        return None

    def _set_aside(self, lease: ILease, problem: str) -> None:
        """A file that no relay can be asked about: a person has to look at it."""
        maillog.set_aside(lease.name, problem)
        message_id, envelope = lease.message_id, lease.envelope
        record = set_aside(lease.record, envelope, problem, now=self._processor.clock.time())
        lease.settle(record)
        refused = {who: record.replies[who] for who in (*envelope.recipients, *envelope.malformed)}
        if refused:
            self._tell(lease.name, MailErrorEvent(message_id, envelope.sender, refused))
        else:
            self._processor.tally[Answer.REJECTED] += 1

    def _tell_inherited(self, lease: ILease) -> None:
        """Whoever had the message before us died between the last byte and the reply, or right after that."""
        if lease.inherited is None:
            return
        is_sent = lease.record.state is State.SENT
        event = MailSentEvent if is_sent else MailUnknownEvent
        self._tell(lease.name, event(lease.message_id, lease.envelope.sender, lease.inherited.replies))
        if not is_sent:
            lease.told()

    def _tell(self, name: str, event: MailEvent) -> None:
        """What is said about recipients without a relay."""
        for recipient, reply in event.replies.items():
            maillog.answered(
                name=name,
                message_id=event.messageId,
                sender=event.sender,
                recipient=recipient,
                reply=reply,
                relay="",
            )
            self._processor.tally[reply.answer] += 1
        self._processor.tell_safely(event)
