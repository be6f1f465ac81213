"""``zope-sendmail check``: what works and what does not, step by step, and nothing is sent."""

from __future__ import annotations

import contextlib
import io
import os
import ssl
import tempfile
import unittest

import trustme

from zope.sendmail.cli import app
from zope.sendmail.system.disk import Disk
from zope.sendmail.testing.relay import Relay


def server_context(authority: trustme.CA) -> ssl.SSLContext:
    """Return a TLS context for a relay on this host."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


class CheckTest(unittest.TestCase):
    def check(self, relay: Relay, *words: str, port: int = 0) -> tuple[int, str]:
        """The exit status, and what was said."""
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            try:
                status = app.main(["check", "--hostname", "localhost", "--port", str(port or relay.port), *words])
            except SystemExit as error:
                status = int(error.code or 0)
        self.assertEqual(relay.mails, [])
        return status, said.getvalue()


class ARelayThatWorks(CheckTest):
    def test_is_said_step_by_step(self) -> None:
        """Name, connection, TLS, certificate, login."""
        authority = trustme.CA()
        relay = self.enterContext(Relay(tls=server_context(authority), users={"jane": "secret"}))
        with authority.cert_pem.tempfile() as cafile:
            status, said = self.check(relay, "--cafile", cafile, "--username", "jane", "--password", "secret")
        self.assertEqual(status, 0, said)
        for step in ("name", "connection", "tls +TLSv1", "certificate +valid until"):
            self.assertRegex(said, f"ok +{step}")
        self.assertIn("ok      login        jane is accepted", said)
        self.assertIn("everything works; nothing was sent", said)
        self.assertNotIn("secret", said)

    def test_is_asked_about_an_envelope(self) -> None:
        """Without DATA; each recipient has an answer."""
        relay = self.enterContext(Relay())
        status, said = self.check(relay, "--from", "me@example.org", "--to", "one@example.org")
        self.assertEqual(status, 0, said)
        self.assertRegex(said, r"ok +envelope +one@example\.org")
        self.assertIn("MAIL FROM:<me@example.org>", " ".join(relay.commands))
        self.assertNotIn("DATA", relay.commands)

    def test_may_refuse_a_recipient(self) -> None:
        """That is what is wrong then."""
        relay = self.enterContext(Relay())
        relay.on("RCPT", "550 5.1.1 no such user", about="nobody")
        status, said = self.check(relay, "--to", "nobody@example.org", "--to", "one@example.org")
        self.assertEqual(status, 1)
        self.assertRegex(said, r"FAILED +envelope +nobody@example\.org: 550 5\.1\.1 no such user")
        self.assertRegex(said, r"ok +envelope +one@example\.org")

    def test_shows_no_certificate_without_tls(self) -> None:
        """Although a login asks for one."""
        relay = self.enterContext(Relay(users={"jane": "secret"}))
        words = ("--tls", "never", "--allow-clear-password", "--username", "jane", "--password", "secret")
        status, said = self.check(relay, *words)
        self.assertEqual(status, 0, said)
        self.assertRegex(said, r"- +certificate +there is none without TLS")

    def test_says_what_is_left_out(self) -> None:
        """No TLS, no login: mail goes in clear."""
        _, said = self.check(self.enterContext(Relay()))
        self.assertRegex(said, r"- +tls +the relay offers none; mail goes in clear")
        self.assertRegex(said, r"- +login +the settings have none")


class ARelayThatDoesNot(CheckTest):
    def test_may_have_no_tls_for_a_login(self) -> None:
        """That is the step that fails, not the certificate behind it."""
        relay = self.enterContext(Relay(users={"jane": "secret"}))
        status, said = self.check(relay, "--username", "jane", "--password", "secret")
        self.assertEqual(status, 1)
        self.assertRegex(said, r"FAILED +tls +SMTPNotSupportedError: .* does not offer STARTTLS")
        self.assertIn("tls=never", said)
        self.assertNotIn("in clear", said)

    def test_may_not_be_there(self) -> None:
        """The first step that fails is the last one, with its cure."""
        relay = Relay()
        relay.start()
        port = relay.port
        relay.stop()
        status, said = self.check(relay, port=port)
        self.assertEqual(status, 1)
        self.assertRegex(said, r"FAILED +connection +ConnectionRefusedError")
        self.assertIn("Cure: Nothing listens there", said)
        self.assertNotIn("login", said)

    def test_may_have_no_name(self) -> None:
        """The resolver does not know it."""
        relay = self.enterContext(Relay())
        status, said = self.check(relay, "--hostname", "nonesuch.invalid")
        self.assertEqual(status, 1)
        self.assertRegex(said, r"FAILED +name")
        self.assertIn("Cure: The name of the relay is not known", said)

    def test_may_refuse_the_password(self) -> None:
        """In its words, and without ours."""
        authority = trustme.CA()
        relay = self.enterContext(Relay(tls=server_context(authority), users={"jane": "right"}))
        with authority.cert_pem.tempfile() as cafile:
            status, said = self.check(relay, "--cafile", cafile, "--username", "jane", "--password", "wr0ng")
        self.assertEqual(status, 1)
        self.assertRegex(said, r"FAILED +login +535")
        self.assertIn("correct username and password", said)
        self.assertNotIn("wr0ng", said)

    def test_may_have_a_certificate_that_is_not_trusted(self) -> None:
        """TLS works, and the certificate does not."""
        relay = self.enterContext(Relay(tls=server_context(trustme.CA())))
        status, said = self.check(relay, "--tls", "required")
        self.assertEqual(status, 1)
        self.assertRegex(said, r"ok +tls +TLSv1")
        self.assertRegex(said, r"FAILED +certificate .*certificate verify failed")


class TheCommandLine(CheckTest):
    def test_is_that_of_the_daemon(self) -> None:
        """So that it can be tried as it is; the queue is not touched."""
        relay = self.enterContext(Relay())
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "queue")
            ini = os.path.join(directory, "mail.ini")
            Disk().create(ini, b"[app:zope-sendmail]\nqueue_path = %s\nno_tls = yes\n" % path.encode())
            status, said = self.check(relay, path, "--daemon", "--config", ini, "--interval", "5", "-q")
            self.assertEqual((status, os.path.exists(path)), (0, False), said)

    def test_may_be_wrong(self) -> None:
        """78 for settings that contradict each other."""
        relay = self.enterContext(Relay())
        self.assertEqual(self.check(relay, "--password", "x")[0], 78)

    def test_of_7_3_means_what_it_meant(self) -> None:
        """A Maildir may be called check."""
        with tempfile.TemporaryDirectory() as directory:
            before = os.getcwd()
            self.addCleanup(os.chdir, before)
            os.chdir(directory)
            for name in ("new", "cur", "tmp"):
                os.makedirs(os.path.join("check", name))
            relay = self.enterContext(Relay())
            self.assertEqual(app.main(["check", "--port", str(relay.port), "-q"]), 0)
            os.chdir(before)


if __name__ == "__main__":
    unittest.main()
