"""A message that gets a Message-Id on its way out, because its writer gave it none.

The id is made of the mail's name, so it is the same at each attempt; the file stays as it is.
"""

from __future__ import annotations

import io
import os
from typing import Any, BinaryIO, cast

from zope.sendmail.errors import InvalidMessage
from zope.sendmail.message.headers import with_message_id
from zope.sendmail.queue.maildir.lease import MaildirLease
from zope.sendmail.system.hostname import host_name

#: So many bytes of a message are looked at before a Message-Id is put in front of it: a header has seldom more.
_WHOLE_HEADER = 1024 * 1024


class CompletedLease(MaildirLease):
    """See `ILease`.  A message without Message-Id gets one, made of the mail's name."""

    def _read_message_id(self) -> str:
        """Return the Message-Id that the message has or gets; the stream stays where it is."""
        try:
            stream = self._open_stream()
            position = stream.tell()
            stream.seek(self._start)
            head = stream.read(_WHOLE_HEADER)
            stream.seek(position)
        except OSError:
            return ""
        return self._completed(head)[1]

    def open(self) -> BinaryIO:
        """See `ILease`."""
        stream = super().open()
        head = stream.read(_WHOLE_HEADER)
        completed, _ = self._completed(head)
        if completed == head:
            stream.seek(self._start)
            return stream
        return cast("BinaryIO", io.BufferedReader(_Completed(completed, stream, self._start + len(head))))

    def _completed(self, head: bytes) -> tuple[bytes, str]:
        """Return the head of the message with a Message-Id, and that."""
        try:
            return with_message_id(head, self._new_id)
        except InvalidMessage:  # it has something in that place, and we shall not have two
            return head, ""

    @property
    def _new_id(self) -> str:
        return f"{self.name}.maildrop@{host_name()}"


class _Completed(io.RawIOBase):
    """A message whose head is another one."""

    def __init__(self, head: bytes, rest: BinaryIO, start: int) -> None:
        super().__init__()
        self._head, self._rest, self._start = head, rest, start
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_CUR:
            offset += self._position
        elif whence == os.SEEK_END:
            offset += len(self._head) + self._rest.seek(0, os.SEEK_END) - self._start
        self._position = max(0, offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        size = len(buffer)
        part = self._head[self._position : self._position + size]
        if not part:
            self._rest.seek(self._start + self._position - len(self._head))
            part = self._rest.read(size)
        buffer[: len(part)] = part
        self._position += len(part)
        return len(part)
