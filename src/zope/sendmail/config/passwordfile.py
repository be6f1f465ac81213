"""A password in a file that may change while its user runs: each connection is made with what is in the file then."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any, TypeVar

from zope.sendmail.config.options import read_password
from zope.sendmail.system.forklock import ForkLock

log = logging.getLogger("zope.sendmail.config.passwordfile")

_Mailer = TypeVar("_Mailer")


class PasswordFile:
    """The password in a file, read anew whenever the file changes; for `SMTPMailer.settings`.

    A file that becomes unreadable is told once in the log, and the former password goes on.  Concurrency: any thread.

    :raises ValueError: if there is no password at the beginning.
    """

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self._mutex = ForkLock()
        self._seen = _signature(self.path)
        self._settings = {"password": read_password(self.path)}

    def __call__(self) -> dict[str, str]:
        """Return the settings of a mailer that the file decides; the same object as long as it does not change."""
        with self._mutex:
            now = _signature(self.path)
            if now != self._seen:
                self._seen = now
                self._read()
            return self._settings

    def _read(self) -> None:
        try:
            password = read_password(self.path)
        except ValueError as error:
            log.warning("The former password is used: %s", error)
            return
        if password != self._settings["password"]:
            log.info("The password file %s has changed; its password is used from now on.", self.path)
            self._settings = {"password": password}

    def __repr__(self) -> str:
        return f"PasswordFile({self.path!r})"


def follow_password_file(mailer: _Mailer, settings: Mapping[str, Any]) -> _Mailer:
    """Let a mailer use the password that is in its password file now, as often as it changes.

    A mailer whose class knows no changing settings, or that has others, keeps the password it was made with.

    :param settings: what the mailer was made of, by the names of `zope.sendmail.config.options.RELAY`.
    :returns: the mailer.
    :raises ValueError: if the file has no password.
    """
    path = settings.get("password_file")
    if path and getattr(mailer, "settings", mailer) is None:
        mailer.settings = PasswordFile(path)  # type: ignore[attr-defined]  # an `SMTPMailer`, or a class like it
    return mailer


def _signature(path: str) -> tuple[int, int, int, int] | None:
    """Return what changes when a file is written or replaced; None if it cannot be seen."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino
