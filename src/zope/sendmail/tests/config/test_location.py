"""Where a queue is, as a text: what is understood, and what no entry point takes."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import unittest
from collections.abc import Callable

from zope.app.appsetup.product import setProductConfiguration
from zope.configuration.exceptions import ConfigurationError
from zope.testing.cleanup import cleanUp

from zope.sendmail import startup
from zope.sendmail.cli.app import main
from zope.sendmail.config import location as locations
from zope.sendmail.config.location import (
    absolute,
    add_scheme,
    check_location,
    directories_of,
    is_maildir,
    scheme_of,
    urls_of,
    usable_location,
)
from zope.sendmail.delivery import QueuedMailDelivery
from zope.sendmail.errors import InvalidLocation, QueueError
from zope.sendmail.processor.thread import QueueProcessorThread
from zope.sendmail.queue import open_queue, recognized
from zope.sendmail.sender import MailReader, MailSender, MailWriter
from zope.sendmail.tests.zcml.test_directives import SMTP, Fixture

#: Texts that begin like a URL, or nearly like what is known.
REFUSED = (
    "redis://user:secret@example.org/0",
    "postgres:secret",
    " redis://user:secret@example.org/0",
    "memory:secret",
    "MEMORY:",
    "spool:redis://user:secret@example.org",
    "spool:/var/spool/a;redis://user:secret@example.org",
    "file:///var/secret",
    "C:secret",
)


class ALocation(unittest.TestCase):
    def test_is_a_directory_a_spool_or_memory(self) -> None:
        """Each with the directories that it names."""
        for location, directories, maildir in (
            ("/var/mail/q", ("/var/mail/q",), True),
            ("q", ("q",), True),
            ("./redis:q", ("./redis:q",), True),
            ("/var/a:b", ("/var/a:b",), True),
            ("spool:/var/a; /var/b", ("/var/a", "/var/b"), False),
            ("memory:", (), False),
        ):
            self.assertEqual(check_location(location), location)
            self.assertEqual((directories_of(location), is_maildir(location)), (directories, maildir))

    def test_with_another_scheme_is_refused(self) -> None:
        """The text names the scheme, the cure, and nothing of what stands behind it."""
        for location in REFUSED:
            for ask in (check_location, directories_of, is_maildir, recognized, open_queue, usable_location):
                with self.assertRaisesRegex(InvalidLocation, "write the path of a directory") as caught:
                    ask(location)
                self.assertNotIn("secret", str(caught.exception))
        self.assertTrue(issubclass(InvalidLocation, QueueError))
        self.assertTrue(issubclass(InvalidLocation, ValueError))

    def test_that_a_processor_cannot_share_is_refused(self) -> None:
        """A queue in memory belongs to who opened it."""
        with self.assertRaises(ValueError) as caught:
            usable_location("memory:")
        why = "memory: would be another queue for the delivery than for its processor; write a directory"
        self.assertEqual(str(caught.exception), why)
        self.assertEqual(usable_location("/var/mail/q"), "/var/mail/q")

    def test_means_the_same_from_everywhere(self) -> None:
        """A relative path becomes a whole one; what is no path stays as it is."""
        self.assertEqual(absolute("q"), os.path.join(os.getcwd(), "q"))
        for location in ("/q", "memory:", "spool:q", "postgresql://u@h/d"):
            self.assertEqual(absolute(location), location)

    def test_is_told_with_what_would_be_right(self) -> None:
        """Word by word, with the schemes that are known."""
        added = "other"
        self.addCleanup(locations._known.discard, added)
        for others in ("postgresql://", "other:, postgresql://"):
            for location, scheme in (
                ("redis://h", "redis"),
                ("MEMORY:", "MEMORY"),
                ("memory:x", "memory"),
                ("spool:/a;redis://h", "redis"),
                ("postgres:x", "postgres"),
                ("postgresql:/x", "postgresql"),
            ):
                with self.assertRaises(InvalidLocation) as caught:
                    scheme_of(location)
                why = (
                    f"a queue cannot be at {scheme}:...; write the path of a directory (./{scheme}:... if one is "
                    f"called so), spool: and directories of maildrop, {others}, or memory: alone"
                )
                self.assertEqual(str(caught.exception), why)
            add_scheme(added)
        self.assertEqual(scheme_of("other:x"), added)


class ADatabase(unittest.TestCase):
    URL = "postgresql://user@h/d?queue=news"

    def refused(self, location: str) -> str:
        with self.assertRaises(InvalidLocation) as caught:
            scheme_of(location)
        self.assertNotIn("secret", str(caught.exception))
        return str(caught.exception)

    def test_is_a_url_or_several(self) -> None:
        """Each of a database, in either spelling of the scheme."""
        for location, scheme, urls in (
            (self.URL, "postgresql", (self.URL,)),
            ("postgres://h/d", "postgres", ("postgres://h/d",)),
            (f"postgres://h/d; {self.URL};;", "postgres", ("postgres://h/d", self.URL)),
        ):
            self.assertEqual((scheme_of(location), urls_of(location)), (scheme, urls))
            self.assertEqual((directories_of(location), is_maildir(location)), ((), False))
        for second in ("/var/mail/q", "redis://user:secret@h", "memory:"):
            why = "between ; there has to be a URL of a database each; write postgresql://... for each"
            self.assertEqual(self.refused(f"{self.URL};{second}"), why)

    def test_has_no_password_in_its_url(self) -> None:
        """In none of several, in no form, not even an empty one."""
        why = (
            "postgresql:... has a password in it, which others would see; put it into a file that passfile= names, a "
            "service that service= names, or the environment (PGPASSWORD)"
        )
        for url in (
            "postgresql://user:secret@h/d",
            "postgresql://h/d?password=secret",
            "postgresql://h/d?queue=a&PASSWORD=",
            "postgresql://h/d?sslpassword=secret",
            "postgresql://h/d?oauth_client_secret=secret",
        ):
            for location in (url, f"{self.URL};{url}"):
                self.assertEqual(self.refused(location), why)

    def test_that_is_no_url_is_told_so(self) -> None:
        """Without repeating it: it may have a password in it."""
        why = "postgresql:... is not a URL; write postgresql://user@host/database?queue=name"
        self.assertEqual(self.refused("postgresql://user:secret@[::1/d"), why)


class AnEmptyText(unittest.TestCase):
    def test_is_refused(self) -> None:
        """It would be the directory in which the program was started."""
        for location in ("", "  ", "\n"):
            calls: tuple[Callable[[str], object], ...] = (
                scheme_of, open_queue, QueuedMailDelivery, MailWriter, MailReader, MailSender,
            )  # fmt: skip
            for call in calls:
                with self.subTest(call, location=location), self.assertRaises(InvalidLocation) as caught:
                    call(location)
                why = "the place of a queue is empty; write the path of a directory"
                self.assertEqual(str(caught.exception), why)


class EveryEntryPoint(Fixture):
    def setUp(self) -> None:
        super().setUp()
        before = os.getcwd()
        os.chdir(self.enterContext(tempfile.TemporaryDirectory()))
        self.addCleanup(os.chdir, before)

    def assertNotTaken(self, call: Callable[[], object], *kinds: type[BaseException]) -> None:
        out = io.StringIO()
        with contextlib.redirect_stderr(out), self.assertRaises(kinds or InvalidLocation) as caught:
            call()
        text = out.getvalue() + str(caught.exception) + repr(caught.exception)
        self.assertNotIn("secret", text)
        self.assertRegex(text, "cannot be at|another queue")
        self.assertEqual(os.listdir(), [])

    def test_of_a_program_refuses_it(self) -> None:
        """When it is named, not when the first mail comes."""
        for location in REFUSED:
            for call in (
                QueuedMailDelivery,
                MailWriter,
                MailReader,
                MailSender,
                QueueProcessorThread().setQueuePath,
                lambda location: startup.Declaration("Mail", location, None).make(),
            ):
                self.assertNotTaken(lambda: call(location))  # noqa: B023 - called at once

    def test_of_the_command_line_refuses_it(self) -> None:
        """As an argument, and in an ini file."""
        for location in REFUSED:
            self.assertNotTaken(lambda: main([location]), SystemExit)  # noqa: B023 - called at once
            ini = self.in_directory("q.ini", f"[app:zope-sendmail]\nqueue_path = {location.strip()}\n")
            self.assertNotTaken(lambda: main(["--config", ini]), SystemExit)  # noqa: B023 - called at once

    def test_of_zcml_refuses_it(self) -> None:
        """As does zope.conf; there, memory: as well, for the processor would have another queue."""
        for location in (*REFUSED, "memory:"):
            cleanUp()
            path = f'<mail:queuedDelivery mailer="smtp" queuePath="{location}" />'
            with self.assertRaises(ConfigurationError) as caught:
                self.load(SMTP, path)
            self.assertRegex(str(caught.exception.__cause__ or caught.exception), "cannot be at|another queue")
            setProductConfiguration("mail", {"queue-path": location})
            self.assertNotTaken(lambda: self.load(SMTP), ConfigurationError)
        self.assertEqual(os.listdir(self.directory), ["site.zcml"])


if __name__ == "__main__":
    unittest.main()
