"""What the management pages of a Maildrop Host show, as plain values; the templates only lay it out.

Nothing here is markup: the templates escape everything. Passwords are never among the values.
"""

from __future__ import annotations

import os
import shlex
import stat
import time
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from zope.sendmail.cli.formatting import clean
from zope.sendmail.errors import NoSuchMail, NotPossible
from zope.sendmail.interfaces import IMailQueue, IMailQueueAdmin
from zope.sendmail.lifecycle.finding import Severity, age, moment
from zope.sendmail.lifecycle.outcome import Answer
from zope.sendmail.lifecycle.queuedmail import QueuedMail
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.relaystate import waiting_words
from zope.sendmail.lifecycle.states import Action, State
from zope.sendmail.maildrop.pidfile import PidFile

if TYPE_CHECKING:
    from zope.sendmail.maildrop.config import Config

#: So many mails, recipients of one mail and findings are shown.
MAILS, RECIPIENTS, FINDINGS = 100, 5, 20

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

#: Bootstrap's colour of a state.
_COLOURS = {
    State.SCHEDULED: "light",
    State.READY: "info",
    State.SENDING: "primary",
    State.DEFERRED: "warning",
    State.HELD: "dark",
    State.REJECTED: "danger",
    State.STAGED: "secondary",
}

_MEANINGS = {
    State.STAGED: "written; its transaction has not committed",
    State.SCHEDULED: "its sender wants it to leave later",
    State.READY: "waits for the daemon",
    State.SENDING: "the daemon is at it",
    State.DEFERRED: "tried; will be tried again",
    State.HELD: "waits for you",
    State.REJECTED: "no program took it; waits for you",
}

_DONE = {
    Action.HOLD: "held",
    Action.RELEASE: "released",
    Action.RETRY: "will be tried at the daemon's next look",
    Action.REMOVE: "removed",
}


#: What can be done to a mail on the Queue tab.
POSSIBLE = tuple(_DONE)


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


def queue(queue: IMailQueue, state: str = "", address: str = "") -> dict[str, Any]:
    """Return the Queue tab: counts, the oldest, what waits for a person, and the mails that fit, oldest first."""
    now = time.time()
    mails = queue.admin
    counts, oldest = mails.count(), mails.oldest()
    wanted = [each for each in State if each == state]
    shown = [_mail(mail, now) for mail in islice(_fitting(mails, wanted, address.strip()), MAILS + 1)]
    return {
        "location": queue.location,
        "counts": [
            {"state": each.value, "count": counts.get(each, 0), "colour": _COLOURS[each], "meaning": _MEANINGS[each]}
            for each in _COLOURS
        ],
        "total": sum(counts.values()),
        "oldest": "" if oldest is None else _ago(oldest, now),
        "state": wanted[0].value if wanted else "",
        "address": address.strip(),
        "mails": shown[:MAILS],
        "more": len(shown) > MAILS,
        "findings": _findings(mails),
    }


def daemon(config: Config) -> dict[str, Any]:
    """Return whether the daemon of this configuration is at work, for people."""
    try:
        pid = PidFile(config.pid_file).holder()
    except OSError as error:
        return {"daemon": f"It cannot be told whether the daemon runs: {error}.", "daemon_runs": True}
    if pid is not None:
        return {"daemon": f"The daemon runs (process {pid}).", "daemon_runs": True}
    cure = f"maildrop start --config {shlex.quote(config.path)}"
    told = f"The daemon does not run on this host; mail waits until it is started: {cure}"
    return {"daemon": told, "daemon_runs": False}


def act(mails: IMailQueueAdmin, verb: Action, names: Iterable[str]) -> tuple[str, bool]:
    """Do `verb` to each of these mails; say in a sentence how that went, and whether it went well for all."""
    do = getattr(mails, verb.value)
    done, refused = 0, []
    for name in names:
        try:
            do(name)
            done += 1
        except (NoSuchMail, NotPossible) as error:
            refused.append(str(error))
    if not done and not refused:
        return "Nothing was done: no mail is marked.", False
    sentences = [f"{_mails(done)} {_DONE[verb]}."] if done else []
    return " ".join(sentences + [f"Not done: {each}." for each in refused[:3]] + _rest(len(refused) - 3)), not refused


def _rest(count: int) -> list[str]:
    return [f"Nor for {count} more."] if count > 0 else []


def _mails(count: int) -> str:
    return "1 mail" if count == 1 else f"{count} mails"


def _fitting(mails: IMailQueueAdmin, states: list[State], address: str) -> Iterable[QueuedMail]:
    if not address:
        return mails.mails(states)
    return (mail for mail in mails.mails(states) if _concerns(mail, address.lower()))


def _concerns(mail: QueuedMail, part: str) -> bool:
    envelope = mail.envelope
    everybody = (envelope.sender, *envelope.recipients, *envelope.malformed) if envelope else ()
    return any(part in each.lower() for each in everybody)


def _mail(mail: QueuedMail, now: float) -> dict[str, Any]:
    envelope, record = mail.envelope, mail.history[-1] if mail.history else Record()
    recipients = [clean(each) for each in (*envelope.recipients, *envelope.malformed)] if envelope else []
    return {
        "name": mail.name,
        "state": mail.state.value,
        "colour": _COLOURS.get(mail.state, "secondary"),
        "sender": (clean(envelope.sender) or "<>") if envelope else "(no readable envelope)",
        "recipients": recipients[:RECIPIENTS],
        "others": max(0, len(recipients) - RECIPIENTS),
        "written": moment(mail.since),
        "age": age(now - mail.since),
        "next": _next(mail, now),
        "attempts": record.attempts,
        "size": _size(mail.size),
        "words": _words(mail, record, now),
        "message_id": clean(mail.message_id),
    }


def _next(mail: QueuedMail, now: float) -> str:
    if mail.state in (State.DEFERRED, State.SCHEDULED) and mail.due > now:
        return f"in {age(mail.due - now)}"
    if mail.state in (State.HELD, State.REJECTED):
        return "waits for you"
    if mail.blocked is not None:
        return f"in {age(mail.blocked.probe - now)}" if mail.blocked.probe > now else "waits for its relay"
    return "at the next look" if mail.state in (State.READY, State.DEFERRED) else ""


def _words(mail: QueuedMail, record: Record, now: float) -> list[str]:
    """Return why the mail is where it is: the relay for which it waits, our note, and what was said about those who did
    not get it.
    """
    waits = [clean(waiting_words(mail.blocked, now))] if mail.blocked is not None else []
    said = [
        f"{clean(who)}: {clean(str(reply))}"
        for who, reply in record.replies.items()
        if reply.answer is not Answer.ACCEPTED
    ]
    more = [f"and {len(said) - RECIPIENTS} more"] if len(said) > RECIPIENTS else []
    return waits + ([clean(record.note)] if record.note else []) + said[:RECIPIENTS] + more


def _findings(mails: IMailQueueAdmin) -> list[dict[str, str]]:
    """Return what a person has to look at, beside the mails that the list shows as held or rejected anyway."""
    own = ("held", "rejected")
    found = (each for each in mails.examine() if each.severity is not Severity.NOTE and each.kind not in own)
    return [{"name": clean(each.name), "text": each.text, "cure": each.cure} for each in islice(found, FINDINGS)]


def _ago(then: float, now: float) -> str:
    return f"{moment(then)} ({age(now - then)} ago)"


def _size(count: int) -> str:
    for unit in ("bytes", "kB", "MB"):
        if count < 10_000 or unit == "MB":
            break
        count //= 1000
    return f"{count:,} {unit}"


def _on(value: bool) -> str:  # noqa: FBT001 - a word for it
    return "On" if value else "Off"
