"""Mails over a connection: runs each `Dialogue` over a `Channel`.

What became known stands in the `Progress` of each, whatever is raised; the errors are smtplib's.  A message is read in
pieces.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from smtplib import LMTP, SMTP
from typing import BinaryIO

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
    Follow,
    Given,
    Gone,
    Intend,
    Look,
    Manner,
    Phase,
    Receive,
    Refused,
    Rider,
    Send,
    Steps,
    choose_manner,
)


class Errand:
    """One mail on its way: what is to be said, and how far it came."""

    def __init__(self, progress: Progress, message: BinaryIO, intend: Callable[[], None]) -> None:
        self.progress = progress
        self.message = message
        #: Called before the last piece; what it raises stops the mail.
        self.intend = intend
        self.body = Body(message)
        #: What it says behind the mail before, on the same connection.
        self.prepared: Dialogue | None = None


#: Gives the mail that may ride with the end of the one in hand, prepared for the same line; None: nobody does.
Next = Callable[[], Errand | None]


class Line:
    """A connection with what is known about it.  `patient`: believe nothing that the relay offers for speed."""

    def __init__(self, connection: SMTP, settings: RelaySettings, *, patient: bool) -> None:
        self._channel: Channel = open_channel(connection)
        self._settings = settings
        self._answers_each = isinstance(connection, LMTP)
        offers = Offers.of(connection.esmtp_features)
        if self._answers_each:  # after a chunk it would say more than `Dialogue` listens for
            offers = replace(offers, chunking=False)
        self._offers = offers.one_by_one() if patient or not self._channel.pipelines else offers
        self._has_taken = False

    def is_quiet(self) -> bool:
        """See `Channel`."""
        return self._channel.is_quiet()

    def deliver(self, errand: Errand, follow: Next, *, fresh: bool) -> None:
        """Send one mail.  `follow` is called before its last piece, if another one could ride; `fresh`: the last one
        was a moment ago.
        """
        progress = errand.progress
        dialogue, errand.prepared = errand.prepared, None
        if dialogue is None or not progress.riding:
            fits = errand.body.whole is not None and len(progress.envelope.recipients) + 2 <= MAX_FLIGHT
            manner = choose_manner(self._offers, fits=fits, proven=self._has_taken and fresh)
            dialogue = self._dialogue(progress, manner)

        def follow_prepared() -> Rider | None:
            rider = follow()
            return None if rider is None else rider.prepared

        self._run(dialogue.deliver(errand.body), progress, errand.intend, follow_prepared)
        self._has_taken = True

    def prepare(self, errand: Errand) -> None:
        """Make a mail ready to ride.  Raises smtplib's errors, and what reading the message raises."""
        dialogue = self._dialogue(errand.progress, Manner.PIPELINED)
        try:
            dialogue.prepare(errand.body)
        except (NotSpeakable, Refused) as error:
            raise as_smtplib_tells(error, errand.progress) from error
        errand.prepared = dialogue

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
        return Dialogue(speech, progress, manner, proven=self._has_taken, answers_each=self._answers_each)

    def _run(
        self,
        steps: Steps,
        progress: Progress,
        intend: Callable[[], None] = lambda: None,
        follow: Callable[[], Rider | None] = lambda: None,
    ) -> None:
        try:
            run(steps, self._channel, self._seconds, intend, follow)
        except (Gone, NotSpeakable, Refused) as error:
            raise as_smtplib_tells(error, progress) from error

    def _seconds(self, phase: str) -> float:
        seconds: float = getattr(self._settings.timeouts, phase)
        return seconds


def run(
    steps: Steps,
    channel: Channel,
    seconds: Callable[[str], float],
    intend: Callable[[], None],
    follow: Callable[[], Rider | None] = lambda: None,
) -> None:
    """Do what a dialogue asks for, until it ends.  Raises what it raises, and what `intend` and `follow` raise."""
    given: Given = None
    gone: Gone | None = None
    while True:
        try:
            step = steps.send(given) if gone is None else steps.throw(gone)
        except StopIteration:
            return
        given = gone = None
        if isinstance(step, Intend):
            intend()
        elif isinstance(step, Follow):
            given = follow()
        else:
            try:
                given = _do(step, channel, seconds)
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
    if step.asks:
        channel.ask(step.data, seconds(step.phase))
    else:
        channel.send(step.data, seconds(step.phase), more=step.more)
    return None


def _gone(step: Send | Receive | Look, error: Exception) -> Gone:
    if isinstance(step, Send):
        return Broken(f"the connection broke while we were sending: {error}")
    return Gone(f"no reply came: {error}")
