"""Write the manual pages and completions to share/; `bin/check manual` says which are not as the parsers are."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

from zope.sendmail.cli import completion
from zope.sendmail.cli.manual import DocumentedCommand, commands, man_page
from zope.sendmail.maildrop.script import make_parser

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

VERSION = "8"

#: Where each shell looks for the completion of a command, and what makes it.
COMPLETIONS = (
    ("bash-completion/completions/{}", "", completion.bash_completion, completion.bash_completion_of),
    ("fish/vendor_completions.d/{}", ".fish", completion.fish_completion, completion.fish_completion_of),
    ("zsh/site-functions/_{}", "", completion.zsh_completion, completion.zsh_completion_of),
)


def texts() -> Iterator[tuple[str, str]]:
    """All files below share/, each with its content."""
    maildrop = DocumentedCommand(
        "maildrop", "send the mail in a maildrop spool", make_parser(), see_also=("zope-sendmail(1)",)
    )
    for command in (*commands(), maildrop):
        yield f"share/man/man1/{command.name}.1", man_page(command, VERSION)
    for directory, ending, whole, simple in COMPLETIONS:
        yield f"share/{directory.format('zope-sendmail')}{ending}", whole()
        yield f"share/{directory.format('maildrop')}{ending}", simple(maildrop.parser)


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
