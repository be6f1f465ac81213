"""Fetch mailauth, which verifies DKIM and was written by others; nothing of this machine changes but a cache.

It comes with npm into ``${XDG_CACHE_HOME:-~/.cache}/zope.sendmail/dkim``; no script of a package is run.  What could
not be had is said here, and by the tests that skip for it; it is no error.  A second run finds it there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

PLACE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "zope.sendmail" / "dkim"
WANTED = "mailauth@4.8.1"


def main() -> int:
    stamp = PLACE / "made-by"
    if stamp.exists() and stamp.read_text() == WANTED:
        print("A verifier of DKIM: mailauth.")
        return 0
    if missing := [tool for tool in ("node", "npm") if shutil.which(tool) is None]:
        print(f"A verifier of DKIM: none. This machine has no {', '.join(missing)}.")
        return 0
    PLACE.mkdir(parents=True, exist_ok=True)
    words = ["npm", "install", "--prefix", str(PLACE), "--no-audit", "--no-fund", "--ignore-scripts", WANTED]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"A verifier of DKIM: none. npm says: {done.stderr.strip()[-500:]}")
        return 0
    stamp.write_text(WANTED)
    print("A verifier of DKIM: mailauth.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
