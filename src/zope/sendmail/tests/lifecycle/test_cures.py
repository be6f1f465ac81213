"""What is to be done about a relay that cannot be used."""

from __future__ import annotations

import unittest

from zope.sendmail.lifecycle.cures import cure_of
from zope.sendmail.lifecycle.outcome import Answer, Reply


def cure(text: str, code: int | None = None) -> str:
    return cure_of(Reply(Answer.DEFERRED, text, code))


#: What is to be done -> what systems, TLS libraries and relays say that calls for it.
CURES = {
    "No token was to be had, so the relay was not asked: do by hand, as the user that sends, what token_command or "
    "token_file says; a command that is not found wants its whole path.": (
        "token command 'oama' did not end within 30 s; timed out",
        "token file '/x' cannot be read: certificate",
    ),
    "Nothing listens there: start the relay, or correct its hostname and port.": (
        "[Errno 111] Connection refused",
        "connection refused",
        "[Errno 111]",
    ),
    "The name of the relay is not known: correct the hostname, or look after the resolver of this machine.": (
        "[Errno -2] Name or service not known",
        "[Errno 8] nodename nor servname provided",
        "[Errno -5] No address associated with hostname",
        "[Errno -3] Temporary failure in name resolution",
        "getaddrinfo failed",
    ),
    "Its certificate is for another name: set the hostname that stands in the certificate.": (
        "CERTIFICATE_VERIFY_FAILED: Hostname mismatch, certificate is not valid for 'x'",
        "certificate is not valid for 'x'",
        "hostname 'x' doesn't match 'y'",
        "IP address mismatch, certificate",
    ),
    "Its certificate is out of date: have the relay's renewed, and look at the clock of this machine.": (
        "CERTIFICATE_VERIFY_FAILED: certificate has expired",
        "certificate is not yet valid",
    ),
    "Its certificate is not trusted: name the CA that signed it with cafile, or correct the hostname.": (
        "CERTIFICATE_VERIFY_FAILED: self-signed certificate",
        "self signed",
        "unable to get local issuer certificate (_ssl.c:1006)",
    ),
    "The two do not agree about TLS: compare the setting tls and the port (465: implicit, 587: required); "
    "for a relay of your own that has none, say tls=never.": (
        "it does not offer STARTTLS",
        "it does not offer TLS",
        "[SSL: WRONG_VERSION_NUMBER] wrong version number",
        "TLS",
        "EOF occurred in violation of protocol (_ssl.c:1006)",
    ),
    "It does not answer: look for a firewall between here and there, and at the load of the relay.": (
        "timed out",
        "timeout",
        "[Errno 110] Connection",
    ),
    "There is no way to it: look after the network of this machine.": (
        "[Errno 101] Network is unreachable",
        "[Errno 113] No route to host",
        "no route",
        "[Errno 101]",
        "[Errno 113]",
    ),
    "It hangs up: look into the relay's log; it may want TLS, a login, or fewer connections.": (
        "the relay closed the connection",
        "the relay hung up",
        "Connection reset by peer",
        "Broken pipe",
    ),
    "Look at what the relay says and at its log; 'zope-sendmail check' tries it step by step.": ("strange",),
}
BY_CODE = {
    535: "The login is refused: correct username and password (of a token: its scope, and whether the account may send "
    "by SMTP); a daemon with a password file tries again by itself when the file changes.",
    534: "The login is refused: the account needs another mechanism, or a password for applications.",
    530: "The relay wants a login, or TLS first: set username and password, and tls=required.",
    538: "The relay wants TLS before the login: set tls=required.",
    454: "The relay cannot check logins now: look at the relay.",
    432: "The account needs a new password, or the relay takes no mail now: look at the relay, or ask who runs it.",
    421: "The relay is busy or goes down: look at the relay; fewer connections (concurrency) may help.",
}


class AFault(unittest.TestCase):
    def test_has_the_cure_of_its_code(self) -> None:
        """Whatever the words are."""
        for code, sentence in BY_CODE.items():
            self.assertEqual(cure("the certificate timed out", code), sentence)

    def test_has_the_cure_of_its_words(self) -> None:
        """In whatever case, as systems and TLS libraries say it."""
        for sentence, texts in CURES.items():
            for text in texts:
                self.assertEqual(cure(text), sentence, text)

    def test_of_which_nothing_is_known_is_looked_at(self) -> None:
        """With a command that tries the relay; a code without a cure leaves it to the words."""
        self.assertIn("zope-sendmail check", cure("strange"))
        self.assertIn("zope-sendmail check", cure("strange", 451))
        self.assertIn("firewall", cure("timed out", 451))


if __name__ == "__main__":
    unittest.main()
