"""What OpenTelemetry is told of a mail, whichever queue it goes through."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import unittest
from typing import Any

import transaction

from zope.sendmail.delivery import DirectMailDelivery, QueuedMailDelivery
from zope.sendmail.errors import InvalidAddress
from zope.sendmail.lifecycle.outcome import Answer, Reply
from zope.sendmail.lifecycle.retry import Schedule
from zope.sendmail.processor.thread import QueueProcessorThread
from zope.sendmail.queue import open_queue
from zope.sendmail.queue.memory import MemoryQueue
from zope.sendmail.reporting import observers
from zope.sendmail.testing.contracts import ManualClock
from zope.sendmail.testing.relay import Relay
from zope.sendmail.testing.scriptedmailer import ScriptedMailer

try:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    from opentelemetry.semconv._incubating.attributes import messaging_attributes
    from opentelemetry.semconv.attributes import error_attributes, server_attributes
    from opentelemetry.trace import SpanKind, StatusCode

    from zope.sendmail.traces import instrument, semconv
except ImportError:  # zope.testrunner takes a module that skips itself for one that is broken
    MISSING = "OpenTelemetry is not installed: pip install zope.sendmail[otel] opentelemetry-sdk"
else:
    MISSING = ""

MESSAGE = "Subject: private words\n\nText\n"
GREYLISTED = Reply(Answer.DEFERRED, "come again, jane@example.org", 450, "4.7.1")


class Fixture(unittest.TestCase):
    """A producer, a queue and a processor; what they trace is kept in memory."""

    def setUp(self) -> None:
        if MISSING:
            self.skipTest(MISSING)
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.addCleanup(instrument(self.provider).end)
        self.tracer = self.provider.get_tracer("application")
        self.clock = ManualClock()
        self.mailer = ScriptedMailer()
        self.directory = self.enterContext(tempfile.TemporaryDirectory())

    def spans(self, operation: str) -> list[Any]:
        """Return the spans of an operation, in their order."""
        found = self.exporter.get_finished_spans()
        return [span for span in found if (span.attributes or {}).get("messaging.operation.name") == operation]

    def drain(self, queue: Any, seconds: float = 0.0) -> None:
        self.clock.advance(seconds)
        QueueProcessorThread(
            queue=queue,
            mailer=self.mailer,
            schedule=Schedule(first=60, jitter=0),
            clock=self.clock,
            tell=lambda events: None,
        ).run(forever=False)


class AQueue(Fixture):
    """Here one in a Maildir."""

    def location(self) -> str:
        return os.path.join(self.directory, "queue")

    def open(self) -> Any:
        queue = open_queue(self.location(), clock=self.clock)
        self.addCleanup(queue.close)
        return queue

    def send(self, queue: Any, *recipients: str, **options: Any) -> str:
        """Send a mail within a span of the application; return its Message-Id."""
        delivery = QueuedMailDelivery(self.location())
        delivery._queue, delivery._place = queue, os.path.abspath(self.location())
        delivery = self.delivery(delivery, queue)
        with self.tracer.start_as_current_span("order"):
            return delivery.send_now("shop@example.org", recipients or ("jane@example.org",), MESSAGE, **options)

    def delivery(self, delivery: QueuedMailDelivery, queue: Any) -> QueuedMailDelivery:
        return delivery

    def test_carries_the_trace_of_the_producer_to_the_first_attempt(self) -> None:
        """`send` is a child of the caller's span, and the first attempt one of `send`."""
        queue = self.open()
        message_id = self.send(queue)
        self.drain(queue)
        [send], [process] = self.spans("send"), self.spans("process")
        [order] = [span for span in self.exporter.get_finished_spans() if span.name == "order"]
        self.assertEqual(send.parent.span_id, order.context.span_id)
        self.assertEqual(process.parent.span_id, send.context.span_id)
        self.assertEqual(process.context.trace_id, order.context.trace_id)
        self.assertEqual((send.kind, process.kind), (SpanKind.PRODUCER, SpanKind.CONSUMER))
        for span in (send, process):
            self.assertEqual(span.attributes["messaging.message.id"], message_id)
            self.assertEqual(span.attributes["messaging.destination.name"], queue.location)

    def test_links_later_attempts_with_the_producer(self) -> None:
        """Each is a trace of its own: it may be days later."""
        queue = self.open()
        self.mailer.answers = lambda who: GREYLISTED
        self.send(queue)
        self.drain(queue)
        self.mailer.answers = lambda who: Reply(Answer.ACCEPTED, "ok", 250)
        self.drain(queue, 3600.0)
        [send], [first, second] = self.spans("send"), self.spans("process")
        self.assertEqual(first.parent.span_id, send.context.span_id)
        self.assertIsNone(second.parent)
        self.assertNotEqual(second.context.trace_id, send.context.trace_id)
        self.assertEqual([link.context.span_id for link in second.links], [send.context.span_id])
        self.assertEqual((first.status.status_code, second.status.status_code), (StatusCode.ERROR, StatusCode.UNSET))

    def test_tells_the_relay_nothing(self) -> None:
        """The context goes with the envelope, never in the mail."""
        queue = self.open()
        self.send(queue)
        self.drain(queue)
        [(_, _, text)] = self.mailer.sent
        self.assertNotIn(b"trace", text.lower())
        self.assertTrue(text.endswith(b"Subject: private words\n\nText\n"))

    def test_tells_the_collector_nothing_private(self) -> None:
        """No address and no text of a mail or a reply is in a span."""
        queue = self.open()
        self.mailer.answers = lambda who: GREYLISTED
        self.send(queue, "jane@example.org", "joe@example.org")
        self.drain(queue)
        everything = "".join(span.to_json() for span in self.exporter.get_finished_spans())
        for words in ("jane", "joe", "shop@", "private", "come again"):
            self.assertNotIn(words, everything)
        [process] = self.spans("process")
        self.assertEqual(process.status.description, "450 4.7.1")
        self.assertEqual(process.attributes["error.type"], "deferred")
        self.assertEqual(process.attributes["zope.sendmail.recipients.deferred"], 2)

    def test_has_mail_of_before(self) -> None:
        """Its attempts are traces of their own, and mail of a traced program goes on without tracing."""
        queue = self.open()
        tracing = instrument(self.provider)
        tracing.end()
        self.send(queue)
        instrument(self.provider)
        self.drain(queue)
        [process] = self.spans("process")
        self.assertIsNone(process.parent)
        self.assertEqual(process.links, ())
        self.send(queue)
        attempts_before = len(self.mailer.sent)
        instrument(self.provider).end()
        self.drain(queue)
        self.assertEqual(len(self.mailer.sent), attempts_before + 1)


class AQueueInMemory(AQueue):
    def open(self) -> Any:
        return MemoryQueue(clock=self.clock)


class ASpool(AQueue):
    def location(self) -> str:
        return "spool:" + os.path.join(self.directory, "spool")

    def setUp(self) -> None:
        super().setUp()
        os.mkdir(os.path.join(self.directory, "spool"), 0o700)


class OneMailForEachRecipient(AQueue):
    def test_is_one_send_and_an_attempt_for_each(self) -> None:
        """All of them under the span of `send`, which says how many."""
        queue = self.open()
        self.send(queue, "jane@example.org", "joe@example.org", verp=True)
        self.drain(queue)
        [send], process = self.spans("send"), self.spans("process")
        self.assertEqual(send.attributes["messaging.batch.message_count"], 2)
        self.assertEqual({span.parent.span_id for span in process}, {send.context.span_id})
        self.assertEqual(len(process), 2)


class ATransaction(Fixture):
    def test_is_traced_where_the_mail_is_handed_over(self) -> None:
        """Also if it is aborted: nothing is sent then."""
        location = os.path.join(self.directory, "queue")
        delivery = QueuedMailDelivery(location)
        delivery.send("shop@example.org", ["jane@example.org"], MESSAGE)
        transaction.abort()
        delivery.send("shop@example.org", ["jane@example.org"], MESSAGE)
        transaction.commit()
        self.drain(delivery.queue)
        self.assertEqual((len(self.spans("send")), len(self.spans("process"))), (2, 1))

    def test_of_a_mail_that_is_refused(self) -> None:
        """The class of the error is told, not its text."""
        delivery = QueuedMailDelivery(os.path.join(self.directory, "queue"))
        with self.assertRaises(InvalidAddress):
            delivery.send("shop@example.org", ["jane doe@example.org"], MESSAGE)
        transaction.abort()
        [send] = self.spans("send")
        self.assertEqual(send.attributes["error.type"], "InvalidRecipient")
        self.assertNotIn("jane", send.to_json())


class DirectDelivery(Fixture):
    def test_has_a_span_for_its_attempt(self) -> None:
        """Without a queue, and under the span of `send`."""
        from zope.sendmail.mailer import SMTPMailer

        with Relay() as relay:
            delivery = DirectMailDelivery(SMTPMailer(relay.host, relay.port))
            delivery.send("shop@example.org", ["jane@example.org"], MESSAGE)
            transaction.commit()
            port = relay.port
        [send], [process] = self.spans("send"), self.spans("process")
        self.assertEqual(process.parent.span_id, send.context.span_id)
        self.assertEqual(process.attributes["zope.sendmail.state"], "sent")
        self.assertEqual((process.attributes["server.address"], process.attributes["server.port"]), ("127.0.0.1", port))
        self.assertNotIn("messaging.destination.name", process.attributes)

    def test_tells_observers_of_a_relay_that_cannot_be_used(self) -> None:
        """The vote stops; there was no attempt."""
        faults: list[Any] = []

        class Notebook:
            def attempted(self, record: Any) -> None:
                raise AssertionError

            def faulted(self, record: Any) -> None:
                faults.append(record)

        from zope.sendmail.mailer import SMTPMailer

        with Relay() as relay:
            relay.on("EHLO", "421 4.3.2 closed")
            relay.on("HELO", "421 4.3.2 closed")
            with observers.observing(Notebook()):
                DirectMailDelivery(SMTPMailer(relay.host, relay.port)).send(
                    "shop@example.org", ["jane@example.org"], MESSAGE
                )
                with self.assertRaises(Exception):  # noqa: B017 - which one is test_directmail's
                    transaction.commit()
                transaction.abort()
        self.assertEqual([fault.reply.code for fault in faults], [421])


class Conventions(unittest.TestCase):
    def setUp(self) -> None:
        if MISSING:
            self.skipTest(MISSING)

    def test_are_those_of_opentelemetry(self) -> None:
        """The names are what its package of conventions has."""
        names = {value for key, value in vars(messaging_attributes).items() if key.isupper()}
        names |= {value for key, value in vars(server_attributes).items() if key.isupper()}
        names |= {value for key, value in vars(error_attributes).items() if key.isupper()}
        used = {value for key, value in vars(semconv).items() if key.isupper() and isinstance(value, str)}
        ours = {"zope.sendmail", semconv.ATTEMPT, semconv.STATE, semconv.RECIPIENTS}
        self.assertEqual(used - ours - names, set())

    def test_have_servers_as_host_and_port(self) -> None:
        """Or as the name of a mailer that has none."""
        for relay, expected in (
            ("relay.example.org:25", {"server.address": "relay.example.org", "server.port": 25}),
            ("[2001:db8::1]:587", {"server.address": "2001:db8::1", "server.port": 587}),
            ("bulk", {"server.address": "bulk"}),
            ("", {}),
        ):
            with self.subTest(relay):
                self.assertEqual(semconv.server(relay), expected)


class WithoutTheExtra(unittest.TestCase):
    def test_nothing_of_it_is_imported(self) -> None:
        """Neither by sending, nor by a processor."""
        code = (
            "import sys; sys.modules['opentelemetry'] = None\n"
            "import zope.sendmail.sender, zope.sendmail.cli.app, zope.sendmail.reporting.sendtraces\n"
            "print([name for name in sys.modules if name.startswith('opentelemetry.')])"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        self.assertEqual(done.stdout.strip(), "[]")

    def test_the_command_says_what_is_missing(self) -> None:
        """And what to install."""
        code = (
            "import sys; sys.modules['opentelemetry'] = None\n"
            "from zope.sendmail.cli.app import main; main(['--traces', 'nowhere'])"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        self.assertEqual(done.returncode, 2)
        self.assertIn("pip install 'zope.sendmail[otel]'", done.stderr)
