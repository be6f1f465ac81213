"""BBB: ``python -m zope.sendmail.queue`` is ``zope-sendmail``."""

import sys
from importlib import import_module

if __name__ == "__main__":
    sys.exit(import_module("zope.sendmail.cli.app").run())
