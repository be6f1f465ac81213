"""Mail in coroutines."""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
import unittest
from collections.abc import Awaitable, Callable

import transaction

from zope.sendmail.contrib.asyncio import AsyncSender
from zope.sendmail.errors import InvalidMail
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.pieces import Piece
from zope.sendmail.queue.memory import MemoryQueue, MemoryStagedMail
from zope.sendmail.sender import MailSender, MailWriter
from zope.sendmail.testing.relay import Relay

MAIL = ("shop@example.org", ["jane@example.org"], "Subject: Order\n\nThank you!\n")


class SlowQueue(MemoryQueue):
    """A queue whose disk takes its time: until a test lets it go on."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.go_on = threading.Event(), threading.Event()

    def stage(self) -> MemoryStagedMail:
        queue = self

        class Staged(MemoryStagedMail):
            def add(self, envelope: Envelope, *message: Piece) -> str:
                queue.reached.set()
                queue.go_on.wait(300)
                return super().add(envelope, *message)

        return Staged(self.store)


class ACoroutine(unittest.TestCase):
    def run_in(self, work: Callable[[], Awaitable[None]]) -> None:
        asyncio.run(asyncio.wait_for(work(), 60))

    def test_sends(self) -> None:
        """Between start and end of the application, also what an earlier run has left."""
        path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "mail")
        relay = self.enterContext(Relay())
        MailWriter(path).send("shop@example.org", ["earlier@example.org"], MAIL[2])

        async def work() -> None:
            mail = AsyncSender(MailSender(path, relay.host, relay.port))
            async with mail.lifespan():
                identifier = await mail.send(*MAIL)
            self.assertEqual((await mail.status(identifier)).standing, "sent")

        self.run_in(work)
        self.assertEqual({mail.recipients[0] for mail in relay.mails}, {"earlier@example.org", "jane@example.org"})

    def test_gets_the_errors_of_send(self) -> None:
        """Where it awaits."""

        async def work() -> None:
            with self.assertRaises(InvalidMail):
                await AsyncSender(MailWriter("memory:", queue=MemoryQueue())).send("a@b@c", *MAIL[1:])

        self.run_in(work)

    def test_leaves_the_loop_to_others_while_the_disk_is_slow(self) -> None:
        """Another one lets it go on."""
        queue = SlowQueue()

        async def work() -> None:
            sending = asyncio.create_task(AsyncSender(MailWriter("memory:", queue=queue)).send(*MAIL))
            while not queue.reached.is_set():
                await asyncio.sleep(0)
            queue.go_on.set()
            await sending

        self.run_in(work)
        self.assertEqual(len(list(queue.admin.names())), 1)

    def test_that_is_cancelled_ends_after_the_mail_was_written(self) -> None:
        """So that its transaction is not aborted while a thread adds to it."""
        queue = SlowQueue()
        manager = transaction.TransactionManager(explicit=True)

        async def work() -> None:
            manager.begin()
            mail = AsyncSender(MailWriter("memory:", queue=queue, transaction_manager=manager))
            sending = asyncio.create_task(mail.send(*MAIL))
            while not queue.reached.is_set():
                await asyncio.sleep(0)
            sending.cancel()
            for _ in range(3):
                await asyncio.sleep(0)
            self.assertFalse(sending.done())
            queue.go_on.set()
            with self.assertRaises(asyncio.CancelledError):
                await sending
            manager.abort()

        self.run_in(work)
        self.assertEqual(queue.admin.count(), {})

    def test_may_follow_a_transaction_manager(self) -> None:
        """Each request its own; a sender that follows one cannot follow another."""
        queue = MemoryQueue()
        mail = AsyncSender(MailWriter("memory:", queue=queue))

        async def work() -> None:
            for end in ("commit", "abort"):
                manager = transaction.TransactionManager(explicit=True)
                manager.begin()
                await mail.bind(manager).send(*MAIL)
                getattr(manager, end)()
            bound = AsyncSender(MailSender("memory:").bind(manager))
            with self.assertRaisesRegex(TypeError, "follows a transaction manager already"):
                bound.bind(manager)

        self.run_in(work)
        self.assertEqual(len(list(queue.admin.names())), 1)
