"""What operators do with a queue: ``zope-sendmail queue VERB``.

Every verb goes through `IMailQueue`, so all of it is safe while processors run.  Nothing is created where there is no
queue.  The exit status says how it went; what went wrong stands on standard error.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import islice
from typing import Any, BinaryIO

from zope.sendmail.cli.formatting import (
    clean,
    clean_line,
    count_values,
    detail_lines,
    finding_lines,
    finding_values,
    heading,
    mail_lines,
    mail_values,
    status_lines,
    status_values,
)
from zope.sendmail.cli.queuearguments import MEANT, parse
from zope.sendmail.errors import MailError, NoSuchMail, QueueNotSafe
from zope.sendmail.interfaces import IMailQueue
from zope.sendmail.lifecycle.finding import Finding, Severity, age
from zope.sendmail.lifecycle.selection import matching
from zope.sendmail.lifecycle.states import State, Verb
from zope.sendmail.maildir import act_as_owner, check_maildir
from zope.sendmail.queue import directories_of, is_maildir, open_queue, recognized
from zope.sendmail.system.clock import Clock

#: So many mails, and so many findings of a kind, are shown to people who did not say how many they want.
_MAILS, _FINDINGS = 50, 10

#: How a verb is reported.
_DONE = {
    Verb.HOLD: "held",
    Verb.RELEASE: "released",
    Verb.RETRY: "will be tried now",
    Verb.REMOVE: "removed",
}

#: Longer lines of a message are cut into pieces of this many bytes.
_LINE = 8192

_Arguments = argparse.Namespace


def main(arguments: Sequence[str]) -> int:
    """What stands behind ``zope-sendmail queue``; returns the exit status.  Raises `SystemExit` as argparse does."""
    parsed = parse(arguments)
    try:
        location = recognized(parsed.maildir)
        _check_place(location)
        with closing(open_queue(location)) as queue:
            status = _VERBS[parsed.verb](queue, parsed)
            sys.stdout.flush()
            return status
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return os.EX_OK
    except KeyboardInterrupt:
        return 130
    except _Refused as refused:
        return _complain(str(refused), refused.status)
    except PermissionError as error:
        return _complain(f"not permitted; run this as the user the queue belongs to: {error}", os.EX_NOPERM)
    except OSError as error:
        return _complain(str(error), os.EX_IOERR)


class _Refused(Exception):
    """Nothing was done."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


def _check_place(location: str) -> None:
    """There has to be a queue.  Root goes on as its owner, and so sees what a processor sees."""
    paths = directories_of(location)
    if not paths:
        raise _Refused(f"{location} names no directory", os.EX_CONFIG)
    for path in paths:
        _check_directory(path, is_maildir=is_maildir(location))
    act_as_owner(paths[0])


def _check_directory(path: str, *, is_maildir: bool) -> None:
    try:
        os.listdir(path)  # says more about a missing permission than a search for directories
        if is_maildir:
            check_maildir(path)
    except FileNotFoundError:
        raise _Refused(f"there is no queue {path}", os.EX_CONFIG) from None
    except NotADirectoryError:
        kind = "a Maildir folder" if is_maildir else "a spool"
        raise _Refused(f"{path} is not {kind}: it is not a directory", os.EX_CONFIG) from None
    except ValueError as error:
        raise _Refused(f"{error}; a spool of maildrop is named spool:{path}", os.EX_CONFIG) from None


# --- looking ----------------------------------------------------------------------------------------------------


def _list(queue: IMailQueue, parsed: _Arguments) -> int:
    mails = queue.admin.mails(**_filters(parsed))
    if parsed.json:
        for mail in islice(mails, parsed.limit or None):
            _say_json(mail_values(mail))
        return os.EX_OK
    now, width = Clock().time(), _width()
    limit = _MAILS if parsed.limit is None else parsed.limit
    shown = 0
    for shown, mail in enumerate(islice(mails, limit or None), 1):
        if shown == 1:
            _say(heading())
        for line in mail_lines(mail, now, width):
            _say(line)
    more = sum(1 for _ in mails) if parsed.filtered or not shown else sum(1 for _ in queue.admin.names()) - shown
    if more > 0:
        _say(f"... and {more:,} more; --limit 0 shows all")
    elif not shown:
        _say("no mails" if not parsed.filtered else "no mail fits")
    return os.EX_OK


def _show(queue: IMailQueue, parsed: _Arguments) -> int:
    if parsed.raw and sys.stdout.isatty():
        raise _Refused("--raw is not for a terminal; use --message, or send it into a file", os.EX_USAGE)
    names, missing = _resolve(queue, parsed.names)
    status = int(missing > 0)
    for number, name in enumerate(names):
        try:
            _show_one(queue, parsed, name, first=not number)
        except NoSuchMail as error:
            status = _complain(str(error), 1)
    return status


def _show_one(queue: IMailQueue, parsed: _Arguments, name: str, *, first: bool) -> None:
    if parsed.raw:
        with queue.admin.read(name) as stream:
            shutil.copyfileobj(stream, sys.stdout.buffer)
        return
    mail = queue.admin.show(name)
    if parsed.json:
        _say_json(mail_values(mail, history=True) | _text_values(queue, parsed, name))
        return
    for line in ([] if first else [""]) + list(detail_lines(mail, Clock().time())):
        _say(line)
    if parsed.headers or parsed.message:
        _say("")
        with queue.admin.read(name) as stream:
            for raw in _lines(stream, whole=parsed.message):
                _say(clean_line(raw))


def _text_values(queue: IMailQueue, parsed: _Arguments, name: str) -> dict[str, str]:
    """The message for programs; bytes that are no UTF-8 become what Python calls surrogate escapes."""
    if not (parsed.headers or parsed.message):
        return {}
    with queue.admin.read(name) as stream:
        text = b"".join(_lines(stream, whole=parsed.message)).decode("utf-8", "surrogateescape")
    return {"message" if parsed.message else "headers": text}


def _lines(stream: BinaryIO, *, whole: bool) -> Iterator[bytes]:
    """The lines of a message, or of its headers."""
    while line := stream.readline(_LINE):
        if not whole and not line.strip(b"\r\n"):
            return
        yield line


def _status(queue: IMailQueue, parsed: _Arguments) -> int:
    now = Clock().time()
    for given in parsed.names:
        status = queue.status(given.strip().removeprefix("<").removesuffix(">"))
        if parsed.json:
            _say_json(status_values(status))
        else:
            for line in status_lines(status, now):
                _say(line)
    return os.EX_OK


def _count(queue: IMailQueue, parsed: _Arguments) -> int:
    counts, oldest = queue.admin.count(), queue.admin.oldest()
    if parsed.json:
        _say_json(count_values(counts, oldest))
        return os.EX_OK
    for state in State:
        if counts.get(state):
            _say(f"{state:8} {counts[state]:>9,}")
    if not counts:
        _say("no mails")
    if oldest is not None:
        _say(f"the oldest that waits was written {age(Clock().time() - oldest)} ago")
    return os.EX_OK


def _doctor(queue: IMailQueue, parsed: _Arguments) -> int:
    tally: Counter[Severity] = Counter()
    shown: dict[tuple[Severity, str], list[Finding]] = {}
    counts: Counter[tuple[Severity, str]] = Counter()
    for finding in queue.admin.examine():
        tally[finding.severity] += 1
        if parsed.json:
            _say_json(finding_values(finding))
            continue
        key = (finding.severity, finding.kind)
        counts[key] += 1
        if counts[key] <= _FINDINGS:
            shown.setdefault(key, []).append(finding)
    if not parsed.json:
        _say_findings(queue, tally, shown, counts)
    return int(tally[Severity.PROBLEM] > 0)


def _say_findings(
    queue: IMailQueue,
    tally: Counter[Severity],
    shown: Mapping[tuple[Severity, str], Sequence[Finding]],
    counts: Mapping[tuple[Severity, str], int],
) -> None:
    """The worst first."""
    worst = tuple(reversed(Severity))
    summary = ", ".join(f"{tally[each]:,} {each}{'s' * (tally[each] != 1)}" for each in worst if tally[each])
    _say(f"{clean(queue.location)}: {summary or 'nothing is wrong'}")
    width = _width()
    for key in sorted(shown, key=lambda key: worst.index(key[0])):
        for finding in shown[key]:
            _say("")
            for line in finding_lines(finding, width):
                _say(line)
        if counts[key] > _FINDINGS:
            _say(f"\n... and {counts[key] - _FINDINGS:,} more of this kind ({key[1]}); --json tells all")


# --- changing ---------------------------------------------------------------------------------------------------


def _change(queue: IMailQueue, parsed: _Arguments) -> int:
    verb = Verb(parsed.verb)
    names: Iterable[str]
    names, missing = _resolve(queue, parsed.names) if parsed.names else (_chosen(queue, parsed), 0)
    if verb is Verb.REMOVE:
        names = list(names)
        _confirm(len(names), parsed)
    tally = Counter(_change_one(queue, verb, name, parsed) for name in names)
    if not parsed.json and tally[True] + tally[False] != 1 and not missing:
        failed = f", {tally[False]:,} not" if tally[False] else ""
        _say(f"{tally[True]:,} {'mail' if tally[True] == 1 else 'mails'} {_DONE[verb]}{failed}")
    return int(tally[False] + missing > 0)


def _change_one(queue: IMailQueue, verb: Verb, name: str, parsed: _Arguments) -> bool:
    """Do it to one mail, and say so."""
    error = ""
    try:
        getattr(queue.admin, verb)(name)
    except QueueNotSafe:
        raise
    except (MailError, IsADirectoryError) as refused:
        error = str(refused)
    if parsed.json:
        _say_json({"name": name, "verb": verb.value, "done": not error, "error": error})
    elif error:
        _complain(error, 1)
    else:
        _say(f"{clean(name)}: {_DONE[verb]}")
    return not error


def _chosen(queue: IMailQueue, parsed: _Arguments) -> Iterator[str]:
    """The names of the mails that fit the filters."""
    filters = _filters(parsed)
    filters["states"] = filters["states"] or MEANT[Verb(parsed.verb)]
    return (mail.name for mail in islice(queue.admin.mails(**filters), parsed.limit or None))


def _confirm(count: int, parsed: _Arguments) -> None:
    """More than one mail is not deleted by accident."""
    if count < 2 or parsed.yes:
        return
    if not sys.stdin.isatty():
        raise _Refused(f"{count:,} mails would be removed for good; say --yes to do it", 2)
    sys.stderr.write(f"Remove {count:,} mails for good? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise _Refused("nothing was removed", 1)


# --- which mails ------------------------------------------------------------------------------------------------


def _filters(parsed: _Arguments) -> dict[str, Any]:
    """The arguments of `IMailQueue.mails`."""
    now = Clock().time()
    filters: dict[str, Any] = {
        "states": [State(each) for each in parsed.state or ()],
        "sender": parsed.sender,
        "recipient": parsed.recipient,
        "reply": parsed.reply,
    }
    if parsed.older_than is not None:
        filters["before"] = now - parsed.older_than
    if parsed.younger_than is not None:
        filters["after"] = now - parsed.younger_than
    return filters


def _resolve(queue: IMailQueue, given: Sequence[str]) -> tuple[list[str], int]:
    """The whole names, and how many could not be found; what is unknown or ambiguous is told and left out."""
    found = matching(given, queue.admin.names())
    names: list[str] = []
    missing = 0
    for text in given:
        candidates = found[text]
        if len(candidates) == 1:
            names += candidates
            continue
        missing += 1
        if candidates:
            some = ", ".join(clean(each) for each in candidates[:3])
            _complain(f"{clean(text)} is ambiguous: {some}{', ...' if len(candidates) > 3 else ''}", 1)
        else:
            _complain(f"there is no mail {clean(text)!r} in the queue; it may have been sent in the meantime", 1)
    return list(dict.fromkeys(names)), missing


# --- saying it --------------------------------------------------------------------------------------------------


def _say(line: str) -> None:
    encoding = sys.stdout.encoding or "utf-8"
    print(line.encode(encoding, "backslashreplace").decode(encoding))


def _say_json(values: Mapping[str, Any]) -> None:
    print(json.dumps(values))


def _complain(text: str, status: int) -> int:
    print(f"zope-sendmail queue: {clean(text)}", file=sys.stderr)
    return status


def _width() -> int:
    return max(shutil.get_terminal_size((100, 24)).columns, 60)


_VERBS: dict[str, Callable[[IMailQueue, _Arguments], int]] = {
    "list": _list,
    "show": _show,
    "status": _status,
    "count": _count,
    "doctor": _doctor,
    **{verb.value: _change for verb in Verb},
}
