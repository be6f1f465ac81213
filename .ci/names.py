"""No two names of the package that a reader takes for each other.

* Two modules, two public classes, or two public functions are not called alike: a letter apart, or one the other's
  plural.  Names below five letters are words of their own; ``IX`` is the interface of ``X``.
* A module's or a class's name stands for one thing.  Where it stands in several packages, it is the same part of each.

What is alike all the same is below, with the reason; an entry that nothing needs any more is told as well.
"""

import ast
import itertools
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
SOURCES = HERE / "src" / "zope" / "sendmail"

SHORT = 5

#: Pairs that stay.
ALIKE = {
    ("ILMTPMailer", "ISMTPMailer"): "protocols are called so",
    ("ILMTPMailerDirective", "ISMTPMailerDirective"): "protocols are called so",
    ("LMTPMailer", "SMTPMailer"): "protocols are called so",
    ("lmtpMailer", "smtpMailer"): "protocols are called so",
    ("Stage", "State"): "a stage is where the demo plays",
    ("bounce", "bounced"): "each line of the log is called by what happened",
    ("parse", "pause"): "a verb, and a kind of setting",
    ("parse_recipient", "parse_recipients"): "one, and a list of them",
    ("queuedDelivery", "queued_delivery"): "the ZCML directive is called so since zope.sendmail 3",
    ("serve", "server"): "a verb, and an attribute of OpenTelemetry",
    ("store", "story"): "a story is what the demo tells",
}
#: Names of several modules or classes.
SHARED = {
    "parts that every kind of queue has": (
        "admin",
        "claims",
        "doctor",
        "firstattempts",
        "keys",
        "lease",
        "liveness",
        "processorstates",
        "queue",
        "staging",
        "store",
        "suppressionlist",
        "transit",
        "Claims",
        "LeaseHolder",
    ),
    "where a program begins": ("__main__", "app"),
    "what Python and Zope call so": ("interfaces", "testing"),
    "the same thing: an instrument of measurement, an ordinary mail, a link to unsubscribe, a relay": (
        "instrument",
        "ordinary",
        "unsubscribe",
        "relay",
        "Relay",
    ),
    "paths that are imported since other releases": ("config", "maildir"),
}


def are_distinct() -> bool:
    """Return whether all names keep the rules; print those that do not."""
    named = names()
    accepted = {name for each in SHARED.values() for name in each}
    alike = {pair for each in named.values() for pair in pairs(each)}
    shared = {name for kind in ("module", "class") for name, places in named[kind].items() if len(places) > 1}
    complaints = [f"{one} and {other} are easily taken for each other" for one, other in sorted(alike - set(ALIKE))]
    complaints += [
        f"{name} is the name of several: {', '.join(sorted(places))}"
        for kind in ("module", "class")
        for name, places in named[kind].items()
        if name in shared - accepted
    ]
    complaints += [f".ci/names.py: nothing needs {pair} any more" for pair in sorted(set(ALIKE) - alike)]
    complaints += [f".ci/names.py: nothing needs {name} any more" for name in sorted(accepted - shared)]
    print("\n".join(complaints) or f"{sum(map(len, named.values()))} names, each for one thing.")
    return not complaints


def names() -> Mapping[str, Mapping[str, list[str]]]:
    """Return where each name stands, by its kind."""
    found: dict[str, dict[str, list[str]]] = {kind: defaultdict(list) for kind in ("module", "class", "function")}
    for path in sorted(SOURCES.rglob("*.py")):
        place = path.relative_to(SOURCES)
        if "tests" in place.parts:
            continue
        found["module"][place.parent.name if place.stem == "__init__" else place.stem].append(str(place))
        for kind, name in definitions(ast.parse(path.read_text(encoding="utf-8"))):
            found[kind][name].append(str(place))
    return found


def definitions(module: ast.Module) -> Iterator[tuple[str, str]]:
    """Give kind and name of each public class and function of a module."""
    for node in module.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield "class", node.name
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not node.name.startswith("_"):
            yield "function", node.name


def pairs(known: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Give the pairs of names that are alike."""
    for one, other in itertools.combinations(sorted(known), 2):
        if not is_interface_of(one, other) and are_alike(one.lower(), other.lower()):
            yield one, other


def is_interface_of(one: str, other: str) -> bool:
    """Return whether one of two names is that of the other's interface."""
    return one == f"I{other}" or other == f"I{one}"


def are_alike(one: str, other: str) -> bool:
    """Return whether two names are a letter apart, or one is the other's plural."""
    short, long = sorted((one, other), key=len)
    if long in (f"{short}s", f"{short}es", f"{short.removesuffix('y')}ies"):
        return True
    return len(short) >= SHORT and is_a_letter_apart(short, long)


def is_a_letter_apart(short: str, long: str) -> bool:
    """Return whether one change makes a name the other: a letter more, another one, or two that are swapped."""
    if len(long) > len(short):
        return any(long[:i] + long[i + 1 :] == short for i in range(len(long)))
    different = [i for i in range(len(short)) if short[i] != long[i]]
    swapped = len(different) == 2 and [short[i] for i in different] == [long[i] for i in reversed(different)]
    return len(different) == 1 or (swapped and different[1] - different[0] == 1)


if __name__ == "__main__":
    sys.exit(0 if are_distinct() else 1)
