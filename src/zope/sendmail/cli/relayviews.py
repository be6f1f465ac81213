"""What operators see of relays and of the queue as a whole: ``queue relays``, ``shape`` and ``errors``.

Changes nothing.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from zope.sendmail.cli.formatting import clean, cut, mails_in_words, short
from zope.sendmail.cli.queueviews import count_waiting
from zope.sendmail.cli.selecting import Call, filters
from zope.sendmail.cli.terminal import say, say_all, say_json, width
from zope.sendmail.cli.values import processor_values, relay_values
from zope.sendmail.lifecycle.cures import cure_of
from zope.sendmail.lifecycle.finding import age, moment
from zope.sendmail.lifecycle.outcome import Answer
from zope.sendmail.lifecycle.queuedmail import QueuedMail
from zope.sendmail.lifecycle.relaystate import ProcessorState, RelayBoard, RelayState, fault_words, probe_words
from zope.sendmail.lifecycle.replypattern import pattern_of, pattern_of_words
from zope.sendmail.lifecycle.states import WAITING, State

#: Minutes, as Postfix's qshape has them.
BUCKETS = (5, 10, 20, 40, 80, 160, 320, 640, 1280)

_NONE = "-"


# --- relays -----------------------------------------------------------------------------------------------------


def show_relays(call: Call) -> int:
    """``queue relays``."""
    board = RelayBoard(call.admin.processors())
    waiting = count_waiting(call.admin, board)
    if call.options.json:
        for relay in board:
            say_json(relay_values(relay, waiting.get(relay.name, 0)))
        for processor in board.processors:
            say_json(processor_values(processor, call.now))
        return os.EX_OK
    for relay in _worst_first(board, waiting):
        say_all(relay_lines(relay, waiting.get(relay.name, 0), call.now))
    if not list(board):
        say("no processor has told of a relay yet")
    say("")
    say_all(processor_lines(board, call.now))
    return os.EX_OK


def _worst_first(board: RelayBoard, waiting: dict[str, int]) -> list[RelayState]:
    return sorted(board, key=lambda relay: (relay.is_usable, -waiting.get(relay.name, 0), relay.name))


def relay_lines(relay: RelayState, waiting: int, now: float) -> Iterator[str]:
    """Yield how it is with a relay."""
    since = f" since {moment(relay.since)} ({age(now - relay.since)})" if relay.since else ""
    if relay.is_usable and not relay.asked:
        yield clean(f"{relay.title}  was not asked yet")
    elif relay.is_usable:
        yield clean(f"{relay.title}  works{since}")
    else:
        wait = f"; {mails_in_words(waiting)} {'waits' if waiting == 1 else 'wait'}" if waiting else ""
        yield clean(f"{relay.title}  CANNOT BE USED{since}; {probe_words(relay, now)}{wait}")
        yield f"    {clean(fault_words(relay))}"
        if relay.fault is not None:
            yield f"    Cure: {cure_of(relay.fault)}"
    limits = [f"{relay.connections} connections"] if relay.connections else []
    limits += [f"{relay.rate:g} mails a second"] if relay.rate else []
    if limits:
        yield clean(f"    no more than {' and '.join(limits)}" + (f"; it said: {relay.limit}" if relay.limit else ""))
    for member in relay.members:
        yield from (f"    {line}" for line in relay_lines(member, 0, now))


def processor_lines(board: RelayBoard, now: float) -> Iterator[str]:
    """Yield which processors are at work, or which was last."""
    for each in board.living:
        yield clean(
            f"process {each.pid} on {each.host} is at work since {moment(each.started)} ({age(now - each.started)}): "
            f"{each.sent:,} sent, {each.rate(now):g} a minute"
        )
    if board.living:
        return
    yield "no processor of this release is at work"
    for each in board.processors[:1]:
        yield clean(f"the last was process {each.pid} on {each.host}; {_end_words(each, now)}")


def _end_words(processor: ProcessorState, now: float) -> str:
    if processor.ended:
        what = "it was stopped" if processor.forever else "its pass ended"
        return f"{what} {age(now - processor.ended)} ago"
    return f"it died; it was last heard of {age(now - processor.written)} ago"


# --- shape ------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Ages:
    """How many mails there are, by age."""

    total: int = 0
    by_age: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))

    def add(self, minutes: float) -> None:
        """Count a mail of this age."""
        self.total += 1
        self.by_age[next((place for place, limit in enumerate(BUCKETS) if minutes <= limit), len(BUCKETS))] += 1


def show_shape(call: Call) -> int:
    """``queue shape``."""
    mails = call.admin.mails(**filters(call, states=sorted(WAITING)))
    rows = shape(mails, _KEYS[call.options.by], call.now)
    total = rows.pop("TOTAL")
    ordered = sorted(rows.items(), key=lambda row: (-row[1].total, row[0]))
    shown = ordered[: call.options.limit or None]
    if call.options.json:
        for key, ages in shown:
            say_json({"key": key, "total": ages.total, "minutes": ages.by_age})
        return os.EX_OK
    room = max(16, width() - 6 * (len(BUCKETS) + 2) - 1)
    say(_shape_line("", ["T", *map(str, BUCKETS), f"{BUCKETS[-1]}+"], room))
    for key, ages in [("TOTAL", total), *shown]:
        say(_shape_line(clean(key), [str(ages.total), *map(str, ages.by_age)], room))
    if len(ordered) > len(shown):
        say(f"... and {len(ordered) - len(shown):,} more; --limit 0 shows all")
    return os.EX_OK


def shape(mails: Iterable[QueuedMail], keys: Callable[[QueuedMail], Iterable[str]], now: float) -> dict[str, Ages]:
    """Return the ages of mails by what `keys` tells of each; the row ``TOTAL`` has each mail once."""
    rows = {"TOTAL": Ages()}
    for mail in mails:
        minutes = (now - mail.since) / 60
        rows["TOTAL"].add(minutes)
        for key in dict.fromkeys(keys(mail)):
            rows.setdefault(key, Ages()).add(minutes)
    return rows


def _shape_line(key: str, numbers: list[str], room: int) -> str:
    return f"{cut(key, room):>{room}}" + "".join(f"{each:>6}" for each in numbers)


def _relays_of(mail: QueuedMail) -> Iterable[str]:
    return mail.relays or [mail.history[-1].relay if mail.history and mail.history[-1].relay else _NONE]


def _domains_of(mail: QueuedMail) -> Iterable[str]:
    if mail.envelope is None:
        return [_NONE]
    last = mail.history[-1] if mail.history else None
    left = last.outstanding(mail.envelope.recipients) if last else mail.envelope.recipients
    return [each.rpartition("@")[2].lower() for each in left or mail.envelope.recipients] or [_NONE]


def _sender_of(mail: QueuedMail) -> Iterable[str]:
    return [(mail.envelope.sender or "<>") if mail.envelope is not None else _NONE]


def reply_patterns(mail: QueuedMail) -> list[str]:
    """Return what was said about a mail, without what differs from mail to mail."""
    if mail.blocked is not None and mail.blocked.fault is not None:
        return [pattern_of(mail.blocked.fault)]
    if not mail.history:
        return []
    last = mail.history[-1]
    said = [pattern_of(each) for each in last.replies.values() if each.answer is not Answer.ACCEPTED]
    return said or ([pattern_of_words(last.note)] if last.note else [])


_KEYS: dict[str, Callable[[QueuedMail], Iterable[str]]] = {
    "relay": _relays_of,
    "domain": _domains_of,
    "sender": _sender_of,
    "reply": lambda mail: reply_patterns(mail) or ["(not tried yet)"],
}


# --- errors -----------------------------------------------------------------------------------------------------


def show_errors(call: Call) -> int:
    """``queue errors``."""
    counts: Counter[tuple[str, State]] = Counter()
    examples: dict[tuple[str, State], QueuedMail] = {}
    for mail in call.admin.mails(**filters(call)):
        for pattern in dict.fromkeys(reply_patterns(mail)):
            counts[pattern, mail.state] += 1
            examples.setdefault((pattern, mail.state), mail)
    common = counts.most_common(call.options.limit or None)
    for key, count in common:
        example = examples[key]
        if call.options.json:
            relay = example.blocked.name if example.blocked else example.history[-1].relay if example.history else ""
            say_json({"count": count, "reply": key[0], "state": key[1].value, "example": example.name, "relay": relay})
        else:
            line = f"{count:>7,} {key[1]:8} {clean(key[0])}"
            say(cut(line, max(40, width() - 22)) + f"  e.g. {short(example.name)}")
    if not common and not call.options.json:
        say("no mail was told anything" if not call.options.filtered else "no mail fits")
    return os.EX_OK
