"""Mails over a connection: runs each `Dialogue` over a `Channel`.

What became known stands in the `Progress` of each, whatever is raised; the errors are smtplib's.  A message is read in
pieces.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from smtplib import LMTP, SMTP
from typing import BinaryIO, Protocol

from zope.sendmail.config.settings import RelaySettings
from zope.sendmail.smtp.channel import Channel, open_channel
from zope.sendmail.smtp.protocol.body import Body
from zope.sendmail.smtp.protocol.commands import NotSpeakable, Offers, Speech
from zope.sendmail.smtp.protocol.progress import Progress
from zope.sendmail.smtp.protocol.replies import MalformedReply, Response
from zope.sendmail.smtp.protocol.steps import (
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
    Spare,
    Step,
    Steps,
    choose_manner,
)
from zope.sendmail.smtp.protocol.transaction import MailTransaction
from zope.sendmail.smtp.smtperrors import as_smtplib_tells


class Attempt:
    """One mail on its way: what is to be said, and how far it came."""

    def __init__(self, progress: Progress, message: BinaryIO, intend: Callable[[], None]) -> None:
        self.progress = progress
        self.message = message
        #: Called before the last piece; what it raises stops the mail.
        self.intend = intend
        self.body = Body(message)
        #: What it has to say, and on which line.
        self.prepared: MailTransaction | None = None
        self.line: Connection | None = None

    def board(self) -> Steps:
        """See `Rider`."""
        assert self.prepared is not None, "prepare comes first"
        return self.prepared.board()


class Following(Protocol):
    """Where the mail behind the one in hand comes from.  Raises nothing: that one has nothing to do with it."""

    def rider(self) -> Attempt | None:
        """The mail that may ride with the end of the one in hand, prepared for the same line; None: nobody does."""

    def spare(self) -> None:
        """The one in hand has gone, and its reply is awaited: the time to prepare the next one."""


class Connection:
    """A connection with what is known about it.  `patient`: believe nothing that the relay offers for speed."""

    def __init__(self, connection: SMTP, settings: RelaySettings, *, patient: bool) -> None:
        self._channel: Channel = open_channel(connection)
        self._notify = settings.notify
        self._seconds: Callable[[str], float] = functools.partial(getattr, settings.timeouts)
        self._answers_each = isinstance(connection, LMTP)
        offers = Offers.of(connection.esmtp_features)
        if self._answers_each:  # after a chunk it would say more than `Dialogue` listens for
            offers = replace(offers, chunking=False)
        self._offers = offers.one_by_one() if patient or not self._channel.pipelines else offers
        self._has_taken = False

    def is_quiet(self) -> bool:
        """See `Channel`."""
        return self._channel.is_quiet()

    def deliver(self, attempt: Attempt, following: Following, *, fresh: bool) -> None:
        """Send one mail.  `following` gives who is next; `fresh`: the last one was a moment ago."""
        progress, proven = attempt.progress, self._has_taken and fresh
        dialogue = attempt.prepared if attempt.line is self else None
        attempt.prepared = None
        if dialogue is None or not (proven or progress.riding):  # what is prepared counts on the mail before
            dialogue = self._dialogue(progress, self._manner(attempt, proven=proven))
        self._run(dialogue.deliver(attempt.body), progress, attempt.intend, following.rider, following.spare)
        self._has_taken = True

    def prepare(self, attempt: Attempt, *, rides: bool) -> None:
        """Make a mail ready to ride, or to go when the one in hand has gone well.

        Raises smtplib's errors, and what reading the message raises.
        """
        manner = Manner.PIPELINED if rides else self._manner(attempt, proven=True)
        dialogue = self._dialogue(attempt.progress, manner)
        try:
            dialogue.prepare(attempt.body)
        except (NotSpeakable, Refused) as error:
            raise as_smtplib_tells(error, attempt.progress) from error
        attempt.prepared, attempt.line = dialogue, self

    def prove(self, progress: Progress, body: Body | None) -> None:
        """Ask the relay about the mail without sending it."""
        self._run(self._dialogue(progress, self._careful()).prove(body), progress)

    def reset(self, progress: Progress) -> None:
        """Let the relay forget this mail."""
        self._run(self._dialogue(progress, self._careful()).reset(), progress)

    def _manner(self, attempt: Attempt, *, proven: bool) -> Manner:
        fits = attempt.body.whole is not None and len(attempt.progress.envelope.recipients) + 2 <= MAX_FLIGHT
        return choose_manner(self._offers, fits=fits, proven=proven)

    def _careful(self) -> Manner:
        return choose_manner(self._offers, fits=False, proven=False)

    def _dialogue(self, progress: Progress, manner: Manner) -> MailTransaction:
        speech = Speech(progress.envelope, self._offers, self._notify)
        return MailTransaction(speech, progress, manner, proven=self._has_taken, answers_each=self._answers_each)

    def _run(
        self,
        steps: Steps,
        progress: Progress,
        intend: Callable[[], None] = lambda: None,
        rider: Callable[[], Rider | None] = lambda: None,
        spare: Callable[[], None] = lambda: None,
    ) -> None:
        try:
            run(steps, self._channel, self._seconds, intend, rider, spare)
        except (Gone, NotSpeakable, Refused) as error:
            raise as_smtplib_tells(error, progress) from error


def run(  # noqa: PLR0917 - the channel with its times, and what is asked of the caller
    steps: Steps,
    channel: Channel,
    seconds: Callable[[str], float],
    intend: Callable[[], None],
    rider: Callable[[], Rider | None] = lambda: None,
    spare: Callable[[], None] = lambda: None,
) -> None:
    """Do what a dialogue asks for, until it ends.

    Raises what it raises, and what `intend`, `rider` and `spare` raise.
    """
    asked: dict[type, Callable[[], Given]] = {Intend: intend, Follow: rider, Spare: spare}
    resume: Callable[[Given], Step] = steps.send
    given: Given = None
    while True:
        try:
            step = resume(given)
        except StopIteration:
            return
        resume = steps.send
        if (ask := asked.get(type(step))) is not None:
            given = ask()
            continue
        try:
            if isinstance(step, Receive):
                given = channel.receive(seconds(step.phase))
            else:
                given = _do(step, channel, seconds)
        except Gone as gone:
            resume, given = steps.throw, gone
        except (OSError, MalformedReply) as error:
            resume, given = steps.throw, _gone(step, error)


def _do(step: Step, channel: Channel, seconds: Callable[[str], float]) -> Response | None:
    if isinstance(step, Look):
        return None if channel.is_quiet() else channel.receive(seconds(Phase.QUIT))
    assert isinstance(step, Send)
    if step.asks and channel.has_unasked():
        raise Gone("the relay said more than it was asked")
    if step.asks:
        channel.ask(step.data, seconds(step.phase))
    else:
        channel.send(step.data, seconds(step.phase), more=step.more)
    return None


def _gone(step: Step, error: Exception) -> Gone:
    if isinstance(step, Send):
        gone: Gone = Broken(f"the connection broke while we were sending: {error}")
    else:
        gone = Gone(f"no reply came: {error}")
    gone.__cause__ = error
    return gone
