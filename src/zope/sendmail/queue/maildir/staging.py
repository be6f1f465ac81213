"""The mails of one transaction on their way into a Maildir queue.

One mail goes ``tmp/<name>`` -> ``new/<name>``; several stand in ``tmp/<group>/``, the later ones of many in one file,
and renaming that directory reveals them all or none.  The numbered steps are those of
``docs/explanation/internals.rst``.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence

from zope.interface import implementer

from zope.sendmail.errors import KeyTaken
from zope.sendmail.interfaces import IStagedMail
from zope.sendmail.maildir import unique_name
from zope.sendmail.message.envelope import Envelope, envelope_lines
from zope.sendmail.message.pieces import Piece
from zope.sendmail.message.terms import PLAIN, Marks
from zope.sendmail.queue.keys import id_of, patiently
from zope.sendmail.queue.maildir.bundle import entry_line, unfold
from zope.sendmail.queue.maildir.hold import Hold
from zope.sendmail.queue.maildir.keys import Keys
from zope.sendmail.queue.maildir.latecommit import LateCommits
from zope.sendmail.queue.maildir.layout import BUNDLE, GROUP, PROOF, Layout
from zope.sendmail.queue.maildir.spares import Spares
from zope.sendmail.queue.maildir.trigger import ring
from zope.sendmail.queue.maildir.unfolder import later
from zope.sendmail.system.disk import Disk, remove_quietly
from zope.sendmail.system.ownprocess import OwnProcess

#: So many mails of a transaction are files from the start; further ones stand in a bundle until they are unfolded.
SINGLY = 8


@implementer(IStagedMail)
class StagedMail:
    """The mails of one transaction, in one queue directory; see `IStagedMail`.

    They belong to the process that staged them: in a forked child `abort` and `rollback` do nothing, and `prepare`
    raises, for the parent's transaction decides.
    """

    def __init__(
        self,
        layout: Layout,
        disk: Disk,
        late: LateCommits,
        spares: Spares,
        *,
        keys: Keys,
        make: Callable[[], None],
    ) -> None:
        self._process = OwnProcess()
        self._keys = keys
        #: The keys of mails that have one, by the mail's name.
        self._key_of: dict[str, str] = {}
        self._id_of: dict[str, str] = {}
        #: Shows other processes that this transaction lives, see `hold`.
        self._hold: Hold | None = None
        self._layout = layout
        self._disk = disk
        self._late = late
        self._spares = spares
        #: The name of the spare file in which the only mail stands, if it stands in one.
        self._spare = ""
        #: Makes the queue directory; it may have been removed.
        self._make = make
        self._names: list[str] = []
        self._group = ""
        #: Where in the bundle each mail begins that has no file of its own, and where the last one ends.
        self._starts: list[int] = []
        self._end = 0
        #: Whether there may be more behind that.
        self._is_torn = False
        self._prepared = self._committed = self._finished = False
        #: Whether the next mail has to stand in a file with its own name.
        self._is_named = False

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the mails."""
        return tuple(self._names)

    @property
    def is_revealed(self) -> bool:
        """Whether the mails are in the queue, be it that a `commit` has raised what was refused behind that."""
        return self._committed

    def __len__(self) -> int:
        return len(self._names)

    def add(self, envelope: Envelope, *message: Piece) -> str:
        """See `IStagedMail`."""
        if envelope.terms.key:
            return self._add_with_key(envelope, *message)
        return self._add(envelope, *message)

    def _add_with_key(self, envelope: Envelope, *message: Piece) -> str:
        """Write a mail first, then take its key: so a key whose mail is nowhere is that of a committed one."""
        terms = envelope.terms
        if terms.key in self._id_of:
            raise KeyTaken(terms.key, self._id_of[terms.key])
        patiently(self._keys.clock, lambda: self._keys.check(terms.key))
        identifier = id_of(message)
        name = self._add(envelope, *message)
        try:
            patiently(self._keys.clock, lambda: self._keys.reserve(terms.key, identifier, name, terms.key_until))
        except BaseException:
            self.rollback(len(self._names) - 1)
            raise
        self._key_of[name], self._id_of[terms.key] = terms.key, identifier
        return name

    def _add(self, envelope: Envelope, *message: Piece) -> str:
        self._prepared = False
        if self._names and not self._group:
            self._make_group()
        name = unique_name()
        if envelope.terms is not PLAIN:
            name += str(Marks.of(envelope.terms))
        self._is_named = bool(envelope.terms.key)
        put = self._create if len(self._names) < SINGLY else self._append
        put(name, envelope_lines(envelope, *message), *message)
        self._names.append(name)
        return name

    def rollback(self, count: int) -> None:
        """See `IStagedMail`."""
        if not self._process.is_here():
            return
        self._free(self._names[count:])
        kept = max(0, count - SINGLY)
        if kept < len(self._starts):
            self._prepared = False
            self._cut(self._starts[kept])
            del self._starts[kept:], self._names[SINGLY + kept :]
        while len(self._names) > count:
            remove_quietly(self._disk, self._path(self._names[-1]))
            self._names.pop()
        if not self._names:
            self._spare = ""
            self._let_go()

    def _free(self, names: Sequence[str]) -> None:
        """Free the keys of mails that are about to be removed."""
        for name in names:
            if name in self._key_of:
                self._keys.free(self._key_of[name], name)
                del self._id_of[self._key_of.pop(name)]

    def prepare(self) -> None:
        """See `IStagedMail`."""
        self._process.check(len(self))
        if self._prepared or not self._names:
            return
        self._prove()
        if self._spare and self._hold is not None:  # its name is on disk
            self._hold.sync(self._disk)
        else:
            self._sync()
        self._keys.prepared(self._key_of.values())
        self._prepared = True

    def _sync(self) -> None:
        """Make the files and their names durable; what is new in ``tmp/`` meanwhile becomes so with them."""
        if self._is_torn:
            self._cut(self._end)
        files = [*self._names[:SINGLY], BUNDLE] if self._starts else self._names
        self._disk.sync_files([self._path(name) for name in files])
        if self._group:
            self._disk.sync_directory(os.path.join(self._layout.tmp, self._group))
        more = [] if self._group else self._spares.make(self._layout, self._disk)
        try:
            self._disk.sync_directory(self._layout.tmp)
        except OSError:
            self._spares.remove(more)
            raise
        self._spares.add(more)

    def _prove(self) -> None:
        """Raise `OSError` if the rename of `commit` is not possible: it cannot be told then."""
        if self._group:
            self._disk.check_writable(os.path.join(self._layout.tmp, self._group))
        self._disk.check_writable(self._layout.tmp)
        self._disk.prove_name(self._path(self._names[0]), self._new(PROOF + self._names[0]))

    def commit(self) -> None:
        """See `IStagedMail`.

        If the disk refuses even now, it raises and the mails stay staged; the queue tries again at its next use.
        """
        self._process.check(len(self))
        if not self._names:
            self._remove_group()
        elif not self._finished:
            try:
                self._reveal()
                self._finish()
            except OSError:
                self._late.add(self)
                raise

    def _reveal(self) -> None:
        """Rename once: the instant of success."""
        if not self._committed and self._group:
            self._disk.rename(os.path.join(self._layout.tmp, self._group), self._new(GROUP + self._group))
        elif not self._committed:
            self._disk.rename(self._path(self._names[0]), self._new(self._names[0]))
        self._committed = True

    def _finish(self) -> None:
        """Make it durable, let the mails of a group stand as single files, and say so."""
        self._disk.sync_directory(self._layout.new)
        self._keys.committed(self._key_of.values())
        group = self._new(GROUP + self._group)
        if self._group and not self._starts:
            unfold(self._layout, self._disk, group)
        self._finished = True
        self._let_go()
        if self._starts:
            later(self._layout, self._disk, group)
            ring(self._layout, self._disk, ())  # a processor may be faster
        else:
            ring(self._layout, self._disk, [f"new/{name}" for name in self._names])

    def abort(self) -> None:
        """See `IStagedMail`."""
        if not self._committed and self._process.is_here():
            self.rollback(0)
            self._remove_group()

    def _create(self, name: str, *pieces: Piece) -> None:
        try:
            self._create_here(name, *pieces)
        except FileNotFoundError:
            if self._group:
                raise
            self._make()
            self._create_here(name, *pieces)

    def _create_here(self, name: str, *pieces: Piece) -> None:
        if self._hold is None and Hold.can_have_one_more():
            if not self._names and not self._is_named and self._fill(*pieces):
                return
            self._hold = Hold(self._disk.create_locked(self._path(name), *pieces))
        else:
            self._disk.create(self._path(name), *pieces)

    def _fill(self, *pieces: Piece) -> bool:
        """Write the first mail into a spare file; return False if there is none."""
        while path := self._spares.take():
            with contextlib.suppress(FileNotFoundError):  # another program has tidied up, or the queue was removed
                self._hold = Hold(self._disk.fill(path, *pieces))
                self._spare = os.path.basename(path)
                return True
        return False

    def _let_go(self) -> None:
        if self._hold is not None:
            self._hold.close()
            self._hold = None

    def _append(self, name: str, *pieces: Piece) -> None:
        """Write one more mail into the bundle; if the disk refuses in the middle, that part is cut off later."""
        if self._is_torn:
            self._cut(self._end)
        line = entry_line(name, sum(map(len, pieces)))
        self._is_torn = True
        self._disk.append(self._path(BUNDLE), line, *pieces)
        self._is_torn = False
        self._starts.append(self._end)
        self._end += len(line) + sum(map(len, pieces))

    def _cut(self, end: int) -> None:
        """Let the bundle end there."""
        if end:
            self._disk.truncate(self._path(BUNDLE), end)
        else:
            remove_quietly(self._disk, self._path(BUNDLE))
        self._end = end
        self._is_torn = False

    def _make_group(self) -> None:
        """Move the mails into a directory of their own: the second one has come."""
        group = unique_name()
        directory = os.path.join(self._layout.tmp, group)
        self._disk.make_directory(directory)
        try:
            self._disk.rename(self._path(self._names[0]), os.path.join(directory, self._names[0]))
        except OSError:
            self._disk.remove_directory(directory)
            raise
        self._group, self._spare = group, ""

    def _remove_group(self) -> None:
        if self._group and not self._committed:
            if self._is_torn:
                self._cut(0)
            with contextlib.suppress(FileNotFoundError):
                self._disk.remove_directory(os.path.join(self._layout.tmp, self._group))
            self._group = ""

    def _path(self, name: str) -> str:
        return os.path.join(self._layout.tmp, self._group, self._spare or name)

    def _new(self, name: str) -> str:
        return os.path.join(self._layout.new, name)
