"""The addresses of a relay, and a connection to the one that answers first.

A dead address among several costs a quarter of a second once (RFC 8305, 5), not a timeout at every connection: the next
one is tried meanwhile, and what did not answer is tried last for a time.  Fails with `OSError`, and leaves no socket
open then.  RFC 5321, 5.1; RFC 8305.
"""

from __future__ import annotations

import errno
import math
import os
import selectors
import socket
import time
from collections import deque
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, NamedTuple

from zope.sendmail.message.domain import ascii_domain
from zope.sendmail.smtp.recentfailures import RecentFailures

#: Seconds until the next address is tried, too (RFC 8305, 8).
_DELAY = 0.25

#: Addresses that have failed lately: refused, did not answer, or had another relay's greeting come first.
FAILURES = RecentFailures(600.0)


class HostAddress(NamedTuple):
    """One address of a relay, as the resolver tells it."""

    family: int
    kind: int
    protocol: int
    place: Any

    def __str__(self) -> str:
        return str(self.place if self.family == socket.AF_UNIX else self.place[0])


def host_addresses(hostname: str, port: int) -> list[HostAddress]:
    """Return the addresses of a relay in the order in which they are to be tried.

    :raises OSError: there is no such name, or the resolver cannot say.
    """
    name = ascii_domain(hostname) or hostname
    found = socket.getaddrinfo(name, port, 0, socket.SOCK_STREAM)
    addresses = dict.fromkeys(HostAddress(family, kind, protocol, place) for family, kind, protocol, _, place in found)
    return FAILURES.arranged((hostname, port), _interleaved(addresses))


def _interleaved(addresses: Iterable[HostAddress]) -> list[HostAddress]:
    """Return them with the families in turn, beginning with the first one (RFC 8305, 4)."""
    waiting: dict[int, deque[HostAddress]] = {}
    for address in addresses:
        waiting.setdefault(address.family, deque()).append(address)
    arranged = []
    while any(waiting.values()):
        arranged += [family.popleft() for family in waiting.values() if family]
    return arranged


def open_first(
    scope: Hashable, addresses: Sequence[HostAddress], seconds: float | None
) -> tuple[socket.socket, HostAddress]:
    """Return a connection to the first of these addresses that takes one, and this address.

    Those that were tried before it are tried last for a time.

    :param scope: the relay.
    :param seconds: for all of them together; None: as long as the system tries.
    :raises OSError: none did; this is the last one's reason, or `TimeoutError`.
    """
    with _Race(addresses, seconds) as race:
        sock, address = race.run()
    for each in addresses[: addresses.index(address)]:
        FAILURES.note(scope, each)
    return sock, address


class _Race:
    """Connections under way, of which the first one wins."""

    def __init__(self, addresses: Sequence[HostAddress], seconds: float | None) -> None:
        self._waiting = deque(addresses)
        self._until = math.inf if seconds is None else time.monotonic() + seconds
        self._next = -math.inf
        self._running: dict[socket.socket, HostAddress] = {}
        self._error: OSError = OSError(errno.EADDRNOTAVAIL, "the relay has no address")
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> _Race:
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()
        for sock in self._running:
            sock.close()

    def run(self) -> tuple[socket.socket, HostAddress]:
        while self._waiting or self._running:
            now = time.monotonic()
            if self._waiting and (now >= self._next or not self._running):
                self._start(self._waiting.popleft())
                self._next = now + _DELAY
                continue
            if now >= self._until:
                raise TimeoutError("timed out")
            for key, _ in self._selector.select(self._pause(now)):
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                if self._has_arrived(sock):
                    self._selector.unregister(sock)
                    return sock, self._running.pop(sock)
        raise self._error

    def _pause(self, now: float) -> float | None:
        until = min(self._until, self._next) if self._waiting else self._until
        return None if until == math.inf else max(until - now, 0.0)

    def _start(self, address: HostAddress) -> None:
        sock = None
        try:
            sock = socket.socket(address.family, address.kind, address.protocol)
            sock.setblocking(False)
            self._running[sock] = address
            code = sock.connect_ex(address.place)
            if code not in (0, errno.EINPROGRESS):
                raise OSError(code, os.strerror(code))
            self._selector.register(sock, selectors.EVENT_WRITE)
        except OSError as error:
            self._error = error
            if sock is not None:
                self._running.pop(sock, None)
                sock.close()

    def _has_arrived(self, sock: socket.socket) -> bool:
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code == 0:
            return True
        self._error = OSError(code, os.strerror(code))
        self._selector.unregister(sock)
        del self._running[sock]
        sock.close()
        self._next = -math.inf  # the next one need not wait any more
        return False
