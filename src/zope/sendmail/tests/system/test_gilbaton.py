"""Conversations that do not get in each other's way."""

from __future__ import annotations

import os
import smtplib
import socket
import threading
import unittest
from collections.abc import Callable
from unittest import mock

from zope.sendmail.lifecycle.outcome import Reply
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.processor.thread import QueueProcessorThread
from zope.sendmail.queue.memory import MemoryQueue
from zope.sendmail.smtp.channel import SocketChannel
from zope.sendmail.system import gilbaton as module
from zope.sendmail.system.gilbaton import GilBaton, baton
from zope.sendmail.testing.contracts import MESSAGE, ManualClock
from zope.sendmail.testing.scriptedmailer import ACCEPTED, ScriptedMailer

LONG = 60.0


def elsewhere(work: Callable[[], object]) -> object:
    """What `work` gives in another thread."""
    results: list[object] = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    thread.join()
    return results[0]


class ABaton(unittest.TestCase):
    def is_free(self, one: GilBaton) -> bool:
        """Whether another thread gets it."""

        def take() -> bool:
            with one.running():
                one.take()
                return bool(one._runner.holds)

        return bool(elsewhere(take))

    def test_one_has_it(self) -> None:
        """Another one goes on without it, and takes nothing away."""
        one = GilBaton(patience=0.0)
        with one.running():
            one.take()
            self.assertFalse(self.is_free(one))
            self.assertFalse(self.is_free(one))

    def test_is_put_down(self) -> None:
        """Then somebody else may have it; to say so again does no harm."""
        one = GilBaton(patience=0.0)
        with one.running():
            one.take()
            one.put_down()
            one.put_down()
            self.assertTrue(self.is_free(one))
            one.take()
            self.assertFalse(self.is_free(one))

    def test_ends_with_the_block(self) -> None:
        """Whatever happens in it."""
        one = GilBaton(patience=0.0)
        with self.assertRaises(ValueError), one.running():
            one.take()
            raise ValueError
        self.assertTrue(self.is_free(one))

    def test_who_does_not_take_part_never_has_it(self) -> None:
        """An application that sends directly goes on with its own work after the relay's reply."""
        one = GilBaton(patience=0.0)
        one.take()
        self.assertTrue(self.is_free(one))

    def test_a_child_finds_it_free(self) -> None:
        """Whoever had it is not there."""
        with baton.running():
            baton.take()
            child = os.fork()
            if child == 0:
                os._exit(0 if self.is_free(baton) else 1)
            self.assertEqual(os.waitpid(child, 0)[1], 0)

    def test_no_interpreter_lock(self) -> None:
        """Then there is nothing to share."""
        with mock.patch.object(module, "IS_NEEDED", False):
            one = GilBaton(patience=0.0)
            with one.running():
                one.take()
                self.assertIsNone(one._runner.holds)


class AConversation(unittest.TestCase):
    def test_waits_without_it(self) -> None:
        """While the relay is waited for others go on; afterwards it is taken."""
        one = GilBaton(patience=LONG)
        ours, theirs = socket.socketpair()
        self.enterContext(ours)
        self.enterContext(theirs)
        connection = smtplib.SMTP()
        connection.sock = ours

        def relay() -> None:
            with one.running():
                one.take()
                theirs.sendall(b"250 ok\r\n")

        with mock.patch("zope.sendmail.smtp.channel.baton", one), one.running():
            one.take()
            thread = threading.Thread(target=relay)
            thread.start()
            self.assertEqual(SocketChannel(connection).receive(LONG / 6).code, 250)
            self.assertTrue(one._runner.holds)
            thread.join()

    def test_of_a_processor_takes_part(self) -> None:
        """Until it has ended, if it has a thread of its own; one that is carried with others takes no turns."""
        self.assertEqual(self.held_in_a_conversation(), [None])
        with mock.patch("zope.sendmail.processor.crew.IS_NEEDED", False):
            self.assertEqual(self.held_in_a_conversation(), [False])
        self.assertIsNone(getattr(baton._runner, "holds", None))

    @staticmethod
    def held_in_a_conversation() -> list[object]:
        """Return what the thread of a processor has of the baton while it speaks with a relay."""
        held: list[object] = []

        class Curious(ScriptedMailer):
            def __init__(self) -> None:
                super().__init__(self.reply)

            def reply(self, recipient: str) -> Reply:
                held.append(getattr(baton._runner, "holds", None))
                return ACCEPTED

        queue = MemoryQueue(clock=ManualClock())
        staged = queue.stage()
        staged.add(Envelope("s@example.org", ("one@example.org",)), MESSAGE)
        staged.prepare()
        staged.commit()
        QueueProcessorThread(queue=queue, mailer=Curious(), clock=ManualClock()).run(forever=False)
        return held
