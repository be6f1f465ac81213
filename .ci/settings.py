"""docs/reference/settings.rst: all that can be set, made from the schemas; `bin/check settings` compares it."""

from __future__ import annotations

import importlib
import re
import sys
import textwrap
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import zope.sendmail
from zope.sendmail.cli.arguments import make_parser
from zope.sendmail.zcml.schema import Setting

HERE = Path(__file__).resolve().parent.parent
PAGE = HERE / "docs" / "reference" / "settings.rst"

#: What text a parser reads, for people.
KINDS = {
    "boolean": "yes or no",
    "duration": "a duration",
    "pause": "a duration, more than 0",
    "number": "a number",
    "whole": "a whole number",
    "words": "words",
    "mechanisms": "SASL mechanisms",
    "notify_when": "NEVER, or some of SUCCESS, FAILURE, DELAY",
    "notify_return": "FULL or HDRS",
    "extensions": "SMTP extensions",
    "addresses": "host:port, several",
    "routes": "pattern=mailer, several",
    "split_command": "a command line",
    "str": "a text",
    "check_location": "a queue",
}

#: What a field takes that has no parser of ours.
FIELDS = {
    "GlobalObject": "a dotted name",
    "Int": "a whole number",
    "Path": "a path",
    "Permission": "a permission",
    "QueuePath": "a queue",
    "Tokens": "words",
}

INTRODUCTION = """\
========
Settings
========

All that can be set, by directive; this page is made from the schemas that ZCML is checked with. An attribute
``firstRetry`` is ``first-retry`` in ``<product-config mail>`` of zope.conf, ``first_retry`` in an ini file and in
Python, ``--first-retry`` on the command line. A duration is a number of seconds, or one with ``s``, ``m``, ``h`` or
``d``: ``90``, ``10m``, ``1.5d``. Several words have blanks or commas between them.
"""


def page() -> str:
    """The text of the page."""
    parts = [INTRODUCTION, *(directive(name, schema) for name, schema in directives()), command_line()]
    return "\n".join(parts)


def directives() -> Iterator[tuple[str, Any]]:
    """Each directive of meta.zcml with its schema."""
    [folder] = zope.sendmail.__path__
    text = Path(folder, "meta.zcml").read_text(encoding="utf-8")
    for name, where in re.findall(r'name="(\w+)"\s+schema="([\w.]+)"', text):
        module, _, schema = where.rpartition(".")
        yield name, getattr(importlib.import_module(module), schema)


def directive(name: str, schema: Any) -> str:
    """The section of one directive: its attributes, required ones first."""
    title = f"``mail:{name}``"
    fields = [(attribute.rstrip("_"), schema[attribute]) for attribute in schema.names(all=True)]
    ordered = sorted(fields, key=lambda each: (not each[1].required, each[1].order))
    rows = [row for attribute, field in ordered for row in attribute_rows(attribute, field)]
    about = " ".join((schema.__doc__ or "").split())
    return "\n".join([title, "=" * len(title), "", about, "", *rows, ""])


def attribute_rows(name: str, field: Any) -> list[str]:
    """What the page says of one attribute."""
    kind = kind_of(field)
    default = "required" if field.required else f"default: {shown(field.default)}"
    lines = [f"``{name}`` ({kind}; {default})"]
    text = " ".join(f"{field.description or field.title}".split())
    return [*lines, *textwrap.wrap(escaped(text), 116, initial_indent="    ", subsequent_indent="    "), ""]


def kind_of(field: Any) -> str:
    """What an attribute takes."""
    if not isinstance(field, Setting):
        return {"Path": "a path", "Int": "a whole number", "Tokens": "words", "GlobalObject": "a dotted name"}.get(
            type(field).__name__,
            {"QueuePath": "a queue", "Permission": "a permission"}.get(type(field).__name__, "a text"),
        )
    parse = field.parse
    inner = closure(parse)
    if isinstance(inner, type) and issubclass(inner, Enum):
        return "one of " + ", ".join(str(each.value) for each in inner)
    if parse.__name__ == "parse_positive":
        return f"{KINDS.get(inner.__name__, 'a number')}, more than 0"
    return KINDS.get(parse.__name__, parse.__name__)


def closure(parse: Any) -> Any:
    """What a parser was made of, or None."""
    cells = getattr(parse, "__closure__", None) or ()
    return next((cell.cell_contents for cell in cells), None)


def shown(default: Any) -> str:
    """A default for people."""
    if default in (None, "", ()):
        return "none"
    if isinstance(default, bool):
        return "yes" if default else "no"
    if isinstance(default, Enum):
        return str(default.value)
    return f"{default:g}" if isinstance(default, float) else str(default)


def escaped(text: str) -> str:
    """A text that has no markup by chance."""
    return re.sub(r"([*|\\])", r"\\\1", re.sub(r"(?<!`)`(?!`)", "", text))


def command_line() -> str:
    """The options of ``zope-sendmail``, as its help has them."""
    title = "``zope-sendmail``"
    rows = []
    for action in make_parser()._actions:
        names = ", ".join(f"``{each}``" for each in action.option_strings) or f"``{action.metavar or action.dest}``"
        told = " ".join((action.help or "").replace("%(prog)s", "zope-sendmail").replace("%%", "%").split())
        if action.help and action.help != "==SUPPRESS==":
            rows += [names, *textwrap.wrap(escaped(told), 116, initial_indent="    ", subsequent_indent="    "), ""]
    return "\n".join([title, "=" * len(title), "", *rows])


def is_current() -> bool:
    """Whether the page says what the schemas say."""
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == page():
        return True
    print(
        "docs/reference/settings.rst is not as the schemas are: run .venv/bin/python .ci/settings.py", file=sys.stderr
    )
    return False


def main() -> int:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
