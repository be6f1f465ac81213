"""Fetch the servers that tests speak with, mail servers and Prometheus; nothing of this machine changes but a cache.

Exim, Postfix, OpenSMTPD, Dovecot and Prometheus each get a root directory below
``${XDG_CACHE_HOME:-~/.cache}/zope.sendmail/mtas``: Debian's packages with all that they need, unpacked and not
installed.  The tests start them there with chroot.  Why this way: docs/explanation/decisions/interop.rst.

It needs root and apt with a package mirror.  What could not be had is said here, and by the tests that skip for it; it
is no error.  A second run finds everything there.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

PLACE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "zope.sendmail" / "mtas"


class Server(NamedTuple):
    """What is fetched, and the command that shows that it starts."""

    title: str
    packages: tuple[str, ...]
    proof: tuple[str, ...]


SERVERS = {
    "exim": Server("Exim", ("exim4-daemon-light",), ("/usr/sbin/exim4", "-C", "/dev/null", "-bV")),
    "postfix": Server(
        "Postfix",
        ("postfix", "sasl2-bin", "libsasl2-modules", "libsasl2-modules-db"),
        ("/usr/sbin/postconf", "-d", "mail_version"),
    ),
    "opensmtpd": Server("OpenSMTPD", ("opensmtpd", "dash"), ("/usr/sbin/smtpctl", "encrypt", "x")),
    "dovecot": Server(
        "Dovecot", ("dovecot-core", "dovecot-lmtpd", "dovecot-submissiond"), ("/usr/sbin/dovecot", "--version")
    ),
    "prometheus": Server("Prometheus", ("prometheus",), ("/usr/bin/promtool", "--version")),
    "filesystems": Server("XFS and btrfs", ("xfsprogs", "btrfs-progs"), ("/usr/sbin/mkfs.xfs", "-V")),
}

# They are told to be there: only an installation needs them.
NOT_NEEDED = (
    *("adduser", "cron", "db-util", "debconf", "debianutils", "dpkg", "e2fsprogs", "ed", "exim4-config"),
    *("init-system-helpers", "lsb-base", "openssl", "passwd", "perl", "perl-base", "ssl-cert", "tar", "usrmerge"),
)

# Neither is this: it would be half of the files.
LEFT_OUT = ("doc", "i18n", "info", "lintian", "locale", "man", "menu")

# Users of the servers, in their roots only; the machine's own need none.
USERS = ("Debian-exim", "postfix", "postdrop", "opensmtpd", "opensmtpq", "dovecot", "dovenull")
FIRST_ID = 64610

KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


class NotToBeHadError(Exception):
    """The text says why."""


def main() -> int:
    began = time.monotonic()
    try:
        check_machine()
        PLACE.mkdir(parents=True, exist_ok=True)
    except (NotToBeHadError, OSError) as reason:
        print(f"Real servers: none. {reason}")
        return 0
    with alone():
        tidy()
        if missing := [name for name in SERVERS if not is_there(name)]:
            fetch(missing)
    there = [server.title for name, server in SERVERS.items() if is_there(name)]
    print(f"Real servers: {', '.join(there) or 'none'} ({time.monotonic() - began:.1f} s).")
    return 0


def check_machine() -> None:
    """Raise `NotToBeHadError` where it cannot work."""
    if os.geteuid() != 0:
        raise NotToBeHadError("Only root can start them in a root directory of their own.")
    if tools := [tool for tool in ("apt-get", "dpkg-deb", "tar", "chroot") if shutil.which(tool) is None]:
        raise NotToBeHadError(f"This machine has no {', '.join(tools)}; Debian has.")


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Let no second run work in the cache meanwhile."""
    with (PLACE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def is_there(name: str) -> bool:
    stamp = PLACE / name / "made-by"
    return stamp.exists() and stamp.read_text() == fingerprint()


def fingerprint() -> str:
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()


def fetch(names: list[str]) -> None:
    """Make the roots of `names`, as far as possible."""
    try:
        apt = Apt()
    except (NotToBeHadError, OSError) as reason:
        for name in names:
            excuse(name, reason)
        return
    for name in names:
        try:
            make_root(name, apt)
            (PLACE / f"{name}.excuse").unlink(missing_ok=True)
        except (NotToBeHadError, OSError) as reason:
            excuse(name, reason)
    shutil.rmtree(PLACE / "apt")


def excuse(name: str, reason: Exception) -> None:
    """Say why it is not there: here, and in a file for the tests that skip."""
    print(f"{SERVERS[name].title} could not be had: {reason}")
    (PLACE / f"{name}.excuse").write_text(f"{reason}\n")


def tidy() -> None:
    """Remove what tests left behind that were killed yesterday."""
    for left in PLACE.glob("run-*"):
        if time.time() - left.stat().st_mtime > 86400:
            shutil.rmtree(left, ignore_errors=True)


class Apt:
    """The machine's apt with its mirrors, and lists, packages and a notion of what is installed of its own."""

    def __init__(self, place: Path = PLACE / "apt", entries: Iterable[str] = ()) -> None:
        self._place = place
        shutil.rmtree(self._place, ignore_errors=True)
        for folder in ("lists/partial", "archives/partial"):
            (self._place / folder).mkdir(parents=True)
        (self._place / "status").write_text("".join(map(installed, NOT_NEEDED)))
        (self._place / "sources.list").write_text("".join(entries or sources()))
        # 6.8 in Debian 12 cannot do STARTTLS with the OpenSSL that it was built for.
        (self._place / "preferences").write_text("Package: opensmtpd\nPin: release n=*-backports\nPin-Priority: 990\n")
        self.run("update")
        if not any((self._place / "lists").glob("*_Packages*")):
            raise NotToBeHadError("apt got no list of packages; is there a network?")

    def run(self, *args: str) -> str:
        """What apt printed.  Raises `NotToBeHadError` with what it complained about."""
        settings = {
            "Dir::State": self._place,
            "Dir::State::lists": self._place / "lists",
            "Dir::State::status": self._place / "status",
            "Dir::Cache": self._place,
            "Dir::Cache::archives": self._place / "archives",
            "Dir::Etc::sourcelist": self._place / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferences": self._place / "preferences",
            "Dir::Etc::preferencesparts": "/dev/null",
            "APT::Sandbox::User": "root",  # the cache may be where nobody else can go
            "APT::Install-Recommends": "false",
            "Acquire::Retries": "2",
            "Acquire::http::Timeout": "20",
            "Acquire::Languages": "none",
        }
        return run("apt-get", "-qq", *(f"-o{name}={value}" for name, value in settings.items()), *args)

    def download(self, packages: tuple[str, ...]) -> list[Path]:
        """Them and all that they need."""
        self.run("--yes", "--download-only", "install", *packages)
        plan = self.run("--simulate", "install", *packages).splitlines()
        names = [line.split()[1] for line in plan if line.startswith("Inst ")]
        return [package for name in names for package in (self._place / "archives").glob(f"{name}_*.deb")]


def installed(package: str) -> str:
    """What dpkg would have written down about it."""
    is_there = "Status: install ok installed\nArchitecture: all\nMulti-Arch: allowed\nVersion: 99:1"
    return f"Package: {package}\n{is_there}\nMaintainer: none\nDescription: not needed\n\n"


def sources(*suites: str) -> Iterator[str]:
    """The machine's own mirrors of its Debian, and the backports from there; or these suites alone."""
    release = codename()
    wanted = {release, f"{release}-updates", f"{release}-security"}
    form = "$(SITE) $(RELEASE) $(COMPONENT)"
    told = run("apt-get", "indextargets", "--format", form, "Created-By: Packages").splitlines()
    found = sorted({tuple(line.split()) for line in told if line.endswith(" main") and line.split()[1] in wanted})
    if not found:
        raise NotToBeHadError(f"apt has no mirror for {release!r}.")
    backports = [(site, f"{release}-backports", part) for site, suite, part in found if suite == release]
    if suites:
        found, backports = [], [(backports[0][0], suite, "main") for suite in suites]
    options = f" [signed-by={KEYS}]" if KEYS.exists() else ""
    return (f"deb{options} {' '.join(entry)}\n" for entry in [*found, *backports[:1]])


def codename() -> str:
    """Such as ``bookworm``."""
    for line in Path("/etc/os-release").read_text().splitlines():
        name, _, value = line.partition("=")
        if name == "VERSION_CODENAME":
            return value.strip('"')
    raise NotToBeHadError("/etc/os-release names no Debian release.")


def make_root(name: str, apt: Apt) -> None:
    """All or nothing: the directory has its name when everything is in it, and works."""
    server, new = SERVERS[name], PLACE / f"{name}.new"
    packages = apt.download(server.packages)
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o755)
    for folder in ("bin", "sbin", "lib", "lib64"):  # so it is in Debian since 12, and not in all its packages
        (new / "usr" / folder).mkdir(parents=True)
        (new / folder).symlink_to(f"usr/{folder}")
    for package in packages:
        unpack(package, new)
    furnish(new)
    run("chroot", str(new), *server.proof)
    (new / "made-by").write_text(fingerprint())
    shutil.rmtree(PLACE / name, ignore_errors=True)
    new.rename(PLACE / name)


def unpack(package: Path, root: Path) -> None:
    with subprocess.Popen([tool("dpkg-deb"), "--fsys-tarfile", package], stdout=subprocess.PIPE) as files:
        excluded = [f"--exclude=./usr/share/{folder}" for folder in LEFT_OUT] + ["--exclude=./usr/lib/*/gconv"]
        command = [tool("tar"), "-x", "-p", "-C", root, "--keep-directory-symlink", *excluded]
        unpacked = subprocess.run(command, stdin=files.stdout, capture_output=True, text=True, check=False)
    if files.returncode or unpacked.returncode:
        raise NotToBeHadError(f"{package.name} could not be unpacked: {unpacked.stderr.strip()}")


def furnish(root: Path) -> None:
    """What an installation would have made."""
    for folder, mode in {"etc": 0o755, "dev": 0o755, "tmp": 0o1777, "var/tmp": 0o1777, "run": 0o755}.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder).chmod(mode)
    if not (root / "var/run").exists():
        (root / "var/run").symlink_to("/run")
    ids = {"root": 0, "nobody": 65534, **{name: FIRST_ID + number for number, name in enumerate(USERS)}}
    accounts = [f"{name}:x:{number}:{number}::/:/bin/sh\n" for name, number in ids.items()]
    (root / "etc/passwd").write_text("".join(accounts))
    (root / "etc/group").write_text("".join(f"{name}:x:{number}:\n" for name, number in ids.items()))
    (root / "etc/nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files\nservices: files\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost mx.test\n")
    if (control := root / "usr/sbin/smtpctl").exists():  # it insists
        os.chown(control, 0, ids["opensmtpq"])
        control.chmod(0o2755)
    for name, minor in {"null": 3, "urandom": 9}.items():
        make_device(root / "dev" / name, minor)


def make_device(path: Path, minor: int) -> None:
    """A character device; an empty file does where none can be made or opened."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, minor))
        path.chmod(0o666)
        path.open("rb").close()
    except OSError:
        path.unlink(missing_ok=True)
        path.touch()
        path.chmod(0o666)


def run(name: str, *args: str) -> str:
    """What it printed.  Raises `NotToBeHadError` with what it complained about."""
    command = [tool(name), *args]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise NotToBeHadError(f"{name} failed: {' '.join(last)}")
    return done.stdout


def tool(name: str) -> str:
    """Its path."""
    return shutil.which(name) or name


if __name__ == "__main__":
    sys.exit(main())
