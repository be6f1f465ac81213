"""What ``zope-sendmail`` is told: its command line and its ini file.

The parser's groups are made by functions of their own, so that every command that needs a relay or a queue
asks for it in the same words.  Fails with `ValueError` for what the ini file says, and as argparse does for
the command line.
"""

from __future__ import annotations

import argparse
import configparser
import os
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from zope.sendmail.cli.commandline import CommandLine
from zope.sendmail.config.location import check_location
from zope.sendmail.config.options import QUEUE, RELAY, Parser, merge, positive, read_settings, whole

#: In the environment: the relay's password, for ``zope-sendmail``.  The command line beats it, it beats the ini file.
PASSWORD = "ZOPE_SENDMAIL_PASSWORD"  # noqa: S105 - the name of a variable

#: Where the settings stand in an ini file.
INI_SECTION = "app:zope-sendmail"

#: Everything that can be set, on the command line (with hyphens) and in the ini file.
SETTINGS: dict[str, Parser] = {**QUEUE, **RELAY}

_DESCRIPTION = "Send what is due in a mail queue through an SMTP relay, once or as a daemon."

_CHECK = (
    "Try the relay step by step with the settings of 'zope-sendmail': its name, the connection, TLS, its certificate, "
    "the login and, with --to, an envelope. Nothing is sent."
)

_CHECK_EPILOG = """\
The options are those of 'zope-sendmail', so that its command line can be tried as it is; the queue is not touched.

exit status:
  0   everything works
  1   a step failed; its cure is said
  2   the command line is wrong
  78  the configuration is wrong
"""

_EPILOG = """\
'zope-sendmail check' tries the relay with the same options, step by step, and sends nothing.
'zope-sendmail queue VERB' shows and changes what waits in a queue; see 'zope-sendmail queue --help'.
Without a verb behind it, queue is the name of a directory like any other; so is check if there is such a queue.

A setting on the command line beats the environment, that beats the ini file, that beats the default.
Times are seconds, or numbers with s, m, h or d: 90, 10m, 2h, 5d.

environment:
  ZOPE_SENDMAIL_PASSWORD  the password for the relay

exit status:
  0   all recipients were accepted, or nothing was due; a daemon was told to stop
  1   a recipient was rejected, or a mail was set aside: an operator should look
  2   the command line is wrong
  75  something was deferred, or the relay could not be used: it will be tried again
  78  the configuration is wrong, or the queue cannot be used
"""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of ``zope-sendmail``; what was not given does not appear in its result."""
    parser = CommandLine(
        prog="zope-sendmail",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument(
        "maildir", nargs="?", help="directory of the queue; may stand in the ini file as queue_path instead"
    )
    parser.add_argument(
        "--daemon",
        action="store_true",
        help="go on until SIGTERM or SIGINT; the message in hand is finished. SIGHUP reads the configuration again",
    )
    parser.add_argument(
        "--processes",
        metavar="N",
        type=_typed(positive(whole)),
        help="drain the queue in so many processes, which are started again if they die; each takes a share of the "
        "mails first (default: 1, in this process)",
    )
    parser.add_argument("--version", action="version", version=f"zope-sendmail {own_version()}")
    parser.add_argument(
        "--metrics",
        metavar="HOST:PORT",
        help="serve /metrics, /healthz and /readyz there while the daemon runs; ':9464' is this host only",
    )
    parser.add_argument(
        "--traces",
        action="store_true",
        help="make an OpenTelemetry span for each attempt; start the program with 'opentelemetry-instrument --'",
    )
    add_config_arguments(parser)
    add_queue_arguments(parser)
    add_relay_arguments(parser)
    add_login_arguments(parser)
    return parser


def make_check_parser() -> argparse.ArgumentParser:
    """Return the parser of ``zope-sendmail check``; what was not given does not appear in its result."""
    parser = CommandLine(
        prog="zope-sendmail check",
        description=_CHECK,
        epilog=_CHECK_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("maildir", nargs="?", help="directory of the queue; it is not looked at")
    parser.add_argument("--daemon", action="store_true", help=argparse.SUPPRESS)
    envelope = parser.add_argument_group("envelope", "Ask the relay whether it would take a mail")
    envelope.add_argument("--to", metavar="ADDRESS", action="append", help="for this recipient; may be repeated")
    envelope.add_argument("--from", metavar="ADDRESS", dest="sender", help="from this sender (default: the empty one)")
    add_config_arguments(parser)
    add_queue_arguments(parser)
    add_relay_arguments(parser)
    add_login_arguments(parser)
    return parser


def own_version() -> str:
    """Return the version of this distribution, or words for a checkout that was never installed."""
    try:
        return version("zope.sendmail")
    except PackageNotFoundError:
        return "(a checkout that is not installed)"


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add where settings come from, and what is printed."""
    parser.add_argument(
        "--config",
        metavar="INIFILE",
        help=f"read settings from section [{INI_SECTION}] of this file, '-' is standard input; "
        f"it may set: {', '.join(SETTINGS)}; a '%%' in a value means itself",
    )
    loudness = parser.add_mutually_exclusive_group()
    parser.add_argument(
        "--log-format",
        choices=["text", "json"],
        help="json: one object a line, and one for each attempt (default: text)",
    )
    loudness.add_argument("-v", "--verbose", action="store_true", help="tell of every mail")
    loudness.add_argument(
        "-q",
        "--quiet",
        action="store_true",
        help="tell of problems only; a summary at the end is else for terminals, daemons and trouble",
    )


def add_queue_arguments(parser: argparse.ArgumentParser) -> None:
    """Add how a queue is drained."""
    add = _adder(parser.add_argument_group("queue", "How the queue is drained"))
    add("interval", "TIME", "time between two looks of a daemon that nothing wakes (default: 3)")
    add("concurrency", "N", "connections to the relay at most (default: as many as are worth while)")
    add("first_retry", "TIME", "time until the second attempt (default: 60)")
    add("retry_factor", "FACTOR", "by this the time grows with every attempt (default: 2)")
    add("max_retry", "TIME", "longest time between two attempts (default: 1h)")
    add("lifetime", "TIME", "after this time a mail is given up (default: 5d)")
    add(
        "on_unknown",
        "resend|hold",
        "what to do when it cannot be known whether the relay has a mail (default: resend)",
    )
    add("notify_sender", None, "send a delivery status notification to the sender of a mail that was rejected")
    add("suppress_refused", None, "suppress recipients that do not exist, as a relay says at RCPT")
    add("keep_rejected", "TIME", "after this time rejected mail is removed (default: an operator removes it)")


def add_relay_arguments(parser: argparse.ArgumentParser) -> None:
    """Add which relay there is, and how to speak with it."""
    group = parser.add_argument_group("relay", "Which relay sends the mail on, and how to speak with it")
    add, either = _adder(group), _adder(group.add_mutually_exclusive_group())
    add("hostname", "HOSTNAME", "name of the relay (default: localhost)")
    add("port", "PORT", "its TCP port (default: 25)")
    add("local_hostname", "NAME", "our own name in EHLO (default: this host's)")
    add(
        "tls",
        "never|opportunistic|required|implicit",
        "when to use TLS; implicit is from the first byte, usually on port 465 "
        "(default: opportunistic, with a password required)",
    )
    either("force_tls", None, "older form of --tls required")
    either("no_tls", None, "older form of --tls never")
    add("implicit_tls", None, "older form of --tls implicit")
    add(
        "verify",
        None,
        "whether the relay has to prove its name (default: wherever a password goes or TLS is required)",
        action=argparse.BooleanOptionalAction,
    )
    add("cafile", "FILE", "CA certificates (PEM) instead of the system's")
    add("certfile", "FILE", "our own certificate and those of its issuers (PEM), for relays that ask for it")
    add("keyfile", "FILE", "its key (PEM), unless it is in the same file")
    add("tls_minimum", "1.2|1.3", "least version of TLS (default: 1.2)")
    add(
        "notify",
        "WORDS",
        "what the relay is to report to the sender: NEVER, or some of SUCCESS,FAILURE,DELAY (default: as it likes)",
    )
    add("notify_return", "FULL|HDRS", "what such a report returns (default: as it likes)")
    _add_times(add)
    _add_limits(add)


def _add_times(add: Callable[..., None]) -> None:
    add("timeout", "TIME", "how long to wait for a connection (default: 10)")
    add("greeting_timeout", "TIME", "how long to wait for the relay's first words (default: 5m)")
    add("command_timeout", "TIME", "how long to wait for the reply to each command (default: 5m)")
    add("data_timeout", "TIME", "how long each piece of a message may take (default: 2m until it may begin, then 3m)")


def _add_limits(add: Callable[..., None]) -> None:
    add("rate", "NUMBER", "mails per second at most (default: as fast as it goes)")
    add("shared_rate", "NUMBER", "mails per second at most, by all processors together that share the queue")
    add("connections", "N", "the same as --concurrency; the lower one counts")
    add("mails_per_connection", "N", "after so many mails a connection is closed, and another one made (default: 1000)")
    add(
        "recipient_limit",
        "N",
        "recipients for one mail to the relay at most (default: as many as it takes)",
    )
    add("discard_extensions", "WORDS", "SMTP extensions that are not used, such as PIPELINING,CHUNKING (default: none)")


def add_login_arguments(parser: argparse.ArgumentParser) -> None:
    """Add who we are to the relay."""
    add = _adder(
        parser.add_argument_group("login", "Our account at the relay; username and password or token, or neither")
    )
    add("username", "USERNAME", "username (default: none)")
    add(
        "password",
        "PASSWORD",
        "password; every user of this machine can see it in the list of processes, so rather use "
        "--password-file, the environment or the ini file",
    )
    add("password_file", "FILE", "file that holds the password and nothing else")
    add("allow_clear_password", None, "let the password go over a connection without TLS")
    add("token_command", "COMMAND", "instead of a password: a command that prints an OAuth 2 access token, or JSON")
    add("token_file", "FILE", "likewise: a file that holds the token now")
    add("auth", "MECHANISMS", "those that are tried, in this order, such as SCRAM-SHA-256,PLAIN (default: what fits)")


def given_settings(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings among the parser's results."""
    given = {name: value for name, value in arguments.items() if name in SETTINGS}
    return {**given, "queue_path": check_location(arguments["maildir"])} if "maildir" in arguments else given


def merged_settings(config: str | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return all settings: those of the command line, of the environment, and of the ini file if there is one.

    :raises ValueError: if the ini file is wrong, or the settings contradict each other.
    """
    ini = read_ini(config) if config is not None else {}
    return merge((given, {"password": os.environ.get(PASSWORD)}, ini))


def read_ini(path: str) -> dict[str, Any]:
    """Return the settings in an ini file, or on standard input if `path` is ``-``.

    Sections of other programs do not matter, nor what stands in ``[DEFAULT]`` for them.
    """
    config = configparser.RawConfigParser()
    try:
        if path == "-":
            config.read_file(sys.stdin, "standard input")
        else:
            with open(path, encoding="utf-8") as file:
                config.read_file(file)
    except configparser.MissingSectionHeaderError as error:
        raise ValueError(f"line {error.lineno} stands before any section; begin with [{INI_SECTION}]") from None
    except configparser.ParsingError as error:
        # Its text quotes the line, and that may hold the password.
        numbers = [error.lineno] if hasattr(error, "lineno") else [number for number, _ in error.errors]
        raise ValueError(f"line {numbers[0]} is neither a section nor a setting") from None
    except (OSError, UnicodeError, configparser.Error) as error:
        raise ValueError(f"it cannot be read: {error}") from error
    if not config.has_section(INI_SECTION):
        raise ValueError(f"there is no section [{INI_SECTION}]")
    foreign = set(config.defaults()) - set(SETTINGS)
    texts = {name: text for name, text in config.items(INI_SECTION) if name not in foreign}
    return read_settings(texts, SETTINGS)


def _adder(group: argparse._ArgumentGroup) -> Callable[..., None]:
    """Return what adds settings to a group of a parser, each under the name it has in `SETTINGS`."""

    def add(name: str, metavar: str | None, text: str, **options: Any) -> None:
        if metavar is not None:
            options = {"metavar": metavar, "type": _typed(SETTINGS[name])}
        elif not options:
            options = {"action": "store_true"}
        group.add_argument(f"--{name.replace('_', '-')}", help=text, **options)

    return add


def _typed(parse: Parser) -> Parser:
    """Return `parse` with errors whose text argparse shows."""

    def parse_argument(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse_argument
