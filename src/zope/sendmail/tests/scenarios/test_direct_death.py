"""A process dies while direct delivery with a queue behind it is under way: nothing is lost or in doubt."""

from __future__ import annotations

import os
import tempfile
import unittest
from collections.abc import Callable
from typing import Any
from unittest import mock

import transaction

from zope.sendmail.delivery import DirectMailDelivery, QueuedMailDelivery
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.processor.thread import QueueProcessorThread
from zope.sendmail.smtp.session import SMTPSession
from zope.sendmail.submission import Reserve
from zope.sendmail.testing.relay import Relay
from zope.sendmail.testing.scriptedmailer import ScriptedMailer
from zope.sendmail.tests.support.layers import Processes, in_layer

MESSAGE = b"From: s@example.org\n\nx\n"


class ADeathInTheSecondPhase(unittest.TestCase):
    """Four mails follow a transaction, and the process dies with the second one in hand."""

    def setUp(self) -> None:
        self.path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "queue")
        self.queued = QueuedMailDelivery(self.path)
        self.relay = self.enterContext(Relay())

    def die(self, patch: Callable[[], Any]) -> None:
        """Let a child send the mails and die where `patch` lets it."""
        child = os.fork()
        if not child:
            try:
                from zope.sendmail.mailer import SMTPMailer

                delivery = DirectMailDelivery(SMTPMailer(self.relay.host, self.relay.port), queue=self.queued)
                with patch():
                    for number in range(4):
                        delivery.send("s@example.org", [f"{number}@example.org"], MESSAGE)
                    transaction.commit()
            finally:
                os._exit(1)
        os.waitpid(child, 0)

    def drained(self) -> list[str]:
        """Who gets mail from a processor that starts afterwards."""
        mailer = ScriptedMailer()
        processor = QueueProcessorThread()
        processor.setMailer(mailer)
        processor.setQueuePath(self.path)
        with mock.patch.object(processor, "log"):
            processor.run(forever=False)
        self.assertEqual(dict(self.queued.queue.admin.count()), {})
        return sorted(who for _, recipients, *_ in mailer.sent for who in recipients)

    def served(self) -> list[str]:
        """Who got mail from the process that died."""
        return [who for mail in self.relay.mails for who in mail.recipients]

    def test_before_the_mail_is_sent_loses_nothing(self) -> None:
        """What was not sent is ready, and sent once."""

        def transfer(self: SMTPSession, envelope: Envelope, *arguments: Any) -> Any:
            _die_at(envelope)
            return original(self, envelope, *arguments)

        original = SMTPSession.transfer
        self.die(lambda: mock.patch.object(SMTPSession, "transfer", transfer))
        self.assertEqual(self.served(), ["0@example.org"])
        self.assertEqual(list(self.queued.queue.admin.in_doubt()), [])
        self.assertEqual(self.drained(), ["1@example.org", "2@example.org", "3@example.org"])

    def test_after_the_relay_has_it_makes_it_unknown(self) -> None:
        """As after the death of a processor: it is sent again unless the queue is told to hold it; the others once."""

        def settle(self: Reserve, lease: Any, outcome: Any) -> Any:
            _die_at(lease.envelope)
            return original(self, lease, outcome)

        original = Reserve.settle
        self.die(lambda: mock.patch.object(Reserve, "settle", settle))
        self.assertEqual(self.served(), ["0@example.org", "1@example.org"])
        self.assertEqual(self.drained(), ["1@example.org", "2@example.org", "3@example.org"])

    def test_before_the_queue_has_them_leaves_them_staged(self) -> None:
        """Between the databases' commit and ours, as with a queued delivery: that is in doubt, and sent by nobody."""
        self.die(lambda: mock.patch.object(Reserve, "commit", side_effect=lambda *_: os._exit(1)))
        self.assertEqual((self.served(), dict(self.queued.queue.admin.count())), ([], {State.STAGED: 4}))


def _die_at(envelope: Envelope) -> None:
    """Die with the second mail in hand."""
    if envelope.recipients == ("1@example.org",):
        os._exit(1)


load_tests = in_layer(Processes)
