"""Mails over a connection that smtplib has opened: runs each `MailTransaction` over a `Channel`.

What became known stands in the `Progress` of each mail, whatever is raised; the errors are smtplib's.
"""

from __future__ import annotations

from collections.abc import Callable
from smtplib import LMTP, SMTP
from typing import Any

from zope.sendmail.config.settings import Notify, RelaySettings
from zope.sendmail.lifecycle.outcome import Answer, Reply
from zope.sendmail.smtp.channel import Channel, open_channel
from zope.sendmail.smtp.distances import DISTANCES
from zope.sendmail.smtp.onemail import Attempt
from zope.sendmail.smtp.ordinary import OrdinaryAttempt, StraightWay
from zope.sendmail.smtp.protocol.body import Body
from zope.sendmail.smtp.protocol.commands import EnvelopeCommands, Extensions, MailNotSupported
from zope.sendmail.smtp.protocol.progress import Progress
from zope.sendmail.smtp.protocol.replies import MalformedReply, Response
from zope.sendmail.smtp.protocol.sevenbit import CannotConvert, in_seven_bit
from zope.sendmail.smtp.protocol.steps import (
    ConnectionLost,
    OutOfSync,
    Overlapping,
    Poll,
    Receive,
    Refused,
    Request,
    Send,
    Step,
    StepAnswer,
    Steps,
    TimeoutName,
)
from zope.sendmail.smtp.protocol.transaction import MailTransaction, reset
from zope.sendmail.smtp.relaymemory import RelayMemory
from zope.sendmail.smtp.smtperrors import as_smtplib_error
from zope.sendmail.system.clock import Clock


class SMTPConnection:
    """See `RelayConnection`.

    :param memory: what is known of the relay
    :param pipelining: whether that is used if the relay announces it
    """

    def __init__(
        self, connection: SMTP, settings: RelaySettings, memory: RelayMemory, clock: Clock, *, pipelining: bool
    ) -> None:
        self._channel: Channel = open_channel(connection)
        self._settings = settings
        self._memory = memory
        self._clock = clock
        self._seconds = {name: float(getattr(settings.timeouts, name)) for name in TimeoutName}
        self._answers_each = isinstance(connection, LMTP)
        extensions = Extensions.of(connection.esmtp_features, settings.discard_extensions)
        uses_it = pipelining and self._channel.pipelines
        self._extensions = extensions if uses_it else extensions.without_pipelining()
        # Dovecot's submission service (2.3) dies of it: an assertion in smtp_server_transaction_finished fails.
        self.takes_overlap = self._answers_each or b"dovecot" not in getattr(connection, "greeting", b"").lower()
        self._has_taken = False
        self._prepared: tuple[Attempt, MailTransaction] | None = None
        self.straight_way = self._straight_way()

    def _straight_way(self) -> StraightWay | None:
        """Return the way of ordinary mails; None if none is ordinary here."""
        channel: Any = self._channel  # to ask for a protocol by itself takes as long as a mail
        settings, extensions = self._settings, self._extensions
        asks_for_more = extensions.dsn and settings.notify != Notify()
        if not extensions.pipelining or self._answers_each or asks_for_more or not hasattr(channel, "descriptor"):
            return None
        return StraightWay(channel, extensions, settings)

    def is_quiet(self) -> bool:
        """See `RelayConnection`."""
        return self._channel.is_quiet()

    def deliver(self, attempt: Attempt) -> Steps:
        """See `RelayConnection`."""
        prepared = self._prepared
        if prepared is not None and prepared[0] is attempt:
            self._prepared = None
            return prepared[1].deliver()
        if isinstance(attempt, OrdinaryAttempt) and (attempt.is_gone or attempt.progress.sent_ahead):
            return attempt.resume(self._transaction(attempt.progress, attempt.body))
        return self._transaction(attempt.progress, attempt.body).deliver()

    def verify(self, progress: Progress, body: Body | None) -> Steps:
        """See `RelayConnection`."""
        return self._transaction(progress, body, asks_only=True).verify()

    def reset(self) -> Steps:
        """See `RelayConnection`."""
        return reset()

    def prepare(self, attempt: Attempt) -> Overlapping | None:
        """See `RelayConnection`."""
        way = self.straight_way
        if (
            way is not None
            and isinstance(attempt, OrdinaryAttempt)
            and self._recipient_limit() is None
            and way.takes(attempt)
        ):
            return attempt
        transaction = self._transaction(attempt.progress, attempt.body)
        self._prepared = attempt, transaction
        return transaction.addressing

    def resume(self, steps: Steps, answer: StepAnswer, progress: Progress) -> Request | None:
        """See `RelayConnection`."""
        go_on: Callable[[Any], Step] = steps.send
        try:
            while True:
                step = go_on(answer)
                go_on = steps.send
                try:
                    if isinstance(step, Receive):
                        answer = self._channel.receive(self._seconds[step.timeout])
                    elif isinstance(step, (Send, Poll)):
                        answer = self._do(step)
                    else:
                        return step
                except ConnectionLost as lost:
                    go_on, answer = steps.throw, lost
                except (OSError, MalformedReply) as error:
                    go_on, answer = steps.throw, _lost(error)
        except StopIteration:
            self._has_taken |= progress.text_wanted
            return None
        except (ConnectionLost, MailNotSupported, Refused) as error:
            raise as_smtplib_error(error, progress) from error

    def _do(self, step: Send | Poll) -> Response | None:
        channel = self._channel
        if isinstance(step, Poll):
            return None if channel.is_quiet() else channel.receive(self._seconds[TimeoutName.QUIT])
        if step.is_command and channel.has_unasked():
            raise OutOfSync("the relay said more than it was asked")
        channel.send(step.data, self._seconds[step.timeout])
        return None

    def _transaction(self, progress: Progress, body: Body | None, *, asks_only: bool = False) -> MailTransaction:
        """Raises smtplib's errors if there is nothing to ask the relay."""
        try:
            fitting = None if body is None else self._fitting(body)
            return MailTransaction(
                EnvelopeCommands(
                    progress.envelope, fitting, self._extensions, self._settings.notify, self._recipient_limit()
                ),
                progress,
                None if asks_only else fitting,
                pipelined=self._extensions.pipelining,
                proven=self._has_taken,
                answers_each=self._answers_each,
                taken_before=self._memory.recipients_taken,
                overlapped=self._overlaps_at_once(),
            )
        except (MailNotSupported, Refused) as error:
            raise as_smtplib_error(error, progress) from error

    def _overlaps_at_once(self) -> bool:
        """Return whether the first mail takes the next envelope along.

        Only to a relay that is far: a near one has its answer ready sooner than this process has the next mail.
        """
        return self._memory.has_overlapped(self._clock.monotonic()) and DISTANCES.is_far(str(self._settings))

    def _recipient_limit(self) -> int | None:
        wanted, memory = self._settings.recipient_limit, self._memory
        if not memory.has_recipient_limit:
            return wanted
        shown = memory.recipient_limit(self._clock.monotonic())
        return wanted if shown is None else min(shown, wanted or shown)

    def _fitting(self, body: Body) -> Body:
        """Return the message as this relay can take it (RFC 6152, 3)."""
        if self._extensions.eightbit or not body.measure[1]:
            return body
        try:
            return Body.of_octets(in_seven_bit(b"".join(body.pieces())))
        except CannotConvert as error:
            text = f"the message is not ASCII, the relay takes no other (8BITMIME), and {error}"
            raise MailNotSupported(554, Reply(Answer.REJECTED, text, None, "5.6.3")) from error


def _lost(error: Exception) -> ConnectionLost:
    lost = ConnectionLost(f"no reply came: {error}")
    lost.__cause__ = error
    return lost
