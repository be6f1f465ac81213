"""PostgreSQL and pgbouncer for the tests, from the packages of Debian and its kin; says why where they cannot be had.

The tests start servers of their own, on Unix sockets and 127.0.0.1, as a user without rights; what the packages would
start is not started.  Nothing here makes CI fail: without a server those tests skip, with the reason.
"""

from __future__ import annotations

import glob
import os
import shutil
import subprocess

_PACKAGES = ("postgresql", "pgbouncer")


def main() -> None:
    """Install what is missing."""
    if glob.glob("/usr/lib/postgresql/*/bin/initdb") and shutil.which("pgbouncer", path="/usr/sbin:/usr/bin"):
        print("PostgreSQL and pgbouncer are here")
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        print("Skipped: PostgreSQL is installed with apt-get and as root only; its tests skip where there is none")
        return
    for command in (["apt-get", "update"], ["apt-get", "install", "-y", "--no-install-recommends", *_PACKAGES]):
        # Debian starts what it installs, unless a policy says no; the tests start their own.
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
        if done.returncode:
            print(f"Skipped: {' '.join(command)} failed; the tests of PostgreSQL skip: {done.stderr.strip()[-300:]}")
            return
    print("PostgreSQL and pgbouncer were installed")


if __name__ == "__main__":
    main()
