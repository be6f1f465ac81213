"""Actions of the ZCML directives, so that one that was overridden or unconfigured leaves nothing behind.

ZCML drops actions by their discriminators.  What has to be done later than the rest is therefore handed over by the
action that has the directive's discriminator: where that is not executed, there is nothing to do later.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from zope.component import ComponentLookupError, getUtility
from zope.configuration.exceptions import ConfigurationError
from zope.configuration.xmlconfig import ParserInfo

from zope.sendmail.interfaces import IMailer

#: Mailers may be registered by any directive, and zope.security looks for undefined permissions with order 9999999.
#: Afterwards mailers find each other, then deliveries are checked, then registered: an error leaves none behind.
LINK, CHECK, REGISTER = 10_000_000, 10_000_001, 10_000_002

_Value = TypeVar("_Value")


def in_two_steps(
    context: Any, discriminator: object, first: Callable[[], Callable[[], None]], *, order: int, later: int
) -> None:
    """Let ZCML call `first` with the order `order`, and what it returns with the order `later`."""
    steps: list[Callable[[], None]] = []

    def finish() -> None:
        for step in steps:
            step()

    context.action(discriminator=discriminator, callable=lambda: steps.append(first()), order=order)
    context.action(discriminator=None, callable=finish, order=later)


class PlaceInFile:
    """Where a directive stands, without its text: that may have a password in it, and stands in errors and in logs."""

    def __init__(self, info: ParserInfo) -> None:
        self._info = info

    def __repr__(self) -> str:
        return repr(self._info)

    __str__ = __repr__

    def __getattr__(self, name: str) -> Any:
        return getattr(self._info, name)


def place_of(context: Any) -> Any:
    """Return what is kept about the place of a directive that may have a password."""
    return PlaceInFile(context.info) if isinstance(context.info, ParserInfo) else context.info


def find_mailer(mailer: str) -> Any:
    """Return the mailer of this name.

    :raises ConfigurationError: if there is none.
    """
    try:
        return getUtility(IMailer, name=mailer)
    except ComponentLookupError as error:
        raise ConfigurationError(
            f"Mailer {mailer!r} is not defined; "
            f'add <mail:smtpMailer name="{mailer}" ... /> to the ZCML, before or behind the delivery'
        ) from error


def checked(read: Callable[[], _Value]) -> _Value:
    """Return what `read` returns.

    :raises ConfigurationError: for a `ValueError` that it raises.
    """
    try:
        return read()
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
