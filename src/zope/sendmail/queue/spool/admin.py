"""The mail that lies in a spool directory as operators see it, before a daemon has taken it in.

Looking changes nothing, in the directory or in the queue: no file is moved, no lock given up.  A mail has already the
name that it gets in the queue.  Files that cannot be read are left out; `examine` tells of them.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, BinaryIO, TypeVar

from zope.sendmail.errors import MalformedEnvelope, NotPossible, QueueError
from zope.sendmail.lifecycle.finding import Finding, Kind, Severity
from zope.sendmail.lifecycle.queuedmail import QueuedMail
from zope.sendmail.lifecycle.relaystate import RelayBoard
from zope.sendmail.lifecycle.selection import Selection
from zope.sendmail.lifecycle.states import State
from zope.sendmail.maildir import age_key
from zope.sendmail.message.envelope import read_envelope
from zope.sendmail.message.headers import message_id_in
from zope.sendmail.message.relayname import RelayName
from zope.sendmail.queue import diagnosis
from zope.sendmail.queue.maildir.admin import MaildirAdmin
from zope.sendmail.queue.maildir.diskusage import examine_room
from zope.sendmail.queue.maildir.layout import TAKEN
from zope.sendmail.queue.spool.dropbox import LOCK, OLD_LOCK, PRIVATE, UNFINISHED, DropBox, Dropped, may_be_mail
from zope.sendmail.system.clock import Clock
from zope.sendmail.system.disk import Disk
from zope.sendmail.system.trust import TrustedOwners, check_place

_T = TypeVar("_T")


class DroppedMail:
    """The complete mail in one spool directory."""

    def __init__(self, dropbox: DropBox, disk: Disk, clock: Clock) -> None:
        self._dropbox = dropbox
        self._disk = disk
        self._clock = clock

    def count(self) -> int:
        """Return how many there are."""
        return sum(1 for _ in self._dropbox.complete())

    def oldest(self) -> float | None:
        """Return when the oldest was written."""
        return next((each.since for each in self._dropbox.complete()), None)

    def complete(self) -> Iterator[Dropped]:
        """Yield them, oldest first."""
        return self._dropbox.complete()

    def names(self) -> Iterator[str]:
        """Return the names that they will have in the queue, oldest first."""
        return (each.name for each in self._dropbox.complete())

    def mails(self, selection: Selection) -> Iterator[QueuedMail]:
        """Yield those that are meant, oldest first."""
        for each in self._dropbox.complete():
            if selection.may_match(each.since, rejected=False):
                with contextlib.suppress(MalformedEnvelope, OSError):  # it was taken or changed in this moment
                    mail = self.show(each)
                    if selection.matches(mail):
                        yield mail

    def find(self, name: str) -> Dropped | None:
        """Return the mail that will have this name in the queue."""
        return self._dropbox.find(name)

    def show(self, dropped: Dropped) -> QueuedMail:
        """Return what can be said of it.

        Raises `MalformedEnvelope` or `OSError` if it is not there any more as it was.
        """
        with self._disk.open(dropped.path) as stream:
            envelope = read_envelope(stream)
            identifier = message_id_in(stream)
        return QueuedMail(dropped.name, State.READY, envelope, identifier, dropped.since, dropped.size, 0.0, ())

    def read(self, dropped: Dropped) -> BinaryIO:
        """Return the message, without the envelope.  Raises as `show`."""
        stream = self._disk.open(dropped.path)
        try:
            read_envelope(stream)
        except BaseException:
            stream.close()
            raise
        return stream

    def examine(self) -> Iterator[Finding]:
        """Yield what lies in the directory and why it is not sent.  Changes nothing."""
        names = set(self._dropbox.names())
        for name in sorted(names):
            finding = None if name == PRIVATE or name.startswith(TAKEN) else self._finding(name, names)
            if finding is not None:
                yield finding

    def _finding(self, name: str, names: set[str]) -> Finding | None:
        path = os.path.join(self._dropbox.spool, name)
        try:
            status = self._disk.stat(path)
            if name.endswith(LOCK):
                return None if name.removesuffix(LOCK) in names else _lock_alone(name, self._clock, status)
            if not stat.S_ISREG(status.st_mode):
                return diagnosis.foreign(f"../{name}", "something that is never sent", Severity.NOTE)
            if not may_be_mail(name):
                return self._finding_about_name(name, Dropped(path, status))
            return self._finding_about_mail(name, Dropped(path, status))
        except FileNotFoundError:
            return None

    def _finding_about_name(self, name: str, file: Dropped) -> Finding:
        """About a file that is never mail, whatever is in it; old and whole, a person may wait for it."""
        if self._clock.time() - file.since > OLD_LOCK and not self._dropbox.fault(file.path):
            return diagnosis.not_taken(f"../{name}", "it is a mail, but its name says that it is none; rename it")
        return diagnosis.foreign(f"../{name}", "something that is never sent", Severity.NOTE)

    def _finding_about_mail(self, name: str, mail: Dropped) -> Finding | None:
        age = self._dropbox.age_of_lock(mail.path)
        if age is not None:
            return diagnosis.locked_by_others(f"../{name}", age, self._dropbox.lock_age) if age > OLD_LOCK else None
        waited = self._clock.time() - mail.since
        if (why := self._dropbox.fault(mail.path)) and waited >= UNFINISHED:
            return diagnosis.not_taken(f"../{name}", why)
        if not os.access(self._dropbox.spool, os.W_OK | os.X_OK):
            return diagnosis.not_taken(f"../{name}", "the directory does not let this user take files away")
        return diagnosis.not_looked_at(f"../{name}", waited) if waited > OLD_LOCK else None


def _lock_alone(name: str, clock: Clock, status: os.stat_result) -> Finding | None:
    if clock.time() - status.st_mtime < OLD_LOCK:
        return None
    return diagnosis.leftover(f"../{name}", "A lock without its mail: the program that made it died, or forgot it")


class SpoolAdmin(MaildirAdmin):
    """What operators see and do in one spool; see `IMailQueueAdmin`.

    Looking changes nothing; before something is done to a mail that lies outside, it is taken in.

    :param dropped: the mail that lies in the spool directory.
    :param take_in: moves such a mail into the queue; returns None if it cannot.
    """

    def __init__(self, *arguments: Any, dropped: DroppedMail, take_in: Callable[[Dropped], str | None]) -> None:
        super().__init__(*arguments)
        self._dropped = dropped
        self._take_in = take_in

    def count(self) -> Mapping[State, int]:
        """See `IMailQueueAdmin.count`."""
        counts = Counter({State.READY: self._dropped.count()})  # first: what is moved meanwhile is not missed
        counts.update(super().count())
        return {state: counts[state] for state in State if counts[state]}

    def oldest(self) -> float | None:
        """See `IMailQueueAdmin.oldest`."""
        known = (self._dropped.oldest(), super().oldest())
        return min((since for since in known if since is not None), default=None)

    def mails(
        self, states: Iterable[State] = (), sender: str = "", recipient: str = "", **more: Any
    ) -> Iterator[QueuedMail]:
        """See `IMailQueueAdmin.mails`."""
        selection = Selection(frozenset(states), sender, recipient, **more)
        board, now = RelayBoard(self.processors()), self._now()
        outside = filter(selection.matches, (mail.on(board, now) for mail in self._dropped.mails(selection.anywhere)))
        inside = super().mails(states, sender, recipient, **more)
        return _once(heapq.merge(outside, inside, key=lambda mail: age_key(mail.name)), lambda mail: mail.name)

    def with_message_id(self, message_id: str) -> Iterator[QueuedMail]:
        """Yield the mails with this Message-Id, outside and inside."""
        outside = [mail for mail in self._dropped.mails(Selection()) if mail.message_id == message_id]
        names = {mail.name for mail in outside}
        yield from outside
        yield from (mail for mail in super().with_message_id(message_id) if mail.name not in names)

    def names(self) -> Iterator[str]:
        """See `IMailQueueAdmin.names`."""
        outside = list(self._dropped.names())  # first: what is moved meanwhile is not missed
        return _once(heapq.merge(outside, super().names(), key=age_key), lambda name: name)

    def these(self, names: Iterable[str]) -> Iterator[QueuedMail]:
        """See `IMailQueueAdmin.these`."""
        wanted = list(names)
        found = {mail.name: mail for mail in self._outside(wanted)}  # first: what is moved meanwhile is not missed
        found |= {mail.name: mail for mail in super().these(wanted)}
        return (found[name] for name in wanted if name in found)

    def _outside(self, names: Iterable[str]) -> Iterator[QueuedMail]:
        wanted, board = set(names), RelayBoard(self.processors())
        for each in self._dropped.complete() if wanted else ():
            if each.name in wanted:
                with contextlib.suppress(MalformedEnvelope, OSError):  # it was taken or changed in this moment
                    yield self._dropped.show(each).on(board, self._now())

    def show(self, name: str) -> QueuedMail:
        """See `IMailQueueAdmin.show`."""
        with contextlib.suppress(FileNotFoundError):  # a daemon took it in this moment
            if (outside := self._dropped.find(name)) is not None:
                return self._dropped.show(outside).on(RelayBoard(self.processors()), self._now())
        return super().show(name)

    def read(self, name: str) -> BinaryIO:
        """See `IMailQueueAdmin.read`."""
        with contextlib.suppress(FileNotFoundError):  # a daemon took it in this moment
            if (outside := self._dropped.find(name)) is not None:
                return self._dropped.read(outside)
        return super().read(name)

    def hold(self, name: str) -> None:
        """See `IMailQueueAdmin.hold`."""
        self.fetch(name)
        super().hold(name)

    def release(self, name: str) -> None:
        """See `IMailQueueAdmin.release`."""
        self.fetch(name)
        super().release(name)

    def retry(self, name: str) -> None:
        """See `IMailQueueAdmin.retry`."""
        self.fetch(name)
        super().retry(name)

    def remove(self, name: str) -> None:
        """See `IMailQueueAdmin.remove`."""
        self.fetch(name)
        super().remove(name)

    def reroute(self, name: str, relay: RelayName | None) -> None:
        """See `IMailQueueAdmin.reroute`."""
        self.fetch(name)
        super().reroute(name, relay)

    def give_up(self, name: str, why: str) -> None:
        """See `IMailQueueAdmin.give_up`."""
        self.fetch(name)
        super().give_up(name, why)

    def examine(self) -> Iterator[Finding]:
        """See `IMailQueueAdmin.examine`; a name that begins with ``../`` is that of a file in the spool directory."""
        try:
            check_place(self._store.layout.root, TrustedOwners.OURS)
        except QueueError as error:
            yield diagnosis.not_trusted(str(error)).within(self._store.layout.root)
        store = self._store
        if not store.disk.exists(store.layout.root):  # there may have been no room for it
            with contextlib.suppress(OSError):
                yield from (each.within(store.layout.spool) for each in examine_room(store.disk, store.layout.spool))
        yield from super().examine()
        with contextlib.suppress(OSError):
            yield from (each.within(store.layout.root) for each in self._dropped.examine())

    def unusable(self) -> Iterator[Finding]:
        """See `IMailQueueAdmin.unusable`."""
        yield from super().unusable()
        with contextlib.suppress(OSError):
            yield from (each for each in self._dropped.examine() if each.kind is Kind.NO_MAIL)

    def fetch(self, name: str) -> None:
        """See `MaildirAdmin.fetch`; what still lies outside is taken in."""
        outside = self._dropped.find(name)
        if outside is None:
            return
        if self._take_in(outside) is None and self._dropped.find(name) is not None:
            directory = os.path.dirname(outside.path)
            raise NotPossible(f"mail {name} cannot be taken out of {directory}; let this user write to that directory")


def _once(items: Iterable[_T], name: Callable[[_T], str]) -> Iterator[_T]:
    """Return what was taken in between the looks outside and inside was seen twice, side by side."""
    return (next(same) for _, same in itertools.groupby(items, key=name))
