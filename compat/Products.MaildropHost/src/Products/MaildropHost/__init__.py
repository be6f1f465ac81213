"""The Maildrop Host by its old names; see `zope.sendmail.maildrop.host`."""

from typing import Any

from zope.sendmail.maildrop import host


def initialize(context: Any) -> None:
    """Serve ``manage_addProduct['MaildropHost']``; configure.zcml puts the class on the add list, once."""
    context.registerClass(
        host.MaildropHost,
        permission=host.ADD_PERMISSION,
        constructors=(host.addMaildropHostForm, host.manage_addMaildropHost),
        visibility=None,
    )
