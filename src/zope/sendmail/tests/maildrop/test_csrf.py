"""`zope.sendmail.maildrop.csrf`: which requests may change something."""

from __future__ import annotations

import unittest

from zope.sendmail.maildrop.csrf import refusal

SITE = "https://www.example.org"


class ARequest(unittest.TestCase):
    def assertMay(self, **headers: str) -> None:
        self.assertEqual(refusal("POST", SITE, **headers), "", headers)

    def assertMayNot(self, **headers: str) -> None:
        self.assertIn("does not come from a page of this site", refusal("POST", SITE, **headers), headers)

    def test_from_this_site(self) -> None:
        """By whichever header says it; a default port may be named."""
        self.assertMay(fetch_site="same-origin")
        self.assertMay(origin="https://www.example.org")
        self.assertMay(origin="https://WWW.example.org:443")
        self.assertMay(referer="https://www.example.org/MailHost/manage_main?x=held")

    def test_by_the_user_alone(self) -> None:
        """Without any page."""
        self.assertMay(fetch_site="none")

    def test_behind_a_proxy(self) -> None:
        """The browser's own word counts where Zope does not know its outer name."""
        self.assertMay(fetch_site="same-origin", origin="https://outside.example.net")

    def test_from_elsewhere(self) -> None:
        """Another host, scheme, port or sub-domain."""
        for origin in (
            "https://evil.example.com",
            "http://www.example.org",
            "https://www.example.org:8443",
            "https://www.example.org.evil.example.com",
            "https://www.example.org@evil.example.com",
            "https://example.org",
        ):
            self.assertMayNot(origin=origin)
            self.assertMayNot(referer=f"{origin}/page")
        for fetch_site in ("cross-site", "same-site", "anything"):
            self.assertMayNot(fetch_site=fetch_site, origin=SITE)

    def test_origin_beats_referer(self) -> None:
        """What is refused by one header is not saved by a weaker one."""
        self.assertMayNot(origin="null", referer=SITE + "/x")

    def test_that_does_not_say(self) -> None:
        """Nothing, or nonsense."""
        for origin in ("", "null", "https://", "https://[", "https://www.example.org:x", "www.example.org"):
            self.assertMayNot(origin=origin)

    def test_that_only_asks(self) -> None:
        """A link, an image."""
        for method in ("GET", "HEAD", ""):
            self.assertIn("POST", refusal(method, SITE, fetch_site="same-origin"))
