"""A Maildir into which bounces are delivered: each is handled once, and stays where a mail reader shows it as read.

Fails with `OSError` if the directory cannot be read.
"""

from __future__ import annotations

import errno
import os

from zope.sendmail.bounces.handler import BounceHandler
from zope.sendmail.bounces.parser import Bounce
from zope.sendmail.reporting import maillog

#: Octets of a message that is read; a bounce of more is none.
MOST = 8 * 1024 * 1024

_NO_MAILDIR = "there is no Maildir; correct the path, or let the mail server deliver a bounce first, which makes it"


class MaildirWatch:
    """Handles what is new in a Maildir.

    Guarantee: a message is in ``cur/`` when it was handled; a death in between has it handled once more, which changes
    nothing.  A message that cannot be handled stays in ``new/`` and keeps no other one back.
    """

    def __init__(self, directory: str, handler: BounceHandler) -> None:
        self._directory = directory
        self._handler = handler
        self._told: set[str] = set()

    def look(self) -> list[Bounce]:
        """Handle what is new, and return what it said.

        :raises OSError: there is no such Maildir, or it cannot be read.
        """
        found: list[Bounce] = []
        for name in sorted(self._names()):
            try:
                found += self._handle(name)
            except OSError as error:
                if name not in self._told:
                    self._told.add(name)
                    maillog.bounce_left(name, error)
        return found

    def _names(self) -> list[str]:
        try:
            return os.listdir(os.path.join(self._directory, "new"))
        except FileNotFoundError:
            raise FileNotFoundError(errno.ENOENT, _NO_MAILDIR, self._directory) from None

    def _handle(self, name: str) -> list[Bounce]:
        path = os.path.join(self._directory, "new", name)
        # Not a link, and no pipe that nothing is ever written to.
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            message = file.read(MOST)
        bounces = self._handler.handle(message)
        os.rename(path, os.path.join(self._directory, "cur", f"{name}:2,S"))
        return bounces
