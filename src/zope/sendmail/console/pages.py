"""The pages of the console: what each shows and does."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any
from urllib.parse import quote, urlencode

from werkzeug.exceptions import BadRequest
from werkzeug.utils import redirect
from werkzeug.wrappers import Request, Response

from zope.sendmail.console import plot, words
from zope.sendmail.console.actions import VERBS, Result, act, flush
from zope.sendmail.console.glance import Glances
from zope.sendmail.console.places import Place
from zope.sendmail.console.security import FIELD, Guard
from zope.sendmail.console.selection import FIELDS, STATES, Filter
from zope.sendmail.console.templates import render
from zope.sendmail.errors import NoSuchMail
from zope.sendmail.lifecycle.queuedmail import QueuedMail
from zope.sendmail.lifecycle.relaystate import RelayBoard
from zope.sendmail.lifecycle.states import State
from zope.sendmail.maildir import age_key
from zope.sendmail.system.clock import Clock

#: Mails on one page.
PAGE = 50

_HEAD_BYTES = 16 * 1024


class Pages:
    """Answers requests that were admitted.

    :param writable: whether the pages offer to change something
    :param has_login: whether there is a page to log in
    """

    def __init__(self, places: list[Place], guard: Guard, clock: Clock, *, writable: bool, has_login: bool) -> None:
        self._places = places
        self._guard = guard
        self._clock = clock
        self._writable = writable
        self._glances = Glances(places, clock)
        self.has_login = has_login

    # the login

    def login(self, request: Request, error: str = "") -> Response:
        """Ask for the token; one in the address is taken, and does not stay there."""
        said = request.args.get("token", "")
        if said and self._guard.is_token(said):
            return self._logged_in(request)
        return self._page(
            request, "login", None, title="Log in", error=error or ("That is not the token." if said else "")
        )

    def log_in(self, request: Request) -> Response:
        """Take the token that was typed."""
        self._guard.check_form(request)
        if not self._guard.is_token(request.form.get("token", "")):
            return self.login(request, "That is not the token.")
        return self._logged_in(request)

    def _logged_in(self, request: Request) -> Response:
        response = redirect(f"{request.root_path}/", 303)
        self._guard.log_in(request, response)
        return response

    # what is there

    def home(self, request: Request) -> Response:
        """Show all queues at a glance; the only one at once."""
        if len(self._places) == 1:
            return redirect(f"{request.root_path}/0/", 303)
        rows = [(place, self._glances.of(place)) for place in self._places]
        return self._page(request, "home", None, title="Mail queues", rows=rows)

    def overview(self, request: Request, place: Place) -> Response:
        """Show how a queue is doing."""
        now = self._clock.time()
        glance = self._glances.of(place)
        sent = plot.bars(glance.minutes, now, "Mails sent in each minute", lambda minute: minute.sent)
        waited = plot.bars(
            glance.minutes, now, "Seconds from commit to relay, mean of each minute", lambda each: each.mean_age
        )
        trouble = plot.bars(
            glance.minutes,
            now,
            "Mails deferred, rejected or unknown in each minute",
            lambda minute: minute.deferred + minute.rejected + minute.unknown,
        )
        plots = [
            ("Sent, mails a minute", sent),
            ("From commit to relay, seconds", waited),
            ("Deferred, rejected or unknown, mails a minute", trouble),
        ]
        relays = words.relay_rows(glance.board, now)
        return self._page(
            request,
            "overview",
            place,
            title=place.title,
            glance=glance,
            relays=relays,
            findings=self._glances.findings(place),
            plots=plots,
            minutes=glance.minutes[-60:],
        )

    def mails(self, request: Request, place: Place) -> Response:
        """Show mails that fit a filter, a page at a time."""
        now = self._clock.time()
        try:
            chosen, error = Filter.of(request.args), ""
        except ValueError as wrong:
            chosen, error = Filter({}), str(wrong)
        since, behind = _number(request.args.get("since", "")), request.args.get("behind", "")
        found = list(islice(self._behind(place, chosen, now, since, behind), PAGE + 1))
        rows = [words.mail_row(mail, now) for mail in found[:PAGE]]
        more = ""
        if len(found) > PAGE:
            last = found[PAGE - 1]
            more = urlencode([*chosen.values.items(), ("since", repr(last.since)), ("behind", last.name)])
        return self._page(
            request,
            "mails",
            place,
            title=f"Mails in {place.title}",
            rows=rows,
            chosen=chosen.values,
            more=more,
            error=error,
            states=[state.value for state in STATES],
            is_first=since is None,
        )

    def _behind(self, place: Place, chosen: Filter, now: float, since: float | None, name: str) -> Iterator[QueuedMail]:
        """Yield the mails that fit, from the one behind the mail of this name; from `since` if that has gone."""
        if not chosen.values:
            yield from self._named(place, name)
            return
        if since is None:
            yield from chosen.mails(place.queue.admin, now)
            return
        skipped: list[QueuedMail] = []
        mails = chosen.mails(place.queue.admin, now, since=since)
        for mail in mails:
            if mail.name == name:
                yield from mails
                return
            if mail.since > since:
                break
            skipped.append(mail)
        else:
            yield from skipped
            return
        yield from (*skipped, mail)
        yield from mails

    def _named(self, place: Place, behind: str) -> Iterator[QueuedMail]:
        """Yield all mails, from the one behind the mail of this name."""
        names, admin = self._glances.names(place), place.queue.admin
        for name in islice(names, _place_behind(names, behind), None):
            with suppress(NoSuchMail):  # it was sent since then
                yield admin.show(name)

    def look(self) -> None:
        """Look at all queues, so that the first page is quick."""
        self._glances.look()

    def mail(self, request: Request, place: Place, name: str) -> Response:
        """Show one mail with its history and its header."""
        now = self._clock.time()
        admin = place.queue.admin
        mail = admin.show(name)
        with admin.read(name) as stream:
            head = stream.read(_HEAD_BYTES)
        return self._page(
            request,
            "mail",
            place,
            title=f"Mail {name}",
            mail=mail,
            row=words.mail_row(mail, now),
            recipients=words.recipient_rows(mail),
            history=words.history_rows(mail, now),
            header="\n".join(words.header_lines(head)),
        )

    # what can be done

    def confirm(self, request: Request, place: Place) -> Response:
        """Say what would be done to how many mails, and ask."""
        verb = request.form.get("verb", "")
        if verb == "flush":
            return self.do(request, place)
        if verb not in VERBS:
            raise BadRequest("There is no such thing to do.")
        now = self._clock.time()
        names, fields = request.form.getlist("name"), []
        if request.form.get("all") == "filter":
            chosen = Filter.of(request.form)
            count = sum(1 for _ in chosen.mails(place.queue.admin, now, until=now))
            fields = [*chosen.values.items(), ("all", "filter"), ("until", repr(now))]
        else:
            count = len(names)
            fields = [("name", name) for name in names]
        if not count:
            raise BadRequest("No mail was chosen. Go back, tick some, or choose all that fit the filter.")
        board = RelayBoard(place.queue.admin.processors())
        return self._page(
            request,
            "confirm",
            place,
            title=f"{VERBS[verb].title}: {count:,} {'mail' if count == 1 else 'mails'}",
            verb=VERBS[verb],
            count=count,
            fields=fields,
            relays=sorted(relay.name for relay in board) if verb == "reroute" else [],
        )

    def do(self, request: Request, place: Place) -> Response:
        """Do it, and say what came of it."""
        verb = request.form.get("verb", "")
        if verb == "flush":
            result = flush(place.queue, request.form.get("relay", ""), self._clock)
            return self._done(request, place, "will be tried now", result, [])
        if verb not in VERBS:
            raise BadRequest("There is no such thing to do.")
        result = act(place.queue, verb, self._chosen(request, place), self._clock, request.form.get("to", ""))
        fields = [(name, value) for name, value in request.form.items(multi=True) if name != FIELD]
        return self._done(request, place, VERBS[verb].done, result, fields if result.more else [])

    def _chosen(self, request: Request, place: Place) -> Iterable[str]:
        if request.form.get("all") != "filter":
            return request.form.getlist("name")
        until = _number(request.form.get("until", ""))
        chosen = Filter.of(request.form)
        now = self._clock.time()
        return (mail.name for mail in chosen.mails(place.queue.admin, now, until=now if until is None else until))

    def _done(
        self, request: Request, place: Place, done: str, result: Result, fields: list[tuple[str, str]]
    ) -> Response:
        self._glances.renew(place)
        return self._page(request, "done", place, title="Done", done=done, result=result, fields=fields)

    def _page(self, request: Request, template: str, place: Place | None, **values: Any) -> Response:
        text = render(
            template,
            root=request.root_path,
            place=place,
            places=self._places,
            writable=self._writable,
            verbs=VERBS,
            field=self._guard.field(request),
            field_name=FIELD,
            filter_fields=FIELDS,
            quote=lambda text: quote(text, safe=""),
            State=State,
            **values,
        )
        return Response(text, mimetype="text/html")


def _place_behind(names: Sequence[str], name: str) -> int:
    """Return where to go on behind the mail of this name, which may have gone."""
    if not name:
        return 0
    try:
        return names.index(name) + 1
    except ValueError:
        return bisect_right(names, age_key(name), key=age_key)


def _number(text: str) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None
