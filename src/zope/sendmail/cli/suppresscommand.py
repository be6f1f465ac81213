"""``queue suppress``: the addresses that get no mail of a queue.

What is read from a file is checked whole before anything is written.
"""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from math import inf

from zope.sendmail.cli.formatting import clean
from zope.sendmail.cli.selecting import Call
from zope.sendmail.cli.terminal import CommandRefused, say, say_json
from zope.sendmail.errors import InvalidRecipient
from zope.sendmail.lifecycle.suppression import Suppression
from zope.sendmail.message.terms import read_moment, written

#: The columns of a file.
_COLUMNS = ("address", "reason", "since", "until")

#: The reason of what an operator adds without one.
_BY_OPERATOR = "added by an operator"


def suppress(call: Call) -> int:
    """``queue suppress list``, ``add``, ``remove``, ``import`` and ``export``."""
    return _ACTIONS[call.options.action](call)


def _list(call: Call) -> int:
    entries = _chosen(call)
    for entry in entries:
        if call.options.json:
            say_json(_values(entry))
        else:
            until = f" until {written(entry.until)}" if entry.until < inf else ""
            since = f" since {written(entry.since)}" if entry.since else ""
            say(clean(f"{entry.address}{since}{until}{': ' if entry.reason else ''}{entry.reason}"))
    if not entries and not call.options.json:
        say("every address gets mail")
    return os.EX_OK


def _chosen(call: Call) -> Sequence[Suppression]:
    """Return the entries of the addresses that are named, or all."""
    entries = call.queue.suppressions.entries()
    wanted = {entry.address for entry in _entries(call, call.options.addresses)}
    return [entry for entry in entries if not wanted or entry.address in wanted]


def _add(call: Call) -> int:
    entries = list(_entries(call, _named(call)))
    call.queue.suppressions.add(*entries)
    return _tell(call, [entry.address for entry in entries], "suppressed")


def _remove(call: Call) -> int:
    addresses = [entry.address for entry in _entries(call, _named(call))]
    known = {entry.address for entry in call.queue.suppressions.entries()}
    call.queue.suppressions.remove(*addresses)
    missing = [each for each in addresses if each not in known]
    _tell(call, [each for each in addresses if each in known], "gets mail again")
    return _tell(call, missing, "was not suppressed") or int(bool(missing))


def _import(call: Call) -> int:
    [name] = call.options.addresses or ["-"]
    try:
        with sys.stdin if name == "-" else open(name, encoding="utf-8-sig", newline="") as file:
            entries = list(_read(call, file, name))
    except (OSError, UnicodeDecodeError) as error:
        raise CommandRefused(f"{name} cannot be read: {error}", os.EX_NOINPUT) from None
    call.queue.suppressions.add(*entries)
    if call.options.json:
        say_json({"imported": len(entries)})
    else:
        say(f"{len(entries):,} address{'es' * (len(entries) != 1)} imported")
    return os.EX_OK


def _export(call: Call) -> int:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(_COLUMNS)
    for entry in call.queue.suppressions.entries():
        values = _values(entry)
        rows.writerow([values["address"], values["reason"], values["since"] or "", values["until"] or ""])
    sys.stdout.write(text.getvalue())
    return os.EX_OK


_ACTIONS = {"list": _list, "add": _add, "remove": _remove, "import": _import, "export": _export}


def _named(call: Call) -> Sequence[str]:
    addresses: Sequence[str] = call.options.addresses
    if not addresses:
        raise CommandRefused("which address? name at least one", 2)
    return addresses


def _entries(call: Call, addresses: Iterable[str]) -> Iterator[Suppression]:
    """Yield an entry for each address.  Raises `CommandRefused`."""
    options = call.options
    until = inf if options.time is None else call.now + options.time
    for address in addresses:
        try:
            yield Suppression.of(address, options.reason or _BY_OPERATOR, since=call.now, until=until)
        except InvalidRecipient as error:
            raise CommandRefused(str(error), 2) from None


def _read(call: Call, lines: Iterable[str], name: str) -> Iterator[Suppression]:
    """Yield what a file has: what was exported, or an address a line.  Raises `CommandRefused`."""
    for number, row in enumerate(csv.reader(lines), 1):
        if not row or not any(row) or (number == 1 and row[0].strip().lower() == _COLUMNS[0]):
            continue
        address, reason, since, until = (*row, "", "", "")[:4]
        try:
            yield Suppression.of(
                address.strip(),
                reason or call.options.reason or "imported",
                since=read_moment(since) if since else call.now,
                until=read_moment(until) if until else inf,
            )
        except ValueError as error:  # InvalidRecipient is one
            raise CommandRefused(f"{name}, line {number}: {error}; nothing was imported", 1) from None


def _values(entry: Suppression) -> dict[str, str | None]:
    return {
        "address": entry.address,
        "reason": entry.reason,
        "since": written(entry.since) if entry.since else None,
        "until": written(entry.until) if entry.until < inf else None,
    }


def _tell(call: Call, addresses: Sequence[str], words: str) -> int:
    for address in addresses:
        if call.options.json:
            say_json({"address": address, "done": words != "was not suppressed"})
        else:
            say(clean(f"{address}: {words}"))
    return os.EX_OK
