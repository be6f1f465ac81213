"""Flask: an extension whose settings have the names of Flask-Mail's.

::

    mail = Mail(app)                        # or Mail() and mail.init_app(app)
    mail.send("shop@example.org", [customer], message)

Mail is in the queue when ``send()`` returns, and a thread sends it.  With ``session=db.session`` it follows the
transactions of that session of SQLAlchemy.  Where ``TESTING`` is set nothing leaves: ``mail.outbox`` shows what would.

Fails with `ValueError` when the application is made and a setting is wrong; else as `MailSender.send`.
"""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import formataddr
from typing import Any

from flask import current_app

from zope.sendmail.config.options import Parser, boolean
from zope.sendmail.contrib.site import SETTINGS, SiteMailer, make_site_mailer, text_of
from zope.sendmail.lifecycle.mailstatus import MailStatus
from zope.sendmail.testing.outbox import Outbox

#: How settings begin.
PREFIX = "MAIL_"

_KEY = "zope.sendmail"

#: Names of Flask-Mail -> ours.
_RENAMED = {"server": "hostname", "use_tls": "force_tls", "use_ssl": "implicit_tls"}
#: Names of Flask-Mail that mean nothing here, and what does.
_INSTEAD = {
    "max_emails": "MAIL_MAILS_PER_CONNECTION",
    "debug": "the level of the logger zope.sendmail",
    "ascii_attachments": "nothing: names of attachments are the message's",
    "backend": "MAIL_SUPPRESS_SEND, or a FileMailer (docs/howto/mailers.rst)",
}
_SETTINGS: Mapping[str, Parser] = {
    **{name: parse for name, parse in SETTINGS.items() if name != "hostname"},
    **{theirs: SETTINGS[ours] for theirs, ours in _RENAMED.items()},
}


class Mail:
    """The extension.

    :param app: an application, or None: see `init_app`.
    :param session: a session of SQLAlchemy, such as ``db.session``, whose transactions mail follows; None: mail leaves
        whatever becomes of the request.
    """

    def __init__(self, app: Any = None, *, session: Any = None) -> None:
        self._session = session
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Any) -> None:
        """Read the settings of an application.

        :raises ValueError: one is unknown, missing, or cannot be meant.
        """
        texts = _texts(app.config)
        suppressed = boolean(texts.pop("suppress_send", "yes" if app.testing else "no"))
        if suppressed:
            texts |= {"queue_path": "memory:", "start": "never"}
        try:
            site = make_site_mailer(texts, _SETTINGS, _RENAMED, lambda name: f"{PREFIX}{name.upper()}")
        except ValueError as error:
            raise ValueError(f"the settings {PREFIX}*: {error}") from error
        app.extensions[_KEY] = site
        app.before_request(site.start)

    @property
    def site(self) -> SiteMailer:
        """The mail of the current application."""
        try:
            site: SiteMailer = current_app.extensions[_KEY]
        except KeyError:
            raise RuntimeError("this application has no mail; call Mail.init_app(app) when it is made") from None
        return site

    def send(self, *mail: Any, **options: Any) -> str:
        """Hand over one mail; return its Message-Id.  The arguments are those of `RequestMailer.send`.

        :raises InvalidMail: before anything is written.
        """
        manager = None
        if self._session is not None:
            from zope.sendmail.contrib.sqlalchemy import SessionTransactions

            manager = SessionTransactions(self._session)
        return self.site.for_transactions(manager).send(*mail, **options)

    def status(self, message_id: str) -> MailStatus:
        """Return what became of a mail.  See `IMailQueue.status`."""
        return self.site.sender.status(message_id)

    @property
    def outbox(self) -> Outbox:
        """What waits in the queue of the current application; in tests that is all that was sent."""
        return Outbox(self.site.sender.queue)


def _texts(config: Mapping[str, Any]) -> dict[str, str]:
    """Return our settings, without their common beginning; None says nothing."""
    said = {name[len(PREFIX) :].lower(): value for name, value in config.items() if name.startswith(PREFIX)}
    for name in said.keys() & _INSTEAD.keys():
        raise ValueError(f"{PREFIX}{name.upper()} is not known here; instead: {_INSTEAD[name]}")
    return {name: _text(value) for name, value in said.items() if value is not None}


def _text(value: Any) -> str:
    """Return a setting as a file has it; Flask-Mail takes a name and an address for the default sender."""
    is_pair = isinstance(value, tuple) and len(value) == 2 and "@" in str(value[1])
    return formataddr(value) if is_pair else text_of(value)
