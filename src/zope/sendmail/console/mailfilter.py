"""Which mails a page or a form means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

from werkzeug.datastructures import MultiDict

from zope.sendmail.config.options import duration
from zope.sendmail.interfaces import IMailQueueAdmin
from zope.sendmail.lifecycle.queuedmail import QueuedMail
from zope.sendmail.lifecycle.selection import Selection
from zope.sendmail.lifecycle.states import State

#: States in which a mail can be listed.
STATES = (State.SCHEDULED, State.READY, State.SENDING, State.DEFERRED, State.HELD, State.REJECTED, State.STAGED)

_TEXTS = ("sender", "recipient", "reply", "relay")
_TIMES = ("older_than", "younger_than")

#: The fields of a filter, as they stand in addresses and forms.
FIELDS = ("state", *_TEXTS, *_TIMES)


@dataclass(frozen=True, slots=True)
class Filter:
    """The filters of a list of mails, as the operator wrote them; several states have commas between them.

    :raises ValueError: for a state or a time that is none
    """

    values: Mapping[str, str]

    @classmethod
    def of(cls, given: MultiDict[str, str]) -> Filter:
        """Return the filter in an address or a form.

        :raises ValueError: for a state or a time that is none
        """
        values = {name: given.get(name, "").strip()[:500] for name in FIELDS}
        states = [word.strip() for text in given.getlist("state") for word in text.split(",")]
        values["state"] = ",".join(dict.fromkeys(filter(None, states)))[:500]
        found = cls({name: value for name, value in values.items() if value})
        found.arguments(0.0)
        return found

    @property
    def states(self) -> list[str]:
        """The states that are meant, as words; none: any but staged."""
        return self.values["state"].split(",") if "state" in self.values else []

    def arguments(self, now: float, until: float = inf) -> dict[str, Any]:
        """Return the arguments of `IMailQueueAdmin.mails`.

        :param now: seconds since the epoch
        :param until: only mails that were written before
        """
        chosen: dict[str, Any] = {name: self.values.get(name, "") for name in _TEXTS}
        chosen["states"] = [State(word) for word in self.states]
        older, younger = (self.values.get(name) for name in _TIMES)
        chosen["before"] = min(until, now - duration(older) if older else inf)
        chosen["after"] = now - duration(younger) if younger else -inf
        return chosen

    def selection(self, now: float, until: float = inf) -> Selection:
        """Return the same as a value that says of a mail whether it is meant."""
        arguments = self.arguments(now, until)
        return Selection(frozenset(arguments.pop("states")), **arguments)

    def mails(self, admin: IMailQueueAdmin, now: float, until: float = inf) -> Iterator[QueuedMail]:
        """Yield the mails that fit, oldest first."""
        yield from admin.mails(**self.arguments(now, until))
