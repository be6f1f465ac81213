"""The pages of the console that change something: one that asks, one that does it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf

from werkzeug.exceptions import BadRequest
from werkzeug.wrappers import Request, Response

from zope.sendmail.console.drawing import Draw
from zope.sendmail.console.glance import GlanceCache
from zope.sendmail.console.listing import fitting, place_behind
from zope.sendmail.console.mailfilter import Filter
from zope.sendmail.console.places import Place
from zope.sendmail.console.search import RunningSearches
from zope.sendmail.console.security import FIELD
from zope.sendmail.console.verbs import FLUSH, FOR_SECONDS, VERBS, act
from zope.sendmail.console.words import name_of, token_of
from zope.sendmail.lifecycle.relaystate import RelayBoard
from zope.sendmail.system.clock import Clock

#: Fields of a form, beside those of a filter, with which a change goes on.
_Fields = list[tuple[str, str]]


class Changes:
    """Answers requests that were admitted.

    :param patience: seconds that the page which asks waits until it is known how many mails are meant
    """

    def __init__(
        self, glances: GlanceCache, searches: RunningSearches, draw: Draw, clock: Clock, patience: float
    ) -> None:
        self._glances = glances
        self._searches = searches
        self._draw = draw
        self._clock = clock
        self._patience = patience

    def confirm(self, request: Request, place: Place) -> Response:
        """Say what would be done to how many mails, and ask."""
        verb = request.form.get("verb", "")
        if verb not in VERBS and verb != FLUSH.name:
            raise BadRequest("There is no such thing to do.")
        if verb == FLUSH.name:
            self._relay(request)
        names, fields, is_known = self._meant(request, place)
        if not is_known:
            return self._draw(
                request, "counting", place, title="Counting", count=len(names), fields=[("verb", verb), *fields]
            )
        if not names and verb != FLUSH.name:
            raise BadRequest("No mail was chosen. Go back, tick some, or choose all that fit the filter.")
        chosen, count = FLUSH if verb == FLUSH.name else VERBS[verb], len(names)
        board = RelayBoard(place.queue.admin.processors())
        return self._draw(
            request,
            "confirm",
            place,
            title=f"{chosen.title}: {_mails(count)}",
            verb=chosen,
            count=_mails(count),
            fields=fields,
            relays=sorted(relay.name for relay in board) if verb == "reroute" else [],
        )

    def do(self, request: Request, place: Place) -> Response:
        """Do it, and say what came of it."""
        form = request.form
        verb = FLUSH if form.get("verb") == FLUSH.name else VERBS.get(form.get("verb", ""))
        if verb is None:
            raise BadRequest("There is no such thing to do.")
        if verb is FLUSH:
            place.queue.admin.probe(self._relay(request))
        result = act(place.queue, verb, self._names(request, place), self._clock, form.get("to", ""))
        self._glances.renew(place)
        self._searches.forget(place)
        again = [(name, value) for name, value in form.items(multi=True) if name not in (FIELD, "behind")]
        return self._draw(
            request,
            "done",
            place,
            title="Done",
            done=f"{_mails(result.done)}",
            verb=verb,
            result=result,
            fields=[*again, ("behind", token_of(result.last))] if result.more else [],
        )

    def _relay(self, request: Request) -> str:
        """Return the relay that is to be tried, with the mails that wait for their next attempt there."""
        relay = request.form.get("relay", "").strip()
        if not relay or request.form.get("all") != "filter":
            raise BadRequest("The form names no relay. Go back, and choose one.")
        return relay

    def _meant(self, request: Request, place: Place) -> tuple[Sequence[str], _Fields, bool]:
        """Return the names of the mails that a form means, what says so in the next form, and whether these are all."""
        if request.form.get("all") != "filter":
            tokens = request.form.getlist("name")
            return tokens, [("name", token) for token in tokens], True
        chosen, until = Filter.of(request.form), _number(request.form.get("until", ""))
        if until is None:
            until = self._clock.time()
        fields = [*chosen.values.items(), ("all", "filter"), ("until", repr(until))]
        if not chosen.values:
            self._glances.renew(place)
            known = self._glances.names(place)
            return known.names, fields, known.is_known
        search = self._searches.of(place, chosen, until)
        search.wait(_ALL, self._patience)
        return search.names, fields, search.is_done

    def _names(self, request: Request, place: Place) -> Iterable[str]:
        """Return the names of the mails that a form means, from where the last one ended."""
        names = [name_of(token) for token in request.form.getlist("name")]
        behind = name_of(request.form.get("behind", ""))
        if request.form.get("all") != "filter":
            return names[place_behind(names, behind) :]
        chosen, until = Filter.of(request.form), _number(request.form.get("until", ""))
        if until is None:
            raise BadRequest("The form does not say until when. Go back, and choose again.")
        if chosen.values:
            search = self._searches.of(place, chosen, until)
            search.wait(_ALL, FOR_SECONDS)
            names = search.names
        else:
            names = list(self._glances.names(place).names)
        return fitting(place.queue.admin, names, chosen.selection(self._clock.time(), until), behind)


#: More mails than there are.
_ALL = 2**63


def _mails(count: int) -> str:
    return f"{count:,} {'mail' if count == 1 else 'mails'}"


def _number(text: str) -> float | None:
    try:
        number = float(text) if text else None
    except ValueError:
        return None
    return number if number is None or abs(number) < inf else None
