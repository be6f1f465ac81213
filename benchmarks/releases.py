"""The two releases that are compared: this one, and the newest public one before it.

The other one is installed from the package index into an environment of its own, which is kept in the user's cache
directory; nothing of it enters the repository.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from figures import Report, progress
from serve import Child

#: The newest before this one.
BEFORE = "zope.sendmail < 8"


#: Where other packages are kept.
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "zope.sendmail-benchmarks"


class Ours:
    """This release, as the benchmark itself has imported it."""

    def child(self, program: str, *prefix: str) -> Child:
        """A process that runs `program` with this release; `prefix` stands before the Python."""
        return Child([*prefix, sys.executable], program, os.pathsep.join(filter(None, sys.path[1:])))


class Theirs:
    """Another release.  `requirement` says which."""

    def __init__(self, requirement: str, cache: Path) -> None:
        try:
            self._python = environment([requirement], cache)
            asked = "from importlib.metadata import version; print(version('zope.sendmail'))"
            self.version = _run(self._python, "-c", asked)
        except NotInstalled as error:
            raise SystemExit(f"the release to compare with cannot be had:\n{error}") from None
        self.name = f"zope.sendmail {self.version}"

    def child(self, program: str) -> Child:
        """A process that runs `program` with this release."""
        return Child([str(self._python)], program)


class NotInstalled(Exception):
    """pip's own words."""


def environment(requirements: Sequence[str], cache: Path) -> Path:
    """The Python of an environment that has these from the package index; kept in `cache`.

    :raises NotInstalled: if they cannot be had
    """
    key = hashlib.sha256(f"{' '.join(requirements)} {sys.version}".encode()).hexdigest()[:12]
    made = cache / key
    python, installed = made / "bin" / "python", made / "installed"
    if not installed.exists():
        progress(f"installing {' '.join(requirements)}")
        venv.create(made, clear=True, with_pip=True)
        _run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements)
        installed.touch()
    return python


def _run(python: Path, *arguments: str) -> str:
    outside = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run([str(python), *arguments], check=False, capture_output=True, text=True, env=outside)
    if done.returncode != 0:
        raise NotInstalled(done.stderr)
    return done.stdout.strip()


def parser(text: str | None, rounds: int, *, before: bool = True) -> argparse.ArgumentParser:
    """The arguments that all benchmarks have; `before`: it compares with one other release."""
    found = argparse.ArgumentParser(description=(text or "").partition("\n\n")[0])
    found.add_argument(
        "directory",
        nargs="?",
        default=".",
        help="where the queues are made, in a directory of their own that is removed afterwards; should be on the"
        " disk in question (default: here)",
    )
    found.add_argument("--rounds", type=int, default=rounds, help="default: %(default)s")
    found.add_argument("--json", action="store_true", help="the same for a program, with the value of each round")
    if before:
        found.add_argument("--against", default=BEFORE, metavar="REQUIREMENT", help="default: %(default)r")
    found.add_argument("--cache", type=Path, default=CACHE, help="where other packages are kept")
    return found


@contextmanager
def place(directory: str) -> Iterator[str]:
    """A directory for the queues."""
    with tempfile.TemporaryDirectory(prefix="benchmark-", dir=directory) as path:
        yield os.path.abspath(path)


def report(title: str, theirs: Theirs, directory: str) -> Report:
    """An empty report."""
    kind = file_system(directory)
    made = Report(title, f"zope.sendmail {our_version()} against {theirs.version}", kind)
    if kind in {"tmpfs", "ramfs", "overlay"}:
        made.notes.append(f"{kind} is no disk: what is said about durability here means nothing")
    return made


def file_system(path: str) -> str:
    """The type of the file system that `path` is on."""
    path = os.path.realpath(path)
    best = ("", "an unknown file system")
    try:
        lines = Path("/proc/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return best[1]
    for line in lines:
        _, point, kind, *_ = line.split()
        if os.path.commonpath([point, path]) == point and len(point) >= len(best[0]):
            best = (point, kind)
    return best[1]


def our_version() -> str:
    try:
        return importlib.metadata.version("zope.sendmail")
    except importlib.metadata.PackageNotFoundError:
        return "(this checkout)"
