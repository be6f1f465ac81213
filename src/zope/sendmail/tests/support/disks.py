"""Small disks of their own for tests, which only root can mount: file systems in a file, or in memory.

Fails with the reason where one cannot be had: no root, no loop device, a kernel without the file system, no mkfs.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import struct
import subprocess
import sys
import tempfile

from zope.sendmail.tests.support.servers import cache, excuse

_MEGABYTE = 1 << 20

#: ioctl(2) of btrfs: BTRFS_IOC_QUOTA_CTL with a command and a status; BTRFS_IOC_QGROUP_LIMIT with a group, which is the
#: file's own for 0, with the flag of the size of all that it has, and that size.
_ENABLE_QUOTAS, _LIMIT_GROUP = 0xC0109428, 0x8030942B

#: What ``.ci/mtas.py`` calls the programs that make file systems.
_FETCHED = "filesystems"

#: How each is made, with few inodes where that can be chosen, and of which size: the smallest that there is.
_MAKE: dict[str, tuple[int, list[str], list[str]]] = {
    "ext4": (4, ["-q", "-m", "0", "-N", "1024"], ["-q", "-m", "0", "-N", "64"]),
    "xfs": (300, ["-q"], ["-q", "-i", "maxpct=1"]),
    "btrfs": (128, ["-q"], ["-q"]),
}


def mounted(place: str, file_system: str, *, has_few_inodes: bool) -> str:
    """Mount an empty disk at `place`; return why that is not possible, or an empty string.

    Its image, which takes as much room as is written, goes with the mount.
    """
    if os.geteuid() != 0 or sys.platform != "linux":
        return "a disk of its own is needed, and root on Linux to mount it"
    if file_system == "tmpfs":
        options = "size=8m,nr_inodes=64" if has_few_inodes else "size=1m"
        return _failure("mount", "-t", "tmpfs", "-o", options, "none", place)
    megabytes, usual, few = _MAKE[file_system]
    make = f"mkfs.{file_system}"
    # What .ci/mtas.py fetched sees its own root directory only.
    root = "" if shutil.which(make) or excuse(_FETCHED, make) else os.fspath(cache() / _FETCHED)
    confined = ["chroot", root] if root else []
    if root:  # mkfs.btrfs wants to see that the image is not mounted
        os.makedirs(f"{root}/proc/self", exist_ok=True)
        with open(f"{root}/proc/self/mounts", "a", encoding="ascii"):
            pass
    with tempfile.NamedTemporaryFile(dir=f"{root}/tmp" if root else None) as image:
        image.truncate(megabytes * _MEGABYTE)
        inside = image.name.removeprefix(root)
        made = _failure(*confined, make, *(few if has_few_inodes else usual), inside)
        return made or _failure("mount", "-t", file_system, "-o", "loop", image.name, place)


def limit(place: str, size: int) -> None:
    """Let a btrfs hold no more than `size` bytes of files and their names, by a quota group (btrfs-qgroup(8)).

    The group is that of the whole disk, and also holds for root.
    """
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for call, arguments in (_ENABLE_QUOTAS, (1, 0)), (_LIMIT_GROUP, (0, 1, size, 0, 0, 0)):
            fcntl.ioctl(fd, call, struct.pack(f"{len(arguments)}Q", *arguments))
            os.sync()  # it counts from the next commit on
    finally:
        os.close(fd)


def unmount(place: str) -> None:
    """Give a disk back, with what is open on it."""
    subprocess.run(["umount", "-l", place], check=True)


def append_all(path: str) -> None:
    """Let a file grow until not a block is left, and then not an octet."""
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    try:
        size = 256 * _MEGABYTE
        while size >= 4096:
            try:
                os.posix_fallocate(fd, os.fstat(fd).st_size, size)
            except OSError:
                size //= 2
        with contextlib.suppress(OSError):
            while True:
                os.write(fd, b"x" * 512)
    finally:
        os.close(fd)


def _failure(command: str, *arguments: str) -> str:
    """Run a command; return why it failed, or an empty string."""
    if shutil.which(command) is None:
        return f"{command} is not installed"
    done = subprocess.run([command, *arguments], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    return f"{command} failed: {done.stderr.strip()}" if done.returncode else ""
