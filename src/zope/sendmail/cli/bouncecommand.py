"""``zope-sendmail bounce``: reads a bounce from standard input, as an MTA's pipe gives it; or a Maildir, or by LMTP.

The exit status is one that MTAs understand: 0 when the message was handled, or is no bounce; 75 (``EX_TEMPFAIL``) if it
is to be given again, whatever the reason: with any other status they give the message up.  So 2 for a wrong command
line and 78 (``EX_CONFIG``) for a wrong configuration are for services only, for which no MTA waits.
"""

from __future__ import annotations

import argparse
import configparser
import importlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

from zope.event import subscribers

from zope.sendmail.bounces.handler import BounceHandler
from zope.sendmail.bounces.parser import Bounce
from zope.sendmail.bounces.watch import MOST, MaildirWatch
from zope.sendmail.cli.commandline import CommandLine
from zope.sendmail.cli.formatting import clean
from zope.sendmail.cli.metricscommand import parse_address
from zope.sendmail.cli.terminal import say, stop_printing
from zope.sendmail.config.location import directories_of, is_maildir
from zope.sendmail.config.options import duration, read_verp_key, words
from zope.sendmail.errors import InvalidAddress, QueueError
from zope.sendmail.interfaces import IMailBouncedEvent, ISuppressions
from zope.sendmail.queue import open_queue

SECTION = "bounces"

_EPILOG = """\
The configuration has a section [bounces] with senders, key_file, queue_path, suppress_for, maildir, interval and
subscriber.

exit status:
  0   the message was handled, or is no bounce; a service was told to stop
  2   --watch, --once, --lmtp: the command line is wrong
  75  the disk or the queue refused, or command line or configuration are wrong: give the message again
  78  --watch, --once, --lmtp: the configuration is wrong, or what it names cannot be used
"""

_KNOWN = ("senders", "key_file", "queue_path", "suppress_for", "maildir", "interval", "subscriber")

#: In the environment of ``zope-sendmail bounce``: the address to which the message came, if ``--recipient`` names none.
#: Postfix, Exim and others set one of these for the programs that they pipe mail to; the first that has it counts, and
#: ``LOCAL_PART`` only together with ``DOMAIN``.
_ENVIRONMENT = ("ORIGINAL_RECIPIENT", "RECIPIENT", "LOCAL_PART")

#: What does not read one message, and ends with it.
_SERVICES = ("--watch", "--once", "--lmtp")

#: Octets that are read at a time, of what is too long.
_BLOCK = 64 * 1024

#: How the address of a program that has all of it in its environment is put together: Exim has two halves.
_DOMAIN = "DOMAIN"


def is_bounce(arguments: Sequence[str]) -> bool:
    """Return whether a command line means this one; a Maildir that is called ``bounce`` is drained, as in 7.3."""
    return arguments[:1] == ["bounce"] and not os.path.isdir(os.path.join("bounce", "new"))


def make_bounce_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = CommandLine(
        prog="zope-sendmail bounce",
        description="Reads a bounce from standard input, as the pipe of an MTA, or takes bounces from a Maildir or by "
        "LMTP; tells what they say, and puts addresses that are gone for good on the suppression list of a queue.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="ini file with the section [bounces]")
    parser.add_argument(
        "--recipient",
        default=argparse.SUPPRESS,
        metavar="ADDRESS",
        help="the address to which the message came; if omitted, what the MTA says in the environment, or the header",
    )
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--watch", action="store_true", help="handle what is in the Maildir now, and what comes")
    way.add_argument("--once", action="store_true", help="handle what is in the Maildir now, and end")
    way.add_argument(
        "--lmtp",
        default=argparse.SUPPRESS,
        metavar="HOST:PORT|unix:PATH",
        help="take bounces from a mail server by LMTP there",
    )
    parser.add_argument("--verbose", action="store_true", help="print what each bounce says")
    return parser


def main(arguments: Sequence[str]) -> int:
    """Carry out what stands behind ``zope-sendmail bounce``; return the exit status.

    :raises SystemExit: as argparse does; 75 where an MTA waits for the status, else 2 if the command line is wrong, and
        78 if the configuration is.
    """
    return _main(arguments) if any(map(_is_for_service, arguments)) else _as_pipe(arguments)


def _is_for_service(word: str) -> bool:
    """Return whether a word of the command line says that no MTA waits for the status; it may be abbreviated."""
    option = word.partition("=")[0]
    return len(option) > len("--") and any(each.startswith(option) for each in _SERVICES)


def _as_pipe(arguments: Sequence[str]) -> int:
    """Do so for an MTA, which gives up a message for any status that it does not know as temporary.

    A signal that ends this process is told as that, too: Exim gives up a message whose program was ended by one.
    """
    before = {number: signal.signal(number, _give_again) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        status = _main(arguments)
    except SystemExit as end:
        raise SystemExit(0 if end.code in (0, None) else os.EX_TEMPFAIL) from None
    except Exception:  # noqa: BLE001 - whatever it is, the message is not lost by it
        traceback.print_exc(file=sys.stderr)
        status = os.EX_TEMPFAIL
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return status if _is_told() else os.EX_TEMPFAIL


def _is_told() -> bool:
    """Return whether all that was printed has gone; else nothing tries that again at the end, which would fail."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        stop_printing()
        return False
    return True


def _give_again(*_: object) -> NoReturn:
    raise SystemExit(os.EX_TEMPFAIL)


def _main(arguments: Sequence[str]) -> int:
    """See `main`.  Raises `SystemExit`."""
    parser = make_bounce_parser()
    parsed = parser.parse_args(arguments)
    try:
        settings = _read_config(parsed.config)
        handler = _make_handler(settings)
        interval = duration(settings.get("interval", "5s"))
        watched = settings.get("maildir", "")
        if (parsed.watch or parsed.once) and not watched:
            raise ValueError("maildir: there is none to look into; name the directory")
        serve = _server(parsed.lmtp, handler, parsed) if hasattr(parsed, "lmtp") else None
    except (ValueError, InvalidAddress, QueueError, ImportError) as error:
        is_service = parsed.watch or parsed.once or hasattr(parsed, "lmtp")
        parser.exit(os.EX_CONFIG if is_service else os.EX_TEMPFAIL, f"{parser.prog}: {parsed.config}: {error}\n")
    if serve is None and (parsed.watch or parsed.once):
        serve = partial(_look, MaildirWatch(watched, handler), interval, parsed)
    try:
        if sys.stdout is not None:
            sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # a service is read as it comes
        (serve or partial(_handle_one, handler, parsed))()
    except OSError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return os.EX_TEMPFAIL
    return 0


def _handle_one(handler: BounceHandler, parsed: argparse.Namespace) -> None:
    recipient = getattr(parsed, "recipient", "") or _from_environment(os.environ)
    _tell(handler.handle(_read(), recipient), parsed)


def _read() -> bytes:
    """Return the message from standard input; of one that is too long to be a bounce its beginning.

    The rest is read as well: an MTA that cannot write all of it may take that for a failure.
    """
    if sys.stdin is None:
        raise OSError("standard input is closed; the message is read from there")
    message = sys.stdin.buffer.read(MOST)
    while sys.stdin.buffer.read(_BLOCK):
        pass
    return message


def _read_config(path: str) -> Mapping[str, str]:
    """Return the settings in a file.

    :raises ValueError: it cannot be read, or has what is not known.
    """
    parser = configparser.ConfigParser(interpolation=None)
    try:
        with open(path, encoding="utf-8") as file:
            parser.read_file(file)
    except (OSError, configparser.Error, UnicodeError) as error:
        raise ValueError(f"it cannot be read: {error}") from error
    if SECTION not in parser:
        raise ValueError(f"there is no section [{SECTION}]")
    settings = dict(parser[SECTION])
    if unknown := sorted(set(settings) - set(_KNOWN)):
        raise ValueError(f"unknown: {', '.join(unknown)}; known are: {', '.join(_KNOWN)}")
    for name in ("senders", "key_file"):
        if not settings.get(name):
            raise ValueError(f"{name} is missing")
    here = Path(path).resolve().parent
    paths = [name for name in ("key_file", "maildir") if settings.get(name)]
    if settings.get("queue_path") and is_maildir(settings["queue_path"]):
        paths.append("queue_path")
    return {**settings, **{name: str(here / settings[name]) for name in paths}}


def _make_handler(settings: Mapping[str, str]) -> BounceHandler:
    key = read_verp_key(settings["key_file"])
    days = duration(settings["suppress_for"]) / 86400 if settings.get("suppress_for") else None
    path = settings.get("queue_path")
    suppressions = _suppressions(path) if path else None
    if settings.get("subscriber"):
        subscribers.append(_subscriber(settings["subscriber"]))
    return BounceHandler(words(settings["senders"]), key, suppressions=suppressions, days=days)


def _suppressions(location: str) -> ISuppressions:
    """Return the suppression list of a queue.

    :raises ValueError: there is no queue: to make one would hide that the name is wrong.
    """
    for path in directories_of(location):
        if not os.path.isdir(path):
            raise ValueError(
                f"queue_path: there is no queue {path}; correct the path, or let the application send a mail first, "
                "which makes its queue"
            )
    suppressions: ISuppressions = open_queue(location).suppressions
    return suppressions


def _subscriber(text: str) -> Callable[[object], object]:
    """Return the function that ``package.module:name`` names; it is called with each event of a bounce.

    :raises ValueError: there is none.
    """
    module, _, name = text.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"subscriber: {text!r} cannot be imported, such as shop.mail:bounced could be: {error}"
        ) from None
    if not callable(found):
        raise ValueError(f"subscriber: {text!r} is not a function")  # noqa: TRY004 - a setting is wrong

    def tell(event: object) -> None:
        if IMailBouncedEvent.providedBy(event):
            try:
                found(event)
            except Exception as error:  # whatever it is, the bounce is given again
                raise OSError(f"{text} failed: {type(error).__name__}: {error}") from error

    return tell


def _server(place: str, handler: BounceHandler, parsed: argparse.Namespace) -> Callable[[], None]:
    """Return what takes bounces by LMTP until a signal comes.

    :raises ValueError: there can be no such place, or a package is missing.
    """
    try:
        from zope.sendmail.bounces.lmtpserver import BounceServer
    except ImportError:
        raise ValueError("LMTP needs one more package: pip install 'zope.sendmail[bounces]'") from None
    path = place.removeprefix("unix:")
    try:
        server = BounceServer(
            handler, parse_address(place) if path == place else path, lambda said: _tell(said, parsed)
        )
    except OSError as error:
        raise ValueError(f"{place}: {error}") from None

    def serve() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: server.stop())
        print(f"taking bounces at {server.address}", flush=True)
        server.run()

    return serve


def _from_environment(environment: Mapping[str, str]) -> str:
    """Return the address to which a message came, as Postfix, Exim and others tell it to a program."""
    for name in _ENVIRONMENT:
        said = environment.get(name, "")
        if said and name == "LOCAL_PART" and environment.get(_DOMAIN):
            said = f"{environment.get('LOCAL_PART_PREFIX', '')}{said}{environment.get('LOCAL_PART_SUFFIX', '')}"
            return f"{said}@{environment[_DOMAIN]}"
        if "@" in said:
            return said
    return ""


def _look(watch: MaildirWatch, interval: float, parsed: argparse.Namespace) -> None:
    stop = threading.Event()
    if parsed.watch:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
    while True:
        _tell(watch.look(), parsed)
        if parsed.once or stop.wait(interval):
            return


def _tell(bounces: Sequence[Bounce], parsed: argparse.Namespace) -> None:
    if parsed.verbose and sys.stdout is not None:
        for each in bounces:
            genuine = "" if each.is_authentic else " (not authentic)"
            say(f"{each.verdict:9} {clean(each.recipient)}{genuine}: {clean(each.words or each.status or '-')}")
        if not bounces and not (parsed.watch or parsed.once):
            say("no bounce")
