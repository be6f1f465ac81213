"""The command line of ``zope-sendmail queue VERB``.

Says what an operator wants; `zope.sendmail.cli.queuecommands` does it.  Fails as argparse does, with status 2.
"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Sequence
from typing import Any

from zope.sendmail.cli.commandline import CommandLine
from zope.sendmail.config.options import duration
from zope.sendmail.lifecycle.states import Action, State

#: States in which a mail can be listed.
STATES = (State.STAGED, State.SCHEDULED, State.READY, State.SENDING, State.DEFERRED, State.HELD, State.REJECTED)

VIEWS = {
    "doctor": "why mail waits: what is stuck or strange, why, and what to do; changes nothing",
    "list": "the mails, oldest first, as a table",
    "show": "envelope, relay's words and history of the named mails",
    "status": "what became of mails, by their Message-Id: queued, deferred, sent, rejected, held, unknown",
    "count": "how many mails there are in each state",
    "relays": "the relays: whether they can be used, since when, what waits for them; and which processors are at work",
    "shape": "how old the mail is that waits, by relay, domain, sender or reply",
    "errors": "the most frequent replies about mail in the queue",
    "top": "a live view: rates, relays, the oldest mails, the last replies",
    "metrics": "the queue's metrics for Prometheus, as its textfile collector reads them",
}
CHANGES = {
    "retry": "try now, whatever the schedule or the sender says; rejected mails for their rejected recipients",
    "flush": "try all mail for one relay now",
    "hold": "do not try these mails until they are released",
    "release": "end a hold, or the lock of an older release; of a staged mail: its transaction committed",
    "reroute": "let another relay have these mails",
    "bounce": "give these mails up, with a report to their senders",
    "remove": "delete mails for good",
}

#: What is done to the list of those who get no mail.
LISTS = {"suppress": "the addresses that get no mail of this queue: list, add, remove, import, export"}

#: What can be done to it.
LISTINGS = ("list", "add", "remove", "import", "export")

#: What is done to a queue as a whole.
UPKEEP = {
    "migrate": "make the tables of a queue in a database, or bring them to this release; nothing is lost",
    "adopt": "let processors work in a database that was restored or copied from another one",
}

#: What is done to two queues.
TRANSFERS = {"move": "move all mail to another queue, with history and state; may be killed and run again"}

#: Everything that can stand behind ``zope-sendmail queue``.
VERBS = {**VIEWS, **CHANGES, **LISTS, **TRANSFERS, **UPKEEP}

#: The states a changing verb means when mails are not named: what it makes sense for, and what no operator regrets.
MEANT = {
    "hold": (State.SCHEDULED, State.READY, State.DEFERRED),
    "release": (State.HELD,),
    "retry": (State.READY, State.DEFERRED, State.REJECTED),
    "flush": (State.READY, State.DEFERRED),
    "reroute": (State.SCHEDULED, State.READY, State.DEFERRED),
    "bounce": (State.SCHEDULED, State.READY, State.DEFERRED, State.HELD),
    "remove": (State.SCHEDULED, State.READY, State.DEFERRED, State.HELD, State.REJECTED),
}

#: Verbs after which mail is gone for good.
FINAL = ("bounce", "remove")

#: What one verb does for each mail, as the table of states has it.
ACTIONS = {
    "hold": Action.HOLD,
    "release": Action.RELEASE,
    "retry": Action.RETRY,
    "flush": Action.RETRY,
    "reroute": Action.REROUTE,
    "bounce": Action.BOUNCE,
    "remove": Action.REMOVE,
}

#: By what `shape` can tell mail apart.
SHAPES = ("relay", "domain", "sender", "reply")

_MAIL_KEYS = (
    "name, state, since, due, not_before, expires, priority, key, key_until, size, message_id, sender, recipients, "
    "malformed, suppressed, relays, locked_until (by a release before 8.0; null), waits_for (relay, since, probe, "
    "reply; null), attempts, deaths, unknowns, relay, note, replies"
)

#: What programs can rely on.  Times are seconds since the epoch, null for open.
KEYS = {
    "list": f"{_MAIL_KEYS} (recipient: answer, code, enhanced, text)",
    "show": f"{_MAIL_KEYS}, history (state, time, due, attempts, ..., replies), headers or message if asked for",
    "status": "message_id, name, names, standing, reason, due, sent, replies",
    "count": "staged, scheduled, ready, sending, deferred, held, rejected, oldest (since when the oldest that may go "
    "waits), waiting_for (relay that cannot be used: mails)",
    "relays": "relay, address, usable, reply, since, probe, asked, waiting, connections, limit, rate, "
    "members (the same of each of several relays behind it); or processor "
    "(pid), host, alive, forever, started, ended, written, sent, per_minute",
    "shape": "key, total, and minutes: mails not older than 5, 10, 20, ... 1280, older",
    "errors": "count, reply, state, example (a name), relay",
    "doctor": "kind, severity (note, warning, problem), name, text, cure, cause, commands",
    "top": "time, counts, per_minute, relays, oldest (names), replies",
    "migrate": "versions (to which the tables were brought)",
    "adopt": "adopted",
    "suppress": "address, reason, since, until (UTC, null for ever); of add and remove: address, done; of import: "
    "imported",
    "move": "name, there (its name in the other queue), done, error",
}
KEYS_OF_A_CHANGE = "name, verb, done, error"

_FILTERS = ("state", "recipient", "sender", "older_than", "younger_than", "reply", "relay")

_EPILOG = """\
MAILDIR is the directory of a queue, spool:DIRECTORY of maildrop's, or
postgresql://user@host/database?queue=name; nothing is created if there is none.
A NAME may be shortened to an unambiguous beginning, or to (the beginning of)
its last part, as 'list' shows it; a Message-Id is a name as well.
'zope-sendmail queue VERB --help' tells more.

All of this is safe while processors run.  Run it as the user the queue belongs
to, or as root, which then acts as that user.

Without a verb, 'zope-sendmail queue' drains the Maildir ./queue if there is one,
as in zope.sendmail 7.3.

exit status:
  0   done; the doctor found nothing that needs a person
  1   something could not be done; the doctor found what needs attention
  2   the doctor found that mail is not moving; the command line is wrong
  64  a message as it is was asked for on a terminal
  66  the file to be imported cannot be read
  74  the disk refused
  77  the permissions refused
  78  there is no queue at this path, or none can be there
  141  the reader had seen enough (| head); a verb that changes mail goes on
"""


def is_queue_command(arguments: Sequence[str]) -> bool:
    """Return whether a command line is for operators; only options behind it are for a Maildir called ``queue``.

    So is the word alone where there is such a Maildir; elsewhere it asks for the verbs.
    """
    if arguments[:1] != ["queue"]:
        return False
    if len(arguments) == 1:
        return not os.path.exists("queue")
    return arguments[1] in ("-h", "--help") or not arguments[1].startswith("-")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return what stands behind ``queue``.  Raises `SystemExit`."""
    verb = arguments[0] if arguments else ""
    if verb not in VERBS:
        overview = make_overview()
        if not verb:
            overview.print_help(sys.stderr)
            raise SystemExit(2)
        overview.parse_known_args(arguments)  # it may be --help
        overview.error(f"there is no verb {verb!r}; {_nearest(verb)}")
    parser = make_parser(verb)
    parsed = parser.parse_intermixed_args(arguments[1:])
    parsed.verb = verb
    parsed.filtered = any(getattr(parsed, name, None) not in (None, "") for name in _FILTERS)
    if verb in CHANGES:
        _check(parser, parsed)
    elif verb in ("show", "status") and not parsed.names:
        parser.error("which mail? name at least one")
    return parsed


def _nearest(verb: str) -> str:
    close = difflib.get_close_matches(verb, VERBS, 1)
    return f"do you mean {close[0]!r}?" if close else f"there are: {', '.join(VERBS)}"


def make_overview() -> argparse.ArgumentParser:
    """Return the parser that explains all verbs."""
    views = "\n".join(f"  {verb:9}{text}" for verb, text in VIEWS.items())
    changes = "\n".join(f"  {verb:9}{text}" for verb, text in (CHANGES | LISTS | TRANSFERS).items())
    upkeep = "\n".join(f"  {verb:9}{text}" for verb, text in UPKEEP.items())
    return CommandLine(
        prog="zope-sendmail queue",
        usage="%(prog)s VERB [options] MAILDIR [NAME...]",
        description="See and change what waits in a mail queue.  Mail does not leave?  'doctor' says why.\n\n"
        f"to see:\n{views}\n\nto change:\n{changes}\n\n"
        f"the queue itself:\n{upkeep}",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def make_parser(verb: str) -> argparse.ArgumentParser:
    """Return the parser of one verb."""
    parser = CommandLine(prog=f"zope-sendmail queue {verb}", description=_sentence(VERBS[verb]), epilog=_epilog(verb))
    if verb in LISTS:
        parser.add_argument("action", choices=LISTINGS, help="what is done")
    if verb in UPKEEP:
        parser.add_argument("maildir", metavar="URL", help="the database of the queue: postgresql://user@host/database")
    else:
        parser.add_argument(
            "maildir",
            metavar="MAILDIR",
            help="directory of the queue; spool:DIRECTORY is maildrop's; postgresql://... is in a database",
        )
    if verb != "metrics":
        parser.add_argument("--json", action="store_true", help="one JSON object a line, for programs")
    if verb in CHANGES:
        _add_changing(parser, verb)
    elif verb in _ADD:
        _ADD[verb](parser)
    return parser


def _epilog(verb: str) -> str:
    if verb == "metrics":
        return "What a processor counts and measures is served by 'zope-sendmail --daemon --metrics HOST:PORT'."
    keys = f"Keys of a JSON object: {KEYS.get(verb, KEYS_OF_A_CHANGE)}."
    if verb not in CHANGES:
        return keys
    states = ", ".join(MEANT[verb])
    which = (
        "Say more with the filters." if verb == "flush" else "Name the mails, or say which with the filters or --all."
    )
    due = " (those ready that wait for a relay; others are due already)" if verb in ("retry", "flush") else ""
    return f"{which} Without --state these are meant: {states}{due}. {keys}"


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."


def _add_list(parser: argparse.ArgumentParser) -> None:
    _add_filters(parser)
    parser.add_argument(
        "--limit", metavar="N", type=_number, help="at most so many mails; 0: all (default: 50 in a table, else all)"
    )


def _add_show(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", metavar="NAME", nargs="*", help="a mail, or a Message-Id")
    text = parser.add_mutually_exclusive_group()
    text.add_argument("--headers", action="store_true", help="the headers of the message as well")
    text.add_argument("--message", action="store_true", help="the whole message as well, harmless for a terminal")
    text.add_argument("--raw", action="store_true", help="only the message, byte for byte, for a file or a program")


def _add_status(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", metavar="MESSAGE-ID", nargs="*", help="with brackets or without")


def _add_shape(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--by", choices=SHAPES, default="relay", help="what the rows are (default: relay)")
    _add_filters(parser)
    parser.add_argument("--limit", metavar="N", type=_number, default=20, help="at most so many rows (default: 20)")


def _add_errors(parser: argparse.ArgumentParser) -> None:
    _add_filters(parser)
    parser.add_argument("--limit", metavar="N", type=_number, default=20, help="at most so many (default: 20)")


def _add_doctor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--all", action="store_true", help="also what needs no operator")


def _add_top(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--interval", metavar="TIME", type=_duration, default=2.0, help="between two looks (default: 2)"
    )
    parser.add_argument("--once", action="store_true", help="look once; without a terminal that is the default")


def _add_move(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("to", metavar="TO", help="the other queue, named as MAILDIR is; a directory is made if needed")
    parser.add_argument("--dry-run", action="store_true", help="only say how many mails are meant")


def _add_suppress(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "addresses",
        metavar="ADDRESS",
        nargs="*",
        help="an address; for 'import' a file instead, with an address a line or as exported; -: standard input",
    )
    parser.add_argument("--reason", metavar="TEXT", default="", help="why, for people")
    parser.add_argument(
        "--for", dest="time", metavar="TIME", type=_duration, help="for 10m, 2h, 30d; without it, until it is removed"
    )


_ADD = {
    "suppress": _add_suppress,
    "list": _add_list,
    "show": _add_show,
    "status": _add_status,
    "shape": _add_shape,
    "errors": _add_errors,
    "doctor": _add_doctor,
    "top": _add_top,
    "move": _add_move,
}


def _add_changing(parser: argparse.ArgumentParser, verb: str) -> None:
    if verb == "flush":
        parser.add_argument("flushed", metavar="RELAY", help="name or address of the relay, as 'relays' shows it")
    else:
        parser.add_argument("names", metavar="NAME", nargs="*", help="a mail, or a Message-Id")
        parser.add_argument("--all", action="store_true", help="all mails")
    if verb == "reroute":
        parser.add_argument(
            "--to", metavar="RELAY", required=True, help="a relay that the processor has; default: as the routes say"
        )
    _add_filters(parser, with_relay=verb != "flush")
    parser.add_argument("--limit", metavar="N", type=_number, help="at most so many mails, the oldest first")
    parser.add_argument("--dry-run", action="store_true", help="only say which mails are meant")
    if verb in FINAL:
        parser.add_argument(
            "--yes", action="store_true", help="do not ask; needed without a terminal, unless one mail is named"
        )


def _add_filters(parser: argparse.ArgumentParser, *, with_relay: bool = True) -> None:
    group = parser.add_argument_group("filters", "A mail has to fit all of them.")
    add = group.add_argument
    add("--state", action="append", choices=[str(each) for each in STATES], help="its state; may be repeated")
    add(
        "--recipient",
        metavar="ADDRESS",
        default="",
        help="one of its recipients; @example.org is all of them there",
    )
    add(
        "--sender",
        metavar="ADDRESS",
        default="",
        help="its sender, also as verp changes it; @example.org likewise; <> is the empty sender",
    )
    add("--older-than", metavar="TIME", type=_duration, help="written longer ago than 90s, 10m, 2h, 5d")
    add("--younger-than", metavar="TIME", type=_duration, help="written since then")
    add(
        "--reply",
        metavar="TEXT",
        default="",
        help="a code such as 450, a part of what was said last, or its words as doctor and errors show them",
    )
    if with_relay:
        add("--relay", metavar="RELAY", default="", help="the relay that is to get it, or that was asked last")


def _check(parser: argparse.ArgumentParser, parsed: argparse.Namespace) -> None:
    """Refuse to change all mails because something was left out."""
    if parsed.verb == "flush":
        parsed.names, parsed.all, parsed.relay = [], False, parsed.flushed
        return
    chosen = parsed.filtered or parsed.all
    if parsed.names and (chosen or parsed.limit is not None):
        parser.error("name mails or filter them, not both")
    if not parsed.names and not chosen:
        parser.error("which mails? name them, or say which with --state, --recipient, ..., or --all")


def _duration(text: str) -> float:
    return float(_parsed(duration, text))


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of mails")
    return int(text)


def _parsed(parse_text: Any, text: str) -> Any:
    """Return what `parse_text` makes of a text, with errors whose words argparse shows."""
    try:
        return parse_text(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
