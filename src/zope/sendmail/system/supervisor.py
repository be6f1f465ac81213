"""What a process tells the supervisor that has started it: systemd's protocol (sd_notify(3))."""

from __future__ import annotations

import contextlib
import os
import socket

#: In the environment: set by systemd, where daemons say that they are at work, reload and stop.
SOCKET = "NOTIFY_SOCKET"


def tell_supervisor(state: str = "READY=1") -> None:
    """Tell the supervisor, if it asks, that this process is at work: from now on no signal comes too early."""
    address = os.environ.get(SOCKET, "")
    if address:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
            supervisor.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)
