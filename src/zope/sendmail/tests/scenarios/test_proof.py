"""What docs/proof.rst names is there, and the plots of the benchmarks show the figures beside them."""

from __future__ import annotations

import ast
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


class TheBenchmarks(unittest.TestCase):
    def test_have_tables_and_plots_of_their_figures(self) -> None:
        """They are what ``compare.py --draw`` makes of figures.json."""
        if not (DOCS / "benchmarks" / "figures.json").exists():
            self.skipTest("the docs are not beside the package: this is not a checkout")
        made = self.enterContext(tempfile.TemporaryDirectory())
        shutil.copy(DOCS / "benchmarks" / "figures.json", made)
        command = [sys.executable, str(TOP / "benchmarks" / "compare.py"), "--draw", os.path.join(made, "figures.json")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        subprocess.run(command, check=True, env=environment, timeout=120)
        kept = {path.name: path.read_text(encoding="utf-8") for path in (DOCS / "benchmarks").iterdir()}
        drawn = {path.name: path.read_text(encoding="utf-8") for path in Path(made).iterdir()}
        self.assertEqual(sorted(drawn), sorted(kept))
        for name, text in drawn.items():
            self.assertEqual(text, kept[name], f"{name} is not what figures.json says")
        self.assertGreater(len(kept), 2)


load_tests = in_layer(Processes)
