"""Manual pages and completions, which are made from the parsers."""

from __future__ import annotations

import argparse
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import tempfile
import unittest
from collections.abc import Set
from io import FileIO

from zope.sendmail.cli import queuearguments
from zope.sendmail.cli.arguments import SETTINGS
from zope.sendmail.cli.completion import (
    bash_completion,
    bash_completion_of,
    fish_completion,
    fish_completion_of,
    zsh_completion,
    zsh_completion_of,
)
from zope.sendmail.cli.manual import commands, man_page
from zope.sendmail.cli.queuearguments import VERBS
from zope.sendmail.cli.subcommands import SUBCOMMANDS
from zope.sendmail.maildrop.script import make_parser


def long_options(parser: argparse.ArgumentParser) -> set[str]:
    """Return what a parser understands and shows."""
    shown = [action for action in parser._actions if action.help is not argparse.SUPPRESS]
    return {name for action in shown for name in action.option_strings if name.startswith("--")}


class APage(unittest.TestCase):
    def test_is_there_for_each_subcommand(self) -> None:
        """With all of its options, and those of its verbs."""
        pages = {command.name: man_page(command, "8").replace("\\-", "-") for command in commands()}
        self.assertEqual(set(pages), {"zope-sendmail"} | {f"zope-sendmail-{name}" for name in SUBCOMMANDS})
        for name, each in SUBCOMMANDS.items():
            for option in long_options(each.make_parser()):
                self.assertIn(option, pages[f"zope-sendmail-{name}"])
        for verb in VERBS:
            for option in long_options(queuearguments.make_parser(verb)):
                self.assertIn(option, pages["zope-sendmail-queue"])

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
    def shell(self, name: str) -> str:
        path = shutil.which(name)
        if path is None:
            self.skipTest(f"{name} is not installed")
        return path

    def assertOffers(self, words: str, offered: set[str], left_out: Set[str] = frozenset()) -> None:
        """All of these, and none of those, are offered for the last of these words."""
        found = self.complete(words)
        self.assertLessEqual(offered, found)
        self.assertTrue(left_out.isdisjoint(found), found)

    def complete(self, words: str) -> set[str]:
        raise unittest.SkipTest("each shell has a class of its own")

    def test_knows_commands_and_verbs(self) -> None:
        """As the parsers have them."""
        self.assertOffers("zope-sendmail c", {"check", "console"})
        self.assertOffers("zope-sendmail queue re", {verb for verb in VERBS if verb.startswith("re")}, {"list"})

    def test_leaves_out_no_subcommand(self) -> None:
        """Nor an option of one."""
        self.assertOffers("zope-sendmail ", set(SUBCOMMANDS))
        for name, each in SUBCOMMANDS.items():
            if name != "queue":
                self.assertOffers(f"zope-sendmail {name} --", long_options(each.make_parser()))

    def test_leaves_out_no_verb(self) -> None:
        """What an option means is known of each."""
        self.assertOffers("zope-sendmail queue ", set(VERBS))
        for verb in ("bounce", "move", "suppress"):
            self.assertOffers(f"zope-sendmail queue {verb} --", long_options(queuearguments.make_parser(verb)))

    def test_knows_options_and_values(self) -> None:
        """Of each command, and of each verb its own."""
        self.assertOffers("zope-sendmail queue flush --d", {"--dry-run"})
        self.assertOffers("zope-sendmail queue list --state h", {"held"})
        self.assertOffers("zope-sendmail --tls re", {"required"})
        self.assertOffers("zope-sendmail check --to", {"--to", "--token-command", "--token-file"})
        self.assertOffers("zope-sendmail console --l", {"--listen"})

    def test_knows_maildrop(self) -> None:
        """Its verbs, and its options."""
        self.assertOffers("maildrop st", {"start", "stop", "status"}, {"once"})
        self.assertOffers("maildrop --c", {"--config"})


class InBash(ACompletion):
    def complete(self, words: str) -> set[str]:
        """See `ACompletion`."""
        each = words.split(" ")
        script = f"""{bash_completion()}{bash_completion_of(make_parser())}
COMP_WORDS=({" ".join(f"'{word}'" for word in each)}); COMP_CWORD={len(each) - 1}
_{each[0].replace("-", "_")}; printf '%s\\n' "${{COMPREPLY[@]}}"
"""
        done = subprocess.run([self.shell("bash"), "-c", script], capture_output=True, text=True, check=True)
        return set(done.stdout.split())


class InFish(ACompletion):
    def complete(self, words: str) -> set[str]:
        """See `ACompletion`."""
        script = f"{fish_completion()}{fish_completion_of(make_parser())}complete -C '{words}'"
        done = subprocess.run(
            [self.shell("fish"), "--no-config", "-c", script], capture_output=True, text=True, check=True
        )
        return {line.partition("\t")[0] for line in done.stdout.splitlines()}


class InZsh(ACompletion):
    """zsh completes at a terminal only."""

    def complete(self, words: str) -> set[str]:
        """See `ACompletion`."""
        directory = self.enterContext(tempfile.TemporaryDirectory())
        for name, text in (("zope-sendmail", zsh_completion()), ("maildrop", zsh_completion_of(make_parser()))):
            with open(os.path.join(directory, f"_{name}"), "w", encoding="utf-8") as file:
                file.write(text)
        program = self.shell("zsh")
        pid, terminal = pty.fork()
        if not pid:
            os.execve(program, ["zsh", "-f", "-i"], {"PATH": os.environ["PATH"], "TERM": "dumb", "PS1": "NEXT>"})
        with open(terminal, "r+b", buffering=0) as zsh:
            self.read_until(zsh, b"NEXT>")
            begin = f"fpath=({directory} $fpath); autoload -Uz compinit; compinit -u -d {directory}/dump"
            zsh.write(f"{begin}; stty cols 250; bindkey '^I' list-choices; echo rea''dy\n".encode())
            self.read_until(zsh, rb"ready\r\n.*NEXT>")
            zsh.write(f"{words}\t".encode())
            listed = self.read_until(
                zsh, rb"{0}.*\n.*{0}".replace(b"{0}", words.encode())
            )  # what was typed is shown again below the list
            zsh.write(b"\x15exit\n")  # ^U: what was typed goes
        os.waitpid(pid, 0)
        return set(listed.decode("utf-8", "replace").replace("\r", " ").split())

    def read_until(self, zsh: FileIO, pattern: bytes) -> bytes:
        """Read until this is found; a bell ends it, too."""
        text = b""
        while not re.search(pattern, text, re.DOTALL) and b"\a" not in text:
            ready, _, _ = select.select([zsh], [], [], 60)
            self.assertTrue(ready, text)
            text += zsh.read(65536) or b""
        return text


del ACompletion


class TheUnit(unittest.TestCase):
    """``zope-sendmail@.service``, for each ini file."""

    def setUp(self) -> None:
        self.share = os.path.join(os.path.dirname(__file__), *[os.pardir] * 5, "share")
        if not os.path.isdir(self.share):
            self.skipTest("share/ is not beside the package: this is not a checkout")
        with open(os.path.join(self.share, "systemd", "system", "zope-sendmail@.service"), encoding="utf-8") as file:
            self.text = file.read()

    def analyze(self, *words: str, drop_in: str = "") -> subprocess.CompletedProcess[str]:
        program = shutil.which("systemd-analyze")
        if program is None:
            self.skipTest("systemd is not installed")
        directory = self.enterContext(tempfile.TemporaryDirectory())
        unit = os.path.join(directory, "zope-sendmail@shop.service")
        with open(unit, "w", encoding="utf-8") as file:
            file.write(self.text.replace("/usr/bin/zope-sendmail", sys.executable) + drop_in)
        environment = {**os.environ, "MANPATH": os.path.join(self.share, "man")}
        return subprocess.run(
            [program, *words, unit], env=environment, capture_output=True, text=True, timeout=300, check=False
        )

    def test_is_what_systemd_understands(self) -> None:
        """Without a word of it; with a drop-in for a queue elsewhere as well."""
        elsewhere = "[Service]\nUser=mail\nStateDirectory=\nReadWritePaths=/srv/shop/mail\n"
        for drop_in in ("", elsewhere):
            done = self.analyze("verify", "--man=no", drop_in=drop_in)
            self.assertEqual((done.returncode, done.stdout + done.stderr), (0, ""))

    def test_is_hardened(self) -> None:
        """As systemd counts what a service could reach: 10 is everything."""
        done = self.analyze("security", "--offline=yes", "--threshold=25")
        if "unrecognized option" in done.stderr:
            self.skipTest("this systemd cannot tell without running")
        self.assertEqual(done.returncode, 0, done.stdout[-500:])

    def test_gives_each_queue_a_directory_of_its_own(self) -> None:
        """systemd gives a state directory to the user of the unit that starts, with all that is in it."""
        self.assertIn("\nStateDirectory=zope-sendmail/%i\n", self.text)


if __name__ == "__main__":
    unittest.main()
