"""When to read the directory of a Maildir queue, and what to make of it.

A look costs as much as the queue is deep, so it is taken only when something may have changed, and never so often
that looking takes more than a twentieth of the time; to make files of a bundle is no part of that, or a large
transaction would keep the mails of the next one.  Fails with `OSError`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from zope.sendmail.message.terms import marks_in
from zope.sendmail.queue.maildir.index import Index
from zope.sendmail.queue.maildir.layout import name_of
from zope.sendmail.queue.maildir.store import Listing, Store
from zope.sendmail.reporting import maillog
from zope.sendmail.system.disk import NO_ROOM

#: Seconds after which the directory is read whatever its time stamp says: some network file systems are wrong about it.
_UNCONDITIONAL = 300.0

#: A directory that changed less than this many nanoseconds before a look may change again without a new time stamp.
_CLOCK_TICK = 2_000_000_000

#: So many times as long as the last look took none is taken.
_SHARE = 20

#: While there is work that is known, the directory is read at most every so many seconds; triggers tell of what is new.
_WHILE_BUSY = 3.0

#: The same if a trigger says that there is something new and does not name it: a large transaction may go before.
_WHILE_ASKED = 0.1

#: Seconds for which a time stamp is believed; then the history is read.  As long as the longest usual delay.
_TRUST = 3600.0


#: So many new messages are asked for their history one by one; for more, the names in ``history/`` are read.
_FEW = 16


class _Histories:
    """Knows which of the messages that are new at one look have a history."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._asked = 0
        self._names: set[str] | None = None

    def may_have(self, key: str) -> bool:
        """Return False if it had none a moment ago.  What counts is the history when the message is locked."""
        self._asked += 1
        if self._asked <= _FEW:
            return True
        if self._names is None:
            self._names = self._store.tried()
        return name_of(key) in self._names


class Scanner:
    """Brings an index up to date.  Concurrency: the queue's mutex."""

    def __init__(
        self, store: Store, index: Index, grace: Callable[[str], float], take_up: Callable[[str], bool]
    ) -> None:
        self._store = store
        #: Says of a committed group that its bundle is drained where it lies; it does not become files then.
        self._take_up = take_up
        self._index = index
        #: For how many seconds a new message is left to another process.
        self._grace = grace
        #: Whether a trigger or an operator says that there is something new.
        self.asked = True
        self._stamps: tuple[int, ...] = ()
        self._began = float("-inf")
        self._cost = 0.0
        self._bad_groups: set[str] = set()
        #: Another process was unfolding mails, and may die without having told us of them.
        self._busy = False
        #: Whether that one is making files of them just now; else it is sending them where they lie.
        self.awaits_files = False
        #: There was no room to unfold all mails, and whether there is more since then.
        self._is_short = self._has_room = False

    @property
    def is_short(self) -> bool:
        """Whether the last look found mail for which there was no room."""
        return self._is_short

    @property
    def is_due(self) -> bool:
        """Whether a look now finds mail for which there was no room: what has left since has made some."""
        return self._is_short and self._has_room

    def note_short(self) -> None:
        """Take note that there is mail for which there is no room."""
        self._is_short = True

    def made_room(self) -> None:
        """Take note that a mail has left."""
        self._has_room = True

    def ask_at_once(self) -> None:
        """Let the next look read the directory, whatever that costs."""
        self.asked, self._began = True, float("-inf")

    def look(self, now: float) -> list[str]:
        """Read the directory if it is time to.  Returns the messages that are locked but gone."""
        if not self._is_time(now):
            return []
        self._stamps = self._read_stamps()
        has_room = self.is_due
        listing = self._read()
        if has_room and self._is_short and self._index.next_due(now) != 0.0:
            begin = self._store.clock.monotonic() - self._cost
            with contextlib.suppress(OSError):  # space may be free with the next commit of the file system only
                self._store.disk.sync_directory(self._store.layout.new)
            cost = self._store.clock.monotonic() - begin
            listing = self._read()
            self._cost += cost
        self._began, self.asked = now, False
        return listing.orphans()

    def _is_time(self, now: float) -> bool:
        if self.is_due:
            return True
        since = now - self._began
        rest = _WHILE_ASKED if self.asked else _WHILE_BUSY
        if since < self._cost * _SHARE or (since < rest and self._index.next_due(now) == 0.0):
            return False
        if self.asked or self._busy or since >= _UNCONDITIONAL:
            return True
        return self._read_stamps() != self._stamps

    def _read_stamps(self) -> tuple[int, ...]:
        """Return the time stamps of the directories, negative while one is too young to be trusted."""
        layout, wall = self._store.layout, self._store.clock.time() * 1e9
        try:
            stamps = [self._store.disk.stat(layout.new).st_mtime_ns]
        except FileNotFoundError:
            if not layout.spool:
                raise
            stamps = [self._store.disk.stat(layout.spool).st_mtime_ns]  # there is no room for more
        with contextlib.suppress(FileNotFoundError):  # it may have made room for a lock
            stamps.append(self._store.disk.stat(layout.cur).st_mtime_ns)
        return tuple(stamp if abs(wall - stamp) > _CLOCK_TICK else -stamp for stamp in stamps)

    def _read(self) -> Listing:
        """Read the directory; finish before what commits began.

        That is done once, and so is no part of what a look costs, unless some of it is left for the next one.
        """
        store = self._store
        self._is_short = self._has_room = False
        begin, listing = self._list()
        if store.shorten(listing):
            begin, listing = self._list()
        self._busy = self.awaits_files = False
        if listing.groups:
            listing.groups = [group for group in listing.groups if not self._take_up(group)]
            self._busy = not store.unfold(listing, self._stuck)
            self.awaits_files = self._busy and not store.are_drained(listing)
            left = set(listing.groups)
            anew, listing = self._list()
            begin = anew if left.isdisjoint(listing.groups) else begin
        store.clear(listing)
        histories, locked = _Histories(store), listing.locked
        self._index.update(listing.keys, lambda key: self._when(key, histories, locked=key in locked))
        self._cost = store.clock.monotonic() - begin
        return listing

    def _list(self) -> tuple[float, Listing]:
        """Return when this began, and the names."""
        return self._store.clock.monotonic(), Listing(self._store.layout, self._store.disk)

    def _stuck(self, group: str, error: OSError) -> None:
        self._is_short = self._is_short or error.errno in NO_ROOM
        if group not in self._bad_groups:
            maillog.group_stuck(group, error)
        self._bad_groups.add(group)

    def _when(self, key: str, histories: _Histories, *, locked: bool) -> float | None:
        """Return when a message that was tried before is probably due; the time stamp of its history says it unread.

        One that a process has locked counts as tried: its lock is looked at, but it does not stand before fresh ones.
        """
        modified = self._store.due_hint(key) if histories.may_have(key) else None
        clock = self._store.clock
        if modified is None:
            if "," in key and (planned := marks_in(key).not_before - clock.time()) > 0:
                return clock.monotonic() + planned
            grace = self._grace(key)
            return clock.monotonic() + grace if locked or grace else None
        return clock.monotonic() + min(max(0.0, modified - clock.time()), _TRUST)
