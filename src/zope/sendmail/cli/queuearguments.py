"""The command line of ``zope-sendmail queue VERB``.

Says what an operator wants; `zope.sendmail.cli.queuecommands` does it.  Fails as argparse does, with status 2.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from typing import Any

from zope.sendmail.config.options import duration
from zope.sendmail.lifecycle.states import State, Verb

#: States in which a mail can be listed.
STATES = (State.READY, State.SENDING, State.DEFERRED, State.HELD, State.REJECTED)

_LOOKING = {
    "list": "the mails, oldest first, as a table",
    "show": "envelope, relay's words and history of the named mails",
    "status": "what became of mails, by their Message-Id: queued, deferred, sent, rejected, held, unknown",
    "count": "how many mails there are in each state",
    "doctor": "what is stuck or strange, why, and what to do; changes nothing",
}
_CHANGING = {
    Verb.HOLD: "do not try these mails until they are released",
    Verb.RELEASE: "end a hold",
    Verb.RETRY: "try now, whatever the schedule says; rejected mails for their rejected recipients",
    Verb.REMOVE: "delete mails for good",
}

#: Everything that can stand behind ``zope-sendmail queue``.
VERBS = {**_LOOKING, **{verb.value: text for verb, text in _CHANGING.items()}}

#: The states a changing verb means when mails are not named: what it makes sense for, and what nobody regrets.
MEANT = {
    Verb.HOLD: (State.READY, State.DEFERRED),
    Verb.RELEASE: (State.HELD,),
    Verb.RETRY: (State.DEFERRED, State.REJECTED),
    Verb.REMOVE: (State.READY, State.DEFERRED, State.HELD, State.REJECTED),
}

_MAIL_KEYS = (
    "name, state, since, due, size, message_id, sender, recipients, malformed, "
    "attempts, deaths, unknowns, relay, note, replies"
)

#: What programs can rely on.  Times are seconds since the epoch, null for open.
KEYS = {
    "list": f"{_MAIL_KEYS} (recipient: answer, code, enhanced, text)",
    "show": f"{_MAIL_KEYS}, history (state, time, due, attempts, ..., replies), headers or message if asked for",
    "status": "message_id, standing, reason, due, sent, replies",
    "count": "staged, ready, sending, deferred, held, rejected, oldest (when the oldest that waits was written)",
    "doctor": "kind, severity (note, warning, problem), name, text, cure",
}
KEYS_OF_A_CHANGE = "name, verb, done, error"

_FILTERS = ("state", "recipient", "sender", "older_than", "younger_than", "reply")

_EPILOG = """\
MAILDIR is the directory of a queue; nothing is created if there is none.  A NAME may be shortened to an unambiguous
beginning, or to (the beginning of) its last part, as 'list' shows it.  'zope-sendmail queue VERB --help' tells more.
All of this is safe while processors run.  Run it as the user the queue belongs to, or as root, who then acts as
that user.

Without a verb, 'zope-sendmail queue' drains the Maildir ./queue, as in zope.sendmail 7.3.

exit status:
  0   done; the doctor found nothing that needs a person
  1   something could not be done (no such mail, or not in its state); the doctor found a problem
  2   the command line is wrong
  74  the disk refused
  77  the permissions refused
  78  there is no queue at this path
"""


def is_order(arguments: Sequence[str]) -> bool:
    """Whether this command line is for operators; only options behind it are for a Maildir that is called ``queue``."""
    if arguments[:1] != ["queue"] or len(arguments) < 2:
        return False
    return arguments[1] in ("-h", "--help") or not arguments[1].startswith("-")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """What stands behind ``queue``.  Raises `SystemExit`."""
    verb = arguments[0]
    if verb not in VERBS:
        overview = _overview()
        overview.parse_known_args(arguments)  # it may be --help
        overview.error(f"there is no verb {verb!r}; {_meant(verb)}")
    parser = _parser(verb)
    parsed = parser.parse_intermixed_args(arguments[1:])
    parsed.verb = verb
    parsed.filtered = any(getattr(parsed, name, None) not in (None, "") for name in _FILTERS)
    if verb in _CHANGING:
        _check(parser, parsed)
    elif verb in ("show", "status") and not parsed.names:
        parser.error("which mail? name at least one")
    return parsed


def _meant(verb: str) -> str:
    close = difflib.get_close_matches(verb, VERBS, 1)
    return f"do you mean {close[0]!r}?" if close else f"there are: {', '.join(VERBS)}"


def _overview() -> argparse.ArgumentParser:
    verbs = "\n".join(f"  {verb:8}{text}" for verb, text in VERBS.items())
    return argparse.ArgumentParser(
        prog="zope-sendmail queue",
        usage="%(prog)s VERB [options] MAILDIR [NAME...]",
        description=f"See and change what waits in a mail queue.\n\nverbs:\n{verbs}",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _parser(verb: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"zope-sendmail queue {verb}", description=VERBS[verb].capitalize() + ".", epilog=_epilog(verb)
    )
    parser.add_argument("maildir", metavar="MAILDIR", help="directory of the queue; spool:DIRECTORY is maildrop's")
    parser.add_argument("--json", action="store_true", help="one JSON object a line, for programs")
    if verb == "show":
        _add_show(parser)
    elif verb == "status":
        parser.add_argument("names", metavar="MESSAGE-ID", nargs="*", help="with brackets or without")
    elif verb == "list":
        _add_filters(parser)
        parser.add_argument(
            "--limit",
            metavar="N",
            type=_number,
            help="at most so many mails; 0: all (default: 50 in a table, else all)",
        )
    elif verb in _CHANGING:
        _add_changing(parser, verb)
    return parser


def _epilog(verb: str) -> str:
    keys = f"Keys of a JSON object: {KEYS.get(verb, KEYS_OF_A_CHANGE)}."
    if verb not in _CHANGING:
        return keys
    states = ", ".join(MEANT[Verb(verb)])
    return f"Name the mails, or say which with the filters or --all. Without --state these are meant: {states}. {keys}"


def _add_show(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", metavar="NAME", nargs="*", help="a mail")
    text = parser.add_mutually_exclusive_group()
    text.add_argument("--headers", action="store_true", help="the headers of the message as well")
    text.add_argument("--message", action="store_true", help="the whole message as well, harmless for a terminal")
    text.add_argument("--raw", action="store_true", help="only the message, byte for byte, for a file or a program")


def _add_changing(parser: argparse.ArgumentParser, verb: str) -> None:
    parser.add_argument("names", metavar="NAME", nargs="*", help="a mail")
    parser.add_argument("--all", action="store_true", help="all mails")
    _add_filters(parser)
    parser.add_argument("--limit", metavar="N", type=_number, help="at most so many mails, the oldest first")
    if verb == Verb.REMOVE:
        parser.add_argument(
            "--yes", action="store_true", help="do not ask; needed without a terminal for several mails"
        )


def _add_filters(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("filters", "A mail has to fit all of them.")
    add = group.add_argument
    add("--state", action="append", choices=[str(each) for each in STATES], help="its state; may be repeated")
    add("--recipient", metavar="ADDRESS", default="", help="one of its recipients; @example.org is everybody there")
    add("--sender", metavar="ADDRESS", default="", help="its sender; @example.org likewise; <> is the empty sender")
    add("--older-than", metavar="TIME", type=_duration, help="written longer ago than 90s, 10m, 2h, 5d")
    add("--younger-than", metavar="TIME", type=_duration, help="written since then")
    add("--reply", metavar="TEXT", default="", help="a code such as 450, or a part of what was said last")


def _check(parser: argparse.ArgumentParser, parsed: argparse.Namespace) -> None:
    """Nobody shall change all mails by leaving something out."""
    chosen = parsed.filtered or parsed.all
    if parsed.names and (chosen or parsed.limit is not None):
        parser.error("name mails or filter them, not both")
    if not parsed.names and not chosen:
        parser.error("which mails? name them, or say which with --state, --recipient, ..., or --all")


def _duration(text: str) -> float:
    return float(_told(duration, text))


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of mails")
    return int(text)


def _told(parse_text: Any, text: str) -> Any:
    """With errors whose text argparse shows."""
    try:
        return parse_text(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
