"""The command ``maildrop``: ``start | stop | restart | status | fg | once`` for the daemon of a configuration.

Exit status: 0 done (``status``: it runs); 1 it could not be done, the text says why; 2 wrong command line; 3
(``status``) it does not run.  ``once``: 1 if a person should look at mail, 75 if time should help.
"""

from __future__ import annotations

import argparse
import logging
import os
import pwd
import signal
import sys
from collections.abc import Callable, Mapping, Sequence

from zope.sendmail.cli.asowner import become_owner
from zope.sendmail.cli.queueviews import count_waiting, waiting_lines
from zope.sendmail.errors import MailError
from zope.sendmail.interfaces import IMailQueueAdmin
from zope.sendmail.lifecycle.relaystate import RelayBoard
from zope.sendmail.maildrop.config import Config, read_config
from zope.sendmail.maildrop.daemon import Daemon, check, detach, open_configured_queue
from zope.sendmail.maildrop.pidfile import AlreadyRunning, PidFile
from zope.sendmail.reporting import printablelog
from zope.sendmail.system.clock import Clock
from zope.sendmail.system.supervisor import tell_supervisor

#: In the environment: the configuration file of ``maildrop``, if ``--config`` names none.
CONFIG = "MAILDROP_CONFIG"

#: What ``status`` says of a daemon that is not there (Linux Standard Base, 20.2).
NOT_RUNNING = 3

#: Verbs that tell of keys that mean nothing; ``once`` is silent, since cron would mail it each time.
_ASKED_FOR = ("start", "restart", "status", "fg")

_VERBS_HELP = {
    "start": "start the daemon",
    "stop": "stop it after the message in hand, and wait until it has ended",
    "restart": "both",
    "status": "say whether it runs, and what waits",
    "fg": "run in the foreground, as supervisors want it",
    "once": "send once what is due",
}

_STATUSES = f"""
exit status:
  0   done; the daemon runs, was told to stop, or did not run before; once: nothing is left to be done
  1   it could not be done, and why stands on standard error; once: an operator should look
  2   the command line is wrong
  {NOT_RUNNING}   status: the daemon does not run
  75  once: something was deferred, or the relay could not be used
"""


def make_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        prog="maildrop",
        description="Sends the mail in a maildrop spool.",
        epilog="\n".join([*(f"  {verb:8}{text}" for verb, text in _VERBS_HELP.items()), _STATUSES]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("verb", choices=list(_VERBS_HELP), metavar="|".join(_VERBS_HELP))
    parser.add_argument(
        "-c",
        "--config",
        metavar="FILE",
        default=os.environ.get(CONFIG),
        help=f"the configuration file; else ${CONFIG} names it",
    )
    parser.add_argument(
        "--timeout", type=float, default=60.0, help="seconds that stop waits for the daemon's end (default: 60)"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="fg and once: every mail to standard error")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the console script; `arguments` without the program's name.  Raises `SystemExit` as argparse does."""
    parser = make_parser()
    parsed = parser.parse_args(arguments)
    if not parsed.config:
        parser.error(f"no configuration file; name it with --config or in ${CONFIG}")
    try:
        config = read_config(parsed.config)
        if parsed.verb in _ASKED_FOR:
            for sentence in config.passed_over:
                _complain(sentence)
        return _VERBS[parsed.verb](config, parsed)
    except MailError as error:
        return _complain(str(error))
    except OSError as error:
        return _complain(_refused(error, parsed.config))


def _refused(error: OSError, config: str) -> str:
    """Return what the system refused, and what to do about a file or a directory that this user cannot use."""
    if not error.filename:
        return str(error)
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return f"{error.filename}: {error.strerror}; make the directory, or name another one in {config}"
    if not isinstance(error, PermissionError):
        return f"{error.filename}: {error.strerror}"
    return (
        f"{error.filename}: user {_user()} may not use it, or not make it: {error.strerror}. Start maildrop as the "
        f"user that owns it, let root make it and give it to this user (install -d -o {_user()} -m 700), or name "
        f"another one in {config}"
    )


def _user() -> str:
    """Return the name of the user, or the number of one without a name."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _start(config: Config, parsed: argparse.Namespace) -> int:
    if config.supervised or config.debug:
        return _foreground(config, parsed)
    check(config)
    pid = PidFile(config.pid_file).holder()
    if pid is not None:
        return _say(f"it is already running, process {pid}")
    why = detach(Daemon(config).serve)
    if why:
        return _complain(why)
    return _say(f"started, process {PidFile(config.pid_file).holder()}")


def _stop(config: Config, parsed: argparse.Namespace) -> int:
    try:
        ended = PidFile(config.pid_file).terminate(signal.SIGTERM, parsed.timeout)
    except ProcessLookupError:
        PidFile(config.pid_file).check_older_daemon()
        return _say("it does not run")
    if ended:
        return _say("stopped")
    return _complain(f"it is still busy with a message after {parsed.timeout:.0f} s; it ends by itself after that")


def _restart(config: Config, parsed: argparse.Namespace) -> int:
    check(config)
    return _stop(config, parsed) or _start(config, parsed)


def _status(config: Config, _: argparse.Namespace) -> int:
    become_owner(config.place)
    pid = PidFile(config.pid_file).holder()
    queue = open_configured_queue(config)
    try:
        waiting = waiting_words(queue.admin)
    except OSError as error:
        waiting = f"the spool cannot be read: {error}"
    finally:
        queue.close()
    if pid is None:
        PidFile(config.pid_file).check_older_daemon()
        _say(f"it does not run; {waiting}")
        return NOT_RUNNING
    return _say(f"it runs, process {pid}; {waiting}")


def waiting_words(admin: IMailQueueAdmin) -> str:
    """Return how much mail there is, and for which relay it waits that cannot be used."""
    mails = ", ".join(f"{count} {state}" for state, count in admin.count().items())
    board = RelayBoard(admin.processors())
    down = waiting_lines(board, count_waiting(admin, board), Clock().time())
    return "; ".join([f"mails: {mails or 'none'}", *down])


def _foreground(config: Config, parsed: argparse.Namespace) -> int:
    _configure_log(parsed)
    try:
        return Daemon(config, echo=config.debug).serve(tell_supervisor)
    except AlreadyRunning as error:
        return _complain(str(error))


def _once(config: Config, parsed: argparse.Namespace) -> int:
    _configure_log(parsed)
    return Daemon(config, echo=config.debug).once()


_VERBS: Mapping[str, Callable[[Config, argparse.Namespace], int]] = {
    "start": _start,
    "stop": _stop,
    "restart": _restart,
    "status": _status,
    "fg": _foreground,
    "once": _once,
}


def _configure_log(parsed: argparse.Namespace) -> None:
    printablelog.configure(logging.INFO if parsed.verbose else logging.WARNING)


def _say(text: str) -> int:
    print(f"maildrop: {text}")
    return os.EX_OK


def _complain(text: str) -> int:
    print(f"maildrop: {text}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
