"""What may stand behind ``zope-sendmail`` instead of a directory: each subcommand with its parser and its pages.

One table, so that no subcommand can be missing in the program, its completions, or its manual pages.  A Maildir that is
called like a subcommand is drained, as in 7.3; ``is_meant`` decides.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from zope.sendmail.cli import bouncecommand, checkcommand, consolecommand, queuearguments, queuecommands
from zope.sendmail.cli.arguments import make_check_parser


@dataclass(frozen=True, slots=True)
class Subcommand:
    """One of them.

    :param told: what it does, for a completion.
    :param summary: the same, for the head of a manual page.
    :param make_parser: returns its parser; that of an overview if verbs follow, which have parsers of their own.
    :param is_meant: says whether the words behind ``zope-sendmail`` mean it.
    :param main: carries out what stands behind it, and returns the exit status.
    :param see_also: names of manual pages.
    """

    told: str
    summary: str
    make_parser: Callable[[], argparse.ArgumentParser]
    is_meant: Callable[[Sequence[str]], bool]
    main: Callable[[Sequence[str]], int]
    see_also: Sequence[str] = ("zope-sendmail(1)", "zope-sendmail-queue(1)")


SUBCOMMANDS = {
    "queue": Subcommand(
        "see and change what waits",
        "see and change what waits in a mail queue",
        queuearguments.make_overview,
        queuearguments.is_queue_command,
        queuecommands.main,
        ("zope-sendmail(1)", "zope-sendmail-check(1)"),
    ),
    "check": Subcommand(
        "try the relay", "try a mail relay step by step", make_check_parser, checkcommand.is_check, checkcommand.main
    ),
    "console": Subcommand(
        "show queues in the browser",
        "show mail queues in the browser",
        consolecommand.make_parser,
        consolecommand.is_console,
        consolecommand.main,
    ),
    "bounce": Subcommand(
        "read bounces of mail that was sent",
        "read bounces of mail that was sent",
        bouncecommand.make_bounce_parser,
        bouncecommand.is_bounce,
        bouncecommand.main,
    ),
}

#: The one behind which verbs stand, each with a parser of its own (`zope.sendmail.cli.queuearguments`).
WITH_VERBS = "queue"


def parsers_of_verbs() -> dict[str, argparse.ArgumentParser]:
    """Return the parsers of the verbs of ``zope-sendmail queue``."""
    return {verb: queuearguments.make_parser(verb) for verb in queuearguments.VERBS}
