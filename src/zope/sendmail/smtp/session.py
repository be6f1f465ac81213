"""A conversation with one relay: the connection is made when it is needed, kept between mails, and thrown
away after any error.

Concurrency: one thread at a time.
"""

from __future__ import annotations

import contextlib
import smtplib
from collections.abc import Callable, Iterator
from smtplib import SMTP
from typing import Any, BinaryIO

from zope.interface import implementer

from zope.sendmail.clock import Clock
from zope.sendmail.interfaces import ISession
from zope.sendmail.message import Envelope
from zope.sendmail.outcome import Outcome
from zope.sendmail.settings import RelaySettings
from zope.sendmail.smtp.body import Body
from zope.sendmail.smtp.connect import drop, hang_up
from zope.sendmail.smtp.handover import Handover
from zope.sendmail.smtp.progress import Progress, reply_from
from zope.sendmail.smtp.transaction import Line
from zope.sendmail.smtp.verdict import RELAY_CODES, failed, succeeded

#: The relay said no and meant the mail: the connection may go on.
_REFUSALS = (smtplib.SMTPSenderRefused, smtplib.SMTPRecipientsRefused, smtplib.SMTPDataError)


#: How long a relay that broke its promises is asked one command at a time.
_PATIENCE = 3600.0

#: A connection that was used so many seconds ago is alive: relays wait for minutes (RFC 5321, 4.5.3.2.7).
_A_MOMENT = 2.0


@implementer(ISession)
class SMTPSession:
    """See `ISession`.

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
        self._line: Line | Handover = Handover(None)
        self._patient_until = float("-inf")
        self._used_settings = RelaySettings()
        self._opened_at = self._used_at = 0.0
        self._mails = 0

    @property
    def relay(self) -> str:
        """See `ISession`."""
        try:
            return str(self._settings())
        except ValueError:
            return "a relay whose settings are wrong"

    def verify(self, envelope: Envelope, message: BinaryIO | None = None) -> Outcome:
        """See `ISession`.  Without the message the relay is not asked about its size."""
        progress = Progress(envelope)
        return self._told(progress, lambda: self.prove(progress, message))

    def transfer(self, envelope: Envelope, message: BinaryIO, intend: Callable[[], None]) -> Outcome:
        """See `ISession`.  `message` must be seekable; what reading it raises is raised."""
        progress = Progress(envelope)
        return self._told(progress, lambda: self.deliver(progress, message, intend))

    def prove(self, progress: Progress, message: BinaryIO | None = None) -> None:
        """`verify` that raises what smtplib raises."""
        body = None if message is None else Body(message)

        def prove(line: Line | Handover) -> None:
            if isinstance(line, Handover):
                line.prove(progress)
            else:
                line.prove(progress, body)

        self._speak(progress, prove)

    def deliver(self, progress: Progress, message: BinaryIO, intend: Callable[[], None]) -> None:
        """`transfer` that raises what smtplib raises; who was refused stands in `progress` afterwards."""
        body = Body(message)

        def deliver(line: Line | Handover) -> None:
            if isinstance(line, Handover):
                line.deliver(progress, message, intend)
            else:
                line.deliver(progress, body, intend, fresh=self._clock.monotonic() - self._used_at < _A_MOMENT)

        self._speak(progress, deliver)
        self._mails += 1

    def rest(self) -> None:
        """See `ISession`."""
        keep = self._used_settings.keep
        now = self._clock.monotonic()
        if now - self._used_at >= keep.idle or now - self._opened_at >= keep.age:
            self.close()

    def close(self) -> None:
        """See `ISession`."""
        connection, self.connection = self.connection, None
        if connection is not None:
            hang_up(connection, self._used_settings.timeouts.quit)

    def drop(self) -> None:
        """Close without QUIT."""
        connection, self.connection = self.connection, None
        if connection is not None:
            drop(connection)

    def _told(self, progress: Progress, attempt: Callable[[], None]) -> Outcome:
        try:
            attempt()
        except Exception as error:
            if progress.opened and not progress.intended and not isinstance(error, smtplib.SMTPException):
                raise  # the message could not be read, or must not be sent
            return failed(self._spoken_with(progress), progress, error)
        return succeeded(self._spoken_with(progress), progress)

    def _spoken_with(self, progress: Progress) -> str:
        return str(self._used_settings) if progress.opened else self.relay

    @contextlib.contextmanager
    def _in_step(self, progress: Progress) -> Iterator[None]:
        """Afterwards the connection is ready for the next mail, or it is gone (7.3 kept dead ones for ever)."""
        try:
            yield
        except _REFUSALS as error:
            self._reset(progress, error)
            raise
        except BaseException:
            self.drop()
            raise
        if progress.out_of_step:
            self.drop()
        self._used_at = self._clock.monotonic()

    def _reset(self, progress: Progress, error: smtplib.SMTPException) -> None:
        if self.connection is None:
            return
        try:
            if progress.out_of_step or _is_leaving(error):
                self.drop()
            elif isinstance(self._line, Line):
                self._line.reset(progress)
        except smtplib.SMTPException:
            self.drop()

    def _speak(self, progress: Progress, speak: Callable[[Line | Handover], None]) -> None:
        try:
            with self._in_step(progress):
                self._speak_once_or_twice(progress, speak)
        finally:
            if progress.broken_promise:
                self._patient_until = self._clock.monotonic() + _PATIENCE

    def _speak_once_or_twice(self, progress: Progress, speak: Callable[[Line | Handover], None]) -> None:
        """On the connection at hand or, if that turns out to be dead, on a new one."""
        if self._is_usable():
            progress.opened = True
            try:
                speak(self._line)
            except smtplib.SMTPException as error:
                if progress.begun or progress.intended or not _is_dead(error):
                    raise
            else:
                return
            self.drop()
            progress.start_over()
        self._open(patient=progress.broken_promise)
        progress.opened = True
        speak(self._line)

    def _is_usable(self) -> bool:
        if self.connection is None:
            return False
        if isinstance(self._line, Line) and not self._line.is_quiet():  # it has hung up, or said what nobody asked
            self.drop()
            return False
        keep = self._used_settings.keep
        young = self._clock.monotonic() - self._opened_at < keep.age and self._mails < keep.mails
        if not young or self._settings() != self._used_settings:
            self.close()
            return False
        return True

    def _open(self, *, patient: bool) -> None:
        self._used_settings = self._settings()
        self.connection = self._connect(self._used_settings)
        self._opened_at = self._used_at = self._clock.monotonic()
        self._mails = 0
        if isinstance(self.connection, SMTP):
            patient = patient or self._opened_at < self._patient_until
            self._line = Line(self.connection, self._used_settings, patient=patient)
        else:
            self._line = Handover(self.connection)


def _is_dead(error: smtplib.SMTPException) -> bool:
    return isinstance(error, smtplib.SMTPServerDisconnected) or _is_leaving(error)


def _is_leaving(error: smtplib.SMTPException) -> bool:
    """Whether the connection is of no use after this: it ends, lacks a login, or is out of step."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return any(reply_from(each).code == 421 for each in error.recipients.values())
    return getattr(error, "smtp_code", 0) in RELAY_CODES | {503}
