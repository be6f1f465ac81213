"""How much mail a processor handled in each of the last minutes, as operators see it in a plot.  Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

#: Minutes that are kept.
KEPT = 360


@dataclass(frozen=True, slots=True)
class Minute:
    """What ended in one minute.  `minute` is minutes since the epoch; the next four are mails."""

    minute: int
    sent: int = 0
    deferred: int = 0
    rejected: int = 0
    unknown: int = 0
    #: Seconds from commit to relay, of all mails that were sent together.
    age: float = 0.0

    @property
    def mean_age(self) -> float:
        """Seconds from commit to relay of a mail that was sent; 0.0 if none was."""
        return self.age / self.sent if self.sent else 0.0

    def plus(self, other: Minute) -> Minute:
        """Return what this and another processor did in the same minute."""
        return replace(
            self,
            sent=self.sent + other.sent,
            deferred=self.deferred + other.deferred,
            rejected=self.rejected + other.rejected,
            unknown=self.unknown + other.unknown,
            age=self.age + other.age,
        )

    def as_text(self) -> str:
        """Return the minute as it stands in a file."""
        return f"{self.minute} {self.sent} {self.deferred} {self.rejected} {self.unknown} {self.age:.3f}"

    @classmethod
    def of(cls, text: str) -> Minute:
        """Return the minute that `as_text` wrote.

        :raises ValueError: for anything else
        """
        minute, sent, deferred, rejected, unknown, age = text.split()
        return cls(int(minute), int(sent), int(deferred), int(rejected), int(unknown), float(age))


def merged_minutes(minutes: Iterable[Minute], now: float) -> tuple[Minute, ...]:
    """Return what happened in each of the last `KEPT` minutes in which anything did, oldest first.

    :param minutes: of one processor or several, in any order
    :param now: seconds since the epoch; what is said of a later time is left out, since a clock was wrong then
    """
    current = int(now / 60)
    found: dict[int, Minute] = {}
    for each in minutes:
        if current - KEPT < each.minute <= current:
            found[each.minute] = found[each.minute].plus(each) if each.minute in found else each
    return tuple(found[minute] for minute in sorted(found))


def of_texts(texts: object) -> tuple[Minute, ...]:
    """Return the minutes in a file; what is torn or foreign is left out."""
    minutes = []
    for text in texts if isinstance(texts, list) else ():
        try:
            minutes.append(Minute.of(text))
        except (ValueError, AttributeError, TypeError):
            continue
    return tuple(minutes)
