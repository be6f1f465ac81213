"""Completions of the commands for bash, fish and zsh, made from their parsers.

Pure: gives texts.  ``.ci/manual.py`` writes them to ``share/``, from where the wheel installs them.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping

from zope.sendmail.cli.arguments import make_parser
from zope.sendmail.cli.queuearguments import VERBS
from zope.sendmail.cli.subcommands import SUBCOMMANDS, WITH_VERBS, parsers_of_verbs

#: How a value is completed, by its metavar: files, directories, or nothing.
_FILES = {"FILE", "INIFILE", "COMMAND"}
_DIRECTORIES = {"MAILDIR", "DIRECTORY"}

#: What may stand behind ``zope-sendmail`` besides options and a directory.
_COMMANDS = {name: each.told for name, each in SUBCOMMANDS.items()}

_MADE = "Made from the parsers of"


def _parsers() -> Mapping[str, argparse.ArgumentParser]:
    """Return the parsers of the commands that have no verbs; the empty text is that of ``zope-sendmail`` itself."""
    return {"": make_parser()} | {name: each.make_parser() for name, each in SUBCOMMANDS.items() if name != WITH_VERBS}


def _options_of(parser: argparse.ArgumentParser) -> Iterator[tuple[argparse.Action, list[str]]]:
    """Yield each option that is shown, with its long names."""
    for action in parser._actions:
        names = [name for name in action.option_strings if name.startswith("--")]
        if names and action.help is not argparse.SUPPRESS:
            yield action, names


def _choices_of(action: argparse.Action) -> list[str]:
    if action.choices:
        return [str(each) for each in action.choices]
    return str(action.metavar).split("|") if action.metavar and "|" in str(action.metavar) else []


def _told(action: argparse.Action) -> str:
    """Return what an option does, in a few words."""
    text = (action.help or "").replace("%%", "%").replace("%(default)s", str(action.default))
    return text.partition(";")[0].partition(" (default")[0]


# --- bash -------------------------------------------------------------------------------------------------------


def bash_completion() -> str:
    """Return the completion of ``zope-sendmail`` for bash."""
    parsers, verbs = _parsers(), parsers_of_verbs()
    every = [*parsers.values(), *verbs.values()]
    values = {
        name: " ".join(choices)
        for parser in every
        for action, names in _options_of(parser)
        for name in names
        if (choices := _choices_of(action))
    }
    files = {name for parser in every for action, names in _options_of(parser) for name in names if _is_file(action)}
    return _BASH.format(
        commands=" ".join(_COMMANDS),
        verbs=" ".join(verbs),
        drain=_words(parsers[""]),
        others="\n".join(f"        {name}) words='{_words(parser)}' ;;" for name, parser in parsers.items() if name),
        cases="\n".join(f"        {verb}) words='{_words(parser)}' ;;" for verb, parser in verbs.items()),
        choices="\n".join(
            f"        {name}) COMPREPLY=($(compgen -W '{words}' -- \"$cur\")); return ;;"
            for name, words in values.items()
        ),
        files="|".join(sorted(files)),
    )


def _is_file(action: argparse.Action) -> bool:
    return str(action.metavar) in _FILES


def _words(parser: argparse.ArgumentParser) -> str:
    return " ".join(name for _, names in _options_of(parser) for name in names)


# --- fish -------------------------------------------------------------------------------------------------------


def fish_completion() -> str:
    """Return the completion of ``zope-sendmail`` for fish."""
    lines = [
        f"# {_MADE} zope-sendmail.",
        "complete -c zope-sendmail -f -a '(__fish_complete_directories)'",
    ]
    commands = " ".join(_COMMANDS)
    first = f"not __fish_seen_subcommand_from {commands}"
    lines += [f"complete -c zope-sendmail -n '{first}' -a {name} -d '{told}'" for name, told in _COMMANDS.items()]
    verbs = parsers_of_verbs()
    behind = f"__fish_seen_subcommand_from queue; and not __fish_seen_subcommand_from {' '.join(verbs)}"
    for verb, words in VERBS.items():
        told = _in_quotes(words.partition(":")[0])
        lines.append(f"complete -c zope-sendmail -n '{behind}' -a {verb} -d '{told}'")
    for name, parser in _parsers().items():
        lines += _fish_options(parser, f"__fish_seen_subcommand_from {name}" if name else first)
    for verb, parser in verbs.items():
        lines += _fish_options(parser, f"__fish_seen_subcommand_from {verb}")
    return "\n".join(lines) + "\n"


def _fish_options(parser: argparse.ArgumentParser, condition: str) -> Iterator[str]:
    for action, names in _options_of(parser):
        takes = "" if action.nargs == 0 else " -r"
        choices = f" -a '{' '.join(words)}'" if (words := _choices_of(action)) else ""
        files = " -F" if _is_file(action) else ""
        for name in names:
            told = _in_quotes(_told(action))
            yield f"complete -c zope-sendmail -n '{condition}' -l {name[2:]}{takes}{files}{choices} -d '{told}'"


def _in_quotes(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")


# --- zsh --------------------------------------------------------------------------------------------------------


def zsh_completion() -> str:
    """Return the completion of ``zope-sendmail`` for zsh."""
    parsers = _parsers()
    return _ZSH.format(
        commands=_zsh_list(_COMMANDS),
        verbs=_zsh_list(VERBS),
        cases="\n".join(f"    {verb}) {_zsh_arguments(parser)} ;;" for verb, parser in parsers_of_verbs().items()),
        drain=_zsh_arguments(parsers[""]),
        names="|".join(_COMMANDS),
        others="\n".join(f"    {name}) {_zsh_arguments(parser)} ;;" for name, parser in parsers.items() if name),
    )


def zsh_completion_of(parser: argparse.ArgumentParser) -> str:
    """Return the completion of a command without verbs of their own for zsh."""
    return f"#compdef {parser.prog}\n# {_MADE} {parser.prog}.\n{_zsh_arguments(parser)}\n"


def _zsh_list(words: Mapping[str, str]) -> str:
    return " ".join(_zsh_quoted(f"{_zsh_escaped(name)}:{told}") for name, told in words.items())


def _zsh_arguments(parser: argparse.ArgumentParser) -> str:
    """Return the call that completes what a parser reads."""
    specs = [_zsh_option(action, name) for action, names in _options_of(parser) for name in names]
    operands = [action for action in parser._actions if not action.option_strings]
    specs += [_zsh_operand(action) for action in operands]
    return "_arguments " + " ".join(_zsh_quoted(spec) for spec in specs)


def _zsh_option(action: argparse.Action, name: str) -> str:
    told = f"[{_zsh_escaped(_told(action))}]"
    if action.nargs == 0:
        return f"{name}{told}"
    again = "*" if isinstance(action, argparse._AppendAction) else ""
    return f"{again}{name}={told}{_zsh_value(action)}"


def _zsh_operand(action: argparse.Action) -> str:
    return ("*" if action.nargs in ("*", "+") else "") + _zsh_value(action)


def _zsh_value(action: argparse.Action) -> str:
    name = str(action.metavar or action.dest)
    choices = _choices_of(action)
    if choices:
        how = f"({' '.join(choices)})"
    elif name in _DIRECTORIES or action.dest == "maildir":
        how = "_directories"
    else:
        how = "_files" if _is_file(action) else " "
    return f":{_zsh_escaped(name)}:{how}"


def _zsh_escaped(text: str) -> str:
    for character in "\\:[]":
        text = text.replace(character, f"\\{character}")
    return text


def _zsh_quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


# --- a command without verbs of their own -----------------------------------------------------------------------


def bash_completion_of(parser: argparse.ArgumentParser) -> str:
    """Return the completion of a command whose operands are words to choose from for bash."""
    words = " ".join(_words_to_choose(parser))
    files = "|".join(name for action, names in _options_of(parser) for name in names if action.nargs != 0)
    return _BASH_SIMPLE.format(
        prog=parser.prog, function=parser.prog.replace("-", "_"), words=words, options=_words(parser), files=files
    )


def fish_completion_of(parser: argparse.ArgumentParser) -> str:
    """Return the same for fish."""
    lines = [f"# {_MADE} {parser.prog}."]
    lines += [f"complete -c {parser.prog} -f -a '{' '.join(_words_to_choose(parser))}'"]
    for action, names in _options_of(parser):
        takes = "" if action.nargs == 0 else " -r -F"
        lines += [f"complete -c {parser.prog} -l {name[2:]}{takes} -d '{_in_quotes(_told(action))}'" for name in names]
    return "\n".join(lines) + "\n"


def _words_to_choose(parser: argparse.ArgumentParser) -> list[str]:
    return [word for action in parser._actions if not action.option_strings for word in _choices_of(action)]


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
{others}
        *) words='{drain}' ;;
    esac
    if [[ $cur == -* ]]; then
        COMPREPLY=($(compgen -W "$words" -- "$cur"))
    elif [[ $COMP_CWORD -eq 1 ]]; then
        COMPREPLY=($(compgen -W '{commands}' -- "$cur") $(compgen -d -- "$cur"))
    else
        COMPREPLY=($(compgen -d -- "$cur"))
    fi
}}
complete -o filenames -F _zope_sendmail zope-sendmail
"""

_BASH_SIMPLE = """\
# Made from the parser of {prog}.
_{function}() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}}
    case $prev in
        {files}) COMPREPLY=($(compgen -f -- "$cur")); return ;;
    esac
    COMPREPLY=($(compgen -W '{words} {options}' -- "$cur"))
}}
complete -o filenames -F _{function} {prog}
"""

_ZSH = """\
#compdef zope-sendmail
# Made from the parsers of zope-sendmail.
_zope-sendmail-queue() {{
  local -a verbs
  verbs=({verbs})
  if (( CURRENT == 2 )); then
    _describe verb verbs
    return
  fi
  shift words
  (( CURRENT-- ))
  case $words[1] in
{cases}
  esac
}}
_zope-sendmail() {{
  local -a commands
  commands=({commands})
  if (( CURRENT == 2 )) && [[ $words[2] != -* ]]; then
    _alternative 'commands:command:{{_describe command commands}}' 'directories:queue:_directories'
    return
  fi
  case $words[2] in
    {names}) shift words; (( CURRENT-- )) ;;
  esac
  case $words[1] in
    queue) _zope-sendmail-queue ;;
{others}
    *) {drain} ;;
  esac
}}
_zope-sendmail "$@"
"""
