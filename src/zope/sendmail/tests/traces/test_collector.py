"""A producer and a daemon, each a process, tell one collector of a mail over OTLP."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import unittest

from zope.sendmail.testing.relay import Relay
from zope.sendmail.tests.support.layers import Processes, in_layer
from zope.sendmail.tests.support.otlp import Collector, attributes

try:
    import opentelemetry.exporter.otlp.proto.http.trace_exporter
    import opentelemetry.sdk.trace  # noqa: F401 - only whether it is there
except ImportError as error:  # zope.testrunner takes a module that skips itself for one that is broken
    MISSING = f"{error.name} is not installed"
else:
    MISSING = ""

#: What opentelemetry-instrument does before a program, in short.
_EXPORT = """
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)
"""

_PRODUCER = """
import sys
from zope.sendmail.sender import MailWriter
from zope.sendmail.traces import instrument

instrument()
with trace.get_tracer("shop").start_as_current_span("order"):
    MailWriter(sys.argv[1]).send("shop@example.org", ["jane@example.org"], "Subject: x\\n\\nText\\n")
"""

_DAEMON = """
import sys
from zope.sendmail.cli.app import main

sys.exit(main(["--traces", *sys.argv[1:]]))
"""


class ACollector(unittest.TestCase):
    def setUp(self) -> None:
        if MISSING:
            self.skipTest(MISSING)
        self.queue = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "queue")
        self.collector = self.enterContext(Collector())
        self.relay = self.enterContext(Relay())

    def run_program(self, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.collector.url,
            "no_proxy": "127.0.0.1",
        }
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def send(self, *options: str) -> subprocess.CompletedProcess[str]:
        relay = ("--hostname", self.relay.host, "--port", str(self.relay.port))
        return self.run_program(_EXPORT + _DAEMON, *relay, *options, self.queue)

    def test_sees_one_trace_of_two_processes(self) -> None:
        """From the order to the relay."""
        produced = self.run_program(_EXPORT + _PRODUCER, self.queue)
        self.assertEqual(produced.returncode, 0, produced.stderr)
        sent = self.send()
        self.assertEqual(sent.returncode, 0, sent.stderr)
        spans = {span.name.partition(" ")[0]: span for span in self.collector.spans}
        order, send, process = spans["order"], spans["send"], spans["process"]
        self.assertEqual({span.trace_id for span in (order, send, process)}, {order.trace_id})
        self.assertEqual((send.parent_span_id, process.parent_span_id), (order.span_id, send.span_id))
        found = attributes(process)
        self.assertEqual((found["messaging.system"], found["server.port"]), ("zope.sendmail", self.relay.port))
        [mail] = self.relay.mails
        self.assertNotIn(order.trace_id.hex().encode(), mail.data)

    def test_sees_links_from_a_second_attempt(self) -> None:
        """To the span of ``send()``."""
        self.relay.on("RCPT", "450 4.7.1 come again", nth=1)
        self.run_program(_EXPORT + _PRODUCER, self.queue)
        self.assertEqual(self.send().returncode, os.EX_TEMPFAIL)
        code = f"from zope.sendmail.queue import open_queue\nadmin = open_queue({self.queue!r}).admin\n"
        code += "for name in list(admin.names()): admin.retry(name)"
        self.run_program(code)
        self.assertEqual(self.send().returncode, 0)
        [send] = [span for span in self.collector.spans if span.name.startswith("send ")]
        first, second = [span for span in self.collector.spans if span.name.startswith("process ")]
        self.assertEqual((first.parent_span_id, second.parent_span_id), (send.span_id, b""))
        self.assertEqual([link.span_id for link in second.links], [send.span_id])

    def test_that_is_nowhere_is_told(self) -> None:
        """A daemon that was told to trace, and not where to, does not begin."""
        done = self.run_program(_DAEMON, self.queue)
        self.assertEqual(done.returncode, 2)
        self.assertIn("opentelemetry-instrument", done.stderr)


load_tests = in_layer(Processes)
