"""Where a queue is, as one text: a directory, or a scheme with what it needs.

Pure.  What begins like a URL of a scheme that is not known here is refused: it would become a directory, with a
password in its name.  No error shows more of such a text than its scheme.
"""

from __future__ import annotations

import os
import re
from urllib.parse import parse_qsl, urlsplit

from zope.sendmail.errors import InvalidLocation

MEMORY, SPOOL = "memory:", "spool:"

#: The schemes of queues in a database.
DATABASES = ("postgres", "postgresql")

#: What libpq takes for a secret in the query of a URL.
_SECRETS = ("password", "sslpassword", "oauth_client_secret")

#: A scheme of a URL (RFC 3986, 3.1) before any slash.
_SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]*):")

#: The schemes that are known, see `zope.sendmail.queue.schemes`.
_known = {"memory", "postgres", "postgresql", "spool"}


def add_scheme(scheme: str) -> None:
    """Take locations that begin with this scheme, written in lower case and without its colon, for those of queues."""
    _known.add(scheme)


def scheme_of(location: str) -> str:
    """Return the scheme of a location, which is written in lower case, or the empty string if it is a path.

    :param location: a path, ``memory:``, ``spool:`` with paths and ``;`` between them, or a URL of another scheme that
        is known.
    :raises InvalidLocation: for any other scheme, and for a text without anything in it, which would be the directory
        in which a program happens to be.
    """
    location = os.fspath(location)
    if not location.strip():
        raise InvalidLocation("the place of a queue is empty; write the path of a directory")
    scheme = _scheme(location)
    paths = location.partition(":")[2].split(";") if scheme == "spool" else [] if scheme in _known else [location]
    for path in paths:
        if _scheme(path):
            raise _unknown(_scheme(path))
    if scheme == "memory" and location != MEMORY:
        raise _unknown(scheme)
    if scheme in DATABASES and not location.startswith(f"{scheme}://"):
        raise _unknown(scheme)
    for url in urls_of(location) if scheme in DATABASES else ():
        if not url.startswith(tuple(f"{each}://" for each in DATABASES)):
            raise InvalidLocation(f"between ; there has to be a URL of a database each; write {scheme}://... for each")
        _refuse_password(url, scheme)
    return scheme


def urls_of(location: str) -> tuple[str, ...]:
    """Return the URLs of a location in a database, of which there may be several with ``;`` between them."""
    return tuple(url for each in location.split(";") if (url := each.strip()))


def _refuse_password(location: str, scheme: str) -> None:
    """Refuse a URL with a password: others would see it in configurations, logs and lists of processes."""
    try:
        parts = urlsplit(location)
        names = {name.lower() for name, _ in parse_qsl(parts.query, keep_blank_values=True)}
        has_password = parts.password is not None or not names.isdisjoint(_SECRETS)
    except ValueError:
        raise InvalidLocation(f"{scheme}:... is not a URL; write {scheme}://user@host/database?queue=name") from None
    if has_password:
        raise InvalidLocation(
            f"{scheme}:... has a password in it, which others would see; put it into a file that passfile= names, a "
            "service that service= names, or the environment (PGPASSWORD)"
        )


def _scheme(text: str) -> str:
    match = _SCHEME.match(text)
    return match[1] if match else ""


def _unknown(scheme: str) -> InvalidLocation:
    names = {f"{each}://" if each in DATABASES else f"{each}:" for each in _known - {"memory", "postgres", "spool"}}
    others = ", ".join(sorted(names))
    return InvalidLocation(
        f"a queue cannot be at {scheme}:...; write the path of a directory (./{scheme}:... if one is "
        f"called so), {SPOOL} and directories of maildrop, {others}, or {MEMORY} alone"
    )


def check_location(location: str) -> str:
    """Return the text of a location as it is.  Raises as `scheme_of`."""
    scheme_of(location)
    return os.fspath(location)


def is_maildir(location: str) -> bool:
    """Return whether a location is the path of a Maildir, there or still to be made.  Raises as `scheme_of`."""
    return not scheme_of(location)


def absolute(location: str) -> str:
    """Return the location that means the same from every working directory.  Raises as `scheme_of`."""
    return location if scheme_of(location) else os.path.abspath(location)


def directories_of(location: str) -> tuple[str, ...]:
    """Return the directories that a location names; none if it is not on a disk.  Raises as `scheme_of`."""
    scheme = scheme_of(location)
    if scheme == "spool":
        return tuple(path for each in location.partition(":")[2].split(";") if (path := each.strip()))
    return () if scheme else (location,)


def usable_location(location: str) -> str:
    """Return the location of a queue that a delivery and its processor can share.

    :raises ValueError: for ``memory:``, and as `check_location`.
    """
    if check_location(location) == MEMORY:
        raise ValueError(f"{MEMORY} would be another queue for the delivery than for its processor; write a directory")
    return location
