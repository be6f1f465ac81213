"""bin/check: every checker over the whole tree, or those named as arguments; fails if one of them fails.

All of them run, even after a failure, so that one look shows everything.  The settings of ruff, mypy and
import-linter are in pyproject.toml; `pins` sees to it that versions.cfg names all that is installed.
"""

import configparser
import importlib.metadata
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import floors
import manual
import mutation
import names
import pages
import references
import settings
import states
import words

HERE = Path(__file__).resolve().parent.parent

#: Made in this tree; the second is there when zope.cfg was built before.
OURS = ("zope-sendmail", "products-maildrophost")


def main() -> int:
    chosen = sys.argv[1:] or list(CHECKERS)
    if strangers := sorted(set(chosen) - set(CHECKERS)):
        print(f"Not a checker: {', '.join(strangers)}. There are {', '.join(CHECKERS)}.", file=sys.stderr)
        return 2
    failed = [name for name in chosen if not passes(name)]
    print(f"\nFailed: {', '.join(failed)}" if failed else f"\nPassed: {', '.join(chosen)}")
    return 1 if failed else 0


def passes(name: str) -> bool:
    print(f"\n--- {name}", flush=True)
    return CHECKERS[name]()


def python(*args: str) -> bool:
    """Run this Python with `args`; whether it went well."""
    return subprocess.run([sys.executable, *args], cwd=HERE, check=False).returncode == 0


def pins() -> bool:
    """Whether all that is installed is pinned; buildout does not ask about what it finds in .venv."""
    config = configparser.RawConfigParser(delimiters=["="])
    config.read(HERE / "versions.cfg", encoding="utf-8")
    pinned = {normal(name): version for name, version in config["versions"].items()}
    installed = {normal(dist.name): dist.version for dist in importlib.metadata.distributions()}
    for name in OURS:
        installed.pop(name, None)
    strays = {name: version for name, version in installed.items() if pinned.get(name) != version}
    for name, version in sorted(strays.items()):
        print(f"{name} {version} is installed, but versions.cfg has {pinned.get(name, 'no line for it')}")
    if not strays:
        print(f"{len(installed)} distributions, all as in versions.cfg")
    return not strays


def normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


CHECKERS: dict[str, Callable[[], bool]] = {
    "ruff": partial(python, "-m", "ruff", "check"),
    "mypy": partial(python, "-m", "mypy"),
    "imports": partial(python, "-c", "from importlinter import cli; cli.lint_imports_command()"),
    "pins": pins,
    "floors": floors.is_current,
    "settings": settings.is_current,
    "references": references.is_current,
    "states": states.is_current,
    "words": words.are_right,
    "names": names.are_distinct,
    "manual": manual.is_current,
    "survivors": mutation.is_current,
    "docs": pages.are_right,
}
