"""What operators do with a queue: ``zope-sendmail queue VERB``.

Every verb goes through the queue's contract, so all of it is safe while processors run.  Nothing is created where there
is no queue.  The exit status says how it went; what went wrong stands on standard error.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import closing

from zope.sendmail.cli.asowner import become_owner
from zope.sendmail.cli.databasecommands import keep_up
from zope.sendmail.cli.metricscommand import show_metrics
from zope.sendmail.cli.movecommand import move_mails
from zope.sendmail.cli.queuearguments import CHANGES, UPKEEP, parse
from zope.sendmail.cli.queuechanges import change
from zope.sendmail.cli.queueviews import count_mails, diagnose, list_mails, show_mails, tell_status
from zope.sendmail.cli.relayviews import show_errors, show_relays, show_shape
from zope.sendmail.cli.selecting import Call
from zope.sendmail.cli.suppresscommand import suppress
from zope.sendmail.cli.terminal import CommandRefused, complain, stop_printing
from zope.sendmail.cli.topview import show_top
from zope.sendmail.config.location import DATABASES, scheme_of
from zope.sendmail.errors import InvalidLocation
from zope.sendmail.maildir import check_maildir
from zope.sendmail.queue import directories_of, is_maildir, open_queue, recognized
from zope.sendmail.system.clock import Clock
from zope.sendmail.system.disk import NO_ROOM

_VERBS: dict[str, Callable[[Call], int]] = {
    "list": list_mails,
    "show": show_mails,
    "status": tell_status,
    "count": count_mails,
    "doctor": diagnose,
    "relays": show_relays,
    "shape": show_shape,
    "errors": show_errors,
    "top": show_top,
    "metrics": show_metrics,
    "move": move_mails,
    "suppress": suppress,
    **dict.fromkeys(CHANGES, change),
}

#: What still works on a full disk.
_ROOM = "; 'queue remove' works without room, and so does sending, which makes some"

#: What a shell says of a program that a closed pipe has ended: 128 and the number of SIGPIPE.
_BROKEN_PIPE = 141


def main(arguments: Sequence[str]) -> int:
    """Carry out what stands behind ``zope-sendmail queue``; return the exit status.

    :raises SystemExit: as argparse does.
    """
    parsed = parse(arguments)
    try:
        return _carry_out(parsed)
    except BrokenPipeError:  # `| head` has seen enough, but not all was said, or done
        stop_printing()
        return _BROKEN_PIPE
    except KeyboardInterrupt:
        return 130
    except (CommandRefused, OSError) as error:
        return complain(*_explained(error))


def _explained(error: CommandRefused | OSError) -> tuple[str, int]:
    """Return what to say of a verb that was not carried out, and the exit status."""
    if isinstance(error, CommandRefused):
        return str(error), error.status
    if isinstance(error, InvalidLocation):
        return str(error), os.EX_CONFIG
    if isinstance(error, PermissionError):
        return f"not permitted; run this as the user the queue belongs to: {error}", os.EX_NOPERM
    return f"{error}{_ROOM if error.errno in NO_ROOM else ''}", os.EX_IOERR


def _carry_out(parsed: argparse.Namespace) -> int:
    if parsed.verb in UPKEEP:
        return keep_up(parsed)
    location = recognized(parsed.maildir)
    _check_place(location)
    with closing(open_queue(location)) as queue:
        status = _VERBS[parsed.verb](Call(queue, parsed, Clock()))
        sys.stdout.flush()
        return status


def _check_place(location: str) -> None:
    """See that there is a queue.  Root goes on as its owner, and so sees what a processor sees."""
    if scheme_of(location) in DATABASES:  # it says itself what is missing
        return
    paths = directories_of(location)
    if not paths:
        raise CommandRefused(f"{location} names no directory", os.EX_CONFIG)
    for path in paths:
        _check_directory(path, is_maildir=is_maildir(location))
    become_owner(paths[0])


def _check_directory(path: str, *, is_maildir: bool) -> None:
    try:
        os.listdir(path)  # says more about a missing permission than a search for directories
        if is_maildir:
            check_maildir(path)
    except FileNotFoundError:
        raise CommandRefused(f"there is no queue {path}", os.EX_CONFIG) from None
    except NotADirectoryError:
        kind = "a Maildir folder" if is_maildir else "a spool"
        raise CommandRefused(f"{path} is not {kind}: it is not a directory", os.EX_CONFIG) from None
    except ValueError as error:
        raise CommandRefused(f"{error}; a spool of maildrop is named spool:{path}", os.EX_CONFIG) from None
