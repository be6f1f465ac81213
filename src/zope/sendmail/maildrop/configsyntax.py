"""The language of a maildrop configuration file: assignments of literals, readable by Python, Zope and a shell.

``NAME = literal`` with strings, numbers, ``True``, ``False`` and ``None``; ``#`` begins a comment; line ends mean
nothing; of two values for one name the later counts.  Nothing is executed, nothing expanded.  Pure; fails with
`ValueError` that names the line and the cure.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

Literal = str | int | float | bool | None

_TOKEN = re.compile(
    r"""
    (?P<blank>    (?: \s | \\\r?\n | \# [^\n]* | \$ (?![A-Za-z_({]) )+ )
  | (?P<string>   (?P<prefix> [rRuUbB]{0,2} ) (?:
                      ''' (?: [^\\] | \\. )*? '''
                    | \"\"\" (?: [^\\] | \\. )*? \"\"\"
                    | ' (?: [^'\\\n] | \\. )* '
                    | " (?: [^"\\\n] | \\. )* " ) )
  | (?P<number>   \d [0-9A-Za-z_.]* (?: (?<= [eE] ) [+-] \d+ )? | \. \d [0-9A-Za-z_]* )
  | (?P<name>     [A-Za-z_] \w* )
  | (?P<equals>   = )
    """,
    re.VERBOSE | re.DOTALL | re.ASCII,
)

#: A backslash and what it changes; before anything else it stands for itself, as for Python 2 and for a shell.
_ESCAPE = re.compile(r"\\(?:\n|[\\'\"abfnrtv]|[0-7]{1,3}|x(?:[0-9A-Fa-f]{2})?)")
#: The same in a text with the prefix ``u``.
_UNICODE_ESCAPE = re.compile(rf"{_ESCAPE.pattern}|\\u[0-9A-Fa-f]{{4}}|\\U[0-9A-Fa-f]{{8}}|\\N\{{[^}}]*\}}")

_WORDS: Mapping[str, Literal] = {"True": True, "False": False, "None": None}

_STRANGE = {
    ";": "one assignment needs no ';' behind it; take it away",
    "-": "there is nothing to set that is less than zero",
    "+": "write the number without a sign",
    "[": 'write a list as one text: "a;b" for directories, "a,b" for addresses',
    "(": 'write a list as one text: "a;b" for directories, "a,b" for addresses',
    "'": "the text that begins here has no end; close it on the same line",
    '"': "the text that begins here has no end; close it on the same line",
    "$": "nothing is expanded here; write the value itself, in quotes",
}


@dataclass(frozen=True, slots=True)
class Assigned:
    """The value of a name, as it is written, and the line in which it stands."""

    value: Literal
    written: str
    line: int


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    prefix: str
    line: int


class Malformed(ValueError):
    """The text is no list of assignments; `line` says where not, the text why and what to do."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line


def parse_assignments(text: str) -> dict[str, Assigned]:
    """Return the value of each name.  Raises `Malformed`."""
    found: dict[str, Assigned] = {}
    tokens = _tokens(text)
    for token in tokens:
        if token.kind != "name":
            raise Malformed(token.line, "a value stands alone, without a name; write NAME=value")
        equals = next(tokens, None)
        if equals is None or equals.kind != "equals":
            raise Malformed(token.line, f"no '=' behind {token.text}; write {token.text}=value")
        value = next(tokens, None)
        if value is None:
            raise Malformed(equals.line, f'{token.text} has no value; write {token.text}="" if it shall have none')
        found[token.text] = Assigned(_value(value, token.text), value.text, value.line)
    return found


def _tokens(text: str) -> Iterator[_Token]:
    position, line = 0, 1
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            cure = _STRANGE.get(text[position], "put texts in quotes")
            raise Malformed(line, f"{text[position]!r} cannot stand here: {cure}")
        kind = match.lastgroup if match.lastgroup != "prefix" else "string"
        if kind != "blank":
            yield _Token(str(kind), match.group(), match["prefix"] or "", line)
        line += match.group().count("\n")
        position = match.end()


def _value(token: _Token, name: str) -> Literal:
    if token.kind == "name" and token.text in _WORDS:
        return _WORDS[token.text]
    if token.kind == "string":
        return _string(token)
    if token.kind == "number":
        return _number(token)
    raise Malformed(token.line, f'the value of {name} is not a literal; put texts in quotes: {name}="text"')


def _string(token: _Token) -> str:
    """Escapes are decoded unless the prefix has an ``r``."""
    prefix = token.prefix.lower()
    quoted = token.text[len(prefix) :]
    quotes = 3 if len(quoted) >= 6 and quoted[:3] in ("'''", '"""') else 1
    text = quoted[quotes:-quotes]
    if "r" in prefix:
        return text
    try:
        return (_UNICODE_ESCAPE if "u" in prefix else _ESCAPE).sub(_decoded, text)
    except (ValueError, SyntaxError):  # what they say may have a password in it
        raise Malformed(token.line, "a text has a wrong escape in it; write \\\\ for a backslash") from None


def _decoded(escape: re.Match[str]) -> str:
    """Return what an escape stands for.  Raises `ValueError` or `SyntaxError`."""
    return "" if escape[0] == "\\\n" else str(ast.literal_eval(f'"{escape[0]}"'))


def _number(token: _Token) -> int | float:
    text = token.text
    try:
        if re.fullmatch(r"0[0-7]+", text):  # octal, as in Python 2 and in C
            return int(text, 8)
        if re.fullmatch(r"[\d.]+(e[+-]?\d+)?", text, re.IGNORECASE) and not text.isdigit():
            return float(text)
        return int(text, 0)
    except ValueError:
        raise Malformed(token.line, f"{text} is not a number; write one like 25 or 0.5, or put it in quotes") from None
