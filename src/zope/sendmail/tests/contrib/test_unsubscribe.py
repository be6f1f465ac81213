"""What answers at a link to unsubscribe."""

from __future__ import annotations

import io
import unittest

from zope.sendmail.contrib.unsubscribe import UnsubscribeEndpoint, suppress_in
from zope.sendmail.message.unsubscribe import Subscription, UnsubscribeLinks
from zope.sendmail.queue.memory import MemoryQueue

LINKS = UnsubscribeLinks("https://shop.example.org/unsubscribe", b"sixteen octets and more")
JANE = "jane@example.com"
ONE_CLICK = b"List-Unsubscribe=One-Click"


class TheEndpoint(unittest.TestCase):
    def setUp(self) -> None:
        self.ended: list[Subscription] = []
        self.application = UnsubscribeEndpoint(LINKS, self.ended.append)

    def ask(
        self, path: str, method: str = "GET", body: bytes = b"", kind: str = "application/x-www-form-urlencoded"
    ) -> tuple[int, dict[str, str], str]:
        environ = {"REQUEST_METHOD": method, "PATH_INFO": path, "CONTENT_LENGTH": str(len(body)), "CONTENT_TYPE": kind}
        started: list[object] = []
        page = self.application({**environ, "wsgi.input": io.BytesIO(body)}, lambda *head: started.extend(head))
        status, headers = started
        assert isinstance(status, str)
        assert isinstance(headers, list)
        return int(status.split()[0]), dict(headers), b"".join(page).decode()

    def path(self, name: str = "news") -> str:
        return f"/{LINKS.token(JANE, name)}"

    def test_obeys_a_mail_program(self) -> None:
        """RFC 8058, 3.2: a POST, in either encoding; no redirection, no cookie."""
        multipart = b'--b\r\nContent-Disposition: form-data; name="List-Unsubscribe"\r\n\r\nOne-Click\r\n--b--\r\n'
        for body, kind in (
            (ONE_CLICK, "application/x-www-form-urlencoded"),
            (multipart, "multipart/form-data; boundary=b"),
        ):
            status, headers, _ = self.ask(self.path(), "POST", body, kind)
            self.assertEqual(status, 200)
            self.assertNotIn("Set-Cookie", headers)
        self.assertEqual(self.ended, [Subscription(JANE, "news")] * 2)

    def test_asks_a_person(self) -> None:
        """A link that is only looked at changes nothing; the form says what a mail program says."""
        for method in ("GET", "HEAD"):
            status, _, page = self.ask(self.path(), method)
            self.assertEqual((status, self.ended), (200, []))
        _, _, page = self.ask(self.path())
        self.assertIn('<input type="hidden" name="List-Unsubscribe" value="One-Click">', page)
        self.assertIn(JANE, page)

    def test_obeys_nothing_else(self) -> None:
        """Another form, another method, a link of others."""
        forged = UnsubscribeLinks(LINKS.url, b"another sixteen octets").token(JANE)
        for path, method, body, expected in (
            (self.path(), "POST", b"", 400),
            (self.path(), "POST", b"List-Unsubscribe=Maybe", 400),
            (self.path(), "POST", b"\xff=\xff", 400),
            (self.path(), "PUT", ONE_CLICK, 405),
            (self.path(), "DELETE", b"", 405),
            (f"/{forged}", "POST", ONE_CLICK, 404),
            ("/", "POST", ONE_CLICK, 404),
            ("", "GET", b"", 404),
        ):
            with self.subTest(path=path, method=method, body=body):
                self.assertEqual(self.ask(path, method, body)[0], expected)
        self.assertEqual(self.ended, [])

    def test_shows_no_name_as_html(self) -> None:
        """Whatever a list is called."""
        _, headers, page = self.ask(self.path("<script>alert(1)</script>"))
        self.assertNotIn("<script>", page)
        self.assertIn("default-src 'none'", headers["Content-Security-Policy"])

    def test_says_when_it_did_not_work(self) -> None:
        """So that it is tried again; the reason is in the log only."""

        def fail(subscription: Subscription) -> None:
            raise OSError("No space left on device")

        self.application = UnsubscribeEndpoint(LINKS, fail)
        with self.assertLogs("zope.sendmail.contrib.unsubscribe", "ERROR") as logged:
            status, _, page = self.ask(self.path(), "POST", ONE_CLICK)
        self.assertEqual((status, "No space" in page, "No space" in logged.output[0]), (503, False, True))

    def test_can_fill_the_suppression_list(self) -> None:
        """Of a queue; twice is as good as once."""
        queue = MemoryQueue()
        self.application = UnsubscribeEndpoint(LINKS, suppress_in(queue))
        for _ in range(2):
            self.assertEqual(self.ask(self.path(), "POST", ONE_CLICK)[0], 200)
        [entry] = queue.suppressions.entries()
        self.assertEqual((entry.address, entry.reason), (JANE, "unsubscribed from news"))
