"""Mails over a connection that is not smtplib's."""

from __future__ import annotations

import io
import smtplib
from typing import Any

from zope.sendmail.lifecycle.outcome import Answer, Reply
from zope.sendmail.message.headers import without_bcc
from zope.sendmail.smtp.onemail import Attempt
from zope.sendmail.smtp.protocol.body import Body
from zope.sendmail.smtp.protocol.progress import Progress, note_refused
from zope.sendmail.smtp.protocol.steps import Intend, Overlapping, Request, StepAnswer, Steps

_INTEND = Intend()


class OriginalMessage(io.BytesIO):
    """A message that came by itself, not from a queue: `SendmailConnection` passes it on as it was given, str or bytes,
    and its recipients in a list if they came so.
    """

    def __init__(self, content: bytes, *, as_text: bool, in_list: bool) -> None:
        super().__init__(content)
        self.as_text = as_text
        self.in_list = in_list


class SendmailConnection:
    """See `RelayConnection`: a connection that knows ``sendmail`` only, most often a fake of a test."""

    takes_overlap = False

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def is_quiet(self) -> bool:
        """See `RelayConnection`; that turns out with the next mail."""
        return True

    def deliver(self, attempt: Attempt) -> Steps:
        """See `RelayConnection`: everything at once."""
        progress, message = attempt.progress, attempt.message
        yield from self.verify(progress, None)
        envelope = progress.envelope
        content = without_bcc(message.read())
        given = message if isinstance(message, OriginalMessage) else None
        text = content.decode("utf-8") if given and given.as_text else content
        recipients = list(envelope.recipients) if given and given.in_list else envelope.recipients
        yield _INTEND
        progress.intended = True
        try:
            refused = self._connection.sendmail(envelope.sender, recipients, text)
        except smtplib.SMTPException:
            raise
        except OSError as error:  # there was a connection: it broke, whatever the error would mean before
            raise smtplib.SMTPServerDisconnected(f"the connection broke: {error}") from error
        note_refused(progress, refused)

    def verify(self, progress: Progress, body: Body | None) -> Steps:
        """See `RelayConnection`; nothing is known about the recipients until ``sendmail``."""
        unasked = Reply(Answer.ACCEPTED, "the relay was not asked")
        progress.accepted = dict.fromkeys(progress.envelope.recipients, unasked)
        yield from ()

    def reset(self) -> Steps:
        """See `RelayConnection`: each mail is a transaction of its own."""
        yield from ()

    def prepare(self, attempt: Attempt) -> Overlapping | None:
        """See `RelayConnection`."""
        return None

    def resume(self, steps: Steps, answer: StepAnswer, progress: Progress) -> Request | None:
        """See `RelayConnection`."""
        try:
            step: Any = steps.send(answer)
        except StopIteration:
            return None
        request: Request = step
        return request
