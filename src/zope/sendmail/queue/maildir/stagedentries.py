"""What lies in ``tmp/`` as operators see it: mails whose transaction has not committed, singly or as a group.

Such an entry is called ``tmp/<name>``.  As long as its transaction may still end, nothing can be done to it; when the
process that made it is gone, an operator who knows how the transaction ended can reveal or remove it.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator

from zope.sendmail.errors import MalformedEnvelope, NoSuchMail, NotPossible
from zope.sendmail.lifecycle.queuedmail import QueuedMail
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.states import Action, State
from zope.sendmail.maildir import age_key
from zope.sendmail.message.headers import message_id_in
from zope.sendmail.queue.maildir.bundle import names_in
from zope.sendmail.queue.maildir.layout import GROUP
from zope.sendmail.queue.maildir.liveness import Fate, Maker
from zope.sendmail.queue.maildir.store import Store

#: How names of staged entries begin.
PREFIX = "tmp/"

#: Seconds for which the transaction of another host may be open.
_DAY = 86400.0


class StagedEntries:
    """The entries in ``tmp/`` of one queue."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._disk = store.disk
        self._layout = store.layout

    def mails(self) -> Iterator[QueuedMail]:
        """Yield the entries, oldest first; a group is one entry."""
        with contextlib.suppress(FileNotFoundError):
            for name in sorted(self._disk.names(self._layout.tmp), key=age_key):
                with contextlib.suppress(OSError):
                    if Maker.of(name) is not None:
                        yield self.show(PREFIX + name)

    def show(self, name: str) -> QueuedMail:
        """Return one entry.  Raises `NoSuchMail`."""
        path = self._path(name)
        try:
            status = self._disk.stat(path)
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

    def release(self, name: str) -> None:
        """Reveal an entry whose transaction committed.  Raises `NoSuchMail`, `NotPossible`."""
        path = self._checked(name, Action.RELEASE)
        entry = os.path.basename(path)
        target = GROUP + entry if stat.S_ISDIR(self._disk.stat(path).st_mode) else entry
        self._disk.rename(path, os.path.join(self._layout.new, target))
        self._disk.sync_directory(self._layout.new)

    def remove(self, name: str) -> None:
        """Remove an entry whose transaction did not commit.  Raises `NoSuchMail`, `NotPossible`."""
        path = self._checked(name, Action.REMOVE)
        if stat.S_ISDIR(self._disk.stat(path).st_mode):
            for each in self._disk.names(path):
                self._disk.unlink(os.path.join(path, each))
            self._disk.remove_directory(path)
        else:
            self._disk.unlink(path)

    def _checked(self, name: str, action: Action) -> str:
        """Return the path of an entry with which something can be done."""
        path = self._path(name)
        try:
            self._disk.stat(path)
        except FileNotFoundError:
            raise _gone(name) from None
        maker = Maker.of(os.path.basename(path))
        if maker is None:
            raise NotPossible(f"cannot {action} {name}: no queue made it")
        if maker.fate is Fate.LIVES:
            why = f"process {maker.pid}, which made it, lives, and its transaction may still commit"
            raise NotPossible(f"cannot {action} {name}: {why}")
        if maker.fate is Fate.ELSEWHERE and self._store.clock.time() - maker.seconds < _DAY:
            why = f"its transaction on host {maker.host} may still commit; a day after it was made nobody waits for it"
            raise NotPossible(f"cannot {action} {name}: {why}")
        return path

    def _path(self, name: str) -> str:
        entry = name.removeprefix(PREFIX)
        if not entry or entry.startswith(".") or set(entry) & {"/", "\0"}:
            raise _gone(name)
        return os.path.join(self._layout.tmp, entry)


def _gone(name: str) -> NoSuchMail:
    return NoSuchMail(f"there is no staged mail {name!r} in the queue; its transaction may have ended in the meantime")
