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
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

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


class InABrowser(unittest.TestCase):
    def setUp(self) -> None:
        if MISSING:
            self.skipTest(MISSING)
        chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
        if chromium is None or driver is None:
            self.skipTest("there is no chromium or no chromedriver here")
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
        server = waitress.create_server(Console([self.path], writable=True, patience=60.0), host="127.0.0.1", port=0)
        threading.Thread(target=server.run, daemon=True).start()
        self.addCleanup(server.close)
        self.url = f"http://127.0.0.1:{server.effective_port}"
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

    def every_page(self) -> list[str]:
        [name, *_] = self.admin.names()
        return ["/0/", "/0/mails", f"/0/mail/{name}"]

    def test_nothing_is_wider_than_a_phone(self) -> None:
        """390 pixels, whatever the addresses are."""
        self.emulate("setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=1, mobile=True)
        for page in self.every_page():
            with self.subTest(page):
                self.browser.get(self.url + page)
                width = self.browser.execute_script("return document.documentElement.scrollWidth")
                self.assertLessEqual(width, 390)

    def test_everything_can_be_read_and_has_a_name(self) -> None:
        """In the light and in the dark."""
        for scheme in ("light", "dark"):
            self.emulate("setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
            for page in self.every_page():
                with self.subTest(page, scheme=scheme):
                    self.browser.get(self.url + page)
                    self.assertEqual(self.browser.execute_script(_AUDIT), [])

    def test_a_mail_is_removed_with_the_mouse(self) -> None:
        """Tick, choose, confirm; the page says what came of it."""
        [name, *_] = self.admin.names()
        self.browser.get(self.url + "/0/mails")
        self.find(f'input[value="{name}"]').click()
        self.find('button[value="remove"]').click()
        self.assertIn("1 mail", self.find("h1").text)
        self.find("form button").click()
        self.assertIn("1 mail", self.find("[role=status]").text)
        self.assertNotIn(name, list(self.admin.names()))

    def test_the_keyboard_is_enough(self) -> None:
        """The first key leads to the content, and the filter is sent with Enter."""
        self.browser.get(self.url + "/0/mails")
        self.find("body").send_keys(Keys.TAB)
        self.assertEqual(self.browser.switch_to.active_element.text, "Skip to the content")
        self.find("#f-recipient").send_keys("nobody@example.org", Keys.ENTER)
        self.assertIn("recipient=nobody", self.browser.current_url)
        self.assertIn("No mail fits", self.find("[role=status]").text)

    def test_no_script_is_needed(self) -> None:
        """Pages and forms work with scripts switched off."""
        self.emulate("setScriptExecutionDisabled", value=True)
        self.browser.get(self.url + "/0/mails")
        self.find('input[name="name"]').click()
        self.find('button[value="hold"]').click()
        self.find("form button").click()
        self.assertIn("held", self.find("[role=status]").text)

    def test_the_console_complains_of_nothing(self) -> None:
        """No error, and nothing that the policy forbids."""
        for page in self.every_page():
            self.browser.get(self.url + page)
        self.assertEqual(self.browser.get_log("browser"), [])


load_tests = in_layer(Servers)
