"""Deliveries that share a queue: a mail leaves through the processor that claims it first, so all must do the same.

Two deliveries with different mailers on one queue are refused; one delivery with ``mailers=`` is what is meant.
"""

from __future__ import annotations

import os

from zope.component import getSiteManager
from zope.configuration.exceptions import ConfigurationError

from zope.sendmail import startup
from zope.sendmail.config.location import directories_of
from zope.sendmail.interfaces import IMailDelivery
from zope.sendmail.message.routes import Routes
from zope.sendmail.startup import Declaration, Start


def refuse_other_mailers(declaration: Declaration) -> None:
    """Compare a processor with those that are declared already.

    :raises ConfigurationError: if another one drains the same queue through other mailers or by other routes.
    """
    for other in startup.declared():
        if Start.NEVER in (declaration.start, other.start) or not _is_in_use(other, declaration.name):
            continue
        routes, others = _routes(declaration), _routes(other)
        shared = _directories(declaration) & _directories(other)
        if shared and routes != others:
            raise ConfigurationError(
                f"the deliveries {other.name!r} and {declaration.name!r} share the queue {min(shared)}, but "
                f"{_difference(others, routes)}: each mail would leave as the processor that is faster likes. "
                f'Write one delivery with mailer="{others.default}" and mailers="{_names(others, routes)}", and name '
                "the mailer in send(relay=...) or in a route; or give each delivery a queuePath of its own"
            )


def _is_in_use(other: Declaration, name: str) -> bool:
    """Return whether the delivery of a declaration is still registered: that of an earlier configuration may be
    gone.
    """
    delivery = getSiteManager().queryUtility(IMailDelivery, other.name)
    return other.name != name and getattr(delivery, "queuePath", None) == other.queue_path


def _routes(declaration: Declaration) -> Routes:
    routes: Routes = declaration.options.get("routes") or Routes()
    return routes


def _directories(declaration: Declaration) -> set[str]:
    return {os.path.realpath(path) for path in directories_of(declaration.queue_path)}


def _difference(one: Routes, other: Routes) -> str:
    if one.default != other.default:
        return f"the mailer of one is {one.default!r} and that of the other {other.default!r}"
    if one.mailers != other.mailers:
        return f"one knows the mailers {', '.join(one.names)} and the other {', '.join(other.names)}"
    return "their relays or routes differ"


def _names(one: Routes, other: Routes) -> str:
    return " ".join(sorted({*one.names, *other.names} - {one.default}))
