"""The console, request by request; what a browser makes of it is in `test_browser`."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import re
import tempfile
import threading
import unittest
from collections.abc import Iterator
from typing import Any
from unittest import mock

from zope.sendmail.lifecycle.outcome import Answer, Reply
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.terms import Priority, Terms
from zope.sendmail.processor.thread import QueueProcessorThread
from zope.sendmail.queue.maildir import MaildirQueue
from zope.sendmail.testing.contracts import ManualClock
from zope.sendmail.testing.scriptedmailer import ScriptedMailer

try:
    from werkzeug.test import Client

    from zope.sendmail.console import Console
    from zope.sendmail.console.security import FIELD, HEADERS
except ImportError:  # zope.testrunner takes a module that skips itself for one that is broken
    MISSING = "the console is not installed: pip install zope.sendmail[console]"
else:
    MISSING = ""

TOKEN = "a token of more than sixteen"
EVIL = '<script>alert("x")</script>'
GREYLISTED = Reply(Answer.DEFERRED, f"come again {EVIL}", 450, "4.7.1")


class Fixture(unittest.TestCase):
    options: dict[str, Any] = {"writable": True}

    def setUp(self) -> None:
        if MISSING:
            self.skipTest(MISSING)
        self.path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "queue")
        self.clock = ManualClock()
        count = itertools.count(1)
        self.enterContext(  # names have the time of the test
            mock.patch(
                "zope.sendmail.maildir.time.time_ns",
                side_effect=lambda: int(self.clock.time()) * 10**9 + next(count) * 1000,
            )
        )
        self.queue = MaildirQueue(self.path, clock=self.clock)
        self.addCleanup(self.queue.close)
        self.mailer = ScriptedMailer()
        self.console = Console([self.path], clock=self.clock, patience=60.0, **self.options)
        self.addCleanup(self.console.close)
        self.client = Client(self.console)
        self.admin = self.queue.admin

    def put(self, *recipients: str, subject: str = "Hello", count: int = 1) -> list[str]:
        staged = self.queue.stage()
        message = f"Subject: {subject}\nMessage-Id: <one@example.org>\n\nText\n".encode()
        people = recipients or ("jane@example.org",)
        names = [staged.add(Envelope("sender@example.org", people), message) for _ in range(count)]
        staged.prepare()
        staged.commit()
        return names

    def drain(self) -> None:
        queue = MaildirQueue(self.path, clock=self.clock)
        QueueProcessorThread(queue=queue, mailer=self.mailer, clock=self.clock, tell=lambda events: None).run(
            forever=False
        )

    def get(self, path: str, **options: Any) -> str:
        answer = self.client.get(path, **options)
        self.assertEqual(answer.status_code, 200, answer.text[:300])
        return answer.text

    def form(self, path: str = "/0/mails") -> str:
        """Return what makes a form one of ours."""
        found = re.search(rf'name="{FIELD}" value="(\w+)"', self.get(path))
        assert found is not None
        return found[1]

    def post(self, path: str, **fields: Any) -> Any:
        fields.setdefault(FIELD, self.form())
        return self.client.post(path, data=fields)

    def state(self, name: str) -> State:
        return self.admin.show(name).state


class WhatIsShown(Fixture):
    def test_is_the_queue_at_a_glance(self) -> None:
        """How many wait, since when, and that no processor works."""
        self.put(count=3)
        self.clock.advance(90.0)
        page = self.get("/0/")
        self.assertRegex(page, r">3</span> <span class=\"name\">waiting")
        self.assertIn("1m 30s ago", page)
        self.assertIn("No processor is at work", page)

    def test_is_what_the_doctor_found(self) -> None:
        """With the cure, and once for all mails with the same cause."""
        self.mailer.answers = lambda who: Reply(Answer.REJECTED, "no such user", 550, "5.1.1")
        self.put(count=4)
        self.drain()
        self.console.look()
        page = self.get("/0/")
        self.assertEqual(page.count('class="finding '), 1)
        self.assertIn("(4 times)", page)
        self.assertIn("no such user", page)

    def test_is_a_relay_that_cannot_be_used(self) -> None:
        """With its words, since when, and when it is tried next."""
        self.mailer.fault = Reply(Answer.DEFERRED, "wrong password", 535, "5.7.8")
        self.put()
        self.drain()
        page = self.get("/0/")
        self.assertIn("cannot be used", page)
        self.assertIn("535 5.7.8 wrong password", page)
        self.assertIn("Try now", page)

    def test_is_how_much_was_sent(self) -> None:
        """A bar for each minute in which mail left."""
        self.put(count=5)
        self.drain()
        self.assertIn('<rect class="bar"', self.get("/0/"))

    def test_is_a_page_of_mails(self) -> None:
        """Fifty; the next page goes on where this one ended, and leaves out none."""
        names = self.put(count=120)
        seen: list[str] = []
        path = "/0/mails"
        while path and len(seen) < 200:
            page = self.get(path)
            seen += re.findall(r'href="/0/mail/([^"]+)"', page)
            following = re.search(r'rel="next" href="([^"]+)"', page)
            path = following[1].replace("&amp;", "&") if following else ""
        self.assertEqual(seen, names)

    def test_is_chosen_by_filters(self) -> None:
        """As ``queue list`` has them."""
        self.mailer.answers = lambda who: GREYLISTED
        self.put("jane@example.org")
        self.drain()
        [ready] = self.put("joe@example.net")
        for query, count in (
            ("state=deferred", 1),
            ("state=deferred&state=ready", 2),
            ("state=held,rejected", 0),
            ("recipient=@example.net", 1),
            ("reply=450", 1),
            ("older_than=1h", 0),
            ("sender=sender@example.org", 2),
        ):
            with self.subTest(query):
                self.assertEqual(self.get(f"/0/mails?{query}").count("/0/mail/"), count)
        self.assertIn(ready, self.get("/0/mails?state=ready"))
        self.assertIn(
            "is not a duration", self.get("/0/mails?older_than=soon").replace("duration:", "is not a duration")
        )

    def test_is_one_mail_with_its_history(self) -> None:
        """Recipients, replies, the header, and what happened."""
        self.mailer.answers = lambda who: GREYLISTED
        [name] = self.put()
        self.drain()
        page = self.get(f"/0/mail/{name}")
        for words in ("jane@example.org", "450 4.7.1 come again", "Subject: Hello", "one@example.org", "deferred"):
            self.assertIn(words, page)

    def test_is_what_a_sender_asked_for(self) -> None:
        """In the list when it leaves, in the mail all of it."""
        now = self.clock.time()
        asked = Terms(now + 7200, now + 86400, Priority.HIGH, "order 17", now + 604800)
        staged = self.queue.stage()
        name = staged.add(Envelope("sender@example.org", ("jane@example.org",), terms=asked), b"Subject: x\n\n")
        staged.prepare()
        staged.commit()
        self.assertIn("2027-01-15T10:00:00", self.get("/0/mails?state=scheduled"))
        page = self.get(f"/0/mail/{name}")
        for words in ("scheduled", "2027-01-15T10:00:00Z", "2027-01-16T08:00:00Z", "high", "order 17"):
            self.assertIn(words, page)

    def test_may_be_several_queues(self) -> None:
        """Each with its title."""
        other = os.path.join(os.path.dirname(self.path), "other")
        MaildirQueue(other).stage().abort()
        client = Client(Console({"Shop": self.path, "News": other}, clock=self.clock))
        page = client.get("/").text
        self.assertIn("Shop", page)
        self.assertIn("News", page)
        self.assertEqual(client.get("/2/").status_code, 404)

    def test_that_has_gone_says_so(self) -> None:
        """A mail is often sent before the operator looks."""
        answer = self.client.get("/0/mail/1.2.host.3")
        self.assertEqual(answer.status_code, 404)
        self.assertIn("was sent or removed", answer.text)


class DeepQueue(Fixture):
    """A page waits for no more than its patience; here it has none."""

    def setUp(self) -> None:
        super().setUp()
        if not MISSING:
            self.console = Console([self.path], clock=self.clock, patience=0.0, writable=True)
            self.addCleanup(self.console.close)
            self.client = Client(self.console)

    def soon(self, path: str, words: str) -> str:
        """Return the page as soon as it has these words."""
        for _ in range(2000):
            if words in (page := self.get(path)) and "Still looking" not in page:
                return page
            threading.Event().wait(0.01)
        raise AssertionError(f"{words} does not come")

    def test_is_shown_when_it_was_looked_at(self) -> None:
        """Until then the page says that it looks."""
        self.put(count=3)
        with self.slow():
            self.assertIn("Looking for the first time", self.get("/0/"))
            page = self.get("/0/mails?state=ready")
            self.assertIn("Still looking", page)
            self.assertIn('data-refresh="1"', page)
        self.assertRegex(self.soon("/0/", "waiting"), r'data-refresh="(1|10)"')
        self.soon("/0/", ">3</span>")
        self.assertEqual(self.soon("/0/mails?state=ready", "/0/mail/").count('<th scope="row"'), 3)

    def test_is_counted_before_it_is_changed(self) -> None:
        """As long as it is not known how many mails are meant, the page asks to go on, and changes nothing."""
        names = self.put(count=3)
        self.clock.advance(1.0)
        self.console.look()
        field = self.form()
        with self.slow():
            page = self.client.post(
                "/0/confirm", data={"verb": "remove", "all": "filter", "state": "ready", FIELD: field}
            )
        self.assertIn("Nothing was changed", page.text)
        fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page.text))
        for _ in range(2000):
            page = self.client.post("/0/confirm", data=fields)
            if "Remove: 3 mails" in page.text:
                break
            threading.Event().wait(0.01)
        self.assertIn("Remove: 3 mails", page.text)
        self.assertEqual(list(self.admin.names()), names)

    @contextlib.contextmanager
    def slow(self) -> Iterator[None]:
        """Let the disk of the console's queue wait for the end of the block."""
        [place] = self.console._places
        go_on = threading.Event()
        disk = place.queue.admin._store.disk
        names = disk.names

        def wait(path: str) -> list[str]:
            go_on.wait(300)
            return list(names(path))

        with mock.patch.object(type(disk), "names", lambda self, path: wait(path)):
            try:
                yield
            finally:
                go_on.set()


class NamesOfOthers(Fixture):
    def test_may_have_any_bytes(self) -> None:
        """A file that another program left in the queue is shown, and can be removed."""
        strange = os.fsencode(os.path.join(self.path, "new", "1700000000.1.")) + b"h\xff<i>%2F.1"
        self.put()
        with open(strange, "wb") as file:
            file.write(b"X-Zope-From: a@example.org\nX-Zope-To: b@example.org\nSubject: x\n\n")
        page = self.get("/0/mails")
        [link] = re.findall(r'href="(/0/mail/1700000000[^"]+)"', page)
        self.assertIn("Subject: x", self.get(link))
        [token] = re.findall(r'value="(1700000000[^"]+)"', page)
        self.assertIn("1 mail</strong> removed", self.post("/0/do", verb="remove", name=[token]).text)
        self.assertFalse(os.path.exists(strange))


class TextOfOthers(Fixture):
    def test_is_never_html(self) -> None:
        """Neither a subject, nor a reply, nor an address, nor a filter."""
        self.mailer.answers = lambda who: GREYLISTED
        [name] = self.put('"<img/src=x>"@example.org', subject=EVIL)
        self.drain()
        for path in ("/0/", "/0/mails", f"/0/mail/{name}", f"/0/mails?recipient={EVIL}", f"/0/mails?older_than={EVIL}"):
            with self.subTest(path):
                page = self.get(path)
                self.assertNotIn("<script>alert", page)
                self.assertNotIn("<img", page)

    def test_is_printable(self) -> None:
        """What hides or turns text is shown as blanks."""
        [name] = self.put(subject="a\u202eb\x1b[31m")
        page = self.get(f"/0/mail/{name}")
        self.assertNotIn("\u202e", page)
        self.assertNotIn("\x1b", page)

    def test_does_not_show_a_password(self) -> None:
        """CPSMailAccess wrote those of its users into queue files."""
        staged = self.queue.stage()
        name = staged.add(Envelope("s@example.org", ("r@example.org",)), b"X-Zope-Password: geheim\nSubject: x\n\n")
        staged.prepare()
        staged.commit()
        self.assertNotIn("geheim", self.get(f"/0/mail/{name}"))


class WhatCanBeDone(Fixture):
    def test_is_asked_about_first(self) -> None:
        """With the number of mails; nothing has changed yet."""
        names = self.put(count=3)
        page = self.post("/0/confirm", verb="remove", name=names).text
        self.assertIn("Remove: 3 mails", page)
        self.assertEqual([self.state(name) for name in names], [State.READY] * 3)

    def test_is_done_to_the_mails_that_were_ticked(self) -> None:
        """And to no other."""
        one, other = self.put(count=2)
        self.assertIn("<strong>1 mail</strong> held", self.post("/0/do", verb="hold", name=[one]).text)
        self.assertEqual([self.state(one), self.state(other)], [State.HELD, State.READY])
        self.post("/0/do", verb="release", name=[one])
        self.assertEqual(self.state(one), State.READY)
        self.post("/0/do", verb="remove", name=[one])
        self.assertEqual(list(self.admin.names()), [other])

    def test_is_done_to_all_that_fit_a_filter(self) -> None:
        """Those that came after the question are left alone."""
        self.put("jane@example.net", count=60)
        [other] = self.put("joe@example.com")
        self.clock.advance(1.0)
        page = self.post("/0/confirm", verb="remove", all="filter", recipient="@example.net").text
        self.assertIn("Remove: 60 mails", page)
        fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page))
        self.clock.advance(1.0)
        [later] = self.put("late@example.net")
        self.client.post("/0/do", data=fields)
        self.assertEqual(list(self.admin.names()), [other, later])

    def test_gives_up_with_a_report(self) -> None:
        """To the sender, as ``queue bounce`` does."""
        [name] = self.put()
        self.post("/0/do", verb="bounce", name=[name])
        self.assertEqual(self.state(name), State.REJECTED)
        [report] = [mail for mail in self.admin.mails([State.READY]) if mail.name != name]
        assert report.envelope is not None
        self.assertEqual(report.envelope.recipients, ("sender@example.org",))

    def test_tries_a_relay_now(self) -> None:
        """Processors are asked for a probe, after a page that says how much mail goes with it."""
        self.mailer.answers = lambda who: GREYLISTED
        [waits] = self.put()
        self.drain()
        self.mailer.fault = Reply(Answer.DEFERRED, "down")
        self.put()
        self.drain()
        self.clock.advance(1.0)
        [form] = re.findall(r"<form.*?</form>", self.get("/0/"), re.DOTALL)
        fields = dict(re.findall(r'name="(\w+)" value="([^"]*)"', form))
        self.assertEqual(fields["verb"], "flush")
        page = self.client.post("/0/confirm", data=fields).text
        self.assertIn("1 mail</strong>", page)
        self.assertEqual(self.queue.probe_asked("default"), 0.0)
        self.client.post("/0/do", data=dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page)))
        self.assertGreater(self.queue.probe_asked("default"), 0.0)
        self.assertEqual(self.state(waits), State.READY)

    def test_goes_on_where_one_request_ended(self) -> None:
        """A filter may mean more mails than one request changes; none is done twice, none left out."""
        names = self.put(count=25)
        self.clock.advance(1.0)
        with mock.patch("zope.sendmail.console.verbs.AT_ONCE", 10):
            page = self.post("/0/confirm", verb="hold", all="filter").text
            for done in (10, 10, 5):
                fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page))
                page = self.client.post("/0/do", data=fields).text
                self.assertIn(f"<strong>{done} mails</strong> held.", page)
        self.assertNotIn("Go on", page)
        self.assertEqual([self.state(name) for name in names], [State.HELD] * 25)

    def test_that_does_not_fit_is_told(self) -> None:
        """The others are done."""
        held, ready = self.put(count=2)
        self.admin.hold(held)
        page = self.post("/0/do", verb="release", name=[held, ready, "1.2.gone.3"]).text
        self.assertIn("<strong>1 mail</strong> released", page)
        self.assertIn("2 could not be changed", page)
        self.assertEqual(self.state(held), State.READY)

    def test_needs_a_mail(self) -> None:
        """Nothing ticked is no selection of all."""
        self.put()
        self.assertEqual(self.post("/0/confirm", verb="remove").status_code, 400)
        self.assertEqual(self.post("/0/confirm", verb="explode", name=["x"]).status_code, 400)


class ReadOnly(Fixture):
    options: dict[str, Any] = {}

    def test_is_the_default(self) -> None:
        """No button, and no address that changes anything."""
        [name] = self.put()
        page = self.get("/0/mails")
        self.assertIn("read-only", page)
        self.assertNotIn("<button name", page)
        for path in ("/0/do", "/0/confirm"):
            self.assertEqual(self.client.post(path, data={"verb": "remove", "name": name}).status_code, 404)
        self.assertEqual(list(self.admin.names()), [name])


class OtherSites(Fixture):
    def refused(self, field: str = "", **headers: str) -> None:
        [name] = self.put()
        sent = {key.replace("_", "-"): value for key, value in headers.items()}
        answer = self.client.post("/0/do", data={"verb": "remove", "name": name, FIELD: field}, headers=sent)
        self.assertEqual(answer.status_code, 403)
        self.assertIn(name, list(self.admin.names()))

    def test_cannot_send_our_forms(self) -> None:
        """Without the field, with a wrong one, with that of another session, or from elsewhere."""
        self.put()
        right = self.form()
        other = Client(self.console)
        others = re.search(rf'name="{FIELD}" value="(\w+)"', other.get("/0/mails").text)
        assert others is not None
        self.refused()
        self.refused("0" * 64)
        self.refused(others[1])
        self.refused(right, Origin="https://evil.example")
        self.refused(right, Sec_Fetch_Site="cross-site")

    def test_are_told_from_a_server_in_front_that_encrypts(self) -> None:
        """The scheme that the browser sees is not the one that the console sees; the name is."""
        [name] = self.put()
        here = "http://ops.example.org"
        page = self.client.get("/0/mails", base_url=here).text
        [field] = set(re.findall(rf'name="{FIELD}" value="(\w+)"', page))
        fields = {"verb": "hold", "name": name, FIELD: field}
        for origin, status in (
            ("https://ops.example.org", 200),
            ("https://ops.example.org:443", 200),
            ("https://ops.example.org.evil.example", 403),
            ("https://evil.example", 403),
            ("null", 403),
        ):
            with self.subTest(origin):
                answer = self.client.post("/0/confirm", data=fields, base_url=here, headers={"Origin": origin})
                self.assertEqual(answer.status_code, status)

    def test_cannot_frame_or_script_a_page(self) -> None:
        """Every answer has the headers, also a refusal."""
        for path in ("/0/", "/nowhere", "/static/console.css"):
            answer = self.client.get(path)
            for name, value in HEADERS.items():
                self.assertEqual(answer.headers[name], value)
        self.assertNotIn("unsafe-inline", HEADERS["Content-Security-Policy"])

    def test_cannot_lend_their_name(self) -> None:
        """A name that leads to this host is not ours (DNS rebinding)."""
        client = Client(Console([self.path], hosts=["localhost", "127.0.0.1"], patience=60.0))
        self.assertEqual(client.get("/0/", headers={"Host": "evil.example"}).status_code, 400)
        for host in ("localhost:8025", "127.0.0.1", "LOCALHOST"):
            self.assertEqual(client.get("/0/", headers={"Host": host}).status_code, 200)

    def test_have_no_part_in_a_page(self) -> None:
        """Nothing is loaded from another host."""
        self.put()
        for path in ("/0/", "/0/mails"):
            self.assertEqual(re.findall(r'(?:src|href|action)="(?!/|\?)[^"]*"', self.get(path)), ['href="#content"'])


class ALogin(Fixture):
    options: dict[str, Any] = {"token": TOKEN}

    def test_is_needed_for_everything(self) -> None:
        """But for the page that asks for it and what belongs to that."""
        [name] = self.put()
        for path in ("/", "/0/", "/0/mails", f"/0/mail/{name}"):
            answer = self.client.get(path)
            self.assertEqual((answer.status_code, answer.location), (303, "/login"))
        self.assertEqual(self.client.get("/static/console.css").status_code, 200)

    def test_is_the_token(self) -> None:
        """Typed, or in the address that the command prints, from where it goes at once."""
        answer = self.post_token("wrong")
        self.assertIn("That is not the token", answer.text)
        self.assertEqual(self.client.get("/0/").status_code, 303)
        self.assertEqual(self.post_token(TOKEN).status_code, 303)
        self.assertEqual(self.client.get("/0/").status_code, 200)
        other = Client(self.console)
        self.assertEqual(other.get(f"/login?token={TOKEN}").location, "/")
        self.assertEqual(other.get("/0/").status_code, 200)

    def post_token(self, token: str) -> Any:
        return self.client.post("/login", data={"token": token, FIELD: self.form("/login")})

    def test_is_kept_in_a_cookie_that_no_script_reads(self) -> None:
        """And that no other site makes the browser send."""
        self.post_token(TOKEN)
        cookies = self.client._cookies or {}  # the test client has no other way to look
        self.assertEqual(len(cookies), 2)
        for cookie in cookies.values():
            self.assertTrue(cookie.http_only)
            self.assertEqual(cookie.same_site, "Strict")
            self.assertNotIn(TOKEN, cookie.value)

    def test_is_no_word(self) -> None:
        """A short one could be guessed."""
        with self.assertRaisesRegex(ValueError, "16 characters"):
            Console([self.path], token="secret")


class AnotherApplication(Fixture):
    def test_may_end_and_leave_nothing(self) -> None:
        """What verbs have left in ``locks/`` goes when it closes the console, which can be used again."""
        locks = os.path.join(self.path, "locks")
        for verb, state in (("hold", State.HELD), ("release", State.READY)):
            [name] = list(self.admin.names()) or self.put()
            self.post("/0/do", verb=verb, name=name)
            self.assertIs(self.state(name), state)
            self.assertTrue([each for each in os.listdir(locks) if each[0] != "."])
            self.console.close()
            self.assertEqual([each for each in os.listdir(locks) if each[0] != "."], [])

    def test_may_have_it_below_a_path(self) -> None:
        """All addresses begin with that."""
        self.put()
        page = self.get("/0/mails", environ_overrides={"SCRIPT_NAME": "/ops/mail"})
        self.assertIn('href="/ops/mail/static/console.css"', page)
        self.assertNotRegex(page, r'(?:href|src|action)="/(?!ops/mail/)')

    def test_may_be_pyramids(self) -> None:
        """As docs/howto/console.rst says it: pages, files and forms."""
        if importlib.util.find_spec("pyramid") is None:
            self.skipTest("Pyramid is not installed")
        from pyramid.config import Configurator
        from pyramid.wsgi import wsgiapp2

        with Configurator() as config:
            config.add_route("mail", "/ops/mail*subpath")
            config.add_view(wsgiapp2(self.console), route_name="mail")
            self.mounted(config.make_wsgi_app())

    def test_may_be_flasks(self) -> None:
        """Or of any other WSGI server."""
        from werkzeug.middleware.dispatcher import DispatcherMiddleware

        def other(environ: Any, start_response: Any) -> list[bytes]:
            start_response("404 Not Found", [])
            return [b"the application's own"]

        self.mounted(DispatcherMiddleware(other, {"/ops/mail": self.console}))

    def mounted(self, application: Any) -> None:
        """See that the console works below ``/ops/mail`` of an application."""
        self.client = Client(application)
        [name] = self.put()
        self.assertRegex(str(self.client.get("/ops/mail/").location), "/ops/mail/0/$")
        self.assertEqual(self.client.get("/ops/mail/static/console.js").status_code, 200)
        page = self.get("/ops/mail/0/mails")
        self.assertNotRegex(page, r'(?:href|src|action)="/(?!ops/mail/)')
        [link] = re.findall(r'href="(/ops/mail/0/mail/[^"]+)"', page)
        self.assertIn("Subject: Hello", self.get(link))
        fields = {"verb": "hold", "name": name, FIELD: self.form("/ops/mail/0/mails")}
        self.assertIn('action="/ops/mail/0/do"', self.client.post("/ops/mail/0/confirm", data=fields).text)
        self.assertEqual(self.client.post("/ops/mail/0/do", data=fields).status_code, 200)
        self.assertEqual(self.state(name), State.HELD)

    def test_may_have_a_queue_that_cannot_be_read(self) -> None:
        """The page says so."""
        with open(self.path, "wb"):
            pass
        self.assertIn("The queue cannot be read", self.get("/0/"))
