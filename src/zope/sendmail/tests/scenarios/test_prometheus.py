"""A real Prometheus looks at a real daemon: the metrics, and each query of ``docs/monitoring``.

It is skipped, and says so, where Prometheus cannot be had (``.ci/mtas.py`` fetches it).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import unittest
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zope.sendmail.message.envelope import Envelope
from zope.sendmail.queue import open_queue, put
from zope.sendmail.testing.contracts import MESSAGE
from zope.sendmail.testing.relay import Drop, Relay
from zope.sendmail.tests.support.layers import Servers, in_layer
from zope.sendmail.tests.support.servers import cache, excuse, hold_ports, wait_until

DOCS = Path(__file__).resolve().parents[5] / "docs"

_CONFIG = """\
global:
  scrape_interval: 1s
  evaluation_interval: 1s
rule_files: [{rules}]
scrape_configs:
  - job_name: mail
    static_configs:
      - targets: ["127.0.0.1:{port}"]
"""


def programs() -> Path:
    """Where ``prometheus`` and ``promtool`` are."""
    return cache() / "prometheus" / "usr" / "bin"


class APrometheus(unittest.TestCase):
    def setUp(self) -> None:
        if reason := excuse("prometheus", "Prometheus"):
            self.skipTest(reason)
        if not DOCS.exists():
            self.skipTest("the docs are not beside the package: this is not a checkout")
        self.place = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def tool(self, *arguments: str, text: str = "") -> str:
        """Run promtool; return what it says, which is nothing if all is well."""
        done = subprocess.run(
            [programs() / "promtool", *arguments], input=text, capture_output=True, text=True, check=False
        )
        return "" if done.returncode == 0 else done.stdout + done.stderr

    def get(self, url: str) -> Any:
        with urllib.request.urlopen(url, timeout=300) as answer:
            return answer.read().decode()

    def end(self, process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        process.wait(300)

    def start(self, *command: str | Path) -> subprocess.Popen[bytes]:
        log = self.enterContext((self.place / f"{Path(command[0]).name}.log").open("wb"))
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self.addCleanup(self.end, process)
        return process

    def is_up(self, url: str) -> bool:
        with contextlib.suppress(OSError):
            return bool(self.get(url))
        return False

    # the daemon

    def daemon(
        self, relay: Relay, recipients: Sequence[str] = ("jane@example.org", "nobody@example.org")
    ) -> tuple[str, int]:
        """Start one with a mail to each recipient in its queue; return that and its port."""
        queue_path = str(self.place / "queue")
        [port] = hold_ports(1, self.enterContext(contextlib.ExitStack()))
        for recipient in recipients:
            queue = open_queue(queue_path)
            put(queue, [Envelope("sender@example.org", (recipient,))], MESSAGE)
            queue.close()
        options = ("--hostname", "127.0.0.1", "--port", str(relay.port), "--metrics", f"127.0.0.1:{port}")
        self.process = self.start(sys.executable, "-m", "zope.sendmail.cli", "--daemon", *options, queue_path)
        self.assertTrue(wait_until(lambda: self.is_up(f"http://127.0.0.1:{port}/healthz")))
        return queue_path, port

    def relay(self) -> Relay:
        relay = self.enterContext(Relay())
        relay.on("RCPT", "550 5.1.1 no such user", about="nobody")
        return relay


class TheMetrics(APrometheus):
    def test_are_as_prometheus_wants_them(self) -> None:
        """``promtool check metrics`` finds nothing in what daemon and verb say."""
        queue_path, port = self.daemon(self.relay())
        served = self.get(f"http://127.0.0.1:{port}/metrics")
        ours = "".join(re.findall(r"^(?:# \w+ )?zope_sendmail_.*\n", served, re.MULTILINE))
        verb = [sys.executable, "-m", "zope.sendmail.cli", "queue", "metrics", queue_path]
        written = subprocess.run(verb, capture_output=True, text=True, check=True).stdout
        for text in (ours, written):
            self.assertIn("zope_sendmail_queue_mails", text)
            self.assertEqual(self.tool("check", "metrics", text=text), "")


class Asked(APrometheus):
    """A Prometheus with our rules."""

    def watch(self, port: int) -> None:
        """Let it look at a daemon."""
        rules = DOCS / "monitoring" / "alerts.yml"
        self.assertEqual(self.tool("check", "rules", str(rules)), "")
        config = self.place / "prometheus.yml"
        config.write_text(_CONFIG.format(rules=rules, port=port))
        [own] = hold_ports(1, self.enterContext(contextlib.ExitStack()))
        self.url = f"http://127.0.0.1:{own}"
        self.start(
            programs() / "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={self.place / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{own}",
        )

    def query(self, expression: str) -> Any:
        """Return the values of an expression; an error of Prometheus is raised."""
        told = self.get(f"{self.url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}")
        return json.loads(told)["data"]["result"]

    def has(self, expression: str) -> bool:
        with contextlib.suppress(OSError):
            return bool(self.query(expression))
        return False


class TheQueries(Asked):
    def setUp(self) -> None:
        super().setUp()
        _, port = self.daemon(self.relay())
        self.watch(port)

    def test_of_alerts_and_dashboard_find_what_they_ask_for(self) -> None:
        """Each is understood, and those of the dashboard have data, once both mails were tried."""
        self.assertTrue(wait_until(lambda: self.has('zope_sendmail_recipients_total{answer="accepted"} == 1')))
        self.assertTrue(wait_until(lambda: self.has('zope_sendmail_queue_mails{state="rejected"} == 1')))
        rate = "rate(zope_sendmail_recipients_total[5m])"
        self.assertTrue(wait_until(lambda: self.has(rate)))  # two scrapes at least
        text = (DOCS / "monitoring" / "alerts.yml").read_text()
        alerts = re.findall(r"expr: (?:>\n)?(.*?)(?=\n +(?:for|labels):)", text, re.DOTALL)
        self.assertGreater(len(alerts), 7)
        for expression in alerts:
            with self.subTest(expression):
                self.query(" ".join(expression.split()))
        board = json.loads((DOCS / "monitoring/dashboard.json").read_text())
        quiet = ("faults", "login_failures")  # nothing of the kind has happened
        for panel in board["panels"]:
            for target in panel["targets"]:
                with self.subTest(panel["title"], expression=target["expr"]):
                    found = self.query(target["expr"])
                    self.assertTrue(found or any(word in target["expr"] for word in quiet))

    def test_of_alerts_fire_for_what_they_are_about(self) -> None:
        """No alert is on while mail leaves; one for a queue without a processor would be if nothing were scraped."""
        self.assertTrue(wait_until(lambda: self.has('zope_sendmail_recipients_total{answer="accepted"} == 1')))
        firing = json.loads(self.get(f"{self.url}/api/v1/alerts"))["data"]["alerts"]
        self.assertEqual([each["labels"]["alertname"] for each in firing if each["state"] == "firing"], [])
        self.assertEqual(self.query("sum by (instance) (zope_sendmail_processors) == 0"), [])


#: A file that was written at second 0, and is still there; the alert is wanted after ten minutes.
_STALE_FILE = """\
rule_files: [{rules}]
tests:
  - interval: 1m
    input_series:
      - {{series: 'node_textfile_mtime_seconds{{file="/var/lib/node/mail.prom"}}', values: 0x30}}
      - {{series: 'node_textfile_mtime_seconds{{file="/var/lib/node/disks.prom"}}', values: 0x30}}
    promql_expr_test:
      - {{expr: 'count(ALERTS{{alertname="MailIsNotLookedAt"}})', eval_time: 9m}}
      - expr: 'ALERTS{{alertname="MailIsNotLookedAt", alertstate="firing"}}'
        eval_time: 12m
        exp_samples:
          - labels: >-
              ALERTS{{alertname="MailIsNotLookedAt", alertstate="firing", file="/var/lib/node/mail.prom",
              severity="critical"}}
            value: 1
"""


class AFileForTheCollector(APrometheus):
    def test_that_is_written_no_more_is_an_alert(self) -> None:
        """The verb ends with an error where a queue cannot be read, and what it said before stays where it is."""
        test = self.place / "test.yml"
        test.write_text(_STALE_FILE.format(rules=DOCS / "monitoring" / "alerts.yml"))
        self.assertEqual(self.tool("test", "rules", str(test)), "")


class TheAlerts(Asked):
    """Each expression, with no time to wait."""

    def expression(self, alert: str) -> str:
        text = (DOCS / "monitoring" / "alerts.yml").read_text()
        rule = rf"alert: {alert}\n(?: +#[^\n]*\n)* +expr: (?:>\n)?(.*?)(?=\n +(?:for|labels):)"
        [found] = re.findall(rule, text, re.DOTALL)
        return re.sub(r"_age_seconds > \d+", "_age_seconds > 0", " ".join(found.split()))

    def test_miss_a_daemon_that_was_killed(self) -> None:
        """Whatever it would say of its processors has ended with it."""
        _, port = self.daemon(self.relay())
        self.watch(port)
        self.assertTrue(wait_until(lambda: self.has("zope_sendmail_processors == 1")))
        self.process.kill()
        alert = self.expression("MailHasNoProcessor")
        self.assertTrue(wait_until(lambda: self.has(f'({alert}) and on (instance) up{{instance="127.0.0.1:{port}"}}')))

    def test_let_a_full_mailbox_wake_no_person(self) -> None:
        """Mail that a relay has deferred is a warning; all other mail leaves."""
        relay = self.relay()
        relay.on("RCPT", "452 4.2.2 mailbox full", about="jane")
        _, port = self.daemon(relay, ["jane@example.org"])
        self.watch(port)
        self.assertTrue(wait_until(lambda: self.has(self.expression("MailIsDeferred"))))
        self.assertEqual(self.query(self.expression("MailIsNotMoving")), [])

    def test_say_that_mail_does_not_move_while_its_relay_is_down(self) -> None:
        """Both the mail and the relay."""
        relay = self.relay()
        relay.stop()
        _, port = self.daemon(relay, ["jane@example.org"])
        self.watch(port)
        alerts = [self.expression(name) for name in ("MailIsNotMoving", "MailRelayCannotBeUsed")]
        self.assertTrue(wait_until(lambda: all(map(self.has, alerts))))

    def test_are_silent_about_a_relay_for_which_no_mail_waits(self) -> None:
        """It broke a connection, and will not be asked again before the mail is due."""
        relay = self.relay()
        relay.on("DOT", Drop(), nth=1)
        _, port = self.daemon(relay, ["jane@example.org"])
        self.watch(port)
        self.assertTrue(wait_until(lambda: self.has('zope_sendmail_queue_mails{state="deferred"} == 1')))
        self.assertTrue(self.has("zope_sendmail_relay_usable == 0"))
        self.assertEqual(self.query(self.expression("MailRelayCannotBeUsed")), [])


class TheDaemon(unittest.TestCase):
    def refused(self, *words: str) -> str:
        command = [sys.executable, "-m", "zope.sendmail.cli", *words, "/nowhere/queue"]
        environment = {**os.environ, "COLUMNS": "200"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        self.assertEqual(done.returncode, 2, done.stderr)
        return done.stderr

    def test_wants_an_address(self) -> None:
        """With a port, since there is no usual one."""
        for text in ("127.0.0.1", "9464", "host:none", ":99999", "::1"):
            with self.subTest(text):
                self.assertIn("HOST:PORT is wanted", self.refused("--daemon", "--metrics", text))

    def test_is_the_only_one_to_serve(self) -> None:
        """A pass that ends has nothing to serve; the text names the verb."""
        self.assertIn("zope-sendmail queue metrics", self.refused("--metrics", ":9464"))


load_tests = in_layer(Servers)
