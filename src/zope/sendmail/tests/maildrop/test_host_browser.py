"""The Maildrop Host in a real Zope, used with a real browser; mail arrives at a real SMTP server.

Skipped, and says so, where Zope, selenium, Chromium or chromedriver are missing. Screenshots are kept where
``ZOPE_SENDMAIL_SCREENSHOTS`` names a directory.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import http.server
import importlib.util
import os
import shutil
import tempfile
import threading
import unittest
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any
from unittest import mock

from zope.sendmail.tests.support.zopes import MISSING, write_config
from zope.sendmail.tests.support.zopesite import PATIENCE, USER, ZopeSite, python

_NEEDED = {
    "Zope and Products.MailHost": not MISSING,
    "selenium": importlib.util.find_spec("selenium"),
    "aiosmtpd": importlib.util.find_spec("aiosmtpd"),
    "chromium": shutil.which("chromium"),
    "chromedriver": shutil.which("chromedriver"),
}
_LACKING = [name for name, there in _NEEDED.items() if not there]

#: The tab, and its list of mails.
QUEUE, MAILS = "@@mail-queue/0/", "@@mail-queue/0/mails"

LETTER = """\
<dtml-sendmail mailhost="{host}">
From: shop@example.org
To: {to}
Subject: {subject}

Good day.
</dtml-sendmail>"""

#: A file in a spool, byte for byte as Products.MaildropHost 2.3 wrote it.
OLD_MAIL = b"""\
##To:Jane <jane@example.org>,joe@example.org
##From:shop@example.org
From: shop@example.org
To: Jane <jane@example.org>
Subject: From 2.3

Good day.

"""

#: A page of another site that tries to use the manager's login.
EVIL = """\
<form method="post" action="{url}/do"><input name="verb" value="remove">
<input name="name" value="{name}"></form><script>document.forms[0].submit()</script>"""


@unittest.skipIf(_LACKING, f"missing: {', '.join(_LACKING)} (zope.cfg; apt install chromium chromium-driver)")
class InABrowser(unittest.TestCase):
    def setUp(self) -> None:
        self.host_id = self._testMethodName.removeprefix("test_")
        self.browser, reason = _browser()
        if self.browser is None:
            self.skipTest(f"Chromium does not start: {reason}")
        world = _world()
        self.site, self.relay = world.site, world.relay
        self.directory, self.paths = world.directory, world.paths

    def test_add_edit_and_choose(self) -> None:
        """From the add list to a configuration; the password is not shown."""
        self.add()
        self.assertIn("Added MaildropHost.", self.text())
        self.assertIn("cannot send mail", self.text("#maildrop-problem"))  # DEFAULT has no file here
        self.look("edit-without-configuration")
        self.choose("config-path-news", title="News <b>& more</b>")
        self.assertIn(f'MaildropHost "{self.host_id}" updated', self.text())
        self.assertEqual(self.one("#title").get_attribute("value"), "News <b>& more</b>")
        settings = self.text("#maildrop-settings")
        self.assertIn("******", settings)
        self.assertNotIn("se-cret", self.browser.page_source)
        self.assertIn("debug@example.org", self.text("#maildrop-debug-receiver"))
        self.look("edit-news")
        self.choose("config-path-shop", title="Shop")
        self.assertNotIn("debug@example.org", self.text())
        self.assertIn(self.paths["config-path-shop"], self.text("#maildrop-settings"))
        self.look("edit-shop")

    def test_a_configuration_that_breaks(self) -> None:
        """All tabs say what is wrong, and sending fails."""
        path = write_config(self.directory, "broken.conf")
        self.added("config-path-shop")
        os.rename(self.paths["config-path-shop"], path)
        self.addCleanup(os.rename, path, self.paths["config-path-shop"])
        self.site.dtml("broken", LETTER.format(host=self.host_id, to="jane@example.org", subject="Broken"))
        for tab in ("manage_main", "manage_log"):
            self.go(tab)
            self.assertIn("shop.conf", self.text("#maildrop-problem"))
            self.look(f"broken-{tab}")
        self.go(MAILS)
        self.assertIn("shop.conf", self.text())
        self.assertEqual(self.site.ask("broken")[0], 500)
        self.wait_for(lambda: "has no usable configuration" in self.site.said())

    def test_committed_aborted_and_conflicting(self) -> None:
        """Mail of requests that succeed arrives once, that of a request that fails never; the tabs tell it."""
        self.added("config-path-shop")
        letter = LETTER.format(host=self.host_id, to="eve@example.org", subject="Aborted")
        self.site.dtml("aborted", letter + '<dtml-raise type="ValueError">no</dtml-raise>')
        self.site.dtml("letter", LETTER.format(host=self.host_id, to="joe@example.org", subject="Repeated"))
        self.send("jane@example.org", "Committed")
        self.assertEqual(self.site.ask("aborted")[0], 500)
        self.browser.get(f"{self.site.url}/send-and-conflict")
        self.assertIn("attempts: 2", self.text())
        self.queue_shows(lambda: self.count("ready") == 2)
        self.look("queue-ready")
        self.wait_for(lambda: self.column("To") == ["jane@example.org", "joe@example.org"])
        self.daemon()
        subjects = ["Committed", "Repeated", "Aborted"]
        self.wait_for(lambda: len(self.arrived(*subjects)) >= 2)
        self.assertEqual(self.arrived(*subjects), ["Committed", "Repeated"])
        self.queue_shows(lambda: self.count("ready") == self.count("sending") == 0)
        self.assertEqual(self.column("To"), [])
        self.look("queue-empty")
        self.go("manage_log")
        self.assertIn("jane@example.org", self.text("#log-text"))
        self.look("log")

    def test_mail_that_2_3_left_in_the_spool(self) -> None:
        """Is shown, and sent; without the lock file of the transaction, which had ended."""
        self.added("config-path-shop")
        self.site.ask(f"{self.host_id}/{QUEUE}")  # makes the spool
        spool = os.path.join(self.directory, "shop.conf.home", "spool")
        with open(os.path.join(spool, "4711001"), "wb") as file:
            file.write(OLD_MAIL)
        self.wait_for(lambda: self.column("From") == ["shop@example.org"])
        self.assertEqual(self.column("To"), ["jane@example.org, joe@example.org"])
        self.daemon()
        self.wait_for(lambda: self.arrived("From 2.3"))
        self.queue_shows(lambda: self.count("ready") == self.count("sending") == 0)
        self.assertEqual(self.arrived("From 2.3"), ["From 2.3"])

    def test_the_old_way_to_add(self) -> None:
        """Scripts add objects by the name of the old product."""
        if not importlib.util.find_spec("Products.MaildropHost"):
            self.skipTest("compat/Products.MaildropHost is not installed")
        form = {"id": self.host_id, "path_key": "config-path-shop"}
        self.assertEqual(self.site.ask("manage_addProduct/MaildropHost/manage_addMaildropHost", **form)[0], 200)
        self.go("manage_main")
        self.assertIn("shop.conf", self.text("#maildrop-settings"))

    def test_what_relays_say(self) -> None:
        """Last replies are shown, as text, with the mail's state and next attempt."""
        self.added("config-path-shop")
        self.two_in_trouble()
        self.wait_for(lambda: len(self.column("To")) == 2)
        self.assertIn("450 4.2.0 <script>alert('later')</script>", self.text("table"))
        self.assertIn("550 5.1.1 <b>no such user</b>", self.text("table"))
        self.look("queue-replies")
        self.queue_shows(lambda: "No processor is at work" in self.text())
        for recipient in ("later@example.org", "nobody@example.org"):
            self.mark(recipient, "remove")
        self.queue_shows(lambda: self.count("deferred") + self.count("rejected") == 0)

    def test_what_managers_do(self) -> None:
        """Hold, release, retry and remove do what they say; what is not possible is told."""
        self.added("config-path-shop")
        self.two_in_trouble()
        self.send("jane@example.org", "Managed")
        self.mark("jane@example.org", "hold")
        self.assertIn("1 mail held.", self.text("[role=status]"))
        self.queue_shows(lambda: (self.count("ready"), self.count("held")) == (0, 1))
        self.look("queue-held")
        self.click(self.one("a[href$='state=held']"))
        self.wait_for(lambda: "jane@example.org" in self.text("table"))
        self.mark("jane@example.org", "release")
        self.mark("nobody@example.org", "retry")
        self.queue_shows(lambda: (self.count("ready"), self.count("held"), self.count("rejected")) == (2, 0, 0))
        self.mark("later@example.org", "release")
        self.assertIn("1 could not be changed", self.text("[role=status]"))
        self.look("queue-not-done")
        for recipient in ("nobody@example.org", "later@example.org", "jane@example.org"):
            self.mark(recipient, "remove")
        self.wait_for(lambda: self.column("To") == [])

    def test_all_that_fit_a_filter_may_be_meant(self) -> None:
        """And no other."""
        self.added("config-path-shop")
        for recipient in ("jane@many.example", "jim@many.example", "joe@one.example"):
            self.send(recipient, recipient.partition("@")[0])
        self.wait_for(lambda: len(self.column("To", "recipient=@many.example")) == 2)
        self.one("input[name=all]").click()
        self.click(self.one("button[value=hold]"))
        self.click(self.one("form button"))
        self.assertIn("2 mails held.", self.text("[role=status]"))
        self.wait_for(lambda: self.column("To", "state=held") == ["jane@many.example", "jim@many.example"])
        self.one("input[data-all]").click()
        self.click(self.one("button[value=remove]"))
        self.click(self.one("form button"))
        self.assertIn("2 mails removed.", self.text("[role=status]"))
        self.mark("joe@one.example", "remove")

    def test_the_mail_queue_tab(self) -> None:
        """Is the console, for the queue of a Maildrop Host, with the other tabs in its head."""
        self.added("config-path-shop")
        self.send("jane@example.org", "Console")
        self.go("manage_main")
        self.click(self.browser.find_element("link text", "Mail Queue"))
        self.assertIn("1", self.text(".tile .value"))
        told = [each["message"] for each in self.browser.get_log("browser")]
        self.assertEqual([message for message in told if f"{self.host_id}/@@" in message], [])
        self.look("console-overview")
        self.click(self.browser.find_element("link text", "Mails"))
        self.assertIn("jane@example.org", self.text("table"))
        self.one("input[name=name]").click()
        self.click(self.one("button[value=hold]"))
        self.assertIn("Hold: 1 mail", self.text("h1"))
        self.click(self.one("form button"))
        self.assertIn("1 mail held.", self.text("[role=status]"))
        self.look("console-done")
        self.click(self.browser.find_element("link text", "Maildrop Log"))
        self.assertIn("/manage_log", self.browser.current_url)
        self.browser.get(f"{self.site.url}/{self.host_id}/@@mail-queue/0/mails?state=held")
        self.one("input[name=name]").click()
        self.click(self.one("button[value=remove]"))
        self.click(self.one("form button"))
        self.assertIn("1 mail removed.", self.text("[role=status]"))

    def test_the_mail_queue_tab_of_a_mail_host(self) -> None:
        """Products.MailHost has it too; one that sends directly says that it has no queue."""
        queue = os.path.join(self.directory, "mailhost-queue")
        add = "manage_addProduct/MailHost/manage_addMailHost"
        self.assertEqual(self.site.ask(add, id=self.host_id, title="", smtp_host="127.0.0.1")[0], 200)
        self.browser.get(f"{self.site.url}/{self.host_id}/@@mail-queue/0/")
        self.assertIn("sends directly", self.text())
        change = f"{self.host_id}/manage_makeChanges"
        form = {"title": "Shop's mail", "smtp_host": "127.0.0.1", "smtp_port": "1", "smtp_queue_directory": queue}
        self.assertEqual(self.site.ask(change, **{**form, "smtp_queue:boolean": "1"})[0], 200)
        self.send("jane@example.org", "Queued")
        self.go("manage_main")
        self.click(self.browser.find_element("link text", "Mail Queue"))
        self.assertIn("Shop's mail", self.text("h1"))
        self.click(self.browser.find_element("link text", "Mails"))
        self.assertIn("jane@example.org", self.text("table"))

    def test_the_mail_queue_tab_is_for_managers(self) -> None:
        """Whoever is not logged in is asked for that, and another site cannot use a manager's login."""
        self.added("config-path-shop")
        self.send("jane@example.org", "Precious")
        url = f"{self.site.url}/{self.host_id}/@@mail-queue/0"
        with self.assertRaises(urllib.error.HTTPError) as refused:
            urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{url}/mails", timeout=PATIENCE)
        self.assertEqual(refused.exception.code, 401)
        refused.exception.close()
        self.browser.get(f"{url}/mails")
        name = self.one("input[name=name]").get_attribute("value")
        evil = _serve(EVIL.format(url=url, name=name))
        self.addCleanup(evil.server_close)
        self.addCleanup(evil.shutdown)
        self.browser.get(f"http://localhost:{evil.server_port}/")
        self.wait_for(lambda: "came from another site" in self.text())
        self.browser.get(f"{url}/mails")
        self.assertEqual(self.one("input[name=name]").get_attribute("value"), name)

    def two_in_trouble(self) -> None:
        """One mail that is deferred, one that is rejected."""
        self.send("later@example.org", "Later")
        self.send("nobody@example.org", "Never")
        stop = self.daemon()
        self.queue_shows(lambda: self.count("deferred") == self.count("rejected") == 1)
        stop()

    def send(self, to: str, subject: str) -> None:
        """By a request that succeeds."""
        name = f"{self.host_id}-{subject}"
        self.site.dtml(name, LETTER.format(host=self.host_id, to=to, subject=subject))
        self.assertEqual(self.site.ask(name)[0], 200)

    # --- what a person does -------------------------------------------------------------------------------------

    def add(self) -> None:
        """Choose from the add list, give an id."""
        from selenium.webdriver.support.ui import Select

        self.browser.get(f"{self.site.url}/manage_main")
        adders = self.browser.find_elements("css selector", "select[name=':method'], select#addItemSelect, select")
        adder = next(each for each in adders if "Maildrop Host" in each.get_attribute("innerHTML"))
        options = [each.get_attribute("textContent").strip() for each in Select(adder).options]
        self.assertEqual(options.count("Maildrop Host"), 1)
        target = next(each for each in Select(adder).options if "Maildrop Host" in each.get_attribute("textContent"))
        self.browser.get(f"{self.site.url}/{target.get_attribute('value')}")
        self.look("add")
        self.one("#id").clear()
        self.one("#id").send_keys(self.host_id)
        self.press("Add")

    def choose(self, key: str, title: str) -> None:
        from selenium.webdriver.support.ui import Select

        Select(self.one("#path_key")).select_by_value(key)
        self.one("#title").clear()
        self.one("#title").send_keys(title)
        self.press("Save Changes")

    def added(self, key: str) -> None:
        """A new object with this configuration."""
        self.site.ask("manage_addProduct/zope.sendmail.maildrop/manage_addMaildropHost", id=self.host_id, path_key=key)

    def go(self, tab: str) -> None:
        self.browser.get(f"{self.site.url}/{self.host_id}/{tab}")

    def press(self, label: str) -> None:
        self.click(self.one(f"input[type=submit][value='{label}']"))

    def click(self, element: Any, *, confirm: bool = False) -> None:
        """And wait for the next page: until the window holds another document, which is whole.

        An element of the old page is not asked whether it is stale: while pages change, chromedriver answers that with
        errors of its own (SeleniumHQ/selenium, issue 15401).
        """
        born = self.browser.execute_script("return performance.timeOrigin")
        element.click()
        if confirm:
            self.wait_for(lambda: self.browser.switch_to.alert)
            self.browser.switch_to.alert.accept()
        there = "return performance.timeOrigin !== arguments[0] && document.readyState === 'complete'"
        self.wait_for(lambda: self.browser.execute_script(there, born))

    def mark(self, recipient: str, verb: str) -> None:
        """Tick the mail to this recipient, press the button, and say yes."""
        self.wait_for(lambda: recipient in self.column("To"))
        row = next(each for each in self.all("table tbody tr") if recipient in each.text)
        row.find_element("css selector", "input").click()
        self.click(self.one(f"button[value={verb}]"))
        self.click(self.one("form button"))

    # --- what a person sees -------------------------------------------------------------------------------------

    def one(self, css: str) -> Any:
        return self.browser.find_element("css selector", css)

    def all(self, css: str) -> list[Any]:
        return list(self.browser.find_elements("css selector", css))

    def text(self, css: str = "body") -> str:
        return str(self.one(css).text)

    def count(self, state: str) -> int:
        """As the overview says it."""
        return int(self.text(f".tile a[href$='state={state}'] .value"))

    def column(self, label: str, query: str = "") -> list[str]:
        """Of the list of mails."""
        self.go(f"{MAILS}?{query}")
        return [each.text for each in self.all(f"table td[data-label={label}]")]

    def look(self, name: str) -> None:
        """A screenshot, if somebody wants them."""
        if directory := os.environ.get("ZOPE_SENDMAIL_SCREENSHOTS"):
            self.browser.save_screenshot(os.path.join(directory, f"{name}.png"))

    def arrived(self, *subjects: str) -> list[str]:
        """Those of these subjects that came to the SMTP server, as often as they came."""
        came = [str(mail.message["Subject"]) for mail in self.relay.caught()]
        return [subject for subject in came if subject in subjects]

    def wait_for(self, condition: Callable[[], object]) -> None:
        """A question that the browser cannot answer, for its page is just changing, is asked again."""
        from selenium.common.exceptions import WebDriverException
        from selenium.webdriver.support.ui import WebDriverWait

        patient = WebDriverWait(self.browser, PATIENCE, 0.05, ignored_exceptions=[WebDriverException])
        patient.until(lambda _: condition())

    def queue_shows(self, condition: Callable[[], bool]) -> None:
        """Look at the overview until it does."""

        def shown() -> bool:
            self.go(QUEUE)
            return condition()

        self.wait_for(shown)

    def daemon(self) -> Callable[[], None]:
        """Start the maildrop daemon of the shop; returns what stops it."""
        self.addCleanup(self.maildrop, "stop")
        self.assertIn("started", self.maildrop("start"))
        return lambda: self.assertIn("stopped", self.maildrop("stop"))

    def maildrop(self, verb: str) -> str:
        """What the command says."""
        code = "import sys; from zope.sendmail.maildrop.script import main; sys.exit(main(sys.argv[1:]))"
        command = python(code, verb, "--config", self.paths["config-path-shop"])
        said, _ = command.communicate(timeout=PATIENCE)
        return said


class World:
    """What all tests here share, for it takes seconds to make: a Zope, an SMTP server; the browser is logged in."""

    def __init__(self) -> None:
        self.cleanup = contextlib.ExitStack()
        atexit.register(self.cleanup.close)
        self.directory = self.cleanup.enter_context(tempfile.TemporaryDirectory())
        self.relay, port = _relay()
        self.cleanup.callback(self.relay.close)
        login = {"MAILDROP_LOGIN": "ann", "MAILDROP_PASSWORD": "se-cret"}
        news = write_config(self.directory, "news.conf", DEBUG_RECEIVER="debug@example.org", **login)
        shop = write_config(self.directory, "shop.conf", SMTP_PORT=port, MAILDROP_INTERVAL=1)
        self.paths = {"config-path-news": news, "config-path-shop": shop}
        self.site = ZopeSite(os.path.join(self.directory, "zope"), self.paths)
        self.cleanup.callback(self.site.stop)
        self.site.start()
        browser, _ = _browser()
        browser.get(self.site.url.replace("//", f"//{USER}@") + "/manage_main")  # logs in


@functools.cache
def _world() -> World:
    """Made by the first test that needs it; zope.testrunner knows no fixtures of classes."""
    return World()


@functools.cache
def _browser() -> tuple[Any, str]:
    """The browser, or None and why it does not start; that is no matter of ours."""
    from selenium import webdriver
    from selenium.common.exceptions import WebDriverException

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,1000"):
        options.add_argument(argument)
    for _ in range(3):  # the port that selenium chooses may be taken when chromedriver comes to it
        try:
            with mock.patch.dict(os.environ, no_proxy="localhost,127.0.0.1"):
                browser = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
        except WebDriverException as error:
            reason = str(error.msg)
        else:
            atexit.register(browser.quit)
            browser.set_page_load_timeout(110.0)  # selenium waits for chromedriver not much longer
            return browser, ""
    return None, reason


def _relay() -> tuple[Any, int]:
    """An SMTP server that refuses some, and its port."""
    from zope.sendmail.demo.catcher import Catcher

    class Relay(Catcher):
        async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
            if address.startswith("later@"):
                return "450 4.2.0 <script>alert('later')</script>"
            if address.startswith("nobody@"):
                return "550 5.1.1 <b>no such user</b>"
            envelope.rcpt_tos.append(address)
            return "250 OK"

    relay = Relay()
    return relay, relay.open()


def _serve(page: str) -> http.server.HTTPServer:
    """A web site with one page."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, format: str, *args: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
