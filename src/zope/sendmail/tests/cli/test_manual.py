"""Manual pages and completions, which are made from the parsers."""

from __future__ import annotations

import shutil
import subprocess
import unittest

from zope.sendmail.cli.arguments import SETTINGS
from zope.sendmail.cli.manual import bash_completion, commands, fish_completion, man_page
from zope.sendmail.cli.queuearguments import VERBS


class APage(unittest.TestCase):
    def test_has_every_option(self) -> None:
        """As the parser has it."""
        pages = {command.name: man_page(command, "8").replace("\\-", "-") for command in commands()}
        for name in SETTINGS:
            if name != "queue_path":
                self.assertIn(f"--{name.replace('_', '-')}", pages["zope-sendmail"])
                self.assertIn(f"--{name.replace('_', '-')}", pages["zope-sendmail-check"])
        for verb in VERBS:
            self.assertIn(f".SH QUEUE {verb.upper()}", pages["zope-sendmail-queue"])

    def test_is_what_man_understands(self) -> None:
        """Without a warning."""
        groff = shutil.which("groff")
        if groff is None:
            self.skipTest("groff is not installed")
        for command in commands():
            done = subprocess.run(
                [groff, "-man", "-Tutf8", "-ww", "-z"],
                input=man_page(command, "8"),
                capture_output=True,
                text=True,
                check=False,
            )
            self.assertEqual((done.returncode, done.stderr), (0, ""), command.name)


class ACompletion(unittest.TestCase):
    def complete(self, *words: str) -> set[str]:
        """What bash offers for the last word."""
        bash = shutil.which("bash")
        if bash is None:
            self.skipTest("bash is not installed")
        script = (
            bash_completion()
            + f"""
COMP_WORDS=({" ".join(f"'{word}'" for word in words)}); COMP_CWORD={len(words) - 1}
_zope_sendmail; printf '%s\\n' "${{COMPREPLY[@]}}"
"""
        )
        done = subprocess.run([bash, "-c", script], capture_output=True, text=True, check=True)
        return set(done.stdout.split())

    def test_knows_verbs_options_and_values(self) -> None:
        """As the parsers have them."""
        self.assertEqual(self.complete("zope-sendmail", "queue", "r"), {verb for verb in VERBS if verb.startswith("r")})
        self.assertIn("--dry-run", self.complete("zope-sendmail", "queue", "flush", "--d"))
        self.assertEqual(self.complete("zope-sendmail", "queue", "list", "--state", "he"), {"held"})
        self.assertEqual(self.complete("zope-sendmail", "--tls", "re"), {"required"})
        self.assertEqual(self.complete("zope-sendmail", "check", "--to"), {"--to", "--token-command", "--token-file"})

    def test_for_fish_has_every_verb(self) -> None:
        """With what it does."""
        text = fish_completion()
        for verb in VERBS:
            self.assertIn(f" -a {verb} ", text)


if __name__ == "__main__":
    unittest.main()
