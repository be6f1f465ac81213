"""Ordinary mail on its short way, from a Maildir through a processor to a relay over a socket; and off it again."""

from __future__ import annotations

import errno
import logging
import os
import tempfile
import unittest
from collections import Counter
from collections.abc import Iterable
from typing import Any
from unittest import mock

from zope.sendmail.config.settings import Tls
from zope.sendmail.events import MailEvent
from zope.sendmail.lifecycle.mailstatus import Standing
from zope.sendmail.lifecycle.outcome import Answer
from zope.sendmail.mailer import SMTPMailer
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.routes import Routes
from zope.sendmail.processor.thread import QueueProcessorThread
from zope.sendmail.queue.maildir.queue import MaildirQueue
from zope.sendmail.reporting import notifier, observers
from zope.sendmail.reporting.observers import AttemptRecord, FaultRecord
from zope.sendmail.smtp import channel, connection
from zope.sendmail.smtp.protocol.transaction import MailTransaction
from zope.sendmail.system.disk import Disk
from zope.sendmail.testing.contracts import SCHEDULE, ManualClock
from zope.sendmail.testing.faultydisk import FaultyDisk, RecordingDisk
from zope.sendmail.testing.relay import Drop, Relay
from zope.sendmail.tests.support.conversation import TIMEOUTS
from zope.sendmail.tests.support.layers import Faults, in_layer


def text(number: int) -> bytes:
    return b"Message-Id: <%d@example.org>\nSubject: test\n\n.One line\n..and another.\n" % number


class OrdinaryMail(unittest.TestCase):
    def setUp(self) -> None:
        memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
        self.path = os.path.join(self.enterContext(tempfile.TemporaryDirectory(dir=memory)), "queue")
        self.clock = ManualClock()
        self.relay = self.enterContext(Relay(keywords=["PIPELINING", "SIZE", "8BITMIME"]))
        # A machine with much else to do may let the relay wait for longer than the short way does.
        self.enterContext(mock.patch.object(channel, "MOMENT", 300.0))
        self.events: list[MailEvent] = []
        #: How many mails the relay has had that do not count.
        self.before = 0
        #: How many mails needed a transaction of their own.
        self.transactions = 0

    def open(self, disk: Disk | None = None) -> MaildirQueue:
        queue = MaildirQueue(self.path, schedule=SCHEDULE, clock=self.clock, disk=disk)
        self.addCleanup(queue.close)
        return queue

    def put(self, *messages: bytes, recipients: int = 1) -> None:
        staged = self.open().stage()
        for number, message in enumerate(messages):
            who = tuple(f"{number}.{each}@example.org" for each in range(recipients))
            staged.add(Envelope("sender@example.org", who), message)
        staged.prepare()
        staged.commit()
        self.open().claim(0)  # lets no thread unfold it later

    def mailer(self, **options: Any) -> SMTPMailer:
        options = {"connections": 1, "tls": Tls.NEVER, "timeouts": TIMEOUTS, **options}
        return SMTPMailer(self.relay.host, self.relay.port, **options)

    def drain(self, disk: Disk | None = None, **options: Any) -> QueueProcessorThread:
        tell = options.pop("tell", self.heard)
        processor = QueueProcessorThread(
            queue=self.open(disk), mailer=self.mailer(), schedule=SCHEDULE, clock=self.clock, tell=tell, **options
        )

        class Counted(MailTransaction):
            def __init__(this, *arguments: Any, **named: Any) -> None:  # noqa: N805 - `self` is the test
                self.transactions += 1
                super().__init__(*arguments, **named)

        with mock.patch.object(connection, "MailTransaction", Counted):
            processor.run(forever=False)
        return processor

    def heard(self, events: Iterable[MailEvent]) -> None:
        self.events += events

    def arrived(self) -> Counter[str]:
        return Counter(who for mail in self.relay.mails[self.before :] for who in mail.recipients)

    def assert_all_arrived(self, count: int, recipients: int = 1) -> None:
        expected = Counter(f"{number}.{each}@example.org" for number in range(count) for each in range(recipients))
        self.assertEqual(self.arrived(), expected)
        self.assertEqual(self.open().admin.count(), {})
        self.assertEqual(os.listdir(os.path.join(self.path, "new")), [])


class ARelayThatTakesEverything(OrdinaryMail):
    def test_only_the_first_two_need_a_transaction(self) -> None:
        """The first proves the connection, the second takes the third with it."""
        self.put(*map(text, range(20)))
        self.drain()
        self.assert_all_arrived(20)
        self.assertEqual((self.transactions, len(self.relay.dialogues)), (2, 1))

    def test_texts_arrive_as_they_are(self) -> None:
        """Dots, line ends of all kinds, no line end, no text; as on the long way."""
        odd = [
            b"A: b\n\n.\n",
            b"A: b\r\n\r\n.x\r.y\r\n",
            b"A: b\n\nno end",
            b"A: b\n",
            b".A: b\n\n..\n.",
            b"A: b\n\nx\r",
        ]
        self.put(*map(text, range(3)), *odd)
        self.drain()
        short, count = [mail.data for mail in self.relay.mails], self.transactions
        self.assertEqual(count, 2)
        self.put(*map(text, range(3)), *odd)
        with mock.patch.object(MaildirQueue, "knows_ordinary", new=False):
            self.drain()
        self.assertEqual(self.transactions, 2 + 9)
        self.assertEqual([mail.data for mail in self.relay.mails][9:], short)

    def test_works_while_we_do(self) -> None:
        """What was sent is removed, and what comes next is locked, between the end of a text and the reply to it."""
        self.put(*map(text, range(100)))
        disk = RecordingDisk(self.path)
        self.drain(disk)
        self.assert_all_arrived(100)
        doing: Counter[tuple[str, bytes]] = Counter()
        phase = b""
        for op in disk.ops:
            if op.call == "write_at" and op.path.startswith("locks/"):
                phase = op.data.partition(b" ")[0]
            elif op.call in ("link", "unlink") and "/.sending-" in op.path + op.other:
                doing[op.call, phase] += 1
        self.assertGreaterEqual(doing["link", b"intended"], 80)
        self.assertGreaterEqual(doing["unlink", b"intended"], 80)

    def test_several_recipients(self) -> None:
        """Each of them has it."""
        self.put(*map(text, range(5)), recipients=3)
        self.drain()
        self.assert_all_arrived(5, 3)
        self.assertEqual(self.transactions, 2)

    def test_what_is_not_ordinary_among_what_is(self) -> None:
        """It goes the long way, in its place, and what is behind it the short one."""
        messages = [*map(text, range(12))]
        messages[4] = b"Message-Id: <4@example.org>\nSubject: \xc3\xa4\n\n\xc3\xa4\n"
        messages[7] = b"Message-Id: <7@example.org>\nBcc: other@example.org\n\ntext\n"
        messages[9] += b"x" * 70_000
        self.put(*messages)
        self.drain()
        self.assert_all_arrived(12)
        self.assertEqual(
            [who for mail in self.relay.mails for who in mail.recipients], [f"{n}.0@example.org" for n in range(12)]
        )
        self.assertEqual(len(self.relay.dialogues), 1)
        self.assertEqual(self.transactions, 2 + 3)
        self.assertNotIn(b"other@example.org", b"".join(mail.data for mail in self.relay.mails))

    def test_everything_is_told(self) -> None:
        """To subscribers, observers, the log, the tally, operators, and who asks for a status."""
        self.put(*map(text, range(20)))
        seen: list[AttemptRecord] = []

        class Observer:
            def attempted(self, record: AttemptRecord) -> None:
                seen.append(record)

            def faulted(self, record: FaultRecord) -> None:
                raise AssertionError

        with observers.observing(Observer()), self.assertLogs("QueueProcessorThread", "INFO") as logs:
            processor = self.drain()
        ids = [f"{number}@example.org" for number in range(20)]
        self.assertEqual([event.messageId for event in self.events], ids)
        self.assertEqual(
            [(each.message_id, each.state, each.attempt) for each in seen], [(id_, "sent", 1) for id_ in ids]
        )
        self.assertEqual([each.size for each in seen], [len(text(number)) for number in range(20)])
        self.assertEqual(sum(": accepted by " in line for line in logs.output), 20)
        self.assertEqual(processor.tally, {Answer.ACCEPTED: 20})
        queue = self.open()
        self.assertEqual({queue.status(id_).standing for id_ in ids}, {Standing.SENT})
        [state] = [each for each in queue.admin.processors() if each.written]  # another one has put the mail there
        self.assertEqual((state.sent, sum(minute.sent for minute in state.minutes)), (20, 20))

    def test_nothing_is_told_twice_or_short(self) -> None:
        """Where no handler wants the log and there is no subscriber, only the counts are kept."""
        self.put(*map(text, range(20)), recipients=2)
        logging.getLogger("QueueProcessorThread").setLevel(logging.WARNING)
        self.addCleanup(logging.getLogger("QueueProcessorThread").setLevel, logging.NOTSET)
        processor = self.drain(tell=notifier.tell)
        self.assertEqual(processor.tally, {Answer.ACCEPTED: 40})

    def test_several_relays(self) -> None:
        """Each mail goes to the relay of its route."""
        self.put(*map(text, range(12)))
        other = self.enterContext(Relay(keywords=["PIPELINING", "SIZE", "8BITMIME"]))
        mailer = SMTPMailer(other.host, other.port, connections=1, tls=Tls.NEVER, timeouts=TIMEOUTS)
        bulk = {f"{number}.0@example.org": "bulk" for number in range(8)}
        routes = Routes(mailers=frozenset({"bulk"}), recipients=bulk)
        self.drain(routes=routes, mailers={"bulk": mailer})
        self.assertEqual((len(self.relay.mails), len(other.mails)), (4, 8))
        self.assertLess(self.transactions, 12)


class ARelayThatSaysSomethingElse(OrdinaryMail):
    """To the fifth of ten; every other mail is as if nothing had been."""

    def check(self, point: str, reply: Any, answer: Answer | None, **options: Any) -> None:
        self.put(*map(text, range(10)))
        self.relay.on(point, reply, nth=5, **options)
        processor = self.drain()
        arrived = self.arrived()
        self.assertEqual(
            [who for who in arrived if not who.startswith("4.")], [f"{n}.0@example.org" for n in range(10) if n != 4]
        )
        self.assertEqual(set(arrived.values()), {1})
        if answer is not None:
            self.assertEqual(processor.tally[answer], 1)
        self.assertEqual(processor.tally[Answer.ACCEPTED], len(arrived))

    def test_no_to_the_recipient(self) -> None:
        """It is rejected."""
        self.check("RCPT", "550 5.1.1 no such user", Answer.REJECTED)

    def test_not_now_to_the_sender(self) -> None:
        """It is begun anew over another connection, and taken."""
        self.check("MAIL", "451 4.3.0 later", None)

    def test_no_to_the_message(self) -> None:
        """It is rejected."""
        self.check("DOT", "554 5.7.1 no", Answer.REJECTED)

    def test_not_now_to_the_message(self) -> None:
        """It is deferred."""
        self.check("DOT", "451 4.3.0 later", Answer.DEFERRED)

    def test_no_text_is_wanted(self) -> None:
        """It is deferred."""
        self.check("DATA", "451 4.3.0 later", None)

    def test_several_lines(self) -> None:
        """A yes all the same."""
        self.check("DOT", "250-2.0.0 well\r\n250 2.0.0 done", None)

    def test_another_yes(self) -> None:
        """Which is none the less one."""
        self.check("RCPT", "251 2.1.5 will forward", None)
        self.assert_all_arrived(10)

    def test_it_hangs_up_before_the_reply(self) -> None:
        """That one is unknown."""
        self.put(*map(text, range(10)))
        self.relay.on("DOT", Drop(), nth=5)
        processor = self.drain()
        self.clock.advance(4000)
        self.drain()
        self.assertEqual(processor.tally[Answer.UNKNOWN], 1)
        self.assertEqual(set(self.arrived()), {f"{n}.0@example.org" for n in range(10)})
        self.assertEqual(self.open().admin.count(), {})

    def test_it_goes_away(self) -> None:
        """A 421: no mail is lost, and none is unknown."""
        self.put(*map(text, range(10)))
        self.relay.on("MAIL", "421 4.3.2 going", nth=5)
        processor = self.drain()
        self.clock.advance(4000)
        self.drain()
        self.assertEqual(processor.tally[Answer.UNKNOWN], 0)
        self.assert_all_arrived(10)


class ADiskThatFails(OrdinaryMail):
    """Quietly."""

    def setUp(self) -> None:
        super().setUp()
        logging.disable(logging.CRITICAL)
        self.addCleanup(logging.disable, logging.NOTSET)

    def test_once_at_any_call(self) -> None:
        """Every mail goes out once, and nothing is left."""
        for number in range(1, 1000):
            self.path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "queue")
            self.put(*map(text, range(4)))
            self.before = len(self.relay.mails)
            disk = FaultyDisk(number, errno.EIO)
            for _ in range(5):
                self.drain(disk)
                self.clock.advance(4000)
            with self.subTest(call=number, failed=disk.failed):
                self.assert_all_arrived(4)
            if not disk.failed:
                break

    def test_from_any_call_on(self) -> None:
        """What it does not write down is unknown to the next processor, and no mail is lost."""
        for number in range(1, 1000):
            self.path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "queue")
            self.put(*map(text, range(4)))
            self.before = len(self.relay.mails)
            disk = FaultyDisk(number, errno.EROFS, for_ever=True)
            self.drain(disk)
            first = self.arrived()
            self.clock.advance(20_000)
            processor = self.drain()
            twice = sum(self.arrived().values()) - 4
            with self.subTest(call=number, failed=disk.failed):
                self.assertEqual(set(first.values()) - {1}, set())
                self.assertEqual(len(self.arrived()), 4)
                self.assertLessEqual(twice, processor.tally[Answer.UNKNOWN])
            if not disk.failed:
                break


load_tests = in_layer(Faults)

if __name__ == "__main__":
    unittest.main()
