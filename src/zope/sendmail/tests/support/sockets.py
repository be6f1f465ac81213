"""Where tests put Unix sockets: their addresses have a limit, and temporary directories may have long names."""

import os
import tempfile

#: Octets of such a directory; with the name of the socket there may be 104 or 108.
_LONGEST = 80


def socket_directory() -> tempfile.TemporaryDirectory[str]:
    """A new directory that goes at the end of a with block."""
    usual = tempfile.gettempdir()
    return tempfile.TemporaryDirectory(dir=usual if len(os.fsencode(usual)) < _LONGEST else "/tmp")
