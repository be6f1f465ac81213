"""``zope-sendmail console``: the console in the browser, served on this host."""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, NoReturn

from zope.sendmail.cli.asowner import become_owner
from zope.sendmail.cli.commandline import CommandLine
from zope.sendmail.cli.formatting import clean
from zope.sendmail.cli.metricscommand import parse_address
from zope.sendmail.queue import directories_of, recognized

if TYPE_CHECKING:
    from zope.sendmail.console import Console

#: In the environment: the token that ``zope-sendmail console`` asks for, at least 16 characters, so that it stands in
#: no list of processes; without it a new one is made and printed at each start.
TOKEN = "ZOPE_SENDMAIL_CONSOLE_TOKEN"  # noqa: S105 - the name of a variable

#: Of 19: where the host is busy, sending mail comes before looking at it.
_NICENESS = 5

#: Seconds after which a thread that looks at a deep queue lets one go on that answers a request.
_SWITCH_INTERVAL = 0.0005

_LOOPBACK = ("localhost", "127.0.0.1", "[::1]", "::1")

_EPILOG = """\
The address that is printed has a token in it, without which the console shows nothing; it is another one at each start.
If the environment variable ZOPE_SENDMAIL_CONSOLE_TOKEN has one (at least 16 characters), that is asked for, and not
printed.

Only this host is served. For others put a web server in front of it that encrypts, and name it with --host-name.

exit status:
  0   it was ended with Ctrl-C or SIGTERM
  2   the command line is wrong
  78  a queue or the address cannot be used, or the extra is not installed
"""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of ``zope-sendmail console``."""
    parser = CommandLine(
        prog="zope-sendmail console",
        description="Show mail queues in the browser: what waits, why, the relays; and with --writable the verbs.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("queues", metavar="DIRECTORY", nargs="+", help="a queue; spool:DIRECTORY is maildrop's")
    parser.add_argument("--listen", metavar="HOST:PORT", default=":8025", help="default: :8025, this host only")
    parser.add_argument("--writable", action="store_true", help="let operators change something")
    parser.add_argument(
        "--host-name", metavar="NAME", action="append", default=[], help="a name by which browsers call it; repeatable"
    )
    return parser


def is_console(arguments: Sequence[str]) -> bool:
    """Return whether a command line is for the console; ``console`` may be the directory of a queue as well."""
    return arguments[:1] == ["console"] and (len(arguments) > 1 or not os.path.isdir("console"))


def main(arguments: Sequence[str]) -> int:
    """Serve until a signal ends it; return the exit status.

    :raises SystemExit: as argparse does
    """
    parser = make_parser()
    parsed = parser.parse_args(arguments)
    given = os.environ.get(TOKEN, "")
    token = given or secrets.token_urlsafe(24)
    server, console = _made(parser, parsed, token)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(os.EX_OK))
    with closing(console), closing(server), contextlib.suppress(KeyboardInterrupt, SystemExit):
        threading.Thread(target=console.look, name="zope.sendmail.console", daemon=True).start()
        known = "" if given else f"?token={token}"  # the output of a service is kept in a log
        host, _ = _address(parser, parsed.listen)
        print(f"http://{f'[{host}]' if ':' in host else host}:{server.effective_port}/login{known}", flush=True)
        _give_way()
        server.run()
    return os.EX_OK


def _made(parser: argparse.ArgumentParser, parsed: argparse.Namespace, token: str) -> tuple[Any, Console]:
    """Return the server, which listens, and what it serves; end the program if they cannot be."""
    host, port = _address(parser, parsed.listen)
    try:
        import waitress

        from zope.sendmail.console import Console
    except ImportError:
        _refuse(parser, "the console needs more packages: pip install 'zope.sendmail[console]'")
    try:
        queues = [recognized(each) for each in parsed.queues]
        _check(queues)
        console = Console(queues, writable=parsed.writable, token=token, hosts=[*_LOOPBACK, *parsed.host_name])
    except (OSError, ValueError) as error:
        _refuse(parser, str(error))
    try:
        return waitress.create_server(console, host=host, port=port, threads=4, ident=""), console
    except OSError as error:
        _refuse(parser, f"it cannot listen at {parsed.listen}: {error.strerror}; another address is said by --listen")


def _refuse(parser: argparse.ArgumentParser, why: str) -> NoReturn:
    parser.exit(os.EX_CONFIG, f"{parser.prog}: {clean(why)}\n")


def _give_way() -> None:
    """Let mail go first, and requests before looks at a deep queue."""
    sys.setswitchinterval(_SWITCH_INTERVAL)
    with contextlib.suppress(OSError):
        os.nice(_NICENESS)


def _address(parser: argparse.ArgumentParser, text: str) -> tuple[str, int]:
    try:
        return parse_address(text)
    except ValueError as error:
        parser.error(str(error))


def _check(queues: Sequence[str]) -> None:
    """See that each queue is there; root goes on as the owner of the first one.

    :raises ValueError: if one is not there
    :raises OSError: if one cannot be read
    """
    directories = [path for each in queues for path in directories_of(each)]
    for path in directories:
        try:
            os.listdir(path)
        except FileNotFoundError:
            raise ValueError(f"there is no queue {path}") from None
    if directories:
        become_owner(directories[0])
    sys.stdout.flush()
