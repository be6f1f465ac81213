"""Write the manual pages and completions to share/; `bin/check manual` says which are not as the parsers are."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

from zope.sendmail.cli.manual import Command, bash_completion, commands, fish_completion, man_page
from zope.sendmail.maildrop.script import make_parser

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

VERSION = "8"


def texts() -> Iterator[tuple[str, str]]:
    """All files below share/, each with its content."""
    maildrop = Command("maildrop", "send the mail in a maildrop spool", make_parser(), see_also=("zope-sendmail(1)",))
    for command in (*commands(), maildrop):
        yield f"share/man/man1/{command.name}.1", man_page(command, VERSION)
    yield "share/bash-completion/completions/zope-sendmail", bash_completion()
    yield "share/fish/vendor_completions.d/zope-sendmail.fish", fish_completion()


def is_current() -> bool:
    """Whether the files are as the parsers are; says which are not."""
    stale = []
    for name, text in texts():
        try:
            with open(os.path.join(HERE, name), encoding="utf-8") as file:
                stale += [name] if file.read() != text else []
        except FileNotFoundError:
            stale.append(name)
    for name in stale:
        print(f"{name} is not as the parsers are; run .venv/bin/python .ci/manual.py")
    return not stale


def main() -> int:
    """Write them."""
    for name, text in texts():
        path = os.path.join(HERE, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
