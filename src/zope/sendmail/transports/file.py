"""A mailer for development: mail goes to files that developers can look at, and nowhere else.

Each mail shows its envelope in ``X-Envelope-From`` and ``X-Envelope-To``.  A place that cannot be written is a fault of
the relay, so direct delivery refuses it in the vote.
"""

from __future__ import annotations

import contextlib
import mailbox
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import BinaryIO, Protocol

from zope.interface import implementer

from zope.sendmail.interfaces import ISession, ISessionMailer
from zope.sendmail.lifecycle.outcome import Answer, Outcome, Reply, printable
from zope.sendmail.maildir import Maildir, MaildirMessageWriter, unique_name
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.headers import wire
from zope.sendmail.system.clock import Clock
from zope.sendmail.system.forklock import ForkLock
from zope.sendmail.transports.envelopefields import with_envelope
from zope.sendmail.transports.onemailcalls import OneMailCalls

#: The path that means standard output.
STDOUT = "-"

#: How often a locked mbox is tried, and the seconds in between: mail readers hold the lock for a moment only.
_TRIES, _BETWEEN = 50, 0.1

#: What a place may raise.
_TROUBLE = (OSError, ValueError, mailbox.Error)

#: What a terminal would obey; line ends and tabs are left.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")

_stdout_mutex = ForkLock()


class FileFormat(StrEnum):
    """How mails lie at the path of a `FileMailer`."""

    #: A Maildir; each mail is a file ``new/<unique name>.eml``.
    MAILDIR = "maildir"
    #: One file, one mail behind the other.
    MBOX = "mbox"


@implementer(ISessionMailer)
class FileMailer(OneMailCalls):
    """A mailer that writes mail to `path`, which is made if it is not there.

    The path ``-`` is standard output, for reading only.
    """

    clock: Clock = Clock()
    #: A processor writes one mail after the other, so they lie in their order and no process waits for a lock.
    connections: int | None = 1

    def __init__(self, path: str, format: FileFormat | str = FileFormat.MAILDIR, *, clock: Clock | None = None) -> None:
        self.path = path
        self.format = FileFormat(format)
        if clock is not None:
            self.clock = clock

    def open_session(self) -> ISession:
        """See `ISessionMailer`."""
        return FileSession(self._place())

    def _place(self) -> _Place:
        if self.path == STDOUT:
            return _Console()
        return _MboxPlace(self.path, self.clock) if self.format is FileFormat.MBOX else _MaildirPlace(self.path)


class _Place(Protocol):
    """Where mails are put."""

    name: str

    def check(self) -> None:
        """Raise `OSError`, `ValueError` or ``mailbox.Error`` if nothing can be put there."""

    def put(self, envelope: Envelope, text: bytes, intend: Callable[[], None]) -> str:
        """Put one mail there; return where it is.  Raises as `check` does."""


@implementer(ISession)
class FileSession:
    """See `ISession`."""

    def __init__(self, place: _Place) -> None:
        self._place = place

    @property
    def relay(self) -> str:
        """See `ISession`: the place."""
        return self._place.name

    def verify(self, envelope: Envelope, message: BinaryIO | None = None) -> Outcome:
        """See `ISession`."""

        try:
            self._place.check()
        except _TROUBLE as error:
            return self._fault(error)
        return Outcome.same(self.relay, envelope.recipients, Reply(Answer.ACCEPTED, "it can be written"))

    def transfer(self, envelope: Envelope, message: BinaryIO, intend: Callable[[], None]) -> Outcome:
        """See `ISession`."""
        text = with_envelope(b"".join(wire(message)).replace(b"\r\n", b"\n"), envelope, "X-Envelope")
        stopped: list[BaseException] = []

        def intend_or_stop() -> None:
            try:
                intend()
            except BaseException as error:
                stopped.append(error)
                raise

        try:
            words = self._place.put(envelope, text, intend_or_stop)
        except _TROUBLE as error:
            if stopped:  # a lost lease is an OSError as well, but says nothing about the place
                raise
            return self._fault(error)
        return Outcome.same(self.relay, envelope.recipients, Reply(Answer.ACCEPTED, words))

    def rest(self) -> None:
        """See `ISession`."""

    def close(self) -> None:
        """See `ISession`."""

    def _fault(self, error: Exception) -> Outcome:
        return Outcome(self.relay, {}, Reply(Answer.DEFERRED, f"{self.relay} cannot be written: {error}"))


class _MaildirPlace:
    def __init__(self, path: str) -> None:
        self.name = f"maildir {path}"
        self._path = path

    def check(self) -> None:
        self._new_file().abort()

    def put(self, envelope: Envelope, text: bytes, intend: Callable[[], None]) -> str:
        writer = self._new_file()
        try:
            writer.write(text)
            writer.close()
            intend()
            return writer.commit()
        except BaseException:
            writer.abort()
            raise

    def _new_file(self) -> MaildirMessageWriter:
        path = Maildir(os.path.abspath(self._path), create=True).path
        name = f"{unique_name()}.eml"
        temporary = os.path.join(path, "tmp", name)
        fd = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        return MaildirMessageWriter(os.fdopen(fd, "wb"), temporary, os.path.join(path, "new", name))


class _MboxPlace:
    def __init__(self, path: str, clock: Clock) -> None:
        self.name = f"mbox {path}"
        self._path = path
        self._clock = clock

    def check(self) -> None:
        with self._locked():
            pass

    def put(self, envelope: Envelope, text: bytes, intend: Callable[[], None]) -> str:
        sender = printable(envelope.sender)
        author = sender if sender and " " not in sender else "MAILER-DAEMON"
        line = f"From {author} {time.asctime(time.gmtime(self._clock.time()))}\n"
        with self._locked() as box:
            intend()
            box.add(line.encode() + text)
        return f"appended to {self._path}"

    @contextlib.contextmanager
    def _locked(self) -> Iterator[mailbox.mbox]:
        os.makedirs(os.path.dirname(os.path.abspath(self._path)), mode=0o700, exist_ok=True)
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # private; refused if not ours
        box = mailbox.mbox(self._path)
        try:
            self._lock(box)
            yield box
        finally:
            box.close()  # writes, and unlocks

    def _lock(self, box: mailbox.mbox) -> None:
        for tries in range(_TRIES):  # pragma: no branch - the last of them raises, or has locked it
            try:
                box.lock()
            except mailbox.ExternalClashError:
                if tries == _TRIES - 1:
                    raise
                self._clock.sleep(_BETWEEN)
            else:
                return


class _Console:
    name = "standard output"

    def check(self) -> None:
        """Do nothing: a terminal takes everything."""

    def put(self, envelope: Envelope, text: bytes, intend: Callable[[], None]) -> str:
        shown = _CONTROLS.sub("?", text.decode("utf-8", "backslashreplace"))
        encoding = sys.stdout.encoding or "utf-8"
        shown = shown.encode(encoding, "backslashreplace").decode(encoding)
        intend()
        with _stdout_mutex:
            sys.stdout.write(f"{'-' * 72}\n{shown}\n")
            sys.stdout.flush()
        return "shown"
