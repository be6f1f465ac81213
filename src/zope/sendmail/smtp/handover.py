"""One mail over a connection that is not smtplib's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, BinaryIO

from zope.sendmail.headers import without_bcc
from zope.sendmail.outcome import Answer, Reply
from zope.sendmail.smtp.progress import Progress, note_refused


class Handover:
    """One mail over something that knows ``sendmail`` only: most often a fake of somebody's tests."""

    def __init__(self, connection: Any, progress: Progress) -> None:
        self._connection = connection
        self._progress = progress

    def mail(self, message: BinaryIO | None) -> None:
        """Nothing: ``sendmail`` does it."""

    def recipients(self) -> None:
        """Nothing is known about them until ``sendmail``."""
        unasked = Reply(Answer.ACCEPTED, "the relay was not asked")
        self._progress.accepted = dict.fromkeys(self._progress.envelope.recipients, unasked)

    def content(self, message: BinaryIO, intend: Callable[[], None]) -> None:
        """Everything at once."""
        envelope, progress = self._progress.envelope, self._progress
        text = without_bcc(message.read())
        intend()
        progress.intended = True
        note_refused(progress, self._connection.sendmail(envelope.sender, list(envelope.recipients), text))

    def reset(self) -> None:
        """Nothing: each ``sendmail`` begins anew."""
