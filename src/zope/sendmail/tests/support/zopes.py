"""What the tests of the Maildrop Host share: whether there is Zope, configurations, an application with a database."""

from __future__ import annotations

import importlib.util
import os
import tempfile
import unittest
from typing import Any

import transaction

#: The second is looked for only where the first is: looking imports the package around it.
MISSING = not (importlib.util.find_spec("Zope2") and importlib.util.find_spec("Products.MailHost"))

needs_zope = unittest.skipIf(MISSING, "Zope is not installed: python3 bootstrap.py buildout -c zope.cfg; bin/zope-test")

MESSAGE = "From: shop@example.org\nTo: jane@example.org\nSubject: Hello\n\nGood day.\n"


def write_config(directory: str, name: str = "maildrop.conf", **settings: object) -> str:
    """A configuration with its home below `directory`; returns its path."""
    values = {
        "MAILDROP_HOME": os.path.join(directory, name + ".home"),
        "SMTP_HOST": "127.0.0.1",
        "SMTP_PORT": 25,
        "MAILDROP_INTERVAL": 120,
        "MAILDROP_TLS": 0,
        **settings,
    }
    path = os.path.join(directory, name)
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(f"{key}={value!r}\n" for key, value in values.items())
    return path


@needs_zope
class WithHost(unittest.TestCase):
    """A Maildrop Host with the configuration ``own`` of its own, and ``other``."""

    def setUp(self) -> None:
        from zope.sendmail.maildrop import configfiles, spooldelivery

        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        self.addCleanup(configfiles.CONFIG_PATHS.clear)
        self.addCleanup(spooldelivery._open.clear)
        self.addCleanup(transaction.abort)
        transaction.abort()
        configfiles.CONFIG_PATHS.update(
            own=self.config(), other=self.config("other.conf", SMTP_HOST="other.example.org")
        )
        self.host = self.make()

    def config(self, name: str = "maildrop.conf", **settings: object) -> str:
        return write_config(self.directory, name, **settings)

    def make(self, key: str = "own") -> Any:
        from zope.sendmail.maildrop.host import MaildropHost

        host = MaildropHost("MailHost")
        host.setConfigPath(key)
        return host

    @property
    def queue(self) -> Any:
        return self.host._queue()

    def waiting(self) -> list[tuple[str, ...]]:
        """Recipients of the mails that a daemon would send, in order."""
        return [mail.envelope.recipients for mail in self.queue.admin.mails(["ready"])]

    def text(self) -> bytes:
        """The message of the first mail."""
        with self.queue.admin.read(next(iter(self.queue.admin.names()))) as stream:
            return bytes(stream.read())
