"""Whether a relay that says nothing waits for our TLS.

SMTP begins with the server's words (RFC 5321, 3.1), TLS with the client's (RFC 8446, 2): where a client expects the one
and the server the other, both wait until one gives up.  Never raises; leaves no socket open.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator
from typing import Any

#: Ports at which the server speaks first; some servers there punish a client that does not wait for that.
_SPEAKS_FIRST = frozenset({24, 25, 587})

#: Seconds of silence before another connection is made to ask.
_PATIENCE = 10.0

#: Seconds for the question.
_ASKING = 5.0


def waits_for_tls(sock: socket.socket, address: tuple[int, int, int, Any], port: int, seconds: float) -> bool:
    """Return whether nothing comes on this connection, and a second one is answered in TLS.

    :param address: family, kind and protocol of the socket, and the place that it is connected to.
    :param seconds: how long the greeting is waited for; the answer comes well before that is over.
    """
    if port in _SPEAKS_FIRST or address[0] == socket.AF_UNIX or not _is_silent(sock, min(_PATIENCE, seconds / 2)):
        return False
    with contextlib.suppress(OSError), _connected(address, min(_ASKING, seconds / 4)) as other:
        return _answers_in_tls(other)
    return False


def _is_silent(sock: socket.socket, seconds: float) -> bool:
    sock.settimeout(seconds)
    try:
        sock.recv(1, socket.MSG_PEEK)
    except TimeoutError:
        return True
    except OSError:  # the reading of the greeting meets it again
        pass
    return False


@contextlib.contextmanager
def _connected(address: tuple[int, int, int, Any], seconds: float) -> Iterator[socket.socket]:
    family, kind, protocol, place = address
    with socket.socket(family, kind, protocol) as sock:
        sock.settimeout(seconds)
        sock.connect(place)
        yield sock


def _answers_in_tls(sock: socket.socket) -> bool:
    """Return whether a handshake gets on; with a relay of which nothing is believed, and which is told nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with context.wrap_socket(sock):
        return True
