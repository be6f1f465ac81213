"""``python -m zope.sendmail.cli``: the command ``zope-sendmail``."""

import sys

from zope.sendmail.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
