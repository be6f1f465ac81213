"""What is counted and measured of each attempt."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

from zope.sendmail.lifecycle.outcome import Answer
from zope.sendmail.metrics.relaylabel import RelayLabels
from zope.sendmail.reporting.observers import AttemptRecord, FaultRecord

#: Seconds: from a relay on the same host to one that greylists for minutes.
DURATIONS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600)

#: Seconds: from at once to the lifetime of a mail.
AGES = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3600, 4 * 3600, 86400, 5 * 86400)

#: A login that the relay refused (RFC 4954, 6; RFC 5248).
_LOGIN_REFUSED = frozenset({534, 535, 538})


class AttemptMetrics:
    """An `AttemptObserver` that feeds a registry.

    :param registry: where the metrics are registered
    :raises ValueError: if the registry has them already

    Concurrency: any thread.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._labels = RelayLabels()
        self.recipients = Counter(
            "zope_sendmail_recipients", "Recipients by what the relay answered.", ["answer", "relay"], registry=registry
        )
        self.unknown = Counter(
            "zope_sendmail_unknown", "Recipients about which nothing can be known (RFC 1047).", registry=registry
        )
        self.duration = Histogram(
            "zope_sendmail_attempt_duration_seconds",
            "How long an attempt at one mail took.",
            ["relay"],
            buckets=DURATIONS,
            registry=registry,
        )
        self.waited = Histogram(
            "zope_sendmail_commit_to_relay_seconds",
            "How old a mail was when the relay took it for all recipients.",
            buckets=AGES,
            registry=registry,
        )
        self.sent_bytes = Counter(
            "zope_sendmail_sent_bytes", "Bytes of messages that a relay took.", ["relay"], registry=registry
        )
        self.faults = Counter(
            "zope_sendmail_relay_faults", "How often a relay could not be used.", ["relay"], registry=registry
        )
        self.login_failures = Counter(
            "zope_sendmail_login_failures", "How often a relay refused the login.", ["relay"], registry=registry
        )

    def attempted(self, record: AttemptRecord) -> None:
        """Count an attempt; see `AttemptObserver`."""
        relay = self._labels.of(record.relay)
        answers = record.answers
        for answer, count in answers.items():
            self.recipients.labels(answer.value, relay).inc(count)
        self.unknown.inc(answers[Answer.UNKNOWN])
        self.duration.labels(relay).observe(record.duration)
        if answers[Answer.ACCEPTED] and record.size is not None:
            self.sent_bytes.labels(relay).inc(record.size)
        if record.state == "sent" and record.age is not None:
            self.waited.observe(record.age)

    def faulted(self, record: FaultRecord) -> None:
        """Count a relay that could not be used; see `AttemptObserver`."""
        relay = self._labels.of(record.relay)
        self.faults.labels(relay).inc()
        login_failures = self.login_failures.labels(relay)
        if record.reply.code in _LOGIN_REFUSED:
            login_failures.inc()
