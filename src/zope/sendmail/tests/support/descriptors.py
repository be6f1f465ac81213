"""Open files of this process, for tests that count them while threads that other tests have left may open theirs."""

from __future__ import annotations

import contextlib
import os


def open_below(directory: str) -> int:
    """Return how many descriptors are of files below a directory; of all files where the system does not tell which."""
    place = os.path.realpath(directory)
    count = 0
    for number in os.listdir("/dev/fd"):
        with contextlib.suppress(FileNotFoundError):  # it was that of the list
            count += _is_below(f"/dev/fd/{number}", place)
    return count


def _is_below(descriptor: str, place: str) -> bool:
    try:
        target = os.readlink(descriptor)
    except FileNotFoundError:
        raise
    except OSError:  # no link, as on the BSDs
        return True
    return target == place or target.startswith(place + os.sep)
