"""What operators see of mails: ``queue list``, ``show``, ``status``, ``count`` and ``doctor``.  Changes nothing."""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import BinaryIO

from zope.sendmail.cli.formatting import (
    clean,
    clean_line,
    detail_lines,
    finding_lines,
    heading,
    mail_lines,
    mails_in_words,
    status_lines,
)
from zope.sendmail.cli.selecting import Call, bare_message_id, filters, resolve
from zope.sendmail.cli.terminal import CommandRefused, complain, is_terminal, say, say_all, say_json, width
from zope.sendmail.cli.values import count_values, finding_values, mail_values, status_values
from zope.sendmail.errors import NoSuchMail
from zope.sendmail.interfaces import IMailQueueAdmin
from zope.sendmail.lifecycle.finding import Finding, Severity, age
from zope.sendmail.lifecycle.relaystate import RelayBoard, RelayState, waiting_words
from zope.sendmail.lifecycle.states import State

#: So many mails are shown to people who did not say how many they want.
_MAILS = 50

#: Longer lines of a message are cut into pieces of this many bytes.
_LINE = 8192

#: A header that holds the password of a relay in the clear.
_PASSWORD = b"x-zope-password"

_WORST_FIRST = tuple(reversed(Severity))


def list_mails(call: Call) -> int:
    """``queue list``."""
    options = call.options
    mails = call.admin.mails(**filters(call))
    if options.json:
        for mail in islice(mails, options.limit or None):
            say_json(mail_values(mail))
        return os.EX_OK
    limit = _MAILS if options.limit is None else options.limit
    shown = 0
    for shown, mail in enumerate(islice(mails, limit or None), 1):
        if shown == 1:
            say(heading())
        say_all(mail_lines(mail, call.now, width()))
    if options.filtered:  # to know how many there are, all would have to be read
        more = "more" if next(mails, None) is not None else ""
    else:
        count = sum(1 for _ in call.admin.names()) - shown
        more = f"{count:,} more" if shown and count > 0 else ""
    if more:
        say(f"... and {more}; --limit 0 shows all")
    elif not shown:
        say("no mails" if not options.filtered else "no mail fits")
    return os.EX_OK


def show_mails(call: Call) -> int:
    """``queue show``."""
    if call.options.raw and is_terminal(sys.stdout):
        raise CommandRefused("--raw is not for a terminal; use --message, or send it into a file", os.EX_USAGE)
    names, missing = resolve(call.queue, call.options.names)
    status = int(missing > 0)
    for number, name in enumerate(names):
        try:
            _show_one(call, name, first=not number)
        except NoSuchMail as error:
            status = complain(str(error), 1)
    return status


def _show_one(call: Call, name: str, *, first: bool) -> None:
    queue, options = call.admin, call.options
    if options.raw:
        with queue.read(name) as stream:
            shutil.copyfileobj(stream, sys.stdout.buffer)
        return
    mail = queue.show(name)
    if options.json:
        say_json(mail_values(mail, history=True) | _text_values(call, name))
        return
    if not first:
        say("")
    say_all(detail_lines(mail, call.now))
    if options.headers or options.message:
        say("")
        with queue.read(name) as stream:
            for raw in _lines(stream, whole=options.message):
                say(clean_line(raw))


def _text_values(call: Call, name: str) -> dict[str, str]:
    """Return the message for programs; bytes that are no UTF-8 become what Python calls surrogate escapes."""
    options = call.options
    if not (options.headers or options.message):
        return {}
    with call.admin.read(name) as stream:
        text = b"".join(_lines(stream, whole=options.message)).decode("utf-8", "surrogateescape")
    return {"message" if options.message else "headers": text}


def _lines(stream: BinaryIO, *, whole: bool) -> Iterator[bytes]:
    """Yield the lines of a message, or of its headers; passwords that CPSMailAccess wrote there are not among them."""
    in_headers = begins = True
    hides = False
    while line := stream.readline(_LINE):
        if begins and in_headers:
            in_headers = bool(line.strip(b"\r\n"))
            if not in_headers and not whole:
                return
            if in_headers and not line.startswith((b" ", b"\t")):  # else it goes on with the line before
                name, colon, _ = line.partition(b":")
                hides = bool(colon) and name.strip().lower() == _PASSWORD
                if hides:
                    yield name + b": (hidden)\n"
        if not (in_headers and hides):
            yield line
        begins = line.endswith(b"\n")


def tell_status(call: Call) -> int:
    """``queue status``."""
    for given in call.options.names:
        status = call.queue.status(bare_message_id(given))
        if call.options.json:
            say_json(status_values(status))
        else:
            say_all(status_lines(status, call.now))
    return os.EX_OK


def count_mails(call: Call) -> int:
    """``queue count``."""
    counts, oldest = call.admin.count(), call.admin.oldest()
    board = RelayBoard(call.admin.processors())
    waiting = count_waiting(call.admin, board)
    if call.options.json:
        say_json(count_values(counts, oldest, waiting))
        return os.EX_OK
    for state in State:
        if counts.get(state):
            say(f"{state:8} {counts[state]:>9,}")
    if not counts:
        say("no mails")
    if oldest is not None:
        say(f"the oldest that waits was written {age(call.now - oldest)} ago")
    say_all(waiting_lines(board, waiting, call.now))
    return os.EX_OK


def count_waiting(admin: IMailQueueAdmin, board: RelayBoard) -> dict[str, int]:
    """Return how many mails wait for each relay that cannot be used; mails are read only if there is such a relay."""
    counts: Counter[str] = Counter()
    if any(not relay.is_usable for relay in board):
        for mail in admin.mails((State.READY, State.DEFERRED)):
            if mail.blocked is not None:
                counts[mail.blocked.name] += 1
    return dict(counts)


def waiting_lines(board: RelayBoard, waiting: Mapping[str, int], now: float) -> Iterator[str]:
    """Yield a line for each relay that keeps mail waiting."""
    for name, count in waiting.items():
        relay = board.get(name) or RelayState(name)
        verb = "waits" if count == 1 else "wait"
        yield clean(f"{mails_in_words(count)} {verb}: {waiting_words(relay, now)}")


# --- the doctor -------------------------------------------------------------------------------------------------


def diagnose(call: Call) -> int:
    """``queue doctor``.

    :returns: 0 if nothing has to be done, 1 if something needs attention, 2 if mail is not moving.
    """
    tally: Counter[Severity] = Counter()
    groups: dict[tuple[Severity, str, str], list[Finding]] = {}
    standstill = False
    for finding in call.admin.examine():
        tally[finding.severity] += 1
        standstill = standstill or finding.is_standstill
        if call.options.json:
            say_json(finding_values(finding, call.queue.location))
        else:
            groups.setdefault(_group_of(finding), []).append(finding)
    if not call.options.json:
        _say_findings(call, tally, groups)
    if standstill:
        return 2
    return int(tally[Severity.PROBLEM] + tally[Severity.WARNING] > 0)


def _group_of(finding: Finding) -> tuple[Severity, str, str]:
    """Return what findings have in common that are told as one; those of the queue itself have nothing."""
    of_queue = "" if finding.name else finding.text
    return finding.severity, finding.kind, finding.cause or of_queue


def _say_findings(
    call: Call, tally: Mapping[Severity, int], groups: Mapping[tuple[Severity, str, str], Sequence[Finding]]
) -> None:
    """Print the worst first: what stands still, then by severity, then what concerns most mails."""
    summary = ", ".join(f"{tally[each]:,} {each}{'s' * (tally[each] != 1)}" for each in _WORST_FIRST if tally[each])
    say(f"{clean(call.queue.location)}: {summary or 'nothing is wrong'}")
    order = sorted(groups.values(), key=lambda group: (_rank(group[0]), -len(group)))
    for group in order:
        if group[0].severity is Severity.NOTE and tally[Severity.PROBLEM] and not call.options.all:
            continue
        say("")
        say_all(finding_lines(group, width(), call.queue.location))
    hidden = tally[Severity.NOTE] if tally[Severity.PROBLEM] and not call.options.all else 0
    if hidden:
        say(f"\n{hidden:,} {'note that needs' if hidden == 1 else 'notes that need'} no operator; --all for all")


def _rank(finding: Finding) -> tuple[bool, int]:
    return not finding.is_standstill, _WORST_FIRST.index(finding.severity)
