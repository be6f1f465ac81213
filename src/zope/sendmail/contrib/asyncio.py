"""asyncio: ``await sender.send(...)``, which never blocks the event loop.  For Starlette, FastAPI, Quart, aiohttp.

::

    mail = AsyncSender(MailSender("/var/lib/shop/mail", "mail.example.org"))
    app = FastAPI(lifespan=mail.lifespan)

    @app.post("/orders")
    async def order(customer: str):
        return await mail.send("shop@example.org", [customer], message)

The disk is written by a thread of the loop's default executor; sending has a thread of its own, as always.  Fails as
`MailSender.send`.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Self, TypeVar

from zope.sendmail.lifecycle.mailstatus import MailStatus
from zope.sendmail.sender import BoundSender, MailSender, MailWriter

_Result = TypeVar("_Result")


class AsyncSender:
    """A `MailSender` for coroutines, or in tests the `MailWriter` of an outbox.

    Concurrency: any task of any loop.
    """

    def __init__(self, sender: MailSender | BoundSender | MailWriter) -> None:
        self._sender = sender

    async def send(self, *mail: Any, **options: Any) -> str:
        """Hand over one mail; return its Message-Id.  The arguments are those of `MailSender.send`.

        A task that is cancelled meanwhile ends when the mail has been written; it leaves then, unless it follows a
        transaction.

        :raises InvalidMail: before anything is written.
        :raises OSError: the queue refuses.
        """
        return await _in_thread(functools.partial(self._sender.send, *mail, **options))

    async def status(self, message_id: str) -> MailStatus:
        """Return what became of a mail.  See `IMailQueue.status`."""
        return await _in_thread(functools.partial(self._sender.queue.status, message_id))

    def bind(self, transaction_manager: Any) -> Self:
        """Return a sender of the same queue whose mail follows the transactions of a manager.

        :param transaction_manager: such as `zope.sendmail.contrib.sqlalchemy.SessionTransactions` of an
            ``AsyncSession``.  Its commit writes to the disk in the loop's own thread, some milliseconds.
        """
        if isinstance(self._sender, BoundSender):
            raise TypeError("this sender follows a transaction manager already; bind the one that it was made of")
        return type(self)(self._sender.bind(transaction_manager))

    @asynccontextmanager
    async def lifespan(self, application: object = None) -> AsyncIterator[None]:
        """Send between the start and the end of an application; what is due at its end has 30 seconds.

        :param application: what Starlette and FastAPI pass; not used.
        """
        sender = self._sender
        if isinstance(sender, MailSender):
            sender.start()
        try:
            yield
        finally:
            if isinstance(sender, MailSender):
                await _in_thread(sender.finish)


async def _in_thread(call: Callable[[], _Result]) -> _Result:
    """Return what a call returns that may wait for a disk; it is never left alone with its caller's transaction."""
    context = contextvars.copy_context()
    running = asyncio.get_running_loop().run_in_executor(None, functools.partial(context.run, call))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise
