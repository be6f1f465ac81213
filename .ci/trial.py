"""One change at a time: what tests run, and whether they notice it.  `mutants` says what can be changed.

Each change is tried in a process of its own, made by a fork from one that has loaded what does not change.
"""

import ast
import contextlib
import functools
import gc
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import inspect
import json
import logging
import os
import pkgutil
import resource
import signal
import sys
import time
import unittest
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import NamedTuple

from mutants import Mutant, mutants

HERE = Path(__file__).resolve().parent.parent
ROOT = HERE / "src" / "zope" / "sendmail"
PACKAGE = "zope.sendmail"
TESTS = f"{PACKAGE}.tests"


class Area(NamedTuple):
    """What is pure, and the tests of it."""

    modules: tuple[str, ...]
    tests: tuple[str, ...]


AREAS = {
    "message": Area(("message/*.py",), ("message", "test_asking")),
    "lifecycle": Area(("lifecycle/*.py",), ("lifecycle", "test_events")),
    "protocol": Area(
        ("smtp/protocol/*.py",),
        (
            *("smtp.test_protocol", "smtp.test_dialogues", "smtp.test_runs", "smtp.test_replies"),
            *("smtp.test_sevenbit", "smtp.test_limits", "smtp.test_pipeline", "smtp.test_transaction"),
            *("smtp.test_wirewords", "smtp.test_relaymemory"),
        ),
    ),
    "config": Area(("config/*.py",), ("config",)),
    "bounces": Area(("bounces/parser.py",), ("bounces.test_parser",)),
}

#: Loaded once, before the processes part.
AHEAD = (
    *("hypothesis", "hypothesis.strategies", "zope.interface", "zope.schema", "zope.event", "transaction"),
    *("asyncio", "email.message", "email.policy", "email.generator", "email.headerregistry", "unittest.mock"),
    *("smtplib", "ssl", "subprocess", "multiprocessing", "http.server", "zope.configuration.xmlconfig"),
)

#: What coverage calls that which runs before the first test.
IMPORT = ""
NOTICED, SURVIVED, NO_CHANGE = 1, 0, 3
#: Seconds of a test that is run for what it does not call itself, since it may see it.
QUICK = 0.05
ALIVE = ("survived", "no test")


class Timed(NamedTuple):
    """A test, with the seconds of the processor that it takes."""

    name: str
    seconds: float


#: How a change is tried.
Way = Callable[[Mutant, list[Timed]], int]


class Covered(NamedTuple):
    """The tests of an area, by what they run."""

    by_line: dict[tuple[str, int], set[str]]
    by_file: dict[str, set[str]]
    seconds: dict[str, float]
    #: Tests that do not pass on the code as it is.
    left_out: list[str]
    #: The modules that the tests load, in that order.
    loaded: list[str]

    def quick(self, most: float) -> "Covered":
        """Return the same without the tests that take more than `most` seconds."""
        return self._replace(seconds={name: seconds for name, seconds in self.seconds.items() if seconds <= most})

    def is_imported(self, mutant: Mutant) -> bool:
        """Return whether it is in what runs when the module is imported."""
        lines = range(mutant.change.first, mutant.change.last + 1)
        return any(IMPORT in self.by_line.get((str(mutant.path), line), ()) for line in lines)

    def tests(self, mutant: Mutant) -> list[Timed]:
        """Return those that may notice it, the quickest first.

        What is done when the module is imported may be noticed by each that uses the module, or what it has given.
        """
        path, change = str(mutant.path), mutant.change
        names: set[str] = set()
        for line in range(change.first, change.last + 1):
            names |= self.by_line.get((path, line), set())
        near = self.by_file.get(path, set())
        if IMPORT in names:
            names = near | {name for name, seconds in self.seconds.items() if near and seconds < QUICK}
        return [
            Timed(name, self.seconds[name])
            for name in sorted(
                names & self.seconds.keys(), key=lambda each: (each not in near, self.seconds[each], each)
            )
        ]


def changes_of(area: str) -> list[Mutant]:
    """Return all that can be tried in an area."""
    paths = sorted(path for pattern in AREAS[area].modules for path in ROOT.glob(pattern))
    return [each for path in paths for each in mutants(path, ROOT)]


# --- one change -------------------------------------------------------------------------------------------------


def start(mutant: Mutant, tests: list[Timed], way: Way) -> int:
    """Try a change in a process of its own; return its number."""
    process = os.fork()
    if process:
        return process
    try:
        os.setpgid(0, 0)
        bound(sum(each.seconds for each in tests))
        status = way(mutant, tests)
    except BaseException:  # noqa: BLE001 - whatever it is, it was noticed
        status = NOTICED
    os._exit(status)


def bound(seconds: float) -> None:
    """End this process when it goes on for longer than any test does, or takes more memory than is there."""
    for number in (signal.SIGXCPU, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.setitimer(signal.ITIMER_REAL, 120 + seconds * 100)
    silent()


def silent() -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    logging.raiseExceptions = False


def attempt(mutant: Mutant, tests: list[Timed]) -> int:
    """Run the tests on the changed module, which nothing has imported yet."""
    try:
        code = compile(mutant.source(), str(mutant.path), "exec", dont_inherit=True)
    except SyntaxError:
        return NO_CHANGE
    sys.meta_path.insert(0, _Changed(_module_name(mutant.path), mutant.path, code))
    return judged(tests)


def exchange(mutant: Mutant, tests: list[Timed]) -> int:
    """Run the tests on the module as it was imported, with one function changed."""
    try:
        code = compile(mutant.source(), str(mutant.path), "exec", dont_inherit=True)
    except SyntaxError:
        return NO_CHANGE
    line = mutant.change.first
    old = _at(line, _functions(compile(mutant.path.read_bytes(), str(mutant.path), "exec", dont_inherit=True)))
    new = _at(line, _functions(code))
    for function in _loaded(str(mutant.path)):
        if function.__code__ == old:
            function.__code__ = new
    return judged(tests)


def load_around(path: Path, loaded: Sequence[str]) -> None:
    """Load once what is loaded for the tests, without the module at `path` and those that import it."""
    changed = _module_name(path)
    needing = {changed}
    imported = {name: _imported(name) for name in loaded if name.startswith(PACKAGE)}
    while more := {name for name, others in imported.items() if name not in needing and others & needing}:
        needing |= more
    for name in loaded:
        if name not in needing:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
    if changed in sys.modules:
        raise AssertionError(f"{changed} is loaded by what does not import it")
    gc.collect()
    gc.freeze()


def _imported(name: str) -> set[str]:
    """Return the names that a module of the package imports, wherever in it, and those of the packages it is in."""
    parts = name.split(".")
    found = {".".join(parts[:length]) for length in range(1, len(parts))}
    for node in ast.walk(ast.parse(_file_of(name).read_bytes())):
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{each.name}" for each in node.names)}
    return found


def _file_of(name: str) -> Path:
    path = ROOT.parent.parent.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def load_functions(mutants: Sequence[Mutant]) -> None:
    """Look for the functions of these once, for all processes that are made from now on."""
    for path in {str(each.path) for each in mutants}:
        _loaded(path)
    gc.collect()
    gc.freeze()


@functools.cache
def _loaded(path: str) -> list[FunctionType]:
    """Return the functions of a module, wherever they are kept."""
    return [each for each in gc.get_objects() if isinstance(each, FunctionType) and each.__code__.co_filename == path]


def _at(line: int, functions: Iterator[CodeType]) -> CodeType:
    return next(each for each in functions if each.co_firstlineno <= line <= _end(each))


def _functions(code: CodeType) -> Iterator[CodeType]:
    """Yield those of a module and of its classes, without those within them."""
    for each in code.co_consts:
        if isinstance(each, CodeType):
            if each.co_flags & inspect.CO_NEWLOCALS and each.co_flags & inspect.CO_OPTIMIZED:
                yield each
            else:
                yield from _functions(each)


def _end(code: CodeType) -> int:
    inner = [_end(each) for each in code.co_consts if isinstance(each, CodeType)]
    return max([code.co_firstlineno, *(line for *_, line in code.co_lines() if line), *inner])


def judged(tests: list[Timed]) -> int:
    for test in tests:
        most = int(time.process_time() + test.seconds * 10) + 2
        resource.setrlimit(resource.RLIMIT_CPU, (most, resource.RLIM_INFINITY))
        if not passes(test.name):
            return NOTICED
    return SURVIVED


def passes(name: str) -> bool:
    """Return whether a test passes."""
    result = unittest.TestResult()
    result.failfast = True
    unittest.defaultTestLoader.loadTestsFromName(name).run(result)
    return result.wasSuccessful() and result.testsRun > 0


def _module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT.parent.parent).with_suffix("").parts)


class _Changed(importlib.abc.MetaPathFinder):
    """Finds one module, with other code."""

    def __init__(self, name: str, path: Path, code: CodeType) -> None:
        self.name, self.path, self.code = name, path, code

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != self.name:
            return None
        loader = importlib.machinery.SourceFileLoader(name, str(self.path))
        loader.get_code = lambda fullname: self.code  # type: ignore[method-assign]  # of this one alone
        return importlib.util.spec_from_file_location(name, self.path, loader=loader)


def outcome_of(status: int) -> str:
    if os.WIFSIGNALED(status):
        return "without an end" if os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGALRM) else "noticed"
    return {SURVIVED: "survived", NO_CHANGE: "no program"}.get(os.WEXITSTATUS(status), "noticed")


# --- what tests run ---------------------------------------------------------------------------------------------


def prepare() -> None:
    """Load what each process needs, and nothing of the package."""
    for name in AHEAD:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    sys.path.insert(0, str(HERE / "src"))
    properties = importlib.import_module(f"{TESTS}.support.properties")
    for name in ("SAME", "QUICK"):
        usual = getattr(properties, name)
        setattr(properties, name, type(usual)(usual, max_examples=usual.max_examples // 5))


def cover(area: str) -> Covered:
    """Run each test of an area on the code as it is, in another process; return what they run."""
    reading, writing = os.pipe()
    process = os.fork()
    if not process:
        os.close(reading)
        with os.fdopen(writing, "w") as file:
            json.dump(measured(area), file)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        found = json.load(file)
    os.waitpid(process, 0)
    by_line: dict[tuple[str, int], set[str]] = defaultdict(set)
    by_file: dict[str, set[str]] = defaultdict(set)
    for path, lines in found["lines"].items():
        for line, names in lines.items():
            by_line[path, int(line)] = set(names)
            by_file[path] |= set(names) - {IMPORT}
    return Covered(by_line, by_file, found["seconds"], found["left out"], found["loaded"])


def measured(area: str) -> dict[str, object]:
    """Return the lines that tests run, with their names, and the seconds that each takes."""
    import coverage

    silent()
    before = set(sys.modules)
    modules = [str(ROOT / pattern) for pattern in AREAS[area].modules]
    watch = coverage.Coverage(data_file=None, include=modules, config_file=False)
    watch.start()
    for mutant in {each.path: each for each in changes_of(area)}.values():
        importlib.import_module(_module_name(mutant.path))
    names = list(tests_of(area))
    seconds = {}
    for name in names:
        watch.switch_context(name)
        began = time.process_time()
        if passes(name):
            seconds[name] = time.process_time() - began
    watch.stop()
    data = watch.get_data()
    lines = {
        path: {
            line: [each for each in contexts if each == IMPORT or each in seconds] for line, contexts in found.items()
        }
        for path in data.measured_files()
        if (found := data.contexts_by_lineno(path))
    }
    left_out = [each for each in names if each not in seconds]
    loaded = [each for each in sys.modules if each not in before]
    return {"lines": lines, "seconds": seconds, "left out": left_out, "loaded": loaded}


def tests_of(area: str) -> Iterator[str]:
    """Yield the names of all tests of an area."""
    for name in AREAS[area].tests:
        module = importlib.import_module(f"{TESTS}.{name}")
        inner = [f"{module.__name__}.{each.name}" for each in pkgutil.iter_modules(getattr(module, "__path__", []))]
        for each in inner or [module.__name__]:
            yield from _names(unittest.defaultTestLoader.loadTestsFromName(each))


def _names(suite: unittest.TestSuite) -> Iterator[str]:
    for each in suite:
        if isinstance(each, unittest.TestSuite):
            yield from _names(each)
        else:
            yield each.id()
