"""One mail over a connection: runs a `Dialogue` over a `Channel`.

What became known stands in a `Progress`, whatever is raised; the errors are smtplib's.  The message is read in pieces.
"""

from __future__ import annotations

from collections.abc import Callable
from smtplib import SMTP

from zope.sendmail.settings import RelaySettings
from zope.sendmail.smtp.body import Body
from zope.sendmail.smtp.channel import Channel, open_channel
from zope.sendmail.smtp.commands import NotSpeakable, Offers, Speech
from zope.sendmail.smtp.dialogue import Dialogue
from zope.sendmail.smtp.errors import as_smtplib_tells
from zope.sendmail.smtp.progress import Progress
from zope.sendmail.smtp.replies import MalformedReply, Response
from zope.sendmail.smtp.steps import (
    MAX_FLIGHT,
    Broken,
    Gone,
    Intend,
    Look,
    Manner,
    Phase,
    Receive,
    Refused,
    Send,
    Steps,
    choose_manner,
)


class Line:
    """A connection with what is known about it.  `patient`: believe nothing that the relay offers for speed."""

    def __init__(self, connection: SMTP, settings: RelaySettings, *, patient: bool) -> None:
        self._channel: Channel = open_channel(connection)
        self._settings = settings
        offers = Offers.of(connection.esmtp_features)
        self._offers = offers.one_by_one() if patient or not self._channel.pipelines else offers
        self._has_taken = False

    def is_quiet(self) -> bool:
        """See `Channel`."""
        return self._channel.is_quiet()

    def deliver(self, progress: Progress, body: Body, intend: Callable[[], None], *, fresh: bool) -> None:
        """Send one mail; `intend` is called before its last piece.  `fresh`: the last one was a moment ago."""
        fits = body.whole is not None and len(progress.envelope.recipients) + 2 <= MAX_FLIGHT
        manner = choose_manner(self._offers, fits=fits, proven=self._has_taken and fresh)
        self._run(self._dialogue(progress, manner).deliver(body), progress, intend)
        self._has_taken = True

    def prove(self, progress: Progress, body: Body | None) -> None:
        """Ask the relay about the mail without sending it."""
        self._run(self._dialogue(progress, self._careful()).prove(body), progress)

    def reset(self, progress: Progress) -> None:
        """Let the relay forget this mail."""
        self._run(self._dialogue(progress, self._careful()).reset(), progress)

    def _careful(self) -> Manner:
        return choose_manner(self._offers, fits=False, proven=False)

    def _dialogue(self, progress: Progress, manner: Manner) -> Dialogue:
        speech = Speech(progress.envelope, self._offers, self._settings.notify)
        return Dialogue(speech, progress, manner, proven=self._has_taken)

    def _run(self, steps: Steps, progress: Progress, intend: Callable[[], None] = lambda: None) -> None:
        try:
            run(steps, self._channel, self._seconds, intend)
        except (Gone, NotSpeakable, Refused) as error:
            raise as_smtplib_tells(error, progress) from error

    def _seconds(self, phase: str) -> float:
        seconds: float = getattr(self._settings.timeouts, phase)
        return seconds


def run(steps: Steps, channel: Channel, seconds: Callable[[str], float], intend: Callable[[], None]) -> None:
    """Do what a dialogue asks for, until it ends.  Raises what it raises, and what `intend` raises."""
    response: Response | None = None
    gone: Gone | None = None
    while True:
        try:
            step = steps.send(response) if gone is None else steps.throw(gone)
        except StopIteration:
            return
        response = gone = None
        if isinstance(step, Intend):
            intend()
            continue
        try:
            response = _do(step, channel, seconds)
        except Gone as error:
            gone = error
        except (OSError, MalformedReply) as error:
            gone = _gone(step, error)
            gone.__cause__ = error


def _do(step: Send | Receive | Look, channel: Channel, seconds: Callable[[str], float]) -> Response | None:
    if isinstance(step, Look):
        return None if channel.is_quiet() else channel.receive(seconds(Phase.QUIT))
    if isinstance(step, Receive):
        return channel.receive(seconds(step.phase))
    if step.asks and channel.has_unasked():
        raise Gone("the relay said more than it was asked")
    (channel.ask if step.asks else channel.send)(step.data, seconds(step.phase))
    return None


def _gone(step: Send | Receive | Look, error: Exception) -> Gone:
    if isinstance(step, Send):
        return Broken(f"the connection broke while we were sending: {error}")
    return Gone(f"no reply came: {error}")
