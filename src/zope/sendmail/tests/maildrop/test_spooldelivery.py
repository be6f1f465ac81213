"""`zope.sendmail.maildrop.spooldelivery`: what may become a header."""

from __future__ import annotations

import unittest

from zope.sendmail.errors import InvalidMail
from zope.sendmail.maildrop.spooldelivery import refuse_line_ends


class ATextForAHeader(unittest.TestCase):
    def test_is_one_line(self) -> None:
        """Folded ones and line ends at its end included, also as bytes, and several of them."""
        folded = "a@example.org,\r\n b@example.org\n\tc@example.org"
        for text in ("Hello", "", None, "Hello\n", "Hello\r\n\r\n", folded, b"Hello\n", ["a", "b\n"], 7):
            with self.subTest(text):
                self.assertIsNone(refuse_line_ends("subject", text))  # type: ignore[func-returns-value]  # it raises

    def test_that_would_be_several_is_refused(self) -> None:
        """The argument is named; what stands behind a line end would be headers."""
        for text in ("a\nBcc: b", "a\r\nBcc: b", "a\rBcc: b", "a\n\nBcc: b", "a\n \nBcc: b", b"a\nBcc: b", "a\0b"):
            for value in (text, [text], ("a", text)):
                with self.assertRaisesRegex(InvalidMail, "^subject .* has a line end"):
                    refuse_line_ends("subject", value)


if __name__ == "__main__":
    unittest.main()
