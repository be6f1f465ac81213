"""What the management pages of a Maildrop Host show, as plain values; the templates only lay it out.

The mails are on the pages of the console, see `zope.sendmail.maildrop.mailqueue`.

Nothing here is markup: the templates escape everything. Passwords are never among the values.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from zope.sendmail.cli.formatting import clean
from zope.sendmail.lifecycle.finding import age, moment

if TYPE_CHECKING:
    from zope.sendmail.maildrop.config import Config

NOT_SET = "(not set)"
HIDDEN = "******"

_LOG_BYTES = 100_000

_TLS = {0: "No", 1: "Yes", 2: "Forced"}

#: The attributes that 2.3 filled from the configuration file.
ATTRIBUTES: Mapping[str, Callable[[Config], Any]] = {
    "smtp_host": lambda config: config.smtp_host,
    "smtp_port": lambda config: config.smtp_port,
    "use_tls": lambda config: _TLS[config.tls],
    "login": lambda config: config.login or NOT_SET,
    "password": lambda config: HIDDEN if config.has_password else NOT_SET,
    "smtp_uid": lambda config: config.login,
    "smtp_pwd": lambda _: "",  # MailHost's name of the password; the daemon has it, it is not needed here
    "spool": lambda config: config.place,
    "polling": lambda config: config.interval,
    "maildrop_log_file": lambda config: config.log_file,
    "debug": lambda config: _on(config.debug),
    "debug_receiver": lambda config: ", ".join(config.debug_receiver) or NOT_SET,
    "_debug_receiver": lambda config: ",".join(config.debug_receiver),
    "add_messageid": lambda config: _on(config.add_messageid),
}


def settings(path: str, config: Config) -> dict[str, Any]:
    """Return the Edit tab: pairs of a label and what the file says, and the address that gets all mail instead of its
    recipients.
    """
    attribute = {name: show(config) for name, show in ATTRIBUTES.items()}
    rows = [
        ("Config file path", path),
        ("SMTP Host", attribute["smtp_host"]),
        ("SMTP Port", attribute["smtp_port"]),
        ("TLS usage", attribute["use_tls"]),
        ("SMTP Server Login", attribute["login"]),
        ("SMTP Server Password", attribute["password"]),
        ("Spool location", config.database or "; ".join(config.spools)),
        ("Spool polling interval", f"{config.interval:g} seconds"),
        ("Messages per connection", config.batch or "no limit"),
        ("Pause after each message", f"{config.wait_interval:g} seconds"),
        ("Maildrop daemon log file", config.log_file),
        ("Debug mode", attribute["debug"]),
        ("Debug receiver", attribute["debug_receiver"]),
        ("Add Message-Id headers", attribute["add_messageid"]),
    ]
    shown = [{"label": label, "value": value} for label, value in rows]
    return {"settings": shown, "debug_receiver": attribute["_debug_receiver"]}


def log(config: Config) -> dict[str, Any]:
    """Return the Log tab."""
    path = config.log_file
    try:
        changed = os.stat(path).st_mtime
    except FileNotFoundError:
        return {"path": path, "text": "", "changed": ""}
    return {"path": path, "text": tail(path, _LOG_BYTES), "changed": _ago(changed, time.time())}


def tail(path: str, max_bytes: int) -> str:
    """Return the last whole lines of a file, at most `max_bytes` bytes; empty if there is no such file.

    Raises `OSError`.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(f"the log {path} is not a file")
        start = max(0, status.st_size - max(0, max_bytes))
        file.seek(max(0, start - 1))
        if start:
            file.readline()  # the rest of a line whose beginning is too old
        return "\n".join(clean(line) for line in file.read(max_bytes).decode("utf-8", "replace").splitlines())


def _ago(then: float, now: float) -> str:
    return f"{moment(then)} ({age(now - then)} ago)"


def _on(value: bool) -> str:  # noqa: FBT001 - a word for it
    return "On" if value else "Off"
