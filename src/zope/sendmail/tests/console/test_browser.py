"""The console in a browser: what a person sees on a desk, on a phone, in the dark, and with the keyboard.

Needs Chromium, its driver and selenium, and is skipped, with the reason, where they are not.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import unittest
from typing import Any

from zope.sendmail.message.envelope import Envelope
from zope.sendmail.queue.maildir import MaildirQueue
from zope.sendmail.tests.support.layers import Servers, in_layer

try:
    import waitress
    from selenium import webdriver
    from selenium.common.exceptions import WebDriverException
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    from zope.sendmail.console import Console
except ImportError as error:  # zope.testrunner takes a module that skips itself for one that is broken
    MISSING = f"{error.name} is not installed"
else:
    MISSING = ""

_SWITCHES = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)

#: Contrast of every text with what is behind it (WCAG 2.1, 1.4.3), names of fields and buttons (4.1.2), a heading, a
#: title and a language (2.4.2, 3.1.1); gives what is wrong.
_AUDIT = """
const wrong = [];
const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
  .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const ground = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
  if (!/, 0\\)$/.test(c) && c !== "transparent") return c; } return "rgb(255, 255, 255)"; };
for (const e of document.querySelectorAll("body *")) {
  const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
  if (!own || !e.getClientRects().length || e.closest("svg")) continue;
  const [a, b] = [light(getComputedStyle(e).color), light(ground(e))].sort((x, y) => y - x);
  if ((a + 0.05) / (b + 0.05) < 4.5) wrong.push("contrast: " + e.textContent.trim().slice(0, 40));
}
for (const e of document.querySelectorAll("input:not([type=hidden]), select, button, a")) {
  const labels = [...(e.labels || [])].map(l => l.textContent.trim()).join();
  const name = e.getAttribute("aria-label") || e.textContent.trim() || labels;
  if (!name && !e.hidden) wrong.push("no name: " + e.outerHTML.slice(0, 80));
}
if (document.querySelectorAll("h1").length !== 1) wrong.push("headings of the first level");
if (!document.title || !document.documentElement.lang) wrong.push("title or language");
for (const e of document.querySelectorAll("[id]"))
  if (document.querySelectorAll("#" + CSS.escape(e.id)).length > 1) wrong.push("id twice: " + e.id);
return wrong;
"""


#: Runs axe-core in the page; gives the rules that are broken, each with where.
_RUN_AXE = """
const done = arguments[arguments.length - 1];
axe.run(document, { resultTypes: ["violations"] }).then(
  found => done(found.violations.map(v => v.id + ": " + v.nodes.map(n => n.html).slice(0, 3).join("  "))),
  error => done([String(error)]));
"""

#: Widths and heights, and the colours that the system prefers.
_SIGHTS = [(width, height, scheme) for width, height in ((1280, 900), (390, 844)) for scheme in ("light", "dark")]


class Browser(unittest.TestCase):
    """Chromium, without a window."""

    def setUp(self) -> None:
        if MISSING:
            self.skipTest(MISSING)
        chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
        if chromium is None or driver is None:
            self.skipTest("there is no chromium or no chromedriver here")
        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        for switch in _SWITCHES:
            options.add_argument(switch)
        self.browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
        self.addCleanup(self.browser.quit)

    def emulate(self, command: str, **values: Any) -> None:
        self.browser.execute_cdp_cmd(f"Emulation.{command}", values)

    def find(self, selector: str) -> Any:
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def press(self, selector: str) -> None:
        """Click on something, and wait for the page with another heading that it leads to."""
        before = self.find("h1").text
        self.find(selector).click()
        patient = WebDriverWait(self.browser, 60, 0.05, ignored_exceptions=[WebDriverException])
        patient.until(lambda _: self.find("h1").text != before)

    def serve(self, console: Any) -> str:
        """Return where a console is served until the end of the test."""
        server = waitress.create_server(console, host="127.0.0.1", port=0)
        threading.Thread(target=server.run, daemon=True).start()
        self.addCleanup(server.close)
        return f"http://127.0.0.1:{server.effective_port}"

    def look_at(self, name: str) -> None:
        """See that the page in the browser is right for everybody: on a desk and a phone, in the light and the dark.

        A picture of each is kept where ``ZOPE_SENDMAIL_SCREENSHOTS`` names a directory.
        """
        for width, height, scheme in _SIGHTS:
            with self.subTest(name, width=width, scheme=scheme):
                self.emulate("setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
                self.emulate("setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
                self.assertEqual(self.browser.execute_script(_AUDIT), [])
                self.assertLessEqual(self.browser.execute_script("return document.documentElement.scrollWidth"), width)
                if axe := os.environ.get("ZOPE_SENDMAIL_AXE"):
                    with open(axe, encoding="utf-8") as source:
                        self.browser.execute_script(source.read())
                    self.assertEqual(self.browser.execute_async_script(_RUN_AXE), [])
                if directory := os.environ.get("ZOPE_SENDMAIL_SCREENSHOTS"):
                    self.browser.save_screenshot(os.path.join(directory, f"page-{name}-{width}-{scheme}.png"))


class InABrowser(Browser):
    def setUp(self) -> None:
        super().setUp()
        self.path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "queue")
        queue = MaildirQueue(self.path)
        staged = queue.stage()
        for number in range(60):
            staged.add(
                Envelope("shop@example.org", (f"{'long' * 20}{number}@example.org",)), b"Subject: Hello\n\nText\n"
            )
        staged.prepare()
        staged.commit()
        self.admin = queue.admin
        self.addCleanup(queue.close)
        self.url = self.serve(Console([self.path], writable=True, patience=60.0))

    def every_page(self) -> list[str]:
        [name, *_] = self.admin.names()
        return ["/0/", "/0/mails", f"/0/mail/{name}"]

    def test_each_page_is_for_everybody(self) -> None:
        """Also one that asks, tells or refuses."""
        for page in (
            "/0/",
            "/0/mails",
            "/0/mails?state=held",
            "/0/mails?older_than=soon",
            self.every_page()[2],
            "/nowhere",
        ):
            self.browser.get(self.url + page)
            self.look_at(page.strip("/").partition("?")[0].replace("/", "-")[:12] + "-" + page.partition("?")[2][:5])
        self.browser.get(self.url + "/0/mails")
        self.find('input[name="name"]').click()
        self.press('button[value="reroute"]')
        self.look_at("confirm")
        self.press("form button")
        self.look_at("done")

    def test_each_page_of_another_console_is_for_everybody(self) -> None:
        """One with a login, with several queues that can only be looked at, and with a deep one."""
        other = os.path.join(os.path.dirname(self.path), "other")
        MaildirQueue(other).stage().abort()
        token = "a token of the tests"
        url = self.serve(
            Console({"Shop": self.path, "News": other}, token=token, links=[("Shop", "/shop")], patience=60.0)
        )
        self.browser.get(url)
        self.look_at("login")
        self.find("#token").send_keys(token)
        self.press("form button")
        self.look_at("home")
        self.browser.get(url + "/0/mails")
        self.look_at("read-only")
        self.browser.get(self.serve(Console([self.path], writable=True, patience=0.0)) + "/0/mails?state=ready")
        self.look_at("looking")

    def test_what_processors_tell_is_for_everybody(self) -> None:
        """Relays that cannot be used, findings and plots."""
        from zope.sendmail.lifecycle.outcome import Answer, Reply
        from zope.sendmail.processor.thread import QueueProcessorThread
        from zope.sendmail.testing.scriptedmailer import ScriptedMailer

        mailer = ScriptedMailer()
        queue = MaildirQueue(self.path)
        self.addCleanup(queue.close)
        processor = QueueProcessorThread(queue=queue, mailer=mailer, tell=lambda events: None)
        mailer.answers = lambda who: Reply(Answer.REJECTED, "no such user " + "x" * 300, 550, "5.1.1")
        processor.run(forever=False)
        mailer.fault = Reply(Answer.DEFERRED, "authentication failed", 535, "5.7.8")
        staged = queue.stage()
        staged.add(Envelope("shop@example.org", ("jane@example.org",)), b"Subject: Hello\n\nText\n")
        staged.prepare()
        staged.commit()
        QueueProcessorThread(queue=queue, mailer=mailer, tell=lambda events: None).run(forever=False)
        console = Console([self.path], writable=True, patience=60.0)
        console.look()
        self.browser.get(self.serve(console) + "/0/")
        self.find("details").click()
        self.look_at("trouble")

    def test_a_mail_is_removed_with_the_mouse(self) -> None:
        """Tick, choose, confirm; the page says what came of it."""
        [name, *_] = self.admin.names()
        self.browser.get(self.url + "/0/mails")
        self.find(f'input[value="{name}"]').click()
        self.press('button[value="remove"]')
        self.assertIn("1 mail", self.find("h1").text)
        self.press("form button")
        self.assertIn("1 mail", self.find("[role=status]").text)
        self.assertNotIn(name, list(self.admin.names()))

    def test_the_keyboard_is_enough(self) -> None:
        """The first key leads to the content, and the filter is sent with Enter."""
        self.browser.get(self.url + "/0/mails")
        self.find("body").send_keys(Keys.TAB)
        self.assertEqual(self.browser.switch_to.active_element.text, "Skip to the content")
        self.find("#f-recipient").send_keys("nobody@example.org", Keys.ENTER)
        WebDriverWait(self.browser, 60).until(lambda browser: "recipient=nobody" in browser.current_url)
        self.assertIn("No mail fits", self.find("[role=status]").text)

    def test_no_script_is_needed(self) -> None:
        """Pages and forms work with scripts switched off."""
        self.emulate("setScriptExecutionDisabled", value=True)
        self.browser.get(self.url + "/0/mails")
        self.find('input[name="name"]').click()
        self.press('button[value="hold"]')
        self.press("form button")
        self.assertIn("held", self.find("[role=status]").text)

    def test_the_console_complains_of_nothing(self) -> None:
        """No error, and nothing that the policy forbids."""
        for page in self.every_page():
            self.browser.get(self.url + page)
        self.assertEqual(self.browser.get_log("browser"), [])


class TheDemo(Browser):
    def test_has_a_page_for_everybody(self) -> None:
        """And the console beside it."""
        from zope.sendmail.tests.demo.test_demo import MISSING as MISSING_FOR_DEMO, serving

        if MISSING_FOR_DEMO:
            self.skipTest(f"the demo needs {', '.join(MISSING_FOR_DEMO)}")
        with serving() as port:
            self.browser.get(f"http://127.0.0.1:{port}/")
            self.find('button[value="commit"]').click()
            self.look_at("demo")
            self.press('a[href="/console/"]')
            self.look_at("demo-console")


load_tests = in_layer(Servers)
