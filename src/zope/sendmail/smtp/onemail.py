"""One mail on its way to a relay, and what a session needs of the connection that it goes over."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import BinaryIO, Protocol

from zope.sendmail.smtp.protocol.body import Body
from zope.sendmail.smtp.protocol.progress import Progress
from zope.sendmail.smtp.protocol.steps import Overlapping, Request, StepAnswer, Steps


class Attempt:
    """One attempt at one mail: the message, and how far it came.

    :param intend: called before the last piece of the message; what it raises stops the mail
    """

    #: Whether the message has gone, and only its reply is to be heard.
    is_gone = False

    def __init__(self, progress: Progress, message: BinaryIO, intend: Callable[[], None]) -> None:
        self.progress = progress
        self.message = message
        self.intend = intend
        self.body = Body(message)

    def steps(self, connection: RelayConnection) -> Steps:
        """Return what is to be done over `connection`."""
        return connection.deliver(self)


class Verification(Attempt):
    """The question whether a relay would take a mail."""

    def __init__(self, progress: Progress, message: BinaryIO | None) -> None:
        super().__init__(progress, BytesIO() if message is None else message, _not_sent)
        self._has_message = message is not None

    def steps(self, connection: RelayConnection) -> Steps:
        """See `Attempt`."""
        return connection.verify(self.progress, self.body if self._has_message else None)


def _not_sent() -> None:
    """Do nothing: no message is sent."""


class Following(Protocol):
    """The mails behind the one in hand.  Its methods raise nothing: the mail in hand has nothing to do with them."""

    def take_next(self) -> Overlapping | None:
        """Return the mail whose envelope goes with the end of the one in hand; None: there is none."""

    def read_ahead(self) -> None:
        """Prepare the next mail: the one in hand has gone, and its reply is awaited."""

    def meanwhile(self) -> None:
        """Do what else is to be done, as `IJobSource` says: an ordinary mail has gone, and its reply is awaited."""


class Alone:
    """See `Following`: no mail is behind the one in hand."""

    def take_next(self) -> Overlapping | None:
        """See `Following`."""
        return None

    def read_ahead(self) -> None:
        """See `Following`."""

    def meanwhile(self) -> None:
        """See `Following`."""


class RelayConnection(Protocol):
    """An open connection to a relay, greeted, encrypted and logged in."""

    #: Whether the relay is known to stand an envelope that goes with the end of the mail before.
    takes_overlap: bool

    def is_quiet(self) -> bool:
        """Return whether the connection is open, and the relay has said no more than it was asked."""

    def deliver(self, attempt: Attempt) -> Steps:
        """Return the steps that send a mail; they go on with what `prepare` has made for this attempt.

        Raises smtplib's errors if there is nothing to ask the relay, and what reading the message raises.
        """

    def verify(self, progress: Progress, body: Body | None) -> Steps:
        """Return the steps that ask about an envelope; afterwards a `reset` is due.  Raises as `deliver` does."""

    def reset(self) -> Steps:
        """Return the steps that let the relay forget a mail."""

    def prepare(self, attempt: Attempt) -> Overlapping | None:
        """Make ready what `deliver` sends first, and return that; None if this connection cannot.

        Raises smtplib's errors, and what reading the message raises.
        """

    def resume(self, steps: Steps, answer: StepAnswer, progress: Progress) -> Request | None:
        """Do one step after the other until one is a request to the session; None: they are done.

        :param answer: what the last request is answered with; None at first
        :raises smtplib.SMTPException: the relay refused, or the connection was lost
        """
