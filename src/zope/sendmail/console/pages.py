"""The pages of the console that show something."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlencode

from werkzeug.utils import redirect
from werkzeug.wrappers import Request, Response

from zope.sendmail.console import plot, words
from zope.sendmail.console.drawing import Draw
from zope.sendmail.console.glance import GlanceCache
from zope.sendmail.console.listing import PAGE, page_of, place_behind
from zope.sendmail.console.mailfilter import STATES, Filter
from zope.sendmail.console.places import Place
from zope.sendmail.console.search import RunningSearches
from zope.sendmail.console.security import Guard
from zope.sendmail.lifecycle.outcome import printable
from zope.sendmail.system.clock import Clock

_HEAD_BYTES = 16 * 1024


class Pages:
    """Answers requests that were admitted.

    :param patience: seconds that a page waits for what takes long
    :param has_login: whether there is a page to log in
    """

    def __init__(
        self,
        places: Sequence[Place],
        glances: GlanceCache,
        searches: RunningSearches,
        draw: Draw,
        *,
        guard: Guard,
        clock: Clock,
        patience: float,
        has_login: bool,
    ) -> None:
        self._places = places
        self._glances = glances
        self._searches = searches
        self._draw = draw
        self._guard = guard
        self._clock = clock
        self._patience = patience
        self.has_login = has_login

    # the login

    def login(self, request: Request, error: str = "") -> Response:
        """Ask for the token; one in the address is taken, and does not stay there."""
        said = request.args.get("token", "")
        if said and self._guard.is_token(said):
            return self._logged_in(request)
        return self._draw(
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
        return self._draw(request, "home", None, title="Mail queues", rows=rows)

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
        return self._draw(
            request,
            "overview",
            place,
            title=place.title,
            glance=glance,
            relays=relays,
            findings=self._glances.findings(place),
            plots=plots,
            hour=glance.in_last(60, now),
            minutes=[(words.time_of_day(each.minute * 60.0), each) for each in glance.minutes[-60:]],
        )

    def mails(self, request: Request, place: Place) -> Response:
        """Show mails that fit a filter, a page at a time."""
        now, behind = self._clock.time(), words.name_of(request.args.get("behind", ""))
        try:
            chosen, error = Filter.of(request.args), ""
        except ValueError as wrong:
            chosen, error = Filter({}), str(wrong)
        names, is_known = self._names(place, chosen, behind)
        page = page_of(
            place.queue.admin, names, chosen.selection(now), behind, clock=self._clock, patience=self._patience
        )
        return self._draw(
            request,
            "mails",
            place,
            title=f"Mails in {place.title}",
            rows=[words.mail_row(mail, now) for mail in page.mails],
            chosen=chosen.values,
            chosen_states=chosen.states,
            more=urlencode([*chosen.values.items(), ("behind", words.token_of(page.behind))]) if page.behind else "",
            here=urlencode([*chosen.values.items(), *([("behind", words.token_of(behind))] if behind else [])]),
            error=error,
            states=[state.value for state in STATES],
            is_first=not behind,
            is_looking=not is_known and len(page.mails) < PAGE,
        )

    def _names(self, place: Place, chosen: Filter, behind: str) -> tuple[Sequence[str], bool]:
        """Return the names of the mails that may fit, and whether these are all."""
        if not chosen.values:
            known = self._glances.names(place)
            return known.names, known.is_known
        search = self._searches.of(place, chosen)
        search.wait(PAGE + 1, self._patience)
        if behind and not search.is_done:
            search.wait(place_behind(search.names, behind) + PAGE + 1, self._patience)
        return search.names, search.is_done

    def look(self) -> None:
        """Look at all queues, so that the first page is quick."""
        self._glances.look()

    def mail(self, request: Request, place: Place, name: str) -> Response:
        """Show one mail with its history and its header."""
        now, name = self._clock.time(), words.name_of(name)
        admin = place.queue.admin
        mail = admin.show(name)
        with admin.read(name) as stream:
            head = stream.read(_HEAD_BYTES)
        return self._draw(
            request,
            "mail",
            place,
            title=f"Mail {printable(name)}",
            message_id=printable(mail.message_id),
            path=", ".join(map(printable, mail.relays)),
            row=words.mail_row(mail, now),
            recipients=words.recipient_rows(mail),
            history=words.history_rows(mail, now),
            asked=words.asked_rows(mail),
            header="\n".join(words.header_lines(head)),
        )
