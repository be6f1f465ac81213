"""What operators can see and do in a Maildir queue while processors run.

Whatever changes a message is done with its lock held, so no processor has it at the same time.  What is only looked at
is in `zope.sendmail.queue.maildir.mailviews`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from zope.interface import implementer

from zope.sendmail.errors import MalformedEnvelope, NotPossible, QueueError
from zope.sendmail.interfaces import IMailQueueAdmin
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.retry import OnUnknown, Schedule, after_death, sent_before_death, set_aside
from zope.sendmail.lifecycle.states import Action, State, after
from zope.sendmail.message.relayname import RelayName
from zope.sendmail.queue.diagnosis import HELD
from zope.sendmail.queue.maildir import makeway, oldlock
from zope.sendmail.queue.maildir.locks import Busy, Lock, Owner
from zope.sendmail.queue.maildir.mailviews import MailViews
from zope.sendmail.queue.maildir.ownertext import Phase
from zope.sendmail.queue.maildir.stagedentries import PREFIX as STAGED
from zope.sendmail.queue.maildir.store import Store


@implementer(IMailQueueAdmin)
class MaildirAdmin(MailViews):
    """What operators see and do in one queue directory; see `IMailQueueAdmin`.

    :param owner: returns the owner file of the process; it is made when it is needed first.
    :param changed: is told the key of a message that an operator has changed, since processors may know it otherwise;
        the empty text if something else has changed.
    :param give_up_bundles: lets files be made of groups that are drained where they lie.
    """

    def __init__(
        self,
        store: Store,
        owner: Callable[[], Owner],
        schedule: Schedule,
        changed: Callable[[str], None],
        give_up_bundles: Callable[[Sequence[str]], None],
    ) -> None:
        super().__init__(store, give_up_bundles)
        self._owner = owner
        self._changed = changed
        self._schedule = replace(schedule, on_unknown=OnUnknown.HOLD)

    def hold(self, name: str) -> None:
        """See `IMailQueueAdmin.hold`."""
        with self.at_work(name, Action.HOLD) as (key, record, _):
            self._store.append(key, replace(record, state=State.HELD, time=self._now(), note=HELD))

    def release(self, name: str) -> None:
        """See `IMailQueueAdmin.release`."""
        if name.startswith(STAGED):
            self._staged.release(name)
            self._changed("")
            return
        if self._break_old_lock(name):
            return
        with self.at_work(name, Action.RELEASE) as (key, record, _):
            self._store.append(key, record.released(self._now()))

    def retry(self, name: str) -> None:
        """See `IMailQueueAdmin.retry`."""
        with self.at_work(name, Action.RETRY) as (key, record, rejected):
            self._store.append(key, record.again(self._now(), "retried by an operator"))
            if rejected:
                self._store.restore(key)

    def remove(self, name: str) -> None:
        """See `IMailQueueAdmin.remove`."""
        if name.startswith(STAGED):
            self._staged.remove(name)
            return
        with self.at_work(name, Action.REMOVE) as (key, _, _):
            self._store.remove(key)

    def reroute(self, name: str, relay: RelayName | None) -> None:
        """See `IMailQueueAdmin.reroute`."""
        with self.at_work(name, Action.REROUTE) as (key, record, _):
            try:
                self._store.rewrite(key, relay)
            except MalformedEnvelope as error:
                raise NotPossible(f"cannot reroute mail {name}: {error}") from None
            now = self._now()
            state = record.state if record.state is State.HELD else State.READY
            note = record.note if record.state is State.HELD else f"rerouted to {relay or 'where the routes say'}"
            self._store.append(key, replace(record, state=state, time=now, due=now, note=note, parts={}))

    def give_up(self, name: str, why: str) -> None:
        """See `IMailQueueAdmin.give_up`."""
        with self.at_work(name, Action.BOUNCE) as (key, record, _):
            envelope, stream = self._store.open(key)
            stream.close()
            left = envelope.only(record.outstanding(envelope.recipients))
            self._store.settle(key, set_aside(record, left, why, now=self._now()))

    def probe(self, relay: str) -> None:
        """See `IMailQueueAdmin.probe`."""
        self._states.ask_probe(relay)
        self._changed("")

    def expire_rejected(self, before: float) -> int:
        """See `IMailQueueAdmin.expire_rejected`."""
        count = 0
        for mail in self.mails([State.REJECTED]):
            given_up = mail.history[-1].time if mail.history else mail.since
            if given_up < before:
                with contextlib.suppress(QueueError):  # another process was faster, or is at work on it
                    self.remove(mail.name)
                    count += 1
        return count

    def fetch(self, name: str) -> None:
        """See that a mail is in the queue's own directory.

        :raises NotPossible: if it lies elsewhere, and cannot be had.
        """

    def tell_processors(self) -> None:
        """Let processors look for what is new."""
        self._changed("")

    def forget_keys(self) -> int:
        """See `IMailQueueAdmin.forget_keys`."""
        return self._keys.forget()

    def _break_old_lock(self, name: str) -> bool:
        """Take away the lock of an older release, which no process can give up; return whether there was one."""
        key, _ = self._find(name)
        path = self._store.layout.sending(key)
        try:
            is_old = oldlock.made_at(self._store.disk, path) is not None
            if is_old:
                self._store.disk.unlink(path)
                self._changed(key)
        except FileNotFoundError:
            return False
        return is_old

    @contextlib.contextmanager
    def at_work(self, name: str, verb: Action) -> Iterator[tuple[str, Record, bool]]:
        """Hold the lock of a message to which `verb` can be done; processors hear of it afterwards."""
        key, rejected = self._find(name)
        key, lock = makeway.take(self._owner(), self._store, key)
        if isinstance(lock, Busy):
            raise NotPossible(f"cannot {verb} mail {name}: it is being sent; try again in a moment")
        written = lock.lost(0) is None
        try:
            if self._find(name) != (key, rejected):
                raise NotPossible(f"cannot {verb} mail {name}: it was changed in this moment; try again")
            record = self._record(key, lock)
            written = record.state is not State.SENT
            after(State.REJECTED if rejected else record.state, verb, name)
            yield key, record, rejected
            written = True
        finally:
            if written:
                lock.release()
            else:
                lock.keep()  # what a dead processor left must not be forgotten
        self._changed(key)

    def _record(self, key: str, lock: Lock) -> Record:
        """Return how it stands with a message; if its processor died with it, that is written down first.

        What is unknown is held, whatever processors do with it: the operator is there, and decides by the verb.
        """
        record = self._store.record(key)
        lost = lock.lost(record.attempts)
        if lost is None:
            return record
        envelope, stream = self._store.open(key)
        stream.close()
        left = envelope.only(record.outstanding(envelope.recipients))
        if lost is Phase.ACCEPTED:
            return sent_before_death(record, left, now=self._now())
        dead = after_death(record, left, self._schedule, intended=lost is Phase.INTENDED, now=self._now())
        self._store.append(key, dead)
        return dead
