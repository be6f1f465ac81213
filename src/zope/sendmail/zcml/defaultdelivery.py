"""The delivery that ``getUtility(IMailDelivery)`` finds: one without a name and without a state.

It chooses at each use, in the current site, so what a local site or a test registers later counts as well.  The first
delivery that a directive registers brings it; whatever an application registers without a name takes its place.
"""

from __future__ import annotations

import contextlib
from typing import Any

from zope.component import getUtilitiesFor
from zope.interface import implementer, providedBy
from zope.interface.declarations import Declaration
from zope.interface.interfaces import ComponentLookupError

from zope.sendmail.interfaces import IDefaultMailDelivery, IMailDelivery

#: The name that directives give to a delivery if they name none.
MAIL = "Mail"


def choose_delivery() -> Any:
    """Return the delivery that is meant without a name.  See `IDefaultMailDelivery`."""
    deliveries = dict(getUtilitiesFor(IMailDelivery))
    if isinstance(deliveries.get(""), DefaultMailDelivery):
        del deliveries[""]
    if "" in deliveries:
        return deliveries[""]
    if len(deliveries) == 1:
        return next(iter(deliveries.values()))
    if MAIL in deliveries:
        return deliveries[MAIL]
    if not deliveries:
        raise ComponentLookupError(
            "there is no mail delivery in this site; add <mail:queuedDelivery ... /> to its ZCML, "
            "or register an IMailDelivery utility"
        )
    raise ComponentLookupError(
        f"which mail delivery is meant? There are {', '.join(map(repr, sorted(deliveries)))}; say "
        f"getUtility(IMailDelivery, {min(deliveries)!r}), or register one without a name"
    )


@implementer(IDefaultMailDelivery)
class DefaultMailDelivery:
    """See `IDefaultMailDelivery`.  Concurrency: any thread."""

    def send(self, *arguments: Any, **options: Any) -> str:
        """Send through the delivery that is meant.  See `IMailDelivery.send`."""
        message_id: str = choose_delivery().send(*arguments, **options)
        return message_id

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # what copies, pickles or inspects this object asks about itself
            raise AttributeError(name)
        return getattr(choose_delivery(), name)

    @property
    def __providedBy__(self) -> Any:
        """Also what the chosen delivery provides, such as `IQueuedMailDelivery`."""
        declarations: list[Any] = [IDefaultMailDelivery]
        with contextlib.suppress(ComponentLookupError):
            declarations.append(providedBy(choose_delivery()))
        return Declaration(*declarations)

    @property
    def __Security_checker__(self) -> Any:
        """The checker of the chosen delivery: a directive's ``permission`` protects this way to it as well."""
        try:
            return choose_delivery().__Security_checker__
        except ComponentLookupError as error:
            raise AttributeError("__Security_checker__") from error
