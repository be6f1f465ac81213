"""A queue and the queue in memory do the same, whatever is done with them, and in which order.

The queue in memory is the model: it is a page of code that can be read.  What is compared after each step is what
deliveries, processors and operators see.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from hypothesis import settings, strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from zope.sendmail.errors import NoSuchMail, NotPossible
from zope.sendmail.lifecycle.outcome import Answer, Outcome, Reply
from zope.sendmail.lifecycle.retry import judge
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.terms import Priority, Terms
from zope.sendmail.queue.maildir.unfolder import flush
from zope.sendmail.queue.memory import MemoryQueue
from zope.sendmail.testing.contracts.situation import SCHEDULE, ManualClock
from zope.sendmail.tests.support.properties import SAME, examples

REPLIES = {
    "yes": Reply(Answer.ACCEPTED, "ok", 250),
    "later": Reply(Answer.DEFERRED, "greylisted", 450),
    "no": Reply(Answer.REJECTED, "no such user", 550),
    "unknown": Reply(Answer.UNKNOWN, "the connection broke", None),
}
#: Long enough for every lock and every file's time to be old.
SPANS = st.sampled_from([0.0, 1.0, 61.0, 3600.0, 86400.0, 6 * 86400.0])


class TwoQueues(RuleBasedStateMachine):
    """The same is done with both; `mails` are Message-Ids, `leases` pairs.

    A subclass says with `make` how a queue is opened, and opened again, at a path that nothing else uses.
    """

    mails = Bundle("mails")
    leases = Bundle("leases")

    make: Callable[[str, ManualClock], Any]

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.directory = tempfile.TemporaryDirectory()
        self.path = os.path.join(self.directory.name, "mail")
        self.real = type(self).make(self.path, self.clock)
        self.model = MemoryQueue(schedule=SCHEDULE, clock=self.clock)
        self.number = 0
        #: When each was sent: what has left is known for a week, in a Maildir for some hours more.
        self.sent_at: dict[str, float] = {}
        self.out = 0

    def teardown(self) -> None:
        self.real.close()
        self.directory.cleanup()

    @property
    def both(self) -> tuple[Any, Any]:
        return self.real, self.model

    def names(self, identifier: str) -> tuple[str, str]:
        """What each queue calls a mail; both have it, or none."""
        found = [
            next((mail.name for mail in queue.admin.mails() if mail.message_id == identifier), "gone")
            for queue in self.both
        ]
        assert (found[0] == "gone") == (found[1] == "gone"), (identifier, found)
        return found[0], found[1]

    # --- deliveries ---------------------------------------------------------------------------------------------

    @initialize(target=mails)
    def begin(self) -> Any:
        return multiple()

    @rule(
        target=mails,
        count=st.integers(1, 3),
        recipients=st.integers(1, 3),
        priority=st.sampled_from([Priority.NORMAL, Priority.HIGH, Priority.LOW]),
        wait=st.sampled_from([None, 60.0]),
        commits=st.sampled_from([True, True, True, False]),
    )
    def send(self, count: int, recipients: int, priority: Priority, wait: float | None, commits: bool) -> Any:
        """One transaction, which commits or aborts."""
        groups = [queue.stage() for queue in self.both]
        made = []
        for _ in range(count):
            self.number += 1
            identifier = f"{self.number}@example.org"
            made.append(identifier)
            self.sent_at[identifier] = self.clock.time()
            terms = Terms(priority=priority)
            if wait is not None:
                terms = replace(terms, not_before=self.clock.time() + wait)
            who = tuple(f"{chr(97 + each)}@example.com" for each in range(recipients))
            envelope = Envelope("sender@example.org", who, terms=terms)
            for group in groups:
                group.add(envelope, f"Message-Id: <{identifier}>\nSubject: x\n\nText\n".encode())
        for group in groups:
            if commits:
                group.prepare()
                group.commit()
            else:
                group.abort()
        flush(60.0)
        return multiple(*(made if commits else ()))

    # --- processors ---------------------------------------------------------------------------------------------

    @rule(target=leases)
    def claim(self) -> Any:
        """All that is due, once each."""
        taken = [{lease.message_id: lease for lease in _all_due(queue)} for queue in self.both]
        assert taken[0].keys() == taken[1].keys(), (set(taken[0]), set(taken[1]))
        pairs = [(taken[0][each], taken[1][each]) for each in taken[0]]
        for real, model in pairs:
            assert real.envelope.recipients == model.envelope.recipients
            assert real.record.state == model.record.state
            assert real.record.attempts == model.record.attempts
        self.out += len(pairs)
        return multiple(*pairs)

    @rule(pair=consumes(leases), said=st.lists(st.sampled_from(sorted(REPLIES)), min_size=3, max_size=3))
    def settle(self, pair: Any, said: list[str]) -> None:
        """A relay has answered, each recipient by itself."""
        for lease in pair:
            lease.intend()
            told = dict(zip(lease.envelope.recipients, (REPLIES[each] for each in said), strict=False))
            outcome = Outcome("relay:25", told)
            now, chance = self.clock.time(), self.clock.chance()
            lease.settle(judge(lease.record, lease.envelope, outcome, SCHEDULE, now=now, chance=chance))
        self.out -= 1

    @rule(pair=consumes(leases))
    def give_back(self, pair: Any) -> None:
        """The relay could not be used: nothing was tried."""
        for lease in pair:
            lease.release()
        self.out -= 1

    @rule(pair=consumes(leases))
    def park(self, pair: Any) -> None:
        """It waits for its relay."""
        for lease in pair:
            lease.park("relay:25")
        self.out -= 1

    @rule()
    def unpark(self) -> None:
        """The relay can be used again."""
        moved = [queue.unpark("relay:25", 99) for queue in self.both]
        assert moved[0] == moved[1], moved

    # --- operators ----------------------------------------------------------------------------------------------

    @rule(identifier=mails, verb=st.sampled_from(["hold", "release", "retry", "remove", "give_up", "reroute"]))
    def operate(self, identifier: str, verb: str) -> None:
        """Both do it, or refuse it with the same error."""
        more: dict[str, tuple[Any, ...]] = {"give_up": ("an operator gave up",), "reroute": (None,)}
        errors: list[type[Exception] | None] = []
        for queue, name in zip(self.both, self.names(identifier), strict=True):
            try:
                getattr(queue.admin, verb)(name, *more.get(verb, ()))
                errors.append(None)
            except (NoSuchMail, NotPossible) as error:
                errors.append(type(error))
        assert errors[0] == errors[1], (identifier, verb, errors)

    # --- the world ----------------------------------------------------------------------------------------------

    @rule(seconds=SPANS)
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.clock.advance(seconds)

    @rule()
    def begin_anew(self) -> None:
        """The process ends in peace and another one goes on; what waited for a relay is looked at again."""
        if self.out:
            return
        self.model.unpark("relay:25", 999)
        self.real.close()
        self.real = type(self).make(self.path, self.clock)

    @invariant()
    def looks_the_same(self) -> None:
        """To operators and programs."""
        seen = []
        for queue in self.both:
            mails = {mail.message_id: mail for mail in queue.admin.mails()}
            recent = [each for each, sent in self.sent_at.items() if self.clock.time() - sent < 6 * 86400]
            standings = {identifier: queue.status(identifier).standing for identifier in recent}
            table = {
                identifier: (mail.state, mail.envelope and mail.envelope.recipients, _due(mail, self.clock))
                for identifier, mail in mails.items()
            }
            seen.append((queue.admin.count(), table, standings))
        assert seen[0] == seen[1], seen


def _all_due(queue: Any) -> Iterator[Any]:
    """Yield leases until there is nothing more: one call may give fewer than are due."""
    while leases := queue.claim(99):
        yield from leases


def _due(mail: Any, clock: ManualClock) -> float:
    """When a deferred mail is tried, to the second."""
    return round(mail.due - clock.time()) if mail.state is State.DEFERRED else 0.0


STEPS = settings(SAME, max_examples=examples(40), stateful_step_count=30)
