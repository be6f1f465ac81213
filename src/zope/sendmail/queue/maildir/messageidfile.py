"""What is known of the Message-Ids of a Maildir queue, kept for the next process that asks: ``processors/messageids``.

A hint and no more: the reader looks whether a mail that it finds has that Message-Id, and reads the mails that the file
does not name.  So it is written seldom, without fsync, and trouble with it harms nothing.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Mapping

from zope.sendmail.maildir import unique_name
from zope.sendmail.queue.maildir.layout import Layout
from zope.sendmail.system.disk import Disk, remove_quietly

_NAME = "messageids"

#: The first line: the format, and a checksum of what follows.
_HEAD = b"zope.sendmail message-ids 1 %08x\n"

#: A file that is larger is not read.
_LARGEST = 64 * 1024 * 1024


class MessageIdFile:
    """The file of one queue.  Concurrency: any thread and any process; the last writer counts."""

    def __init__(self, layout: Layout, disk: Disk) -> None:
        self._disk = disk
        self._directory = layout.processors

    def read(self) -> dict[str, int]:
        """Return the hashes by the paths of mails below the queue; nothing if the file is not there, or not whole."""
        with contextlib.suppress(OSError, ValueError):
            with self._disk.open(os.path.join(self._directory, _NAME)) as stream:
                head, _, text = stream.read(_LARGEST + 1).partition(b"\n")
            if len(text) < _LARGEST and head + b"\n" == _HEAD % zlib.crc32(text):
                lines = (line.partition(" ") for line in os.fsdecode(text).split("\n") if line)
                return {path: int(value, 16) for value, _, path in lines}
        return {}

    def write(self, hashes: Mapping[str, int]) -> None:
        """Replace the file.  Raises nothing."""
        text = os.fsencode("".join(f"{value:x} {path}\n" for path, value in hashes.items() if "\n" not in path))
        temporary = os.path.join(self._directory, f".{_NAME}-{unique_name()}")
        try:
            self._disk.create(temporary, _HEAD % zlib.crc32(text), text)
            self._disk.rename(temporary, os.path.join(self._directory, _NAME))
        except OSError:  # it is full, read-only, not ours, or has no such directory yet
            with contextlib.suppress(OSError):
                remove_quietly(self._disk, temporary)
