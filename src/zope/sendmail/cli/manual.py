"""Manual pages (man(7)), made from the parsers of the commands.

Pure: gives texts.  ``.ci/manual.py`` writes them to ``share/``, from where the wheel installs them.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from zope.sendmail.cli.arguments import make_parser
from zope.sendmail.cli.subcommands import SUBCOMMANDS, WITH_VERBS, parsers_of_verbs


@dataclass(frozen=True, slots=True)
class DocumentedCommand:
    """A command for its manual page: its parser, and the verbs that may follow, each with a parser of its own."""

    name: str
    summary: str
    parser: argparse.ArgumentParser
    verbs: Mapping[str, argparse.ArgumentParser] = field(default_factory=dict)
    see_also: Sequence[str] = ()


def commands() -> list[DocumentedCommand]:
    """Return the commands of this package."""
    return [
        DocumentedCommand(
            "zope-sendmail",
            "send what is due in a mail queue",
            make_parser(),
            see_also=(*(f"zope-sendmail-{name}(1)" for name in SUBCOMMANDS), "maildrop(1)"),
        ),
        *(
            DocumentedCommand(
                f"zope-sendmail-{name}",
                each.summary,
                each.make_parser(),
                parsers_of_verbs() if name == WITH_VERBS else {},
                each.see_also,
            )
            for name, each in SUBCOMMANDS.items()
        ),
    ]


# --- manual pages -----------------------------------------------------------------------------------------------


def man_page(command: DocumentedCommand, version: str) -> str:
    """Return the page of a command in section 1."""
    lines = [f'.TH "{command.name.upper()}" 1 "" "zope.sendmail {version}" "User Commands"']
    lines += [".SH NAME", f"{_escaped(command.name)} \\- {_escaped(command.summary)}", ".SH SYNOPSIS"]
    lines += list(_synopsis(command))
    lines += [".SH DESCRIPTION", *_paragraphs(_before_list(command.parser.description or ""))]
    lines += list(_options(command.parser, ".SH"))
    for verb, parser in command.verbs.items():
        lines += [f".SH QUEUE {verb.upper()}", *_usage(parser)]
        lines += [*_paragraphs(parser.description or ""), *_options(parser, ".SS"), *_paragraphs(parser.epilog or "")]
    lines += list(_epilog(command.parser.epilog or ""))
    if command.see_also:
        lines += [".SH SEE ALSO", ", ".join(_escaped(each) for each in command.see_also)]
    return "\n".join(lines) + "\n"


def _synopsis(command: DocumentedCommand) -> Iterator[str]:
    if not command.verbs:
        yield from _usage(command.parser)
        return
    for verb in command.verbs:
        yield from (f".B {_escaped(command.parser.prog)} {verb}", "[options] MAILDIR ...", ".br")


def _usage(parser: argparse.ArgumentParser) -> Iterator[str]:
    yield f".B {_escaped(parser.prog)}"
    words = ["[options]"]
    words += [_operand(each) for each in _operands(parser)]
    yield _escaped(" ".join(words))


def _operands(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [each for each in parser._actions if not each.option_strings]


def _operand(action: argparse.Action) -> str:
    name = action.metavar or action.dest.upper()
    text = name if isinstance(name, str) else " ".join(name)
    return {"?": f"[{text}]", "*": f"[{text} ...]", "+": f"{text} ..."}.get(str(action.nargs), text)


def _options(parser: argparse.ArgumentParser, level: str) -> Iterator[str]:
    """Yield all arguments, each group of options under a heading of its own."""
    for group in parser._action_groups:
        shown = [each for each in group._group_actions if each.help is not argparse.SUPPRESS]
        if not shown:
            continue
        title = "Operands" if group.title == "positional arguments" else str(group.title)
        yield f"{level} {_escaped(title.upper() if level == '.SH' else title.capitalize())}"
        if group.description:
            yield from _paragraphs(group.description)
        for action in shown:
            yield from (".TP", _flags(action), _escaped(_help(action)))


def _flags(action: argparse.Action) -> str:
    if not action.option_strings:
        return f"\\fI{_escaped(str(action.metavar or action.dest.upper()))}\\fR"
    value = "" if action.nargs == 0 else f" \\fI{_escaped(_value(action))}\\fR"
    return ", ".join(f"\\fB{_escaped(each)}\\fR" for each in action.option_strings) + value


def _value(action: argparse.Action) -> str:
    if action.metavar is not None:
        return str(action.metavar)
    return "|".join(str(each) for each in action.choices) if action.choices else action.dest.upper()


def _help(action: argparse.Action) -> str:
    return (action.help or "").replace("%%", "%").replace("%(default)s", str(action.default))


def _before_list(text: str) -> str:
    """Return a description without the list of verbs, whose sections say more."""
    return text.partition("\n\n")[0]


def _epilog(text: str) -> Iterator[str]:
    """Yield an epilog: paragraphs, and lists below lines that end with a colon."""
    for block in re.split(r"\n\s*\n", text.strip("\n")):
        head, _, rest = block.partition("\n")
        if head.endswith(":") and rest.startswith("  "):
            yield f".SH {_escaped(head[:-1].upper())}"
            for line in rest.splitlines():
                term, _, words = line.strip().partition("  ")
                yield from (".TP", f"\\fB{_escaped(term)}\\fR", _escaped(words.strip()))
        else:
            yield from (".PP", _escaped(" ".join(block.split())))


def _paragraphs(text: str) -> Iterator[str]:
    for block in re.split(r"\n\s*\n", text.strip()):
        if block:
            yield from (".PP", _escaped(" ".join(block.split())))


def _escaped(text: str) -> str:
    """Return a text that roff takes for words, not for requests."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    return "\\&" + text if text.startswith(".") else text
