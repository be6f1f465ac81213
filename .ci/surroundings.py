"""The pages docs/reference/environment.rst and events.rst, made from the code; `references` writes them.

A variable of the environment is a constant of a module, with a comment ``#: In the environment: ...``.  Whatever else
the code reads there is an error, so that no variable is without its entry.
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zope.interface import Interface
from zope.interface.interface import InterfaceClass

import zope.sendmail.events
from zope.sendmail import interfaces

HERE = Path(__file__).resolve().parent.parent
PACKAGE = HERE / "src" / "zope" / "sendmail"

#: Not part of what runs at a site.
LEFT_OUT = ("tests", "testing", "demo")

ENVIRONMENT = """\
=====================
Environment variables
=====================

All that this package reads in its environment, made from the code. PostgreSQL's library reads ``PGPASSWORD`` and its
other ones by itself.
"""

EVENTS = """\
======
Events
======

What subscribers are told (``zope.component.provideHandler``, ``<subscriber>`` in ZCML); this page is made from the
interfaces.
"""

_COMMENT = re.compile(r"(?m)^((?:#: .*\n)+)(_?[A-Z_]+) = (.*)$")


def environment_page() -> str:
    """Return the page of environment variables.  Raises `SystemExit` if one that is read has no entry."""
    entries: dict[tuple[str, ...], str] = {}
    read: set[tuple[str, str]] = set()
    for path in modules():
        text = path.read_text(encoding="utf-8")
        entries |= described(text)
        read |= {(name, path.name) for name in names_read(text)}
    known = {name for names in entries for name in names}
    if missing := sorted(each for each in read if each[0] not in known):
        raise SystemExit(f"read in the environment, but not described (#: In the environment: ...): {missing}")
    parts = [ENVIRONMENT]
    for names, about in sorted(entries.items()):
        parts += [", ".join(f"``{name}``" for name in names), filled(about), ""]
    return "\n".join(parts)


def modules() -> Iterator[Path]:
    """Give the modules of what runs at a site."""
    for path in sorted(PACKAGE.rglob("*.py")):
        if not set(LEFT_OUT) & set(path.relative_to(PACKAGE).parts):
            yield path


def described(text: str) -> dict[tuple[str, ...], str]:
    """Return the variables that a module describes, those of one meaning together, with what it says of them."""
    found: dict[tuple[str, ...], str] = {}
    for comment, _, value in _COMMENT.findall(text):
        about = " ".join(comment.replace("#: ", "").split())
        if about.startswith("In the environment"):
            _, whose, said = re.split(r"^In the environment(?: of (.*?))?: ", about)
            names = tuple(re.findall(r'"(\w+)"', value))
            found[names] = f"For {whose}: {said}" if whose else said[0].upper() + said[1:]
    return found


def names_read(text: str) -> Iterator[str]:
    """Give the variables that a module reads from ``os.environ`` by name; a constant by its value."""
    tree = ast.parse(text)
    constants = {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        key = key_read(node)
        if isinstance(key, ast.Constant):
            yield str(key.value)
        elif isinstance(key, ast.Name):
            yield str(constants.get(key.id, key.id))


def key_read(node: ast.AST) -> ast.expr | None:
    """Return what stands in the brackets of ``os.environ[...]`` or is the first argument of a method of it."""
    if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "os.environ":
        return node.slice
    if isinstance(node, ast.Call) and re.fullmatch(r"os\.(environ\.\w+|getenv)", ast.unparse(node.func)):
        return node.args[0] if node.args else None
    return None


def events_page() -> str:
    """Return the page of events."""
    parts = [EVENTS]
    for interface in kinds_of_events():
        name = interface.__name__
        parts += [f"`{name}`", "=" * (len(name) + 2), "", inspect.cleandoc(interface.getDoc()), ""]
        parts += [f"Made as: {', '.join(makers)}.", ""] if (makers := makers_of(interface)) else []
        base = interface.__bases__[0]
        if base is not Interface:
            parts += [f"All that `{base.__name__}` has{', and:' if interface.names() else '.'}", ""]
        for attribute in interface.names():
            parts += [f"``{attribute}``", filled(about(interface[attribute])), ""]
    return "\n".join([*parts, "Classes", "=======", "", ".. automodule:: zope.sendmail.events", ""])


def kinds_of_events() -> list[InterfaceClass]:
    """Return the interfaces of events, as they stand in their module."""
    return [
        each for name, each in vars(interfaces).items() if isinstance(each, InterfaceClass) and name.endswith("Event")
    ]


def makers_of(interface: InterfaceClass) -> list[str]:
    """Return the classes whose instances are told as this kind, and not as a finer one."""
    classes = [each for each in vars(zope.sendmail.events).values() if inspect.isclass(each)]
    return [f"`{each.__name__}`" for each in classes if interface in implemented_by(each)]


def implemented_by(kind: type) -> list[InterfaceClass]:
    """Return what a class says that it implements itself."""
    declared = kind.__dict__.get("__implemented__")
    return list(getattr(declared, "declared", ()))


def about(attribute: Any) -> str:
    """Return what is said of an attribute: the title of a field, else the text."""
    return " ".join((getattr(attribute, "title", "") or attribute.getDoc()).split())


def filled(text: str) -> str:
    """Return a paragraph below a term."""
    return textwrap.fill(text, 116, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)
