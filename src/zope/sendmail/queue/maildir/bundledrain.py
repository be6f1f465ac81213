"""Bundles that one processor drains where they lie, so that their mails need not become files first.

Any number of processors do it at once, 64 mails of a bundle each at a time: a *chunk*, with a lock as a message has
one.  What is left of a bundle is unfolded.  The steps, and what a crash leaves, stand in
``docs/explanation/internals.rst``, *Draining a bundle*.  Trouble with one bundle is told in the log; then it is
unfolded as ever.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from array import array
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from math import inf
from typing import Any, Protocol

from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.terms import marks_in
from zope.sendmail.queue.maildir import reserve
from zope.sendmail.queue.maildir.bundle import entries, may_be_drained, unfold
from zope.sendmail.queue.maildir.bundlelease import BundledLease, BundledMail, key_of
from zope.sendmail.queue.maildir.bundleprogress import GONE, KEPT, WAITING, BundleProgress, make_progress
from zope.sendmail.queue.maildir.layout import BUNDLE, GROUP, WANTED, by_age
from zope.sendmail.queue.maildir.lease import MaildirLease
from zope.sendmail.queue.maildir.locks import Busy, Lock, Owner
from zope.sendmail.queue.maildir.sentlog import SentLog
from zope.sendmail.queue.maildir.store import UNTRIED, Store
from zope.sendmail.reporting import maillog
from zope.sendmail.system.disk import Disk

#: Mails of one priority that a processor has at a time.
_CHUNK = 64

#: Of a bundle with a mail that has more bytes, files are made: a chunk is in memory.
_LARGEST = 64 * 1024

#: Seconds until what another process was doing is looked at again.
LOOK_AGAIN = 2.0


class _Chunk:
    """Mails of a bundle that are ours.

    :param rank: that of their priority
    :param mails: their numbers, ascending
    """

    def __init__(self, number: int, rank: int, mails: Sequence[int], lock: Lock) -> None:
        self.number = number
        self.rank = rank
        self.mails = mails
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
        self._begins, first, ranks, self.expires = _begins_of(disk, group, self.store.clock.time())
        #: The rank and the mails of each chunk; the ranks of all, ascending.
        self._chunks = _chunks_of(ranks)
        self.all_ranks = sorted(set(ranks))
        #: The first mails of a transaction are files, and go before those in its bundle.
        self.age = by_age(key_of(first))
        self.progress = self._make_progress(disk, len(ranks))
        try:
            self._fd = disk.open_existing(os.path.join(group, BUNDLE))
        except OSError:
            self.progress.close()
            raise
        #: Chunks that may have something to do, by rank, and when those that others have are looked at again.
        self._pending = {
            rank: deque(number for number, (each, _) in enumerate(self._chunks) if each == rank)
            for rank in self.all_ranks
        }
        self._busy: dict[int, float] = {}
        self._ours: dict[int, _Chunk] = {}
        self._current: dict[int, _Chunk] = {}
        #: No mail is begun here any more; and what is here is being made files of, or is gone.
        self._is_given_up = self._is_unfolded = self._is_closed = False
        #: When the first mail that was kept is due, by the wall clock.
        self._kept_until = inf
        self._try_at = 0.0

    def _make_progress(self, disk: Disk, count: int) -> BundleProgress:
        """Return how far its mails are, from a file of the reserve where there is no room for another."""
        become = functools.partial(reserve.become, self.store.layout, disk)
        make_progress(disk, self.group, count, self._owner.name, become)
        return BundleProgress(disk, self.group)

    # giving out

    def ranks(self, now: float) -> Collection[int]:
        """Return the ranks of which `take` may give something, or do what is to be done in the end."""
        if self.is_over(now):
            return self.all_ranks[-1:]
        if self._is_unfolded or now < self._try_at:
            return ()
        found = {rank for rank, numbers in self._pending.items() if numbers}
        found.update(self._current, (chunk.rank for chunk in self._ours.values() if chunk.waiting))
        found.update(self._chunks[number][0] for number, at in self._busy.items() if at <= now)
        return found

    def count(self) -> int:
        """Return how many mails are to be given out; all of those in chunks that no process has had."""
        pending = sum(len(self._chunks[number][1]) for numbers in self._pending.values() for number in numbers)
        return pending + sum(len(chunk.waiting) for chunk in self._ours.values())

    def take_all(self, now: float) -> Iterator[MaildirLease]:
        """Yield leases on all mails, as `take` does."""
        for rank in self.all_ranks:
            while leases := self.take(sys.maxsize, now, rank):
                yield from leases

    def take(self, limit: int, now: float, rank: int) -> list[MaildirLease]:
        """Return leases on up to `limit` mails of a priority, in order.

        Raises `CannotClaim`, or `OSError` for this bundle; but what was leased before that is returned: the next call
        meets the trouble again.
        """
        leases: list[MaildirLease] = []
        if now < self._try_at:
            return leases
        if self.store.clock.time() >= self._kept_until:
            self.give_up()
        try:
            self._take_into(leases, limit, now, rank)
        except OSError:
            if not leases:
                raise
        return leases

    def _take_into(self, leases: list[MaildirLease], limit: int, now: float, rank: int) -> None:
        while len(leases) < limit and not self._is_unfolded:
            chunk = self._current.get(rank) or self._with_waiting(rank) or self._next_chunk(now, rank)
            if chunk is None:
                break
            lease = self._lease(chunk)
            if lease is not None:
                leases.append(lease)
            if not chunk.waiting:
                self._current.pop(rank, None)
                self._finish(chunk)

    def _with_waiting(self, rank: int) -> _Chunk | None:
        """Return a chunk of ours with a mail that was given back after the last one of the chunk was given out."""
        return next((chunk for chunk in self._ours.values() if chunk.waiting and chunk.rank == rank), None)

    def _next_chunk(self, now: float, rank: int) -> _Chunk | None:
        """Lock a chunk that has something to do, and read it; None if there is none now."""
        for number in [number for number, at in self._busy.items() if at <= now]:
            del self._busy[number]
            self._pending[self._chunks[number][0]].append(number)
        pending = self._pending[rank]
        while pending and not self._is_unfolded:
            number = pending.popleft()
            try:
                chunk = self._locked(number, now)
            except FileNotFoundError:  # another process has unfolded it
                self._is_unfolded = True
                return None
            except OSError:
                pending.appendleft(number)
                raise
            if chunk is not None:
                self._ours[number] = chunk
                if chunk.waiting:
                    self._current[rank] = chunk
                    return chunk
                self._finish(chunk)
        return None

    def _locked(self, number: int, now: float) -> _Chunk | None:
        """Lock a chunk and read it; None if another process has it.  Raises `OSError`."""
        lock = self._owner.take(f"new/{self._name}/{self._name.removeprefix(GROUP)}.{number}")
        if isinstance(lock, Busy):
            self._busy[number] = now + lock.seconds
            return None
        chunk = _Chunk(number, *self._chunks[number], lock)
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
        disk = self.store.disk
        names = disk.names(self.group)
        if BUNDLE not in names:
            self._is_unfolded = True
            return
        if WANTED in names or not may_be_drained(names):
            self.give_up()
        for first, last in _runs(chunk.mails):
            self._read_run(chunk, first, last)

    def _read_run(self, chunk: _Chunk, first: int, last: int) -> None:
        """Read mails that stand one behind the other."""
        begins = self._begins[first : last + 2]
        steps = self.progress.steps(first, len(begins) - 1)
        text = self.store.disk.read_at(self._fd, begins[-1] - begins[0], begins[0])
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

    def give_way(self, lease: MaildirLease, relay: str, patience: float) -> bool:
        """Return False; see `LeaseHolder`.  A bundle is drained by a processor with one relay, which parks nothing."""
        return False

    def ended(self, mail: BundledMail, record: Record) -> None:
        """See `BundleHolder`."""
        with self._claims.mutex:
            chunk = next((chunk for chunk in self._ours.values() if mail.number in chunk.mails), None)
            if chunk is None:
                return  # pragma: no cover - a lease would have to end twice, as no caller lets it
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
                self._current.setdefault(chunk.rank, chunk)

    def _keep(self, record: Record) -> None:
        if record.state is State.DEFERRED:
            self._kept_until = min(self._kept_until, record.due)

    def give_up(self) -> None:
        """See `BundleHolder`."""
        with self._claims.mutex:
            self._is_given_up = True
            for chunk in list(self._ours.values()):
                chunk.waiting = deque(entry for entry in chunk.waiting if entry[2] != WAITING[0])
                if not chunk.waiting:
                    self._forget_current(chunk)
                self._finish(chunk)

    def _finish(self, chunk: _Chunk) -> None:
        """Let go of a chunk with which nothing is to be done any more."""
        if chunk.waiting or chunk.out or chunk.number not in self._ours:
            return
        del self._ours[chunk.number]
        self._forget_current(chunk)
        try:
            chunk.lock.release()
        except OSError as error:
            maillog.unlocking_failed(self._name, error)

    def _forget_current(self, chunk: _Chunk) -> None:
        if self._current.get(chunk.rank) is chunk:
            del self._current[chunk.rank]

    # the end

    def is_over(self, now: float) -> bool:
        """Return whether nothing is left to be done here, so that the bundle can be unfolded."""
        if self._ours or now < self._try_at:
            return False
        return self._is_unfolded or not (any(self._pending.values()) or self._busy)

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
        self._try_at = now + LOOK_AGAIN

    def next_look(self, now: float) -> float:
        """Return the seconds until there may be something to do."""
        if self.ranks(now):
            return 0.0
        return min((at - now for at in (*self._busy.values(), self._try_at) if at > now), default=inf)

    def close(self) -> None:
        """Close the files, as soon as no lease is out.  Harmless when repeated."""
        self._is_closed = True
        if not self._ours:
            self.forget()

    def forget(self) -> None:
        """Close the files at once, whatever is out, as a forked child has to: its leases are its parent's."""
        self.progress.close()
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _chunks_of(ranks: bytes) -> list[tuple[int, Sequence[int]]]:
    """Return the chunks of a bundle: the rank and the mails of each.

    So many mails of one priority are one, and those of the first priority come first: from the bundle every process
    finds the same.

    :param ranks: that of each mail
    """
    found: list[tuple[int, Sequence[int]]] = []
    for rank in sorted(set(ranks)):
        are_all = ranks.count(rank) == len(ranks)
        mails = range(len(ranks)) if are_all else [number for number, each in enumerate(ranks) if each == rank]
        found += [(rank, mails[at : at + _CHUNK]) for at in range(0, len(mails), _CHUNK)]
    return found


def _runs(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the first and the last of those that follow one another."""
    first = last = numbers[0]
    for number in numbers[1:]:
        if number != last + 1:
            yield first, last
            first = number
        last = number
    yield first, last


def _begins_of(disk: Disk, group: str, now: float) -> tuple[array[int], str, bytes, float]:
    """Return where each mail of a whole bundle begins and the last one ends; the first one's name; the rank of each;
    and when the first one is to be given up.

    :param now: seconds since the epoch
    :raises NotHere: one of them is too large, leaves later, or has expired.
    """
    begins, ranks, path, first, expires = array("Q", (0,)), bytearray(), os.path.join(group, BUNDLE), "", inf
    with disk.open(path) as stream:
        for name, length in entries(stream, path):
            marks = marks_in(name)
            first = first or name
            expires = min(expires, marks.expires)
            if length > _LARGEST or marks.not_before > now or expires <= now:
                raise NotHere
            begins.append(stream.tell() + length)
            ranks.append(marks.priority.rank)
    return begins, first, bytes(ranks), expires


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
