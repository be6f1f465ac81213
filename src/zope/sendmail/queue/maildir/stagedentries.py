"""What lies in ``tmp/`` as operators see it: mails whose transaction has not committed, singly or as a group.

Such an entry is called ``tmp/<name>``.  As long as its transaction may still end, nothing can be done to it; when the
process that made it is gone, an operator who knows how the transaction ended can reveal or remove it.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
from collections.abc import Iterator
from typing import BinaryIO

from zope.sendmail.errors import MalformedEnvelope, NoSuchMail, NotPossible
from zope.sendmail.lifecycle.queuedmail import QueuedMail
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.states import Action, State
from zope.sendmail.maildir import age_key
from zope.sendmail.message.envelope import read_envelope
from zope.sendmail.message.headers import message_id_in
from zope.sendmail.message.terms import Terms
from zope.sendmail.queue.maildir.bundle import entries, names_in
from zope.sendmail.queue.maildir.keys import Keys
from zope.sendmail.queue.maildir.layout import BUNDLE, GROUP, PARTS, SPARE, is_spare
from zope.sendmail.queue.maildir.liveness import Liveness
from zope.sendmail.queue.maildir.store import Store
from zope.sendmail.queue.maildir.uncommitted import look_at, origin_of
from zope.sendmail.system.disk import remove_quietly

#: How names of staged entries begin.
PREFIX = "tmp/"


class StagedEntries:
    """The entries in ``tmp/`` of one queue."""

    def __init__(self, store: Store, keys: Keys) -> None:
        self._store = store
        self._keys = keys
        self._disk = store.disk
        self._layout = store.layout

    def mails(self) -> Iterator[QueuedMail]:
        """Yield the entries, oldest first; a group is one entry."""
        with contextlib.suppress(FileNotFoundError):
            for name in sorted(self._disk.names(self._layout.tmp), key=lambda name: age_key(name.removeprefix(SPARE))):
                with contextlib.suppress(OSError, NoSuchMail):
                    if origin_of(name) is not None:
                        yield self.show(PREFIX + name)

    def show(self, name: str) -> QueuedMail:
        """Return one entry.  Raises `NoSuchMail`."""
        path = self._path(name)
        try:
            status = self._disk.stat(path)
            if is_spare(os.path.basename(path), status.st_size):
                raise _gone(name)
            is_group = stat.S_ISDIR(status.st_mode)
            members = sorted(names_in(self._disk, path)) if is_group else []
        except (FileNotFoundError, NotADirectoryError):
            raise _gone(name) from None
        first = os.path.join(path, members[0]) if members else path
        note = f"{len(members):,} mails of one transaction" if is_group else ""
        history = (Record(State.STAGED, note=note),) if note else ()
        seconds = float(age_key(os.path.basename(path))[0] or status.st_mtime)
        mail = QueuedMail(name, State.STAGED, None, "", seconds, 0 if is_group else status.st_size, 0.0, history)
        with contextlib.suppress(MalformedEnvelope, OSError):  # it is being written, or stands in a bundle
            envelope, stream = self._store.open_path(first)
            with stream:
                identifier = message_id_in(stream)
            return QueuedMail(name, State.STAGED, envelope, identifier, seconds, mail.size, 0.0, history)
        return mail

    def read(self, name: str) -> BinaryIO:
        """Return the message of an entry that is one mail.  Raises `NoSuchMail`, `NotPossible`."""
        path = self._path(name)
        try:
            return self._store.open_path(path)[1]
        except FileNotFoundError:
            raise _gone(name) from None
        except MalformedEnvelope:
            return self._disk.open(path)
        except OSError:
            if not stat.S_ISDIR(self._disk.stat(path).st_mode):
                raise
            raise NotPossible(f"cannot read {name}: it holds the mails of a whole transaction") from None

    def release(self, name: str) -> None:
        """Reveal an entry whose transaction committed.  Raises `NoSuchMail`, `NotPossible`."""
        path = self._checked(name, Action.RELEASE)
        self._take_keys(name, path)
        entry = os.path.basename(path).removeprefix(SPARE)
        target = GROUP + entry if stat.S_ISDIR(self._disk.stat(path).st_mode) else entry
        self._disk.rename(path, os.path.join(self._layout.new, target))
        self._disk.sync_directory(self._layout.new)

    def remove(self, name: str) -> None:
        """Remove an entry whose transaction did not commit.  Raises `NoSuchMail`, `NotPossible`."""
        path = self._checked(name, Action.REMOVE)
        for mail, terms, _ in self._keyed(path):
            self._keys.free(terms.key, mail)
        if stat.S_ISDIR(self._disk.stat(path).st_mode):
            parts = os.path.join(path, PARTS)
            for directory in (parts, path):
                with contextlib.suppress(FileNotFoundError):
                    names = [each for each in self._disk.names(directory) if each != PARTS]
                    remove_quietly(self._disk, *(os.path.join(directory, each) for each in names))
                    self._disk.remove_directory(directory)
        else:
            self._disk.unlink(path)

    def _take_keys(self, name: str, path: str) -> None:
        """Let the mails of an entry have their keys.

        :raises NotPossible: another mail has one of them since.
        """
        keyed = list(self._keyed(path))
        for mail, terms, _ in keyed:
            if self._keys.is_anothers(terms.key, mail):
                why = f"another mail has had its key {terms.key!r} since, and both would be sent; remove this one"
                raise NotPossible(f"cannot release {name}: {why}")
        for mail, terms, message_id in keyed:
            self._keys.take(terms.key, message_id, mail, terms.key_until)

    def _keyed(self, path: str) -> Iterator[tuple[str, Terms, str]]:
        """Yield the mails of an entry that have a key: their names, terms and Message-Ids."""
        if not stat.S_ISDIR(self._disk.stat(path).st_mode):
            yield from self._if_keyed(os.path.basename(path), path)
            return
        for name in self._disk.names(path):
            if not name.startswith("."):
                yield from self._if_keyed(name, os.path.join(path, name))
        bundle = os.path.join(path, BUNDLE)
        with contextlib.suppress(OSError), self._disk.open(bundle) as stream:
            for name, length in entries(stream, bundle):
                yield from _terms_of(name, io.BytesIO(stream.read(length)))

    def _if_keyed(self, name: str, path: str) -> Iterator[tuple[str, Terms, str]]:
        with contextlib.suppress(OSError), self._disk.open(path) as stream:
            yield from _terms_of(name, stream)

    def _checked(self, name: str, action: Action) -> str:
        """Return the path of an entry with which something can be done."""
        path = self._path(name)
        try:
            staged = look_at(self._disk, path, self._store.clock.time())
        except FileNotFoundError:
            raise _gone(name) from None
        if staged is None:
            raise NotPossible(f"cannot {action} {name}: no queue made it")
        if staged.liveness is Liveness.ALIVE:
            why = f"process {staged.origin.pid}, which made it, lives, and its transaction may still commit"
            raise NotPossible(f"cannot {action} {name}: {why}")
        if not staged.is_in_doubt:
            host = staged.origin.host
            why = f"its transaction on host {host} may still commit; a day after it was made no caller waits for it"
            raise NotPossible(f"cannot {action} {name}: {why}")
        return path

    def _path(self, name: str) -> str:
        entry = name.removeprefix(PREFIX)
        if not entry or entry.removeprefix(SPARE).startswith(".") or set(entry) & {"/", "\0"}:
            raise _gone(name)
        return os.path.join(self._layout.tmp, entry)


def _terms_of(name: str, stream: BinaryIO) -> Iterator[tuple[str, Terms, str]]:
    """Yield what is known of a mail if it has a key."""
    with contextlib.suppress(MalformedEnvelope):
        terms = read_envelope(stream).terms
        if terms.key:
            yield name, terms, message_id_in(stream)


def _gone(name: str) -> NoSuchMail:
    return NoSuchMail(f"there is no staged mail {name!r} in the queue; its transaction may have ended in the meantime")
