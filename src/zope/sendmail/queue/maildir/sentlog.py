"""Which mails have left a queue: a line for each, in a file for each day, kept for a week or as long as is wanted.

So that "sent" can be told from "never heard of it", and what the relay said is known.  Nothing else depends on it:
trouble with these files harms no mail, and is told once.  Concurrency: any thread, and any number of processes write to
one file.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO

from zope.sendmail.lifecycle.mailstatus import KEPT_DAYS, SentMail
from zope.sendmail.lifecycle.outcome import Reply
from zope.sendmail.lifecycle.record import Record, reply_of, reply_values
from zope.sendmail.queue.maildir.layout import Layout
from zope.sendmail.reporting import maillog
from zope.sendmail.system.clock import Clock
from zope.sendmail.system.disk import Disk
from zope.sendmail.system.forklock import ForkLock

_DAY = 86400.0

#: The year 10000, in seconds since the epoch: there are no names for the days from then on.
_NEVER = 253402300800.0

#: So many recipients of a mail are written down with what was said about them.
_MOST = 100

#: A file is searched in pieces of so many bytes, from its end; a line is shorter than that.
_PIECE = 1024 * 1024

#: If something that is no file stands where the file of a day would be, another name is taken.
_SECOND = ".2"


class SentLog:
    """The files in ``sent/`` of one queue.

    :param kept_days: for so many days it is known what has left.
    :param has_room: says whether the disk has room for more than mail.
    """

    _fd = -1

    def __init__(
        self,
        layout: Layout,
        disk: Disk,
        clock: Clock,
        *,
        kept_days: int = KEPT_DAYS,
        has_room: Callable[[], bool] = lambda: True,
    ) -> None:
        self.kept_days = kept_days
        self._has_room = has_room
        self._directory = layout.sent
        self._disk = disk
        self._clock = clock
        #: Until when the open file is the right one.
        self._until = 0.0
        self._in_trouble = False
        #: A day, and what left on it, in seconds, as far as another queue tells of it.
        self._brought: tuple[str, set[tuple[str, int]]] = ("", set())
        #: Else one thread might write to a descriptor that another one is closing: its number may be a relay's by then.
        self._mutex = ForkLock()

    def __del__(self) -> None:
        self._close()

    def note(self, name: str, message_id: str, record: Record) -> None:
        """Take note that a mail is leaving.  Never raises.

        :param name: the mail's.
        :param message_id: without angle brackets; a mail that has none is not noted.
        :param record: the last one of its history.
        """
        self.note_all([(name, message_id, record)])

    def note_all(self, mails: Iterable[tuple[str, str, Record]]) -> None:
        """Do as `note` for several mails.  Never raises."""
        now = self._clock.time()
        lines = b"".join([_line(now, name, message_id, record) for name, message_id, record in mails if message_id])
        if not lines:
            return
        with self._mutex:
            try:
                self._write(lines, now)
                self._in_trouble = False
            except OSError as error:
                self._close()
                if not self._in_trouble:
                    self._in_trouble = True
                    maillog.departures_failed(self._directory, error)

    def find(self, message_id: str) -> SentMail | None:
        """Return what is known of the last mail with this Message-Id that left; None if none is known."""
        if not message_id:
            return None
        for name in sorted(self._names(), reverse=True):
            with contextlib.suppress(OSError), self._disk.open(os.path.join(self._directory, name)) as stream:
                for line in _lines_with(stream, _marks(message_id)):
                    if (found := _read(line, message_id)) is not None:
                        return found
        return None

    def entries(self) -> Iterator[tuple[str, SentMail]]:
        """Return what is known of all mails that have left, each with its Message-Id, oldest day first.

        :raises OSError: if the disk refuses.
        """
        oldest = _name(self._clock.time() - self.kept_days * _DAY)
        for name in sorted(self._names()):
            if name >= oldest:
                yield from self._entries_of(name)

    def _entries_of(self, name: str) -> Iterator[tuple[str, SentMail]]:
        with contextlib.suppress(FileNotFoundError), self._disk.open(os.path.join(self._directory, name)) as stream:
            for line in stream:
                if (entry := _parsed(line)) is not None:
                    yield entry

    def bring(self, mails: Iterable[tuple[str, SentMail]]) -> None:
        """Note mails that left another queue, each with its Message-Id; those that are noted already are passed over.

        :raises OSError: if the disk refuses; it may be done again.
        """
        days: dict[str, dict[tuple[str, int], SentMail]] = {}
        oldest = _name(self._clock.time() - self.kept_days * _DAY)
        for message_id, mail in mails:
            if (day := _name(mail.time)) >= oldest:
                days.setdefault(day, {})[message_id, round(mail.time)] = mail
        for day, of_day in days.items():
            self._bring_day(day, of_day)

    def _bring_day(self, day: str, mails: dict[tuple[str, int], SentMail]) -> None:
        if self._brought[0] != day:
            names = [name for name in self._names() if name.startswith(day)]
            there = (entry for name in names for entry in self._entries_of(name))
            self._brought = (day, {(message_id, round(mail.time)) for message_id, mail in there})
        known = self._brought[1]
        lines = [_line(mail.time, "", key[0], mail.record) for key, mail in mails.items() if key not in known]
        if lines:
            self._disk.make_directory(self._directory)
            fd = self._open_one(os.path.join(self._directory, day))
            try:
                # The first line end: else a line that has none, left by a death, would swallow the next one.
                self._disk.write(fd, b"\n" + b"".join(lines))
            finally:
                os.close(fd)
            known.update(mails)

    def close(self) -> None:
        """Let go of the file; the next mail opens it again."""
        with self._mutex:
            self._close()

    def _write(self, line: bytes, now: float) -> None:
        if self._fd < 0 or not self._until - _DAY <= now < self._until:
            self._open(now)
        self._disk.write(self._fd, line)

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):
                os.close(fd)

    def _open(self, now: float) -> None:
        self._close()
        if not self._has_room():
            raise OSError(errno.ENOSPC, "what is free is needed for the locks of mails", self._directory)
        path = os.path.join(self._directory, _name(now))
        try:
            self._fd = self._open_one(path)
        except FileNotFoundError:
            self._disk.make_directory(self._directory)
            self._fd = self._open_one(path)
        self._disk.write(self._fd, b"\n")  # else a line that has no end, left by a full disk, would swallow the next
        self._until = (now // _DAY + 1) * _DAY
        oldest = _name(now - self.kept_days * _DAY)
        for name in self._names():
            if name < oldest:
                with contextlib.suppress(OSError):
                    self._disk.unlink(os.path.join(self._directory, name))

    def _open_one(self, path: str) -> int:
        try:
            return self._disk.open_for_append(path)
        except FileNotFoundError:
            raise
        except OSError:  # a FIFO, a device, a directory, another's file
            return self._disk.open_for_append(path + _SECOND)

    def _names(self) -> list[str]:
        try:
            return [name for name in self._disk.names(self._directory) if name[:1].isdigit()]
        except FileNotFoundError:
            return []


def _name(moment: float) -> str:
    return datetime.datetime.fromtimestamp(moment, datetime.UTC).date().isoformat()


def _line(now: float, name: str, message_id: str, record: Record) -> bytes:
    """Return a line about a mail; recipients about whom the same was said stand together."""
    if len(record.replies) == 1:
        [(recipient, reply)] = record.replies.items()
        code = "null" if reply.code is None else reply.code
        enhanced = "null" if reply.enhanced is None else _text_of(reply.enhanced)
        return (
            f"{now:.0f} [{_text_of(message_id)},{_text_of(name)},{_text_of(record.relay)},"
            f"[[[{_text_of(reply.answer)},{code},{enhanced},{_text_of(reply.text)}],[{_text_of(recipient)}]]]]\n"
        ).encode("ascii")
    said: dict[Reply, list[str]] = {}
    recipients = list(record.replies)[:_MOST]
    for recipient in recipients:
        said.setdefault(record.replies[recipient], []).append(recipient)
    values = [message_id, name, record.relay, [[reply_values(reply), each] for reply, each in said.items()]]
    return f"{now:.0f} {_json(values)}\n".encode("ascii")


#: The same for a text by itself.
_text_of = json.encoder.encode_basestring_ascii
#: Makes one line of it.
_json = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode


def _marks(message_id: str) -> tuple[bytes, bytes]:
    """Return what only lines about this Message-Id have in them: those of this release, and those before it."""
    now = f" [{json.dumps(message_id, ensure_ascii=True)},".encode("ascii")
    return now, f" {message_id}\n".encode("utf-8", "surrogateescape")


def _lines_with(stream: BinaryIO, marks: tuple[bytes, ...]) -> Iterator[bytes]:
    """Yield the lines with one of `marks` in them, the last one first."""
    position = stream.seek(0, os.SEEK_END)
    rest = b""
    while position > 0:
        size = min(_PIECE, position)
        position -= size
        stream.seek(position)
        text = stream.read(size) + rest
        if position:  # the first line of the piece may have begun before it
            head, end, text = text.partition(b"\n")
            rest = head + end
        if any(mark in text for mark in marks):
            for line in reversed(text.splitlines(keepends=True)):
                if any(mark in line for mark in marks):
                    yield line
        if len(rest) > _PIECE:  # no line of ours
            rest = b""


def _read(line: bytes, message_id: str) -> SentMail | None:
    """Return what a line says about a Message-Id; None if it is about another one."""
    entry = _parsed(line)
    return entry[1] if entry is not None and entry[0] == message_id else None


def _parsed(line: bytes) -> tuple[str, SentMail] | None:
    """Return the Message-Id that a line is about, and what it says; None for a foreign one."""
    seconds, _, rest = line.rstrip(b"\n").partition(b" ")
    try:
        time = float(seconds)
        if not 0.0 <= time < _NEVER:
            raise ValueError(f"there is no day for {time}")
        if not rest.startswith(b"["):  # as it was written before replies were
            return rest.rpartition(b" ")[2].decode("utf-8", "surrogateescape"), SentMail(time)
        message_id, _, relay, replies = json.loads(rest)
        said = {_text(who): reply_of(reply) for reply, all_ in replies for who in all_}
        return _text(message_id), SentMail(time, _text(relay), said)
    except (ValueError, TypeError, RecursionError):
        return None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"there cannot be {value!r} in the place of a text")
    return value
