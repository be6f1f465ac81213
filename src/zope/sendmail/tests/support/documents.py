"""The blocks of code and commands in README and docs, each with what is said about its test.

A block is a ``code-block``, a literal block (``::``) or a ``literalinclude``.  A comment right before it may say
``.. tested by: MODULE`` (below ``zope.sendmail.tests``, or a file in ``.ci``) or ``.. not run: WHY``; before a literal
block ``.. language: shell``.
"""

from __future__ import annotations

import re
import textwrap
import unittest
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parents[5]
DOCS = HERE / "docs"
README = HERE / "README.txt"

_DIRECTIVE = re.compile(r"( *)\.\. (code-block|literalinclude):: *(\S*)$")
_MARK = re.compile(r" *\.\. (tested by|not run|language): (.+)$")
_LITERAL = re.compile(r"( *)(?!\.\. )(?:.*\S)?::$")


@dataclass(frozen=True)
class Block:
    """One block: `language` is empty for a literal block, ``file`` for a file that is included."""

    page: str
    line: int
    language: str
    text: str
    tested_by: str = ""
    not_run: str = ""

    def __str__(self) -> str:
        return f"{self.page}, line {self.line}: {self.text.partition(chr(10))[0]}"


def pages() -> list[str]:
    """Return the names of all pages, README first; skip where they are not: an installed package."""
    if not README.exists():
        raise unittest.SkipTest("the docs are not beside the package: this is not a checkout")
    found = (path for path in DOCS.rglob("*.rst") if "_build" not in path.parts)
    return [README.name, *sorted(str(path.relative_to(DOCS)) for path in found)]


def page_text(page: str) -> str:
    """Return the text of a page."""
    pages()
    return (HERE / page if page == README.name else DOCS / page).read_text(encoding="utf-8")


def blocks(page: str, language: str = "") -> list[Block]:
    """Return the blocks of a page, or those in one language."""
    return [block for block in _found(page, page_text(page).split("\n")) if language in ("", block.language)]


def _found(page: str, lines: list[str]) -> Iterator[Block]:
    marks: dict[str, str] = {}
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        if mark := _MARK.match(line):
            marks[mark[1].replace(" ", "_")] = mark[2]
        elif directive := _DIRECTIVE.match(line) or _LITERAL.match(line):
            is_directive = len(directive.groups()) > 1
            body = _indented(lines[number:], len(directive[1]))
            kind, argument = (directive[2], directive[3]) if is_directive else ("", "")
            if kind == "literalinclude":
                yield Block(page, number, language="file", text=argument, **marks)
            elif text := _content(body):
                yield Block(page, number, text=text, **{"language": argument, **marks})
            marks = {}
            number += len(body)
        elif line.strip() and number > 1 and not lines[number - 2].strip() and not _is_mark(lines[: number - 1]):
            marks = {}  # a second paragraph: the mark is for the first


def _is_mark(lines: list[str]) -> bool:
    """Return whether the last thing that is said here is a mark."""
    said = [line for line in lines[-3:] if line.strip()]
    return bool(said and _MARK.match(said[-1]))


def _indented(lines: list[str], indentation: int) -> list[str]:
    for count, line in enumerate(lines):
        if line.strip() and len(line) - len(line.lstrip()) <= indentation:
            return lines[:count]
    return lines


def _content(body: list[str]) -> str:
    """Return the text below a directive, without its options."""
    while body and (not body[0].strip() or body[0].lstrip().startswith(":")):
        body = body[1:]
    return textwrap.dedent("\n".join(body)).strip("\n")
