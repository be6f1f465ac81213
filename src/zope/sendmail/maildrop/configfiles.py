"""The configuration files that a Maildrop Host may be given, by their keys, and what stands in them.

A manager in Zope chooses among keys, never writes a path; the paths come from zope.conf, so from the user that runs
the machine. A file is read again when it has changed; nothing of it is kept in the database.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from zope.sendmail.maildrop.config import read_config

if TYPE_CHECKING:
    from zope.sendmail.maildrop.config import Config

#: The key of the file that is used where none was chosen.
DEFAULT = "DEFAULT"

#: What `addConfigPath` and start-up code of sites have added in this process, key -> path.
CONFIG_PATHS: dict[str, str] = {}

_SECTION = "maildrophost"
_PREFIX = "config-path"

#: path -> (what the file looked like, what stands in it)
_known: dict[str, tuple[tuple[int, int, int], Config]] = {}


def candidates() -> Mapping[str, str]:
    """Return what may be chosen, key -> path: the default, what zope.conf offers, and what was added in this
    process.
    """
    return {DEFAULT: default_path(), **_from_zope_conf(), **CONFIG_PATHS}


def default_path() -> str:
    """``etc/maildrop.conf`` in the Zope instance."""
    return os.path.join(str(getattr(_settings(), "instancehome", None) or os.getcwd()), "etc", "maildrop.conf")


def configuration(path: str) -> Config:
    """Return what stands in the file at `path` now.  Raises `ConfigError`, which names the path."""
    try:
        status = os.stat(path)
    except OSError:
        return read_config(path)  # which says it best
    look = (status.st_ino, status.st_size, status.st_mtime_ns)
    known = _known.get(path)
    if known is None or known[0] != look:
        known = _known[path] = (look, read_config(path))
    return known[1]


def _from_zope_conf() -> dict[str, str]:
    """Return the keys ``config-path...`` of ``<product-config maildrophost>``."""
    sections = getattr(_settings(), "product_config", None) or {}
    return {key: path for key, path in sections.get(_SECTION, {}).items() if key.startswith(_PREFIX)}


def _settings() -> object:
    from App.config import getConfiguration

    return getConfiguration()
