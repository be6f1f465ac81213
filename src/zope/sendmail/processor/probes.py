"""Trying a paused relay before its time: because an operator asks for it, or because its settings have changed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from zope.sendmail.interfaces import IMailQueue
from zope.sendmail.processor.relay import Relay
from zope.sendmail.reporting import maillog


class Probes:
    """Ends pauses of the relays of one processor.

    Concurrency: one thread.
    """

    def __init__(self, queue: IMailQueue, relays: Iterable[Relay]) -> None:
        self._queue = queue
        self._relays = relays
        #: The settings with which a relay that is paused was asked last.
        self._settings: dict[str, Any] = {}

    def heed(self) -> None:
        """Let relays be tried for which there is a reason to expect another answer than the last one."""
        for relay in self._relays:
            if not relay.pause():
                self._settings.pop(relay.name, None)
                continue
            settings = _settings_of(relay.mailer)
            before = self._settings.setdefault(relay.name, settings)
            if settings != before or self._queue.probe_asked(relay.name) > relay.asked:
                del self._settings[relay.name]
                maillog.relay_probed(relay.name)
                relay.end_pause()


def _settings_of(mailer: Any) -> Any:
    """Return what tells whether a mailer would make another connection than before.

    Settings that differ each time they are asked for tell nothing: then it is the mailer itself.
    """
    try:
        settings = mailer.relay_settings()
        return settings if settings == mailer.relay_settings() else mailer
    except Exception:  # noqa: BLE001 - the settings may be any program's code, and the next attempt tells what is wrong
        return mailer
