"""A Maildrop Host in the profiles of GenericSetup: ``mailhost.xml``.

What a profile says about relay, login and queue is for a MailHost and is passed over: the configuration file has it.
So no profile brings a password into the database, and an export names none.
"""

from __future__ import annotations

from typing import Any

from Products.GenericSetup.utils import XMLAdapterBase


class MaildropHostProfile(XMLAdapterBase):  # type: ignore[misc]  # Zope says nothing about its types
    """Exports and imports `title`, `transactional` and `path_key`; what is not named stays."""

    _LOGGER_ID = name = "mailhost"

    def _exportNode(self) -> Any:
        node = self._getObjectNode("object")
        node.setAttribute("title", self.context.title)
        node.setAttribute("transactional", str(self.context.isTransactional()))
        if self.context._path_key:
            node.setAttribute("path_key", self.context._path_key)
        self._logger.info("The Maildrop Host was exported.")
        return node

    def _importNode(self, node: Any) -> None:
        """Raises as `MaildropHost.setConfigPath`, before anything is changed."""
        host = self.context
        if node.getAttribute("path_key"):
            host.setConfigPath(node.getAttribute("path_key"))
        if node.hasAttribute("title"):
            host.title = node.getAttribute("title")
        if node.hasAttribute("transactional"):
            host._transactional = self._convertToBoolean(node.getAttribute("transactional"))
        others = sorted(name for name in node.attributes.keys() if name.startswith("smtp_"))  # noqa: SIM118 - DOM
        if others:
            self._logger.info("Passed over: %s; a Maildrop Host has these in its file.", ", ".join(others))
        self._logger.info("The Maildrop Host was imported.")
