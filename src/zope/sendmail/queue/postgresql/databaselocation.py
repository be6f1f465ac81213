"""What stands behind ``postgresql:`` in the location of a queue.  Pure.

A location is a libpq connection URI (PostgreSQL, 34.1.1.2) with one parameter more: ``queue``, the name of the queue
in its database.  A password in it is refused: it would be seen in configurations, logs and lists of processes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, urlsplit

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from zope.sendmail.config.location import check_location
from zope.sendmail.errors import InvalidLocation

#: The name of a queue that its location does not name.
DEFAULT = "mail"

_QUEUE = re.compile(r"[^\x00-\x20\x7f\ud800-\udfff]{1,100}")

#: A connection that is cut is noticed before others take its processor for dead and long before TCP gives it up.
_DEFAULTS: dict[str, str | int] = {
    "application_name": "zope.sendmail",
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 10000,
}


@dataclass(frozen=True, slots=True)
class DatabaseLocation:
    """A queue in a database."""

    #: The location as it was given: for people, it has no password in it.
    text: str
    queue: str
    #: What `psycopg.connect` is given.
    parameters: dict[str, str | int] = field(default_factory=dict, hash=False, repr=False)

    @classmethod
    def parse(cls, text: str) -> DatabaseLocation:
        """Return what a location means.

        :raises InvalidLocation: if it is none, or has a password in it; the text of the error does not repeat it.
        """
        check_location(text)
        try:
            text.encode()  # what the environment or a command line has may be no text at all
            query = urlsplit(text).query
            pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
        except ValueError as error:
            raise InvalidLocation(f"this is not a URL of a database ({type(error).__name__}); {_FORM}") from None
        queue = [value for name, value in pairs if name == "queue"]
        if len(queue) > 1 or (queue and not _QUEUE.fullmatch(queue[0])):
            raise InvalidLocation("queue= in the URL is no name of a queue; write it once, without blanks")
        rest = "&".join(f"{quote(name)}={quote(value)}" for name, value in pairs if name != "queue")
        bare = text.partition("?")[0] + (f"?{rest}" if rest else "")
        return cls(text, queue[0] if queue else DEFAULT, {**_DEFAULTS, **_parameters(bare)})


_FORM = "write postgresql://user@host/database?queue=name"


def _parameters(uri: str) -> dict[str, str | int]:
    try:
        given = conninfo_to_dict(uri)
    except ProgrammingError as error:
        raise InvalidLocation(f"this is not a URL of a database: {str(error).strip()}; {_FORM}") from None
    found: dict[str, str | int] = {name: value for name, value in given.items() if value is not None}
    if "," in str(found.get("host", "")):  # several servers: the one that takes what is written
        found.setdefault("target_session_attrs", "read-write")
    return found
