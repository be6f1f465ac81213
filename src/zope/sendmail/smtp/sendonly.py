"""A session over a mailer that only has ``send()``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, BinaryIO

from zope.interface import implementer

from zope.sendmail.interfaces import ISession
from zope.sendmail.lifecycle.outcome import Answer, Outcome, Reply
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.headers import without_bcc
from zope.sendmail.smtp.classification import failed, succeeded
from zope.sendmail.smtp.protocol.progress import Progress, note_refused

_in_session = ContextVar("_in_session", default=False)


@contextlib.contextmanager
def _within_session() -> Iterator[None]:
    before = _in_session.set(True)
    try:
        yield
    finally:
        _in_session.reset(before)


def is_within_session() -> bool:
    """Say whether a mailer's ``send`` is called by a session, whose caller tells how the attempt went."""
    return _in_session.get()


@implementer(ISession)
class SendOnlySession:
    """See `ISession`.  The mailer's ``vote`` and ``abort`` are used if they are there.

    When the last byte goes is not known, so that is said before ``send`` is called.
    """

    def __init__(self, mailer: Any) -> None:
        self._mailer = mailer
        self._voted = False

    @property
    def relay(self) -> str:
        """See `ISession`: host and port if the mailer has them, else its class."""
        hostname, port = getattr(self._mailer, "hostname", None), getattr(self._mailer, "port", None)
        return f"{hostname}:{port}" if hostname and port else type(self._mailer).__name__

    def verify(self, envelope: Envelope, message: BinaryIO | None = None) -> Outcome:
        """See `ISession`.  A mailer that cannot vote is taken to agree."""
        progress = _progress(envelope, "the relay was not asked")
        vote = getattr(self._mailer, "vote", None)
        if vote is not None:
            self._voted = True
            try:
                vote(envelope.sender, envelope.recipients, _text(message))
            except Exception as error:  # noqa: BLE001 - a foreign mailer may raise anything
                return failed(self.relay, progress, error)
        return succeeded(self.relay, progress)

    def transfer(self, envelope: Envelope, message: BinaryIO, intend: Callable[[], None]) -> Outcome:
        """See `ISession`."""
        progress = _progress(envelope, "the mailer has sent it")
        text = _text(message)
        intend()
        progress.intended = True
        self._voted = False
        try:
            with _within_session():
                note_refused(progress, self._mailer.send(envelope.sender, envelope.recipients, text))
        except Exception as error:  # noqa: BLE001 - a foreign mailer may raise anything
            return failed(self.relay, progress, error)
        return succeeded(self.relay, progress)

    def rest(self) -> None:
        """Do nothing: no connection is kept."""

    def close(self) -> None:
        """Let the mailer forget what it had voted for."""
        abort = getattr(self._mailer, "abort", None)
        if self._voted and abort is not None:
            with contextlib.suppress(Exception):
                abort()
        self._voted = False


def _progress(envelope: Envelope, words: str) -> Progress:
    """Return the progress of a foreign mailer, which is unknown: perhaps it connects, and all are accepted."""
    accepted = dict.fromkeys(envelope.recipients, Reply(Answer.ACCEPTED, words))
    return Progress(envelope, opened=True, accepted=accepted)


def _text(message: BinaryIO | None) -> bytes:
    return b"" if message is None else without_bcc(message.read())
