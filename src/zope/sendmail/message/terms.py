"""What a sender asks for besides the envelope: when a mail leaves, until when, before what, and under which key.

The values, the words of ``send()`` that become such values, and the lines of a queue file that keep them.  Most mail
has none, and none of this costs it anything.  Pure.  Fails with `InvalidTerms` for what a caller says and with
`MalformedEnvelope` for what a file says.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from math import inf
from typing import TypedDict

from zope.sendmail.errors import InvalidTerms, MalformedEnvelope

#: Seconds from now within which a mail may have to leave or to be given up: ten years.  What is farther away is a
#: mistake, such as milliseconds for seconds.
FARTHEST = 10 * 365.25 * 86400.0

#: Characters of a key at most.
LONGEST_KEY = 200

#: Seconds for which a key is kept.
KEY_LIFETIME = 7 * 86400.0

NOT_BEFORE, EXPIRES, PRIORITY = "X-Zope-Not-Before", "X-Zope-Expires", "X-Zope-Priority"
KEY, KEY_UNTIL, SUPPRESSED = "X-Zope-Key", "X-Zope-Key-Until", "X-Zope-Suppressed"

#: The lines of a queue file that keep terms.
NAMES = frozenset({NOT_BEFORE, EXPIRES, PRIORITY, KEY, KEY_UNTIL, SUPPRESSED})

_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)

#: Marks in the name of a queue file, so that a processor knows them without reading the file.
_MARK = re.compile(r",([PTE])=([hl]|\d{1,12})(?=,|:|$)", re.ASCII)


class Priority(StrEnum):
    """Before which other mail a mail goes."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"

    @property
    def rank(self) -> int:
        """0 for what goes first, 1 for normal mail, 2 for what goes last."""
        return _RANKS[self]


_RANKS = {Priority.HIGH: 0, Priority.NORMAL: 1, Priority.LOW: 2}

_LETTERS = {Priority.HIGH: "h", Priority.LOW: "l"}
_BY_LETTER = {letter: priority for priority, letter in _LETTERS.items()}


@dataclass(frozen=True, slots=True)
class Terms:
    """What a sender asked for.  Times are whole seconds since the epoch."""

    #: The mail does not leave before this moment; 0.0: it leaves at once.
    not_before: float = 0.0
    #: The mail is given up at this moment; infinity: as the schedule of the queue says.
    expires: float = inf
    priority: Priority = Priority.NORMAL
    #: Two mails of a queue with the same key are one; empty: it has none.
    key: str = ""
    #: Until when the key is kept; 0.0 without a key.
    key_until: float = 0.0
    #: Recipients that were on the suppression list when the mail was handed over.
    suppressed: tuple[str, ...] = ()

    def wait(self, now: float) -> float:
        """Return the seconds until the mail may leave."""
        return max(0.0, self.not_before - now)

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in terms_values(self).items())


#: What most mail has: no terms.
PLAIN = Terms()


def terms_values(terms: Terms) -> dict[str, str]:
    """Return what was asked for as words by name, for people and programs; nothing where nothing was asked for."""
    values: dict[str, str] = {}
    if terms.not_before:
        values["not_before"] = written(terms.not_before)
    if terms.expires < inf:
        values["expires"] = written(terms.expires)
    if terms.priority is not Priority.NORMAL:
        values["priority"] = terms.priority.value
    if terms.key:
        values["key"] = terms.key
        values["key_until"] = written(terms.key_until)
    return values


# --- what callers say -----------------------------------------------------------------------------------------


class TermOptions(TypedDict, total=False):
    """What ``send()`` can be asked for; see `zope.sendmail.interfaces.IMailDelivery.send`."""

    not_before: datetime | timedelta | None
    expires: datetime | timedelta | None
    priority: Priority | str | None
    key: str | None


class TermDefaults(TypedDict, total=False):
    """What a delivery asks for where its callers say nothing.

    Times are counted from the moment at which a mail is handed over.
    """

    not_before: timedelta | None
    expires: timedelta | None
    priority: Priority | str | None
    key_lifetime: timedelta | None


@dataclass(frozen=True, slots=True)
class Defaults:
    """`TermDefaults`, checked.

    :raises InvalidTerms: a time is none, or not within the bounds.
    """

    not_before: timedelta | None = None
    expires: timedelta | None = None
    priority: Priority = Priority.NORMAL
    key_lifetime: float = KEY_LIFETIME

    @classmethod
    def of(
        cls,
        *,
        not_before: timedelta | None = None,
        expires: timedelta | None = None,
        priority: Priority | str | None = None,
        key_lifetime: timedelta | None = None,
    ) -> Defaults:
        """Return the defaults of a delivery."""
        for name, value in (("not_before", not_before), ("expires", expires), ("key_lifetime", key_lifetime)):
            if value is not None and not isinstance(value, timedelta):
                raise InvalidTerms(f"{name}={value!r} is no datetime.timedelta, which a default has to be")
        lifetime = KEY_LIFETIME if key_lifetime is None else key_lifetime.total_seconds()
        if not 0 < lifetime <= FARTHEST:
            raise InvalidTerms(f"key_lifetime={key_lifetime!r} is not more than nothing and at most ten years")
        defaults = cls(not_before, expires, priority_of(priority), lifetime)
        defaults.terms(0.0)  # refuses what cannot be
        return defaults

    def terms(
        self,
        now: float,
        *,
        not_before: datetime | timedelta | None = None,
        expires: datetime | timedelta | None = None,
        priority: Priority | str | None = None,
        key: str | None = None,
    ) -> Terms:
        """Return what is asked for with one mail.

        :param now: seconds since the epoch.
        :raises InvalidTerms: something cannot be meant.
        """
        expires = self.expires if expires is None else expires
        leaves = _moment("not_before", self.not_before if not_before is None else not_before, now, past_is=0.0)
        ends = _moment("expires", expires, now, past_is=-inf) or inf
        if ends <= max(now, leaves):
            why = "has passed already" if ends <= now else "is not behind not_before, so the mail would never leave"
            raise InvalidTerms(f"expires={expires!r} {why}")
        terms = Terms(
            leaves,
            ends,
            self.priority if priority is None else priority_of(priority),
            *(("", 0.0) if key is None else (checked_key(key), float(math.ceil(max(now, leaves) + self.key_lifetime)))),
        )
        return PLAIN if terms == PLAIN else terms


NO_DEFAULTS = Defaults()


def priority_of(word: object) -> Priority:
    """Return the class that a word names; None is the usual one.  Raises `InvalidTerms`."""
    if word is None:
        return Priority.NORMAL
    try:
        return Priority(word)  # type: ignore[arg-type]  # what is no word is none of them
    except ValueError:
        raise InvalidTerms(f"priority={word!r} is not one of {', '.join(Priority)}") from None


def checked_key(key: object) -> str:
    """Return a key that can be kept in one line.  Raises `InvalidTerms`."""
    if not isinstance(key, str):
        raise InvalidTerms(f"key={key!r} is no str")
    if not 0 < len(key) <= LONGEST_KEY:
        raise InvalidTerms(f"key={key[:40]!r} has {len(key)} characters; 1 to {LONGEST_KEY} are possible")
    if not key.isprintable() or key != key.strip():
        raise InvalidTerms(f"key={key!r} has characters that cannot be printed, or blanks at its ends")
    return key


def _moment(name: str, value: object, now: float, *, past_is: float) -> float:
    """Return a moment in whole seconds since the epoch, rounded up; 0.0 for None.  Raises `InvalidTerms`."""
    if value is None:
        return 0.0
    if isinstance(value, timedelta):
        at = now + value.total_seconds()
    elif not isinstance(value, datetime):
        raise InvalidTerms(f"{name}={value!r} is neither a datetime.datetime nor a datetime.timedelta")
    elif value.utcoffset() is None:
        raise InvalidTerms(
            f"{name}={value!r} says no time zone, so it is several moments; pass an aware datetime, such as "
            "datetime.now(UTC) + timedelta(hours=1), or the timedelta"
        )
    else:
        at = value.timestamp()
    if at > now + FARTHEST:
        raise InvalidTerms(f"{name}={value!r} is more than ten years ahead")
    return float(math.ceil(at)) if at > now else past_is


# --- what files say -------------------------------------------------------------------------------------------


def written(moment: float) -> str:
    """Return a moment as a file has it: in UTC, to the second."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def terms_pairs(terms: Terms) -> dict[str, str]:
    """Return what keeps terms, by name; nothing for those of most mail."""
    pairs = {
        NOT_BEFORE: written(terms.not_before) if terms.not_before else "",
        EXPIRES: written(terms.expires) if terms.expires < inf else "",
        PRIORITY: terms.priority if terms.priority is not Priority.NORMAL else "",
        KEY: terms.key,
        KEY_UNTIL: written(terms.key_until) if terms.key else "",
        SUPPRESSED: ", ".join(terms.suppressed),
    }
    return {name: value for name, value in pairs.items() if value}


def terms_lines(terms: Terms) -> bytes:
    """Return the lines of a queue file that keep terms; nothing for those of most mail."""
    if terms is PLAIN:
        return b""
    return "".join([f"{name}: {value}\n" for name, value in terms_pairs(terms).items()]).encode()


def read_terms(options: Mapping[str, str], addresses: Iterable[str]) -> Terms:
    """Return the terms that lines of a queue file keep.

    :param options: the lines by name.
    :param addresses: what stands in the line about suppressed recipients.
    :raises MalformedEnvelope: they say something that cannot be.
    """
    key = options.get(KEY, "")
    word = options.get(PRIORITY, "normal")
    try:
        return Terms(
            _read_moment(options, NOT_BEFORE, 0.0),
            _read_moment(options, EXPIRES, inf),
            Priority(word),
            checked_key(key) if key else "",
            _read_moment(options, KEY_UNTIL, 0.0),
            tuple(addresses),
        )
    except ValueError as error:  # InvalidTerms is one
        raise MalformedEnvelope(f"it asks for what cannot be: {error}") from None


def _read_moment(options: Mapping[str, str], name: str, missing: float) -> float:
    text = options.get(name)
    return missing if text is None else read_moment(text)


def read_moment(text: str) -> float:
    """Return what `written` has written.  Raises `ValueError`."""
    if not _MOMENT.fullmatch(text):
        raise ValueError(f"{text!r} is no moment such as 2026-12-01T08:00:00Z")
    return datetime.fromisoformat(text).timestamp()


# --- what names say -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Marks:
    """What the name of a queue file tells of terms, so that a processor need not read it; what counts is the file."""

    priority: Priority = Priority.NORMAL
    not_before: float = 0.0
    expires: float = inf

    @classmethod
    def of(cls, terms: Terms) -> Marks:
        """Return the marks of a mail with these terms."""
        return cls(terms.priority, terms.not_before, terms.expires)

    @classmethod
    def read(cls, name: str) -> Marks:
        """Return what a name tells, whichever program has made it."""
        found = {letter: value for letter, value in _MARK.findall(name) if (letter == "P") == value.isalpha()}
        return cls(
            _BY_LETTER.get(found.get("P", ""), Priority.NORMAL),
            float(found.get("T", 0.0)),
            float(found.get("E", inf)),
        )

    def __str__(self) -> str:
        """Return what stands behind the usual end of a name; nothing for most mail."""
        priority = f",P={_LETTERS[self.priority]}" if self.priority in _LETTERS else ""
        not_before = f",T={self.not_before:.0f}" if self.not_before else ""
        return f"{priority}{not_before}" + (f",E={self.expires:.0f}" if self.expires < inf else "")


UNMARKED = Marks()


def marks_in(name: str) -> Marks:
    """Return what a name tells; quickly for most names, which tell nothing."""
    return Marks.read(name) if "," in name else UNMARKED
