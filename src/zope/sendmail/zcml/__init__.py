"""ZCML: mailers and deliveries, in the namespace ``http://namespaces.zope.org/mail``.

What a directive leaves out comes from ``<product-config mail>`` of zope.conf, then from the defaults.
Loading ZCML registers and declares; it starts no thread, sends nothing and makes no directory.  Fails with
`ConfigurationError`; a missing mailer is found before any delivery is registered.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from zope.component import ComponentLookupError, getGlobalSiteManager, getUtility
from zope.component.zcml import handler
from zope.configuration.exceptions import ConfigurationError
from zope.processlifetime import IDatabaseOpenedWithRoot

from zope.sendmail import startup
from zope.sendmail.config.options import (
    LOGIN,
    QUEUE,
    RELAY,
    ROUTING,
    Parser,
    Settings,
    mailer_keywords,
    merge,
    one_of,
    processor_keywords,
    read_settings,
    routes_of,
)
from zope.sendmail.delivery import DirectMailDelivery, QueuedMailDelivery
from zope.sendmail.interfaces import IMailDelivery, IMailer
from zope.sendmail.mailer import SMTPMailer
from zope.sendmail.processor.thread import QueueProcessorThread
from zope.sendmail.transports.lmtp import LMTPMailer
from zope.sendmail.transports.redirect import refuse_detours
from zope.sendmail.zcml.schema import (
    SECURITY_SUPPORT,
    IDeliveryDirective,
    IDirectDeliveryDirective,
    ILMTPMailerDirective,
    IMailerDirective,
    IQueuedDeliveryDirective,
    ISMTPMailerDirective,
)

# QueueProcessorThread: BBB, zope.sendmail 3.5 to 7.3 had it here.  To replace it here has no effect.
__all__ = [
    "SECURITY_SUPPORT",
    "IDeliveryDirective",
    "IDirectDeliveryDirective",
    "ILMTPMailerDirective",
    "IMailerDirective",
    "IQueuedDeliveryDirective",
    "ISMTPMailerDirective",
    "QueueProcessorThread",
    "directDelivery",
    "lmtpMailer",
    "queuedDelivery",
    "smtpMailer",
]

#: Mailers may be registered by any directive, and zope.security looks for undefined permissions with order
#: 9999999.  We look for mailers and register deliveries afterwards, so an error leaves none behind.
_CHECK, _REGISTER = 10_000_000, 10_000_001

_NOT_IN_PRODUCT_CONFIG = {"no_tls", "force_tls", "implicit_tls"}
_PRODUCT_CONFIG: dict[str, Parser] = {
    name.replace("_", "-"): parse
    for name, parse in {**QUEUE, **RELAY, "start": one_of(startup.Start)}.items()
    if name not in _NOT_IN_PRODUCT_CONFIG
}
_Value = TypeVar("_Value")
_PATHS = ("queue-path", "password-file", "cafile", "token-file", "certfile", "keyfile")


# --- handlers -----------------------------------------------------------------------------------------------


def queuedDelivery(
    _context: Any,
    queuePath: str | None = None,
    mailer: str = "",
    permission: str | None = None,
    name: str = "Mail",
    processorThread: bool = True,  # noqa: FBT001, FBT002
    *,
    envelopeSender: str | None = None,
    **settings: Any,
) -> None:
    """See `IQueuedDeliveryDirective`."""
    given = {**_by_option_name(settings), "queue_path": queuePath}
    if not processorThread and given.setdefault("start", startup.Start.NEVER) is not startup.Start.NEVER:
        raise ConfigurationError(f"start={given['start']} and processorThread=false contradict each other; keep start")

    others = given.get("mailers") or ()

    def register() -> None:
        relay = _get_mailer(mailer)
        merged = _checked(lambda: merge((given, _product_config())))
        routes = _checked(lambda: routes_of(mailer, merged))
        _checked(lambda: refuse_detours(routes, _get_mailer))
        path = merged.get("queue_path")
        if path is None:
            raise ConfigurationError(
                f"queuedDelivery {name!r} has no queue; "
                "give queuePath, or queue-path in <product-config mail> of zope.conf"
            )
        start = merged.get("start", startup.Start.DATABASE)
        keywords = _checked(lambda: processor_keywords(merged))
        keywords |= {"routes": routes, "mailers": {each: _get_mailer(each) for each in routes.names}}
        delivery = _checked(lambda: QueuedMailDelivery(path, routes=routes, envelope_sender=envelopeSender))
        declaration = startup.Declaration(name, path, relay, start, keywords)
        _register_delivery(_context, delivery, permission, name)
        startup.declare(declaration)
        _expect_database()

    for each in others:
        _context.action(discriminator=None, callable=_get_mailer, args=(each,), order=_CHECK)
    _delivery_actions(_context, mailer, name, register)


def directDelivery(
    _context: Any,
    mailer: str,
    permission: str | None = None,
    name: str = "Mail",
    *,
    envelopeSender: str | None = None,
) -> None:
    """See `IDirectDeliveryDirective`."""

    def register() -> None:
        relay = _get_mailer(mailer)
        delivery = _checked(lambda: DirectMailDelivery(relay, envelope_sender=envelopeSender))
        _register_delivery(_context, delivery, permission, name)

    _delivery_actions(_context, mailer, name, register)


def smtpMailer(  # noqa: PLR0917 - the signature of 7.3
    _context: Any,
    name: str,
    hostname: str | None = None,
    port: int | str | None = None,
    username: str | None = None,
    password: str | None = None,
    implicit_tls: bool | None = None,  # noqa: FBT001 - the signature of 7.3
    timeout: float | None = None,
    **settings: Any,
) -> None:
    """See `ISMTPMailerDirective`."""
    asked = settings.pop("settings", None)
    given = {
        "hostname": hostname,
        "port": None if port is None else int(port),
        "username": username,
        "password": password,
        "implicit_tls": implicit_tls,
        "timeout": timeout,
        **_by_option_name(settings),
    }

    def register() -> None:
        keywords = _checked(lambda: mailer_keywords(merge((given, _relay_of(_product_config(), given)))))
        handler("registerUtility", SMTPMailer(**keywords, **_asked(asked)), IMailer, name, _context.info)

    _context.action(discriminator=("utility", IMailer, name), callable=register)


def lmtpMailer(
    _context: Any,
    name: str,
    hostname: str | None = None,
    port: int | str | None = None,
    socket: str | None = None,
    **settings: Any,
) -> None:
    """See `ILMTPMailerDirective`.  zope.conf speaks about an SMTP relay and is not asked."""
    asked = _asked(settings.pop("settings", None))
    given = {"hostname": hostname, "port": None if port is None else int(port), **_by_option_name(settings)}

    def register() -> None:
        mailer = _checked(lambda: LMTPMailer(socket=socket, **mailer_keywords(merge((given,))), **asked))
        handler("registerUtility", mailer, IMailer, name, _context.info)

    _context.action(discriminator=("utility", IMailer, name), callable=register)


# --- what they share ----------------------------------------------------------------------------------------


def _delivery_actions(context: Any, mailer: str, name: str, register: Callable[[], None]) -> None:
    context.action(discriminator=None, callable=_get_mailer, args=(mailer,), order=_CHECK)
    context.action(discriminator=("utility", IMailDelivery, name), callable=register, order=_REGISTER)


def _register_delivery(context: Any, delivery: IMailDelivery, permission: str | None, name: str) -> None:
    guarded = delivery if permission is None else _assertPermission(permission, IMailDelivery, delivery)
    handler("registerUtility", guarded, IMailDelivery, name, context.info)


def _assertPermission(permission: str, interfaces: Any, component: Any) -> Any:
    """`component`, behind a proxy that asks for `permission`."""
    if not SECURITY_SUPPORT:
        raise ConfigurationError(
            f"permission {permission!r} cannot be checked, because zope.security is not installed; "
            "install it or leave the permission out"
        )
    from zope.component.security import proxify

    return proxify(component, permission=permission, provides=interfaces)


def _asked(settings: Any) -> dict[str, Any]:
    """The keyword, only if it was given: old subclasses do not know it."""
    if settings is not None and not callable(settings):
        raise ConfigurationError(f"settings: {settings!r} is no function; write the dotted name of one")
    return {} if settings is None else {"settings": settings}


def _get_mailer(mailer: str) -> Any:
    """The mailer of this name."""
    try:
        return getUtility(IMailer, name=mailer)
    except ComponentLookupError as error:
        raise ConfigurationError(
            f"Mailer {mailer!r} is not defined; "
            f'add <mail:smtpMailer name="{mailer}" ... /> to the ZCML, before or behind the delivery'
        ) from error


def _expect_database() -> None:
    """Subscribe to the database's opening for sites that include our meta.zcml only."""
    # This import brings events to subscribers; in a small site nothing else may do it.
    import zope.component.event  # noqa: F401

    registry = getGlobalSiteManager()
    if all(each.handler is not startup.database_opened for each in registry.registeredHandlers()):
        registry.registerHandler(startup.database_opened, (IDatabaseOpenedWithRoot,))


def _product_config() -> dict[str, Any]:
    """What ``<product-config mail>`` of zope.conf says."""
    try:
        from zope.app.appsetup.product import getProductConfiguration
    except ImportError:
        return {}
    texts: Mapping[str, str] = getProductConfiguration("mail") or {}
    for name in _PATHS:
        if name in texts and not os.path.isabs(texts[name]):
            raise ConfigurationError(
                f"<product-config mail>: {name} {texts[name]!r} is relative, and nobody knows to what; "
                "write the whole path"
            )
    try:
        settings = read_settings(texts, _PRODUCT_CONFIG)
    except ValueError as error:
        raise ConfigurationError(f"<product-config mail>: {error}") from error
    return _by_option_name(settings)


def _relay_of(config: Settings, given: Settings) -> Settings:
    """What zope.conf says about the mailer with the settings `given`.

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


def _by_option_name(settings: Settings) -> dict[str, Any]:
    """`settings` with camelCase and hyphens made underscores.  Raises `TypeError` for what is no setting."""
    names = {re.sub("[A-Z]", lambda match: "_" + match[0].lower(), name).replace("-", "_"): name for name in settings}
    unknown = set(names) - {*RELAY, *QUEUE, *ROUTING, "start"}
    if unknown:
        raise TypeError(f"unknown: {', '.join(sorted(unknown))}")
    return {option: settings[name] for option, name in names.items()}


def _checked(read: Callable[[], _Value]) -> _Value:
    try:
        return read()
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
