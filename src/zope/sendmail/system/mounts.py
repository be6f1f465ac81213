"""What kind of file system a device number stands for, as Linux tells it.

Raises nothing: what is not known is the empty text.
"""

from __future__ import annotations

import contextlib
import os

#: Kinds that one machine has by itself, so that a file lock which cannot be seen there is not held anywhere.
LOCAL = frozenset({"ext2", "ext3", "ext4", "xfs", "f2fs", "tmpfs", "ramfs", "reiserfs", "jfs"})


def kind_of(device: int, mounts: str = "/proc/self/mountinfo") -> str:
    """Return the kind of the file system with this ``st_dev``; empty where that is not known.

    :param mounts: the file in which the system lists what is mounted (``proc(5)``).
    """
    number = f"{os.major(device)}:{os.minor(device)}".encode("ascii")
    with contextlib.suppress(OSError), open(mounts, "rb") as lines:
        for line in lines:
            place, _, what = line.partition(b" - ")
            if place.split()[2:3] == [number] and what:
                return what.split()[0].decode("ascii", "replace")
    return ""


def is_local(device: int) -> bool:
    """Return whether the file system is known to be this machine's own."""
    return kind_of(device) in LOCAL
