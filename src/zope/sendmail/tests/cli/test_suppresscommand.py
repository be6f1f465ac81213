"""``zope-sendmail queue suppress``: who gets no mail."""

from __future__ import annotations

import json
import os
from typing import Any

from zope.sendmail.lifecycle.suppression import Suppression
from zope.sendmail.tests.support.operators import OperatorsTest


class TheSuppressionList(OperatorsTest):
    def suppress(self, action: str, *arguments: str) -> str:
        """Return what a call that succeeds says."""
        self.assertEqual((self.call("suppress", action, self.path, *arguments), self.complained), (0, ""))
        return self.said

    def listed(self) -> list[Any]:
        """Return the entries, as programs see them."""
        return [json.loads(line) for line in self.suppress("list", "--json").splitlines()]

    def test_is_filled_and_emptied(self) -> None:
        """Addresses in any spelling, with a reason, for ever or for a while."""
        self.assertEqual(self.suppress("list"), "every address gets mail\n")
        said = self.suppress("add", "One@Example.org", "--reason", "asked for it")
        self.assertEqual(said, "one@example.org: suppressed\n")
        self.suppress("add", "two@example.org", "--for", "30d")
        self.assertEqual(
            self.listed(),
            [
                {
                    "address": "one@example.org",
                    "reason": "asked for it",
                    "since": "2027-01-15T08:00:00Z",
                    "until": None,
                },
                {
                    "address": "two@example.org",
                    "reason": "added by an operator",
                    "since": "2027-01-15T08:00:00Z",
                    "until": "2027-02-14T08:00:00Z",
                },
            ],
        )
        self.assertIn("one@example.org since 2027-01-15T08:00:00Z: asked for it\n", self.suppress("list"))
        self.assertEqual(self.suppress("remove", "ONE@example.org"), "one@example.org: gets mail again\n")
        self.assertEqual([entry["address"] for entry in self.listed()], ["two@example.org"])

    def test_tells_what_was_not_there(self) -> None:
        """And does the rest."""
        self.suppress("add", "one@example.org")
        self.assertEqual(self.call("suppress", "remove", self.path, "two@example.org", "one@example.org"), 1)
        self.assertIn("two@example.org: was not suppressed", self.said)
        self.assertEqual(self.listed(), [])

    def test_is_exported_and_imported(self) -> None:
        """Whole, with reasons and times; a list of bare addresses will do."""
        reason = 'said "no", twice'
        self.queue.suppressions.add(
            Suppression.of("zwölf@bücher.example", reason, since=1e9, until=4e9), Suppression.of("one@example.org")
        )
        text = self.suppress("export")
        file = os.path.join(os.path.dirname(self.path), "exported.csv")
        with open(file, "w", encoding="utf-8") as stream:
            stream.write(text + "three@example.org\n\n")
        before = self.listed()
        self.queue.suppressions.remove("one@example.org", "zwölf@bücher.example")
        self.assertEqual(self.suppress("import", file), "3 addresses imported\n")
        self.assertEqual(before[1], self.listed()[-1])
        self.assertEqual(len(self.listed()), 3)

    def test_counts_what_was_imported(self) -> None:
        """One address is one address."""
        file = os.path.join(os.path.dirname(self.path), "one.txt")
        with open(file, "w", encoding="utf-8") as stream:
            stream.write("one@example.org\n")
        self.assertEqual(self.suppress("import", file), "1 address imported\n")

    def test_takes_a_file_whole_or_not_at_all(self) -> None:
        """The line that is wrong is named."""
        file = os.path.join(os.path.dirname(self.path), "wrong.txt")
        for line in ("nothing", "two@example.org,why,yesterday"):
            with open(file, "w", encoding="utf-8") as stream:
                stream.write(f"one@example.org\n{line}\n")
            self.assertEqual(self.call("suppress", "import", self.path, file), 1)
            self.assertIn(f"{file}, line 2: ", self.complained)
            self.assertIn("nothing was imported", self.complained)
        self.assertEqual(self.listed(), [])
        self.assertEqual(self.call("suppress", "import", self.path, file + ".not"), os.EX_NOINPUT)

    def test_refuses_what_is_no_address(self) -> None:
        """Before anything is done."""
        for arguments in (["one@example.org", "two"], []):
            self.assertEqual(self.call("suppress", "add", self.path, *arguments), 2)
            self.assertNotEqual(self.complained, "")
        self.assertEqual(self.listed(), [])
