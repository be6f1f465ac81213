"""The name of this host, for names of files and of messages."""

from __future__ import annotations

import re
import socket

#: Kernels let a host have any name, but a Message-Id and a Maildir do not.
_STRANGE = re.compile(r"[^A-Za-z0-9._-]")


def host_name() -> str:
    """Return the name of this host, as far as it knows, with what can stand in a domain and in a file name."""
    return _STRANGE.sub("-", socket.gethostname()) or "localhost"
