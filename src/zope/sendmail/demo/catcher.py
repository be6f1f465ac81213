"""The relay of the demo: takes every mail and keeps it in memory.

It has any number of entrances, so that several processes can be told apart by the one they use.  It can
withhold its answer to a mail: that is the moment in which it is not known how the mail stands (RFC 1047).
"""

from __future__ import annotations

import asyncio
import email
import email.policy
import socket
import threading
import time
from collections import Counter
from collections.abc import Coroutine
from concurrent.futures import Future
from dataclasses import dataclass, field
from email.message import EmailMessage
from functools import cached_property
from typing import Any, TypeVar

from aiosmtpd.smtp import SMTP, Envelope, Session

_T = TypeVar("_T")

#: Seconds for what the catcher's own thread does between two mails.
_PROMPT = 30.0


@dataclass(frozen=True)
class Caught:
    """One mail as it came.  `port`: its entrance; `moment`: `time.monotonic`, `clock`: `time.time` then."""

    port: int
    sender: str
    recipients: tuple[str, ...]
    content: bytes
    moment: float = field(default_factory=time.monotonic)
    clock: float = field(default_factory=time.time)

    @cached_property
    def message(self) -> EmailMessage:
        """The message, read."""
        return email.message_from_bytes(self.content, policy=email.policy.default)

    @cached_property
    def message_id(self) -> str:
        """The Message-Id without brackets."""
        return str(self.message.get("Message-Id", "")).strip().strip("<>")


@dataclass
class WithheldAnswer:
    """A withheld answer: to the mail with which there are `count`.  That is `mail`, once it is there."""

    count: int
    mail: Future[Caught] = field(default_factory=Future)
    released: asyncio.Event = field(default_factory=asyncio.Event)


class Catcher:
    """An SMTP server on 127.0.0.1 in a thread of its own.  Concurrency: any thread."""

    def __init__(self) -> None:
        #: Seconds until a mail is answered.
        self.pause = 0.0
        self._caught: list[Caught] = []
        self._hold: WithheldAnswer | None = None
        self._servers: list[asyncio.Server] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="catcher", daemon=True)
        self._thread.start()

    def open(self) -> int:
        """Open one more entrance and return its port."""
        return self._do(self._open())

    def close(self) -> None:
        """End all conversations."""
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_PROMPT)

    def caught(self, since: int = 0) -> list[Caught]:
        """Return what came, in this order, without the first `since`."""
        return self._caught[since:]

    def delivered(self) -> Counter[str]:
        """Return how often each Message-Id came."""
        return Counter(mail.message_id for mail in self.caught())

    def hold(self, number: int) -> WithheldAnswer:
        """Withhold the answer to the mail that comes `number`-th from now on; the mail itself is kept."""
        self._hold = WithheldAnswer(len(self._caught) + number)
        return self._hold

    def release(self) -> None:
        """Give the answer that was withheld."""
        if self._hold is not None:
            self._loop.call_soon_threadsafe(self._hold.released.set)

    # what aiosmtpd calls, in the catcher's thread

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """Return a mail has come whole.  From here on it counts as delivered, whether or not the answer arrives."""
        assert isinstance(envelope.content, bytes)
        assert server.transport is not None
        port = server.transport.get_extra_info("sockname")[1]
        mail = Caught(port, envelope.mail_from or "", tuple(envelope.rcpt_tos), envelope.content)
        self._caught.append(mail)
        hold = self._hold
        if hold is not None and len(self._caught) == hold.count:
            hold.mail.set_result(mail)
            await hold.released.wait()
        await asyncio.sleep(self.pause)
        return "250 2.0.0 Caught"

    # the thread

    async def _open(self) -> int:
        server = await self._loop.create_server(self._conversation, "127.0.0.1", 0)
        self._servers.append(server)
        listening: socket.socket = server.sockets[0]
        port: int = listening.getsockname()[1]
        return port

    def _conversation(self) -> SMTP:
        return SMTP(self, hostname="catcher.example", ident="demo", enable_SMTPUTF8=True, loop=self._loop)

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.wait(others, timeout=_PROMPT / 2) if others else None

    def _do(self, task: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(task, self._loop).result(_PROMPT)
