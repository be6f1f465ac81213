"""One mail over a connection that is not smtplib's."""

from __future__ import annotations

import io
import smtplib
from collections.abc import Callable
from typing import Any, BinaryIO

from zope.sendmail.lifecycle.outcome import Answer, Reply
from zope.sendmail.message.headers import without_bcc
from zope.sendmail.smtp.protocol.progress import Progress, note_refused


class Given(io.BytesIO):
    """A message that came by itself, not from a queue: a connection of this kind gets it as it was given, str or bytes,
    and its recipients in a list if they came so.
    """

    def __init__(self, content: bytes, *, as_text: bool, in_list: bool) -> None:
        super().__init__(content)
        self.as_text = as_text
        self.in_list = in_list


class SendmailCall:
    """A connection that knows ``sendmail`` only: most often a fake of somebody's tests."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def deliver(self, progress: Progress, message: BinaryIO, intend: Callable[[], None]) -> None:
        """Everything at once."""
        self.prove(progress)
        envelope = progress.envelope
        content = without_bcc(message.read())
        given = message if isinstance(message, Given) else None
        text = content.decode("utf-8") if given and given.as_text else content
        recipients = list(envelope.recipients) if given and given.in_list else envelope.recipients
        intend()
        progress.intended = True
        try:
            refused = self._connection.sendmail(envelope.sender, recipients, text)
        except smtplib.SMTPException:
            raise
        except OSError as error:  # there was a connection: it broke, whatever the error would mean before
            raise smtplib.SMTPServerDisconnected(f"the connection broke: {error}") from error
        note_refused(progress, refused)

    def prove(self, progress: Progress) -> None:
        """Nothing is known about the recipients until ``sendmail``."""
        unasked = Reply(Answer.ACCEPTED, "the relay was not asked")
        progress.accepted = dict.fromkeys(progress.envelope.recipients, unasked)
