"""How mail leaves a Maildir queue for another queue, and comes to it from one; see `zope.sendmail.queue.transit`.

``moved/<name>`` is a mail that has left and is not known to have appeared: one rename out of ``new/``.  In
``arriving/<name>/`` there are ``mail``, ``history`` and ``origin``; it appears by the rename of ``mail``, last.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from zope.sendmail.errors import MailError, MalformedEnvelope, NoSuchMail
from zope.sendmail.lifecycle.record import Record, write_record
from zope.sendmail.lifecycle.states import Action, State
from zope.sendmail.maildir import written_at
from zope.sendmail.message.envelope import envelope_lines, read_envelope
from zope.sendmail.message.terms import PLAIN, Marks
from zope.sendmail.queue.maildir.admin import MaildirAdmin
from zope.sendmail.queue.maildir.keys import Keys
from zope.sendmail.queue.maildir.layout import COMPACTED, name_of
from zope.sendmail.queue.maildir.sentlog import SentLog
from zope.sendmail.queue.maildir.store import Store
from zope.sendmail.queue.transit import Departure, Group, TakenKey, Trace, Traveller, digest
from zope.sendmail.system.disk import remove_quietly
from zope.sendmail.system.hostname import host_name

#: Mails that are locked together, and their octets.
_AT_ONCE, _OCTETS = 50, 8 * 1024 * 1024

#: The name of a mail in a Maildir: it stays the same in another one.
_USUAL = re.compile(r"[0-9]{1,12}\.[^/:\0]{1,180}")


class MaildirTransit:
    """See `zope.sendmail.queue.transit.Transit`.

    :param make: makes the queue's directories.
    """

    def __init__(
        self, admin: MaildirAdmin, store: Store, keys: Keys, sent_log: SentLog, make: Callable[[], object]
    ) -> None:
        self._admin = admin
        self._store = store
        self._disk = store.disk
        self._layout = store.layout
        self._make = make
        self._keys = keys
        self._sent_log = sent_log
        self.origin = f"{host_name()}:{os.path.realpath(store.layout.root)}"

    # where mails leave

    def names(self) -> Iterable[str]:
        """See `Transit.names`."""
        return self._admin.names()

    def has(self, name: str) -> bool:
        """See `Transit.has`."""
        return self._store.find(name) is not None

    @contextlib.contextmanager
    def at_hand(self, names: Sequence[str]) -> Iterator[Group]:
        """See `Transit.at_hand`."""
        group = Group()
        with contextlib.ExitStack() as locks:
            for name in names:
                if group.is_full(_AT_ONCE, _OCTETS):
                    break
                group.seen += 1
                try:
                    self._admin.fetch(name)
                    group.mails.append(self._traveller(*locks.enter_context(self._admin.at_work(name, Action.MOVE))))
                except NoSuchMail:  # it was sent meanwhile
                    continue
                except MailError as error:
                    group.refused[name] = str(error)
            yield group

    def _traveller(self, key: str, record: Record, rejected: bool) -> Traveller:  # noqa: FBT001 - as `at_work` gives it
        path = self._layout.rejected(key) if rejected else self._layout.message(key)
        envelope, stream = self._store.open_path(path)
        with stream:
            start = stream.tell()
        size = self._disk.stat(path).st_size - start
        records = self._store.records(key)
        state = State.REJECTED if rejected else record.state
        if rejected and record.state is not State.REJECTED:  # its history was lost; it is not to be tried again
            records.append(replace(record, state=state, time=self._store.clock.time()))

        def message() -> io.BufferedReader:
            opened = self._disk.open(path)
            opened.seek(start)
            return opened  # type: ignore[return-value]  # it is one

        return Traveller(name_of(key), self._since(name_of(key), path), state, records, envelope, size, message)

    def _since(self, name: str, path: str) -> float:
        written = written_at(name)
        return self._disk.stat(path).st_mtime if written is None else written

    def leave(self, group: Group, mails: Sequence[Traveller]) -> None:
        """See `Transit.leave`."""
        if self._disk.make_directory(self._layout.moved):
            self._disk.sync_directory(self._layout.root)
        directories = {self._layout.moved}
        for mail in mails:
            key, rejected = self._store.find(mail.name) or (f"new/{mail.name}", False)
            path = self._layout.rejected(key) if rejected else self._layout.message(key)
            self._disk.rename(path, os.path.join(self._layout.moved, mail.name))
            directories.add(os.path.dirname(path))
        for directory in directories:
            self._disk.sync_directory(directory)

    def traces(self) -> Iterable[Trace]:
        """See `Transit.traces`."""
        for name in sorted(self._names_in(self._layout.moved)):
            with contextlib.suppress(FileNotFoundError):  # another move has forgotten it
                yield Trace(name, self._since(name, os.path.join(self._layout.moved, name)))

    def forget(self, names: Sequence[str]) -> None:
        """See `Transit.forget`."""
        for name in names:
            history = os.path.join(self._layout.history_, name)
            compacted = os.path.join(self._layout.history_, COMPACTED + name)
            remove_quietly(self._disk, history, compacted, os.path.join(self._layout.moved, name))

    # what is known beside the mails

    def keys(self) -> Iterator[TakenKey]:
        """See `Transit.keys`."""
        return itertools.starmap(TakenKey, self._keys.taken())

    def take_keys(self, keys: Sequence[TakenKey]) -> None:
        """See `Transit.take_keys`."""
        self._make()
        self._keys.bring(keys)

    def departures(self) -> Iterator[Departure]:
        """See `Transit.departures`."""
        return itertools.starmap(Departure, self._sent_log.entries())

    def note_departures(self, departures: Sequence[Departure]) -> None:
        """See `Transit.note_departures`."""
        self._make()
        self._sent_log.bring(departures)

    # where they come to

    def name_for(self, name: str, since: float, origin: str) -> str:
        """See `Transit.name_for`."""
        if _USUAL.fullmatch(name) and written_at(name) is not None:
            return name
        chance = digest(name)
        return f"{int(since)}.M{chance[:16]}.moved.{int(since % 1 * 1e6):06d}{int(chance[16:24], 16) % 10**7:07d}"

    def refusal(self, mail: Traveller, origin: str) -> str:
        """See `Transit.refusal`."""
        name = self.name_for(mail.name, mail.since, origin)
        if self._store.find(name) is not None:
            return f"mail {mail.name}: there is a mail {name} in the other queue already"
        try:
            known = read_envelope(io.BytesIO(self._head(mail) + b"\n"))
        except MalformedEnvelope as error:
            return f"mail {mail.name} cannot be written to a Maildir: {error}"
        return "" if known == mail.envelope else f"mail {mail.name} has an envelope that a Maildir cannot keep"

    def _head(self, mail: Traveller) -> bytes:
        every = (*mail.envelope.recipients, *mail.envelope.malformed)
        with contextlib.closing(mail.pieces()) as pieces:
            beginning = next(pieces, b"")
        return envelope_lines(replace(mail.envelope, recipients=every, malformed=()), beginning)

    def arrive(self, mails: Sequence[Traveller], origin: str) -> None:
        """See `Transit.arrive`."""
        self._make()
        if self._disk.make_directory(self._layout.arriving):
            self._disk.sync_directory(self._layout.root)
        self.discard([self.name_for(mail.name, mail.since, origin) for mail in mails])
        for mail in mails:
            self._write(mail, os.path.join(self._layout.arriving, self.name_for(mail.name, mail.since, origin)), origin)
        self._disk.sync_directory(self._layout.arriving)

    def _write(self, mail: Traveller, directory: str, origin: str) -> None:
        self._disk.make_directory(directory)
        message, history, told = (os.path.join(directory, each) for each in ("mail", "history", "origin"))
        self._disk.create(told, json.dumps([origin, mail.name]).encode("ascii"))
        self._disk.create(message, self._head(mail))
        for piece in mail.pieces():
            self._disk.append(message, piece)
        self._disk.stamp(message, mail.since)
        paths = [message, told]
        if mail.records:
            last = mail.records[-1]
            self._disk.create(history, *map(write_record, mail.records))
            self._disk.stamp(history, last.due if last.state is State.DEFERRED else last.time)
            paths.append(history)
        self._disk.sync_files(paths)
        self._disk.sync_directory(directory)

    def arrived(self, origin: str) -> Iterable[tuple[str, str]]:
        """See `Transit.arrived`."""
        for name in sorted(self._names_in(self._layout.arriving)):
            with contextlib.suppress(OSError, ValueError, TypeError):
                text = self._disk.read(os.path.join(self._layout.arriving, name, "origin"))
                came_from, there = json.loads(text)
                if came_from == origin:
                    yield name, there

    def appear(self, names: Sequence[str]) -> None:
        """See `Transit.appear`."""
        places = [(self._marked(name), os.path.join(self._layout.arriving, name)) for name in names]
        for name, place in places:
            with contextlib.suppress(FileNotFoundError):  # it has none, or another process was faster
                self._disk.rename(os.path.join(place, "history"), os.path.join(self._layout.history_, name))
        self._disk.sync_directory(self._layout.history_)
        for name, place in places:
            key = f"new/{name}"
            is_rejected = self._store.record(key).state is State.REJECTED
            path = self._layout.rejected(key) if is_rejected else self._layout.message(key)
            with contextlib.suppress(FileNotFoundError):
                self._disk.rename(os.path.join(place, "mail"), path)  # from now on it is a mail
        self._disk.sync_directory(self._layout.new)
        self.discard(names)
        self._admin.tell_processors()

    def _marked(self, name: str) -> str:
        """Return the name of what has arrived, with what its sender asked for, so that processors see it at once."""
        if "," not in name:
            with contextlib.suppress(OSError, MalformedEnvelope):  # it has appeared already
                envelope, stream = self._store.open_path(os.path.join(self._layout.arriving, name, "mail"))
                stream.close()
                return name if envelope.terms is PLAIN else name + str(Marks.of(envelope.terms))
        return name

    def discard(self, names: Sequence[str]) -> None:
        """See `Transit.discard`."""
        for name in names:
            place = os.path.join(self._layout.arriving, name)
            for each in self._names_in(place):
                remove_quietly(self._disk, os.path.join(place, each))
            with contextlib.suppress(FileNotFoundError):
                self._disk.remove_directory(place)

    def _names_in(self, directory: str) -> list[str]:
        try:
            return self._disk.names(directory)
        except FileNotFoundError:
            return []
