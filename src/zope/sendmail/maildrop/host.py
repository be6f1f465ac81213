"""The Maildrop Host: a MailHost whose mail goes into the spool of a maildrop daemon.

Everything operational stands in the daemon's configuration file; the object keeps only which file that is, by its
key. So nothing secret is in the database, and loading the object touches no disk. Where the file is gone or broken,
sending fails with `MailHostError`, and the management pages say what is wrong. Contract: `IMailHost` of
Products.MailHost; public names as in Products.MaildropHost 2.3.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from AccessControl.class_init import InitializeClass
from AccessControl.Permissions import change_configuration, use_mailhost_services, view
from AccessControl.SecurityInfo import ClassSecurityInfo
from Products.MailHost.interfaces import IMailHost
from Products.MailHost.MailHost import MailHost, MailHostError
from Products.PageTemplates.PageTemplateFile import PageTemplateFile
from zExceptions import BadRequest, Forbidden
from zope.interface import implementer
from ZPublisher import zpublish

from zope.sendmail.errors import QueueError
from zope.sendmail.lifecycle.states import WAITING
from zope.sendmail.maildrop import views
from zope.sendmail.maildrop.config import ConfigError
from zope.sendmail.maildrop.configfiles import CONFIG_PATHS, DEFAULT, candidates, configuration
from zope.sendmail.maildrop.csrf import refusal
from zope.sendmail.maildrop.spooldelivery import delivery_to, refuse_line_ends

if TYPE_CHECKING:
    from zope.sendmail.interfaces import IMailQueue
    from zope.sendmail.maildrop.config import Config

ADD_PERMISSION = "Add MailHost objects"

_SAVED = 'MaildropHost "{}" updated'


#: The console as a tab, see `zope.sendmail.maildrop.mailqueue`; Zope leaves it out where that view is not registered.
_TAB = {"label": "Mail Queue", "action": "@@mail-queue/0/", "path": "@@mail-queue"}


def _page(name: str, file: str) -> Any:
    return PageTemplateFile(f"www/{file}.zpt", globals(), __name__=name)


class _Setting:
    """An attribute of 2.3 that shows what the configuration file says; it is not set on the object."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, host: MaildropHost | None, owner: type) -> Any:
        return self if host is None else views.ATTRIBUTES[self._name](host._config())

    def __set__(self, host: MaildropHost, value: object) -> None:
        raise AttributeError(f"{self._name} of a Maildrop Host is what its configuration file says; change that file")


#: They have to be there when the class is made, for then Zope looks for what its security declarations name.
_Settings = type("_Settings", (), {name: _Setting(name) for name in views.ATTRIBUTES})


@implementer(IMailHost)
class MaildropHost(_Settings, MailHost):  # type: ignore[misc, valid-type]  # Zope says nothing about its types
    """See `IMailHost`."""

    meta_type = "Maildrop Host"
    zmi_icon = "fas fa-mail-bulk"
    security = ClassSecurityInfo()

    #: Key of the configuration; empty: none was chosen since 2.3.
    _path_key = ""
    #: What 2.3 kept instead of the key.
    config_path = ""
    _transactional = True

    manage = manage_main = _page("manage_main", "edit")
    manage_log = _page("manage_log", "log")

    manage_options = (
        {"label": "Edit", "action": "manage_main"},
        _TAB,
        {"label": "Maildrop Log", "action": "manage_log"},
        *MailHost.manage_options[1:],
    )

    def __init__(self, id: str = "", title: str = "Maildrop Host") -> None:
        self.id = str(id)
        self.title = title

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """2.3 kept copies of the settings, the login among them; they are not kept any more."""
        super().__setstate__({name: value for name, value in state.items() if name not in views.ATTRIBUTES})

    # --- sending ------------------------------------------------------------------------------------------------

    def send(
        self,
        messageText: Any,
        mto: Any = None,
        mfrom: Any = None,
        subject: Any = None,
        *arguments: Any,
        **options: Any,
    ) -> None:
        """Put one mail into the spool, as `IMailHost.send`.

        :raises InvalidMail: for an argument that would bring further headers or recipients with it.
        """
        for name, value in (("mto", mto), ("mfrom", mfrom), ("subject", subject)):
            refuse_line_ends(name, value)
        super().send(messageText, mto, mfrom, subject, *arguments, **options)

    scheduledSend = send

    def simple_send(self, mto: Any, mfrom: Any, subject: Any, body: Any, *arguments: Any, **options: Any) -> None:
        """Put a mail of these texts into the spool.  Raises as `send`."""
        for name, value in (("mto", mto), ("mfrom", mfrom), ("subject", subject)):
            refuse_line_ends(name, value)
        super().simple_send(mto, mfrom, subject, body, *arguments, **options)

    def _send(
        self,
        mfrom: Any,
        mto: Any,
        messageText: str | bytes,
        immediate: bool = False,  # noqa: FBT001, FBT002 - MailHost's signature
    ) -> None:
        """Put one mail into the spool.  `immediate` changes nothing, as in 2.3: the daemon sends it."""
        config = self._config()
        recipients = config.debug_receiver or ([mto] if isinstance(mto, (str, bytes)) else list(mto))
        sender = mfrom if isinstance(mfrom, (str, bytes)) else str(mfrom)
        delivery = delivery_to(config)
        send = delivery.send if self.isTransactional() else delivery.send_at_once
        send(sender, recipients, messageText)

    # --- the configuration --------------------------------------------------------------------------------------

    def getConfigPath(self) -> str:
        """Return the path of the configuration file.  Raises `MailHostError` if its key is not offered any more."""
        if not self._path_key:
            return self.config_path or candidates()[DEFAULT]
        try:
            return candidates()[self._path_key]
        except KeyError:
            raise MailHostError(
                f"{self._name()} uses the configuration {self._path_key!r}, which is not among those offered here: "
                f"{', '.join(sorted(candidates()))}; add it to <product-config maildrophost> in zope.conf, or choose "
                "another on the Edit tab"
            ) from None

    def setConfigPath(self, path_key: str) -> None:
        """Use the configuration of this key.

        Raises `ValueError` for an unknown key or a path that is no file, `RuntimeError` for a file that is no
        configuration; nothing is changed then.
        """
        path = candidates().get(path_key)
        if path is None:
            raise ValueError(f"Invalid path key {path_key!r}; there are: {', '.join(sorted(candidates()))}")
        if not os.path.isfile(path):
            raise ValueError(f"Invalid config file path {path} of the key {path_key!r}: there is no such file")
        try:
            configuration(path)
        except ConfigError as error:
            raise RuntimeError(f"Invalid configuration file at {path}: {error}") from error
        self._path_key = path_key
        self.__dict__.pop("config_path", None)

    def addConfigPath(self, path_key: str, path: str) -> None:
        """Offer one more configuration to all Maildrop Hosts in this process, until it ends.

        For start-up code; scripts in the database may not call it.
        """
        CONFIG_PATHS[path_key] = path

    def getCandidateConfigPaths(self) -> tuple[tuple[str, str], ...]:
        """Return the configurations that may be chosen: pairs of key and path, sorted."""
        return tuple(sorted(candidates().items()))

    def isTransactional(self) -> bool:
        """Return whether mail follows the transaction."""
        return bool(self._transactional)

    def getLog(self, max_bytes: int = 50000) -> str:
        """Return the newest lines of the daemon's log, at most so many bytes; empty if there is none."""
        return views.tail(self._config().log_file, max_bytes)

    def queueLength(self) -> int:
        """Return how many mails wait in the spools."""
        counts = self._queue().admin.count()
        return sum(counts.get(state, 0) for state in WAITING)

    def _config(self) -> Config:
        try:
            return configuration(self.getConfigPath())
        except ConfigError as error:
            raise MailHostError(f"{self._name()} has no usable configuration: {error}") from error

    def _queue(self) -> IMailQueue:
        return delivery_to(self._config()).queue

    def _name(self) -> str:
        return f'MaildropHost "{self.getId()}"'

    def _chosen_key(self) -> str:
        """Return the key to show as chosen; empty if it is not offered."""
        if self._path_key or not self.config_path:
            key = self._path_key or DEFAULT
            return key if key in candidates() else ""
        return next((key for key, path in candidates().items() if path == self.config_path), "")

    # --- management pages ---------------------------------------------------------------------------------------

    def manage_makeChanges(
        self,
        title: str,
        transactional: bool = False,  # noqa: FBT001, FBT002 - as in 2.3
        path_key: str | None = None,
        REQUEST: Any = None,
        **ignored: Any,
    ) -> Any:
        """Save what the Edit tab says.  Without a request, raises as `setConfigPath`."""
        _check(REQUEST)
        try:
            if path_key and path_key != self._chosen_key():
                self.setConfigPath(path_key)
        except (ValueError, RuntimeError) as error:
            if REQUEST is None:
                raise
            return self._edit_page(REQUEST, f"Nothing was saved. {error}", "danger")
        self.title = str(title)
        self._transactional = bool(transactional)
        return None if REQUEST is None else self._edit_page(REQUEST, _SAVED.format(self.getId()), "success")

    def manage_editData(self) -> dict[str, Any]:
        """Return what the Edit tab shows."""
        chosen = self._chosen_key()
        shown = {
            "candidates": [
                {"key": key, "path": path, "chosen": key == chosen, "there": os.path.isfile(path)}
                for key, path in self.getCandidateConfigPaths()
            ],
            "lost": "" if chosen else self._path_key or self.config_path,
            "settings": [],
            "debug_receiver": "",
        }
        return shown | self._told(lambda: views.settings(self.getConfigPath(), self._config()))

    def manage_logData(self) -> dict[str, Any]:
        """Return what the Maildrop Log tab shows."""
        return {"path": "", "text": "", "changed": ""} | self._told(lambda: views.log(self._config()))

    def manage_restartQueueThread(self, action: str = "start", REQUEST: Any = None) -> None:
        """MailHost's thread would send nothing: the daemon does."""
        raise BadRequest("A Maildrop Host has no thread in Zope; start or stop the maildrop daemon instead.")

    def _told(self, look: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """Return what `look` returns, and why it could not if it raises: a page is there for those who repair."""
        try:
            return {"problem": "", **look()}
        except (MailHostError, QueueError, OSError) as error:
            return {"problem": str(error)}

    def _edit_page(self, request: Any, message: str, kind: str) -> Any:
        request.set("manage_tabs_message", message)
        request.set("manage_tabs_type", kind)
        return self.manage_main()

    security.declareProtected(
        change_configuration,
        "manage",
        "manage_main",
        "manage_log",
        "manage_makeChanges",
        "manage_editData",
        "manage_logData",
        "manage_restartQueueThread",
        "getConfigPath",
        "setConfigPath",
        "getCandidateConfigPaths",
        "isTransactional",
        "getLog",
        *views.ATTRIBUTES,
    )
    # Code that adds a path lets Zope read and write there: for code on the disk only, not for scripts of a manager.
    security.declarePrivate("addConfigPath")
    security.declareProtected(use_mailhost_services, "send", "scheduledSend", "simple_send")
    security.declareProtected(view, "queueLength")

    # Docstrings must not make these reachable by URL: they are for scripts and our own pages.
    for _internal in (
        getConfigPath,
        setConfigPath,
        addConfigPath,
        getCandidateConfigPaths,
        isTransactional,
        getLog,
        queueLength,
        manage_editData,
        manage_logData,
        manage_restartQueueThread,
    ):
        zpublish(False)(_internal)
    zpublish(methods="POST")(manage_makeChanges)
    del _internal


InitializeClass(MaildropHost)


addMaildropHostForm = _page("addMaildropHostForm", "add")  # noqa: N816 - the name in its URL


def manage_addMaildropHost(
    self: Any,
    id: str,
    title: str = "Maildrop Host",
    REQUEST: Any = None,
    path_key: str | None = None,
) -> None:
    """Add a Maildrop Host to a folder; raises as `MaildropHost.setConfigPath`."""
    _check(REQUEST)
    host = MaildropHost(id, title)
    if path_key:
        host.setConfigPath(path_key)
    self._setObject(host.getId(), host)
    if REQUEST is not None:
        message = urlencode({"manage_tabs_message": "Added MaildropHost."})
        REQUEST.RESPONSE.redirect(f"{self.absolute_url()}/{host.getId()}/manage_main?{message}")


def initialize(context: Any) -> None:
    """Tell Zope about Maildrop Hosts; ``five:registerPackage`` calls it."""
    import Products.MailHost.SendMailTag  # noqa: F401 - registers <dtml-sendmail>

    if _TAB not in MailHost.manage_options:  # other mail hosts may have a queue as well
        first, *others = MailHost.manage_options
        MailHost.manage_options = (first, _TAB, *others)
    context.registerClass(
        MaildropHost, permission=ADD_PERMISSION, constructors=(addMaildropHostForm, manage_addMaildropHost)
    )


def _check(request: Any) -> None:
    """Raises `Forbidden` unless a page of this site, or Python code, asks for a change."""
    if request is None:
        return
    header = request.get_header
    why = refusal(
        request.get("REQUEST_METHOD", ""),
        request.get("SERVER_URL", ""),
        fetch_site=header("Sec-Fetch-Site", ""),
        origin=header("Origin", ""),
        referer=header("Referer", ""),
    )
    if why:
        raise Forbidden(f"Nothing was changed: {why}.")
