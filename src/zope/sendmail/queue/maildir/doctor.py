"""What is stuck or strange in a Maildir queue, and why.

Looks at everything once, in the order of a walk through the directories, and tells what it sees while it goes; what
can be said is in `zope.sendmail.queue.diagnosis`.  Changes nothing.  Does not fail: what cannot be read is a finding.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress

from zope.sendmail.errors import MalformedEnvelope
from zope.sendmail.lifecycle.finding import Finding, Severity, moment
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.relaystate import RelayBoard, is_drained, last_pass
from zope.sendmail.lifecycle.states import WAITING, State
from zope.sendmail.maildir import age_key
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.queue import diagnosis, queuefindings
from zope.sendmail.queue.maildir.bundle import names_in
from zope.sendmail.queue.maildir.diskusage import examine_room, examine_sent
from zope.sendmail.queue.maildir.heartbeat import seems_alive
from zope.sendmail.queue.maildir.layout import (
    COMPACTED,
    GROUP,
    PROOF,
    REJECTED,
    SENDING,
    age_text,
    is_spare,
    is_too_long,
    name_of,
)
from zope.sendmail.queue.maildir.liveness import Liveness, LocksFolder
from zope.sendmail.queue.maildir.locks import MAX_SEND_TIME
from zope.sendmail.queue.maildir.ownerless import said_by
from zope.sendmail.queue.maildir.ownertext import phase_of
from zope.sendmail.queue.maildir.processorstates import ProcessorStateFiles
from zope.sendmail.queue.maildir.rights import DIRECTORIES, First, Rights, closed_directories, kind_of
from zope.sendmail.queue.maildir.store import Listing, Store
from zope.sendmail.queue.maildir.uncommitted import DAY, look_at
from zope.sendmail.system.disk import identity

#: Seconds after which a mail that is due is worth a look, and after which it is stuck.
_SLOW, _STUCK = 600.0, 3600.0

#: Seconds for which mail may be due if no processor is at work: a pass may just begin.
_A_MOMENT = 5.0

#: Seconds after which a mail that was being moved has been left behind.
_A_MOVE = 60.0

#: Clocks of hosts that share a queue may differ by so many seconds.
_FUTURE = 600.0

#: What begins like this in ``new`` and ``cur`` is not strange; NFS calls a removed file that is still open `.nfs...`.
_KNOWN = (SENDING, REJECTED, GROUP, PROOF, ".nfs")


def examine(store: Store) -> Iterator[Finding]:
    """Yield the findings about a queue; see `IMailQueueAdmin.examine`."""
    try:
        root = store.disk.stat(store.layout.root)
    except FileNotFoundError:  # never used
        return
    except OSError as error:
        yield diagnosis.unreadable("", error)
        return
    try:
        visit = _Visit(store, root)
    except OSError as error:
        yield from list(closed_directories(store.disk, store.layout.root, root)) or [diagnosis.unreadable("", error)]
        return
    yield from visit.everything()


def examine_staged(store: Store) -> Iterator[Finding]:
    """Yield what is strange about the mails in ``tmp/``, as `examine` does."""
    with suppress(FileNotFoundError):
        yield from _Visit(store, store.disk.stat(store.layout.root)).staged()


class _Visit:
    """One walk through a queue."""

    def __init__(self, store: Store, root: os.stat_result) -> None:
        self._store = store
        self._disk = store.disk
        self._layout = store.layout
        self._now = store.clock.time()
        self._root = root
        self._rights = Rights(root)
        self._owners = LocksFolder()
        self._listing = Listing(store.layout, store.disk)
        self._waiting = set(self._listing.keys)
        #: Keys of mails that a process is working on, or that wait for an older release's lock.
        self._busy: set[str] = set()
        self._board = RelayBoard(())
        self._future, self._due = First(), First()
        #: The mails that wait for each relay that cannot be used.
        self._blocked: dict[str, First] = {}

    def everything(self) -> Iterator[Finding]:
        """Yield all findings."""
        parts = [self._room, self._directories, self._locks_directory, self.staged, self._groups, self._strays]
        parts += [self._moves, self._processors, self._locks, self._mails, self._set_aside, self._histories, self._sums]
        for part in parts:
            yield from self._guarded(part(), "")

    def _guarded(self, part: Iterator[Finding], name: str) -> Iterator[Finding]:
        """Yield what a part yields; what vanishes meanwhile is passed over, what cannot be read is a finding."""
        try:
            yield from part
        except FileNotFoundError:
            return
        except OSError as error:
            path = error.filename if isinstance(error.filename, str) else ""
            yield diagnosis.unreadable(os.path.relpath(path, self._layout.root) if path else name, error)

    # the queue as a whole

    def _room(self) -> Iterator[Finding]:
        yield from examine_room(self._disk, self._layout.root)
        yield from examine_sent(self._disk, self._layout)

    def _directories(self) -> Iterator[Finding]:
        yield from closed_directories(self._disk, self._layout.root, self._root)
        for name in DIRECTORIES:
            with suppress(FileNotFoundError):
                self._rights.note_directory(name, self._disk.stat(os.path.join(self._layout.root, name)).st_mode)

    def _sums(self) -> Iterator[Finding]:
        """Yield what is told once, however often it was seen."""
        yield from self._rights.findings()
        if self._future.count:
            yield queuefindings.from_the_future(self._future.name, self._future.count)
        for name, waiting in self._blocked.items():
            relay = self._board.get(name)
            if relay is not None:  # pragma: no branch - the names are those of the board
                yield queuefindings.relay_down(relay, waiting.count, waiting.name, self._now)
        for relay, member in self._board.left_out():
            yield queuefindings.relay_left_out(relay, member, self._now)
        yield from self._lateness()

    def _lateness(self) -> Iterator[Finding]:
        """Yield what is said of mail that is due, and that no relay keeps waiting."""
        late = self._now - self._due.value
        if not self._due.count:
            return
        if self._is_at_work():
            if late > _SLOW:
                yield queuefindings.nothing_moves(self._due.count, late, self._due.name, long=late > _STUCK)
        elif late > _A_MOMENT:
            ended = last_pass(self._board.processors, self._now)
            since_pass = None if ended is None else self._now - ended
            yield queuefindings.unattended(self._due.count, late, self._due.name, since_pass)

    def _is_at_work(self) -> bool:
        """Return whether a processor lives; where it could not make a bell, it has told of itself all the same."""
        return bool(self._owners.processors) or any(each.alive for each in self._board.processors)

    def _is_attended(self) -> bool:
        """Return whether a processor lives, or a pass has ended a while ago and the next one may be expected."""
        return bool(self._owners.processors) or is_drained(self._board.processors, self._now)

    # locks/

    def _locks_directory(self) -> Iterator[Finding]:
        self._owners = owners = LocksFolder.at(self._layout, self._disk, self._now)
        alive = bool(owners.processors)
        for name in owners.dead:
            yield diagnosis.dead_owner(f"locks/{name}", alive=alive)
        for name in owners.left:
            yield diagnosis.leftover(f"locks/{name}", "A processor died while it made or removed a lock")
        for name in owners.foreign:
            yield diagnosis.foreign(f"locks/{name}", "something that no processor makes", Severity.NOTE)

    def _processors(self) -> Iterator[Finding]:
        """Learn what processors told; that they cannot be read is the only finding."""
        self._board = RelayBoard(ProcessorStateFiles(self._layout, self._disk, self._store.clock).examine())
        self._blocked = {relay.name: First() for relay in self._board if not relay.is_usable}
        yield from ()

    def _locks(self) -> Iterator[Finding]:
        for key in sorted(self._listing.locked):
            path = self._layout.sending(key)
            yield from self._guarded(self._lock(key, path), os.path.relpath(path, self._layout.root))

    def _lock(self, key: str, path: str) -> Iterator[Finding]:
        status = self._disk.stat(path)
        if self._layout.is_in_place(key) and said_by(status) is None:
            return  # it waits, and is no lock
        if identity(status) in self._owners.living:
            self._busy.add(key)
        elif not stat.S_ISREG(status.st_mode):
            self._busy.add(key)
            yield diagnosis.strange_lock(os.path.relpath(path, self._layout.root), kind_of(status))
        else:
            yield from self._lock_of_nobody(key, path, status)

    def _lock_of_nobody(self, key: str, path: str, status: os.stat_result) -> Iterator[Finding]:
        """Yield what there is to say of a lock of a dead owner, of one that began just now, or of an older release."""
        name = name_of(key)
        with self._disk.open(path) as stream:
            text = stream.read(512)
            phase = phase_of(text, "") and phase_of(text + stream.read(), os.path.basename(path))
        if phase is None and (said := said_by(status)) is not None:
            phase = said.phase
        if phase is None:
            self._busy.add(key)
            self._note_time(name, status.st_mtime)
            seconds = MAX_SEND_TIME - max(0.0, self._now - status.st_mtime)
            lock = "" if key in self._waiting else os.path.relpath(path, self._layout.root)
            yield diagnosis.old_lock(name, seconds, orphan=lock)
            return
        with self._disk.locked(path) as fd:
            dead = fd is not None and not seems_alive(self._disk, text, status, self._now)
        if not dead:
            self._busy.add(key)
        elif key in self._waiting:
            yield diagnosis.orphaned(name, phase, alive=bool(self._owners.processors))
        else:
            lock = os.path.relpath(path, self._layout.root)
            yield diagnosis.leftover(lock, "The lock of a dead process, whose mail is gone; the next look removes it")

    # tmp/

    def staged(self) -> Iterator[Finding]:
        """Yield what is strange in ``tmp/``."""
        for name in sorted(self._disk.names(self._layout.tmp)):
            yield from self._guarded(self._one_staged(name, os.path.join(self._layout.tmp, name)), f"tmp/{name}")

    def _one_staged(self, name: str, path: str) -> Iterator[Finding]:
        status = self._disk.stat(path)
        staged = look_at(self._disk, path, self._now)
        if staged is None:
            if self._now - status.st_mtime > DAY and not is_spare(name, status.st_size):
                yield diagnosis.foreign(f"tmp/{name}", kind_of(status), Severity.NOTE)
            return
        self._rights.note(f"tmp/{name}", status.st_mode)
        alive, written = staged.liveness is Liveness.ALIVE, moment(staged.written)
        self._disk.stat(path)  # again: a process that has ended meanwhile may have committed before
        if staged.is_group and not self._disk.names(path):
            if not alive:
                yield diagnosis.leftover(f"tmp/{name}", "An empty group: its transaction was not finished")
        elif staged.is_in_doubt:
            dead = f"process {staged.origin.pid}, which made it, is dead"
            why = dead if staged.liveness is Liveness.DEAD else f"host {staged.origin.host} made it more than a day ago"
            yield diagnosis.in_doubt(f"tmp/{name}", group=staged.is_group, written=written, why=why)
        elif alive and staged.age > DAY:
            yield diagnosis.staged_for_long(f"tmp/{name}", written=written, pid=staged.origin.pid)

    # moved/ and arriving/

    def _moves(self) -> Iterator[Finding]:
        for directory, came in ((self._layout.moved, False), (self._layout.arriving, True)):
            with suppress(FileNotFoundError):  # nothing was ever moved
                old = [name for name in sorted(self._disk.names(directory)) if self._is_left(directory, name)]
                if old:
                    yield diagnosis.interrupted_move(len(old), f"{os.path.basename(directory)}/{old[0]}", came=came)

    def _is_left(self, directory: str, name: str) -> bool:
        """Return whether no move can be at work on it any more."""
        with suppress(FileNotFoundError):
            return self._now - self._disk.stat(os.path.join(directory, name)).st_ctime > _A_MOVE
        return False

    # new/ and cur/

    def _groups(self) -> Iterator[Finding]:
        for group in self._listing.groups:
            with suppress(FileNotFoundError):
                names = names_in(self._disk, os.path.join(self._layout.root, group), strict=True)
                for name in names:
                    self._due.add(name, age_key(name)[0] or self._now)
                if names:  # else a process is finishing it now, or will at the next look
                    yield diagnosis.committed_group(group, len(names), alive=bool(self._owners.processors))

    def _strays(self) -> Iterator[Finding]:
        for directory in ("new", "cur"):
            for name in sorted(self._disk.names(os.path.join(self._layout.root, directory))):
                if not name.startswith(".") and is_too_long(name):
                    yield diagnosis.long_name(f"{directory}/{name}", alive=bool(self._owners.processors))
                elif name.startswith(".") and not name.startswith(_KNOWN):
                    yield diagnosis.foreign(f"{directory}/{name}", "something with a hidden name", Severity.NOTE)

    def _mails(self) -> Iterator[Finding]:
        for key in sorted(self._listing.keys, key=age_text):
            yield from self._guarded(self._mail(key), key)

    def _mail(self, key: str) -> Iterator[Finding]:
        name, path = name_of(key), self._layout.message(key)
        status = self._disk.stat(path)
        if not stat.S_ISREG(status.st_mode):
            yield diagnosis.foreign(key, kind_of(status), Severity.PROBLEM)
            return
        if self._rights.is_anothers(status):
            yield diagnosis.somebody_elses(key, status.st_uid, self._root.st_uid)
            return
        self._rights.note(key, status.st_mode)
        self._note_time(name, age_key(name)[0])
        try:
            envelope, stream = self._store.open_path(path)
            stream.close()
        except MalformedEnvelope as error:
            yield diagnosis.no_mail(name, "it is empty" if not status.st_size else str(error))
            return
        yield from self._guarded(self._course(key, envelope, status), key)

    def _course(self, key: str, envelope: Envelope, status: os.stat_result) -> Iterator[Finding]:
        """Yield what there is to say of a mail that can be read."""
        name = name_of(key)
        written = self._history_size(key)  # before it is read: a history grows
        record = self._store.record(key)
        self._note_time(name, record.time)
        if record.state is State.HELD:
            yield diagnosis.waits_for_a_person(name, envelope, record)
        elif record.state in WAITING and key not in self._busy and self._wait(record, envelope) <= 0:
            since = max(record.due or age_key(name)[0] or status.st_mtime, envelope.terms.not_before)
            relay = self._board.blocking(envelope, record)
            if relay is not None:
                self._blocked[relay.name].add(name, since)
            if relay is None or not self._is_attended():
                self._due.add(name, since)
        if written and record == Record():
            self._disk.stat(self._layout.message(key))  # if it was sent in this moment, its history is gone as well
            yield diagnosis.torn_history(name)

    def _wait(self, record: Record, envelope: Envelope) -> float:
        """Return the seconds until the mail is due."""
        return max(record.wait(self._now), record.before_time(envelope.terms, self._now))

    def _history_size(self, key: str) -> int:
        with suppress(FileNotFoundError):
            return self._disk.stat(self._layout.history(key)).st_size
        return 0

    def _set_aside(self) -> Iterator[Finding]:
        for key in sorted(self._listing.rejected, key=age_text):
            yield from self._guarded(self._rejected(key), key)

    def _rejected(self, key: str) -> Iterator[Finding]:
        path = self._layout.rejected(key)
        self._rights.note(key, self._disk.stat(path).st_mode)
        envelope = None
        with suppress(MalformedEnvelope):
            envelope, stream = self._store.open_path(path)
            stream.close()
        if key in self._waiting:
            yield diagnosis.set_aside_twice(name_of(key))
        else:
            record = self._store.record(key)
            known = None if record == Record() else record
            yield diagnosis.waits_for_a_person(name_of(key), envelope, known, now=self._now)

    # history/

    def _histories(self) -> Iterator[Finding]:
        names = self._disk.names(self._layout.history_)
        listing = Listing(self._layout, self._disk)  # later than the names, so a new history finds its mail here
        known = {name_of(key) for key in (*listing.keys, *listing.rejected, *listing.locked)}
        for name in sorted(names):
            if name.startswith(COMPACTED) and name.removeprefix(COMPACTED) in known:
                continue  # in the making, or left by a death: the next one takes its place
            yield from self._guarded(self._history(name, name in known), f"history/{name}")

    def _history(self, name: str, has_mail: bool) -> Iterator[Finding]:  # noqa: FBT001 - said in the name
        status = self._disk.stat(os.path.join(self._layout.history_, name))
        if not has_mail:
            yield diagnosis.leftover(f"history/{name}", "A history without its mail, which is gone")
        elif not stat.S_ISREG(status.st_mode):
            yield diagnosis.foreign(f"history/{name}", kind_of(status), Severity.PROBLEM)
        elif self._rights.is_anothers(status):
            yield diagnosis.somebody_elses(f"history/{name}", status.st_uid, self._root.st_uid)
        self._rights.note(f"history/{name}", status.st_mode)

    # judging

    def _note_time(self, name: str, seconds: float) -> None:
        if seconds - self._now > _FUTURE:
            self._future.add(name, seconds)
