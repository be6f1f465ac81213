"""The section ``<product-config mail>`` of zope.conf: what the directives of a site leave out.

Fails with `ConfigurationError`, which names the key and the cure.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from zope.configuration.exceptions import ConfigurationError

from zope.sendmail import startup
from zope.sendmail.config.location import directories_of, usable_location
from zope.sendmail.config.options import (
    LOGIN,
    PATHS,
    QUEUE,
    RELAY,
    ROUTING,
    SENDING,
    Parser,
    Settings,
    one_of,
    read_settings,
)

_NOT_IN_PRODUCT_CONFIG = {"no_tls", "force_tls", "implicit_tls"}
_PRODUCT_CONFIG: dict[str, Parser] = {
    name.replace("_", "-"): parse
    for name, parse in {**QUEUE, **SENDING, **RELAY, "start": one_of(startup.Start)}.items()
    if name not in _NOT_IN_PRODUCT_CONFIG
}
_PATHS = tuple(name.replace("_", "-") for name in PATHS)


def read_product_config() -> dict[str, Any]:
    """Return what ``<product-config mail>`` of zope.conf says, by the names of the settings.

    :raises ConfigurationError: for an unknown key, a value that cannot be meant, a path that is not whole.
    """
    try:
        from zope.app.appsetup.product import getProductConfiguration
    except ImportError:
        return {}
    texts: Mapping[str, str] = getProductConfiguration("mail") or {}
    try:
        directories = directories_of(usable_location(texts["queue-path"])) if texts.get("queue-path") else ()
        settings = read_settings(texts, _PRODUCT_CONFIG)
    except ValueError as error:
        raise ConfigurationError(f"<product-config mail>: {error}") from error
    paths = [(name, texts[name]) for name in _PATHS if name in texts]
    for name, path in [*paths, *(("queue-path", path) for path in directories)]:
        if not os.path.isabs(path):
            raise ConfigurationError(
                f"<product-config mail>: {name} {path!r} is relative, and it is not said to what; write the whole path"
            )
    return by_option_name(settings)


def relay_of(config: Settings, given: Settings) -> Settings:
    """Return what zope.conf says about the mailer with the settings `given`.

    One mailer's password must not go to another's relay: zope.conf is about the relay it names, and its
    password is that of the user it names.
    """

    def differs(name: str) -> bool:
        return bool(given.get(name) and config.get(name)) and given[name] != config[name]

    if differs("hostname"):
        return {}
    if differs("username"):
        return {name: value for name, value in config.items() if name not in LOGIN}
    return config


def by_option_name(settings: Settings) -> dict[str, Any]:
    """Return `settings` with camelCase and hyphens made underscores.

    :raises TypeError: for what is no setting.
    """
    names = {re.sub("[A-Z]", lambda match: "_" + match[0].lower(), name).replace("-", "_"): name for name in settings}
    unknown = set(names) - {*RELAY, *QUEUE, *SENDING, *ROUTING, "start"}
    if unknown:
        raise TypeError(f"unknown: {', '.join(sorted(unknown))}")
    return {option: settings[name] for option, name in names.items()}
