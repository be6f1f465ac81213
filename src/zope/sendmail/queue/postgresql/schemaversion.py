"""The versions of the schema that this release knows: a numbered file in ``migrations/`` for each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files

from zope.sendmail.errors import QueueError

_FILE = re.compile(r"(\d{4})_\w+\.sql")

_CURE = "run: zope-sendmail queue migrate URL"


def migrations() -> Mapping[int, bytes]:
    """Return the SQL that leads to each version."""
    found = {}
    for file in files(__package__).joinpath("migrations").iterdir():
        if match := _FILE.fullmatch(file.name):  # pragma: no branch - what is shipped there are migrations
            found[int(match[1])] = file.read_bytes()
    return dict(sorted(found.items()))


#: The version that this release works with.
NEWEST = max(migrations())


def check_version(version: int) -> None:
    """Refuse a database whose schema is not of the version that this release works with.

    :raises QueueError: with the cure.
    """
    if version > NEWEST:
        raise QueueError(
            f"the database has version {version} of the queue's schema, and this release knows {NEWEST} at most; "
            "use the newer release here too"
        )
    if version < NEWEST:
        raise QueueError(f"the database has version {version} of the queue's schema, and {NEWEST} is needed; {_CURE}")


def missing() -> QueueError:
    """Return what is said of a database without any queue."""
    return QueueError(f"the database has no queue; {_CURE}")
