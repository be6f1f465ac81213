"""What is to be done about a relay that cannot be used."""

from __future__ import annotations

import unittest

from zope.sendmail.lifecycle.cures import cure_of
from zope.sendmail.lifecycle.outcome import Answer, Reply


def cure(text: str, code: int | None = None) -> str:
    return cure_of(Reply(Answer.DEFERRED, text, code))


class AFault(unittest.TestCase):
    def test_has_the_cure_of_its_code(self) -> None:
        """Whatever the words are."""
        for code, words in {
            535: "correct username",
            534: "another mechanism",
            530: "wants a login",
            538: "before the login",
            454: "cannot check",
            432: "new password",
            421: "busy",
        }.items():
            self.assertIn(words, cure("the certificate timed out", code))

    def test_has_the_cure_of_its_words(self) -> None:
        """In whatever case, as systems and TLS libraries say it."""
        for text, words in (
            ("[Errno 111] Connection refused", "listens"),
            ("[Errno -2] Name or service not known", "resolver"),
            ("CERTIFICATE_VERIFY_FAILED: Hostname mismatch, certificate is not valid for 'x'", "another name"),
            ("CERTIFICATE_VERIFY_FAILED: certificate has expired", "out of date"),
            ("CERTIFICATE_VERIFY_FAILED: self-signed certificate", "cafile"),
            ("it does not offer STARTTLS", "agree about TLS"),
            ("timed out", "firewall"),
            ("[Errno 110] Connection", "firewall"),
            ("[Errno 101] Network is unreachable", "network of this machine"),
            ("[Errno 113] No route to host", "network of this machine"),
            ("Connection reset by peer", "hangs up"),
        ):
            self.assertIn(words, cure(text), text)

    def test_of_which_nothing_is_known_is_looked_at(self) -> None:
        """With a command that tries the relay; a code without a cure leaves it to the words."""
        self.assertIn("zope-sendmail check", cure("strange"))
        self.assertIn("zope-sendmail check", cure("strange", 451))
        self.assertIn("firewall", cure("timed out", 451))


if __name__ == "__main__":
    unittest.main()
