"""A relay for measuring, and a line with a delay in front of it.

The relay takes everything and does as little as it can, with all that a modern one offers.  The line passes bytes on
at once to the relay, and to the client after a delay, as a network with this round-trip time would; it counts
*turns*: how often the client had to wait for the relay before it went on.
"""

from __future__ import annotations

import contextlib
import queue
import re
import socket
import ssl
import tempfile
import threading
import time
from typing import Any

import trustme
from serve import serve

_OFFERS = ("PIPELINING", "SIZE 33554432", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "CHUNKING")
_NUMBER = re.compile(rb"(?m)^X-Number: (\d+)")
_ORDINARY = {b"RSET": b"250 2.0.0 Ok\r\n", b"RCPT": b"250 2.1.5 Ok\r\n", b"MAIL": b"250 2.1.0 Ok\r\n"}


class Exchange:
    """One connection.  Replies to one flight go back together."""

    def __init__(self, sink: Sink, client: socket.socket) -> None:
        self._sink = sink
        self._socket = client
        self._buffer = bytearray()
        self._out = b"220 sink ESMTP\r\n"
        self._encrypted = False

    def run(self) -> None:
        """Until the client leaves."""
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError), self._socket:
            while (line := self._upto(b"\r\n")) is not None and self._obey(line):
                pass

    def _more(self) -> bool:
        if self._out:
            out, self._out = self._out, b""
            self._socket.sendall(out)
        data = self._socket.recv(65536)
        self._buffer += data
        return bool(data)

    def _upto(self, end: bytes) -> bytes | None:
        """What comes before `end`; looks at each byte once, for 7.3 gives a message of any size ten seconds."""
        looked = 0
        while (at := self._buffer.find(end, looked)) < 0:
            looked = max(0, len(self._buffer) - len(end) + 1)
            if not self._more():
                return None
        return self._off(at, at + len(end))

    def _off(self, wanted: int, whole: int) -> bytes:
        found = bytes(memoryview(self._buffer)[:wanted])
        del self._buffer[:whole]
        return found

    def _obey(self, line: bytes) -> bool:
        verb = line[:4].upper()
        if verb in _ORDINARY:
            self._out += _ORDINARY[verb]
            return True
        obey = {b"EHLO": self._ehlo, b"STAR": self._tls, b"AUTH": self._auth, b"DATA": self._data, b"BDAT": self._bdat}
        if verb in obey:
            return obey[verb](line)
        with contextlib.suppress(OSError):
            self._socket.sendall(b"221 2.0.0 Bye\r\n")
        return False

    def _ehlo(self, line: bytes) -> bool:
        secure = [] if self._sink.tls is None else ["AUTH PLAIN LOGIN"] if self._encrypted else ["STARTTLS"]
        lines = ["sink", *_OFFERS, *secure]
        self._out += "".join(f"250{'-' if each is not lines[-1] else ' '}{each}\r\n" for each in lines).encode()
        return True

    def _tls(self, line: bytes) -> bool:
        assert self._sink.tls is not None
        self._socket.sendall(b"220 2.0.0 go ahead\r\n")
        self._socket = self._sink.tls.wrap_socket(self._socket, server_side=True)
        self._encrypted = True
        return True

    def _auth(self, line: bytes) -> bool:
        self._out += b"235 2.7.0 welcome\r\n"
        return True

    def _data(self, line: bytes) -> bool:
        self._out += b"354 go ahead\r\n"
        return self._taken(self._upto(b"\r\n.\r\n"))

    def _bdat(self, line: bytes) -> bool:
        size = int(line.split()[1])
        while len(self._buffer) < size:
            if not self._more():
                return False
        return self._taken(self._off(size, size))

    def _taken(self, text: bytes | None) -> bool:
        self._sink.taken += text is not None
        self._sink.last = time.monotonic()
        if text is not None and self._sink.notes and (number := _NUMBER.search(text, 0, 2000)):
            self._sink.arrivals.append((int(number[1]), time.monotonic()))
        self._out += b"250 2.0.0 Ok: queued\r\n"
        return text is not None


class Sink:
    """The relay.  If it `notes`, it knows which numbered mail came when.

    :param port: where others listen as well, each in a process of its own; 0: one of its own
    """

    def __init__(self, tls: ssl.SSLContext | None, *, notes: bool = False, port: int = 0) -> None:
        self.tls, self.notes = tls, notes
        self.arrivals: list[tuple[int, float]] = []
        self.taken = 0
        self.connections = 0
        self.last = 0.0
        self._listener = socket.create_server(("127.0.0.1", port), backlog=100, reuse_port=True)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            self.connections += 1
            threading.Thread(target=Exchange(self, client).run, daemon=True).start()


class Delayed:
    """The line.  `seconds` is the round-trip time."""

    def __init__(self, target: int, seconds: float) -> None:
        self._target = target
        self._seconds = seconds
        self.turns = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            relay = socket.create_connection(("127.0.0.1", self._target))
            for each in (client, relay):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _Wire(self, client, relay, self._seconds).start()


class _Wire:
    """One connection of the line."""

    def __init__(self, line: Delayed, client: socket.socket, relay: socket.socket, seconds: float) -> None:
        self._line, self._client, self._relay, self._seconds = line, client, relay, seconds
        self._under_way: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
        self._relay_spoke = False

    def start(self) -> None:
        for work in (self._forth, self._back, self._late):
            threading.Thread(target=work, daemon=True).start()

    def _forth(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._client.recv(65536):
                if self._relay_spoke:  # the client has seen something since it last spoke
                    self._relay_spoke = False
                    self._line.turns += 1
                self._relay.sendall(data)
        with contextlib.suppress(OSError):
            self._relay.shutdown(socket.SHUT_WR)

    def _back(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._relay.recv(65536):
                self._under_way.put((time.monotonic() + self._seconds, data))
        self._under_way.put((0.0, b""))

    def _late(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                due, data = self._under_way.get()
                if not data:
                    break
                time.sleep(max(0.0, due - time.monotonic()))
                self._relay_spoke = True
                self._client.sendall(data)
        for each in (self._client, self._relay):
            each.close()


_running: dict[str, Any] = {}


def start(*, tls: bool = False, delay: float | None = None, notes: bool = False, port: int = 0) -> dict[str, Any]:
    """A relay, behind a line if there is a delay; where it is, and whom to trust for it."""
    authority = trustme.CA()
    context = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
    sink = Sink(context, notes=notes, port=port)
    line = None if delay is None else Delayed(sink.port, delay)
    port = (line or sink).port
    stored = tempfile.NamedTemporaryFile(suffix=".pem")  # noqa: SIM115 - as long as this process
    authority.cert_pem.write_to_path(stored.name)
    _running[str(port)] = sink, line, stored
    return {"port": port, "cafile": stored.name}


def count(port: int) -> dict[str, Any]:
    """What has happened there since the last time."""
    sink, line, _ = _running[str(port)]
    answer = {
        "taken": sink.taken,
        "connections": sink.connections,
        "turns": line.turns if line else 0,
        "last": sink.last,
        "cpu": time.process_time(),
    }
    sink.taken = sink.connections = 0
    if line:
        line.turns = 0
    return answer


def until(port: int, mails: int, seconds: float) -> dict[str, Any]:
    """How many different numbers have come, as soon as they are so many, at the latest after so long."""
    noted, end, seen, numbers = _running[str(port)][0].arrivals, time.monotonic() + seconds, 0, set[int]()
    while True:
        fresh = noted[seen:]
        seen += len(fresh)
        numbers.update(number for number, _ in fresh)
        if len(numbers) >= mails or time.monotonic() >= end:
            return {"mails": len(numbers)}
        time.sleep(0.002)


def arrivals(port: int) -> dict[str, Any]:
    """Which number came when, by this machine's monotonic clock, since the last time."""
    sink = _running[str(port)][0]
    noted, sink.arrivals = sink.arrivals, []
    return {"arrivals": noted}


if __name__ == "__main__":
    serve({"start": start, "count": count, "until": until, "arrivals": arrivals})
