"""What can lie in a queue that is no mail, or does not behave like one: set aside or skipped, and all others flow."""

from __future__ import annotations

import os
import tempfile
import unittest
from typing import Any, BinaryIO

from zope.sendmail.lifecycle.outcome import Answer
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.processor.thread import QueueProcessorThread
from zope.sendmail.queue.maildir.queue import MaildirQueue
from zope.sendmail.testing.contracts import MESSAGE, SCHEDULE, ManualClock
from zope.sendmail.testing.faultydisk import FaultyDisk
from zope.sendmail.testing.scriptedmailer import ScriptedMailer
from zope.sendmail.tests.support.layers import Processes, in_layer

WHOLE = b"X-Zope-From: s@example.org\nX-Zope-To: foreign@example.org\n" + MESSAGE


class DeniedDisk(FaultyDisk):
    """A disk on which files whose names end with ``denied`` cannot be opened, not even by root."""

    def open(self, path: str) -> BinaryIO:
        self.check(path)
        return super().open(path)

    def read_small(self, path: str) -> bytes | None:
        self.check(path)
        return super().read_small(path)

    def check(self, path: str) -> None:
        if path.endswith("denied"):
            raise PermissionError(13, "Permission denied", path)


class Poison(unittest.TestCase):
    def setUp(self) -> None:
        self.clock = ManualClock()
        self.path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "queue")
        self.mailer = ScriptedMailer()
        self.put("first@example.org")

    def queue(self) -> MaildirQueue:
        queue = MaildirQueue(self.path, schedule=SCHEDULE, clock=self.clock, disk=DeniedDisk())
        self.addCleanup(queue.close)
        return queue

    def put(self, *recipients: str) -> None:
        staged = self.queue().stage()
        for recipient in recipients:
            staged.add(Envelope("s@example.org", (recipient,)), MESSAGE)
        staged.prepare()
        staged.commit()

    def place(self, name: str, content: bytes) -> str:
        path = os.path.join(self.path, "new", name)
        with open(path, "wb") as stream:
            stream.write(content)
        return path

    def drain(self) -> None:
        self.processor = QueueProcessorThread(
            queue=self.queue(), mailer=self.mailer, clock=self.clock, tell=lambda _: None
        )
        for _ in range(3):
            self.processor.run(forever=False)
            self.clock.advance(100)

    def sent_to(self) -> list[str]:
        return [who for mail in self.mailer.sent for who in mail[1]]

    def check_set_aside(self, content: bytes, why: str) -> None:
        """`content` is set aside with a reason, whole, and the others flow."""
        self.place("1.foreign", content)
        self.put("last@example.org")
        with self.assertLogs("QueueProcessorThread", "ERROR") as logs:
            self.drain()
        self.assertEqual(self.sent_to(), ["first@example.org", "last@example.org"])
        mail = self.queue().admin.show("1.foreign")
        self.assertEqual(mail.state, State.REJECTED)
        self.assertRegex(mail.history[-1].note, why)
        self.assertRegex("".join(logs.output), why)
        with open(os.path.join(self.path, "new", ".rejected-1.foreign"), "rb") as stream:
            self.assertEqual(stream.read(), content)

    def check_skipped(self) -> None:
        """The others flow, the log tells, and nothing is deleted."""
        before = sorted(os.listdir(os.path.join(self.path, "new")))
        self.put("last@example.org")
        with self.assertLogs("QueueProcessorThread", "ERROR"):
            self.drain()
        self.assertEqual(self.sent_to(), ["first@example.org", "last@example.org"])
        left = sorted(os.listdir(os.path.join(self.path, "new")))
        self.assertEqual(left, [name for name in before if "foreign" in name])

    def test_a_zero_length_file_is_set_aside(self) -> None:
        """A power loss in 7.3 left such."""
        self.check_set_aside(b"", "not a mail of a queue")

    def test_a_file_without_envelope_is_set_aside(self) -> None:
        """A mail that somebody dropped there."""
        self.check_set_aside(MESSAGE, "X-Zope-From")

    def test_a_file_with_half_an_envelope_is_set_aside(self) -> None:
        """The disk lost the rest."""
        self.check_set_aside(WHOLE[:20], "no end")
        self.assertEqual(self.processor.tally[Answer.REJECTED], 1)

    def test_an_envelope_without_recipients_is_set_aside(self) -> None:
        """Nobody to send it to."""
        self.check_set_aside(b"X-Zope-From: s@example.org\nX-Zope-To: \n" + MESSAGE, "no recipient")

    def test_bytes_that_are_no_text_are_set_aside(self) -> None:
        """Whatever they are."""
        self.check_set_aside(bytes(range(256)) * 100, "not a mail of a queue")

    def test_malformed_recipients_do_not_harm_the_others(self) -> None:
        """They are rejected, and the rest of the list gets the mail."""
        self.place("1.foreign", b"X-Zope-From: s@example.org\nX-Zope-To: a@b@c.org, good@example.org, @x\n" + MESSAGE)
        self.drain()
        self.assertEqual(sorted(self.sent_to()), ["first@example.org", "good@example.org"])
        mail = self.queue().admin.show("1.foreign")
        rejected = mail.history[-1].having(Answer.REJECTED)
        self.assertEqual((mail.state, sorted(rejected)), (State.REJECTED, ["@x", "a@b@c.org"]))

    def test_only_malformed_recipients_are_rejected_without_a_relay(self) -> None:
        """There is nothing to ask it."""
        self.place("1.foreign", b"X-Zope-From: s@example.org\nX-Zope-To: nobody@\n" + MESSAGE)
        self.drain()
        self.assertEqual(self.queue().admin.show("1.foreign").state, State.REJECTED)

    def test_a_foreign_mail_is_sent(self) -> None:
        """Whatever its name, if it has envelope lines."""
        self.place("foreign", WHOLE)
        os.rename(self.place("seen:2,S", WHOLE), os.path.join(self.path, "cur", "seen:2,S"))
        self.drain()
        self.assertEqual(sorted(self.sent_to()), ["first@example.org", "foreign@example.org", "foreign@example.org"])
        self.assertEqual(self.queue().admin.count(), {})

    def test_a_huge_mail_costs_little_memory(self) -> None:
        """It passes in pieces."""
        import tracemalloc

        class Relaying(ScriptedMailer):
            def open_session(self) -> Any:
                session = super().open_session()
                transfer = session.transfer

                def read_in_pieces(envelope: Any, message: BinaryIO, intend: Any) -> Any:
                    from zope.sendmail.message.headers import dot_stuffed, wire

                    total = sum(len(piece) for piece in dot_stuffed(wire(message)))
                    assert total > 25_000_000
                    with open(os.devnull, "rb") as nothing:
                        return transfer(envelope, nothing, intend)

                session.transfer = read_in_pieces  # type: ignore[method-assign]  # a fault in its place
                return session

        self.drain()
        self.place("1.huge", WHOLE + b"x" * 25_000_000)
        self.mailer = Relaying()
        tracemalloc.start()
        self.drain()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        self.assertEqual(self.sent_to(), ["foreign@example.org"])
        self.assertLess(peak, 3_000_000)

    def test_a_directory_is_skipped(self) -> None:
        """It is no mail, and no reason to stop."""
        os.mkdir(os.path.join(self.path, "new", "1.foreign"))
        self.check_skipped()

    def test_a_symbolic_link_is_skipped(self) -> None:
        """It could point to anybody's file."""
        target = self.place("target", WHOLE)
        os.symlink(target, os.path.join(self.path, "new", "1.foreign"))
        os.rename(target, os.path.join(self.path, "foreign"))
        self.check_skipped()

    def test_a_dangling_link_is_skipped(self) -> None:
        """It points to nothing."""
        os.symlink("/nonexistent", os.path.join(self.path, "new", "1.foreign"))
        self.check_skipped()

    def test_a_fifo_is_skipped(self) -> None:
        """Without waiting for somebody to write into it."""
        os.mkfifo(os.path.join(self.path, "new", "1.foreign"))
        self.check_skipped()

    def test_a_file_without_permission_is_skipped(self) -> None:
        """It is looked at again later."""
        self.place("1.foreign.denied", WHOLE)
        self.check_skipped()

    def test_a_file_that_becomes_readable_is_sent(self) -> None:
        """An admin has mended it."""
        path = self.place("1.foreign.denied", WHOLE)
        with self.assertLogs("QueueProcessorThread", "ERROR"):
            self.drain()
        os.rename(path, path.removesuffix("denied"))
        self.drain()
        self.assertIn("foreign@example.org", self.sent_to())

    def test_a_file_that_vanishes_is_no_trouble(self) -> None:
        """Another processor, or an admin, was faster."""
        path = self.place("1.foreign", WHOLE)
        queue = self.queue()
        queue.claim(1)[0].release()
        os.unlink(path)
        leases = queue.claim(10)
        self.assertEqual([lease.envelope.recipients for lease in leases], [("first@example.org",)])

    def test_a_mail_whose_worker_dies_three_times_is_held(self) -> None:
        """Others flow, and a person can let it go on."""
        for _ in range(3):
            queue = self.queue()
            queue.claim()[0].open()
            queue.close()
            self.clock.advance(5)
        self.put("last@example.org")
        with self.assertLogs("QueueProcessorThread", "ERROR"):
            self.drain()
        self.assertEqual(self.sent_to(), ["last@example.org"])
        [held] = self.queue().admin.mails([State.HELD])
        self.assertIn("died 3 times", held.history[-1].note)
        self.queue().admin.release(held.name)
        self.drain()
        self.assertEqual(self.sent_to(), ["last@example.org", "first@example.org"])


load_tests = in_layer(Processes)
