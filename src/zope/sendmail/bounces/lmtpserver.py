"""Bounces by LMTP (RFC 2033), as a mail server hands them to a mail store: over TCP, or a Unix socket.

One recipient a transaction: a further one is asked to come again (452), so that each gets an answer of its own.
A bounce that cannot be handled now stays with the mail server (451); an address to which no bounce of ours comes is
refused (550), so that mail which was led here by mistake is not lost, and so is what a person writes to a sender's own
address.  The server is that of aiosmtpd.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
from collections.abc import Callable, Sequence
from typing import Any

from aiosmtpd.lmtp import LMTP

from zope.sendmail.bounces.handler import BounceHandler
from zope.sendmail.bounces.parser import Bounce, is_automatic
from zope.sendmail.reporting import maillog

#: Octets of a message that is taken; a line of what comes back may be of any length.
_MOST, _LONGEST_LINE = 32 * 1024 * 1024, 1024 * 1024

#: Seconds after which a silent client is left, as RFC 5321, 4.5.3.2.7 wants it.
_PATIENCE = 300.0


class _Server(LMTP):
    line_length_limit = _LONGEST_LINE


class _Hooks:
    """What aiosmtpd calls, in its loop."""

    def __init__(self, handler: BounceHandler, told: Callable[[Sequence[Bounce]], object]) -> None:
        self._handler = handler
        self._told = told

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        """Take a recipient."""
        if envelope.rcpt_tos:
            return "452 4.5.3 one recipient at a time"
        if not self._handler.expects(address):
            return "550 5.1.1 bounces to this address are not read here"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 recipient ok"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        """Handle a message; the answer says that all that follows from it is done."""
        [address] = envelope.rcpt_tos
        try:
            bounces = await asyncio.to_thread(self._handler.handle, envelope.content, address)
            self._told(bounces)
        except Exception as error:  # noqa: BLE001 - it is the mail server that keeps the bounce, whatever is wrong
            maillog.bounce_left(f"to {address}", error)
            return "451 4.3.0 it cannot be handled now"
        if not bounces and self._is_a_persons(envelope, address):
            return "550 5.7.1 only bounces are read at this address; no person would see it"
        return "250 2.0.0 handled" if bounces else "250 2.0.0 no bounce"

    def _is_a_persons(self, envelope: Any, address: str) -> bool:
        """Return whether a mail that is no bounce waits for a person: its writer has to know that none will see it.

        Nothing is said about what programs write, which would be told to programs, nor about mail to a signed address,
        which persons do not know.
        """
        is_signed = "+" in address.rpartition("@")[0]
        return bool((envelope.mail_from or "").strip("<>")) and not is_signed and not is_automatic(envelope.content)


class BounceServer:
    """Takes bounces until it is told to stop.

    :param place: host and port, or the path of a Unix socket.
    :param told: called with what each message said.

    Guarantee: a message that was answered with 250 was handled.  Concurrency: `run` in one thread; `stop` from any.
    """

    def __init__(
        self, handler: BounceHandler, place: tuple[str, int] | str, told: Callable[[Sequence[Bounce]], object]
    ) -> None:
        self._hooks = _Hooks(handler, told)
        self._place = place
        self._socket = _listening(place)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()

    @property
    def address(self) -> str:
        """Where it listens, as people write it."""
        if isinstance(self._place, str):
            return f"unix:{self._place}"
        host, port = self._socket.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def run(self) -> None:
        """Serve until `stop`; a message that has no answer then is handed over once more, which changes nothing."""
        asyncio.run(self._serve())

    def stop(self) -> None:
        """Let `run` return.  May be called from a signal handler."""
        if self._loop is None:
            self._stop.set()
            return
        with contextlib.suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(self._stop.set)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        server = await self._loop.create_server(self._make, sock=self._socket)
        try:
            await self._stop.wait()
        finally:
            server.close()
            self.close()

    def _make(self) -> LMTP:
        return _Server(
            self._hooks, data_size_limit=_MOST, enable_SMTPUTF8=True, hostname="localhost", ident="bounces",
            timeout=_PATIENCE, loop=self._loop,
        )  # fmt: skip

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()
        if isinstance(self._place, str):
            with contextlib.suppress(OSError):
                os.unlink(self._place)


def _listening(place: tuple[str, int] | str) -> socket.socket:
    """Return a socket that listens.  Raises `OSError`."""
    if not isinstance(place, str):
        family = socket.AF_INET6 if ":" in place[0] else socket.AF_INET
        return socket.create_server(place, family=family)
    _remove_left(place)
    listening = socket.socket(socket.AF_UNIX)
    try:
        listening.bind(place)
        os.chmod(place, 0o666)  # noqa: S103 - the rights of its directory say which programs may connect
        listening.listen()
    except OSError:
        listening.close()
        raise
    return listening


def _remove_left(path: str) -> None:
    """Remove the socket of a process that is dead.  Raises `OSError` if one listens there."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.stat(path, follow_symlinks=False).st_mode):
            with socket.socket(socket.AF_UNIX) as probe:
                if probe.connect_ex(path) == 0:
                    raise OSError(f"another process listens at {path}")
            os.unlink(path)
