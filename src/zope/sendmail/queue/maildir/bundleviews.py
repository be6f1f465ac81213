"""The mails that stand in a bundle, while processors drain it where it lies, as operators see them.

Changes nothing.  A bundle that is open stays readable though files are made of it, so no mail is missed.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Container, Iterable, Iterator
from typing import BinaryIO

from zope.sendmail.errors import MalformedEnvelope, NotPossible
from zope.sendmail.lifecycle.queuedmail import QueuedMail
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.states import State
from zope.sendmail.maildir import age_key
from zope.sendmail.message.envelope import Envelope, read_envelope
from zope.sendmail.message.headers import message_id_in
from zope.sendmail.queue.maildir.bundle import entries
from zope.sendmail.queue.maildir.bundleprogress import ACCEPTED, GONE, INTENDED, OPENED, steps_in
from zope.sendmail.queue.maildir.layout import BUNDLE
from zope.sendmail.queue.maildir.store import Store
from zope.sendmail.system.disk import Disk

#: What the progress of a bundle says of mails that are being sent.
_IN_HAND = (OPENED, INTENDED, ACCEPTED)


class InBundle(NotPossible):
    """A mail that stands in a bundle still: processors drain it where it lies, and have not made a file of it in time.

    :param text: its lines and its message
    """

    def __init__(self, mail: QueuedMail, text: bytes) -> None:
        super().__init__(f"mail {mail.name} is sent together with others of its transaction; try again in a moment")
        self.mail = mail
        self.stream = _read(text)[1]


class OpenBundle:
    """A bundle that is open, and how far its mails were when it was opened.  Raises `OSError`.

    :param group: the path of its directory
    """

    def __init__(self, disk: Disk, group: str) -> None:
        self._path = os.path.join(group, BUNDLE)
        self._stream = disk.open(self._path)
        try:
            self._steps = steps_in(disk, group) or b""
        except BaseException:
            self._stream.close()
            raise

    def __enter__(self) -> OpenBundle:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def names(self) -> Iterator[str]:
        """Yield the names of the mails that are not gone, in their order."""
        return (name for name, _, _ in self._entries())

    def mails(self, besides: Container[str] = ()) -> Iterator[tuple[str, bytes, bytes]]:
        """Yield name, step and text of the mails that are not gone, but for those of some names."""
        for name, step, length in self._entries():
            if name not in besides:
                yield name, step, self._stream.read(length)

    def _entries(self) -> Iterator[tuple[str, bytes, int]]:
        """Yield name, step and length; the stream stands at the text.  A bundle that is torn ends where it is."""
        with contextlib.suppress(OSError):
            for number, (name, length) in enumerate(entries(self._stream, self._path)):
                step = self._steps[number : number + 1]
                if step != GONE:
                    yield name, step, length


class BundleViews:
    """Those of one queue."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def open(self, groups: Iterable[str], *, all_of_them: bool = True) -> list[OpenBundle]:
        """Return their bundles; those that cannot be read are left out.

        :param groups: relative to the queue
        :param all_of_them: whether one that is missing is an error: files were made of it meanwhile, or a group never
            had one and cannot be unfolded.
        :raises FileNotFoundError: if one is missing.
        """
        opened: list[OpenBundle] = []
        with contextlib.ExitStack() as stack:
            for group in groups:
                try:
                    opened.append(stack.enter_context(OpenBundle(self._store.disk, self._path(group))))
                except FileNotFoundError:
                    if all_of_them:
                        raise
                except OSError:  # the doctor tells of it
                    continue
            stack.pop_all()
        return opened

    def in_hand(self, groups: Iterable[str]) -> int:
        """Return how many mails of some groups are being sent."""
        count = 0
        for group in groups:
            with contextlib.suppress(OSError):
                steps = steps_in(self._store.disk, self._path(group)) or b""
                count += sum(steps.count(step) for step in _IN_HAND)
        return count

    def mail(self, name: str, step: bytes, text: bytes) -> QueuedMail:
        """Return a mail that stands in a bundle.

        :param step: what the progress of the bundle says of it
        :param text: its lines and its message
        """
        records: list[Record] = []
        with contextlib.suppress(OSError):
            records = self._store.records(f"new/{name}")
        state = State.SENDING if step in _IN_HAND else records[-1].state if records else State.READY
        envelope, stream = _read(text)
        return QueuedMail.at(
            self._store.clock.time(),
            name,
            state,
            envelope,
            message_id=message_id_in(stream),
            since=float(age_key(name)[0]),
            size=len(text),
            history=records,
        )

    def _path(self, group: str) -> str:
        return os.path.join(self._store.layout.root, group)


def _read(text: bytes) -> tuple[Envelope | None, BinaryIO]:
    """Return the envelope of a mail, if it can be read, and its message."""
    stream = io.BytesIO(text)
    try:
        return read_envelope(stream), io.BytesIO(text[stream.tell() :])
    except MalformedEnvelope:
        return None, io.BytesIO(text)
