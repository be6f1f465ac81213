"""How docstrings and comments are written: what ruff has no rule for.

* The first line of a function's docstring is a verb phrase ("Return ...", "Claim ..."), of a property's, attribute's or
  class's a noun phrase; "See ..." leads to the interface that says it.
* Code and callers have names: the processor, a worker, the relay, the caller, an operator; never a free "who", "nobody"
  or "somebody".  That holds for what the programs say as well: the log, errors, findings, help.
* A comment that stops a tool from complaining says why: ``# noqa: X1 - reason``, ``# type: ignore[x]  # reason``.
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
SOURCES = HERE / "src" / "zope" / "sendmail"

#: First words of phrases that are no verb phrases; ruff (D401) knows verbs in another form.
NO_VERB = re.compile(
    r"(A|All|An|Another|Any|As|At|Because|Both|By|Each|Every|Everything|For|From|How|If|In|It|Its|Like|No|None|Nothing|Of|On"
    r"|One|Only|Others?|So|Some|Something|That|The|Their|These|They|This|Those|To|Under|Until|We|What|When|Where|Whether"
    r"|Which|Who|Whose|Why|With|Without)\b"
)
#: Always free: it names no actor.
FREE = re.compile(r"(?<![\w`'\"])(whoever|nobody|somebody|everybody|someone|anyone|anybody)\b(?!['`\"])", re.IGNORECASE)
#: Free where no noun stands before it: at the beginning, or behind a verb, a preposition or a conjunction.
UNBOUND = re.compile(
    r"(?:^|[.;:(,]|\b(?:to|of|by|for|from|with|see|says?|tells?|knows?|and|or|but|is|are|that|as|than|then|if|unless))\W*"
    r"\b(who|whom)\b(?!['`])",
    re.IGNORECASE,
)
#: Stops a tool, and ends there.
UNREASONED = re.compile(r"# (?:type: ignore(?:\[[\w, -]+\])?|noqa(?:: [A-Z]+\d+(?:, [A-Z]+\d+)*)?)$")


def are_right() -> bool:
    """Return whether all texts keep the rules; print those that do not."""
    sources = sorted(SOURCES.rglob("*.py"))
    complaints = [each for path in sources if "tests" not in path.parts for each in of_file(path)]
    others = [
        path for folder in (".ci", "benchmarks", "compat", "docs") for path in sorted((HERE / folder).rglob("*.py"))
    ]
    complaints += [each for path in (*sources, *others, *HERE.glob("*.py")) for each in unreasoned(path)]
    print("\n".join(complaints) or "Docstrings and comments keep the rules.")
    return not complaints


def of_file(path: Path) -> Iterator[str]:
    """Give a line for each text of a file that breaks a rule."""
    text = path.read_text(encoding="utf-8")
    place = path.relative_to(HERE)
    for node in ast.walk(ast.parse(text)):
        is_function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not node.name.startswith("test")
        if is_function and not is_property(node) and NO_VERB.match(first := first_line(node)):
            yield f"{place}:{node.lineno}: {node.name}: no verb phrase: {first}"
    for number, words in (*texts(text), *sentences(text)):
        if FREE.search(words) or UNBOUND.search(words.lstrip("#: ")):
            yield f"{place}:{number}: a free who or nobody: {' '.join(words.split())[:100]}"


def unreasoned(path: Path) -> Iterator[str]:
    """Give a line for each comment that stops a tool without a reason."""
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type == tokenize.COMMENT and UNREASONED.search(token.string):
                yield f"{path.relative_to(HERE)}:{token.start[0]}: without a reason: {token.string}"


def first_line(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """Return the first line of a function's docstring; nothing if it has none."""
    return (ast.get_docstring(node) or "").partition("\n")[0]


def is_property(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Return whether a function is called like an attribute."""
    return any("property" in ast.unparse(each) or ".setter" in ast.unparse(each) for each in node.decorator_list)


def texts(source: str) -> Iterator[tuple[int, str]]:
    """Give the comments and docstrings of a file, a line of text each, with their line numbers."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        is_docstring = token.type == tokenize.STRING and token.line.lstrip().startswith('"""')
        if token.type == tokenize.COMMENT or is_docstring:
            for offset, line in enumerate(token.string.splitlines()):
                yield token.start[0] + offset, line


def sentences(source: str) -> Iterator[tuple[int, str]]:
    """Give the texts of a file that programs say: what has a blank in it, and is no docstring."""
    tree = ast.parse(source)
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            for offset, line in enumerate(node.value.split("\n")):
                if " " in line.strip():
                    yield node.lineno + offset, line


if __name__ == "__main__":
    sys.exit(0 if are_right() else 1)
