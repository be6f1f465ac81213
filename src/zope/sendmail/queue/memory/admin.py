"""What operators see and do in a queue in memory."""

from __future__ import annotations

import contextlib
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, BinaryIO

from zope.interface import implementer

from zope.sendmail.errors import NoSuchMail
from zope.sendmail.interfaces import IMailQueueAdmin
from zope.sendmail.lifecycle.finding import Finding
from zope.sendmail.lifecycle.queuedmail import QueuedMail
from zope.sendmail.lifecycle.relaystate import ProcessorState, RelayBoard
from zope.sendmail.lifecycle.retry import set_aside
from zope.sendmail.lifecycle.selection import Selection
from zope.sendmail.lifecycle.states import WAITING, Action, State, after
from zope.sendmail.message.relayname import RelayName
from zope.sendmail.queue.diagnosis import HELD, waits_for_a_person
from zope.sendmail.queue.memory.store import MemoryMail, MemoryStore
from zope.sendmail.queue.queuefindings import relay_down, relay_left_out


@implementer(IMailQueueAdmin)
class MemoryAdmin:
    """What operators see and do in a `MemoryQueue`; see `IMailQueueAdmin`."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    def count(self) -> Mapping[State, int]:
        """See `IMailQueueAdmin.count`."""
        with self._store.changed:
            counts = Counter(self._seen(mail).state for mail in self._store.mails_by_name.values())
            counts[State.STAGED] = self._store.staged
            return {state: counts[state] for state in State if counts[state]}

    def oldest(self) -> float | None:
        """See `IMailQueueAdmin.oldest`."""
        return min((mail.waits_since for mail in self.mails(WAITING - {State.SCHEDULED})), default=None)

    def mails(
        self, states: Iterable[State] = (), sender: str = "", recipient: str = "", **more: Any
    ) -> Iterator[QueuedMail]:
        """See `IMailQueueAdmin.mails`."""
        with self._store.changed:
            seen = [self._told(self._seen(mail)) for mail in self._store.mails_by_name.values()]
        return filter(Selection(frozenset(states), sender, recipient, **more).matches, seen)

    def names(self) -> Iterator[str]:
        """See `IMailQueueAdmin.names`."""
        with self._store.changed:
            return iter(list(self._store.mails_by_name))

    def these(self, names: Iterable[str]) -> Iterator[QueuedMail]:
        """See `IMailQueueAdmin.these`."""
        with self._store.changed:
            known = (self._store.mails_by_name.get(name) for name in names)
            return iter([self._told(self._seen(mail)) for mail in known if mail is not None])

    def examine(self) -> Iterator[Finding]:
        """See `IMailQueueAdmin.examine`.  Nothing can go wrong here but relays."""
        now = self._store.clock.time()
        for mail in self.mails((State.HELD, State.REJECTED)):
            yield waits_for_a_person(mail.name, mail.envelope, mail.history[-1], now=now)
        blocked = [mail for mail in self.mails((State.READY, State.DEFERRED)) if mail.blocked is not None]
        board = RelayBoard(self.processors())
        for relay in board:
            if not relay.is_usable:
                waiting = [mail.name for mail in blocked if mail.blocked == relay]
                yield relay_down(relay, len(waiting), waiting[0] if waiting else "", now)
        yield from (relay_left_out(*each, now) for each in board.left_out())

    def unusable(self) -> Iterator[Finding]:
        """See `IMailQueueAdmin.unusable`.  Whatever is here is a mail."""
        return iter(())

    def in_doubt(self) -> Iterator[Finding]:
        """See `IMailQueueAdmin.in_doubt`.  Staged mail ends with the process that could commit it."""
        return iter(())

    def show(self, name: str) -> QueuedMail:
        """See `IMailQueueAdmin.show`."""
        with self._store.changed:
            return self._told(self._seen(self._find(name)))

    def read(self, name: str) -> BinaryIO:
        """See `IMailQueueAdmin.read`."""
        with self._store.changed:
            return io.BytesIO(self._find(name).message)

    def hold(self, name: str) -> None:
        """See `IMailQueueAdmin.hold`."""
        with self._for(name, Action.HOLD) as mail:
            self._store.write(mail, replace(mail.record, state=State.HELD, time=self._store.clock.time(), note=HELD))

    def release(self, name: str) -> None:
        """See `IMailQueueAdmin.release`."""
        with self._for(name, Action.RELEASE) as mail:
            self._store.write(mail, mail.record.released(self._store.clock.time()))

    def retry(self, name: str) -> None:
        """See `IMailQueueAdmin.retry`."""
        with self._for(name, Action.RETRY) as mail:
            self._store.write(mail, mail.record.again(self._store.clock.time(), "retried by an operator"))

    def remove(self, name: str) -> None:
        """See `IMailQueueAdmin.remove`."""
        with self._for(name, Action.REMOVE) as mail:
            del self._store.mails_by_name[mail.name]

    def reroute(self, name: str, relay: RelayName | None) -> None:
        """See `IMailQueueAdmin.reroute`."""
        with self._for(name, Action.REROUTE) as mail:
            mail.envelope = replace(mail.envelope, relay=relay)
            now, record = self._store.clock.time(), mail.record
            state = record.state if record.state is State.HELD else State.READY
            self._store.write(mail, replace(record, state=state, time=now, due=now, parts={}))

    def give_up(self, name: str, why: str) -> None:
        """See `IMailQueueAdmin.give_up`."""
        with self._for(name, Action.BOUNCE) as mail:
            left = mail.envelope.only(mail.record.outstanding(mail.envelope.recipients))
            self._store.write(mail, set_aside(mail.record, left, why, now=self._store.clock.time()))

    def processors(self) -> Sequence[ProcessorState]:
        """See `IMailQueueAdmin.processors`."""
        return list(self._store.reported)

    def probe(self, relay: str) -> None:
        """See `IMailQueueAdmin.probe`."""
        with self._store.changed:
            self._store.probes[relay] = self._store.clock.time()
            self._store.wake()

    def _seen(self, mail: MemoryMail) -> QueuedMail:
        return QueuedMail.at(
            self._store.clock.time(),
            mail.name,
            mail.state,
            mail.envelope,
            message_id=mail.message_id,
            since=mail.since,
            size=len(mail.message),
            history=tuple(mail.history),
        )

    def _told(self, mail: QueuedMail) -> QueuedMail:
        return mail.on(RelayBoard(self.processors()), self._store.clock.time())

    def forget_keys(self) -> int:
        """See `IMailQueueAdmin.forget_keys`."""
        with self._store.changed:
            now, keys = self._store.clock.time(), self._store.keys
            over = [key for key, (holder, _, until) in keys.items() if holder is None and until <= now]
            for key in over:
                del keys[key]
            return len(over)

    def expire_rejected(self, before: float) -> int:
        """See `IMailQueueAdmin.expire_rejected`."""
        with self._store.changed:
            old = [mail.name for mail in self.mails([State.REJECTED]) if mail.history[-1].time < before]
            for name in old:
                self.remove(name)
            return len(old)

    def _find(self, name: str) -> MemoryMail:
        try:
            return self._store.mails_by_name[name]
        except KeyError:
            raise NoSuchMail(f"there is no mail {name!r} in the queue; it may have been sent in the meantime") from None

    @contextlib.contextmanager
    def _for(self, name: str, verb: Action) -> Iterator[MemoryMail]:
        """Yield the mail, if `verb` can be done to it; processors are woken afterwards."""
        with self._store.changed:
            mail = self._find(name)
            after(mail.state, verb, name)
            mail.parked = ""
            yield mail
            self._store.wake()
