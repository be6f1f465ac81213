"""What could be imported from here in 2.3 and still means something; pickles name the class by this module."""

from zope.sendmail.maildrop.configfiles import CONFIG_PATHS, default_path
from zope.sendmail.maildrop.host import MaildropHost, addMaildropHostForm, manage_addMaildropHost

DEFAULT_CONFIG_PATH = default_path()

__all__ = [
    "CONFIG_PATHS",
    "DEFAULT_CONFIG_PATH",
    "MaildropHost",
    "addMaildropHostForm",
    "manage_addMaildropHost",
]
