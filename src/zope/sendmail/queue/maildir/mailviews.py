"""What operators see of a Maildir queue while processors run: how many mails there are, which, and how it stands.

Changes nothing, but that mails which stand in a bundle become files of their own.  A mail that is sent meanwhile is
left out.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import time
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, BinaryIO

from zope.sendmail.errors import MalformedEnvelope, NoSuchMail
from zope.sendmail.lifecycle.finding import Finding, Kind, Severity
from zope.sendmail.lifecycle.queuedmail import QueuedMail
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.relaystate import ProcessorState, RelayBoard
from zope.sendmail.lifecycle.selection import Selection
from zope.sendmail.lifecycle.states import WAITING, State
from zope.sendmail.maildir import age_key
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.headers import message_id_in
from zope.sendmail.message.terms import Terms, marks_in
from zope.sendmail.queue import diagnosis
from zope.sendmail.queue.maildir import oldlock
from zope.sendmail.queue.maildir.bundleviews import BundleViews, InBundle, OpenBundle
from zope.sendmail.queue.maildir.doctor import examine, examine_staged
from zope.sendmail.queue.maildir.heartbeat import seems_alive
from zope.sendmail.queue.maildir.keys import Keys
from zope.sendmail.queue.maildir.laststates import LastStates
from zope.sendmail.queue.maildir.layout import age_text, by_age, is_too_long, name_of, shortened
from zope.sendmail.queue.maildir.messageindex import MessageIds
from zope.sendmail.queue.maildir.ownertext import SLOT
from zope.sendmail.queue.maildir.processorstates import ProcessorStateFiles
from zope.sendmail.queue.maildir.stagedentries import PREFIX as STAGED, StagedEntries
from zope.sendmail.queue.maildir.store import Listing, Store

#: Seconds that an operator waits until files were made of bundles, and how often it is looked whether they were.
_PATIENCE, _LOOKS = 1.0, 50

#: So often all is looked at anew because files were made of a bundle between two steps of a look.
_ANEW = 3


class MailViews:
    """The part of `IMailQueueAdmin` that looks.

    :param give_up_bundles: lets files be made of groups that are drained where they lie.
    """

    def __init__(self, store: Store, give_up_bundles: Callable[[Sequence[str]], None]) -> None:
        self._store = store
        self._give_up_bundles = give_up_bundles
        self._message_ids = MessageIds(store)
        self._states = ProcessorStateFiles(store.layout, store.disk, store.clock)
        self._keys = Keys(store.layout, store.disk, store.clock)
        self._last_states = LastStates(store)
        self._staged = StagedEntries(store, self._keys)
        self._bundled = BundleViews(store)

    def count(self) -> Mapping[State, int]:
        """See `IMailQueueAdmin.count`.  A bundle that is drained where it lies is left so."""
        listing = self._listing(as_files=False)
        histories = self._store.tried()
        self._last_states.forget_others(histories)
        staged = sum(1 for _ in self._store.staged())
        counts = Counter({State.REJECTED: len(listing.rejected), State.STAGED: staged})
        counts[State.SENDING] = self._bundled.in_hand(listing.groups)
        counts[State.READY] = self._store.in_groups(listing) - counts[State.SENDING]
        for key in listing.keys:
            last = self._last_states.of(key) if name_of(key) in histories else None
            records = () if last is None else (last,)
            state = self._state(key, records, rejected=False, locked=key in listing.locked)
            counts[State.SCHEDULED if state is State.READY and self._is_planned(key, records) else state] += 1
        return {state: counts[state] for state in State if counts[state]}

    def oldest(self) -> float | None:
        """See `IMailQueueAdmin.oldest`."""
        oldest = None
        for mail in self.mails(WAITING - {State.SCHEDULED}):
            if mail.envelope is not None and (oldest is None or mail.waits_since < oldest):
                oldest = mail.waits_since
            # Foreign names come first, whatever their age.
            if oldest is not None and age_key(mail.name)[0] and mail.waits_since == mail.since:
                break
        return oldest

    def mails(
        self, states: Iterable[State] = (), sender: str = "", recipient: str = "", **more: Any
    ) -> Iterator[QueuedMail]:
        """See `IMailQueueAdmin.mails`."""
        return self._selected(Selection(frozenset(states), sender, recipient, **more))

    def _selected(self, selection: Selection) -> Iterator[QueuedMail]:
        with contextlib.ExitStack() as stack:
            listing, bundles = self._everything()
            board = RelayBoard(self.processors())
            if State.STAGED in selection.states:
                yield from filter(selection.matches, self._staged.mails())
            files = self._files(selection, listing, board)
            if not bundles:
                yield from files
                return
            here = {name_of(key) for key in (*listing.keys, *listing.rejected)}
            parts = [self._of_bundle(stack.enter_context(each), here, board) for each in bundles]
            bundled = (filter(selection.matches, part) for part in parts)
            yield from heapq.merge(files, *bundled, key=lambda mail: age_text(mail.name))

    def _of_bundle(self, bundle: OpenBundle, files: Container[str], board: RelayBoard) -> Iterator[QueuedMail]:
        """Yield the mails of a bundle of which there are no files."""
        for found in bundle.mails(files):
            yield self._bundled.mail(*found).on(board, self._now())

    def _files(self, selection: Selection, listing: Listing, board: RelayBoard) -> Iterator[QueuedMail]:
        """Yield the mails that are files."""
        tried = self._store.tried() if selection.leaves_out_untried else None
        for key, rejected in _oldest_first(listing):
            if tried is not None and not rejected and name_of(key) not in tried and key not in listing.locked:
                continue  # it is ready
            with contextlib.suppress(FileNotFoundError):  # it was sent in the meantime
                if selection.may_match(self._since(key, rejected=rejected), rejected=rejected):
                    mail = self._fitting(selection, key, rejected=rejected, locked=key in listing.locked)
                    if mail is not None and selection.matches(mail := mail.on(board, self._now())):
                        yield mail

    def _fitting(self, selection: Selection, key: str, *, rejected: bool, locked: bool) -> QueuedMail | None:
        """Return a mail unless what is read of it first tells that it is not meant: then nothing else is read."""
        if selection.states:
            records = self._last(key)
            if not selection.may_be_in(self._state(key, records, rejected=rejected, locked=locked)):
                return None
        head = self._head(self._path(key, rejected=rejected))
        if not selection.may_be_of(head[0]):
            return None
        if not selection.states:
            records = self._last(key)
        return self._mail(key, records, rejected=rejected, locked=locked, head=head)

    def with_message_id(self, message_id: str) -> Iterator[QueuedMail]:
        """Yield the mails with this Message-Id; only the heads of those that are new since the last time are read."""
        listing, bundles = self._everything()
        board = RelayBoard(self.processors())
        here = {name_of(key) for key in (*listing.keys, *listing.rejected)} if bundles else set()
        for bundle in bundles:
            with bundle:
                yield from (mail for mail in self._of_bundle(bundle, here, board) if mail.message_id == message_id)
        for key, rejected in self._message_ids.find(message_id, listing):
            with contextlib.suppress(FileNotFoundError):  # it was sent in the meantime
                mail = self._mail(key, self._last(key), rejected=rejected, locked=key in listing.locked)
                if mail.message_id == message_id:
                    yield mail.on(board, self._now())

    def names(self) -> Iterator[str]:
        """See `IMailQueueAdmin.names`."""
        listing, bundles = self._everything()
        names = [name_of(key) for key, _ in _oldest_first(listing)]
        for bundle in bundles:
            with bundle:
                names += bundle.names()
        return iter(sorted(dict.fromkeys(names), key=age_text) if bundles else names)

    def these(self, names: Iterable[str]) -> Iterator[QueuedMail]:
        """See `IMailQueueAdmin.these`."""
        board, in_cur = RelayBoard(self.processors()), self._store.in_cur()
        for name in names:
            with contextlib.suppress(FileNotFoundError, NoSuchMail):  # it was sent in the meantime
                if name.startswith(STAGED):
                    yield self._staged.show(name)
                    continue
                key, rejected = self._store.find_as_named(name) or (in_cur.get(name), False)
                if key is None and (found := self._store.find_bundled(name)) is not None:
                    yield self._bundled.mail(name, *found).on(board, self._now())
                elif key is not None:
                    mail = self._mail(key, self._last(key), rejected=rejected, locked=True)
                    yield mail.on(board, self._now())

    def examine(self) -> Iterator[Finding]:
        """See `IMailQueueAdmin.examine`."""
        return (finding.within(self._store.layout.root) for finding in examine(self._store))

    def unusable(self) -> Iterator[Finding]:
        """See `IMailQueueAdmin.unusable`."""
        for mail in self.mails([State.READY]):
            if mail.envelope is None:
                try:
                    self.read(mail.name).close()
                except NoSuchMail:
                    continue
                except OSError as error:
                    yield diagnosis.unreadable(mail.name, error)

    def in_doubt(self) -> Iterator[Finding]:
        """See `IMailQueueAdmin.in_doubt`."""
        found = examine_staged(self._store)
        return (each for each in found if each.kind is Kind.IN_DOUBT and each.severity is Severity.PROBLEM)

    def show(self, name: str) -> QueuedMail:
        """See `IMailQueueAdmin.show`."""
        if name.startswith(STAGED):
            return self._staged.show(name)
        try:
            key, rejected = self._find(name)
        except InBundle as error:
            return error.mail.on(RelayBoard(self.processors()), self._now())
        try:
            mail = self._mail(key, self._all(key), rejected=rejected, locked=True)
            return mail.on(RelayBoard(self.processors()), self._now())
        except FileNotFoundError:
            raise gone(name) from None

    def read(self, name: str) -> BinaryIO:
        """See `IMailQueueAdmin.read`."""
        if name.startswith(STAGED):
            return self._staged.read(name)
        try:
            key, rejected = self._find(name)
        except InBundle as error:
            return error.stream
        path = self._path(key, rejected=rejected)
        try:
            return self._store.open_path(path)[1]
        except FileNotFoundError:
            raise gone(name) from None
        except MalformedEnvelope:
            return self._store.disk.open(path)

    def processors(self) -> Sequence[ProcessorState]:
        """See `IMailQueueAdmin.processors`."""
        return self._states.read()

    def _find(self, name: str) -> tuple[str, bool]:
        if is_too_long(name):
            name = shortened(name)
        if not _can_be_a_mails(name):
            raise gone(name)
        found = self._store.find(name)
        if found is None:
            self._listing()  # it may have stood in a bundle
            found = self._store.find(name)
        if found is None and (bundled := self._store.find_bundled(name)) is not None:
            raise InBundle(self._bundled.mail(name, *bundled), bundled[1])
        found = found or self._store.find(name)  # it may have become a file since
        if found is None:
            raise gone(name)
        return found

    def _state(self, key: str, records: Sequence[Record], *, rejected: bool, locked: bool) -> State:
        """`locked`: there may be a lock, so that it is worth while to look for its owner."""
        if rejected:
            return State.REJECTED
        if locked and self._is_alive(key):
            return State.SENDING
        return records[-1].state if records else State.READY

    def _is_planned(self, key: str, records: Sequence[Record]) -> bool:
        """Return whether a message leaves later, as its name tells; so nothing has to be read."""
        not_before = marks_in(key).not_before if "," in key else 0.0
        record = records[-1] if records else Record()
        return not_before > self._now() and record.before_time(Terms(not_before), self._now()) > 0.0

    def _locked_until(self, key: str) -> float:
        """Return until when the lock of an older release keeps a message; 0.0: there is none."""
        made = None
        with contextlib.suppress(OSError):
            made = oldlock.made_at(self._store.disk, self._store.layout.sending(key))
        return 0.0 if made is None else oldlock.given_up_at(made, self._now())

    def _is_alive(self, key: str) -> bool:
        disk = self._store.disk
        with contextlib.suppress(OSError), disk.locked(self._store.layout.sending(key)) as fd:
            return fd is None or seems_alive(disk, os.pread(fd, SLOT, 0), os.fstat(fd), self._now())
        return False

    def _last(self, key: str) -> Sequence[Record]:
        """Return the record that rules, if there is one that can be read; the doctor tells of others."""
        with contextlib.suppress(OSError):
            record = self._store.record(key)
            return () if record == Record() else (record,)
        return ()

    def _all(self, key: str) -> Sequence[Record]:
        with contextlib.suppress(OSError):
            return self._store.records(key)
        return ()

    def _since(self, key: str, *, rejected: bool) -> float:
        """Return when the mail was written; its name says it, or its time stamp."""
        seconds = by_age(key)[0]
        return float(seconds or self._store.disk.stat(self._path(key, rejected=rejected)).st_mtime)

    def _mail(
        self,
        key: str,
        records: Sequence[Record],
        *,
        rejected: bool,
        locked: bool,
        head: tuple[Envelope | None, str] | None = None,
    ) -> QueuedMail:
        path = self._path(key, rejected=rejected)
        size = self._store.disk.stat(path).st_size
        state = self._state(key, records, rejected=rejected, locked=locked)
        envelope, identifier = head or self._head(path)
        mail = QueuedMail.at(
            self._now(),
            name_of(key),
            state,
            envelope,
            message_id=identifier,
            since=self._since(key, rejected=rejected),
            size=size,
            history=records,
        )
        if locked and not rejected and state is not State.SENDING:
            return replace(mail, locked_until=self._locked_until(key))
        return mail

    def _head(self, path: str) -> tuple[Envelope | None, str]:
        """Envelope and Message-Id as far as they can be read."""
        try:
            envelope, stream = self._store.open_path(path)
        except FileNotFoundError:
            raise
        except (MalformedEnvelope, OSError):
            return None, ""
        with stream:
            return envelope, message_id_in(stream)

    def _path(self, key: str, *, rejected: bool) -> str:
        return self._store.layout.rejected(key) if rejected else self._store.layout.message(key)

    def _everything(self) -> tuple[Listing, list[OpenBundle]]:
        """Return all mails: those that are files, and the bundles of which none were made in time."""
        for again in range(_ANEW):
            listing = self._listing(as_files=not again)
            with contextlib.suppress(FileNotFoundError):
                return listing, self._bundled.open(listing.groups)
        return listing, self._bundled.open(listing.groups, all_of_them=False)

    def _listing(self, *, as_files: bool = True) -> Listing:
        """Return all mails, each a file of its own unless another process is making one of it just now.

        :param as_files: processors that drain a bundle where it lies are to leave the rest of it; they have a moment.
        """
        listing = Listing(self._store.layout, self._store.disk)
        changed = self._store.shorten(listing)
        if listing.groups and not self._store.unfold(listing) and as_files:
            self._wait_for_files(listing.groups)
        if listing.groups or changed:
            listing = Listing(self._store.layout, self._store.disk)
        return listing

    def _wait_for_files(self, groups: Sequence[str]) -> None:
        """Have files made of these groups; the mails that are being sent may keep us waiting, but not for long."""
        with contextlib.suppress(OSError):  # the disk refuses: what is there has to do
            self._give_up_bundles(groups)
        until = self._store.clock.monotonic() + _PATIENCE
        paths = [os.path.join(self._store.layout.root, group) for group in groups]
        for _ in range(_LOOKS):
            paths = [path for path in paths if os.path.isdir(path)]
            if not paths or self._store.clock.monotonic() > until:
                return
            time.sleep(_PATIENCE / _LOOKS)

    def _now(self) -> float:
        return self._store.clock.time()


def _oldest_first(listing: Listing) -> Iterator[tuple[str, bool]]:
    """Return all keys, oldest first, each with whether it was set aside."""
    waiting = ((key, False) for key in sorted(listing.keys, key=age_text))
    if not listing.rejected:
        return waiting
    set_aside = ((key, True) for key in sorted(listing.rejected, key=age_text))
    return heapq.merge(waiting, set_aside, key=lambda pair: age_text(pair[0]))


def _can_be_a_mails(name: str) -> bool:
    """Return whether a mail can have this name: what begins with a dot is a lock, or a mail that was set aside."""
    return bool(name) and not name.startswith(".") and not set(name) & {"/", "\0"} and not is_too_long(name)


def gone(name: str) -> NoSuchMail:
    return NoSuchMail(f"there is no mail {name!r} in the queue; it may have been sent in the meantime")
