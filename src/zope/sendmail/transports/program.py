"""A mailer that hands mail to a program of this host with the command line of sendmail.

The program gets the envelope as arguments and the message as its standard input, which is a whole file from the first
moment: our death cannot cut a mail short.  No shell is involved.  The exit status is the answer (`sysexits`); once
the program runs and does not end by itself, the outcome is unknown.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import IO, BinaryIO

from zope.interface import implementer

from zope.sendmail.errors import InvalidSettings
from zope.sendmail.interfaces import ISession, ISessionMailer
from zope.sendmail.lifecycle.outcome import Answer, Outcome, Reply
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.headers import wire
from zope.sendmail.system.privileges import child_identity
from zope.sendmail.transports.onemailcalls import OneMailCalls
from zope.sendmail.transports.sysexits import reply_of

#: Octets of recipients in one command line.  Linux allows 2 MiB with the environment, others a quarter of a MiB.
_COMMAND_LINE = 64 * 1024

#: Options with which the program takes recipients from the message, alone or among others; ``--`` would end ours.
_NOT_OURS = re.compile(r"-[A-Zi]*t|--read-recipients|--$")

#: So much of the end of the program's output is looked at.
_TAIL = 4096

#: Seconds that a killed program has to disappear; one that runs as another user cannot be killed by us.
_GRACE = 5.0


@implementer(ISessionMailer)
class ProgramMailer(OneMailCalls):
    """A mailer that hands mail to a sendmail program.

    `options` go in front of ours (``-i -oep -f SENDER -- RECIPIENT...``); `timeout`: seconds that a run may take, then
    the program and its children are killed; `recipient_limit`: recipients of one run at most.  All recipients of a run
    have the same answer, so with a program that refuses single recipients use 1.

    Raises `InvalidSettings` for what cannot be meant.
    """

    def __init__(
        self,
        program: str = "/usr/sbin/sendmail",
        *,
        options: Iterable[str] = (),
        timeout: float = 600.0,
        recipient_limit: int = 100,
    ) -> None:
        self.program = program
        self.options = tuple(options)
        self.timeout = timeout
        self.recipient_limit = recipient_limit
        if not os.path.isabs(program):
            raise InvalidSettings(f"the program {program!r} is not a whole path; write one like /usr/sbin/sendmail")
        if any(map(_NOT_OURS.match, self.options)):
            raise InvalidSettings(
                f"options {self.options}: with -t the program asks the message for recipients; leave it out"
            )
        if not timeout > 0 or recipient_limit < 1:
            raise InvalidSettings(
                f"timeout {timeout} s must be more than 0, recipient limit {recipient_limit} at least 1"
            )

    def open_session(self) -> ISession:
        """See `ISessionMailer`."""
        return ProgramSession(self)

    def command(self, envelope: Envelope) -> list[bytes]:
        """Return the program and its arguments.  Behind ``--`` no recipient is taken for an option.

        With ``-oep`` a refusal is told here; else Exim and sendmail send it to the sender as well, at each attempt.
        """
        sender = envelope.sender or "<>"
        parts = (self.program, *self.options, "-i", "-oep", "-f", sender, "--", *envelope.recipients)
        return [part.encode() for part in parts]


@implementer(ISession)
class ProgramSession:
    """See `ISession`.  Nothing is kept between mails."""

    def __init__(self, mailer: ProgramMailer) -> None:
        self._mailer = mailer

    @property
    def relay(self) -> str:
        """See `ISession`: the program."""
        return self._mailer.program

    def verify(self, envelope: Envelope, message: BinaryIO | None = None) -> Outcome:
        """See `ISession`.  That the program can be run is all that can be known."""
        obstacle = _obstacle(self._mailer.program)
        if obstacle is not None:
            return Outcome(self.relay, {}, obstacle)
        return Outcome.same(self.relay, envelope.recipients, Reply(Answer.ACCEPTED, "the program was not asked"))

    def transfer(self, envelope: Envelope, message: BinaryIO, intend: Callable[[], None]) -> Outcome:
        """See `ISession`.  Raises `OSError` if there is no room for a temporary copy of the message."""
        obstacle = _obstacle(self._mailer.program)
        if obstacle is not None:
            return Outcome(self.relay, {}, obstacle)
        with tempfile.TemporaryFile() as text:
            for piece in wire(message):
                text.write(piece.replace(b"\r\n", b"\n"))
            text.flush()
            intend()
            return self._hand_over(envelope, text)

    def rest(self) -> None:
        """See `ISession`."""

    def close(self) -> None:
        """See `ISession`."""

    def _hand_over(self, envelope: Envelope, text: IO[bytes]) -> Outcome:
        """Run the program for one group of recipients after the other, until it is in trouble."""
        replies: dict[str, Reply] = {}
        for group in _groups(envelope.recipients, self._mailer.recipient_limit):
            try:
                reply, is_fault = self._run(self._mailer.command(envelope.only(group)), text)
            except OSError as error:  # it did not start
                return Outcome(self.relay, replies, _cannot_run(self._mailer.program, error))
            replies.update(dict.fromkeys(group, reply))
            if is_fault:
                return Outcome(self.relay, replies, replace(reply, answer=Answer.DEFERRED))
        return Outcome(self.relay, replies)

    def _run(self, command: list[bytes], text: IO[bytes]) -> tuple[Reply, bool]:
        # A file for the output: a pipe would stay open as long as a child that goes on in the background.
        with tempfile.TemporaryFile() as output:
            text.seek(0)
            process = subprocess.Popen(  # noqa: S603 - no shell; the arguments are checked addresses
                command,
                stdin=text,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                start_new_session=True,
                **child_identity(),
            )
            try:
                status = process.wait(self._mailer.timeout)
            except subprocess.TimeoutExpired:
                words = f"the program did not end within {self._mailer.timeout:g} s and was killed"
                return Reply(Answer.UNKNOWN, words), True
            finally:
                if process.returncode is None:
                    _kill(process)
            return reply_of(status, _end_of(output))


def _obstacle(program: str) -> Reply | None:
    """Return why the program cannot be run, or None."""
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        words = "this process ignores SIGCHLD, so no exit status can be had; let it be signal.SIG_DFL"
        return Reply(Answer.DEFERRED, words)
    if not os.path.isfile(program):
        return Reply(Answer.DEFERRED, f"there is no program {program}; install it or name another one")
    if not os.access(program, os.X_OK):
        return Reply(Answer.DEFERRED, f"the program {program} may not be executed by this user")
    return None


def _cannot_run(program: str, error: OSError) -> Reply:
    return Reply(Answer.DEFERRED, f"the program {program} cannot be run: {error}")


def _groups(recipients: Sequence[str], limit: int) -> Iterator[list[str]]:
    """Yield the recipients in groups that fit into a command line, at most `limit` in each."""
    group: list[str] = []
    octets = 0
    for recipient in recipients:
        size = len(recipient.encode()) + 1
        if group and (len(group) >= limit or octets + size > _COMMAND_LINE):
            yield group
            group, octets = [], 0
        group.append(recipient)
        octets += size
    if group:
        yield group


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the program with its children, at once (as Postfix's pipe(8) does), and leave no zombie."""
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE)


def _end_of(output: IO[bytes]) -> bytes:
    output.seek(max(0, output.seek(0, os.SEEK_END) - _TAIL))
    return output.read()
