"""How anything opens a session with any mailer, whatever that is made of.

A mailer without sessions of its own, or whose ``send`` or ``vote`` was replaced, gets one that calls these.
"""

from __future__ import annotations

from typing import Any

from zope.sendmail.interfaces import ISession, ISessionMailer
from zope.sendmail.smtp.sendonly import SendOnlySession


def open_session(mailer: Any, *, interactive: bool = False) -> ISession:
    """Return a session with the relay of any mailer.

    A mailer's own session is used only if its ``send`` and ``vote`` came with it: code that has replaced one of them,
    in a subclass, on an instance or by a patch, wants it to be called.

    :param interactive: the caller waits, so that the relay has less time before the final dot, where the mailer knows
        such times (``open_interactive_session``).
    """
    if keeps_sessions(mailer):
        own = getattr(mailer, "open_interactive_session", None) if interactive and _has_times(mailer) else None
        session: ISession = mailer.open_session() if own is None else own()
        return session
    return SendOnlySession(mailer)


def keeps_sessions(mailer: Any) -> bool:
    """Return whether the mailer has sessions of its own that are to be used.

    Mailers of old that say `ISMTPMailer` may have none.
    """
    known = ISessionMailer.providedBy(mailer) and callable(getattr(mailer, "open_session", None))
    return known and _is_of_one_piece(mailer)


def conversation_of(mailer: Any) -> object:
    """Return what is equal for two mailers that may share a connection: the mailer itself, or class and settings."""
    if (
        not vars(type(mailer)).get("_is_its_settings", False)
        or mailer.settings is not None
        or not _is_of_one_piece(mailer)
    ):
        return mailer
    try:
        key = (type(mailer), mailer.relay_settings(), mailer.smtp)
        hash(key)
    except Exception:  # noqa: BLE001 - the vote tells what is wrong with the settings
        return mailer
    return key


def _has_times(mailer: Any) -> bool:
    """Say whether `open_interactive_session` is as new as `open_session`, which a subclass may have replaced."""
    kind = type(mailer)
    return issubclass(_home(kind, "open_interactive_session"), _home(kind, "open_session"))


def _home(kind: type, name: str) -> type:
    """Return the class that has this attribute, or `kind`."""
    return next((each for each in kind.__mro__ if name in vars(each)), kind)


def _is_of_one_piece(mailer: Any) -> bool:
    kind = type(mailer)
    home = _home(kind, "open_session")
    expected = vars(home).get("_own_calls") or {name: getattr(home, name, None) for name in ("send", "vote")}
    on_instance = getattr(mailer, "__dict__", {})
    return all(name not in on_instance and getattr(kind, name, None) is function for name, function in expected.items())
