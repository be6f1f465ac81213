"""A password file that changes while its user runs."""

from __future__ import annotations

import os
import tempfile
import unittest
from unittest import mock

from zope.sendmail.config import passwordfile
from zope.sendmail.config.passwordfile import PasswordFile, follow_password_file
from zope.sendmail.mailer import SMTPMailer


class APasswordFile(unittest.TestCase):
    def setUp(self) -> None:
        self.path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "password")
        self.write("first\n")

    def write(self, text: str) -> None:
        with open(self.path + ".new", "w", encoding="utf-8") as file:
            file.write(text)
        os.rename(self.path + ".new", self.path)

    def test_is_read_again_when_it_changes(self) -> None:
        """And not before."""
        password = PasswordFile(self.path)
        self.assertIs(password(), password())
        self.assertEqual(password(), {"password": "first"})
        self.write("second\n")
        with self.assertLogs("zope.sendmail.config.passwordfile", "INFO") as logs:
            self.assertEqual(password(), {"password": "second"})
        why = f"The password file {self.path} has changed; its password is used from now on."
        self.assertEqual([record.getMessage() for record in logs.records], [why])
        self.write("second\n")
        with self.assertNoLogs("zope.sendmail.config.passwordfile"):
            self.assertIs(password(), password())

    def test_is_not_read_as_long_as_it_stays_as_it_is(self) -> None:
        """Not even after one change."""
        password = PasswordFile(self.path)
        self.write("second\n")
        password()
        with mock.patch.object(passwordfile, "read_password") as read:
            password()
        read.assert_not_called()

    def test_that_becomes_useless_is_told(self) -> None:
        """The former password goes on, until there is another one."""
        password = PasswordFile(self.path)
        os.unlink(self.path)
        with self.assertLogs("zope.sendmail.config.passwordfile", "WARNING") as logs:
            self.assertEqual(password(), {"password": "first"})
        why = f"The former password is used: the password file {self.path!r} cannot be read: [Errno 2] No such file"
        self.assertEqual([record.getMessage()[: len(why)] for record in logs.records], [why])
        with self.assertNoLogs("zope.sendmail.config.passwordfile", "WARNING"):
            self.assertEqual(password(), {"password": "first"})
        self.write("third\n")
        self.assertEqual(password(), {"password": "third"})

    def test_must_be_there_at_the_beginning(self) -> None:
        """A slip of the pen is told at once."""
        with self.assertRaisesRegex(ValueError, "cannot be read"):
            PasswordFile(self.path + ".nonesuch")

    def test_does_not_show_its_password(self) -> None:
        """In no repr."""
        self.assertEqual(repr(PasswordFile(self.path)), f"PasswordFile({self.path!r})")

    def test_is_followed_by_a_mailer(self) -> None:
        """Its settings are those of now; other attributes count as ever."""
        mailer = SMTPMailer("localhost", 25, "jane", "first", no_tls=True, allow_clear_password=True)
        follow_password_file(mailer, {"password_file": self.path})
        self.assertIs(mailer.relay_settings(), mailer.relay_settings())
        self.write("second\n")
        self.assertEqual(mailer.relay_settings().password, "second")
        mailer.port = 26
        self.assertEqual((mailer.relay_settings().port, mailer.relay_settings().password), (26, "second"))

    def test_is_not_followed_where_other_settings_change(self) -> None:
        """Nor where there is none, nor by a class that knows no changing settings."""
        mailer = SMTPMailer(settings=dict)
        self.assertIs(follow_password_file(mailer, {"password_file": self.path}).settings, dict)
        self.assertIsNone(follow_password_file(SMTPMailer(), {}).settings)
        follow_password_file(object(), {"password_file": self.path})


if __name__ == "__main__":
    unittest.main()
