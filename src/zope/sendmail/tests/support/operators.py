"""A queue and the command line of its operators, with a clock that a test turns."""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import json
import os
import sys
import tempfile
import unittest
from collections.abc import Sequence
from typing import Any
from unittest import mock

from zope.sendmail.cli import app, queuecommands
from zope.sendmail.lifecycle.outcome import Answer, Outcome, Reply
from zope.sendmail.lifecycle.retry import Schedule, judge
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.queue import open_queue
from zope.sendmail.queue.maildir.queue import MaildirQueue
from zope.sendmail.testing.contracts import OK, ManualClock

GREYLISTED = Reply(Answer.DEFERRED, "greylisted", 450, "4.7.1")
UNKNOWN_USER = Reply(Answer.REJECTED, "no such user", 550, "5.1.1")
MESSAGE = b"Message-Id: <1@example.org>\nSubject: one\n\nFirst \x1b[31mline\nSecond line \xff\n"


class OperatorsTest(unittest.TestCase):
    """A queue, and a command line; the clock stands still."""

    def setUp(self) -> None:
        self.path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "queue")
        self.clock = ManualClock()
        nanoseconds = itertools.count(int(self.clock.wall) * 10**9, 1000)
        self.enterContext(mock.patch("zope.sendmail.maildir.time.time_ns", side_effect=nanoseconds))
        self.enterContext(mock.patch.object(queuecommands, "Clock", return_value=self.clock))
        opened = functools.partial(open_queue, clock=self.clock)
        self.enterContext(mock.patch.object(queuecommands, "open_queue", opened))
        self.enterContext(mock.patch.dict(os.environ, {"COLUMNS": "100"}))
        self.queue = MaildirQueue(self.path, clock=self.clock)
        self.addCleanup(self.queue.close)
        self.queue.stage()
        self.said = self.complained = ""

    def put(self, *recipients: str, sender: str = "shop@example.org", message: bytes = MESSAGE) -> str:
        staged = self.queue.stage()
        name = staged.add(Envelope(sender, recipients or ("one@example.org",)), message)
        staged.prepare()
        staged.commit()
        return name

    def settle(self, *replies: Reply) -> None:
        """Try the oldest mail: one reply for each recipient, in order."""
        [lease] = self.queue.claim()
        outcome = Outcome("relay:25", dict(zip(lease.envelope.recipients, replies, strict=True)))
        lease.settle(
            judge(lease.record, lease.envelope, outcome, Schedule(jitter=0), now=self.clock.time(), chance=0.5)
        )

    def put_four(self) -> tuple[str, str, str, str]:
        """A deferred, a rejected, a held and a ready mail."""
        deferred = self.put("a@example.org", "b@example.net")
        self.settle(OK, GREYLISTED)
        rejected = self.put("c@example.org")
        self.settle(UNKNOWN_USER)
        held = self.put("d@example.org", sender="")
        self.queue.admin.hold(held)
        return deferred, rejected, held, self.put("e@example.org")

    def call(self, verb: str, *arguments: str, answer: str | None = None) -> int:
        """Return the exit status of a verb; what was said is in `said` and `complained`.

        :param answer: what is typed at a terminal.
        """
        return self.call_app(["queue", verb, *arguments], answer)

    def call_app(self, words: Sequence[str], answer: str | None = None) -> int:
        """Return the exit status of ``zope-sendmail``; see `call`."""
        said, complained = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
        typed = io.StringIO(answer or "")
        typed.isatty = lambda: answer is not None  # type: ignore[method-assign]  # a fault in its place
        with (
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(complained),
            mock.patch.object(sys, "stdin", typed),
        ):
            try:
                status = app.run(["zope-sendmail", *words])
            except SystemExit as exit_:
                status = int(exit_.code or 0)
        said.seek(0)
        self.raw = said.buffer.read()
        self.said, self.complained = self.raw.decode("utf-8", "replace"), complained.getvalue()
        return status

    def ok(self, verb: str, *arguments: str) -> str:
        """What a call that succeeds says."""
        self.assertEqual((self.call(verb, self.path, *arguments), self.complained), (0, ""), self.said)
        return self.said

    def objects(self, verb: str, *arguments: str) -> list[Any]:
        self.call(verb, self.path, "--json", *arguments)
        return [json.loads(line) for line in self.said.splitlines()]

    def names(self, *arguments: str) -> list[str]:
        """The names of the mails that are listed."""
        return [mail["name"] for mail in self.objects("list", *arguments)]

    def assertRefused(self, status: int, words: str, verb: str, *arguments: str) -> None:
        """Nothing is done, and the reason is told."""
        before = sorted(self.queue.admin.names())
        self.assertEqual(self.call(verb, *arguments), status, self.said)
        self.assertIn(words, " ".join(self.complained.split()))
        self.assertEqual(sorted(self.queue.admin.names()), before)
