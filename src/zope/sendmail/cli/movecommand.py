"""``queue move FROM TO``: all mail of a queue goes to another one, with its history and its state."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import closing

from zope.sendmail.cli.formatting import clean, mails_in_words
from zope.sendmail.cli.selecting import Call
from zope.sendmail.cli.terminal import CommandRefused, complain, progress, say, say_json
from zope.sendmail.config.location import MEMORY, directories_of, is_maildir
from zope.sendmail.lifecycle.states import State
from zope.sendmail.maildir import check_maildir
from zope.sendmail.queue import open_queue, recognized
from zope.sendmail.queue.moving import Moved, move, rehearse, transits_of


def move_mails(call: Call) -> int:
    """Move the mail of a queue; return 0 if all of it was possible, else 1.

    :raises Refused: if the other queue cannot be one.
    """
    options = call.options
    location = recognized(options.to)
    _check_target(location)
    with closing(open_queue(location)) as queue:
        sources, target = transits_of(call.queue, options.maildir), transits_of(queue, location)[0]
        if any(source.origin == target.origin for source in sources):
            raise CommandRefused(
                f"{options.maildir} and {options.to} are the same queue; name another one to move to", 2
            )
        if options.dry_run:
            return _tell(call, rehearse(sources, target), "would be moved", "; nothing was done")
        counts = call.admin.count()
        total = sum(count for state, count in counts.items() if state is not State.STAGED)
        status = _tell(call, progress(move(sources, target), f"move of {total:,}"), "moved")
    if counts.get(State.STAGED) and not options.json:
        say(
            f"{mails_in_words(counts[State.STAGED])} of transactions that have not ended, or are in doubt, did not move"
        )
    return status


def _check_target(location: str) -> None:
    if location == MEMORY:
        raise CommandRefused("mail cannot be moved into the memory of a program that ends", os.EX_CONFIG)
    if is_maildir(location) and os.path.exists(location) and (not os.path.isdir(location) or os.listdir(location)):
        try:
            check_maildir(location)
        except ValueError as error:
            raise CommandRefused(str(error), os.EX_CONFIG) from None
    if location.startswith("spool:") and not directories_of(location):
        raise CommandRefused(f"{location} names no directory", os.EX_CONFIG)


def _tell(call: Call, moved: Iterable[Moved], what: str, end: str = "") -> int:
    """Say what became of each mail, and of how many it was what."""
    done = failed = 0
    for each in moved:
        failed += bool(each.error)
        done += not each.error
        if call.options.json:
            is_done = not each.error and not call.options.dry_run
            say_json({"name": each.name, "there": each.there, "done": is_done, "error": each.error})
        elif each.error:
            complain(each.error, 1)
    if not call.options.json:
        say(clean(f"{mails_in_words(done)} {what}{f', {failed:,} not' if failed else ''}{end}"))
    return int(failed > 0)
