"""What Prometheus is told."""

from __future__ import annotations

import errno
import re
import subprocess
import sys
import unittest
from typing import Any

from zope.sendmail.lifecycle.outcome import Answer, Reply
from zope.sendmail.processor.queuebackoff import QueueBackoff
from zope.sendmail.reporting import observers
from zope.sendmail.testing.contracts import ManualClock
from zope.sendmail.tests.support.processing import ProcessorTest

try:
    from prometheus_client import CollectorRegistry, generate_latest

    from zope.sendmail.metrics import ProcessorCollector, QueueCollector, instrument
    from zope.sendmail.metrics.health import Health
    from zope.sendmail.metrics.relaylabel import OTHERS, RelayLabels
    from zope.sendmail.metrics.server import MetricsApp
except ImportError:  # zope.testrunner takes a module that skips itself for one that is broken
    MISSING = "prometheus-client is not installed: pip install zope.sendmail[metrics]"
else:
    MISSING = ""

DOWN = Reply(Answer.DEFERRED, "connection refused")
WRONG_PASSWORD = Reply(Answer.DEFERRED, "authentication failed", 535, "5.7.8")


@unittest.skipIf(MISSING, MISSING)
class Fixture(ProcessorTest):
    def setUp(self) -> None:
        super().setUp()
        self.registry = CollectorRegistry()
        self.metrics = instrument(self.registry)
        self.addCleanup(observers.ignore, self.metrics)

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"zope_sendmail_{name}", labels)


class Attempts(Fixture):
    def test_are_counted_by_answer(self) -> None:
        """A recipient each."""
        self.mailer.answers = lambda who: (
            Reply(Answer.REJECTED, "no", 550) if who.startswith("joe") else Reply(Answer.ACCEPTED, "ok", 250)
        )
        self.put("jane@example.org", "joe@example.org", "jim@example.org")
        self.drain()
        relay = self.mailer.open_session().relay
        self.assertEqual(self.value("recipients_total", answer="accepted", relay=relay), 2)
        self.assertEqual(self.value("recipients_total", answer="rejected", relay=relay), 1)

    def test_are_measured(self) -> None:
        """How long they took, how old the mail was, how many bytes left."""
        self.mailer.before = lambda envelope: self.clock.advance(0.2)
        self.put()
        self.drain(4.0)
        relay = self.mailer.open_session().relay
        self.assertEqual(self.value("attempt_duration_seconds_count", relay=relay), 1)
        self.assertAlmostEqual(self.value("attempt_duration_seconds_sum", relay=relay) or 0, 0.2)
        self.assertAlmostEqual(self.value("commit_to_relay_seconds_sum") or 0, 4.2)
        self.assertGreater(self.value("sent_bytes_total", relay=relay) or 0, 0)

    def test_of_unknown_outcome_are_counted(self) -> None:
        """They are what an operator wants to be told about."""
        self.mailer.answers = lambda who: Reply(Answer.UNKNOWN, "connection lost")
        self.put()
        self.drain()
        self.assertEqual(self.value("unknown_total"), 1)

    def test_that_never_began_are_faults(self) -> None:
        """A login that was refused is counted by itself, from 0, as Prometheus sees a growth only then."""
        for fault, logins in ((DOWN, 0.0), (WRONG_PASSWORD, 1.0)):
            self.mailer.fault = fault
            self.put()
            self.drain(300.0)
            relay = self.mailer.open_session().relay
            self.assertEqual(self.value("login_failures_total", relay=relay), logins)
        self.assertEqual(self.value("relay_faults_total", relay=relay), 2)


@unittest.skipIf(MISSING, MISSING)
class Labels(unittest.TestCase):
    def test_are_few_however_many_relays_there_are(self) -> None:
        """A relay of each user must not cost Prometheus a series each."""
        labels = RelayLabels(most=2)
        names = [labels.of(name) for name in ("one", "two", "three", "one", "four")]
        self.assertEqual(names, ["one", "two", OTHERS, "one", OTHERS])


@unittest.skipIf(MISSING, MISSING)
class AQueue(ProcessorTest):
    def setUp(self) -> None:
        super().setUp()
        self.registry = CollectorRegistry()
        self.registry.register(QueueCollector("memory:", self.queue.admin, self.clock))

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"zope_sendmail_queue_{name}", {"queue": "memory:", **labels})

    def test_is_counted_by_state(self) -> None:
        """Each state has a number, 0 as well, so that an alert has something to compare with."""
        self.put(count=3)
        self.assertEqual(self.value("mails", state="ready"), 3)
        self.assertEqual(self.value("mails", state="rejected"), 0)

    def test_tells_the_age_of_its_oldest_mail(self) -> None:
        """0 if there is none."""
        self.assertEqual(self.value("oldest_age_seconds"), 0)
        self.put()
        self.clock.advance(90.0)
        self.assertEqual(self.value("oldest_age_seconds"), 90.0)

    def test_is_not_counted_at_every_scrape(self) -> None:
        """A deep queue takes a while to count."""
        self.assertEqual(self.value("mails", state="ready"), 0)
        self.put()
        self.clock.advance(9.0)
        self.assertEqual(self.value("mails", state="ready"), 0)
        self.clock.advance(1.0)
        self.assertEqual(self.value("mails", state="ready"), 1)

    def test_that_cannot_be_read_says_so(self) -> None:
        """And leaves out what is not known, instead of telling zeros."""

        class Refusing:
            def count(self) -> Any:
                raise OSError("no such directory")

        registry = CollectorRegistry()
        registry.register(QueueCollector("gone", Refusing(), ManualClock()))  # type: ignore[arg-type]  # enough of it
        self.assertEqual(registry.get_sample_value("zope_sendmail_queue_readable", {"queue": "gone"}), 0)
        self.assertIsNone(registry.get_sample_value("zope_sendmail_queue_mails", {"queue": "gone", "state": "ready"}))


@unittest.skipIf(MISSING, MISSING)
class Relays(ProcessorTest):
    def test_are_usable_or_not(self) -> None:
        """As the last attempt showed."""
        registry = CollectorRegistry()
        registry.register(ProcessorCollector(lambda: [self.processor]))
        name = self.mailer.open_session().relay
        for fault, usable in ((None, 1), (DOWN, 0)):
            self.mailer.fault = fault
            self.put()
            self.drain()
            self.assertEqual(registry.get_sample_value("zope_sendmail_relay_usable", {"relay": name}), usable)
        self.assertEqual(registry.get_sample_value("zope_sendmail_connections", {"relay": name}), 0)


class Processors(Fixture):
    def test_that_have_ended_are_told_of(self) -> None:
        """With 0, for an alert: a queue that is not named any more looks like one that never was."""
        registry = CollectorRegistry()
        running = [self.processor]
        registry.register(ProcessorCollector(lambda: running))
        labels = {"queue": self.processor.queuePath}
        self.assertEqual(registry.get_sample_value("zope_sendmail_processors", labels), 1)
        running.clear()
        self.assertEqual(registry.get_sample_value("zope_sendmail_processors", labels), 0)


class TheText(Fixture):
    def test_names_no_address(self) -> None:
        """Nor a domain of a recipient or a Message-Id."""
        self.put("jane@customer.test")
        self.drain()
        text = generate_latest(self.registry).decode()
        self.assertNotIn("customer", text)
        self.assertNotIn("@", text)

    def test_follows_the_conventions(self) -> None:
        """Base units in the name, help for each, counters end in _total (prometheus.io/docs/practices/naming)."""
        text = generate_latest(self.registry).decode()
        kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
        helps = set(re.findall(r"^# HELP (\S+) \S", text, re.MULTILINE))
        self.assertLessEqual({"zope_sendmail_recipients_total", "zope_sendmail_unknown_total"}, set(kinds))
        for name, kind in kinds.items():
            with self.subTest(name):
                self.assertIn(name, helps)
                self.assertTrue(name.startswith("zope_sendmail_"))
                if kind == "counter":
                    self.assertTrue(name.endswith("_total"))
                if kind == "histogram":
                    self.assertTrue(name.endswith("_seconds"))


@unittest.skipIf(MISSING, MISSING)
class TheServer(ProcessorTest):
    def setUp(self) -> None:
        super().setUp()
        self.working = [self.processor]
        self.app = MetricsApp(CollectorRegistry(), Health(lambda: self.working))

    def get(self, path: str, method: str = "GET") -> tuple[str, bytes]:
        said: list[str] = []
        body = self.app({"PATH_INFO": path, "REQUEST_METHOD": method}, lambda status, headers, *_: said.append(status))
        return said[0], b"".join(body)

    def test_shows_the_metrics(self) -> None:
        """In the format that Prometheus reads."""
        self.assertEqual(self.get("/metrics")[0], "200 OK")

    def test_is_healthy_while_a_processor_lives(self) -> None:
        """A relay that is down is no reason to start the process anew."""
        self.mailer.fault = DOWN
        self.put()
        self.drain()
        self.assertEqual(self.get("/healthz")[0], "200 OK")
        self.working.clear()
        status, body = self.get("/healthz")
        self.assertEqual(status, "503 Service Unavailable")
        self.assertIn(b"no processor is at work", body)

    def test_is_not_healthy_while_the_queue_cannot_be_used(self) -> None:
        """Also one that can be read: a disk that has become read-only, say."""
        trouble = QueueBackoff(self.queue.location, self.clock)
        self.processor.new_run(trouble)
        trouble.happened(OSError(errno.EROFS, "Read-only file system"))
        for page in ("/healthz", "/readyz"):
            status, body = self.get(page)
            self.assertEqual(status, "503 Service Unavailable")
            self.assertIn(b"Read-only file system", body)
        trouble.ended()
        self.assertEqual(self.get("/healthz")[0], "200 OK")

    def test_is_ready_while_mail_can_leave(self) -> None:
        """It says which relay cannot be used, and why."""
        self.assertEqual(self.get("/readyz")[0], "200 OK")
        self.mailer.fault = DOWN
        self.put()
        self.drain()
        status, body = self.get("/readyz")
        self.assertEqual(status, "503 Service Unavailable")
        self.assertIn(b"connection refused", body)

    def test_knows_no_other_page(self) -> None:
        """And takes no other request."""
        self.assertEqual(self.get("/")[0], "404 Not Found")
        self.assertEqual(self.get("/metrics", "POST")[0], "405 Method Not Allowed")


class WithoutTheExtra(unittest.TestCase):
    def test_nothing_is_imported(self) -> None:
        """A program that sends mail does not load Prometheus."""
        program = "import sys, zope.sendmail.cli.app as _; sys.exit('prometheus_client' in sys.modules)"
        self.assertEqual(subprocess.run([sys.executable, "-c", program], check=False).returncode, 0)
