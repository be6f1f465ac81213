"""Tests of Pyramid applications: ``config.include("zope.sendmail.contrib.pyramid.testing")``, and nothing leaves.

It takes the place of ``zope.sendmail.contrib.pyramid``, whichever of them is included first.  Mail gets into an
`Outbox` when its transaction commits.
"""

from __future__ import annotations

from typing import Any

from zope.sendmail.contrib.pyramid import PREFIX, install, read_site_mailer, site_mailer
from zope.sendmail.testing.outbox import Outbox


def outbox(registry: Any) -> Outbox:
    """Return what an application has sent.

    :param registry: that of the application, such as ``app.registry`` or ``request.registry``.
    """
    return Outbox(site_mailer(registry).sender.queue)


def includeme(config: Any) -> None:
    """Add a ``request.mailer`` that puts all mail into the outbox; other settings of the application stay unused."""
    prefix = config.registry.settings.get(PREFIX, "mail.")
    kept = {f"{prefix}default_sender": config.registry.settings.get(f"{prefix}default_sender")}
    mailer = read_site_mailer({**kept, f"{prefix}queue_path": "memory:", f"{prefix}start": "never"}, prefix)
    install(config, mailer, replaces=True)
