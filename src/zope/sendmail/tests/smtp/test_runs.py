"""`zope.sendmail.smtp.pipeline`: the conversations ``dialogues/run-*.txt``, several mails each, without a socket.

As in `test_dialogues`, and: ``then`` has the recipients of the further mails, a ``|`` between them,
and ``then-message`` their text.  ``N`` is a new connection.  At the end, ``fault`` names the mails (by their first
recipient) for which the relay could not be used, and ``unread`` those whose message cannot be read.
"""

from __future__ import annotations

import io
import smtplib
import unittest
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any, BinaryIO
from unittest import mock

from zope.interface import implementer

from zope.sendmail.config.settings import RelaySettings
from zope.sendmail.interfaces import IJob, IOrdinaryJob
from zope.sendmail.lifecycle.outcome import Outcome, Reply
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.smtp import connection
from zope.sendmail.smtp.ordinary import OrdinaryAttempt, StraightWay
from zope.sendmail.smtp.pipeline import Result
from zope.sendmail.smtp.protocol.commands import Extensions
from zope.sendmail.smtp.session import SMTPSession
from zope.sendmail.testing.contracts import ManualClock
from zope.sendmail.tests.smtp.test_dialogues import FOLDER, MESSAGE, Paper, Written, features_of, files, told
from zope.sendmail.tests.support.conversation import Jobs

NEW = ("N", b"\r\n")


@implementer(IJob)
@dataclass
class Job:
    """A mail; who is asked to `intend` is the one whose text comes next."""

    run: ARunOfMails
    recipients: tuple[str, ...]
    written: str
    envelope: Envelope = field(init=False)

    def __post_init__(self) -> None:
        self.envelope = Envelope("sender@example.org", tuple(f"{name}@example.org" for name in self.recipients))

    def open(self) -> BinaryIO:
        """See `IJob`."""
        if self.written == "unreadable":
            return _Unreadable()
        return io.BytesIO(self.octets)

    @property
    def octets(self) -> bytes:
        """What the file says of the message."""
        return self.written.replace("\\n", "\n").encode()

    def intend(self) -> None:
        """See `IJob`."""
        self.run.papers[-1].intend()


@implementer(IOrdinaryJob)
class OrdinaryJob(Job):
    """The same mail, which has been read already."""

    @property
    def text(self) -> bytes | None:
        """See `IOrdinaryJob`."""
        return None if self.written == "unreadable" else self.octets


class _Unreadable(io.BytesIO):
    def read(self, size: int | None = -1, /) -> bytes:
        raise OSError("the disk fails")


class ARunOfMails(unittest.TestCase):
    job: type[Job] = Job
    source: type[Jobs] = Jobs

    def setUp(self) -> None:
        self.papers: list[Paper] = []

    def hold(self, written: Written, step: int) -> list[tuple[IJob, Result]]:
        """Hold the conversation."""
        head = written.head
        self.papers = []
        coming = _split(list(written.events))

        def connect(settings: RelaySettings) -> Any:
            assert coming, "a further connection was made"
            self.papers.append(Paper(coming.pop(0), step))
            connection = smtplib.LMTP() if "lmtp" in head else smtplib.SMTP()
            pairs = (each.partition("=") for each in head["offers"].split())
            connection.esmtp_features = {name.lower(): value for name, _, value in pairs}
            return connection

        self.clock = ManualClock()
        self.session = session = SMTPSession(RelaySettings, connect, self.clock)
        with mock.patch.object(connection, "open_channel", side_effect=lambda _: self.papers[-1]):
            if "proven" in head:
                session._open(pipelining=True)
                assert session._current is not None
                session._current.connection._has_taken = True  # type: ignore[attr-defined]  # the relay has hung up by now
            results = list(session.stream(self.source(self.jobs(head))))
        self.assertEqual(coming, [], "there should have been a further connection")
        return results

    def jobs(self, head: dict[str, str]) -> Iterator[Job]:
        yield self.job(self, tuple(head["recipients"].split()), head.get("message", MESSAGE))
        for names in filter(None, head.get("then", "").split("|")):
            yield self.job(self, tuple(names.split()), head.get("then-message", MESSAGE))

    def check(self, path: Path, step: int) -> None:
        """One file: every line was spoken, and everybody has the answer that is expected."""
        written = Written.read(path)
        said: dict[str, str] = {}
        for job, result in self.hold(written, step):
            first = job.envelope.recipients[0].partition("@")[0]
            if isinstance(result, Outcome):
                said |= {who.partition("@")[0]: told(reply) for who, reply in result.replies.items()}
                said["fault"] = f"{said.get('fault', '')} {first if result.fault else ''}".strip()
            else:
                said["unread"] = f"{said.get('unread', '')} {first}".strip()
        self.assertEqual({name: words for name, words in said.items() if words}, written.expected)
        self.assertEqual([event for paper in self.papers for event in paper.events if event[0] in "CI"], [])

    def test_as_it_is_written(self) -> None:
        """Each reply in one piece."""
        for path in sorted(FOLDER.glob("run-*.txt")):
            with self.subTest(path.stem):
                self.check(path, 0)

    def test_in_single_octets(self) -> None:
        """The same, with every reply cut into octets."""
        for path in sorted(FOLDER.glob("run-*.txt")):
            with self.subTest(path.stem):
                self.check(path, 1)

    def test_there_are_enough(self) -> None:
        """The files are there, wherever the tests run."""
        self.assertGreaterEqual(len(list(FOLDER.glob("run-*.txt"))), 20)


class ARunOfOrdinaryMails(ARunOfMails):
    """Whose envelopes and texts were made at once: they say the same, and are answered the same."""

    job: type[Job] = OrdinaryJob

    def test_how_long_the_relay_is_waited_for(self) -> None:
        """Is told once: the shortest time that a mail has waited, for the replies to its envelope and for the last."""
        flights, waits = iter((0.0, 2.0, 1.0)), iter((0.5, 0.25, 0.75))
        hear_flight, hear_end = StraightWay.hear_flight, StraightWay.hear_end

        def hear_slowly(way: StraightWay, attempt: OrdinaryAttempt, *, more: bool = False) -> bool | None:
            if not more:
                self.clock.advance(next(flights))
            return hear_flight(way, attempt, more=more)

        def slowly(way: StraightWay) -> Reply | None:
            self.clock.advance(next(waits))
            return hear_end(way)

        with (
            mock.patch.object(StraightWay, "hear_end", slowly),
            mock.patch.object(StraightWay, "hear_flight", hear_slowly),
        ):
            self.hold(Written.read(FOLDER / "run-steady.txt"), 0)
        self.assertEqual((self.session.waited(), self.session.waited()), (0.5, inf))

    def test_what_else_is_to_be_done_is_done_while_the_relay_works(self) -> None:
        """When the text of an ordinary mail has gone, with what follows it, and nothing of the reply was read."""
        coming: list[tuple[str, bytes]] = []

        class BusyJobs(Jobs):
            def meanwhile(source) -> None:  # noqa: N805 - `self` is the test
                kind, words = self.papers[-1].events[0]
                coming.append((kind, words.partition(b"\r\n")[0]))

        self.source = BusyJobs
        self.hold(Written.read(FOLDER / "run-steady.txt"), 1)
        self.assertEqual(coming, [("S", b"250 2.0.0 queued")] * 2)


class EveryDialogueBehindAnotherMail(ARunOfMails):
    """The conversations about one mail, in which it is the second: its envelope goes with the end of a first one."""

    def told(self, written: Written, step: int, job: type[Job]) -> tuple[dict[str, str], object, list[object]]:
        """Return what became of each recipient, what was not said, and how it broke off."""
        self.job = job
        said: dict[str, str] = {}
        broken: list[object] = []
        for each, result in self.hold(written, step):
            if isinstance(result, Outcome):
                said |= {who: f"{reply.answer} {reply}" for who, reply in result.replies.items()}
                said[f"fault of {each.envelope.recipients[0]}"] = str(result.fault)
            else:
                broken.append((type(result), str(result)))
        left = [event for paper in self.papers for event in paper.events if event[0] in "CI"]
        return said, left, broken

    def behind_another(self, written: Written) -> Written | None:
        """Return the run; None if the mail is none that goes the short way."""
        head = written.head
        recipients, text = head["recipients"], head.get("message", MESSAGE)
        first, own = (
            OrdinaryJob(self, tuple(names.split()), words) for names, words in (("zero", MESSAGE), (recipients, text))
        )
        one, other = (OrdinaryAttempt(each, each.octets) for each in (first, own))
        extensions = Extensions.of(features_of(head))
        if not (extensions.pipelining and one.write(extensions) and other.write(extensions)):
            return None
        (kind, flight), *rest = written.events or [("", b"")]
        if kind != "C" or flight != other.flight or "lmtp" in head or "limit" in head or "notify" in head:
            return None
        replies = b"250 2.0.0 taken\r\n" + (rest.pop(0)[1] if rest[:1] and rest[0][0] == "S" else b"")
        events = [
            ("C", one.flight),
            ("S", b"250 ok\r\n250 ok\r\n354 go ahead\r\n"),
            ("I", b"\r\n"),
            ("C", one.piece + flight),
            ("S", replies),
            *rest,
        ]
        run = {**head, "recipients": "zero", "then": recipients, "message": MESSAGE, "then-message": text, "proven": ""}
        return Written(run, events, {})

    def compare(self, step: int) -> None:
        count = 0
        for path in files():
            run = self.behind_another(Written.read(path))
            if run is not None:
                count += 1
                with self.subTest(path.stem):
                    self.assertEqual(self.told(run, step, OrdinaryJob), self.told(run, step, Job))
        self.assertGreater(count, 20)

    def test_as_it_is_written(self) -> None:
        """Both ways say the same, and understand the same."""
        self.compare(0)

    def test_in_single_octets(self) -> None:
        """The same, with every reply cut into octets."""
        self.compare(1)


def _split(events: list[tuple[str, bytes]]) -> list[list[tuple[str, bytes]]]:
    """The events of each connection."""
    connections: list[list[tuple[str, bytes]]] = [[]]
    for event in events:
        if event == NEW:
            connections.append([])
        else:
            connections[-1].append(event)
    return connections


if __name__ == "__main__":
    unittest.main()
