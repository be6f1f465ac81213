"""What operators do to the database of a queue: ``queue migrate`` and ``queue adopt``."""

from __future__ import annotations

import argparse
import os

from zope.sendmail.cli.terminal import CommandRefused, say, say_json
from zope.sendmail.config.location import DATABASES, scheme_of, urls_of


def keep_up(options: argparse.Namespace) -> int:
    """Carry out a verb about the database of a queue; return the exit status.

    :raises Refused: if the location names no database, or the extra ``postgresql`` is not installed.
    :raises QueueError: if the database refuses.
    """
    location: str = options.maildir
    if scheme_of(location) not in DATABASES:
        raise CommandRefused(f"{location} is not a database; write postgresql://user@host/database", os.EX_CONFIG)
    try:
        from zope.sendmail.queue.postgresql import upkeep
    except ImportError as error:
        text = f"a queue in a database needs psycopg ({error}); install zope.sendmail[postgresql]"
        raise CommandRefused(text, os.EX_CONFIG) from None
    urls = urls_of(location)
    if options.verb == "adopt":
        adopted = [upkeep.adopt(url) for url in urls]
        _tell(options, {"adopted": any(adopted)}, "this database is the queue's now; processors work in it")
        return os.EX_OK
    versions = sorted({version for url in urls for version in upkeep.migrate(url)})
    words = f"the tables have version {versions[-1]} now" if versions else "the tables are up to date"
    _tell(options, {"versions": versions}, words)
    return os.EX_OK


def _tell(options: argparse.Namespace, values: dict[str, object], words: str) -> None:
    if options.json:
        say_json(values)
    else:
        say(words)
