"""What docs/proof.rst names is there, and the plots of the benchmarks show the figures beside them."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from zope.sendmail.tests.support.layers import Processes, in_layer

TOP = Path(__file__).resolve().parents[5]
DOCS = TOP / "docs"


def page() -> str:
    """The text of the page."""
    if not (DOCS / "proof.rst").exists():
        raise unittest.SkipTest("the docs are not beside the package: this is not a checkout")
    return (DOCS / "proof.rst").read_text(encoding="utf-8")


class ThePageOfProof(unittest.TestCase):
    def test_names_tests_that_exist(self) -> None:
        """Each file that is linked is there, and has each class that is named behind it."""
        linked = re.findall(r":download:`[\w.]+ <\.\./([\w./]+)>`(?: \(([^)]*)\))?", page())
        self.assertGreater(len(linked), 40)
        named = 0
        for path, classes in linked:
            tree = ast.parse((TOP / path).read_text(encoding="utf-8"))
            found = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
            wanted = set(re.findall(r"``(\w+)``", classes))
            self.assertLessEqual(wanted, found, path)
            named += len(wanted)
        self.assertGreater(named, 50)

    def test_links_nothing_in_another_way(self) -> None:
        """A link that the test above does not understand would not be looked at."""
        self.assertEqual(
            len(re.findall(":download:", page())), len(re.findall(r":download:`[\w.]+ <\.\./src/", page()))
        )

    def test_has_commands_whose_files_exist(self) -> None:
        """Each path of a command, but of what the commands themselves make."""
        commands = re.findall(r"(?m)^    ((?:\S* )*(?:src|benchmarks|\.ci)/.*|python3 bootstrap.*)$", page())
        paths = {path for line in commands for path in re.findall(r"(?<![\w/])(?:src|benchmarks|\.ci)/[\w./]+", line)}
        self.assertGreater(len(paths), 30)
        self.assertEqual({path for path in paths if not (TOP / path).exists()}, set())

    def test_says_for_each_promise_what_is_not_promised(self) -> None:
        """And how it is tested, and what was seen."""
        count = page().count(":Tested by:")
        self.assertGreater(count, 15)
        self.assertEqual((page().count(":Seen:"), page().count(":Not promised:")), (count, count))


class ThePageIsRun(unittest.TestCase):
    """By ``.ci/promises.py``, which is a program of the checkout."""

    def setUp(self) -> None:
        self.page = page()
        spec = importlib.util.spec_from_file_location("promises", TOP / ".ci" / "promises.py")
        assert spec is not None
        assert spec.loader is not None
        self.promises = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.promises)

    def test_each_promise_has_commands(self) -> None:
        """And each line of a command is one, however many lines it is written in."""
        sections = list(self.promises.sections(self.page))
        self.assertEqual(len(sections), self.page.count(":Seen:"))
        for command in (each for section in sections for each in section.commands):
            self.assertRegex(command, r"^\.venv/bin/python (-m|bin/pytest|benchmarks/|\.ci/)")
            self.assertNotIn("\\", command)

    def test_what_is_said_is_understood(self) -> None:
        """A summary of pytest, of unittest, and figures."""
        for said, words in (
            (
                "....\n3 failed, 146 passed, 2 warnings, 12 subtests passed in 61.25s (0:01:01)\n",
                "3 failed, 146 passed, 2 warnings, 12 subtests passed",
            ),
            (
                "Ran 31 tests in 9.1s\n\nOK (skipped=1)\n1,234 states: power\n",
                "31 passed, skipped=1, 1,234 states power",
            ),
            ("committed                        4000\nlost                             0\n", "4000 committed, 0 lost"),
            ("9 passed in 1.00s\nTOTAL  1271  0  380  0  100.0%\nTOTAL  10  1  0  0  90.0%\n", "100.0%, 90.0%"),
            ("a table\n", "done"),
        ):
            self.assertEqual(self.promises.summary(said), words)

    def test_fewer_tests_than_the_page_says_are_a_fault(self) -> None:
        """And so is a command that fails."""
        section = self.promises.Section("x", ("c",), "1 December. ``pytest``: 7 passed (3 s).\n")
        for status, words, fault in (
            (0, "7 passed", ""),
            (0, "9 passed", ""),
            (0, "6 passed", "6 passed or skipped, but"),
            (0, "5 passed, 1 skipped", "6 passed or skipped, but"),
            (0, "5 passed, 2 skipped", ""),
            (1, "9 passed", "FAILED: c"),
        ):
            told = self.promises.fault_of(section, [self.promises.Sight("c", status, 1.0, words)])
            self.assertTrue(told.startswith(fault) if fault else not told, told)

    def test_tests_that_are_skipped_here_only_are_told(self) -> None:
        """They are no fault, and the section is not as the page says either."""
        section = self.promises.Section("x", ("c",), "1 December. ``pytest``: 7 passed, 1 skipped (3 s).\n")
        for words, more in (("7 passed, 1 skipped", ""), ("8 passed", ""), ("5 passed, 3 skipped", "but for 2 tests")):
            told = self.promises.left_out(section, [self.promises.Sight("c", 0, 1.0, words)])
            self.assertTrue(more in told if more else not told, told)

    def test_what_was_seen_replaces_the_first_paragraph_only(self) -> None:
        """Of one section."""
        text = "\nOne\n===\n\n:Seen:\n    old\n\n    by hand\n:Not promised:\n    x\n"
        more = text.replace("One", "Two")
        self.assertEqual(self.promises.with_seen(text + more, "Two", "new"), text + more.replace("old", "new"))


class TheBenchmarks(unittest.TestCase):
    def test_have_tables_and_plots_of_their_figures(self) -> None:
        """They are what ``compare.py --draw`` makes of figures.json."""
        if not (DOCS / "benchmarks" / "figures.json").exists():
            self.skipTest("the docs are not beside the package: this is not a checkout")
        made = self.enterContext(tempfile.TemporaryDirectory())
        shutil.copy(DOCS / "benchmarks" / "figures.json", made)
        command = [sys.executable, str(TOP / "benchmarks" / "compare.py"), "--draw", os.path.join(made, "figures.json")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        subprocess.run(command, check=True, env=environment, timeout=300)
        kept = {path.name: path.read_text(encoding="utf-8") for path in (DOCS / "benchmarks").iterdir()}
        drawn = {path.name: path.read_text(encoding="utf-8") for path in Path(made).iterdir()}
        self.assertEqual(sorted(drawn), sorted(kept))
        for name, text in drawn.items():
            self.assertEqual(text, kept[name], f"{name} is not what figures.json says")
        self.assertGreater(len(kept), 2)


load_tests = in_layer(Processes)
