"""Whether other users can have put something of theirs in our way: the owners of all parts of a path.

Like OpenSSH for its keys: the owner of a directory or a link on the way decides what is found behind it.  Links are
followed here, part by part, so that the way behind them counts as well.  Fails with `QueueError`.
"""

from __future__ import annotations

import enum
import os
import stat
from collections.abc import Callable

from zope.sendmail.errors import QueueError

#: So many links on a way are a circle, as for the kernel.
_MOST_LINKS = 40

_SHARED = stat.S_IWGRP | stat.S_IWOTH


class TrustedOwners(enum.Enum):
    """Whose parts of a path are trusted; root's always are."""

    #: Those of any user, where only an owner that is trusted can have put them there.
    PLACED = "placed"
    #: Ours only.
    OURS = "ours"


def check_place(
    path: str,
    owners: TrustedOwners = TrustedOwners.PLACED,
    *,
    us: int | None = None,
    lstat: Callable[[str], os.stat_result] = os.lstat,
) -> bool:
    """Refuse a path on which another user can have put something.

    Parts that are not there yet are ours to make.

    With `TrustedOwners.PLACED`, an administrator may have given a directory to another user, such as the one that owns
    an installation: only its owner can write to the directory above.  Where a group can, what is there has to belong to
    us, to root or to the owner of that directory; where all users can (``/tmp``), to us or to root, and be no link.

    With `TrustedOwners.OURS` every part has to belong to us or to root.

    :param us: the user, by default that of this process.
    :returns: whether the path stays what it is.  If not, another user can rename what was checked (a directory to which
        others can write has no sticky bit), and it has to be checked again before it is used again.
    :raises QueueError: which names the part, its owner and the cure; `OSError` for what cannot be looked at.
    """
    way = _Way(owners, os.geteuid() if us is None else us, lstat)
    way.check(os.path.abspath(path))
    return way.stays


class _Way:
    """One walk along a path."""

    def __init__(self, owners: TrustedOwners, us: int, lstat: Callable[[str], os.stat_result]) -> None:
        self._owners = owners
        self._lstat = lstat
        self._root = lstat("/").st_uid  # in a user namespace root may have another number
        self._ours = {us, 0, self._root}
        self._links = 0
        self.stays = True

    def check(self, path: str) -> None:
        """Walk along an absolute path."""
        above = "/"
        waiting = _parts(path)
        while waiting:
            name = waiting.pop()
            if name == "..":
                above = os.path.dirname(above)
                continue
            here = os.path.join(above, name)
            try:
                directory, status = self._lstat(above), self._lstat(here)
            except FileNotFoundError:
                return
            self._check_part(here, above, directory, status)
            if not stat.S_ISLNK(status.st_mode):
                above = here
                continue
            target = self._target(here)
            waiting += _parts(target)
            above = "/" if target.startswith("/") else above

    def _check_part(self, path: str, above: str, directory: os.stat_result, status: os.stat_result) -> None:
        shared = bool(directory.st_mode & _SHARED)
        everybody = bool(directory.st_mode & stat.S_IWOTH)
        if shared and not directory.st_mode & stat.S_ISVTX:
            self.stays = False
        trusted = self._ours | ({directory.st_uid} if not everybody and self._owners is TrustedOwners.PLACED else set())
        is_link = stat.S_ISLNK(status.st_mode)
        if status.st_uid in trusted and not (is_link and everybody):
            return
        if not shared and self._owners is TrustedOwners.PLACED:
            return
        raise QueueError(_why(path, above, directory, status))

    def _target(self, path: str) -> str:
        self._links += 1
        if self._links > _MOST_LINKS:
            raise QueueError(f"{path} leads to itself; correct that link")
        return os.readlink(path)


def _why(path: str, above: str, directory: os.stat_result, status: os.stat_result) -> str:
    """Say what is wrong with a part of a path, and what to do."""
    kind = "directory" if stat.S_ISDIR(status.st_mode) else "file"
    what = "a symbolic link" if stat.S_ISLNK(status.st_mode) else f"a {kind}"
    writers = "everybody" if directory.st_mode & stat.S_IWOTH else "a group"
    shared = f", and {writers} may write to {above}" if directory.st_mode & _SHARED else ""
    return (
        f"{path} is {what} of user {status.st_uid}{shared}: another user may have put it there to get at mail; "
        "use a directory below ones that belong to this user or to root, and to which no other user can write, such as "
        "/var/lib/mail"
    )


def _parts(path: str) -> list[str]:
    """Return the names in a path, the last one first."""
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]
