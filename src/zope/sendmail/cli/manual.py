"""Manual pages (man(7)) and completions for shells, made from the parsers of the commands.

Pure: gives texts.  ``.ci/manual.py`` writes them to ``share/``, from where the wheel installs them.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from zope.sendmail.cli import queuearguments
from zope.sendmail.cli.arguments import make_check_parser, make_parser

#: How an option's value is completed, by its metavar: files, directories, or nothing.
_FILES = {"FILE", "INIFILE", "COMMAND"}
_DIRECTORIES = {"MAILDIR"}


@dataclass(frozen=True, slots=True)
class Command:
    """A command for its manual page: its parser, and the verbs that may follow, each with a parser of its own."""

    name: str
    summary: str
    parser: argparse.ArgumentParser
    verbs: Mapping[str, argparse.ArgumentParser] = field(default_factory=dict)
    see_also: Sequence[str] = ()


def commands() -> list[Command]:
    """Return the commands of this package."""
    verbs = {verb: queuearguments.make_parser(verb) for verb in queuearguments.VERBS}
    return [
        Command(
            "zope-sendmail",
            "send what is due in a mail queue",
            make_parser(),
            see_also=("zope-sendmail-queue(1)", "zope-sendmail-check(1)", "maildrop(1)"),
        ),
        Command(
            "zope-sendmail-queue",
            "see and change what waits in a mail queue",
            queuearguments.make_overview(),
            verbs,
            ("zope-sendmail(1)", "zope-sendmail-check(1)"),
        ),
        Command(
            "zope-sendmail-check",
            "try a mail relay step by step",
            make_check_parser(),
            see_also=("zope-sendmail(1)", "zope-sendmail-queue(1)"),
        ),
    ]


# --- manual pages -----------------------------------------------------------------------------------------------


def man_page(command: Command, version: str) -> str:
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


def _synopsis(command: Command) -> Iterator[str]:
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


# --- completions ------------------------------------------------------------------------------------------------


def bash_completion() -> str:
    """Return the completion of ``zope-sendmail`` for bash; zsh reads it through ``bashcompinit``."""
    drain, check = make_parser(), make_check_parser()
    cases = [f"        {verb}) words='{_words(queuearguments.make_parser(verb))}' ;;" for verb in queuearguments.VERBS]
    values = dict(_choices(drain))
    for verb in queuearguments.VERBS:
        values.update(_choices(queuearguments.make_parser(verb)))
    choices = [
        f"        {flag}) COMPREPLY=($(compgen -W '{words}' -- \"$cur\")); return ;;" for flag, words in values.items()
    ]
    files = "|".join(sorted(_taking(drain, _FILES)))
    return _BASH.format(
        verbs=" ".join(queuearguments.VERBS),
        drain=_words(drain),
        check=_words(check),
        cases="\n".join(cases),
        choices="\n".join(choices),
        files=files,
    )


def fish_completion() -> str:
    """Return the completion of ``zope-sendmail`` for fish."""
    lines = [
        "# Made from the parsers of zope-sendmail.",
        "complete -c zope-sendmail -f -a '(__fish_complete_directories)'",
    ]
    first = "not __fish_seen_subcommand_from queue check"
    lines += [
        f"complete -c zope-sendmail -n '{first}' -a queue -d 'see and change what waits'",
        f"complete -c zope-sendmail -n '{first}' -a check -d 'try the relay'",
    ]
    verbs = " ".join(queuearguments.VERBS)
    for verb, words in queuearguments.VERBS.items():
        told = words.partition(":")[0].replace("'", "\\'")
        lines.append(
            f"complete -c zope-sendmail -n '__fish_seen_subcommand_from queue; and not __fish_seen_subcommand_from "
            f"{verbs}' -a {verb} -d '{told}'"
        )
    lines += _fish_options(make_parser(), "not __fish_seen_subcommand_from queue")
    for verb in queuearguments.VERBS:
        lines += _fish_options(queuearguments.make_parser(verb), f"__fish_seen_subcommand_from {verb}")
    return "\n".join(lines) + "\n"


def _fish_options(parser: argparse.ArgumentParser, condition: str) -> list[str]:
    lines = []
    for action in parser._actions:
        names = [each for each in action.option_strings if each.startswith("--")]
        if not names or action.help is argparse.SUPPRESS:
            continue
        takes = "" if action.nargs == 0 else " -r"
        choices = f" -a '{' '.join(map(str, action.choices))}'" if action.choices else ""
        files = " -F" if str(action.metavar) in _FILES else ""
        told = _help(action).partition(";")[0].replace("\\", "\\\\").replace("'", "\\'")
        lines += [
            f"complete -c zope-sendmail -n '{condition}' -l {name[2:]}{takes}{files}{choices} -d '{told}'"
            for name in names
        ]
    return lines


def _words(parser: argparse.ArgumentParser) -> str:
    return " ".join(
        name
        for action in parser._actions
        if action.help is not argparse.SUPPRESS
        for name in action.option_strings
        if name.startswith("--")
    )


def _choices(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    for action in parser._actions:
        for name in action.option_strings:
            if action.choices:
                yield name, " ".join(map(str, action.choices))
            elif action.metavar and "|" in str(action.metavar):
                yield name, str(action.metavar).replace("|", " ")


def _taking(parser: argparse.ArgumentParser, metavars: set[str]) -> set[str]:
    return {name for action in parser._actions if str(action.metavar) in metavars for name in action.option_strings}


_BASH = """\
# Made from the parsers of zope-sendmail.
_zope_sendmail() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} words
    COMPREPLY=()
    case $prev in
{choices}
        {files}) COMPREPLY=($(compgen -f -- "$cur")); return ;;
    esac
    if [[ ${{COMP_WORDS[1]}} == queue && $COMP_CWORD -eq 2 ]]; then
        COMPREPLY=($(compgen -W '{verbs}' -- "$cur"))
        return
    fi
    case ${{COMP_WORDS[1]}} in
        queue) case ${{COMP_WORDS[2]}} in
{cases}
        esac ;;
        check) words='{check}' ;;
        *) words='{drain}' ;;
    esac
    if [[ $cur == -* ]]; then
        COMPREPLY=($(compgen -W "$words" -- "$cur"))
    elif [[ $COMP_CWORD -eq 1 ]]; then
        COMPREPLY=($(compgen -W 'queue check' -- "$cur") $(compgen -d -- "$cur"))
    else
        COMPREPLY=($(compgen -d -- "$cur"))
    fi
}}
complete -o filenames -F _zope_sendmail zope-sendmail
"""
