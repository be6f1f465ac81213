"""Something has written into one file of a queue, whichever it is: all other mail flows, once, and people see it.

The queue has mail in each state, and every kind of file that a Maildir has when no processor is running.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import os
import shutil
import tempfile
import unittest
from collections import Counter
from pathlib import Path
from unittest import mock

from hypothesis import given, settings, strategies as st

from zope.sendmail.cli import queuecommands
from zope.sendmail.lifecycle.outcome import Answer, Outcome, Reply
from zope.sendmail.lifecycle.relaystate import ProcessorState
from zope.sendmail.lifecycle.retry import judge
from zope.sendmail.lifecycle.suppression import Suppression
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.terms import PLAIN, Priority, Terms
from zope.sendmail.processor.thread import QueueProcessorThread
from zope.sendmail.queue import open_queue, put
from zope.sendmail.queue.maildir import staging
from zope.sendmail.queue.maildir.queue import MaildirQueue
from zope.sendmail.queue.maildir.unfolder import flush
from zope.sendmail.testing.contracts.situation import SCHEDULE, ManualClock
from zope.sendmail.testing.scriptedmailer import ScriptedMailer
from zope.sendmail.tests.support.changedbytes import changed
from zope.sendmail.tests.support.layers import Properties, in_layer
from zope.sendmail.tests.support.properties import SAME, examples

ACCEPTED = Reply(Answer.ACCEPTED, "ok", 250)
LATER = Reply(Answer.DEFERRED, "greylisted", 450)
NEVER = Reply(Answer.REJECTED, "no such user", 550)


#: Who is to get a mail of the queue.
READY = frozenset(f"{name}@example.com" for name in ("deferred", "ready", "key", *(f"bundle{n}" for n in range(12))))
#: Those with a mail that is not to be sent.
OTHERS = frozenset(f"{name}@example.com" for name in ("sent", "rejected", "held", "doubtful"))
VERBS = ("list", "count", "doctor", "relays", "shape", "errors", "show", "status")


def _open(path: str, clock: ManualClock) -> MaildirQueue:
    return MaildirQueue(path, schedule=SCHEDULE, clock=clock)


def _envelope(recipient: str, terms: Terms = PLAIN) -> Envelope:
    return Envelope("sender@example.org", (recipient,), terms=terms)


def _put(queue: MaildirQueue, recipient: str, terms: Terms = PLAIN) -> str:
    staged = queue.stage()
    name = staged.add(_envelope(recipient, terms), f"Message-Id: <{recipient}>\nSubject: x\n\nText\n".encode())
    staged.prepare()
    staged.commit()
    return name


def _settle(queue: MaildirQueue, recipient: str, reply: Reply, now: float) -> None:
    _put(queue, recipient)
    [lease] = queue.claim()
    lease.intend()
    outcome = Outcome("relay:25", {recipient: reply})
    lease.settle(judge(lease.record, lease.envelope, outcome, SCHEDULE, now=now, chance=0.5))


@functools.cache
def _template() -> tempfile.TemporaryDirectory[str]:
    """Return a directory with a queue in it that has a mail of each kind, which no process has open."""
    directory = tempfile.TemporaryDirectory()
    clock = ManualClock()
    queue = _open(f"{directory.name}/queue", clock)
    queue.stage()
    _settle(queue, "rejected@example.com", NEVER, clock.time())
    _settle(queue, "sent@example.com", ACCEPTED, clock.time())
    _settle(queue, "deferred@example.com", LATER, clock.time())
    queue.admin.hold(_put(queue, "held@example.com"))
    _put(queue, "ready@example.com")
    _put(queue, "key@example.com", Terms(priority=Priority.HIGH, key="k", key_until=clock.time() + 9e6))
    queue.suppressions.add(Suppression.of("gone@example.com", "no such user", since=clock.time()))
    queue.admin.probe("relay:25")
    queue.report(ProcessorState())
    with mock.patch.object(staging, "later"):
        put(queue, [_envelope(f"bundle{number}@example.com") for number in range(12)], b"Subject: many\n\nText\n")
    doubtful = queue.stage()
    doubtful.add(_envelope("doubtful@example.com"), b"Subject: x\n\nText\n")
    doubtful.prepare()
    staged = {path: Path(path).read_bytes() for path in _files(f"{directory.name}/queue/tmp")}
    doubtful.abort()
    queue.close()
    for path, text in staged.items():  # as a death between vote and finish leaves it
        Path(path).write_bytes(text)
    return directory


def _files(path: str) -> list[str]:
    """Return the paths of all files there, sorted."""
    found = [os.path.join(root, name) for root, _, names in os.walk(path) for name in names]
    return sorted(each for each in found if os.path.isfile(each))


def _about(path: str, text: bytes) -> set[str]:
    """Return the recipients about whom a file of the queue says anything."""
    if "/.group-" in path:
        return {who for who in READY if who.startswith("bundle")}
    if "/history/" in path:
        found = [path.replace("/history/", place) for place in ("/new/", "/new/.rejected-")]
        return {who for each in found if os.path.exists(each) for who in _about(each, Path(each).read_bytes())}
    return {who for who in READY | OTHERS if f"X-Zope-To: {who}".encode() in text}


class AFileOfAQueue(unittest.TestCase):
    """Is changed, whichever it is."""

    def setUp(self) -> None:
        logging.disable(logging.CRITICAL)
        self.addCleanup(logging.disable, logging.NOTSET)

    @settings(SAME, max_examples=examples(40))
    @given(st.data())
    def test_keeps_no_other_mail(self, data: st.DataObject) -> None:
        """Operators see the queue, every other mail is sent once, and none that is not to be."""
        template = f"{_template().name}/queue"
        path = data.draw(st.sampled_from([os.path.relpath(each, template) for each in _files(template)]), "path")
        text = Path(template, path).read_bytes()
        about = _about(f"{template}/{path}", text)
        with tempfile.TemporaryDirectory() as directory:
            queue = shutil.copytree(template, f"{directory}/queue")
            Path(queue, path).write_bytes(data.draw(changed([text]), "octets"))
            clock = ManualClock()
            for verb in VERBS:
                self.look(verb, queue, clock)
            sent = Counter(self.drain(queue, clock))
            flush(60.0)
        self.assertEqual({who: sent[who] for who in READY - about}, dict.fromkeys(READY - about, 1))
        self.assertEqual(set(sent) & (OTHERS - about), set())

    def look(self, verb: str, path: str, clock: ManualClock) -> None:
        """Call ``zope-sendmail queue``; it ends with an exit status, whatever it says."""
        with (
            mock.patch.object(queuecommands, "Clock", return_value=clock),
            mock.patch.object(queuecommands, "open_queue", functools.partial(open_queue, clock=clock)),
            contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO(), "utf-8")),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            arguments = {"show": list(_open(path, clock).admin.names()), "status": ["ready@example.com"]}
            queuecommands.main([verb, path, *arguments.get(verb, [])])

    def drain(self, path: str, clock: ManualClock) -> list[str]:
        """Run a processor for some hours; return who has got mail."""
        mailer = ScriptedMailer()
        queue = _open(path, clock)
        processor = QueueProcessorThread(
            queue=queue, mailer=mailer, schedule=SCHEDULE, clock=clock, tell=lambda events: None
        )
        for _ in range(4):
            processor.run(forever=False)
            clock.advance(3600.0)
        queue.close()
        return [who for _, recipients, _ in mailer.sent for who in recipients]


load_tests = in_layer(Properties)
