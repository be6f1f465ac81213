"""Bundles that one processor drains where they lie, so that their mails need not become files first.

Any number of processors do it at once, 64 mails of a bundle each at a time: a *chunk*, with a lock as a message has
one.  What is left of a bundle is unfolded.  The steps, and what a crash leaves, stand in
``docs/explanation/internals.rst``, *Draining a bundle*.  Trouble with one bundle is told in the log; then it is
unfolded as ever.
"""

from __future__ import annotations

import contextlib
import os
import sys
from array import array
from collections import deque
from math import inf
from typing import Any, Protocol

from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.terms import UNMARKED, Marks, Priority, marks_in
from zope.sendmail.queue.maildir.bundle import entries, gather_out, is_left, may_be_drained, unfold
from zope.sendmail.queue.maildir.bundlelease import BundledLease, BundledMail, key_of
from zope.sendmail.queue.maildir.bundleprogress import GONE, KEPT, WAITING, BundleProgress, make_progress
from zope.sendmail.queue.maildir.layout import BUNDLE, GROUP, PROGRESS, WANTED, by_age
from zope.sendmail.queue.maildir.lease import MaildirLease
from zope.sendmail.queue.maildir.locks import Busy, CannotClaim, Lock, OneAtATime, Owner
from zope.sendmail.queue.maildir.sentlog import SentLog
from zope.sendmail.queue.maildir.store import UNTRIED, Store
from zope.sendmail.queue.maildir.unfolder import later
from zope.sendmail.reporting import maillog
from zope.sendmail.system.disk import Disk

#: Mails that one processor has at a time.
_CHUNK = 64

#: Of a bundle with a mail that has more bytes, files are made: a chunk is in memory.
_LARGEST = 64 * 1024

#: So often the messages that are files come first, though a bundle is older: retries are among them.
_TURN = 4

_NORMAL = Priority.NORMAL.rank

#: Seconds until what another process was doing is looked at again.
_LOOK_AGAIN = 2.0


class _Chunk:
    """Mails of a bundle that are ours."""

    def __init__(self, number: int, lock: Lock) -> None:
        self.number = number
        self.lock = lock
        #: Those for which there is no lease, with what is written of them: number, name, step, text.
        self.waiting: deque[tuple[int, str, int, bytes]] = deque()
        #: How many leases are out.
        self.out = 0


class BundleDrain:
    """One bundle.  Concurrency: `ended` and `give_up` from any thread; all else with the mutex of the claims held."""

    def __init__(self, claims: BundleHost, owner: Owner, group: str) -> None:
        self._claims = claims
        self.store: Store = claims.store
        self.sent_log: SentLog = claims.sent_log
        self._owner = owner
        self._name = os.path.basename(group)
        self.group = group
        disk = self.store.disk
        #: Where the line of each mail begins, and where the last mail ends.
        self._begins, first, self.rank = _begins_of(disk, group)
        #: The first mails of a transaction are files, and go before those in its bundle.
        self.age = by_age(key_of(first))
        count = len(self._begins) - 1
        make_progress(disk, group, count, owner.name)
        self.progress = BundleProgress(disk, group)
        try:
            self._fd = disk.open_existing(os.path.join(group, BUNDLE))
        except OSError:
            self.progress.close()
            raise
        #: Chunks that may have something to do, and when those that others have are looked at again.
        self._pending = deque(range(-(-count // _CHUNK)))
        self._busy: dict[int, float] = {}
        self._ours: dict[int, _Chunk] = {}
        self._current: _Chunk | None = None
        #: No mail is begun here any more; and what is here is being made files of, or is gone.
        self._is_given_up = self._is_unfolded = self._is_closed = False
        #: When the first mail that was kept is due, by the wall clock.
        self._kept_until = inf
        self._try_at = 0.0

    # giving out

    def has_work(self, now: float) -> bool:
        """Return whether `take` may give something."""
        if self._is_unfolded or now < self._try_at:
            return False
        if self._current is not None or self._pending or self._with_waiting() is not None:
            return True
        return any(at <= now for at in self._busy.values())

    def take(self, limit: int, now: float) -> list[MaildirLease]:
        """Return leases on up to `limit` mails, in order.  Raises `CannotClaim`, or `OSError` for this bundle."""
        leases: list[MaildirLease] = []
        if now < self._try_at:
            return leases
        if self.store.clock.time() >= self._kept_until:
            self.give_up()
        while len(leases) < limit and not self._is_unfolded:
            chunk = self._current or self._with_waiting() or self._next_chunk(now)
            if chunk is None:
                break
            lease = self._lease(chunk)
            if lease is not None:
                leases.append(lease)
            if not chunk.waiting:
                self._current = None
                self._finish(chunk)
        return leases

    def _with_waiting(self) -> _Chunk | None:
        """Return a chunk of ours with a mail that was given back after the last one of the chunk was given out."""
        return next((chunk for chunk in self._ours.values() if chunk.waiting), None)

    def _next_chunk(self, now: float) -> _Chunk | None:
        """Lock a chunk that has something to do, and read it; None if there is none now."""
        for number in [number for number, at in self._busy.items() if at <= now]:
            del self._busy[number]
            self._pending.append(number)
        while self._pending and not self._is_unfolded:
            number = self._pending.popleft()
            try:
                chunk = self._locked(number, now)
            except FileNotFoundError:  # another process has unfolded it
                self._is_unfolded = True
                return None
            except OSError:
                self._pending.appendleft(number)
                raise
            if chunk is not None:
                self._ours[number] = chunk
                if chunk.waiting:
                    self._current = chunk
                    return chunk
                self._finish(chunk)
        return None

    def _locked(self, number: int, now: float) -> _Chunk | None:
        """Lock a chunk and read it; None if another process has it.  Raises `OSError`."""
        lock = self._owner.take(f"new/{self._name}/{self._name.removeprefix(GROUP)}.{number}")
        if isinstance(lock, Busy):
            self._busy[number] = now + lock.seconds
            return None
        chunk = _Chunk(number, lock)
        try:
            self._read(chunk)
        except OSError:
            with contextlib.suppress(OSError):  # it says already what is wrong
                lock.release()
            raise
        return chunk

    def _read(self, chunk: _Chunk) -> None:
        """Read the mails of a chunk that is locked.

        If files are being made of the bundle, or shall be, only those that a death has left unclear: no process makes
        files of it before that is told.
        """
        disk, first = self.store.disk, chunk.number * _CHUNK
        names = disk.names(self.group)
        if BUNDLE not in names:
            self._is_unfolded = True
            return
        if WANTED in names or not may_be_drained(names):
            self.give_up()
        begins = self._begins[first : first + _CHUNK + 1]
        steps = self.progress.steps(first, len(begins) - 1)
        text = disk.read_at(self._fd, begins[-1] - begins[0], begins[0])
        for number, step in enumerate(steps):
            if step in (GONE[0], KEPT[0]) or (self._is_given_up and step == WAITING[0]):
                continue
            begin, end = begins[number] - begins[0], begins[number + 1] - begins[0]
            line, _, mail = text[begin:end].partition(b"\n")
            chunk.waiting.append((first + number, os.fsdecode(line.rpartition(b" ")[0]), step, mail))

    def _lease(self, chunk: _Chunk) -> BundledLease | None:
        """Return a lease on the next mail of the chunk, or None if that is to become a file."""
        number, name, step, text = entry = chunk.waiting.popleft()
        try:
            key = key_of(name)
            mail = BundledMail(chunk.lock, self.progress, self.store, key, number, step)
            record = self.store.record(key)
            if mail.lost(record.attempts) is None and record is not UNTRIED:  # its history says the rest
                mail.write(KEPT)
                self._keep(record)
                return None
            lease = BundledLease(self, mail, record, text)
            if mail.inherited is not None:
                self._claims.inherit(lease)
        except OSError:
            chunk.waiting.appendleft(entry)
            raise
        chunk.out += 1
        return lease

    # what leases tell

    def settled(self, key: str, record: Record) -> None:
        """See `LeaseHolder`; a lease of a bundle says it by `ended`."""

    def settle_later(self, lease: MaildirLease, record: Record, error: OSError) -> None:
        """See `LeaseHolder`."""
        self._claims.settle_later(lease, record, error)

    def park(self, key: str, relay: str, patience: float) -> None:
        """See `LeaseHolder`; a lease of a bundle says it by `give_up`."""

    def ended(self, mail: BundledMail, record: Record) -> None:
        """See `BundleHolder`."""
        with self._claims.mutex:
            chunk = self._ours.get(mail.number // _CHUNK)
            if chunk is None:
                return
            chunk.out -= 1
            if mail.step == GONE:
                self._claims.removed_from_bundle()
            elif mail.step == KEPT:
                self._keep(record)
            elif record.state is not State.DEFERRED:  # else its history could not be written: it waits
                self._give_back(chunk, mail)
            self._finish(chunk)
            if self._is_closed:
                self.close()

    def _give_back(self, chunk: _Chunk, mail: BundledMail) -> None:
        """Let a mail that was not tried be given out again, if the chunk is still ours."""
        if not self._is_given_up:
            begins = self._begins
            begin, end = begins[mail.number], begins[mail.number + 1]
            with contextlib.suppress(OSError):
                text = self.store.disk.read_at(self._fd, end - begin, begin)
                line, _, text = text.partition(b"\n")
                chunk.waiting.appendleft((mail.number, os.fsdecode(line.rpartition(b" ")[0]), mail.step[0], text))
                self._current = self._current or chunk

    def _keep(self, record: Record) -> None:
        if record.state is State.DEFERRED:
            self._kept_until = min(self._kept_until, record.due)

    def give_up(self) -> None:
        """See `BundleHolder`."""
        with self._claims.mutex:
            self._is_given_up = True
            for chunk in list(self._ours.values()):
                chunk.waiting = deque(entry for entry in chunk.waiting if entry[2] != WAITING[0])
                if self._current is chunk and not chunk.waiting:
                    self._current = None
                self._finish(chunk)

    def _finish(self, chunk: _Chunk) -> None:
        """Let go of a chunk with which nothing is to be done any more."""
        if chunk.waiting or chunk.out or chunk.number not in self._ours:
            return
        del self._ours[chunk.number]
        if self._current is chunk:
            self._current = None
        try:
            chunk.lock.release()
        except OSError as error:
            maillog.unlocking_failed(self._name, error)

    # the end

    def is_over(self, now: float) -> bool:
        """Return whether nothing is left to be done here, so that the bundle can be unfolded."""
        if self._ours or now < self._try_at:
            return False
        return self._is_unfolded or not (self._pending or self._busy)

    def end(self, now: float) -> bool:
        """Unfold what is left; return whether that is done.  Raises `OSError`."""
        self.progress.sync()
        if unfold(self.store.layout, self.store.disk, self.group):
            self.close()
            return True
        self.try_again(now)
        return False

    def try_again(self, now: float) -> None:
        """Let some time pass: the disk refuses."""
        self._try_at = now + _LOOK_AGAIN

    def next_look(self, now: float) -> float:
        """Return the seconds until there may be something to do."""
        if self.has_work(now) or self.is_over(now):
            return 0.0
        return min((at - now for at in (*self._busy.values(), self._try_at) if at > now), default=inf)

    def close(self) -> None:
        """Close the files, as soon as no lease is out.  Harmless when repeated."""
        self._is_closed = True
        if self._ours:
            return
        self.progress.close()
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _begins_of(disk: Disk, group: str) -> tuple[array[int], str, int]:
    """Return where each mail of a whole bundle begins and the last one ends; the first one's name, and its rank.

    :raises NotHere: one of them is too large, has another priority than the first, or does not simply wait its turn.
    """
    begins, path, first, usual = array("Q", (0,)), os.path.join(group, BUNDLE), "", UNMARKED
    with disk.open(path) as stream:
        for name, length in entries(stream, path):
            if not first:
                first, usual = name, Marks(marks_in(name).priority)
            if length > _LARGEST or marks_in(name) != usual:
                raise NotHere
            begins.append(stream.tell() + length)
    return begins, first, usual.priority.rank


def _is_being_unfolded(disk: Disk, group: str) -> bool:
    """Return whether another process has begun to make files of a bundle, and did not say so in the group yet."""
    with disk.locked(os.path.join(group, BUNDLE)) as fd:
        return fd is None


class NotHere(Exception):
    """A bundle that is not drained where it lies."""


class BundleHost(Protocol):
    """What the claims of a processor do for its bundles."""

    mutex: Any
    drains_bundles: bool
    store: Store
    sent_log: SentLog

    def settle_later(self, lease: MaildirLease, record: Record, error: OSError) -> None:
        """Settle a lease again later, since the disk refused."""

    def inherit(self, lease: MaildirLease) -> None:
        """Write down what the owner before us had done with a mail."""

    def removed_from_bundle(self) -> None:
        """Take note that a mail was sent, which is not durable yet."""

    def unfolded(self) -> None:
        """Take note that there may be new files."""


class Bundles:
    """Those that one processor drains.  Concurrency: with the mutex of the host held."""

    def __init__(self, host: BundleHost, owner: Owner) -> None:
        self._host = host
        self._owner = owner
        self._drains: dict[str, BundleDrain] = {}
        self._turn = 0

    def __contains__(self, group: str) -> bool:
        return group in self._drains

    def take_up(self, group: str) -> bool:
        """Begin to drain a committed group where it lies; return False if files are to be made of it.

        If dead processors have left something unclear there, that is finished first, in any case.

        :param group: relative to the queue
        """
        if group in self._drains:
            return True
        store = self._host.store
        path = os.path.join(store.layout.root, group)
        try:
            names = store.disk.names(path)
            is_free = self._host.drains_bundles and may_be_drained(names) and not _is_being_unfolded(store.disk, path)
            if not is_free and not is_left(store.disk, path):
                return False
            gather_out(store.layout, store.disk, path)
            drain = self._drains[group] = BundleDrain(self._host, self._owner, path)
            if not is_free:
                drain.give_up()
        except (OSError, NotHere):  # unfolding it says what is wrong
            return False
        return True

    def give_up(self, group: str) -> None:
        """Let files be made of a bundle: tell the processors that drain it, and finish what dead ones have left.

        Raises `OSError`.
        """
        store, now = self._host.store, self._host.store.clock.monotonic()
        path, is_new = os.path.join(store.layout.root, group), group not in self._drains
        if PROGRESS not in store.disk.names(path):
            return
        with contextlib.suppress(FileExistsError):
            store.disk.create(os.path.join(path, WANTED))
        if not self.take_up(group):
            return
        drain = self._drains[group]
        drain.give_up()
        for lease in drain.take(sys.maxsize, now):
            if lease.record.state is State.SENT:
                lease.settle(lease.record)
            else:
                lease.release()
        if drain.is_over(now) and drain.end(now):
            del self._drains[group]
            self._host.unfolded()
        elif is_new:
            self._drains.pop(group).close()

    @property
    def are_usual(self) -> bool:
        """Whether the mails of all of them have the usual priority."""
        return all(drain.rank == _NORMAL for drain in self._drains.values())

    def ranks(self) -> set[int]:
        """Return the ranks of the priorities of which there is something to do."""
        return {drain.rank for drain in self._waiting()}

    def _waiting(self) -> list[BundleDrain]:
        now = self._host.store.clock.monotonic()
        return [drain for drain in self._drains.values() if drain.has_work(now) or drain.is_over(now)]

    def comes_before(self, key: str | None, rank: int = _NORMAL) -> bool:
        """Return whether a mail in a bundle is older than the message with this key, which has the same priority."""
        ages = [drain.age for drain in self._waiting() if drain.rank == rank]
        self._turn = (self._turn + 1) % _TURN
        return bool(ages) and (key is None or (self._turn != 0 and min(ages) < by_age(key)))

    def take(self, limit: int, rank: int = _NORMAL) -> list[MaildirLease]:
        """Return leases on up to `limit` mails of the oldest bundles of a priority.  Raises `CannotClaim`."""
        now = self._host.store.clock.monotonic()
        leases: list[MaildirLease] = []
        drains = [pair for pair in self._drains.items() if pair[1].rank == rank]
        for group, drain in sorted(drains, key=lambda pair: pair[1].age):
            try:
                leases += drain.take(limit - len(leases), now)
                if drain.is_over(now) and drain.end(now):
                    del self._drains[group]
                    self._host.unfolded()
            except CannotClaim as trouble:
                if not leases and not isinstance(trouble, OneAtATime):
                    raise
                break
            except OSError as error:
                maillog.group_stuck(group, error)
                drain.give_up()
                drain.try_again(now)
            if len(leases) == limit:
                break
        return leases

    def next_look(self) -> float | None:
        """Return the seconds until there may be something to do; None if there is not, before a lease ends."""
        now = self._host.store.clock.monotonic()
        soonest = min((drain.next_look(now) for drain in self._drains.values()), default=inf)
        return soonest if soonest < inf else None

    def sync(self) -> None:
        """Make durable what was sent.  Raises `OSError`."""
        for drain in self._drains.values():
            drain.progress.sync()

    def close(self) -> None:
        """Leave what is left to others: files are made of it soon."""
        drains, self._drains = list(self._drains.values()), {}
        for drain in drains:
            drain.give_up()
            drain.close()
            later(self._host.store.layout, self._host.store.disk, drain.group)

    def forget(self) -> None:
        """Close the files only, in a forked child."""
        for drain in self._drains.values():
            drain.close()
        self._drains = {}
