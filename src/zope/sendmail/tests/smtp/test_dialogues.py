"""`zope.sendmail.smtp.protocol.transaction`: the conversations in ``dialogues/``, without a socket.

Each file has a sentence that it shows, what the relay offers and who is to get the mail; then the conversation; then
the answer for each recipient.  ``C:`` is a line of the client, ``S:`` one of the relay, ``I`` the instant at which
`intend` has to be called, ``X:`` an end: *closed*, *late* (no reply in time), *cut* (within the line before), or
*broken* (what is sent now does not go).  All ``C:`` lines without an ``S:`` between them are one flight.  With ``lmtp``
it is LMTP.
"""

from __future__ import annotations

import io
import smtplib
import unittest
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

from zope.sendmail.config.settings import Notify, RelaySettings
from zope.sendmail.lifecycle.outcome import Outcome, Reply
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.smtp import connection
from zope.sendmail.smtp.classification import failed, succeeded
from zope.sendmail.smtp.connection import SMTPConnection
from zope.sendmail.smtp.onemail import Alone, Attempt
from zope.sendmail.smtp.protocol.progress import Progress
from zope.sendmail.smtp.protocol.replies import MAX_LINE, MAX_LINES, MalformedReply, ReplyReader, Response
from zope.sendmail.smtp.protocol.steps import SendFailed
from zope.sendmail.smtp.relaymemory import RelayMemory
from zope.sendmail.smtp.session import converse
from zope.sendmail.testing.contracts import ManualClock

FOLDER = Path(__file__).parent / "dialogues"
MESSAGE = "Subject: test\n\nText\n"
BROKEN = ("X", b"broken\r\n")


def files() -> list[Path]:
    """Those about one mail; runs of several are in `zope.sendmail.tests.smtp.test_runs`."""
    return sorted(path for path in FOLDER.glob("*.txt") if not path.stem.startswith("run-"))


@dataclass
class Written:
    """One file."""

    head: dict[str, str]
    events: list[tuple[str, bytes]]
    expected: dict[str, str]

    @classmethod
    def read(cls, path: Path) -> Written:
        """Raises what a misspelt file deserves."""
        head, talk, end = path.read_text(encoding="utf-8").partition("\n\n")[0], "", ""
        rest = path.read_text(encoding="utf-8").partition("\n\n")[2]
        talk, _, end = rest.partition("\n\n") if not rest.startswith("\n") else ("", "", rest)
        lines = [line for line in head.splitlines() if not line.startswith("#")]
        return cls(fields_of(lines), events_of(talk.splitlines()), fields_of(end.split("\n")))


def fields_of(lines: list[str]) -> dict[str, str]:
    pairs = (line.partition(":") for line in lines if line)
    return {name: value.strip() for name, _, value in pairs}


def events_of(lines: list[str]) -> list[tuple[str, bytes]]:
    """Flights, replies, ends, in order; lines of one kind are joined."""
    events: list[tuple[str, bytes]] = []
    for line in lines:
        kind, text = line[:1], line[2:].removeprefix(" ").encode() + b"\r\n"
        if text == b"cut\r\n" and kind == "X":
            events[-1] = (events[-1][0], events[-1][1][:-2])
            text = b"closed\r\n"
        if events and events[-1][0] == kind:
            events[-1] = (kind, events[-1][1] + text)
        else:
            events.append((kind, text))
    return events


@dataclass
class Paper:
    """A channel whose other end is a file; `step` octets come at a time, all at once if it is 0."""

    events: list[tuple[str, bytes]]
    step: int = 0
    pipelines: bool = True
    descriptor: int = 0
    _replies: ReplyReader = field(default_factory=ReplyReader)

    def send(self, data: bytes, seconds: float) -> None:
        if self.events[-1:] == [BROKEN] and not any(kind == "C" for kind, _ in self.events):
            self._hear(0)
            raise SendFailed("broken")
        kind, text = self.events[0] if self.events else ("nothing", b"")
        assert kind == "C", f"{data!r} was sent, but it is the time for {kind} {text!r}"
        assert text.startswith(data), f"{data!r} was sent instead of {text!r}"
        self.events[0] = (kind, text[len(data) :])
        if len(text) == len(data):
            del self.events[0]
            if not self.step:
                self._hear(0)

    def receive(self, seconds: float) -> Response:
        while (response := self._replies.next()) is None:
            if self._end() == b"late\r\n":
                raise TimeoutError("timed out")
            if not self._hear(self.step):
                assert self._end() is not None, f"a reply was waited for, but it is the time for {self.events[:1]}"
                raise ConnectionResetError("closed")
        return response

    def take_heard(self) -> bytes:
        return self._replies.take()

    def put_back(self, data: bytes) -> None:
        self._replies.put_back(data)

    def hear_more(self) -> bytes:
        if self._replies.is_empty:
            self._hear(self.step)
        return self._replies.take()

    def send_at_once(self, data: bytes, seconds: float) -> None:
        self.send(data, seconds)

    def has_unasked(self) -> bool:
        coming = bool(self.events) and self.events[0][0] == "S" and self.events[-1] != BROKEN
        return coming or not self._replies.is_empty

    def is_quiet(self) -> bool:
        return not self.has_unasked()

    def intend(self) -> None:
        assert self.events[:1] == [("I", b"\r\n")], f"too early or too late: it is the time for {self.events[:1]}"
        del self.events[0]

    def _end(self) -> bytes | None:
        return self.events[0][1] if self.events and self.events[0][0] == "X" else None

    def _hear(self, step: int) -> bool:
        """Let some octets of the relay come; whether there were any."""
        if not self.events or self.events[0][0] != "S":
            return False
        text = self.events[0][1]
        some = text[: step or len(text)]
        self._replies.feed(some)
        if some == text:
            del self.events[0]
        else:
            self.events[0] = ("S", text[len(some) :])
        return True


def speak(written: Written, step: int) -> tuple[Outcome, Progress, Paper]:
    """Hold the conversation."""
    head = written.head
    lmtp = "lmtp" in head
    envelope = Envelope("sender@example.org", tuple(f"{name}@example.org" for name in head["recipients"].split()))
    message = io.BytesIO(head.get("message", MESSAGE).replace("\\n", "\n").encode())
    settings = RelaySettings(
        notify=Notify(tuple(head.get("notify", "").split()), head.get("ret", "")),
        recipient_limit=int(head["limit"]) if "limit" in head else None,
    )
    progress = Progress(envelope, opened=True)
    paper = Paper(list(written.events), step)
    relay = smtplib.LMTP() if lmtp else smtplib.SMTP()
    relay.esmtp_features = features_of(head)
    with mock.patch.object(connection, "open_channel", return_value=paper):
        made = SMTPConnection(relay, settings, RelayMemory(), ManualClock(), pipelining=True)
    made._has_taken = "proven" in head
    try:
        converse(made, Attempt(progress, message, paper.intend), Alone())
    except smtplib.SMTPException as error:
        return failed("relay", progress, error), progress, paper
    return succeeded("relay", progress), progress, paper


def features_of(head: dict[str, str]) -> dict[str, str]:
    """What the relay announces."""
    return {name.lower(): value for name, _, value in (each.partition("=") for each in head["offers"].split())}


def told(reply: Reply | None) -> str:
    return " ".join(filter(None, (reply.answer.value, str(reply.code or "")))) if reply else ""


class ADialogue(unittest.TestCase):
    def check(self, path: Path, step: int) -> None:
        """One file: every line was spoken, and everybody has the answer that is expected."""
        written = Written.read(path)
        expected = written.expected
        outcome, progress, paper = speak(written, step)
        said = {recipient.partition("@")[0]: told(reply) for recipient, reply in outcome.replies.items()}
        names = {"fault", "connection", "promise", "unasked"}
        self.assertEqual(said, {name: told for name, told in expected.items() if name not in names}, outcome)
        fault = expected.get("fault", "")
        self.assertEqual(told(outcome.fault), f"deferred {fault}" if fault.isdigit() else "deferred" * bool(fault))
        unasked = [recipient.partition("@")[0] for recipient in outcome.unasked]
        self.assertEqual(unasked, expected.get("unasked", "").split())
        self.assertEqual(progress.pipelining_failed, "promise" in expected)
        left = [event for event in paper.events if event[0] != "X"]
        if not fault:
            self.assertEqual(progress.out_of_sync or paper.has_unasked(), "connection" in expected)
            left = [event for event in left if event[0] != "S"] if "connection" in expected else left
        self.assertEqual([event for event in left if event[0] != "S" or not fault], [])

    def test_as_it_is_written(self) -> None:
        """Each reply in one piece."""
        for path in files():
            with self.subTest(path.stem):
                self.check(path, 0)

    def test_in_single_octets(self) -> None:
        """The same, with every reply cut into octets."""
        for path in files():
            with self.subTest(path.stem):
                self.check(path, 1)

    def test_there_are_enough(self) -> None:
        """The files are there, wherever the tests run."""
        self.assertGreaterEqual(len(files()), 60)


class RepliesAreRead(unittest.TestCase):
    def test_limits(self) -> None:
        """A line, a reply, and what has no end at all, are cut off."""
        long_line = b"250 " + b"x" * MAX_LINE
        for endless in (long_line, long_line + b"\r\n", b"250-x\r\n" * (MAX_LINES + 1), b"250-" + b"x" * MAX_LINE):
            replies = ReplyReader()
            replies.feed(endless)
            with self.assertRaises(MalformedReply):
                replies.next()

    def test_line_ends(self) -> None:
        """LF alone is taken; a lone CR ends nothing."""
        replies = ReplyReader()
        replies.feed(b"250-one\n250 t\rwo\r\n")
        self.assertEqual(replies.next(), Response(250, b"one\nt\rwo"))
        self.assertTrue(replies.is_empty)

    def test_rest_is_kept(self) -> None:
        """What follows a reply is the next one, or a part of it."""
        replies = ReplyReader()
        replies.feed(b"250 one\r\n550 two\r\n35")
        self.assertEqual([replies.next(), replies.next()], [Response(250, b"one"), Response(550, b"two")])
        self.assertIsNone(replies.next())
        self.assertFalse(replies.is_empty)
        replies.feed(b"4\r\n")
        self.assertEqual(replies.next(), Response(354, b""))


if __name__ == "__main__":
    unittest.main()
