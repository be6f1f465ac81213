"""An ordinary mail of a database goes the short way through a processor, and its worker lets others go on."""

from __future__ import annotations

import dataclasses
import threading
import unittest
from collections.abc import Callable
from typing import Any
from unittest import mock

from zope.sendmail.config.settings import Tls
from zope.sendmail.lifecycle.outcome import Answer, Reply
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.retry import OnUnknown, Schedule
from zope.sendmail.mailer import SMTPMailer
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.terms import Priority, Terms
from zope.sendmail.processor.dispatcher import Dispatcher
from zope.sendmail.processor.thread import QueueProcessorThread
from zope.sendmail.queue import open_queue, put
from zope.sendmail.queue.postgresql.queue import PostgreSQLQueue
from zope.sendmail.queue.postgresql.roundtrips import RoundTrips
from zope.sendmail.smtp import channel
from zope.sendmail.smtp.ordinary import StraightWay
from zope.sendmail.system.gilbaton import baton
from zope.sendmail.testing.relay import Relay
from zope.sendmail.tests.support.conversation import TIMEOUTS
from zope.sendmail.tests.support.layers import Databases, in_layer
from zope.sendmail.tests.support.postgresql import shared_server

_MESSAGE = b"Message-Id: <m@example.org>\n\ntext\n"
_ENVELOPE = Envelope("sender@example.org", ("someone@example.org",))
_LATER = Record(replies={"someone@example.org": Reply(Answer.DEFERRED, "450 later", 450)}, attempts=1)


class AMail(unittest.TestCase):
    def setUp(self) -> None:
        self.queue: Any = open_queue(shared_server().url())
        self.addCleanup(self.queue.close)

    def lease(self, message: bytes = _MESSAGE, envelope: Envelope = _ENVELOPE) -> Any:
        put(self.queue, [envelope], message)
        [lease] = self.queue.claim(1)
        return lease

    def test_that_was_never_tried_has_its_text(self) -> None:
        self.assertEqual(self.lease().text, _MESSAGE)

    def test_that_was_tried_is_opened(self) -> None:
        """Its outcome is added to what was before."""
        self.lease().settle(_LATER)
        with mock.patch("time.time", return_value=4e9):
            [again] = self.queue.claim(1)
        self.assertIsNone(again.text)

    def test_that_is_large_is_opened(self) -> None:
        """It does not come with its row."""
        self.assertIsNone(self.lease(_MESSAGE + b"x" * 100 + b"\n" * 2_000_000).text)

    def test_of_low_priority_is_opened(self) -> None:
        """What goes before it is looked for with each."""
        envelope = dataclasses.replace(_ENVELOPE, terms=Terms(priority=Priority.LOW))
        self.assertIsNone(self.lease(envelope=envelope).text)

    def test_with_which_a_processor_died_is_opened(self) -> None:
        """That is noted before it is read: it may kill the next one, too."""
        lease = self.lease()
        lease.is_suspect = True
        self.assertIsNone(lease.text)

    def test_lets_other_conversations_go_on_while_the_database_is_asked(self) -> None:
        """They would wait for its worker, which has the baton, and could not share its journey."""
        lease, found = self.lease(), []

        def go() -> None:
            with baton.running():
                for ask in (lease.intend, self.queue.admin.count, self.queue._claims.flush):
                    baton.take()
                    found.append(baton._mutex.locked())
                    ask()
                    found.append(baton._mutex.locked())

        thread = threading.Thread(target=go)
        thread.start()
        thread.join()
        self.assertEqual(found, [True, False] * 3)

    def test_tells_how_long_the_database_is_waited_for(self) -> None:
        """Where each mail waits for it."""
        queue = PostgreSQLQueue(self.queue.location, schedule=Schedule(on_unknown=OnUnknown.HOLD))
        self.addCleanup(queue.close)
        put(queue, [_ENVELOPE], _MESSAGE)
        self.assertEqual(queue.shortest_wait(), 0.0)
        queue.claim()[0].intend()
        self.assertGreater(queue.shortest_wait(), 0.0)

    def test_waits_for_nothing_where_it_is_intended_ahead(self) -> None:
        self.lease().intend()
        self.assertEqual(self.queue.shortest_wait(), 0.0)


class ADrain(unittest.TestCase):
    def setUp(self) -> None:
        self.relay = self.enterContext(Relay(keywords=["PIPELINING"]))
        # A machine with much else to do may let the relay wait for longer than the short way does.
        self.enterContext(mock.patch.object(channel, "MOMENT", 300.0))
        self.queue: Any = open_queue(shared_server().url())
        self.addCleanup(self.queue.close)

    def drain(self) -> None:
        mailer = SMTPMailer(self.relay.host, self.relay.port, connections=1, tls=Tls.NEVER, timeouts=TIMEOUTS)
        QueueProcessorThread(queue=self.queue, mailer=mailer).run(forever=False)

    def counted(self, owner: type, name: str) -> list[Any]:
        """Return where each call of a method leaves what it returned."""
        found: list[Any] = []
        method: Callable[..., Any] = getattr(owner, name)

        def counting(*arguments: Any) -> Any:
            found.append(method(*arguments))
            return found[-1]

        self.enterContext(mock.patch.object(owner, name, counting))
        return found

    def test_goes_the_short_way(self) -> None:
        """All but the first mail of a connection, whose envelope goes by itself."""
        put(self.queue, [_ENVELOPE] * 20, _MESSAGE)
        short = self.counted(StraightWay, "hear_end")
        self.drain()
        self.assertEqual((len(self.relay.mails), self.queue.admin.count()), (20, {}))
        self.assertGreaterEqual(len([reply for reply in short if reply is not None]), 15)

    def test_is_carried_with_others_by_one_thread(self) -> None:
        """What it waits for in the database has begun before."""
        self.assertTrue(self.dispatcher(OnUnknown.RESEND).is_near)

    def test_keeps_its_own_thread_where_each_mail_waits_for_the_database(self) -> None:
        """Others go on meanwhile, and share the journey."""
        self.assertFalse(self.dispatcher(OnUnknown.HOLD).is_near)

    def dispatcher(self, on_unknown: OnUnknown) -> Dispatcher:
        queue = PostgreSQLQueue(self.queue.location, schedule=Schedule(on_unknown=on_unknown))
        self.addCleanup(queue.close)
        return Dispatcher(mock.Mock(), queue, mock.Mock())

    def test_intends_its_mails_ahead_of_their_time(self) -> None:
        put(self.queue, [_ENVELOPE] * 60, _MESSAGE)
        at_their_turn = self.counted(RoundTrips, "intend")
        self.drain()
        self.assertLessEqual(len(at_their_turn), 10)


load_tests = in_layer(Databases)
