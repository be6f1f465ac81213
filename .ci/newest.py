"""Fetch a Python that is newer than those of this machine; nothing of it changes but a directory.

Debian's packages of its next release, with the C library that they were built for, are unpacked and not installed.  The
interpreter is told where that library is, so that it runs as any other, also from a virtual environment.

It needs apt with a package mirror, and a ``patchelf`` (0.18, Debian's, makes interpreters that crash).  Its arguments
are a version, a directory, and the path of ``patchelf``; it prints the interpreter's path, or fails and says why.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from mtas import Apt, NotToBeHadError, run, sources, unpack

#: Where Debian's newest packages are.
_SUITE = "sid"


def main() -> None:
    """Have it, and say where it is."""
    version, place, patchelf = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    try:
        print(fetch(version, place, patchelf))
    except (NotToBeHadError, OSError) as reason:
        sys.exit(f"Python {version} could not be had: {reason}")


def fetch(version: str, place: Path, patchelf: str) -> Path:
    """All or nothing: the directory has its name when everything is in it, and works.

    :returns: the path of the interpreter
    """
    python = place / "usr" / "bin" / f"python{version}"
    if python.exists():
        return python
    new = place.with_name(f"{place.name}.apt")
    apt = Apt(new, [*sources(_SUITE)])
    packages = apt.download((f"python{version}", f"python{version}-venv"))
    shutil.rmtree(place, ignore_errors=True)
    half = place.with_name(f"{place.name}.half")
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(parents=True)
    for package in packages:
        unpack(package, half)
    half.rename(place)  # what is written into the interpreter is a path
    try:
        _settle(python, place, version, patchelf)
    except (NotToBeHadError, OSError):
        shutil.rmtree(place)
        raise
    shutil.rmtree(new)
    return python


def _settle(python: Path, place: Path, version: str, patchelf: str) -> None:
    """Tell the interpreter where its libraries are, and where pip is."""
    [loader] = (place / "usr" / "lib").glob("*/ld-linux-*.so.2")
    libraries = str(loader.parent)
    run(patchelf, "--set-interpreter", str(loader), "--force-rpath", "--set-rpath", libraries, str(python))
    ensurepip = place / "usr" / "lib" / f"python{version}" / "ensurepip" / "__init__.py"
    text = ensurepip.read_text(encoding="utf-8")
    wheels = str(place / "usr" / "share" / "python-wheels")
    ensurepip.write_text(text.replace("Path(_pkg_dir).resolve()", f"Path({wheels!r})"), encoding="utf-8")
    run(str(python), "-c", "import ctypes, ensurepip, sqlite3, ssl, venv")


if __name__ == "__main__":
    main()
