"""A conversation with one relay: the connection is made when it is needed, kept between mails, and thrown
away after any error.

Concurrency: one thread at a time.
"""

from __future__ import annotations

import smtplib
from collections.abc import Callable, Iterator
from smtplib import SMTP
from typing import Any, BinaryIO

from zope.interface import implementer

from zope.sendmail.config.settings import RelaySettings
from zope.sendmail.interfaces import IJob, IJobSource, IStreamingSession
from zope.sendmail.lifecycle.outcome import Outcome
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.smtp.classification import RELAY_CODES, failed, succeeded
from zope.sendmail.smtp.connect import drop, hang_up
from zope.sendmail.smtp.connection import Attempt, Connection, Following
from zope.sendmail.smtp.pipeline import Result, Stream
from zope.sendmail.smtp.protocol.body import Body
from zope.sendmail.smtp.protocol.progress import Progress, reply_from
from zope.sendmail.smtp.sendmailcall import SendmailCall
from zope.sendmail.system.clock import Clock
from zope.sendmail.system.gilbaton import baton

#: The relay said no and meant the mail: the connection may go on.
_REFUSALS = (smtplib.SMTPSenderRefused, smtplib.SMTPRecipientsRefused, smtplib.SMTPDataError)

#: How long a relay that broke its promises is asked one command at a time, and one that lost a mail right behind
#: another gets none so.
_PATIENCE = 3600.0

#: A connection that was used so many seconds ago is alive: relays wait for minutes (RFC 5321, 4.5.3.2.7).
_A_MOMENT = 2.0

#: A relay that took longer for the last mail is slow: the next one does not wait behind a mail in hand, since another
#: connection may be free for it.
_SLOW = 1.0


class _Nobody:
    """See `Following`."""

    def rider(self) -> Attempt | None:
        """Nobody rides."""
        return None

    def spare(self) -> None:
        """Nobody comes."""


_NOBODY = _Nobody()


@implementer(IStreamingSession)
class SMTPSession:
    """See `IStreamingSession`.

    `settings` is called before each mail; if it gives something new, the connection is made anew.  `connect`
    makes connections from settings and raises what smtplib raises.
    """

    def __init__(
        self, settings: Callable[[], RelaySettings], connect: Callable[[RelaySettings], Any], clock: Clock
    ) -> None:
        self._settings = settings
        self._connect = connect
        self._clock = clock
        #: The connection, or None.
        self.connection: Any = None
        self._line: Connection | SendmailCall = SendmailCall(None)
        self._patient_until = self._no_rides_until = float("-inf")
        #: The mail that rode with the end of the last one, or was about to.
        self._aboard: Progress | None = None
        self._used_settings = RelaySettings()
        self._relay = ""
        self._opened_at = self._used_at = 0.0
        #: Seconds that the last mail over this connection took.
        self._took = float("inf")
        self._mails = 0

    @property
    def relay(self) -> str:
        """See `ISession`."""
        try:
            return str(self._settings())
        except Exception:  # noqa: BLE001 - who says them may be anybody's code
            return "a relay whose settings are wrong"

    def verify(self, envelope: Envelope, message: BinaryIO | None = None) -> Outcome:
        """See `ISession`.  Without the message the relay is not asked about its size."""
        progress = Progress(envelope)
        try:
            self.prove(progress, message)
        except Exception as error:  # noqa: BLE001 - all that is not of the relay is raised
            return self._verdict(progress, error)
        return succeeded(self._relay, progress)

    def transfer(self, envelope: Envelope, message: BinaryIO, intend: Callable[[], None]) -> Outcome:
        """See `ISession`.  `message` must be seekable; what reading it raises is raised."""
        return self.carry(Attempt(Progress(envelope), message, intend), _NOBODY)

    def stream(self, jobs: IJobSource) -> Iterator[tuple[IJob, Result]]:
        """See `IStreamingSession`.  Mails ride where the relay offers PIPELINING without CHUNKING; chunks need none."""
        return Stream(self, jobs).results()

    def prove(self, progress: Progress, message: BinaryIO | None = None) -> None:
        """`verify` that raises what smtplib raises."""
        body = None if message is None else Body(message)

        def prove(line: Connection | SendmailCall) -> None:
            if isinstance(line, SendmailCall):
                line.prove(progress)
            else:
                line.prove(progress, body)

        self._speak(progress, prove)

    def deliver(self, progress: Progress, message: BinaryIO, intend: Callable[[], None]) -> None:
        """`transfer` that raises what smtplib raises; who was refused stands in `progress` afterwards."""
        self._deliver(Attempt(progress, message, intend), _NOBODY)

    def rest(self) -> None:
        """See `ISession`."""
        keep = self._used_settings.keep
        now = self._clock.monotonic()
        if now - self._used_at >= keep.idle or now - self._opened_at >= keep.age:
            self.close()

    def close(self) -> None:
        """See `ISession`."""
        self.part()
        connection, self.connection = self.connection, None
        if connection is not None:
            hang_up(connection, self._used_settings.timeouts.quit)

    def drop(self) -> None:
        """Close without QUIT."""
        self._aboard = None
        connection, self.connection = self.connection, None
        if connection is not None:
            drop(connection)

    # a mail in a stream; see `zope.sendmail.smtp.pipeline.Carrier`

    def carry(self, attempt: Attempt, following: Following) -> Outcome:
        """Send one mail; `following` gives who is next."""
        try:
            self._deliver(attempt, following)
        except Exception as error:  # noqa: BLE001 - all that is not of the relay is raised
            return self._verdict(attempt.progress, error)
        return succeeded(self._relay, attempt.progress)

    def may_ride(self) -> bool:
        """Whether the connection is good for one more mail behind the one in hand."""
        try:
            return (
                self._clock.monotonic() >= self._no_rides_until
                and self._is_young(self._mails + 1)
                and self._settings() == self._used_settings
            )
        except Exception:  # noqa: BLE001 - nobody's settings can be had, which the next mail's outcome will say
            return False

    def take_along(self, attempt: Attempt) -> None:
        """Prepare a mail for riding.  Raises smtplib's errors, and what reading the message raises."""
        assert isinstance(self._line, Connection)
        self._line.prepare(attempt, rides=True)
        self._aboard = attempt.progress

    def is_quick(self) -> bool:
        """Whether the relay answers so soon that the next mail may wait here for its turn."""
        return self._took < _SLOW

    def prepare(self, attempt: Attempt) -> None:
        """Prepare a mail for its turn.  Raises smtplib's errors, and what reading the message raises."""
        assert isinstance(self._line, Connection)
        self._line.prepare(attempt, rides=False)

    def part(self) -> None:
        """Nobody goes on with what has ridden: the relay waits for a text, so the connection is of no use."""
        if self._has_rider():
            self.drop()

    def _has_rider(self) -> bool:
        return self._aboard is not None and self._aboard.riding

    def _deliver(self, attempt: Attempt, following: Following) -> None:
        def deliver(line: Connection | SendmailCall) -> None:
            begin = self._clock.monotonic()
            if isinstance(line, SendmailCall):
                line.deliver(attempt.progress, attempt.message, attempt.intend)
            else:
                line.deliver(attempt, following, fresh=begin - self._used_at < _A_MOMENT)
                self._took = self._clock.monotonic() - begin

        self._speak(attempt.progress, deliver)
        self._mails += 1

    def _verdict(self, progress: Progress, error: Exception) -> Outcome:
        if progress.opened and not progress.intended and not isinstance(error, smtplib.SMTPException):
            raise error  # the message could not be read, or must not be sent
        return failed(self._relay if progress.opened else self.relay, progress, error)

    def _reset(self, progress: Progress, error: smtplib.SMTPException) -> None:
        if self.connection is None:
            return
        try:
            if progress.out_of_step or _is_leaving(error):
                self.drop()
            elif isinstance(self._line, Connection) and not self._has_rider():
                self._line.reset(progress)
        except smtplib.SMTPException:
            self.drop()

    def _speak(self, progress: Progress, speak: Callable[[Connection | SendmailCall], None]) -> None:
        """Afterwards the connection is ready for the next mail, or it is gone (7.3 kept dead ones for ever)."""
        try:
            self._speak_once_or_twice(progress, speak)
        except _REFUSALS as error:
            self._reset(progress, error)
            raise
        except BaseException:
            self.drop()
            raise
        finally:
            if progress.broken_promise:
                self._patient_until = self._clock.monotonic() + _PATIENCE
        if progress.out_of_step:
            self.drop()
        self._used_at = self._clock.monotonic()

    def _speak_once_or_twice(self, progress: Progress, speak: Callable[[Connection | SendmailCall], None]) -> None:
        """On the connection at hand or, if that turns out to be dead, on a new one."""
        if self._rides(progress) or self._is_usable():
            self._begin(progress)
            try:
                speak(self._line)
            except smtplib.SMTPException as error:
                if not self._may_start_over(progress, error):
                    raise
            else:
                return
            self.drop()
            progress.start_over()
        self._open(patient=progress.broken_promise)
        self._begin(progress)
        speak(self._line)

    def _begin(self, progress: Progress) -> None:
        progress.opened, progress.logged_in = True, self._used_settings.logs_in

    def _rides(self, progress: Progress) -> bool:
        """Whether its envelope has been said on the connection at hand."""
        aboard, self._aboard = self._aboard, None
        if aboard is not None and aboard.riding:
            if aboard is progress:
                return True
            self.drop()  # somebody else's was
        progress.start_over()
        return False

    def _may_start_over(self, progress: Progress, error: smtplib.SMTPException) -> bool:
        """Whether the connection failed, and not this mail: it was dead already, or did not outlive the mail before.

        Or its login did not last; if a new one is no better, that is about the mail.
        """
        if progress.intended or not _is_dead(error):
            return False
        if progress.riding and isinstance(error, smtplib.SMTPServerDisconnected):
            self._no_rides_until = self._clock.monotonic() + _PATIENCE
        return progress.riding or not progress.begun

    def _is_usable(self) -> bool:
        if self.connection is None:
            return False
        if (
            isinstance(self._line, Connection) and not self._line.is_quiet()
        ):  # it has hung up, or said what nobody asked
            self.drop()
            return False
        if self._is_young(self._mails):
            settings = self._settings()
            if settings is self._used_settings or settings == self._used_settings:
                return True
        self.close()
        return False

    def _is_young(self, mails: int) -> bool:
        keep = self._used_settings.keep
        return self._clock.monotonic() - self._opened_at < keep.age and mails < keep.mails

    def _open(self, *, patient: bool) -> None:
        baton.put_down()
        self._used_settings = self._settings()
        self._relay = str(self._used_settings)
        self.connection = self._connect(self._used_settings)
        self._took = float("inf")
        self._opened_at = self._used_at = self._clock.monotonic()
        self._mails = 0
        if isinstance(self.connection, SMTP):
            patient = patient or self._opened_at < self._patient_until
            self._line = Connection(self.connection, self._used_settings, patient=patient)
        else:
            self._line = SendmailCall(self.connection)


def _is_dead(error: smtplib.SMTPException) -> bool:
    return isinstance(error, smtplib.SMTPServerDisconnected) or _is_leaving(error)


def _is_leaving(error: smtplib.SMTPException) -> bool:
    """Whether the connection is of no use after this: it ends, lacks a login, or is out of step."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return any(reply_from(each).code == 421 for each in error.recipients.values())
    return getattr(error, "smtp_code", 0) in RELAY_CODES | {503}
