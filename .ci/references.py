"""Pages of docs/reference that are made from the code: log, exit statuses, environment, events, queue file.

``python .ci/references.py`` writes them; bin/check compares them with what would be written now.
"""

from __future__ import annotations

import ast
import inspect
import os
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

from queuefile import queue_file_page
from surroundings import PACKAGE, environment_page, events_page, modules

from zope.sendmail.cli.manual import commands
from zope.sendmail.maildrop.script import make_parser

HERE = Path(__file__).resolve().parent.parent
REFERENCE = HERE / "docs" / "reference"

#: Of a process that its parent starts anew, so that no shell sees it.
INSIDE = {"EX_SOFTWARE"}

#: Methods of a logger, by which a line is told; that of ``log`` says its level itself.
LEVELS = ("debug", "info", "warning", "error", "critical", "exception", "log")

LOG = """\
=========
Log lines
=========

All that the loggers of this package say, made from the code. ``%s`` stands for what the line is about, ``%d`` and
``%.0f`` for numbers. ``QueueProcessorThread`` and ``MailDataManager`` are the loggers of queues and transactions, by
their names in 7.3; the others have the name of their module.
"""

EXITS = """\
=============
Exit statuses
=============

What each command returns, as its help says it. Those from 64 on are those of ``<sysexits.h>``.
"""


def log_page() -> str:
    """Return the page of log lines."""
    parts = [LOG]
    for path in modules():
        place = path.relative_to(PACKAGE)
        if lines := list(lines_of(path)):
            name = f"``zope.sendmail.{'.'.join(place.with_suffix('').parts).removesuffix('.__init__')}``"
            parts += [name, "=" * len(name), "", *lines, ""]
    return "\n".join(parts)


def lines_of(path: Path) -> Iterator[str]:
    """Give the entries of one module: level and text, and when it is said."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        for call in (node for node in ast.walk(function) if isinstance(node, ast.Call)):
            if told := sentence(call):
                about = (ast.get_docstring(function) or "").partition("\n")[0].replace("`", "")
                yield f"* *{told[0]}*: ``{told[1]}``"
                yield from [f"  {about}"] * (path.stem == "maillog")


def sentence(call: ast.Call) -> tuple[str, str] | None:
    """Return level and text, if this call tells a logger something that stands there literally."""
    function = call.func
    if not (isinstance(function, ast.Attribute) and function.attr in LEVELS and "log" in ast.unparse(function.value)):
        return None
    arguments = call.args[1:] if function.attr == "log" else call.args
    texts = [node.value for node in ast.walk(arguments[0]) if isinstance(node, ast.Constant)] if arguments else []
    text = " ".join("".join(each for each in texts if isinstance(each, str)).split())
    return (function.attr.replace("log", "by outcome"), text) if text else None


def exits_page() -> str:
    """Return the page of exit statuses.  Raises `SystemExit` if the code returns one that no help says."""
    parts = [EXITS]
    for parser in (*(command.parser for command in commands()), make_parser()):
        epilog = inspect.cleandoc(parser.epilog or "")
        if "exit status:" in epilog:
            name = f"``{parser.prog}``"
            parts += [name, "=" * len(name), "", *rows(epilog.partition("exit status:")[2])]
    text = "\n".join(parts)
    if missing := [name for name in statuses_used() if f"``{getattr(os, name)}``" not in text]:
        raise SystemExit(f"no help has these exit statuses: {', '.join(missing)}")
    return text


def statuses_used() -> list[str]:
    """Return the names of the statuses in the code of the commands."""
    found = (
        path.read_text(encoding="utf-8") for folder in ("cli", "maildrop") for path in (PACKAGE / folder).glob("*.py")
    )
    return sorted({name for text in found for name in re.findall(r"os\.(EX_\w+)", text)} - INSIDE)


def rows(text: str) -> Iterator[str]:
    """Give the statuses with their meanings as definitions."""
    for line in textwrap.dedent(text).strip("\n").splitlines():
        number, _, meaning = line.strip().partition(" ")
        if not line.strip():
            break
        if number.isdigit():
            yield f"``{number}``"
            yield f"    {meaning.strip()}"
        else:
            yield f"    {line.strip()}"
    yield ""


PAGES = {
    "log.rst": log_page,
    "exits.rst": exits_page,
    "environment.rst": environment_page,
    "events.rst": events_page,
    "queuefile.rst": queue_file_page,
}


def is_current() -> bool:
    """Say whether the pages are as the code is."""
    old = [name for name, made in PAGES.items() if not holds(REFERENCE / name, made())]
    if old:
        print(f"docs/reference: {', '.join(old)}: run .venv/bin/python .ci/references.py", file=sys.stderr)
    return not old


def holds(path: Path, text: str) -> bool:
    """Return whether a file has this text."""
    return path.exists() and path.read_text(encoding="utf-8") == text


def main() -> int:
    """Write the pages."""
    for name, made in PAGES.items():
        (REFERENCE / name).write_text(made(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
