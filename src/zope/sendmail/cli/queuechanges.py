"""What operators do to mails: ``queue retry``, ``flush``, ``hold``, ``release``, ``reroute``, ``bounce``, ``remove``.

Each mail is changed for itself, with its lock held by the queue; what cannot be done to one is told and leaves the
others.  With ``--dry-run`` nothing is changed.
"""

from __future__ import annotations

import errno
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import cached_property, partial
from itertools import islice

from zope.sendmail.cli.formatting import clean, mails_in_words
from zope.sendmail.cli.queuearguments import ACTIONS, FINAL, MEANT
from zope.sendmail.cli.selecting import Call, filters, resolve
from zope.sendmail.cli.terminal import CommandRefused, complain, finish_telling, is_terminal, progress, tell, tell_json
from zope.sendmail.errors import InvalidRelay, MailError, NotPossible, QueueNotSafe
from zope.sendmail.lifecycle.queuedmail import QueuedMail
from zope.sendmail.lifecycle.relaystate import DEFAULT, RelayBoard, RelayState, is_drained, probe_words
from zope.sendmail.lifecycle.states import Action, State, after
from zope.sendmail.message.relayname import RelayName
from zope.sendmail.queue.nondelivery import bounce
from zope.sendmail.system.disk import NotRegular

#: How a verb is reported.
_DONE = {
    "hold": "held",
    "release": "released",
    "retry": "will be tried now",
    "flush": "will be tried now",
    "reroute": "rerouted",
    "bounce": "given up",
    "remove": "removed",
}

#: Of so many mails a line each is said; of more only how many they are.
_EACH = 20

_WOULD_BE = {**_DONE, "retry": "tried now", "flush": "tried now"}


def change(call: Call) -> int:
    """Do to each mail that is meant what the verb says, also where the output is not read to its end (``| head``).

    :returns: 0 if that was possible for all of them, else 1.
    """
    status = _change(call)
    finish_telling()
    return status


def _change(call: Call) -> int:
    options = call.options
    action = _make_action(call)
    names: Iterable[str]
    due: Counter[str] = Counter()
    names, missing = resolve(call.queue, options.names) if options.names else (_chosen(call, due), 0)
    if options.dry_run:
        return _rehearse(call, names, due) or int(missing > 0)
    if options.verb in FINAL:
        names = list(names)
        _confirm(len(names), call)
    tally: Counter[bool] = Counter()
    for name in progress(names, options.verb):
        done = _change_one(call, action, name)
        tally[done] += 1
        if done and not options.json:
            _say_some(tally[True], f"{clean(name)}: {_DONE[options.verb]}")
    if not options.json and tally[True] + tally[False] != 1 and not missing:
        failed = f", {tally[False]:,} not" if tally[False] else ""
        tell(f"{mails_in_words(tally[True])} {_DONE[options.verb]}{failed}")
    _say_due(call, due)
    unasked = _ask_relays(call, action.relays, tally, due) if isinstance(action, _Retry) else 0
    return int(tally[False] + missing + unasked > 0)


def _chosen(call: Call, due: Counter[str]) -> Iterator[str]:
    """Yield the names of the mails that fit the filters; `due` counts those for which nothing can be done."""
    options = call.options
    mails = call.admin.mails(**filters(call, MEANT[options.verb]))
    if options.verb in ("retry", "flush") and not options.state:
        mails = _not_due(mails, due)
    if options.verb == "release":  # what is ready has nothing to be released from but the lock of an older release
        mails = (mail for mail in mails if mail.state is not State.READY or mail.locked_until)
    return (mail.name for mail in islice(mails, options.limit or None))


def _not_due(mails: Iterable[QueuedMail], due: Counter[str]) -> Iterator[QueuedMail]:
    """Yield the mails that would not be tried by themselves now; the others are counted."""
    for mail in mails:
        if mail.state is State.READY and mail.blocked is None:
            due["mails"] += 1
        else:
            yield mail


def _say_due(call: Call, due: Counter[str]) -> None:
    if due["mails"] and not call.options.json:
        are = "is" if due["mails"] == 1 else "are"
        tell(f"{mails_in_words(due['mails'])} {are} due already")


def _make_action(call: Call) -> Callable[[str], None]:
    """Return what is done to the mail of a name.  Raises `CommandRefused` if it cannot be done to any."""
    verb = call.options.verb
    if verb == "bounce":
        return partial(bounce, call.queue, now=call.now)
    if verb == "reroute":
        return partial(call.admin.reroute, relay=_target(call))
    if verb in ("retry", "flush"):
        return _Retry(call)
    simple: Callable[[str], None] = getattr(call.admin, verb)
    return simple


class _Retry:
    """Tries mails now, and remembers to which relays they go."""

    def __init__(self, call: Call) -> None:
        self._admin = call.admin
        self.relays = {call.options.flushed} if call.options.verb == "flush" else set()

    def __call__(self, name: str) -> None:
        """Try a mail now.  One that only waits for its relay stays as it is: the relay is what has to be tried."""
        mail = self._admin.show(name)
        self.relays.update(mail.relays)
        if mail.blocked is None or mail.state is not State.READY:
            self._admin.retry(name)


def _target(call: Call) -> RelayName | None:
    """Return the relay for ``reroute``; None is what the routes say.  Raises `CommandRefused`."""
    wanted = call.options.to
    board = RelayBoard(call.admin.processors())
    if wanted == DEFAULT:
        return None
    if not board.processors:
        raise CommandRefused("no processor has told which relays there are; start one, then reroute", 1)
    try:
        return board.processors[0].routes.named(wanted)
    except InvalidRelay as error:
        raise CommandRefused(f"cannot reroute to {wanted}: {error}", 2) from None


def _change_one(call: Call, action: Callable[[str], None], name: str) -> bool:
    """Do it to one mail, and say so; return whether it was possible."""
    options = call.options
    error = ""
    try:
        action(name)
    except QueueNotSafe:
        raise
    except (MailError, OSError) as refused:
        if not _concerns_one_mail(refused):
            raise
        error = str(refused)
    if options.json:
        tell_json({"name": name, "verb": options.verb, "done": not error, "error": error})
    elif error:
        complain(error, 1)
    return not error


def _concerns_one_mail(error: MailError | OSError) -> bool:
    """Return whether a mail, or what stands in the place of its files, is wrong, and not the queue or the disk."""
    return isinstance(error, (MailError, IsADirectoryError, NotRegular)) or getattr(error, "errno", 0) == errno.ELOOP


class _Rehearsal:
    """Raises what an action would for a mail that is as it is now, and changes nothing."""

    def __init__(self, call: Call) -> None:
        self._admin = call.admin
        self._action = ACTIONS[call.options.verb]

    def __call__(self, name: str) -> None:
        """Raise `NotPossible` or `NoSuchMail`."""
        mail = self._admin.show(name)
        state = mail.state
        if self._action is Action.RELEASE and mail.locked_until:
            return
        after(state, self._action, name)
        if state is State.STAGED and name not in self._in_doubt:
            raise NotPossible(f"cannot {self._action} {name}: its transaction may still commit")

    @cached_property
    def _in_doubt(self) -> frozenset[str]:
        return frozenset(finding.name for finding in self._admin.in_doubt())


def _rehearse(call: Call, names: Iterable[str], due: Counter[str]) -> int:
    """Say what would be done to each mail."""
    options = call.options
    check = _Rehearsal(call)
    count = 0
    status = 0
    for name in names:
        error = ""
        try:
            check(name)
            count += 1
        except (MailError, OSError) as refused:
            if not _concerns_one_mail(refused):
                raise
            error, status = str(refused), 1
        if options.json:
            tell_json({"name": name, "verb": options.verb, "done": False, "error": error})
        elif error:
            complain(error, 1)
        else:
            _say_some(count, f"{clean(name)}: would be {_WOULD_BE[options.verb]}")
    if not options.json:
        tell(f"{mails_in_words(count)} would be {_WOULD_BE[options.verb]}; nothing was done")
    _say_due(call, due)
    if options.verb == "flush" and not count:
        status = status or int(_unknown(RelayBoard(call.admin.processors()), {options.flushed}) > 0)
    return status


def _say_some(count: int, line: str) -> None:
    """Print the lines of the first mails, and that there are more."""
    if count <= _EACH:
        tell(line)
    elif count == _EACH + 1:
        tell("...")


def _confirm(count: int, call: Call) -> None:
    """Ask before more than one mail is gone for good.  Raises `CommandRefused`.

    What a program does with filters needs ``--yes`` however many mails they mean now: one that was tried with one mail
    works with two.
    """
    options, is_asked = call.options, is_terminal(sys.stdin)
    if options.yes or (count < 2 and (is_asked or options.names or options.limit == 1)):
        return
    what = _WOULD_BE[call.options.verb]
    if not is_asked:
        raise CommandRefused(f"{mails_in_words(count)} would be {what} for good; say --yes to do it", 2)
    question = "Remove" if call.options.verb == "remove" else "Give up"
    sys.stderr.write(f"{question} {count:,} mails for good? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise CommandRefused(f"nothing was {what}", 1)


# --- paused relays ----------------------------------------------------------------------------------------------


def _ask_relays(call: Call, names: Collection[str], tally: Mapping[bool, int], due: Mapping[str, int]) -> int:
    """Let processors try those of these relays that cannot be used; return for how many that was not possible.

    :param tally: how many mails were meant; a relay that is not known, and has none, is most often a slip of the pen.
    """
    board = RelayBoard(call.admin.processors())
    if (tally[True] or due["mails"]) and not call.options.json and not is_drained(board.processors, call.now):
        tell("no processor of this release is at work; mail is tried when one starts")
    if call.options.verb == "flush" and not tally[True] + tally[False] and (unknown := _unknown(board, names)):
        return unknown
    wanted = [relay for name in sorted(names) if (relay := board.get(name)) is not None and not relay.is_usable]
    return sum(not _ask_probe(call, board, relay) for relay in dict.fromkeys(wanted))


def _unknown(board: RelayBoard, names: Collection[str]) -> int:
    """Complain about each of these relays of which no processor has told; return how many they are."""
    known = board.names()
    if not known:
        return complain("no processor has told which relays there are; one that starts tries all mail that is due", 1)
    unknown = [name for name in names if name not in known and board.get(name) is None]
    for name in unknown:
        complain(f"no relay {name!r} is known; there are: {', '.join(sorted(known))}", 1)
    return len(unknown)


def _ask_probe(call: Call, board: RelayBoard, relay: RelayState) -> bool:
    error = ""
    if not board.living:
        error = "no processor is at work; it is tried when one starts"
    else:
        try:
            call.admin.probe(relay.name)
        except OSError as refused:
            error = f"it cannot be asked for ({refused}); {probe_words(relay, call.now)}"
    if call.options.json:
        tell_json({"relay": relay.name, "verb": "probe", "done": not error, "error": error})
    elif error:
        complain(f"relay {relay.title}: {error}", 1)
    else:
        tell(clean(f"relay {relay.title}: it is tried now; 'queue relays' shows what it says"))
    return not error
