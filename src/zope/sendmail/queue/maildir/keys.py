"""Which keys the mails of a Maildir queue have: a small file for each key, ``keys/<digest>``.

The file names the mail and is made when that is staged; the one rename that commits the mail takes the key as well, so
no death and no loss of power comes between the two.  What a file says and where its mail is decides; the table stands
in ``docs/explanation/internals.rst``, *Keys*.  Fails with `KeyTaken`, `KeyInUse`, and `OSError` where the disk refuses.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

from zope.sendmail.errors import KeyInUse, KeyTaken
from zope.sendmail.maildir import unique_name
from zope.sendmail.queue.keys import in_use
from zope.sendmail.queue.maildir.bundle import names_in
from zope.sendmail.queue.maildir.layout import Layout
from zope.sendmail.queue.maildir.uncommitted import look_at
from zope.sendmail.system.clock import Clock
from zope.sendmail.system.disk import Disk, remove_quietly, same_file

_PREPARED, _COMMITTED = b"prepared\n", b"committed\n"

#: How the files begin that are being written, and after how many seconds one was left by a death.
_NEW, _LEFT = ".new-", 3600.0


class HolderState(Enum):
    """Where the mail of a key is, as far as its transaction is concerned."""

    #: Nowhere in ``tmp/``.
    GONE = "gone"
    #: In ``tmp/``, of a transaction that may commit.
    ALIVE = "alive"
    #: In ``tmp/``, in doubt: nothing can commit it but an operator.
    IN_DOUBT = "in doubt"


class KeyState(Enum):
    """How it stands with a key."""

    FREE = "free"
    IN_USE = "in use"
    TAKEN = "taken"


@dataclass(frozen=True, slots=True)
class KeyFile:
    """What the file of a key says."""

    key: str
    message_id: str
    #: The mail's name.
    mail: str
    #: Seconds since the epoch.
    until: float
    #: Whether the mail and this file were made durable; whether the mail was seen to be committed.
    is_prepared: bool = False
    is_committed: bool = False

    @classmethod
    def read(cls, text: bytes) -> KeyFile | None:
        """Return what a file says; None for one that says nothing, torn or foreign."""
        lines = text.splitlines(keepends=True)
        try:
            key, message_id, mail, until = json.loads(lines[0])
            states = set(lines[1:])
            return cls(str(key), str(message_id), str(mail), float(until), _PREPARED in states, _COMMITTED in states)
        except (ValueError, TypeError, IndexError, OverflowError, RecursionError):
            return None

    def line(self) -> bytes:
        """Return the first line of the file."""
        return json.dumps([self.key, self.message_id, self.mail, self.until]).encode("ascii") + b"\n"


def key_state(said: KeyFile | None, holder: HolderState, now: float) -> KeyState:
    """Return how it stands with a key.

    :param said: its file, as it was before and after the look at its mail.
    """
    if said is None:
        return KeyState.FREE
    if holder is HolderState.ALIVE:
        return KeyState.IN_USE
    is_committed = said.is_committed or (said.is_prepared and holder is HolderState.GONE)
    return KeyState.TAKEN if is_committed and now < said.until else KeyState.FREE


class Keys:
    """The keys of one queue.  Concurrency: any thread, any process."""

    def __init__(self, layout: Layout, disk: Disk, clock: Clock) -> None:
        self._layout = layout
        self._disk = disk
        self.clock = clock

    # asking

    def check(self, key: str) -> None:
        """Return if a key is free.

        :raises KeyTaken: a committed mail has it.
        :raises KeyInUse: that of a transaction has it that may commit.
        """
        self._check(self._path(key), key)

    def _check(self, path: str, key: str) -> KeyFile | None:
        """Return what the file of a free key says.  Raises as `check`."""
        said, stands = self._look(path)
        if said is not None and stands is KeyState.TAKEN:
            raise KeyTaken(key, said.message_id)
        if stands is KeyState.IN_USE:
            raise in_use(key)
        return said

    def _look(self, path: str) -> tuple[KeyFile | None, KeyState]:
        """Return what a key's file says, and how it stands with the key.

        The file is read again behind the look at its mail: what is committed meanwhile was prepared before.
        """
        text = self._read(path)
        while True:
            said = KeyFile.read(text) if text is not None else None
            holder = HolderState.GONE if said is None or said.is_committed else self._holder(said.mail)
            again = self._read(path)
            if again == text:
                return said, key_state(said, holder, self.clock.time())
            text = again

    def _read(self, path: str) -> bytes | None:
        try:
            return self._disk.read(path)
        except FileNotFoundError:
            return None

    def _holder(self, mail: str) -> HolderState:
        """Look for a mail in ``tmp/``, in the order in which a transaction moves it."""
        entry = self._entry(mail)
        if entry is None:
            return HolderState.GONE
        try:
            staged = look_at(self._disk, entry, self.clock.time())
        except FileNotFoundError:  # it has moved in this moment; whose file it is has changed then
            return HolderState.ALIVE
        return HolderState.IN_DOUBT if staged is None or staged.is_in_doubt else HolderState.ALIVE

    def _entry(self, mail: str) -> str | None:
        """Return the path in ``tmp/`` of the file of a mail, or of the group that it is in."""
        alone = os.path.join(self._layout.tmp, mail)
        with contextlib.suppress(FileNotFoundError):
            self._disk.stat(alone)
            return alone
        with contextlib.suppress(FileNotFoundError):
            for name in self._disk.names(self._layout.tmp):
                path = os.path.join(self._layout.tmp, name)
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    if mail in names_in(self._disk, path):
                        return path
        return None

    # taking

    def reserve(self, key: str, message_id: str, mail: str, until: float) -> None:
        """Let a mail that is staged have a key.

        :param until: when the key is free again, seconds since the epoch.
        :raises KeyTaken: another mail has it.
        :raises KeyInUse: that of another transaction has it.
        """
        path = self._path(key)
        self._make_directory()
        new = os.path.join(self._layout.keys, _NEW + unique_name())
        self._disk.create(new, KeyFile(key, message_id, mail, until).line())
        try:
            while not self._put(new, path, key):
                pass
        finally:
            remove_quietly(self._disk, new)

    def _put(self, new: str, path: str, key: str) -> bool:
        """Give the new file its place, if the key is free; return False if that has to be tried again."""
        with contextlib.suppress(FileExistsError):
            self._disk.link(new, path)
            return True
        self._check(path, key)
        try:
            with self._disk.locked(path) as fd:
                if fd is None:
                    raise in_use(key)
                if same_file(os.fstat(fd), self._disk.stat(path)):
                    self._check(path, key)
                    self._disk.rename(new, path)
                    return True
        except FileNotFoundError:  # it was freed in this moment
            pass
        return False

    def _make_directory(self) -> None:
        if self._disk.make_directory(self._layout.keys):
            self._disk.sync_directory(self._layout.root)

    def prepared(self, keys: Iterable[str]) -> None:
        """Make durable that these keys go with their mails, which are durable."""
        paths = [self._path(key) for key in keys]
        if paths:
            for path in paths:
                self._disk.append(path, _PREPARED)
            self._disk.sync_files(paths)
            self._disk.sync_directory(self._layout.keys)

    def committed(self, keys: Iterable[str]) -> None:
        """Note that the mails of these keys are committed, so that no process has to look for them."""
        for key in keys:
            with contextlib.suppress(OSError):  # the next question finds it out
                self._disk.append(self._path(key), _COMMITTED)

    # moving

    def taken(self) -> Iterator[tuple[str, str, float]]:
        """Return the keys that are taken: each with the Message-Id of its mail, and until when."""
        for name in self._names():
            said, stands = self._look(os.path.join(self._layout.keys, name))
            if said is not None and stands is KeyState.TAKEN:
                yield said.key, said.message_id, said.until

    def bring(self, keys: Iterable[tuple[str, str, float]]) -> None:
        """Let these keys, as of `taken`, be taken, durably; one that is not free here stays as it is."""
        self._make_directory()
        paths = []
        for key, message_id, until in keys:
            path = self._path(key)
            new = os.path.join(self._layout.keys, _NEW + unique_name())
            # Of a mail that has no name here: nothing has to look for it.
            self._disk.create(new, KeyFile(key, message_id, "", until).line(), _PREPARED, _COMMITTED)
            try:
                with contextlib.suppress(KeyTaken, KeyInUse):
                    while not self._put(new, path, key):
                        pass
                    paths.append(path)
            finally:
                remove_quietly(self._disk, new)
        self._disk.sync_files(paths)
        self._disk.sync_directory(self._layout.keys)

    def _names(self) -> list[str]:
        try:
            return [name for name in self._disk.names(self._layout.keys) if not name.startswith(_NEW)]
        except FileNotFoundError:
            return []

    # letting go

    def free(self, key: str, mail: str) -> None:
        """Free a key before its mail, which was not committed, is removed."""
        path = self._path(key)
        said = KeyFile.read(self._read(path) or b"")
        if said is not None and said.mail == mail:
            remove_quietly(self._disk, path)
            if said.is_prepared:  # else a loss of power might bring it back, but not the mail
                self._disk.sync_directory(self._layout.keys)

    def is_anothers(self, key: str, mail: str) -> bool:
        """Return whether another mail has the key of this one, or may get it."""
        said, stands = self._look(self._path(key))
        return said is not None and said.mail != mail and stands is not KeyState.FREE

    def take(self, key: str, message_id: str, mail: str, until: float) -> None:
        """Let a mail that an operator commits have its key."""
        path = self._path(key)
        said = KeyFile.read(self._read(path) or b"")
        if said is None or said.mail != mail:
            self._make_directory()
            new = os.path.join(self._layout.keys, _NEW + unique_name())
            self._disk.create(new, KeyFile(key, message_id, mail, until).line())
            self._disk.rename(new, path)
        self.prepared([key])

    def forget(self) -> int:
        """Remove the files of keys whose time is over; return how many they were."""
        count, now = 0, self.clock.time()
        try:
            names = self._disk.names(self._layout.keys)
        except FileNotFoundError:
            return 0
        for name in names:
            path = os.path.join(self._layout.keys, name)
            with contextlib.suppress(OSError):
                if name.startswith(_NEW):
                    if now - self._disk.stat(path).st_mtime > _LEFT:
                        self._disk.unlink(path)
                elif self._is_over(path, now):
                    count += 1
        return count

    def _is_over(self, path: str, now: float) -> bool:
        """Remove a key's file if its time is over, and no transaction may have it; return whether that was done."""
        said = KeyFile.read(self._read(path) or b"")
        if said is None or now < said.until or self._look(path)[1] is KeyState.IN_USE:
            return False
        with self._disk.locked(path) as fd:
            if fd is None or not same_file(os.fstat(fd), self._disk.stat(path)):
                return False
            self._disk.unlink(path)
        return True

    def _path(self, key: str) -> str:
        return os.path.join(self._layout.keys, hashlib.sha256(key.encode()).hexdigest())
