"""What the doctor of a queue can find: the shape of a finding, and the words that its sentences share.

The sentences are in ``zope.sendmail.queue.diagnosis``.  Pure; what comes from files is made printable.
"""

from __future__ import annotations

import datetime
import posixpath
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from zope.sendmail.lifecycle.outcome import Answer, printable
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.message.envelope import Envelope

#: So many recipients are named before the rest is counted.
_NAMED = 3

#: What stands in commands for the location of the queue, and what begins a path within its directory.
QUEUE, HERE = "\0queue", "\0here/"

#: So many mails or paths are named in one command.
_TOGETHER = 20

_UNITS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


class Severity(StrEnum):
    """How urgent a finding is for an operator."""

    #: Nothing has to be done: it heals by itself, or does no harm.
    NOTE = "note"
    #: An operator should look when there is time.
    WARNING = "warning"
    #: An operator has to do something, else it stays.
    PROBLEM = "problem"


class Kind(StrEnum):
    """What a finding is about."""

    IN_DOUBT = "in-doubt"
    COMMITTED = "committed"
    HELD = "held"
    REJECTED = "rejected"
    NO_MAIL = "no-mail"
    UNREADABLE = "unreadable"
    FOREIGN = "foreign"
    ORPHANED = "orphaned"
    OLD_LOCK = "old-lock"
    LEFTOVER = "leftover"
    WAITING = "waiting"
    PERMISSIONS = "permissions"
    OWNER = "owner"
    ROOM = "room"
    CLOCK = "clock"
    DATABASE = "database"
    RELAY = "relay"
    MOVING = "moving"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing the doctor saw.  `name` is that of a mail, or a path within the queue, or empty: the queue itself."""

    kind: Kind
    severity: Severity
    name: str
    text: str
    cure: str
    #: What findings of a kind have in common, such as the reply of a relay; empty if each has a reason of its own.
    cause: str = ""
    #: Commands of the cure, word by word, with `QUEUE` and `HERE` in them; none where only a person can know them.
    commands: tuple[tuple[str, ...], ...] = ()
    #: Filters of ``zope-sendmail queue`` that select every mail with the same cause; none if there are no such filters.
    filters: tuple[str, ...] = ()

    def within(self, directory: str) -> Finding:
        """Return the finding with `directory`, that of the queue, in the place of `HERE`."""
        commands = tuple(tuple(_placed(word, directory) for word in command) for command in self.commands)
        return replace(self, commands=commands)

    def command_lines(self, location: str) -> list[str]:
        """Return the commands as they are typed into a shell.

        :param location: of the queue, without a password in it, as any location.
        """
        return [" ".join(_for_shell(word.replace(QUEUE, location)) for word in command) for command in self.commands]

    @property
    def is_standstill(self) -> bool:
        """Whether mail that could go does not go because of it."""
        return self.severity is Severity.PROBLEM and self.kind in _STANDSTILL


def together(findings: Sequence[Finding]) -> Finding:
    """Return the first of some findings with the commands that do for all of them what its own do for one.

    They are its own with the filters, where all have the same; else they name up to twenty mails or paths.
    """
    first = findings[0]
    if len(findings) == 1:
        return first
    if first.filters and {each.filters for each in findings} == {first.filters}:
        return replace(first, commands=tuple(_filtered(command, first.filters) for command in first.commands))
    about: dict[tuple[str, ...], dict[str, None]] = {}
    for finding in findings[:_TOGETHER]:
        for command in finding.commands:
            beginning, last = (command, ()) if command[2:3] == ("flush",) else (command[:-1], command[-1:])
            about.setdefault(beginning, {}).update(dict.fromkeys(last))
    return replace(first, commands=tuple((*beginning, *words) for beginning, words in about.items()))


def _filtered(command: tuple[str, ...], filters: tuple[str, ...]) -> tuple[str, ...]:
    """Return a command of ``zope-sendmail queue`` for the mails that the filters select instead of for one."""
    verb = command[2]
    return queue_command("list" if verb == "show" else verb, options=filters)


def queue_command(name: str, *words: str, options: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Return a command of ``zope-sendmail queue``.

    :param words: names of mails, of which one may look like an option.
    """
    dashes = ("--",) if any(word.startswith("-") for word in words[:1]) else ()
    return ("zope-sendmail", "queue", name, *options, QUEUE, *dashes, *words)


def _placed(word: str, directory: str) -> str:
    return posixpath.normpath(posixpath.join(directory, word.removeprefix(HERE))) if word.startswith(HERE) else word


def _for_shell(word: str) -> str:
    """Return a word quoted for a shell, on one line and without anything that a terminal obeys."""
    if printable(word, len(word)) == word:
        return shlex.quote(word)
    return (
        "$'" + "".join(_escaped(octet) for octet in word.encode("utf-8", "surrogateescape")) + "'"
    )  # POSIX.1-2024, 2.2.4


def _escaped(octet: int) -> str:
    is_plain = 0x20 <= octet < 0x7F and octet not in b"'\\"
    return chr(octet) if is_plain else f"\\{octet:03o}"


#: Of these kinds, a problem keeps mail of others than its own from moving.
_STANDSTILL = frozenset({Kind.WAITING, Kind.RELAY, Kind.ROOM, Kind.OWNER})


def from_to(envelope: Envelope | None) -> str:
    """Sender and recipients, for people."""
    if envelope is None:
        return "without a readable envelope"
    everybody = (*envelope.recipients, *envelope.malformed)
    named = ", ".join(printable(each, 80) for each in everybody[:_NAMED])
    more = f" and {len(everybody) - _NAMED} more" if len(everybody) > _NAMED else ""
    return f"from {printable(envelope.sender, 80) or '<>'} to {named}{more}"


def said(record: Record) -> str:
    """Return what was said about the recipients that did not get the mail."""
    replies = record.replies.items()
    bad = [each for each in replies if each[1].answer is not Answer.ACCEPTED and each[1].text != record.note]
    named = [f"{printable(who, 80)}: {printable(str(reply), 200)}" for who, reply in bad[:_NAMED]]
    more = [f"{len(bad) - _NAMED} more"] if len(bad) > _NAMED else []
    return "; ".join(named + more)


def quoted(path: str) -> str:
    return printable(shlex.quote(path), 300)


def moment(seconds: float) -> str:
    """Return a time for people, in their own zone."""
    try:
        return datetime.datetime.fromtimestamp(seconds).astimezone().isoformat(" ", "seconds")
    except (OverflowError, ValueError, OSError):
        return "an impossible time"


def age(seconds: float) -> str:
    """Return a duration in its two largest units: ``3h 12m``."""
    rest = max(0, int(seconds))
    parts: list[str] = []
    for unit, length in _UNITS:
        count, rest = divmod(rest, length)
        if count or (unit == "s" and not parts):
            parts.append(f"{count}{unit}")
        elif parts:
            break
        if count >= 100 and unit == "d":  # the hour is of no interest
            break
    return " ".join(parts[:2])
