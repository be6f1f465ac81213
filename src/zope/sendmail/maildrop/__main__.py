"""``python -m zope.sendmail.maildrop``: the command ``maildrop``."""

import sys

from zope.sendmail.maildrop.script import main

sys.exit(main())
