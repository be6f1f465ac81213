"""``queue top``: a live view of a queue for a terminal, or one look for a file or a pipe.  Changes nothing."""

from __future__ import annotations

import contextlib
import os
import select
import sys
from collections.abc import Iterator, Sequence
from heapq import nlargest
from itertools import islice

from zope.sendmail.cli.formatting import clean, cut, heading, mail_lines, short
from zope.sendmail.cli.queueviews import count_waiting
from zope.sendmail.cli.relayviews import processor_lines, relay_lines
from zope.sendmail.cli.selecting import Call
from zope.sendmail.cli.terminal import is_terminal, say, say_json, width
from zope.sendmail.cli.values import relay_values
from zope.sendmail.lifecycle.finding import age, moment
from zope.sendmail.lifecycle.outcome import Answer
from zope.sendmail.lifecycle.queuedmail import QueuedMail
from zope.sendmail.lifecycle.relaystate import RelayBoard
from zope.sendmail.lifecycle.states import WAITING, State

#: So many of the oldest mails and of the last replies are shown.
_OLDEST, _REPLIES = 5, 5

#: So many times as long as a look took, the next one waits: a large queue is not read all the time.
_SHARE = 5.0

#: Goes to the upper left corner and clears what is below; the other two change to a screen of its own and back.
_HOME, _ENTER, _LEAVE = "\x1b[H\x1b[J", "\x1b[?1049h", "\x1b[?1049l"


def show_top(call: Call) -> int:
    """``queue top``: look again and again on a terminal until ``q`` or Ctrl-C, else once."""
    if call.options.json or call.options.once or not is_terminal(sys.stdout):
        _look_once(call)
        return os.EX_OK
    sys.stdout.write(_ENTER)
    try:
        with _keys_without_return():
            while True:
                began = call.clock.monotonic()
                lines = [cut(line, width()) for line in islice(_lines(call), _height())]
                sys.stdout.write(_HOME + "\n".join(lines))
                sys.stdout.flush()
                took = call.clock.monotonic() - began
                if _is_quit(max(call.options.interval, _SHARE * took)):
                    break
    finally:
        sys.stdout.write(_LEAVE)
    return os.EX_OK


def _look_once(call: Call) -> None:
    if not call.options.json:
        for line in _lines(call):
            say(line)
        return
    board = RelayBoard(call.admin.processors())
    waiting = count_waiting(call.admin, board)
    mails = list(call.admin.mails())
    say_json(
        {
            "time": call.now,
            "counts": {state.value: count for state, count in call.admin.count().items()},
            "per_minute": sum(each.rate(call.now) for each in board.living),
            "relays": [relay_values(relay, waiting.get(relay.name, 0)) for relay in board],
            "oldest": [mail.name for mail in mails if mail.state in WAITING][:_OLDEST],
            "replies": [{"time": at, "name": name, "reply": reply} for at, name, reply in _last_replies(mails)],
        }
    )


def _lines(call: Call) -> Iterator[str]:
    admin, now = call.admin, call.now
    board = RelayBoard(admin.processors())
    counts = admin.count()
    rate = sum(each.rate(call.now) for each in board.living)
    yield f"{clean(call.queue.location)}  {moment(now)}  {rate:g} mails a minute"
    yield "  ".join(f"{counts.get(state, 0):,} {state}" for state in State if state is not State.SENT)
    oldest = admin.oldest()
    if oldest is not None:
        yield f"the oldest that waits was written {age(now - oldest)} ago"
    yield ""
    yield from processor_lines(board, now)
    waiting = count_waiting(admin, board)
    for relay in board:
        yield from relay_lines(relay, waiting.get(relay.name, 0), now)
    mails = list(admin.mails())
    yield from _oldest_lines(mails, now)
    replies = _last_replies(mails)
    if replies:
        yield ""
        yield "LAST REPLIES"
    for at, name, reply in replies:
        yield f"{age(now - at):>7} ago  {short(name)}  {clean(reply)}"


def _oldest_lines(mails: Sequence[QueuedMail], now: float) -> Iterator[str]:
    waiting = [mail for mail in mails if mail.state in WAITING][:_OLDEST]
    if waiting:
        yield ""
        yield heading()
    for mail in waiting:
        yield from mail_lines(mail, now, width())


def _last_replies(mails: Sequence[QueuedMail]) -> list[tuple[float, str, str]]:
    """Return when, about which mail, and what was said last, the newest first."""
    told = [(mail.history[-1], mail.name) for mail in mails if mail.history]
    newest = nlargest(_REPLIES, told, key=lambda pair: pair[0].time)
    return [
        (record.time, name, str(reply))
        for record, name in newest
        for reply in [next((each for each in record.replies.values() if each.answer is not Answer.ACCEPTED), None)]
        if reply is not None
    ]


def _height() -> int:
    return max(10, os.get_terminal_size(sys.stdout.fileno()).lines - 1)


@contextlib.contextmanager
def _keys_without_return() -> Iterator[None]:
    """Let single keys be read, if standard input is a terminal."""
    if not is_terminal(sys.stdin):
        yield
        return
    import termios
    import tty

    before = termios.tcgetattr(sys.stdin.fileno())
    try:
        tty.setcbreak(sys.stdin.fileno())
        yield
    finally:
        termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, before)


def _is_quit(seconds: float) -> bool:
    """Wait so long; return whether ``q`` was pressed meanwhile."""
    if not is_terminal(sys.stdin):
        select.select([], [], [], seconds)
        return False
    ready, _, _ = select.select([sys.stdin], [], [], seconds)
    return bool(ready) and os.read(sys.stdin.fileno(), 1) in (b"q", b"Q", b"")
