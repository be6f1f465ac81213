"""Going on as the owner of a queue, when root looks after it.

Root's own interpreter may stand where the owner may not read: a virtual environment below root's home, a checkout in a
directory of mode 0700.  So everything that may be needed is imported before the ids are given up.
"""

from __future__ import annotations

import contextlib
import encodings
import importlib
import os
import pkgutil
from collections.abc import Iterator

import zope.sendmail
from zope.sendmail.system.privileges import act_as_owner

#: Packages of ours that a command may need later; those that need an extra are left out.
_OURS = (
    "cli", "config", "lifecycle", "maildrop", "message", "metrics", "processor", "queue", "reporting", "smtp", "system",
    "transports",
)  # fmt: skip

#: What the standard library and its users import when they first need it.
_LATER = (
    "concurrent.futures.thread",
    "email._header_value_parser",
    "email.mime.message",
    "email.mime.multipart",
    "email.mime.text",
    "hashlib",
    "hmac",
    "json.decoder",
    "json.encoder",
    "linecache",
    "select",
    "ssl",
    "stringprep",
    "termios",
    "traceback",
    "tty",
    "unicodedata",
)


def become_owner(path: str) -> None:
    """Become the owner of the directory at `path`, as root and if there is one; import before that what may be needed.

    :raises OSError: if the ids cannot be changed.
    """
    if os.geteuid() == 0:
        load_everything()
    act_as_owner(path)


@contextlib.contextmanager
def as_before() -> Iterator[None]:
    """Be root again for the length of a ``with`` block, if root's ids were given up; no other thread may work then."""
    user, group, saved = os.geteuid(), os.getegid(), os.getresuid()[2] if hasattr(os, "getresuid") else os.getuid()
    if saved != 0 or user == 0:
        yield
        return
    os.seteuid(0)
    try:
        yield
    finally:
        os.setegid(group)
        os.seteuid(user)


def load_everything() -> None:
    """Import every module that a command may import later."""
    names = [*_LATER]
    names += [f"encodings.{each.name}" for each in pkgutil.iter_modules(encodings.__path__)]
    for package in _OURS:
        prefix = f"zope.sendmail.{package}"
        names += [prefix]
        for place in zope.sendmail.__path__:
            names += _below(os.path.join(place, package), prefix)
    for name in dict.fromkeys(names):
        if not name.endswith("__main__"):
            with contextlib.suppress(ImportError):  # an extra that is not installed, a codec of another system
                importlib.import_module(name)


def _below(path: str, prefix: str) -> list[str]:
    found = []
    for each in pkgutil.iter_modules([path]):
        found.append(f"{prefix}.{each.name}")
        if each.ispkg:
            found += _below(os.path.join(path, each.name), f"{prefix}.{each.name}")
    return found
