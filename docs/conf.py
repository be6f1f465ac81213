"""Sphinx settings.  ``bin/docs`` builds the pages; each warning is an error there."""

import builtins
import inspect
import re
from contextlib import suppress
from importlib.util import find_spec
from typing import Any

from zope.interface import Interface
from zope.interface.interface import InterfaceClass, Method

import zope.sendmail.interfaces

project = "zope.sendmail"
copyright = "Zope Foundation and Contributors"
release = version = "8.0.0"

extensions = ["sphinx.ext.autodoc", "repoze.sphinx.autointerface"]

# `Name` is a link, and has to lead somewhere: what is no name of ours is a ``literal``.
default_role = "any"
nitpicky = True

# Interfaces are documented by a class of their own, which the newer autodoc does not ask.
autodoc_use_legacy_class_based = True
# The pages are built without the frameworks.
autodoc_mock_imports = ["django", "flask", "pyramid", "sqlalchemy"]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
python_use_unqualified_type_names = True
add_module_names = False

html_theme = "furo"
html_title = "zope.sendmail"
epub_basename = "zope.sendmail"
epub_show_urls = "no"  # they would stand behind each link
exclude_patterns = ["_build"]

# Other projects' names are no links: the pages are built, and read, without a network.
OTHERS = (
    r"(collections|datetime|django|dkim|email|enum|io|logging|os|queue|smtplib|ssl|subprocess|threading|pyramid|transaction|typing|unittest"
    r"|zope\.schema)\b.*"
)
# Signatures name classes that are no part of the API; aliases and long annotations are cut in pieces.
INSIDE = (
    r"zope\.sendmail\.(processor|submission|sender\.reader|transports\.(innerlimits|onemailcalls)|lifecycle\.(rates|relaystate)|queue\.(maildir|memory)|testing\.(contracts|dialogue|relayscript))\..*"
    r"|.*\b_[A-Z]\w*|Piece|.*pieces\.Text|(frozenset|tuple)\[.*"
)
nitpick_ignore_regex = [("py:.*", OTHERS), ("py:class", rf"zope\.interface\..*|<InterfaceClass .*>|{INSIDE}")]


def setup(app: Any) -> None:
    """Let parameters be code, and `ValueError` and its like names without a link."""
    app.connect("builder-inited", mark_parameters_of_interfaces)
    app.connect("autodoc-process-docstring", mark_parameters)
    app.connect("autodoc-skip-member", skip_foreign)
    app.connect("missing-reference", name_built_in)


def mark_parameters_of_interfaces(app: Any) -> None:
    """Do the same for the methods of interfaces, which pass by autodoc's event."""
    for interface in interfaces_of(zope.sendmail.interfaces):
        for _, method in interface.namesAndDescriptions():
            if isinstance(method, Method):
                lines = method.getDoc().splitlines()
                mark_parameters(app, "method", method.getName(), method, None, lines)
                method.__doc__ = "\n".join(lines)


def interfaces_of(module: Any) -> list[Any]:
    """Return the interfaces that a module defines."""
    return [each for each in vars(module).values() if isinstance(each, InterfaceClass) and each is not Interface]


def mark_parameters(app: Any, what: str, name: str, documented: Any, options: Any, lines: list[str]) -> None:
    """Make literals of the names of parameters, which the any role would look up among everything that has a name."""
    names = parameters(documented)
    if names:
        pattern = re.compile(rf"(?<![`:\w])`({'|'.join(map(re.escape, names))})`(?!`)")
        lines[:] = [pattern.sub(r"``\1``", line) for line in lines]


def parameters(documented: Any) -> list[str]:
    """Return the names of what a function, a class, or a method of an interface takes."""
    if isinstance(documented, Method):
        found = documented.getSignatureInfo()
        return [*found["positional"], *filter(None, (found["varargs"], found["kwargs"]))]
    try:
        return list(inspect.signature(documented).parameters)
    except (TypeError, ValueError):
        return []


def skip_foreign(app: Any, what: str, name: str, documented: Any, skip: bool, options: Any) -> bool | None:
    """Leave out classes of smtplib's that are attributes of ours: their docstrings are not written for Sphinx."""
    return True if getattr(documented, "__module__", "") == "smtplib" else None


def name_built_in(app: Any, env: Any, node: Any, content: Any) -> Any:
    """Return the text itself for a name of Python's own, of another project, or of a module without a page here."""
    target = node.get("reftarget", "")
    return content if is_module(target) or hasattr(builtins, target) or re.fullmatch(OTHERS, target) else None


def is_module(name: str) -> bool:
    """Return whether this is a module of ours."""
    with suppress(ImportError):
        return name.startswith("zope.sendmail.") and find_spec(name) is not None
    return False
