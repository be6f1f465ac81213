"""Django: an e-mail backend whose mail follows ``transaction.atomic``.

``EMAIL_BACKEND = "zope.sendmail.contrib.django.EmailBackend"`` with the queue in ``ZOPE_SENDMAIL``, or an entry in
``MAILERS`` (Django 6.1).  In an atomic block ``send()`` makes the mail durable, and it leaves right after the
outermost block has committed; if that block, or a savepoint around the mail, rolls back, nothing is left of it.
Outside of a block the mail is committed when ``send()`` returns.  With a queue in the application's own PostgreSQL the
mail commits together with the rows.

In ``INSTALLED_APPS`` this module adds a system check, so that ``manage.py check`` reports wrong settings.

Fails with ``ImproperlyConfigured`` for settings, `InvalidMail` for mail, and `OSError` if the queue refuses; with
``fail_silently`` the latter two are logged.
"""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.core.mail.backends.base import BaseEmailBackend
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse
from django.utils.module_loading import import_string
from django.views.decorators.csrf import csrf_exempt

from zope.sendmail.config.location import MEMORY, is_maildir
from zope.sendmail.config.options import RELAY, Parser, boolean
from zope.sendmail.contrib.hooks import HookedTransaction, OneTransaction, abort_if_forgotten
from zope.sendmail.contrib.site import SETTINGS, SiteMailer, ThreadStart, make_site_mailer, site_keywords, text_of
from zope.sendmail.errors import MailError
from zope.sendmail.system.forklock import ForkLock

log = logging.getLogger("zope.sendmail.contrib.django")

#: Django's names -> ours, as its own backend has them in ``OPTIONS`` of ``MAILERS``.
_RENAMED = {
    "host": "hostname",
    "use_tls": "force_tls",
    "use_ssl": "implicit_tls",
    "ssl_certfile": "certfile",
    "ssl_keyfile": "keyfile",
}
#: What is said about mail, its relay and its queue; and about the database whose transactions it follows.
_ABOUT_MAIL: Mapping[str, Parser] = {
    **{
        name: parse
        for name, parse in SETTINGS.items()
        if name not in ("hostname", "certfile", "keyfile", "default_sender")
    },
    **{theirs: SETTINGS[ours] for theirs, ours in _RENAMED.items()},
}

_ABOUT_DATABASE = ("database", "commit_with_rows")

#: The settings of Django before 6.1 that say something about a relay -> their names in ``OPTIONS``.
_GLOBAL = {
    "EMAIL_HOST": "host",
    "EMAIL_PORT": "port",
    "EMAIL_HOST_USER": "username",
    "EMAIL_HOST_PASSWORD": "password",
    "EMAIL_USE_TLS": "use_tls",
    "EMAIL_USE_SSL": "use_ssl",
    "EMAIL_TIMEOUT": "timeout",
    "EMAIL_SSL_CERTFILE": "ssl_certfile",
    "EMAIL_SSL_KEYFILE": "ssl_keyfile",
}

#: Where options stand before there was ``MAILERS``.
_BEFORE_MAILERS = "EMAIL_... and ZOPE_SENDMAIL"

_sites: dict[tuple[tuple[str, str], ...], Site] = {}
_making = ForkLock()


class Road:
    """Where the mail of some options waits, and which relay gets it.

    :param texts: the options.
    :param starts: whether this process sends it.
    """

    def __init__(self, texts: Mapping[str, str], *, starts: bool) -> None:
        self.queue = _place_of(texts["queue_path"])
        #: What is said about the relay.
        self.relay = {name: text for name, text in texts.items() if _RENAMED.get(name, name) in RELAY}
        self.starts = starts


class Site(Road):
    """A sender, and the database whose transactions its mail follows.

    :param texts: the options that describe it.
    :param database: an alias of ``DATABASES``.
    :param follows: whether mail waits for the commit; False: it is written into that database, with the rows.
    """

    def __init__(self, mailer: SiteMailer, texts: Mapping[str, str], database: str, *, follows: bool) -> None:
        super().__init__(texts, starts=mailer.starts)
        self.mailer = mailer
        self.database = database
        self.follows = follows


def site_of(options: Mapping[str, Any]) -> Site:
    """Return the sender that options describe; equal options share one sender in the whole process.

    :param options: names of ``OPTIONS`` in ``MAILERS`` -> values.
    :raises ValueError: for an option that is unknown, missing or invalid; or if another sender of this process sends
        from the same queue through another relay.
    """
    texts = _texts_of(options)
    key = tuple(sorted(texts.items()))
    with _making:
        if key not in _sites:
            site = _make_site(texts)
            _refuse_other_relay(site, _sites.values())
            _sites[key] = site
        return _sites[key]


def _texts_of(options: Mapping[str, Any]) -> dict[str, str]:
    """Return the options that say something, as a file has them."""
    return {name.lower(): text_of(value) for name, value in options.items() if value not in (None, "")}


def _make_site(texts: Mapping[str, str]) -> Site:
    database, joined, about_mail = _about_database(texts)
    more: dict[str, Any] = {}
    if joined:
        from zope.sendmail.queue.postgresql.joining import DjangoConnection  # needs another extra

        more = {"connection": DjangoConnection(database)}
    return Site(make_site_mailer(about_mail, _ABOUT_MAIL, _RENAMED, **more), texts, database, follows=not joined)


def _make_road(texts: Mapping[str, str]) -> Road:
    """Return the way of the mail that `_make_site` would send, and make nothing.  Raises what that would."""
    about_sender = site_keywords(_about_database(texts)[2], _ABOUT_MAIL, _RENAMED)[0]
    return Road(texts, starts=about_sender.get("start") is not ThreadStart.NEVER)


def _about_database(texts: Mapping[str, str]) -> tuple[str, bool, dict[str, str]]:
    """Return the alias of the database, whether mail is written with its rows, and the other options."""
    database = texts.get("database", "default")
    if database not in connections:
        raise ValueError(f"database: {database!r} is not one of DATABASES; write one of {', '.join(connections)}")
    joined = boolean(texts.get("commit_with_rows", "no"))
    return database, joined, {name: text for name, text in texts.items() if name not in _ABOUT_DATABASE}


def _place_of(queue_path: str) -> str:
    """Return the same for two names of one queue; nothing for a queue that no other sender can have."""
    if queue_path == MEMORY:
        return ""
    return os.path.realpath(queue_path) if is_maildir(queue_path) else queue_path


def _refuse_other_relay(site: Road, others: Iterable[Road]) -> None:
    """Compare a sender with others of the process: a mail leaves through the one that takes it first."""
    for other in others:
        if site.queue and site.queue == other.queue and site.starts and other.starts:
            names = {name for name in {*site.relay, *other.relay} if site.relay.get(name) != other.relay.get(name)}
            if names:
                raise ValueError(
                    f"queue_path: the queue {site.queue} has a sender in this process already, whose relay differs in "
                    f"{', '.join(sorted(names))}: each mail would leave through the one that takes it first; give each "
                    "relay a queue_path of its own"
                )


def global_options() -> dict[str, Any]:
    """Return the options from the settings before ``MAILERS``: ``EMAIL_...`` and the dictionary ``ZOPE_SENDMAIL``.

    Names in the latter may be written in capitals.
    """
    said = {theirs: getattr(settings, name) for name, theirs in _GLOBAL.items() if settings.is_overridden(name)}
    if not said.get("username"):
        said.pop("password", None)  # Django's own backend logs in with both only
    own = {name.lower(): value for name, value in getattr(settings, "ZOPE_SENDMAIL", {}).items()}
    return {**said, **own}


# --- manage.py check ----------------------------------------------------------------------------------------------


@checks.register("mail")  # type: ignore[untyped-decorator]  # Django says nothing about its types
def check_settings(app_configs: object = None, **_: Any) -> list[checks.CheckMessage]:  # noqa: ARG001 - as Django calls it
    """Return what is wrong with the settings of this backend; ``manage.py check`` shows it.

    Nothing is connected or made.  ``zope_sendmail.E001`` are settings that no mail could be sent with;
    ``zope_sendmail.W001`` is a file that this user cannot read, which the user of the site may.

    :param app_configs: the applications that are checked; settings are of none of them.
    """
    found: list[checks.CheckMessage] = []
    roads: list[Road] = []
    for where, said in _configured():
        try:
            road = _make_road(_texts_of(said))
            _refuse_other_relay(road, roads)
            roads.append(road)
        except ValueError as error:
            kind, name = (checks.Warning, "W001") if isinstance(error.__cause__, OSError) else (checks.Error, "E001")
            text, _semicolon, cure = str(error).partition("; ")
            hint = f"{cure[:1].upper()}{cure[1:]}." if cure else None
            found.append(kind(f"The settings {where}: {text}.", hint=hint, id=f"zope_sendmail.{name}"))
    return found


def _configured() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each place in the settings that names this backend, and its options."""
    mailers: Mapping[str, Any] = getattr(settings, "MAILERS", None) or {}
    for alias, entry in mailers.items():
        if _is_ours(entry.get("BACKEND")):
            yield f"MAILERS[{alias!r}]", entry.get("OPTIONS", {})
    if not mailers and _is_ours(settings.EMAIL_BACKEND):
        yield _BEFORE_MAILERS, global_options()


def _is_ours(backend: Any) -> bool:
    """Return whether a dotted name is that of this backend, or of a subclass; Django tells of one that is none."""
    try:
        found = import_string(backend)
    except (ImportError, TypeError, AttributeError):
        return False
    return isinstance(found, type) and issubclass(found, EmailBackend)


class EmailBackend(BaseEmailBackend):  # type: ignore[misc]  # Django says nothing about its types
    """See the module.

    :param fail_silently: log what cannot be sent, instead of raising.
    :param alias: the name of the entry in ``MAILERS``, whose ``OPTIONS`` are the other keywords; None: the settings
        before it.
    :param options: those of Django's own backend (``host``, ``port``, ``username``, ``password``, ``use_tls``,
        ``use_ssl``, ``timeout``, ``ssl_certfile``, ``ssl_keyfile``), and what ``mail:smtpMailer`` and
        ``mail:queuedDelivery`` know, with underscores; ``queue_path`` is needed.  ``database`` is the alias of the
        database whose transactions mail follows ("default"); with ``commit_with_rows`` the queue is in that database
        and mail is written with the rows.
    :raises django.core.exceptions.ImproperlyConfigured: an option is unknown, missing or invalid.
    """

    def __init__(
        self,
        fail_silently: bool = False,  # noqa: FBT001, FBT002 - as Django calls it
        *,
        alias: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**({} if alias is None else {"alias": alias}))
        self._silent = fail_silently
        given = {name: value for name, value in options.items() if not name.startswith("_")}  # Django's own
        said = given if alias is not None else {**global_options(), **_without_none(given)}
        try:
            self._site = site_of(said)
        except ValueError as error:
            where = _BEFORE_MAILERS if alias is None else f"MAILERS[{alias!r}]"
            raise ImproperlyConfigured(f"the settings {where}: {error}") from error

    def send_messages(self, email_messages: Sequence[Any]) -> int:
        """Hand over messages: all of them or, without ``fail_silently``, none; return how many.

        Each message gets an attribute ``message_id``, for ``status``.

        :raises InvalidMail: one of them cannot be sent.
        :raises OSError: the queue refuses.
        """
        with self._transaction() as send:
            return sum(self._sent(send, message) for message in email_messages if message.recipients())

    def status(self, message_id: str) -> Any:
        """Return what became of a mail.  See `IMailQueue.status`."""
        return self._site.mailer.sender.status(message_id)

    def _sent(self, send: Callable[..., str], message: Any) -> bool:
        try:
            message.message_id = send(message.from_email, list(message.recipients()), message.message())
        except (MailError, OSError, ValueError) as error:  # ValueError: Django found a line end in a header
            if not self._silent:
                raise
            log.warning("A message to %d recipients was not sent: %s", len(message.recipients()), error)
            return False
        return True

    @contextmanager
    def _transaction(self) -> Iterator[Callable[..., str]]:
        """Yield what sends; what it sent leaves together, when the database's transaction commits."""
        site = self._site
        if not site.follows or not connections[site.database].in_atomic_block:
            yield site.mailer.for_transactions(None).send
            return
        mails = HookedTransaction()
        try:
            yield site.mailer.for_transactions(OneTransaction(mails)).send
            mails.prepare()
        except BaseException:
            mails.abort()
            raise
        _let_leave_after_commit(mails, site.database)


def _let_leave_after_commit(mails: HookedTransaction, database: str) -> None:
    """Let mail leave when the outermost atomic block commits; it is removed when Django forgets the hook in a
    rollback."""

    def leave() -> None:
        mails.commit()

    abort_if_forgotten(leave, mails)
    transaction.on_commit(leave, using=database, robust=True)
    hooks = connections[database].run_on_commit
    # The commit is what mail follows: no hook of others that fails may keep it back.
    if hooks and hooks[-1][1] is leave:
        hooks.insert(0, hooks.pop())


def _without_none(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was said: ``send_mail`` passes None for a user that its caller does not name."""
    return {name: value for name, value in options.items() if value is not None}


def as_view(application: Callable[..., Iterable[bytes]]) -> Callable[..., HttpResponse]:
    """Return a view that shows a WSGI application, such as ``zope.sendmail.console.Console``; put a check of access
    around it.

    The address has to be ``path("mail/<path:path>", ...)``; forms are checked by the application itself.

    :param application: what stands below the address.
    """

    def view(request: HttpRequest, path: str = "") -> HttpResponse:
        environ = dict(getattr(request, "environ", None) or request.META)
        whole = request.path_info
        environ["SCRIPT_NAME"] = environ.get("SCRIPT_NAME", "") + whole[: len(whole) - len(path)].rstrip("/")
        environ["PATH_INFO"] = f"/{path}"
        environ["wsgi.input"] = io.BytesIO(request.body)
        environ.setdefault("wsgi.url_scheme", request.scheme)
        started: list[Any] = []
        body = application(environ, lambda *head: started.extend(head))
        content = b"".join(body)
        response = HttpResponse(content, status=int(started[0].split()[0]))
        del response.headers["Content-Type"]
        for name, value in started[1]:
            _add_header(response, name, value)
        return response

    view_without_check: Callable[..., HttpResponse] = csrf_exempt(view)
    return view_without_check


def _add_header(response: HttpResponse, name: str, value: str) -> None:
    """Add one header; several cookies have one name."""
    if name.lower() == "set-cookie":
        response.cookies.load(value)
    else:
        response.headers[name] = value
