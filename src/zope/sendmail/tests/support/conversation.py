"""A session and a scripted relay, talking to each other, for the tests of both."""

from __future__ import annotations

import functools
import io
import smtplib
import ssl
import tempfile
import unittest
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import trustme
from zope.interface import implementer

from zope.sendmail.config.settings import RelaySettings, Timeouts, Tls
from zope.sendmail.interfaces import IJob, IJobSource, ISession
from zope.sendmail.lifecycle.outcome import Answer, Outcome
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.smtp import hostaddresses
from zope.sendmail.smtp.auth import login
from zope.sendmail.smtp.connect import Factory, connect
from zope.sendmail.smtp.session import SMTPSession
from zope.sendmail.testing.contracts import ManualClock
from zope.sendmail.testing.relay import Relay

MESSAGE = b"Subject: test\r\n\r\nThe text.\r\n"

#: Long enough for a loaded machine; where a test waits for the end of one of them, it sets a short one.
TIMEOUTS = Timeouts(connect=60.0, greeting=60.0, command=60.0, data=60.0, block=60.0, final=60.0, quit=60.0)

#: For tests in which the relay does not answer.
AT_ONCE = 0.05


@functools.cache
def authority() -> trustme.CA:
    """Who signs the certificates of the relays."""
    return trustme.CA()


def tls_for(*names: str) -> ssl.SSLContext:
    """What a relay with a certificate for `names` needs."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert(*names).configure_cert(context)
    return context


@functools.cache
def right_tls() -> ssl.SSLContext:
    """The certificate of the relay that was meant."""
    return tls_for("127.0.0.1")


def broken_tls() -> ssl.SSLContext:
    """A relay's TLS with which no handshake succeeds: its only cipher does not fit its certificate."""
    context = tls_for("127.0.0.1")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")
    return context


@implementer(IJobSource)
class Jobs:
    """Jobs of an iterable, which is asked for the next one when the session asks for it."""

    def __init__(self, jobs: Iterable[IJob]) -> None:
        self._jobs = iter(jobs)

    def next(self) -> IJob | None:
        """See `IJobSource`."""
        return next(self._jobs, None)


class Conversation(unittest.TestCase):
    """Starts relays and sessions, and ends them."""

    def setUp(self) -> None:
        self.clock = ManualClock()
        hostaddresses.FAILURES.clear()
        login.FAILURES.clear()  # another test's relay may have had the same port
        self.intended = 0

    def start(self, **options: Any) -> Relay:
        """A relay that runs until the test ends."""
        relay = Relay(**options)
        relay.start()
        self.addCleanup(relay.stop)
        return relay

    def settings(self, relay: Relay, **changes: Any) -> RelaySettings:
        """How to speak with `relay`."""
        usual = RelaySettings(relay.host, relay.port, timeouts=TIMEOUTS, local_hostname="client.test")
        return replace(usual, **changes)

    def session(self, relay: Any, factory: Factory | None = None, **changes: Any) -> SMTPSession:
        """A session with `relay` that is closed when the test ends."""
        settings = self.settings(relay, **changes)
        made = factory or (smtplib.SMTP_SSL if settings.tls is Tls.IMPLICIT else smtplib.SMTP)
        session = SMTPSession(lambda: settings, lambda now: connect(now, made), self.clock)
        self.addCleanup(session.close)
        return session

    def transfer(
        self,
        session: ISession,
        *recipients: str,
        sender: str = "sender@example.org",
        message: bytes = MESSAGE,
        intend: Callable[[], None] | None = None,
    ) -> Outcome:
        """One mail through `session`; how often `intend` was called is counted."""
        envelope = Envelope(sender, recipients or ("one@example.org",))
        return session.transfer(envelope, io.BytesIO(message), intend or self.intend)

    def intend(self) -> None:
        """Count."""
        self.intended += 1

    def cafile(self) -> str:
        """The authority's certificate in a file."""
        stored = self.enterContext(tempfile.NamedTemporaryFile(suffix=".pem"))
        authority().cert_pem.write_to_path(stored.name)
        return stored.name

    def assertFaultOnly(self, outcome: Outcome, code: int | None = None) -> None:
        """The relay could not be used, as it said with `code`, and no mail is charged for it."""
        self.assertEqual(outcome.replies, {})
        assert outcome.fault is not None, outcome
        self.assertEqual((outcome.fault.answer, outcome.fault.code), (Answer.DEFERRED, code))

    def assertBoth(self, outcome: Outcome, code: int | None = None, **answers: Answer) -> None:
        """The relay could not be used, and who was not refused before is deferred with the same words."""
        self.assertAnswers(outcome, **answers)
        assert outcome.fault is not None, outcome
        self.assertEqual((outcome.fault.answer, outcome.fault.code), (Answer.DEFERRED, code))
        self.assertIn(outcome.fault, outcome.replies.values())
        self.assertLessEqual(set(outcome.having(Answer.DEFERRED).values()), {outcome.fault})

    def assertAnswers(self, outcome: Outcome, **answers: Answer) -> None:
        """Who got which answer, by local part; nobody else got one."""
        told = {recipient.partition("@")[0]: reply.answer for recipient, reply in outcome.replies.items()}
        self.assertEqual(told, answers, outcome)
