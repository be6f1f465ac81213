"""A session with one relay: the connection is made when it is needed, kept between mails, and thrown away after any
error.

Concurrency: one thread at a time.
"""

from __future__ import annotations

import smtplib
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from math import inf
from typing import Any, BinaryIO

from zope.interface import implementer

from zope.sendmail.config.settings import RelaySettings
from zope.sendmail.interfaces import ICollectiveSession, IJob, IJobSource, IStreamingSession
from zope.sendmail.lifecycle.outcome import Answer, Outcome, Reply
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.smtp.classification import failed, succeeded
from zope.sendmail.smtp.connect import drop, hang_up, leave, set_timeout
from zope.sendmail.smtp.distances import DISTANCES
from zope.sendmail.smtp.enquiry import Question, ask_together
from zope.sendmail.smtp.lessons import Lessons
from zope.sendmail.smtp.onemail import Alone, Attempt, Following, RelayConnection, Verification
from zope.sendmail.smtp.openconnection import OpenConnection, open_connection
from zope.sendmail.smtp.ordinary import OrdinaryAttempt
from zope.sendmail.smtp.pipeline import Result, Step, Stream
from zope.sendmail.smtp.protocol.progress import Progress
from zope.sendmail.smtp.protocol.steps import Intend, Overlapping, TakeNext
from zope.sendmail.smtp.relaymemory import MemoryByRelay
from zope.sendmail.smtp.startover import StartOver, is_leaving
from zope.sendmail.system.clock import Clock
from zope.sendmail.system.gilbaton import baton

#: The relay said no and meant the mail: the connection may go on.
_REFUSALS = (smtplib.SMTPSenderRefused, smtplib.SMTPRecipientsRefused, smtplib.SMTPDataError)

_ALONE = Alone()

_NO_ENVELOPE = Envelope("", ())


def _not_at_all() -> float:
    """Return for how long settings count without another question."""
    return 0.0


@implementer(ICollectiveSession, IStreamingSession)
class SMTPSession:
    """See `IStreamingSession`.

    :param settings: called before each mail; if it gives something new, the connection is made anew
    :param lasts: the seconds for which mail that follows at once goes without asking again; by default none does
    :param connect: makes a connection from settings; raises what smtplib raises
    :param memories: what is known of the relays; sessions of one mailer share it
    """

    def __init__(
        self,
        settings: Callable[[], RelaySettings],
        connect: Callable[[RelaySettings], Any],
        clock: Clock,
        memories: MemoryByRelay | None = None,
        lasts: Callable[[], float] = _not_at_all,
    ) -> None:
        #: Whether a stream calls `IJobSource`'s ``let_go()``.
        self.lets_go = True
        self._settings = settings
        self._lasts = lasts
        #: Until when those of the connection at hand count without another question, on the monotonic clock.
        self._settled_until = -inf
        self._connect = connect
        self._clock = clock
        self._memories = memories or MemoryByRelay()
        self._current: OpenConnection | None = None
        #: The mail whose envelope went with the end of the last one, or was about to.
        self._ahead: Attempt | None = None
        #: The relay of the last connection.
        self._relay = ""
        self._shortest_wait = inf

    @property
    def relay(self) -> str:
        """See `ISession`."""
        try:
            return str(self._settings())
        except Exception:  # noqa: BLE001 - whatever the caller's code raises
            return "a relay whose settings are wrong"

    @property
    def connection(self) -> Any:
        """The connection as `connect` has made it, or None."""
        return None if self._current is None else self._current.raw

    def verify(self, envelope: Envelope, message: BinaryIO | None = None) -> Outcome:
        """See `ISession`.  Without the message the relay is not asked about its size."""
        progress = Progress(envelope)
        try:
            self.prove(progress, message)
        except Exception as error:  # noqa: BLE001 - what is not about the relay is raised
            return self._failed(progress, error)
        return succeeded(self._relay, progress)

    def verify_together(self, mails: Sequence[Question]) -> list[Outcome | None]:
        """See `ICollectiveSession`."""
        return ask_together(self.prove, self.relay, mails)

    def reach(self) -> Reply | None:
        """Make sure that MAIL can be said: connected, encrypted and logged in.

        :returns: None, or why the relay cannot be used.
        """
        try:
            if not self._is_usable():
                self._open(pipelining=True)
            assert self._current is not None, "it was opened"
            set_timeout(self.connection, self._current.settings.timeouts.command)  # another caller may go on with it
        except Exception as error:  # noqa: BLE001 - as in `verify`
            self.drop()
            return failed(self.relay, Progress(_NO_ENVELOPE), error).fault
        return None

    def transfer(self, envelope: Envelope, message: BinaryIO, intend: Callable[[], None]) -> Outcome:
        """See `ISession`.  `message` must be seekable; what reading it raises is raised.

        Recipients beyond what the relay takes with one mail follow in further ones.
        """
        start = _position(message)
        outcome = part = self.carry(Attempt(Progress(envelope), message, intend), _ALONE)
        while rest := part.follow_at_once:
            message.seek(start)
            part = self.carry(Attempt(Progress(replace(envelope, recipients=rest)), message, intend), _ALONE)
            outcome = outcome.joined(part)
        return outcome.told()

    def stream(self, jobs: IJobSource) -> Generator[tuple[IJob, Result], None, None]:
        """See `IStreamingSession`.  An envelope goes with the end of the mail before where the relay has PIPELINING."""
        return Stream(self, jobs).results()

    def stream_in_steps(self, jobs: IJobSource) -> Generator[Step, bool | None, None]:
        """Do the same, but let the caller wait for the relay; see `Stream.steps`."""
        return Stream(self, jobs).steps()

    def prove(self, progress: Progress, message: BinaryIO | None = None) -> None:
        """Do as `verify`, and raise what smtplib raises; the replies stand in `progress` afterwards."""
        verified = self._verify_once(progress, message)
        while rest := verified.follow_at_once:
            progress.unasked = []
            part = Progress(replace(progress.envelope, recipients=rest))
            try:
                verified = self._verify_once(part, message)
            except smtplib.SMTPRecipientsRefused:
                verified = Outcome(self._relay, part.refused, None, tuple(part.unasked))
            for who in rest:
                progress.refused.pop(who, None)
            progress.accepted.update(part.accepted)
            progress.refused.update(verified.told().having(Answer.DEFERRED, Answer.REJECTED))

    def deliver(self, progress: Progress, message: BinaryIO, intend: Callable[[], None]) -> None:
        """Do as `transfer`, and raise what smtplib raises; the refused stand in `progress` afterwards."""
        start = _position(message)
        self._send(Attempt(progress, message, intend), _ALONE)
        rest = succeeded(self._relay, progress).follow_at_once
        if not rest:
            return
        message.seek(start)
        outcome = self.transfer(replace(progress.envelope, recipients=rest), message, intend)
        silence = outcome.fault or Reply(Answer.DEFERRED, "the relay said nothing about it")
        for who in rest:
            progress.refused.pop(who, None)
            reply = outcome.replies.get(who, silence)
            (progress.accepted if reply.answer is Answer.ACCEPTED else progress.refused)[who] = reply

    def rest(self) -> None:
        """See `ISession`."""
        if self._current is not None and self._current.has_rested(self._clock.monotonic()):
            self.close()

    def close(self) -> None:
        """See `ISession`.  The relay's goodbye is not waited for."""
        self._close(leave)

    def _close_before_next(self) -> None:
        """Do so, and wait for the goodbye: another connection follows, and a relay may count those that are open."""
        self._close(hang_up)

    def _close(self, ending: Callable[[Any, float], None]) -> None:
        self.part()
        current, self._current = self._current, None
        if current is not None:
            ending(current.raw, current.settings.timeouts.quit)

    def drop(self) -> None:
        """Close without QUIT."""
        self._ahead = None
        current, self._current = self._current, None
        if current is not None:
            drop(current.raw)

    # a mail in a stream; see `zope.sendmail.smtp.pipeline.StreamingSession`

    def carry(self, attempt: Attempt, following: Following) -> Outcome:
        """Send one mail; `following` gives the next ones."""
        progress = attempt.progress
        try:
            self._send(attempt, following)
        except Exception as error:  # noqa: BLE001 - what is not about the relay is raised
            return self._failed(progress, error)
        return succeeded(self._relay, progress)

    def carry_ordinary(self, attempt: OrdinaryAttempt, following: Following) -> Generator[int, bool, Outcome | None]:
        """Send an ordinary mail whose envelope has gone ahead, if the relay says yes to everything.

        Yields the descriptor of the connection when the relay is to be waited for, see `Stream.steps`.

        :returns: None if it does not, or not at once: then `carry` goes on.
        """
        current = self._current
        way = None if current is None or self._ahead is not attempt or not attempt.is_ahead else current.straight_way
        if current is None or way is None:
            return None
        begin = self._clock.monotonic()
        answer = way.hear_flight(attempt)
        while answer is None:
            answer = (yield way.descriptor) and way.hear_flight(attempt, more=True)
        if not answer:
            return None
        heard_at = self._clock.monotonic()
        behind = following.take_next()
        if not way.may_end(attempt):
            self._ahead = attempt  # the next one goes by itself
            return None
        self._ahead = self._ahead if behind is not None else None
        end_at = self._clock.monotonic()
        if not way.send(attempt, b"" if behind is None else behind.first_flight()):
            _note_not_sent(attempt, behind)
            return None
        following.meanwhile()
        reply = way.hear_end() if (yield way.descriptor) else None
        if reply is None:
            return None
        now = self._clock.monotonic()
        current.note_ordinary(begin, now)
        self._shortest_wait = min(self._shortest_wait, heard_at - begin + now - end_at)
        return Outcome(self._relay, dict.fromkeys(attempt.job.envelope.recipients, reply))

    def waited(self) -> float:
        """Return the shortest time in seconds that an ordinary mail has waited for replies since it was asked last.

        inf if there was none.
        """
        waited, self._shortest_wait = self._shortest_wait, inf
        return waited

    def distance(self) -> float | None:
        """Return the shortest time in seconds in which the relay has answered EHLO; None: it did not yet."""
        return DISTANCES.of(self._relay or self.relay)

    def may_overlap(self) -> bool:
        """Return whether the connection is good for one more mail behind the one in hand, envelope and end in one."""
        current = self._current
        try:
            now = self._clock.monotonic()
            if current is None or not current.may_overlap(now):
                return False
            if now < self._settled_until:
                return True
            is_settled = self._has_settings_of(current)
            self._settled_until = now + self._lasts() if is_settled else -inf
            return is_settled
        except Exception:  # noqa: BLE001 - there are no settings to be had, which the next mail's outcome will say
            return False

    def is_quick(self) -> bool:
        """Return whether the relay answers so soon that the next mail may wait here for its turn."""
        return self._current is not None and self._current.is_quick

    def prepare(self, attempt: Attempt, *, overlaps: bool) -> Overlapping | None:
        """Make ready the next mail.  Raises smtplib's errors, and what reading the message raises.

        :param overlaps: its envelope goes with the end of the mail in hand
        """
        assert self._current is not None, "there is a mail in hand"
        prepared = self._current.connection.prepare(attempt)
        if overlaps:
            self._ahead = attempt
        return prepared

    def part(self) -> None:
        """Give up a mail whose envelope has gone ahead: the relay waits for its text, so the connection is no use."""
        if self._ahead is not None and self._ahead.progress.sent_ahead:
            self.drop()

    # one mail

    def _verify_once(self, progress: Progress, message: BinaryIO | None) -> Outcome:
        start = 0 if message is None else _position(message)
        self._send(Verification(progress, message), _ALONE)
        current = self._current
        if current is not None:
            current.verified += 1
            self._reset(current, progress)
        if message is not None:
            message.seek(start)
        return succeeded(self._relay, progress)

    def _send(self, attempt: Attempt, following: Following) -> None:
        """Afterwards the connection is ready for the next mail, or it is gone (7.3 kept dead ones for ever)."""
        progress, lessons = attempt.progress, Lessons()
        while True:
            try:
                self._send_once(attempt, following, pipelining=lessons.takes_pipelining)
                break
            except smtplib.SMTPException as error:
                reason = self._reason(progress, error, lessons)
                if reason is StartOver.MAILS_PER_CONNECTION:
                    self._close_before_next()
                else:
                    self._recover(progress, error)
                if reason is None:
                    lessons.learn(progress)
                    raise
                progress.start_over()
            except BaseException:
                self.drop()
                raise
        lessons.learn(progress)
        if progress.out_of_sync:
            self.drop()

    def _send_once(self, attempt: Attempt, following: Following, *, pipelining: bool) -> None:
        """Send a mail over the connection at hand or, if that is of no use, a new one."""
        progress = attempt.progress
        went_ahead = attempt.is_gone or self._went_ahead(attempt)
        if not (went_ahead or self._is_usable()):
            self._open(pipelining=pipelining)
        current = self._current
        assert current is not None, "it was opened"
        progress.opened, progress.logged_in = True, current.settings.logs_in
        begin = self._clock.monotonic()
        current.mails += 1
        converse(current.connection, attempt, following)
        now = self._clock.monotonic()
        current.note_taken(progress, begin, now)
        if went_ahead:
            current.note_overlapped(now)

    def _reason(self, progress: Progress, error: smtplib.SMTPException, lessons: Lessons) -> StartOver | None:
        """Return why the mail is begun anew, None at the end."""
        current = self._current
        if current is None or not progress.opened:
            return None
        now = self._clock.monotonic()
        if progress.intended and self._ahead is not None and self._ahead.progress.sent_ahead:
            current.memory.overlap_failed(now)  # the relay may have died of what came behind the message
        return lessons.reason(progress, error, current, now)

    def _recover(self, progress: Progress, error: smtplib.SMTPException) -> None:
        """Make the connection ready for the next mail, or throw it away."""
        current = self._current
        if current is None:
            return
        if not isinstance(error, _REFUSALS) or progress.out_of_sync or is_leaving(error):
            self.drop()
        elif self._ahead is None or not self._ahead.progress.sent_ahead:
            self._reset(current, progress)

    def _reset(self, current: OpenConnection, progress: Progress) -> None:
        """Let the relay forget a mail; a relay that refuses that (Exim, after ten times) gets a new connection."""
        try:
            current.connection.resume(current.connection.reset(), None, progress)
        except smtplib.SMTPException:
            self.drop()

    def _failed(self, progress: Progress, error: Exception) -> Outcome:
        if progress.opened and not progress.intended and not isinstance(error, smtplib.SMTPException):
            raise error  # the message could not be read, or must not be sent
        return failed(self._relay if progress.opened else self.relay, progress, error)

    # the connection

    def _went_ahead(self, attempt: Attempt) -> bool:
        """Return whether its envelope has gone over the connection at hand."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead.progress.sent_ahead:
            if ahead is attempt:
                return True
            self.drop()  # it was another mail's
        attempt.progress.start_over()
        return False

    def _is_usable(self) -> bool:
        current = self._current
        if current is None:
            return False
        if not current.connection.is_quiet():  # it has hung up, or said more than it was asked
            self.drop()
            return False
        if current.has_room(self._clock.monotonic()) and self._has_settings_of(current):
            return True
        self._close_before_next()
        return False

    def _has_settings_of(self, current: OpenConnection) -> bool:
        """Return whether a connection would be made with the same settings now.  Raises what asking for them raises."""
        settings = self._settings()
        return settings is current.settings or settings == current.settings

    def _open(self, *, pipelining: bool) -> None:
        baton.put_down()
        settings = self._settings()
        self._relay, self._settled_until = str(settings), -inf
        memory = self._memories.of(self._relay)
        self._current = open_connection(settings, self._connect, memory, self._clock, pipelining=pipelining)


def converse(connection: RelayConnection, attempt: Attempt, following: Following) -> None:
    """Let the connection do its steps, and answer its requests."""
    progress = attempt.progress
    steps = attempt.steps(connection)
    request = connection.resume(steps, None, progress)
    while request is not None:
        answer = None
        if isinstance(request, Intend):
            attempt.intend()
        elif isinstance(request, TakeNext):
            answer = following.take_next()
        else:
            following.read_ahead()
        request = connection.resume(steps, answer, progress)


def _note_not_sent(attempt: OrdinaryAttempt, behind: Overlapping | None) -> None:
    """Note of both mails of a flight whether they, or the ends of them, have gone."""
    failed = attempt.send_error
    assert failed is not None, "it failed"
    if behind is not None:
        behind.not_sent(failed)
    if failed.sent >= len(attempt.piece):
        attempt.send_error = None


def _position(message: BinaryIO) -> int:
    """Return where the message begins; 0 if it is no file that tells."""
    try:
        return message.tell()
    except OSError:
        return 0
