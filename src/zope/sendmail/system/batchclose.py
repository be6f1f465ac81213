"""Open files that one system call closes.

To close the last descriptor of a file that has no name any more frees its space, for which some disks let one wait.
One call for many files gives the interpreter to other threads, and asks for it again, once.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Sequence


class BatchClose:
    """Files to be closed, which are in flight over a local socket that is never read (unix(7), SCM_RIGHTS).

    Where they cannot be sent, `close` closes one after the other; when the process dies, the system does.

    :param fds: are this object's from now on; some 250 at most can be sent

    Concurrency: one thread at a time.
    """

    def __init__(self, fds: Sequence[int]) -> None:
        self.count = len(fds)
        self._fds = list(fds)
        self._socket: socket.socket | None = None
        with contextlib.suppress(OSError, AttributeError):  # too many are open; a green socket does not know this
            self._send()

    def _send(self) -> None:
        sender, receiver = socket.socketpair()
        with sender:
            try:
                socket.send_fds(sender, [b"\0"], self._fds)
            except BaseException:
                receiver.close()
                raise
        self._socket = receiver
        self._close_ours()

    @property
    def is_open(self) -> bool:
        """Whether it holds files."""
        return self._socket is not None or bool(self._fds)

    def close(self) -> None:
        """Close them, and return when their space is free.  Raises nothing, and may be called again."""
        connection, self._socket = self._socket, None
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.close()
        self._close_ours()

    def _close_ours(self) -> None:
        fds, self._fds = self._fds, []
        for fd in fds:
            try:  # noqa: SIM105 - once for each mail
                os.close(fd)
            except OSError:
                pass
