"""The files of a Maildir queue that are not locks: messages, histories, what was set aside.

Reads and writes one message's files; which process may do so is decided by `zope.sendmail.queue.maildir.locks`.  Fails
with `OSError`, and with `MalformedEnvelope` for a file that is no queued mail.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import BinaryIO

from zope.sendmail.errors import MalformedEnvelope
from zope.sendmail.lifecycle.outcome import Answer, printable
from zope.sendmail.lifecycle.record import (
    SET_BACK,
    Record,
    compacted,
    read_records,
    record_at_end,
    write_record,
)
from zope.sendmail.lifecycle.states import State
from zope.sendmail.maildir import make_maildir
from zope.sendmail.message.envelope import Envelope, envelope_lines, read_envelope
from zope.sendmail.message.relayname import RelayName
from zope.sendmail.queue.maildir import reserve
from zope.sendmail.queue.maildir.bundle import is_left, mail_in, names_in, unfold
from zope.sendmail.queue.maildir.layout import (
    COMPACTED,
    EXTRA,
    GROUP,
    IN_PLACE,
    PROOF,
    REJECTED,
    SENDING,
    SPARE,
    TAKEN,
    USUAL,
    Layout,
    is_spare,
    is_too_long,
    name_of,
    shortened,
)
from zope.sendmail.queue.maildir.unwritten import UnwrittenRecords, record_in_stamp
from zope.sendmail.system.clock import Clock
from zope.sendmail.system.disk import NO_ROOM, Disk, remove_quietly

#: So much of a history is read at first; its last record is seldom longer.  And so much of it at most.
_TAIL, _MOST = 16 * 1024, 64 * 1024 * 1024

#: A line of up to so many bytes is written whole: to read what is there already would cost more.
_SHORT = 2048

#: A history of so many bytes, and so many times as long as its last line, is worth while to be compacted.
_LONG, _FACTOR = 256 * 1024, 8

#: A vote takes no more seconds than this between two system calls.
_VOTE = 600.0

#: So often it is looked for a message that is gone from its place, and may have been moved.
_MOVES = 4

#: How it stands with a message that has no history.
UNTRIED = Record()


def can_be_forgotten(record: Record) -> bool:
    """Return whether losing a record costs no more than an attempt that is not counted: no relay has the mail."""
    return record.state is State.DEFERRED and not record.having(Answer.ACCEPTED) and not record.unknowns


def _pass_over(group: str, error: OSError) -> None:
    """Say nothing of a group that cannot be unfolded: operators only look, and processors tell of it."""


class Listing:
    """The names in ``new/`` and ``cur/``, and of what waits in a spool, at one moment, by what they are."""

    def __init__(self, layout: Layout, disk: Disk, directories: Iterable[str] = ()) -> None:
        self.keys: list[str] = []
        self.locked: set[str] = set()
        self.rejected: list[str] = []
        self.groups: list[str] = []
        #: What a vote left that died in the middle; see `PROOF`.
        self.proofs: list[str] = []
        #: Files whose names leave no room for a lock beside them.
        self.too_long: list[str] = []
        for directory in directories or layout.places:
            with contextlib.suppress(FileNotFoundError):  # a queue that was never used is empty
                for name in disk.names(layout.directory(directory)):
                    if directory != IN_PLACE:
                        if len(name) <= USUAL and name[0] != ".":
                            self.keys.append(f"{directory}/{name}")
                        else:
                            self._add(directory, name)
                    elif name.startswith(TAKEN):
                        self._add_in_place(f"{directory}/{name[len(TAKEN) :]}")

    def _add(self, directory: str, name: str) -> None:
        if is_too_long(name):
            self.too_long.append(f"{directory}/{name}")
        elif not name.startswith("."):
            self.keys.append(f"{directory}/{name}")
        elif name.startswith(SENDING):
            self.locked.add(f"{directory}/{name[len(SENDING) :]}")
        elif name.startswith(REJECTED):
            self.rejected.append(f"{directory}/{name[len(REJECTED) :]}")
        elif name.startswith(GROUP):
            self.groups.append(f"{directory}/{name}")
        elif name.startswith(PROOF):
            self.proofs.append(f"{directory}/{name}")

    def _add_in_place(self, key: str) -> None:
        """Add mail that is its own lock, so that it may be locked."""
        self.keys.append(key)
        self.locked.add(key)

    def orphans(self) -> list[str]:
        """Return the keys of locks without a waiting message: of what was set aside, or of a process that died."""
        return list(self.locked.difference(self.keys))


class Store:
    """The messages of one queue directory.  Concurrency: one message, one caller."""

    def __init__(self, layout: Layout, disk: Disk, clock: Clock) -> None:
        self.layout = layout
        self.disk = disk
        self.clock = clock
        self._unwritten = UnwrittenRecords(disk)
        #: What is written down of messages whose rename was refused, so that it is not written down again.
        self._to_set_aside: dict[str, Record] = {}

    def record(self, key: str) -> Record:
        """Return how it stands with the message; `UNTRIED` itself if it has no history.

        Reads its end, and more of it until it is known, but no more than `_MOST`: a damaged file may have gigabytes.
        """
        return self._unwritten.or_later(key, self._written_record(key))

    def _written_record(self, key: str) -> Record:
        path = self.layout.history(key)
        size = _TAIL
        try:
            while True:
                text, is_all = self.disk.read_tail(path, size)
                is_all = is_all or size >= _MOST
                record = record_at_end(text if is_all else text.partition(b"\n")[2], is_all=is_all)
                if record is not None or is_all:
                    return record or (Record() if text else self._stamped_record(path))
                size *= 16
        except FileNotFoundError:
            return UNTRIED

    def _stamped_record(self, path: str) -> Record:
        """Return what the time stamp of an empty history says."""
        return record_in_stamp(self.disk.stat(path)) or Record()

    def records(self, key: str) -> list[Record]:
        """Return all that happened, oldest first; of a damaged file with gigabytes, what its end says."""
        try:
            records = list(read_records(self.disk.read_tail(self.layout.history(key), _MOST)[0]))
        except FileNotFoundError:
            records = []
        last = self.record(key)  # it may not be written down
        return records if last in (Record(), *records[-1:]) else [*records, last]

    def due_hint(self, key: str) -> float | None:
        """Return when the message is due, as far as that can be known without reading; None if it has no history.

        A history that was changed in the future, because the clock was set back since, says nothing: it is to be read.
        """
        try:
            status = self.disk.stat(self.layout.history(key))
        except FileNotFoundError:
            return None
        return status.st_mtime if status.st_ctime - self.clock.time() <= SET_BACK else 0.0

    def tried(self) -> set[str]:
        """Return the names of messages that have a history."""
        try:
            return set(self.disk.names(self.layout.history_))
        except FileNotFoundError:
            return set()

    def append(self, key: str, record: Record) -> None:
        """Write a record down; durably if losing it would send a mail twice or forget a person's word.

        It costs what has changed, and a history that has grown all the same is compacted.
        """
        if self.layout.is_in_place(key):
            make_maildir(self.disk, self.layout.root, EXTRA)  # there was no room for it
        path = self.layout.history(key)
        line = write_record(record)
        if len(line) > _SHORT:
            line = min(line, write_record(record, self.record(key)), key=len)
        if self._is_torn(path):
            line = b"\n" + line
        self._write(path, line, record)
        if self.disk.stat(path).st_size > max(_LONG, _FACTOR * len(line)):
            self._compact(path)
        self.disk.stamp(path, record.due if record.state is State.DEFERRED else record.time)
        self._unwritten.forget(key)
        if not can_be_forgotten(record):
            self.disk.sync_file(path)
            self.disk.sync_directory(self.layout.history_)

    def note_delay(self, key: str, record: Record) -> None:
        """Remember a deferral for which there is no room; see `zope.sendmail.queue.maildir.unwritten`.

        Where there is no room for an empty history either, the message is due, as if untried, when its process ends.
        """
        self._unwritten.note(key, record, self.layout.history(key))

    def forget(self, key: str) -> None:
        """Take note that a message is gone."""
        if self._unwritten or self._to_set_aside:
            self._unwritten.forget(key)
            self._to_set_aside.pop(key, None)

    def _write(self, path: str, line: bytes, record: Record) -> None:
        try:
            self._append(path, line)
        except OSError as error:
            if error.errno not in NO_ROOM or can_be_forgotten(record):
                raise
            if self._from_reserve(path, line):
                return
            if not reserve.give_up(self.layout, self.disk):
                raise
            self.disk.append(path, b"\n" + line if self._is_torn(path) else line)

    def _from_reserve(self, path: str, line: bytes) -> bool:
        """Make a history where no file can be made; return whether that went, and was needed."""
        return not self.disk.exists(path) and reserve.become(self.layout, self.disk, path, line)

    def _compacted(self, path: str) -> str:
        """Return where a history is written before it gets its own name."""
        return os.path.join(self.layout.history_, COMPACTED + os.path.basename(path))

    def _append(self, path: str, line: bytes) -> None:
        try:
            self.disk.append(path, line)
        except FileNotFoundError:  # there was no room for the directory when the queue was opened
            self.disk.make_directory(self.layout.history_)
            self.disk.append(path, line)

    def _compact(self, path: str) -> None:
        """Put a shorter history in the place of a long one; a disk that refuses costs nothing but room."""
        shorter = self._compacted(path)
        with contextlib.suppress(OSError):
            remove_quietly(self.disk, shorter)
            self.disk.create(shorter, compacted(self.disk.read_tail(path, _MOST)[0]))
            self.disk.sync_file(shorter)
            self.disk.rename(shorter, path)

    def open(self, key: str) -> tuple[Envelope, BinaryIO]:
        """Return the envelope and the message; the stream stands behind the envelope lines."""
        return self.open_path(self.layout.message(key))

    def open_path(self, path: str) -> tuple[Envelope, BinaryIO]:
        """Return the same for any file of the queue."""
        stream = self.disk.open(path)
        try:
            return read_envelope(stream), stream
        except BaseException:
            stream.close()
            raise

    def settle(self, key: str, record: Record, *, tried: bool = True) -> None:
        """Write down how an attempt ended; `tried`: there may be a history.  May be repeated after a failure."""
        if record.state is State.SENT:
            self.remove_sent(key)
            if tried:
                remove_quietly(self.disk, self.layout.history(key))
            return
        if self._to_set_aside.get(key) is not record:
            self.append(key, record)
        if record.state is State.REJECTED:
            self._to_set_aside[key] = record
            with contextlib.suppress(FileNotFoundError):
                self.disk.rename(self.layout.message(key), self.layout.rejected(key))
            self._to_set_aside.pop(key, None)

    def remove_sent(self, key: str, held: list[int] | None = None) -> bool:
        """Remove a message that was sent, the instant of success; return False if it was gone already.

        :param held: gets the file, held open, if one is given: its space is not free before the file is closed.
        """
        path = self.layout.message(key)
        fd = None if held is None else self.disk.hold(path)
        if held is not None and fd is not None:
            held.append(fd)
        try:
            self.disk.unlink(path)
        except FileNotFoundError:
            self._remove_moved(name_of(key))
            return False
        finally:
            self.forget(key)
        return True

    def _remove_moved(self, name: str) -> bool:
        """Remove a message that another processor moves to where there is room for its lock, or back; see `makeway`.

        We have its lock, so each processor moves it to and fro once at most: what one look has missed, another finds.
        """
        for _ in range(_MOVES):
            for place in ("cur", "new"):
                with contextlib.suppress(FileNotFoundError):
                    self.disk.unlink(self.layout.message(f"{place}/{name}"))
                    return True
        return False

    def rewrite(self, key: str, relay: RelayName | None) -> None:
        """Let a message ask for another relay.  Its time stamp stays, by which older releases sort.

        :raises MalformedEnvelope: if it cannot be written anew, as some of its recipients could not be read.
        """
        path = self.layout.message(key)
        modified = self.disk.stat(path).st_mtime
        envelope, stream = self.open(key)
        with stream:
            message = stream.read()
        if envelope.malformed:
            raise MalformedEnvelope(f"it names a malformed recipient: {printable(envelope.malformed[0], 80)!r}")
        # Hidden, and not in tmp/: what a death leaves there would look like a mail in doubt.
        temporary = os.path.join(self.layout.processors, f".reroute-{name_of(key)}")
        remove_quietly(self.disk, temporary)
        self.disk.make_directory(self.layout.processors)
        self.disk.create(temporary, envelope_lines(replace(envelope, relay=relay), message), message)
        self.disk.sync_file(temporary)
        self.disk.stamp(temporary, modified)
        self.disk.rename(temporary, path)
        self.disk.sync_directory(os.path.dirname(path))

    def restore(self, key: str) -> None:
        """Give a message that was set aside its place back."""
        self.disk.rename(self.layout.rejected(key), self.layout.message(key))

    def remove(self, key: str) -> None:
        """Remove the message, wherever it has been moved, and all that belongs to it."""
        found = False
        for path in (self.layout.message(key), self.layout.rejected(key)):
            with contextlib.suppress(FileNotFoundError):
                self.disk.unlink(path)
                found = True
        if not found:
            self._remove_moved(name_of(key))
        self.remove_leftovers(key)

    def remove_leftovers(self, key: str) -> None:
        """Remove what belongs to a message that is gone."""
        self.forget(key)
        remove_quietly(self.disk, self.layout.history(key))
        remove_quietly(self.disk, os.path.join(self.layout.history_, COMPACTED + name_of(key)))

    def find(self, name: str) -> tuple[str, bool] | None:
        """Return the key of a message by its name, and whether it was set aside; None if there is none."""
        if (found := self.find_as_named(name)) is not None:
            return found
        matching = (key for key in Listing(self.layout, self.disk).keys if name_of(key) == name)
        other = next(matching, None)
        return (other, False) if other else None

    def find_as_named(self, name: str) -> tuple[str, bool] | None:
        """Return the same without a look at the directory: None also for what stands in a bundle."""
        for key in (f"{place}/{name}" for place in self.layout.places):
            for path, rejected in ((self.layout.message(key), False), (self.layout.rejected(key), True)):
                with contextlib.suppress(FileNotFoundError):
                    self.disk.stat(path)
                    return key, rejected
        return None

    def find_bundled(self, name: str) -> tuple[bytes, bytes] | None:
        """Return how far a mail is that stands in a bundle, and what its file would be; see `mail_in`."""
        groups = Listing(self.layout, self.disk).groups
        found = (mail_in(self.disk, os.path.join(self.layout.root, group), name) for group in groups)
        return next((each for each in found if each is not None), None)

    def in_cur(self) -> dict[str, str]:
        """Return the keys of what another Maildir program has seen, by their names: mostly none."""
        keys = Listing(self.layout, self.disk, ("cur",)).keys
        return {name_of(key): key for key in keys}

    def staged(self) -> Iterator[str]:
        """Yield the paths of mails in ``tmp/``: of transactions under way, or in doubt."""
        try:
            names = self.disk.names(self.layout.tmp)
        except FileNotFoundError:
            return
        for name in names:
            path = os.path.join(self.layout.tmp, name)
            try:
                if name.startswith(SPARE) and is_spare(name, self.disk.stat(path).st_size):
                    continue
                yield from (os.path.join(path, each) for each in names_in(self.disk, path))
            except NotADirectoryError:
                yield path
            except FileNotFoundError:
                continue

    def unfold(self, listing: Listing, failed: Callable[[str, OSError], object] = _pass_over) -> bool:
        """Finish what a commit began; return False if another process is at it.

        Trouble with one group is told to `failed`, and does not keep other mail.
        """
        done = True
        for group in listing.groups:
            try:
                done &= unfold(self.layout, self.disk, os.path.join(self.layout.root, group))
            except OSError as error:
                failed(group, error)
        return done

    def are_drained(self, listing: Listing) -> bool:
        """Return whether processors drain all bundles that are left where they lie, so that no files are made."""
        for group in listing.groups:
            with contextlib.suppress(OSError):  # it was unfolded in this moment
                if not is_left(self.disk, os.path.join(self.layout.root, group)):
                    return False
        return True

    def clear(self, listing: Listing) -> None:
        """Remove what votes left that died in the middle: second names of mails that are staged, or committed since."""
        for proof in listing.proofs:
            with contextlib.suppress(OSError):
                path = os.path.join(self.layout.root, proof)
                if self.clock.time() - self.disk.stat(path).st_ctime > _VOTE:
                    self.disk.unlink(path)

    def shorten(self, listing: Listing) -> bool:
        """Give shorter names to mails whose own leave no room for a lock; return whether there were any."""
        mails = [key for key in listing.too_long if not key.rpartition("/")[2].startswith(".")]
        for key in mails:
            directory, _, name = key.rpartition("/")
            with contextlib.suppress(OSError):  # another process was faster
                self.disk.rename(self.layout.message(key), self.layout.message(f"{directory}/{shortened(name)}"))
        return bool(mails)

    def in_groups(self, listing: Listing) -> int:
        """Return how many mails are committed, but are no files of their own yet."""
        count = 0
        for group in listing.groups:
            with contextlib.suppress(OSError):
                count += len(names_in(self.disk, os.path.join(self.layout.root, group)))
        return count

    def _is_torn(self, path: str) -> bool:
        """Return whether a crash left the last line unfinished; the next one must not be glued to it."""
        try:
            with self.disk.open(path) as stream:
                if stream.seek(0, os.SEEK_END) == 0:
                    return False
                stream.seek(-1, os.SEEK_END)
                return stream.read(1) != b"\n"
        except FileNotFoundError:
            return False
