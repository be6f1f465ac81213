"""What can be changed in a module, one place at a time: its mutants, as mutation.py tries them.

Left alone: annotations, docstrings, decorators, imports, what only type checkers read, what an assertion would say, and
lines that say ``pragma: no cover``.
"""

import ast
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

#: An operator -> that in its place; at a limit, in arithmetic and in logic.
OPERATORS: dict[type[ast.AST], str] = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==",
    ast.Is: "is not", ast.IsNot: "is", ast.In: "not in", ast.NotIn: "in",
    ast.And: "or", ast.Or: "and",
    ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.FloorDiv: "/", ast.Mod: "/", ast.Pow: "*",
    ast.BitOr: "&", ast.BitAnd: "|", ast.LShift: ">>", ast.RShift: "<<",
}  # fmt: skip
#: As they stand in a text.
WRITTEN = re.compile(r"<=|>=|==|!=|<<|>>|//|\*\*|\bis\s+not\b|\bnot\s+in\b|\bis\b|\bin\b|\band\b|\bor\b|[<>+*/%|&-]")
#: Calls that say something to type checkers alone, or make a name.
UNSEEN = frozenset({"cast", "TypeVar", "NewType", "NamedTuple"})
LONGEST = 70


class Change(NamedTuple):
    """Octets `start` to `end` of a module are to be `text` instead; `first` to `last` are the lines that it is in."""

    start: int
    end: int
    text: str
    scope: str
    first: int
    last: int


class Mutant(NamedTuple):
    """A module with one change.

    `name` says where and which, by words and not by numbers of lines, so that it stays if other lines change.
    """

    name: str
    path: Path
    change: Change

    def source(self) -> bytes:
        octets = self.path.read_bytes()
        return octets[: self.change.start] + self.change.text.encode() + octets[self.change.end :]


def mutants(path: Path, root: Path) -> list[Mutant]:
    """Return those of a module, whose names begin with its path below `root`."""
    finder = _Finder(path)
    finder.visit(finder.tree)
    octets = finder.octets
    seen: Counter[str] = Counter()
    found = []
    for change in sorted(set(finder.changes)):
        name = f"{path.relative_to(root)} {change.scope}: {_shown(octets, change)}"
        seen[name] += 1
        again = f" #{seen[name]}" if seen[name] > 1 else ""
        found.append(Mutant(name + again, path, change))
    return found


def _shown(octets: bytes, change: Change) -> str:
    """Return the line with the change in it, as ``before {old -> new} after``."""
    begin = octets.rfind(b"\n", 0, change.start) + 1
    end = octets.find(b"\n", change.end)
    parts = [octets[begin : change.start], octets[change.start : change.end], change.text.encode()]
    before, old, new = (re.sub(r"\s+", " ", part.decode()) for part in parts)
    after = octets[change.end : end].decode().rstrip()
    if len(old) > LONGEST:
        old = f"{old[: LONGEST // 2]} … {old[-LONGEST // 2 :]}"
    if len(new) > LONGEST:
        new = f"{new[: LONGEST // 2]} … {new[-LONGEST // 2 :]}"
    return f"{before.lstrip()}{{{old} -> {new}}}{after}"


class _Finder(ast.NodeVisitor):
    """Collects the changes of one module."""

    def __init__(self, path: Path) -> None:
        self.octets = path.read_bytes()
        self.tree = ast.parse(self.octets)
        lines = self.octets.splitlines(keepends=True)
        self.starts = [0]
        for line in lines:
            self.starts.append(self.starts[-1] + len(line))
        self.unread = {number for number, line in enumerate(lines, 1) if b"pragma: no cover" in line}
        self.changes: list[Change] = []
        self.scope: list[str] = []
        self.lines = (1, 1)

    # --- where --------------------------------------------------------------------------------------------------

    def span(self, node: ast.AST) -> tuple[int, int]:
        start = self.starts[node.lineno - 1] + node.col_offset
        return start, self.starts[node.end_lineno - 1] + node.end_col_offset

    def text(self, node: ast.AST) -> str:
        start, end = self.span(node)
        return self.octets[start:end].decode()

    def change(self, start: int, end: int, text: str) -> None:
        if self.octets[start:end].decode() != text:
            self.changes.append(Change(start, end, text, ".".join(self.scope) or "module", *self.lines))

    def replace(self, node: ast.AST, text: str) -> None:
        self.change(*self.span(node), text)

    def visit(self, node: ast.AST) -> None:
        if isinstance(node, ast.stmt):
            if node.lineno in self.unread:
                return
            self.lines = (node.lineno, _last_line(node))
        super().visit(node)

    def body(self, nodes: Iterable[ast.AST]) -> None:
        for node in nodes:
            self.visit(node)

    # --- statements ---------------------------------------------------------------------------------------------

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        if any("overload" in ast.unparse(each) for each in node.decorator_list):
            return
        self.scope.append(node.name)
        self.body([*node.args.defaults, *(each for each in node.args.kw_defaults if each)])
        self.body(node.body)
        self.scope.pop()

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        if any("Protocol" in ast.unparse(each) or "Interface" in ast.unparse(each) for each in node.bases):
            return
        self.scope.append(node.name)
        self.body(node.body)
        self.scope.pop()

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Constant):
            return
        if isinstance(node.value, ast.Call):
            self.replace(node, "pass")
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        if any(isinstance(each, ast.Name) and each.id.startswith("__") for each in node.targets):
            return
        self.value(node.value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None and "TypeAlias" not in ast.unparse(node.annotation):
            self.value(node.value)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        other = OPERATORS.get(type(node.op))
        if other is not None:
            between = self.span(node.target)[1], self.span(node.value)[0]
            self.change(*between, f" {other}= ")
        self.visit(node.value)

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is not None:
            self.value(node.value)

    def visit_Raise(self, node: ast.Raise) -> None:
        self.replace(node, "pass")
        self.generic_visit(node)

    def visit_Assert(self, node: ast.Assert) -> None:
        """Without its message, which is for who changes the code."""
        self.visit(node.test)

    def visit_Continue(self, node: ast.Continue) -> None:
        self.replace(node, "break")

    def visit_Break(self, node: ast.Break) -> None:
        self.replace(node, "continue")

    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            return
        self.condition(node.test)
        self.generic_visit(node)

    def visit_Import(self, node: ast.Import | ast.ImportFrom) -> None:
        """Nothing: a name that is missing is noticed by everything."""

    visit_ImportFrom = visit_Import

    # --- expressions --------------------------------------------------------------------------------------------

    def value(self, node: ast.expr) -> None:
        """Nothing in the place of a value."""
        if not isinstance(node, ast.Constant):
            self.replace(node, "None")
        self.visit(node)

    def condition(self, node: ast.expr) -> None:
        """The other branch, where no operator says so already."""
        if not isinstance(node, ast.Compare) and not (isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)):
            self.replace(node, f"not ({self.text(node)})")

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self.condition(node.test)
        self.generic_visit(node)

    visit_While = visit_If

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for each in node.ifs:
            self.condition(each)
            self.replace(each, "True")
        self.generic_visit(node)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self.value(node.body)

    def visit_Compare(self, node: ast.Compare) -> None:
        operands = [node.left, *node.comparators]
        for left, operator, right in zip(operands, node.ops, operands[1:], strict=False):
            self.operator(left, operator, right)
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        for left, right in zip(node.values, node.values[1:], strict=False):
            self.operator(left, node.op, right)
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        self.operator(node.left, node.op, node.right)
        self.generic_visit(node)

    def operator(self, left: ast.expr, operator: ast.AST, right: ast.expr) -> None:
        start, end = self.span(left)[1], self.span(right)[0]
        found = WRITTEN.search(self.octets[start:end].decode())
        if found is not None and type(operator) in OPERATORS:
            self.change(start + found.start(), start + found.end(), OPERATORS[type(operator)])

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not):
            self.replace(node, f"({self.text(node.operand)})")
        elif isinstance(node.op, ast.USub):
            self.replace(node, self.text(node.operand))
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Name) and node.func.id in UNSEEN:
            self.body(node.args[1:])
            return
        for each in node.args:
            if not isinstance(each, ast.Constant | ast.Starred | ast.GeneratorExp):
                self.replace(each, "None")
        self.keywords(node)
        self.generic_visit(node)

    def keywords(self, node: ast.Call) -> None:
        """An argument that is not given, so that its default is taken."""
        spans = sorted(self.span(each) for each in (*node.args, *node.keywords))
        for each in node.keywords:
            if each.arg is None:
                continue
            at = spans.index(self.span(each))
            if at:
                self.change(spans[at - 1][1], spans[at][1], "")
            else:
                self.change(spans[0][0], spans[1][0] if len(spans) > 1 else spans[0][1], "")

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Its text as a whole, and what stands in its braces."""
        start, _ = self.span(node)
        opening = re.match(r"[a-zA-Z]*(\"\"\"|'''|\"|')", self.text(node))
        assert opening
        self.change(start + opening.end(), start + opening.end(), "XX")
        for each in node.values:
            if isinstance(each, ast.FormattedValue) and self.is_where_it_says(each.value):
                self.visit(each.value)

    def is_where_it_says(self, node: ast.expr) -> bool:
        """Python 3.11 is sometimes wrong about the places in a text."""
        try:
            return ast.unparse(ast.parse(self.text(node), mode="eval")) == ast.unparse(node)
        except (SyntaxError, UnicodeDecodeError, IndexError):
            return False

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            self.replace(node, str(not node.value))
        elif isinstance(node.value, int | float):
            self.replace(node, repr(node.value + 1))
        elif isinstance(node.value, str | bytes):
            mark = "b" if isinstance(node.value, bytes) else ""
            self.replace(node, f'{mark}"XX" + ' + self.text(node) if not node.value else f"{mark}{self.marked(node)}")

    def marked(self, node: ast.Constant) -> str:
        assert isinstance(node.value, str | bytes)
        value = node.value if isinstance(node.value, str) else node.value.decode("latin-1")
        return repr(f"XX{value}XX") if isinstance(node.value, str) else repr(f"XX{value}XX".encode("latin-1"))[1:]


def _last_line(node: ast.stmt) -> int:
    """Return the last line of a statement without the statements in it."""
    inner = [each.lineno for each in _inside(node)]
    return max(node.lineno, min(inner) - 1) if inner else node.end_lineno or node.lineno


def _inside(node: ast.stmt) -> Iterator[ast.stmt]:
    for each in ast.iter_child_nodes(node):
        if isinstance(each, ast.stmt):
            yield each
        elif isinstance(each, ast.ExceptHandler | ast.match_case):
            yield from each.body
