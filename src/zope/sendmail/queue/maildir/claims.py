"""The way out of a Maildir queue: which messages one processor gets, and what its leases say of them.

Knows what is due, takes the locks, finishes what dead owners left.  One message's trouble with the disk is told in the
log and costs only that message time; what concerns all of them raises `OSError`, or `QueueNotSafe`.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from math import inf

from zope.sendmail.lifecycle.outcome import Answer, Outcome
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.retry import Schedule, after_death, sent_before_death
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.terms import PLAIN, Priority, marks_in
from zope.sendmail.queue.maildir import makeway
from zope.sendmail.queue.maildir.bundlesource import BundleSource
from zope.sendmail.queue.maildir.index import Index
from zope.sendmail.queue.maildir.lease import MaildirLease
from zope.sendmail.queue.maildir.lockedhistories import LockedHistories
from zope.sendmail.queue.maildir.locks import Busy, CannotClaim, Lock, OneAtATime, Owner
from zope.sendmail.queue.maildir.ordinary import OrdinaryLease, ordinary_lease
from zope.sendmail.queue.maildir.ownertext import Phase
from zope.sendmail.queue.maildir.processshare import ProcessShare
from zope.sendmail.queue.maildir.scanner import Scanner
from zope.sendmail.queue.maildir.sentlog import SentLog
from zope.sendmail.queue.maildir.store import UNTRIED, Store
from zope.sendmail.queue.maildir.sweeper import Sweeper
from zope.sendmail.queue.maildir.unsettled import UnsettledLeases
from zope.sendmail.reporting import maillog

_NORMAL = Priority.NORMAL.rank

#: How many messages one `take` looks at; the caller comes back at once if more are due.
_TRIES = 500

#: What this process has too few of, whatever message it opens.
_ABOUT_ALL = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})

#: Seconds until a held message is looked at again; its release may have been told to other hosts only.
_HELD = 600.0

#: Seconds until it is looked again whether the one lock for which there is room has ended.
_ONE_AT_A_TIME = 0.2

#: Seconds by which the wall clock has been set, if it is more than that.
_JUMP = 0.5

#: Seconds until a message that cannot be read is looked at again: at first, and at most.
_UNREADABLE = (60.0, 3600.0)


class Claims:
    """The messages that one processor knows of, and the leases that it has.

    Concurrency: `settled`, `park` and `settle_later` from any thread; everything else with `mutex` held.
    """

    def __init__(
        self,
        store: Store,
        schedule: Schedule,
        owner: Owner,
        make: Callable[[str, Lock, Record], MaildirLease],
        kept_days: int,
        *,
        knows_ordinary: bool = True,
    ) -> None:
        self._make = make
        #: Whether an ordinary message has a lease of its own kind, and not the one that `make` makes.
        self._knows_ordinary = knows_ordinary
        #: Whether bundles are drained where they lie; see `MaildirQueue.drain_bundles`.
        self.drains_bundles = False
        self._has_unfolded = False
        self.store = store
        self.mutex = threading.RLock()
        self._schedule = schedule
        self._clock = store.clock
        self._histories = LockedHistories(store)
        self.unsettled = UnsettledLeases(store.clock)
        self.share = ProcessShare(store)
        #: What is added to the monotonic clock to get the wall clock's time.
        self._offset = self._clock.time() - self._clock.monotonic()
        self.sent_log = SentLog(
            store.layout, store.disk, store.clock, kept_days=kept_days, has_room=lambda: not self._owner.is_ownerless
        )
        self.sweeper = Sweeper(store.clock, self.removed, self.freed)
        self.begin(owner)

    def begin(self, owner: Owner) -> None:
        """Forget everything, and go on with this owner file.  Leases that are out keep theirs until they end."""
        self.sent_log.close()
        self._owner = owner
        self._index = Index()
        self._bundles = BundleSource(self, owner)
        self._scanner = Scanner(self.store, self._index, self.share.grace, self._bundles.take_up)
        self.unsettled.keep_alive_ones()
        self._unreadable: dict[str, float] = {}
        #: Whether others were faster since the last look: many of the messages we know are gone then.
        self._has_rivals = False
        #: Directories from which mail was removed and that are not synced yet, and since when there is one.
        self._removed: set[str] = set()
        self._removed_since = 0.0

    def forget_after_fork(self, owner: Owner) -> None:
        """Begin anew in a forked child: every lease is its parent's."""
        self.mutex = threading.RLock()
        self.unsettled.forget_after_fork()
        self.sweeper.forget_after_fork()
        self._bundles.forget()
        self.begin(owner)

    def leave_bundles(self) -> None:
        """Let files be made of what is left in bundles."""
        self._bundles.close()

    def give_up_bundles(self, groups: Iterable[str]) -> None:
        """Let files be made of these bundles, whichever processors drain them.  Raises `OSError`."""
        with self.mutex:
            for group in groups:
                with contextlib.suppress(FileNotFoundError):  # that was done in this moment
                    self._bundles.give_up(group)

    # what is due

    def heard(self, keys: Iterable[str] | None) -> None:
        """Take note of what is new.

        :param keys: of messages that are new or have changed; the empty text among them asks for a look at the
            directory.  None: nothing was said.
        """
        for key in keys or ():
            if not key:
                self._scanner.asked = True
            elif key not in self._index and (grace := self.share.grace(key) or self._planned(key)):
                self._index.put(key, self._clock.monotonic() + grace)
            else:
                self._index.add(key)

    def hear(self, keys: Iterable[str] | None) -> None:
        """Take note of what is new, and look if that is asked for and it is time to."""
        self.heard(keys)
        if self._scanner.asked:
            self.look()

    def has_before(self, rank: int) -> bool:
        """Return whether a message is known to be due whose priority is higher."""
        if rank == _NORMAL and self.is_usual():
            return False
        return any(each < rank for each in (*self._index.due_ranks(self._clock.monotonic()), *self._bundles.ranks()))

    def _planned(self, key: str) -> float:
        """Return the seconds until a message leaves for the first time that is new here, as its name tells."""
        if "," not in key or (moment := marks_in(key).not_before) <= self._clock.time():
            return 0.0
        tried = self.store.due_hint(key) is not None  # an operator may want it now
        return 0.0 if tried else moment - self._clock.time()

    def _follow_clock(self) -> None:
        """Plan anew what leaves at a moment of the wall clock, if that was set, or the machine has slept."""
        now, monotonic = self._clock.time(), self._clock.monotonic()
        offset, self._offset = self._offset, now - monotonic
        if abs(self._offset - offset) > _JUMP:
            for key in self._index.planned():
                if (moment := marks_in(key).not_before) > now - abs(self._offset - offset):
                    self._index.put(key, monotonic + max(0.0, moment - now))

    def look(self) -> None:
        """Read the directory if it is time to, and finish what the dead left of messages that are gone."""
        self._has_rivals = False
        self._follow_clock()
        for orphan in self._scanner.look(self._clock.monotonic()):
            self._clear(orphan)

    def note_short(self) -> None:
        """Take note that other mail, which is not in the queue yet, waits until there is room for it."""
        self._scanner.note_short()

    @property
    def wants_room(self) -> bool:
        """Whether mail waits until another one has left, since there is no room for its lock or its file."""
        return self._owner.is_lent or self._scanner.is_short

    @property
    def awaits_files(self) -> bool:
        """Whether another process is making files of committed mail, which are due as soon as they are there."""
        return self._scanner.awaits_files

    def next_due(self) -> float | None:
        """See `IMailQueue`.  Where there is room for one lock at a time, nothing is due while that is out."""
        if self._scanner.is_due:
            return 0.0
        due, bundled = self._index.next_due(self._clock.monotonic()), self._bundles.next_look()
        if due is not None and self._owner.is_lent:
            due = max(due, _ONE_AT_A_TIME)
        return due if bundled is None else min(bundled, bundled if due is None else due)

    def count_due(self, limit: int) -> int:
        """Return about how many messages are due, counted up to so many."""
        return min(limit, self._index.count_due(limit) + self._bundles.count())

    def unpark(self, relay: str, limit: int) -> int:
        """See `IMailQueue`."""
        return self._index.unpark(relay, limit)

    def parked(self) -> Collection[str]:
        """See `IMailQueue`."""
        return self._index.parked()

    def take(self, limit: int) -> list[MaildirLease]:
        """Lease up to `limit` messages that are known to be due: as priorities take turns, and then oldest first.

        :raises CannotClaim: if none can be locked now
        """
        leases = self._take_of(_NORMAL, limit) if self.is_usual() else self._take_in_turn(limit)
        if self._has_unfolded and not leases:
            self._has_unfolded = False
            self._scanner.ask_at_once()
            self.look()
            leases = self._take_files(limit)
        return leases

    @property
    def are_alike(self) -> bool:
        """Whether all known messages have the usual priority, those that are not due included."""
        return not self._index.knows_marked and self._bundles.are_usual

    def is_usual(self) -> bool:
        """Return whether nothing is due that has another priority than the usual one."""
        return self._bundles.are_usual and self._index.is_usual(self._clock.monotonic())

    def _take_in_turn(self, limit: int) -> list[MaildirLease]:
        """Do so with messages of several priorities.  Raises `CannotClaim`."""
        leases: list[MaildirLease] = []
        for _ in range(_TRIES):
            waiting = sorted({*self._index.due_ranks(self._clock.monotonic()), *self._bundles.ranks()})
            if not waiting or len(leases) == limit:
                break
            try:
                leases += self._take_of(self._index.precedence.next(waiting), 1)
            except CannotClaim:
                if not leases:
                    raise
                break
        return leases

    def _take_of(self, rank: int, limit: int) -> list[MaildirLease]:
        """Do so with those of one priority, be they files or in bundles.  Raises `CannotClaim`."""
        sources = [self._take_files, self._bundles.take]
        if self._bundles.comes_before(self._index.first_fresh(rank), rank):
            sources.reverse()
        leases = sources[0](limit, rank)
        if len(leases) < limit:
            try:
                leases += sources[1](limit - len(leases), rank)
            except CannotClaim:
                if not leases:
                    raise
        return leases

    def _take_files(self, limit: int, rank: int | None = None) -> list[MaildirLease]:
        """Do so with those that are files, of one priority or of all.  Raises `CannotClaim`."""
        leases: list[MaildirLease] = []
        for _ in range(_TRIES):
            try:
                taken = self._take_untold(limit - len(leases), rank)
            except CannotClaim:
                if not leases:
                    raise
                break
            looked_at = self._looked_at(taken)
            leases += looked_at
            if len(looked_at) == len(taken):  # else others may be due in the place of those that are not
                break
        return leases

    def _take_untold(self, limit: int, rank: int | None) -> list[MaildirLease]:
        """Do so; of ordinary messages it is still to be asked whether they have a history.  Raises `CannotClaim`."""
        now = self._clock.monotonic()
        leases: list[MaildirLease] = []
        for _ in range(_TRIES):
            key = self._index.take(now, rank) if len(leases) < limit else None
            if key is None:
                break
            try:
                lease = self._guarded(key, self._take_due)  # if it is really due; else the index is told why not
            except CannotClaim as trouble:
                self._index.put(key, now)
                if leases or isinstance(trouble, OneAtATime):
                    break
                raise
            if lease is not None:
                leases.append(lease)
        return leases

    def _looked_at(self, leases: list[MaildirLease]) -> list[MaildirLease]:
        """Return the leases, with a full one in the place of an ordinary one whose message has a history after all."""
        tried = self._histories.among([lease.name for lease in leases if isinstance(lease, OrdinaryLease)])
        if not tried:
            return leases
        looked_at = [self._full(lease.key, lease.lock) if lease.name in tried else lease for lease in leases]
        return [lease for lease in looked_at if lease is not None]

    def _full(self, key: str, lock: Lock) -> MaildirLease | None:
        """Return a full lease on a message that we have locked, if it is due."""
        try:
            return self._guarded(key, functools.partial(self._lease, lock=lock))
        except CannotClaim:  # the next claim meets it again
            self._index.put(key, self._clock.monotonic())
            return None

    def next_expiry(self) -> float | None:
        """See `IMailQueue`."""
        expires = min(self._index.next_expiry() or inf, self._bundles.next_expiry())
        return None if expires == inf else max(0.0, expires - self._clock.time())

    def take_expired(self, limit: int) -> list[MaildirLease]:
        """Lease up to `limit` messages that are known to have expired and are not held.

        :raises CannotClaim: if none can be locked now
        """
        leases: list[MaildirLease] = []
        now = self._clock.time()
        if self._bundles.expire(now):
            self._scanner.ask_at_once()
            self.look()
        while len(leases) < limit and (key := self._index.take_expired(now)) is not None:
            try:
                lease = self._guarded(key, self._take_expired)
            except CannotClaim as trouble:
                self._index.spare(key, self._clock.monotonic(), now)
                if leases or isinstance(trouble, OneAtATime):
                    break
                raise
            if lease is not None:
                leases.append(lease)
        return leases

    def _take_expired(self, key: str) -> MaildirLease | None:
        """Return a lease on this message, whenever it is due."""
        lock = self._owner.take(key)
        if isinstance(lock, Busy):
            self._index.spare(key, self._clock.monotonic() + lock.seconds, self._clock.time() + lock.seconds)
            return None
        return self._lease(key, lock, expired=True)

    # one message

    def _guarded(self, key: str, take: Callable[[str], MaildirLease | None]) -> MaildirLease | None:
        """Return what `take` returns; trouble with one message is told of that one."""
        try:
            return take(key)
        except FileNotFoundError:
            self._gone(key)
        except OSError as error:
            self._skip(key, error)
        return None

    def _take_due(self, key: str) -> MaildirLease | None:
        if self.share.shares > 1 and self.share.is_left_to_others(key, self._index):
            return None
        if self._has_rivals:
            self.store.disk.stat(self.store.layout.message(key))  # cheaper than locking what is gone
        if self._index.was_tried and not self._is_due(key, self.store.record(key)):
            return None
        found, lock = makeway.take(self._owner, self.store, key)
        if found != key:
            self._index.move(key, found)
        if isinstance(lock, Busy):
            self._index.put(found, self._clock.monotonic() + lock.seconds)
            self._has_rivals = True
            return None
        if found != key:  # what is wrong with it concerns the name that it has now
            return self._guarded(found, lambda moved: self._lease(moved, lock))
        return self._ordinary(key, lock) or self._lease(key, lock)

    def _gone(self, key: str) -> None:
        """Take note that another processor, or a person, was faster."""
        self.store.forget(key)
        self._index.drop(key)
        self._unreadable.pop(key, None)
        self._has_rivals = True

    def _is_due(self, key: str, record: Record) -> bool:
        if record is UNTRIED:
            return True
        if record.state is State.HELD:
            self._index.put(key, self._clock.monotonic() + _HELD)
            return False
        wait = record.wait(self._clock.time())
        if wait > 0:
            self._index.put(key, self._clock.monotonic() + wait)
        return wait <= 0

    def _ordinary(self, key: str, lock: Lock) -> MaildirLease | None:
        """Return a lease on a message that we have locked if that is ordinary, as most are."""
        if not self._knows_ordinary or lock.inherited is not None or self._index.was_tried or "," in key:
            return None  # what its sender asked for stands behind the comma
        lease = ordinary_lease(self, key, lock)
        if lease is not None:
            self._unreadable.pop(key, None)
        return lease

    def _lease(self, key: str, lock: Lock, *, expired: bool = False) -> MaildirLease | None:
        """Return a lease on a message that we have locked, or give the lock back unless it still has to be told of.

        :param expired: whether it is to be given up now, unless a person holds it.
        """
        try:
            record = self.store.record(key)  # again: another processor may have had it a moment ago
            is_early = record.state is State.HELD if expired else not self._is_due(key, record)
            if lock.lost(record.attempts) is None and is_early:
                lock.release()
                if expired:
                    self._index.spare(key, self._clock.monotonic() + _HELD, self._clock.time() + _HELD)
                return None
            lease = self._make(key, lock, record)
            has_terms = expired or lease.terms is not PLAIN
            if has_terms and lock.lost(record.attempts) is None and self._is_planned(lease, expired):
                return None
        except OSError as error:
            self._give_up(key, lock, error)
            raise
        try:
            self.inherit(lease)
        except OSError:
            lease.abandon()
            lock.keep()  # no other process may have it before this is written down
            raise
        self._unreadable.pop(key, None)
        if lease.record.state is State.REJECTED:  # its owner died between the history and the rename
            lease.settle(lease.record)
            return None
        return lease

    def _is_planned(self, lease: MaildirLease, expired: bool) -> bool:  # noqa: FBT001 - said in the name
        """Give back a message that its sender wants to leave later, or whose time is not over in spite of its name."""
        now, terms = self._clock.time(), lease.terms
        self._index.expect(lease.key, terms.expires)
        wait = lease.record.before_time(terms, now)
        if terms.expires <= now or (not expired and wait <= 0.0):
            return False
        lease.release()
        if wait > 0.0:
            self._index.put(lease.key, self._clock.monotonic() + wait)
        return True

    def _give_up(self, key: str, lock: Lock, error: OSError) -> None:
        """Give back the lock of a message that is gone, or cannot be read."""
        gone = isinstance(error, FileNotFoundError)
        if gone and (lock.inherited is not None or key in self._unreadable):  # we may have kept what was inherited
            self._clean_and_release(key, lock)
        elif gone or lock.lost(0) is None:
            lock.release()
        else:
            lock.keep()

    def inherit(self, lease: MaildirLease) -> None:
        """Write down that the owner before us died with the message, if it did, before anything else."""
        lost = lease.lock.lost(lease.record.attempts)
        if lost is None:
            return
        envelope = lease.envelope
        if lost is Phase.ACCEPTED:  # that is written down until the message is removed
            lease.record = sent_before_death(lease.record, envelope, now=self._clock.time())
            lease.inherited = Outcome("", {who: lease.record.replies[who] for who in envelope.recipients})
            return
        intended = lost is Phase.INTENDED
        record = after_death(lease.record, envelope, self._schedule, intended=intended, now=self._clock.time())
        self.store.append(lease.key, record)
        lease.wrote(record)
        if intended:
            replies = {who: record.replies[who] for who in envelope.recipients}
            lease.inherited = Outcome(
                "", {who: reply for who, reply in replies.items() if reply.answer is Answer.UNKNOWN}
            )

    def _skip(self, key: str, error: OSError) -> None:
        """Leave it alone for a while, the longer the more often; an operator sees it, and others flow.

        :raises CannotClaim: if it is no trouble of this message
        """
        if isinstance(error, CannotClaim):
            raise error
        if error.errno in _ABOUT_ALL:
            raise CannotClaim.because_of(error) from error
        seconds = self._unreadable[key] = min(self._unreadable.get(key, _UNREADABLE[0] / 2) * 2, _UNREADABLE[1])
        maillog.skipped(key, error, seconds)
        self._index.put(key, self._clock.monotonic() + seconds)

    def _clear(self, key: str) -> None:
        """Finish what the owner of a lock without a message could not."""
        try:
            lock = self._owner.take(key)
            if isinstance(lock, Lock):
                self._clean_and_release(key, lock)
        except OneAtATime:  # the next look finds it again
            pass
        except OSError as error:
            self._skip(key, error)

    def _clean_and_release(self, key: str, lock: Lock) -> None:
        """Remove what belongs to a message that is gone: the owner before us died while it did that.

        If the disk refuses, the lock stays, with which the next look finds the rest.
        """
        try:
            if self.store.find(key.rpartition("/")[2]) is None:
                self.store.remove_leftovers(key)
        except OSError:
            lock.keep()
            raise
        lock.release()

    # what leases tell

    def settled(self, key: str, record: Record) -> None:
        """Take note that a lease has ended and the message is as `record` says."""
        with self.mutex:
            if record.state in (State.SENT, State.REJECTED):
                self._index.drop(key)
                self._scanner.made_room()
                if not self._removed:
                    self._removed_since = self._clock.monotonic()
                self._removed.add(key.partition("/")[0])
            elif record.state is State.HELD:
                self._index.put(key, self._clock.monotonic() + _HELD)
            elif record is UNTRIED:  # it was given back, and stands where it stood
                self.restore(key)
            else:
                self._index.put(key, self._clock.monotonic() + record.wait(self._clock.time()))

    def restore(self, key: str) -> None:
        """Take note that a lease has ended and the message is as if nothing had been done with it."""
        with self.mutex:
            self.share.gave_back(key)
            self._index.restore(key)

    def removed(self, keys: Sequence[str]) -> None:
        """Take note that these messages were sent and are gone."""
        with self.mutex:
            if not self._removed:
                self._removed_since = self._clock.monotonic()
            self._scanner.made_room()
            self._index.drop_all(keys)
            self._removed.update({key[: key.find("/")] for key in keys})

    def freed(self) -> None:
        """Take note that the space of such messages is free, a moment later."""
        self._scanner.made_room()

    def removed_from_bundle(self) -> None:
        """Take note that a mail of a bundle is gone."""
        if not self._removed:
            self._removed_since = self._clock.monotonic()
        self._removed.add("new")

    def unfolded(self) -> None:
        """Take note that there may be new files."""
        self._has_unfolded = True

    def park(self, key: str, relay: str, patience: float) -> None:
        """Take note that a lease has ended because its relay cannot be used now."""
        with self.mutex:
            self.share.gave_back(key)
            self._index.park(key, relay, self._clock.monotonic() + patience)

    def give_way(self, lease: MaildirLease, relay: str, patience: float) -> bool:
        """See `ILease.give_way`."""
        with self.mutex:
            if not self._index.is_behind(lease.key, relay):
                return False
            lease.park(relay, patience)
            self._index.unpark(relay, 1)
            return True

    def sync_removals(self, *, at_once: bool = False) -> None:
        """Make durable that sent mail is gone: once a second while there is work, and before resting.

        So a loss of power brings back, and sends again, what was sent in the last second at most.
        """
        if self._removed and (at_once or self._clock.monotonic() - self._removed_since >= 1.0):
            self._bundles.sync()
            for directory in list(self._removed):
                self.store.disk.sync_directory(self.store.layout.directory(directory))
                self._removed.discard(directory)

    def settle_later(self, lease: MaildirLease, record: Record, error: OSError) -> None:
        """Try again later, since the disk refused, and keep the lock until then."""
        with self.mutex:
            self.unsettled.add(lease, record, error)
