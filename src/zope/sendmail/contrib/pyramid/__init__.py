"""Pyramid: ``config.include("zope.sendmail.contrib.pyramid")`` gives every request a ``request.mailer``.

The settings of the application have the names of pyramid_mailer's, such as ``mail.host``.  Mail follows the transaction
of ``request.tm`` (pyramid_tm, also with an explicit manager); without one it is in the queue when ``send()`` returns.
The first request starts the thread that sends: ``pshell`` and other scripts send nothing that they did not write.

Fails with `pyramid.exceptions.ConfigurationError` where a setting is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyramid.events import NewRequest
from pyramid.exceptions import ConfigurationError

from zope.sendmail.config.options import RELAY, Parser, boolean, one_of
from zope.sendmail.config.settings import Tls
from zope.sendmail.contrib.site import (
    SETTINGS,
    RequestMailer as RequestMailer,
    SiteMailer as SiteMailer,
    ThreadStart as ThreadStart,
    make_site_mailer,
)

#: The setting that says how the others begin.
PREFIX = "zope.sendmail.prefix"

_REGISTRY_KEY = "zope.sendmail.contrib.pyramid"


def _tls(text: str) -> Tls | None:
    """Return what pyramid_mailer says by yes and no, and the words of this package."""
    try:
        return Tls.REQUIRED if boolean(text) else None
    except ValueError:
        word: Tls = one_of(Tls)(text)
        return word


#: Names of pyramid_mailer that mean nothing here, and what does.
_INSTEAD = {
    "debug": "a FileMailer, see docs/howto/mailers.rst, or queue_path = memory: in tests",
    "debug_include_bcc": "nothing: Bcc is never sent",
    "sendmail_app": "a ProgramMailer, see docs/howto/mailers.rst",
    "sendmail_template": "a ProgramMailer, see docs/howto/mailers.rst",
}
#: Names of pyramid_mailer -> ours.
_RENAMED = {"host": "hostname", "ssl": "implicit_tls"}
_SETTINGS: Mapping[str, Parser] = {
    **{name: parse for name, parse in SETTINGS.items() if name != "hostname"},
    "host": RELAY["hostname"],
    "ssl": boolean,
    "tls": _tls,
}


def read_site_mailer(settings: Mapping[str, Any], prefix: str = "mail.") -> SiteMailer:
    """Return what the settings of an application describe.

    :param settings: those of Pyramid; names that do not begin with `prefix` are other people's.
    :raises ValueError: for a setting that is unknown, missing, or cannot be meant.
    """
    texts = {
        name.removeprefix(prefix): str(value)
        for name, value in settings.items()
        if name.startswith(prefix) and value is not None
    }
    for name in texts.keys() & _INSTEAD.keys():
        raise ValueError(f"{name} is not known here; instead: {_INSTEAD[name]}")
    return make_site_mailer(texts, _SETTINGS, _RENAMED, lambda name: f"{prefix}{name}")


def site_mailer(registry: Any) -> SiteMailer:
    """Return the mail of an application, given its registry: for scripts and threads, which have no request."""
    mailer: SiteMailer = registry[_REGISTRY_KEY]
    return mailer


def request_mailer(request: Any) -> RequestMailer:
    """Return ``request.mailer``."""
    return site_mailer(request.registry).for_transactions(getattr(request, "tm", None))


def includeme(config: Any) -> None:
    """Add ``request.mailer``; called by ``config.include("zope.sendmail.contrib.pyramid")``.

    Does nothing where `zope.sendmail.contrib.pyramid.testing` has been included.
    """
    if _REGISTRY_KEY in config.registry:
        return
    settings = config.registry.settings
    prefix = settings.get(PREFIX, "mail.")
    try:
        mailer = read_site_mailer(settings, prefix)
    except ValueError as error:
        raise ConfigurationError(f"the settings {prefix}*: {error}") from error
    install(config, mailer)


def install(config: Any, mailer: SiteMailer, *, replaces: bool = False) -> None:
    """Give every request of an application a ``request.mailer`` of this one.

    :param replaces: take the place of one that may be there.
    """
    is_new = _REGISTRY_KEY not in config.registry
    if is_new or replaces:
        config.registry[_REGISTRY_KEY] = mailer
    if is_new:
        config.add_request_method(request_mailer, "mailer", reify=True)
        config.add_subscriber(_start, NewRequest)


def _start(event: Any) -> None:
    """Start what sends, with the first request."""
    site_mailer(event.request.registry).start()
