"""Where a queue is, as one text: a directory, or a scheme with what it needs.

Pure.  What begins like a URL of a scheme that is not known here is refused: it would become a directory, with a
password in its name.  No error shows more of such a text than its scheme.
"""

from __future__ import annotations

import os
import re

from zope.sendmail.errors import InvalidLocation

MEMORY, SPOOL = "memory:", "spool:"

#: A scheme of a URL (RFC 3986, 3.1) before any slash.
_SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]*):")


def check_location(location: str) -> str:
    """Return the text of a location as it is.

    :param location: a path, ``memory:``, or ``spool:`` with paths and ``;`` between them.
    :raises InvalidLocation: for any other scheme.
    """
    location = os.fspath(location)
    if location == MEMORY:
        return location
    for path in location.removeprefix(SPOOL).split(";") if location.startswith(SPOOL) else [location]:
        scheme = _SCHEME.match(path)
        if scheme is not None:
            raise InvalidLocation(
                f"a queue cannot be at {scheme[1]}:...; write the path of a directory (./{scheme[1]}:... if one is "
                f"called so), {SPOOL} and directories of maildrop, or {MEMORY} alone"
            )
    return location


def is_maildir(location: str) -> bool:
    """Return whether a location is the path of a Maildir, there or still to be made.  Raises as `check_location`."""
    return check_location(location) != MEMORY and not location.startswith(SPOOL)


def directories_of(location: str) -> tuple[str, ...]:
    """Return the directories that a location names; none if it is not on a disk.  Raises as `check_location`."""
    if check_location(location) == MEMORY:
        return ()
    if location.startswith(SPOOL):
        return tuple(path for each in location.removeprefix(SPOOL).split(";") if (path := each.strip()))
    return (location,)


def usable_location(location: str) -> str:
    """Return the location of a queue that a delivery and its processor can share.

    :raises ValueError: for ``memory:``, and as `check_location`.
    """
    if check_location(location) == MEMORY:
        raise ValueError(f"{MEMORY} would be another queue for the delivery than for its processor; write a directory")
    return location
