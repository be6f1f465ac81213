"""Real mail servers on free ports of this host, each with a directory of its own; nothing is installed or left behind.

``.ci/mtas.py`` unpacks them into the cache; each start gets a copy of such a root directory (made of hard links) and
is confined to it with chroot, which takes root.  All of them take mail for everybody but ``nouser`` (550) and
``tempfail`` (451), at most `LIMIT` octets, and know one user and password.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import smtplib
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, NamedTuple

from zope.sendmail.tests.support.conversation import authority

USERNAME, PASSWORD = "mailer", "s3cret"
LIMIT = 1024 * 1024

#: How long a loaded machine may take to start one, or to deliver.
_PATIENCE_SECONDS = 300.0
_TICK_SECONDS = 0.02

#: Where each of them has its files, as it sees them.
INSIDE = "/srv"


class Arrival(NamedTuple):
    """One mail at one recipient: the text from its first own header on, lines end with LF."""

    recipient: str
    text: bytes


class Server(ABC):
    """See the module.  `slow_speech`: one command, one reply.

    `home` has its files; for itself the path of that is `inside`.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    #: In the log, once for each connection.
    connected: ClassVar[str]
    #: What it offers after EHLO once TLS is there, as far as it matters here.
    offers: ClassVar[frozenset[str]]
    mechanisms: ClassVar[tuple[str, ...]]
    username: ClassVar[str] = USERNAME

    host = "127.0.0.1"

    @classmethod
    def excuse(cls) -> str:
        """Why it cannot be had here, or the empty string."""
        return excuse(cls.name, cls.title)

    @classmethod
    def excuse_for_tls(cls) -> str:
        """Why it cannot do TLS, or the empty string."""
        return ""

    @classmethod
    @abstractmethod
    def login_shown(cls, mechanism: str) -> str:
        """What the log has about a login, or about a mail after it."""

    def __init__(self, *, slow_speech: bool = False) -> None:
        self.slow_speech = slow_speech
        self.held = contextlib.ExitStack()
        self.port, self.tls_port = hold_ports(2, self.held)
        self.root = self.make_root()
        self.home = self.root / INSIDE.lstrip("/")
        self.home.mkdir(exist_ok=True)
        self.home.chmod(0o755)
        self.configure()

    @property
    def inside(self) -> str:
        """The path of `home` for the server."""
        return INSIDE

    def make_root(self) -> Path:
        """A copy of the unpacked one."""
        place = Path(tempfile.mkdtemp(prefix="run-", dir=cache()))
        place.chmod(0o755)
        shutil.copytree(cache() / self.name, place, symlinks=True, dirs_exist_ok=True, copy_function=_link)
        return place

    @abstractmethod
    def configure(self) -> None:
        """Write down how it is to behave."""

    @abstractmethod
    def command(self) -> list[str]:
        """What starts it, in the foreground."""

    @abstractmethod
    def logs(self) -> list[Path]:
        """The files it writes its log to."""

    @abstractmethod
    def arrivals(self) -> list[Arrival]:
        """What has arrived until now."""

    def chroot(self, *command: str) -> list[str]:
        """`command` in the root directory of this server."""
        return ["chroot", str(self.root), *command]

    def start(self) -> None:
        """Return when it listens.  Raises `RuntimeError` with its own words."""
        with (self.home / "output").open("wb") as output:
            self._process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                # A time zone with a long name ends OpenSMTPD, and none of them is to speak another language.
                env={**os.environ, "TZ": "UTC", "LC_ALL": "C"},
            )
        if not wait_until(lambda: self._has_ended() or self._listens()) or self._has_ended():
            words = self.log()
            self.stop()
            raise RuntimeError(f"{self.title} does not start: {words}")

    def stop(self) -> None:
        """End it with all its processes, and remove its directory."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(_PATIENCE_SECONDS)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self.held.close()
            wait_until(self._is_removed)

    def log(self) -> str:
        """All that it wrote down."""
        files = [self.home / "output", *self.logs()]
        return "\n".join(each.read_text(errors="replace") for each in files if each.exists())

    def connections(self) -> int:
        """How many there were, without the one that asked whether it listens."""
        return self.log().count(self.connected) - 1

    def arrived(self, count: int) -> list[Arrival]:
        """What has arrived when that is `count` or more, in alphabetical order."""
        wait_until(lambda: len(self.arrivals()) >= count)
        return sorted(self.arrivals())

    def write(self, name: str, text: str, *, mode: int = 0o644) -> Path:
        """A new file below the root directory: what is there may be a link to that of all."""
        path = self.root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.touch(mode)
        path.write_text(text)
        return path

    def certify(self, names: tuple[str, ...] = ("127.0.0.1", "localhost"), owner: tuple[int, int] = (0, 0)) -> None:
        """Put ``key.pem`` and ``cert.pem`` into `home`."""
        certificate = authority().issue_cert(*names)
        key = self.write(f"{INSIDE}/key.pem", certificate.private_key_pem.bytes().decode(), mode=0o600)
        if os.geteuid() == 0:
            os.chown(key, *owner)
        self.write(f"{INSIDE}/cert.pem", "".join(pem.bytes().decode() for pem in certificate.cert_chain_pems))

    def id_of(self, user: str) -> int:
        """The number of a user, and of the group of the same name, in its root directory."""
        lines = (self.root / "etc/passwd").read_text().splitlines()
        return next(int(line.split(":")[2]) for line in lines if line.startswith(f"{user}:"))

    def make_directory(self, path: str, owner: int, group: int = 0, *, mode: int = 0o700) -> None:
        """One below the root directory."""
        directory = self.root / path.lstrip("/")
        directory.mkdir(parents=True, exist_ok=True)
        os.chown(directory, owner, group)
        directory.chmod(mode)

    def _is_removed(self) -> bool:
        """Its processes may write while they die."""
        shutil.rmtree(self.root, ignore_errors=True)
        return not self.root.exists()

    def _has_ended(self) -> bool:
        return self._process.poll() is not None

    def _listens(self) -> bool:
        """Who is greeted stands in the log already."""
        try:
            smtplib.SMTP(self.host, self.port, "client.test", timeout=_PATIENCE_SECONDS).quit()
        except OSError:
            return False
        return True


def maildir(path: Path, header: bytes) -> list[Arrival]:
    """What is in a Maildir: `header` names the recipient, what is above the trace fields of our host is not ours."""
    return [_arrival(mail.read_bytes(), header) for mail in sorted((path / "new").glob("*"))]


def _arrival(text: bytes, header: bytes) -> Arrival:
    line = next(line for line in text.split(b"\n") if line.startswith(header))
    return Arrival(line.removeprefix(header).strip().decode(), without_trace(text))


def without_trace(text: bytes) -> bytes:
    """A mail from its first field on that is not a server's."""
    lines = text.split(b"\n")
    while lines[0].startswith((b"Return-Path:", b"Delivered-To:", b"X-Original-To:", b"Received:")):
        del lines[0]
        while lines[0].startswith((b" ", b"\t")):
            del lines[0]
    return b"\n".join(lines)


def cache() -> Path:
    """Where ``.ci/mtas.py`` puts them."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "zope.sendmail" / "mtas"


def excuse(name: str, title: str) -> str:
    """Why this one is not in the cache, or cannot be used, or the empty string."""
    if os.geteuid() != 0:
        return f"{title} needs root here"
    if (cache() / name / "made-by").exists():
        return ""
    with contextlib.suppress(OSError):
        return f"{title} could not be had: {(cache() / f'{name}.excuse').read_text().strip()}"
    return f"{title} is not there; as root: python3 .ci/mtas.py"


def wait_until(is_so: Callable[[], bool]) -> bool:
    """Whether it became so in good time."""
    until = time.monotonic() + _PATIENCE_SECONDS
    while not is_so():
        if time.monotonic() > until:
            return False
        time.sleep(_TICK_SECONDS)
    return True


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


def hold_ports(count: int, until: contextlib.ExitStack) -> list[int]:
    """Free ports of this host that nobody else gets by chance, until then; a server may listen there.

    Linux lets one socket listen while another only has the address; elsewhere they are free at once.
    """
    layout = [until.enter_context(socket.socket()) for _ in range(count)]
    for place in layout:
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        place.bind(("127.0.0.1", 0))
    numbers = [place.getsockname()[1] for place in layout]
    if sys.platform != "linux":
        until.close()
    return numbers
