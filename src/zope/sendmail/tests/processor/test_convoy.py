"""Messages that are claimed together, through a conversation that says when it waits for its relay."""

from __future__ import annotations

import os
import tempfile
import unittest
from typing import Any

from zope.sendmail.config.settings import Tls
from zope.sendmail.lifecycle.states import State
from zope.sendmail.mailer import SMTPMailer
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.routes import Routes
from zope.sendmail.message.terms import PLAIN, Priority, Terms
from zope.sendmail.processor.thread import QueueProcessorThread
from zope.sendmail.queue.maildir.queue import MaildirQueue
from zope.sendmail.testing.contracts import SCHEDULE, ManualClock
from zope.sendmail.testing.relay import Relay
from zope.sendmail.tests.support.conversation import TIMEOUTS


class AConvoy(unittest.TestCase):
    def setUp(self) -> None:
        self.path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "queue")
        self.clock = ManualClock()
        self.relay = self.enterContext(Relay(keywords=["PIPELINING"]))
        self.queue = MaildirQueue(self.path, schedule=SCHEDULE, clock=self.clock)
        self.addCleanup(self.queue.close)
        self.taken: list[str] = []

    def put(self, count: int, terms: Terms = PLAIN) -> None:
        staged = self.queue.stage()
        for number in range(count):
            text = b"Message-Id: <%d@example.org>\n\ntext\n" % number
            staged.add(Envelope("sender@example.org", (f"{number}@example.org",), terms=terms), text)
        staged.prepare()
        staged.commit()

    def mailer(self, relay: Relay) -> SMTPMailer:
        return SMTPMailer(relay.host, relay.port, connections=1, tls=Tls.NEVER, timeouts=TIMEOUTS)

    def drain(self, **options: Any) -> None:
        self.processor = QueueProcessorThread(
            queue=self.queue, mailer=self.mailer(self.relay), schedule=SCHEDULE, clock=self.clock, **options
        )
        self.processor.run(forever=False)

    def arrived(self) -> list[str]:
        return [who for mail in self.relay.mails for who in mail.recipients]

    def test_after_another_in_order(self) -> None:
        """The next one is claimed while the relay has the last mail of the one before."""
        self.put(100)
        self.queue.claim(0)  # lets no thread unfold it later
        self.drain()
        self.assertEqual(self.arrived(), [f"{number}@example.org" for number in range(100)])
        self.assertEqual(len(self.relay.dialogues), 1)

    def test_ends_with_its_processor(self) -> None:
        """What is left of it waits as before."""
        self.put(100)
        self.queue.claim(0)

        def stop(events: Any) -> None:
            self.taken += [event.messageId for event in events]
            if len(self.taken) == 20:
                self.processor.stop()

        self.drain(tell=stop)
        sent = len(self.relay.mails)
        self.assertLess(sent, 60)
        self.assertEqual(self.queue.admin.count(), {State.READY: 100 - sent})
        self.assertEqual([name for name in os.listdir(os.path.join(self.path, "new")) if name[0] == "."], [])

    def test_lets_high_mail_pass(self) -> None:
        """Which is the next but those in hand; the rest comes in its order."""
        self.put(100)
        self.queue.claim(0)
        at: list[int] = []

        def commit(events: Any) -> None:
            self.taken += [event.messageId for event in events]
            if len(self.taken) == 20:
                at.append(len(self.relay.mails))
                self.put(1, Terms(priority=Priority.HIGH))

        self.drain(tell=commit)
        arrived = self.arrived()
        high = arrived.index("0@example.org", 1)
        self.assertLessEqual(high, at[0] + 2)
        del arrived[high]
        self.assertEqual(arrived, [f"{number}@example.org" for number in range(100)])

    def test_is_none_with_several_relays(self) -> None:
        """Each mail goes by itself then, also while the relay has another."""
        self.put(20)
        self.queue.claim(0)
        other = self.enterContext(Relay(keywords=["PIPELINING"]))
        routes = Routes(
            mailers=frozenset({"bulk"}), recipients={f"{number}@example.org": "bulk" for number in range(10)}
        )
        self.drain(routes=routes, mailers={"bulk": self.mailer(other)})
        self.assertEqual((len(self.relay.mails), len(other.mails)), (10, 10))
