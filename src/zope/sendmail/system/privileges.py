"""Rights of a process: root goes on as the owner of a queue, and so does whatever it starts.

Only the effective ids of this process change, so that it can be root again to read its configuration.  A program that
it starts would get root's real ones with that, and could take root's rights back: see `child_identity`.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from typing import Any


def act_as_owner(path: str) -> None:
    """Become the owner of the directory at `path`, as root, with all of the owner's groups and none of root's.

    Else root would leave files there that the owner's processes can neither read nor remove.

    :raises OSError: if the ids cannot be changed.
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return
    if os.geteuid() == 0 and status.st_uid != 0:
        os.setgroups(_groups(status.st_uid, status.st_gid))
        os.setegid(status.st_gid)
        os.seteuid(status.st_uid)


def child_identity() -> Mapping[str, Any]:
    """Return what `subprocess.Popen` is told so that the program has our effective ids and no others.

    Nothing where we are ourselves all the time.  Else the program finds the home of its user in its environment, too,
    because root's is of no use to it.
    """
    user, group = os.geteuid(), os.getegid()
    if (os.getuid(), os.getgid()) == (user, group):
        return {}
    environment = dict(os.environ)
    if (entry := _entry(user)) is not None:
        environment |= {"HOME": entry.pw_dir, "USER": entry.pw_name, "LOGNAME": entry.pw_name}
    return {"user": user, "group": group, "env": environment}


def _groups(user: int, group: int) -> list[int]:
    entry = _entry(user)
    return [group] if entry is None else os.getgrouplist(entry.pw_name, group)


def _entry(user: int) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(user)
    except KeyError:  # a user without a name, as in containers
        return None
