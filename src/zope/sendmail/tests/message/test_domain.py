"""`zope.sendmail.message.domain`."""

from __future__ import annotations

import unittest

from zope.sendmail.message.domain import ascii_domain


class ADomainInAnotherScript(unittest.TestCase):
    def test_has_the_form_that_browsers_use(self) -> None:
        """UTS 46, not transitional: sharp s and final sigma stay; capitals and wide letters are mapped."""
        cases = {
            "straße.example": "xn--strae-oqa.example",
            "STRAßE.example": "xn--strae-oqa.example",
            "Bücher.Example": "xn--bcher-kva.example",
            "bu\u0308cher.example": "xn--bcher-kva.example",
            "βόλος.example": "xn--nxasmm1c.example",
            "müller。example": "xn--mller-kva.example",
            "\uff4düller.example": "xn--mller-kva.example",
            "a_b.bücher.example": "a_b.xn--bcher-kva.example",
            "i❤.example": "xn--i-7iq.example",
            "☕.example": "xn--53h.example",
        }
        for domain, spelled in cases.items():
            with self.subTest(domain):
                self.assertEqual(ascii_domain(domain), spelled)

    def test_ascii_stays_as_it_is(self) -> None:
        """Also what is no domain."""
        for domain in ("Example.ORG", "a_b.example", "[192.0.2.1]", "", "xn--strae-oqa.example"):
            self.assertEqual(ascii_domain(domain), domain)

    def test_what_nobody_may_have(self) -> None:
        """Characters that no domain has, labels without end or beginning."""
        for domain in (
            "bü cher.example",
            "ü" * 64 + ".example",
            "ü..example",
            "\u2028ü.example",
            "\u06271.ü\u0627b",
            "a\u00b7ü.example",
        ):
            with self.subTest(domain):
                self.assertIsNone(ascii_domain(domain))


if __name__ == "__main__":
    unittest.main()
