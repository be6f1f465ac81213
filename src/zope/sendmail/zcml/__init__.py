"""ZCML: mailers and deliveries, in the namespace ``http://namespaces.zope.org/mail``.

What a directive leaves out comes from ``<product-config mail>`` of zope.conf, then from the defaults.
Loading ZCML registers and declares; it starts no thread, sends nothing and makes no directory.  Fails with
`ConfigurationError`; a missing mailer is found before any delivery is registered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zope.component import getGlobalSiteManager, getSiteManager
from zope.component.zcml import handler
from zope.configuration.exceptions import ConfigurationError
from zope.processlifetime import IDatabaseOpenedWithRoot

from zope.sendmail import startup
from zope.sendmail.config.options import (
    Settings,
    mailer_keywords,
    merge,
    processor_keywords,
    read_verp_key,
    routes_of,
    term_defaults,
)
from zope.sendmail.config.passwordfile import follow_password_file
from zope.sendmail.delivery import DirectMailDelivery, QueuedMailDelivery, queued_delivery
from zope.sendmail.directmail import OnRefused
from zope.sendmail.errors import QueueError
from zope.sendmail.interfaces import IMailDelivery, IMailer
from zope.sendmail.mailer import SMTPMailer
from zope.sendmail.message.verpkey import VerpKey
from zope.sendmail.processor.thread import QueueProcessorThread
from zope.sendmail.transports.lmtp import LMTPMailer
from zope.sendmail.transports.redirect import refuse_detours
from zope.sendmail.zcml.actions import CHECK, REGISTER, checked, find_mailer, in_two_steps, place_of
from zope.sendmail.zcml.defaultdelivery import MAIL, DefaultMailDelivery
from zope.sendmail.zcml.productconfig import by_option_name, read_product_config, relay_of
from zope.sendmail.zcml.schema import (
    SECURITY_SUPPORT,
    IDeliveryDirective,
    IDirectDeliveryDirective,
    ILMTPMailerDirective,
    IMailerDirective,
    IQueuedDeliveryDirective,
    ISMTPMailerDirective,
    check_permission,
)
from zope.sendmail.zcml.sharedqueues import refuse_other_mailers

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

_get_mailer = find_mailer  # BBB: its name in 7.3


# --- handlers -----------------------------------------------------------------------------------------------


def _verp_key(path: str | None) -> VerpKey | None:
    return None if path is None else checked(lambda: read_verp_key(path))


def queuedDelivery(
    _context: Any,
    queuePath: str | None = None,
    mailer: str = "",
    permission: str | None = None,
    name: str = MAIL,
    processorThread: bool = True,  # noqa: FBT001, FBT002 - the signature of 7.3
    *,
    envelopeSender: str | None = None,
    verpKeyFile: str | None = None,
    connection: Any = None,
    **settings: Any,
) -> None:
    """See `IQueuedDeliveryDirective`."""
    given = {**by_option_name(settings), "queue_path": queuePath}
    if not processorThread:
        given.setdefault("start", startup.Start.NEVER)

    def check() -> Callable[[], None]:
        if not processorThread and given["start"] is not startup.Start.NEVER:
            raise ConfigurationError(
                f"start={given['start']} and processorThread=false contradict each other; keep start"
            )
        declaration = checked(lambda: _declaration(name, mailer, given))
        path = declaration.queue_path
        known = {each: declaration.options[each] for each in ("routes", "schedule") if each in declaration.options}
        terms = term_defaults(merge((given, read_product_config())))
        delivery = checked(
            lambda: QueuedMailDelivery(path, envelope_sender=envelopeSender, connection=connection, **known, **terms)
        )
        delivery.verp_key = _verp_key(verpKeyFile)
        guarded = _guarded(delivery, permission)

        def register() -> None:
            refuse_other_mailers(declaration)
            _register_delivery(_context, guarded, name)
            startup.declare(declaration)
            _expect_database()

        return register

    in_two_steps(_context, ("utility", IMailDelivery, name), check, order=CHECK, later=REGISTER)


def directDelivery(
    _context: Any,
    mailer: str,
    permission: str | None = None,
    name: str = MAIL,
    *,
    envelopeSender: str | None = None,
    verpKeyFile: str | None = None,
    onRefused: OnRefused | None = None,
    queue: str | None = None,
) -> None:
    """See `IDirectDeliveryDirective`."""

    def check() -> Callable[[], None]:
        relay = find_mailer(mailer)
        options: dict[str, Any] = {"onRefused": onRefused, "queue": queue}
        delivery = checked(lambda: DirectMailDelivery(relay, envelope_sender=envelopeSender, **options))
        delivery.verp_key = _verp_key(verpKeyFile)
        guarded = _guarded(delivery, permission)

        def register() -> None:
            if queue is not None:
                _check_queue(queue)
            _register_delivery(_context, guarded, name)

        return register

    # A queue may be defined behind the delivery that names it.
    later = REGISTER if queue is None else REGISTER + 1
    in_two_steps(_context, ("utility", IMailDelivery, name), check, order=CHECK, later=later)


def _check_queue(queue: str) -> None:
    """Raise `ConfigurationError` if there is no queued delivery of this name."""
    try:
        queued_delivery(queue)
    except QueueError as error:
        raise ConfigurationError(str(error)) from error


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
        **by_option_name(settings),
    }

    place = place_of(_context)

    def register() -> None:
        merged = checked(lambda: merge((given, relay_of(read_product_config(), given))))
        keywords = checked(lambda: mailer_keywords(merged))
        mailer = follow_password_file(SMTPMailer.configured(**keywords, **_asked(asked)), merged)
        handler("registerUtility", mailer, IMailer, name, place)

    _context.action(discriminator=("utility", IMailer, name), callable=register, info=place)


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
    given = {"hostname": hostname, "port": None if port is None else int(port), **by_option_name(settings)}

    place = place_of(_context)

    def register() -> None:
        merged = checked(lambda: merge((given,)))
        mailer = checked(lambda: LMTPMailer(socket=socket, **mailer_keywords(merged), **asked))
        follow_password_file(mailer, merged)
        handler("registerUtility", mailer, IMailer, name, place)

    _context.action(discriminator=("utility", IMailer, name), callable=register, info=place)


# --- what they share ----------------------------------------------------------------------------------------


def _declaration(name: str, mailer: str, given: Settings) -> startup.Declaration:
    """Return the processor that the settings of a directive and of zope.conf describe.

    :raises ValueError: for settings that cannot be used together.
    :raises ConfigurationError: for a mailer or a queue that is missing.
    """
    relay = find_mailer(mailer)
    merged = merge((given, read_product_config()))
    routes = routes_of(mailer, merged)
    mailers = {each: find_mailer(each) for each in routes.names}
    refuse_detours(routes, find_mailer)
    if merged.get("queue_path") is None:
        raise ConfigurationError(
            f"queuedDelivery {name!r} has no queue; give queuePath, or queue-path in <product-config mail> of zope.conf"
        )
    keywords = {**processor_keywords(merged), "routes": routes, "mailers": mailers}
    start = merged.get("start", startup.Start.DATABASE)
    return startup.Declaration(name, merged["queue_path"], relay, start, keywords)


def _guarded(delivery: IMailDelivery, permission: str | None) -> IMailDelivery:
    """Return the delivery, behind `permission` if there is one."""
    if permission is None:
        return delivery
    checked(lambda: check_permission(permission))
    guarded: IMailDelivery = _assertPermission(permission, IMailDelivery, delivery)
    return guarded


def _register_delivery(context: Any, delivery: IMailDelivery, name: str) -> None:
    """Register the delivery, and what finds it without its name unless something has no name already."""
    handler("registerUtility", delivery, IMailDelivery, name, context.info)
    if getSiteManager().queryUtility(IMailDelivery) is None:
        handler("registerUtility", DefaultMailDelivery(), IMailDelivery, "", context.info)


def _assertPermission(permission: str, interfaces: Any, component: Any) -> Any:
    """Return `component` behind a proxy that asks for `permission`."""
    if not SECURITY_SUPPORT:
        raise ConfigurationError(
            f"permission {permission!r} cannot be checked, because zope.security is not installed; "
            "install it or leave the permission out"
        )
    from zope.component.security import proxify

    return proxify(component, permission=permission, provides=interfaces)


def _asked(settings: Any) -> dict[str, Any]:
    """Return the keyword, only if it was given: old subclasses do not know it."""
    if settings is not None and not callable(settings):
        raise ConfigurationError(f"settings: {settings!r} is not a function; write the dotted name of one")
    return {} if settings is None else {"settings": settings}


def _expect_database() -> None:
    """Subscribe to the database's opening for sites that include our meta.zcml only."""
    # This import brings events to subscribers; in a small site nothing else may do it.
    import zope.component.event  # noqa: F401 - see above

    registry = getGlobalSiteManager()
    if all(each.handler is not startup.database_opened for each in registry.registeredHandlers()):
        registry.registerHandler(startup.database_opened, (IDatabaseOpenedWithRoot,))
