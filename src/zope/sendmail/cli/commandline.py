"""Parsers of command lines that ask which option was meant."""

from __future__ import annotations

import argparse
import re
from typing import NoReturn

from zope.sendmail.config.nearest import meant

_UNKNOWN = "unrecognized arguments: "


class CommandLine(argparse.ArgumentParser):
    """See argparse; the message about an option that there is none of ends with the nearest one."""

    def error(self, message: str) -> NoReturn:
        """See argparse."""
        if message.startswith(_UNKNOWN):
            known = [option for action in self._actions for option in action.option_strings]
            message += meant(re.findall(r"(?<!\S)--[\w-]+", message), known)
        super().error(message)
