"""The page of the command line: what `--help` says about each command."""

import inspect
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import typer
from click import HelpFormatter

from cli.app import app
from cli.lazy import commands_of
from reference.markdown import head

Record = tuple[str, str]
"""How a parameter is written, and its text."""
WIDTH = 100
COMMON_FROM = 3
"""In so many commands a parameter is described once, above all of them."""
ALIKE_FROM = 5
"""With so many parameters of an earlier command, a command refers to that one."""
TEXTS = re.compile(r" <(?:str|list\[str\])>")
"""The type of what is any text: not worth a word."""
ID = re.compile(
    r"[\w ']+ id(?:, which `list` shows,| of an? \w+,|,) or its beginning, 8 characters or more(?:  \[required\])?"
)
"""The text of what is an id, which the page explains once."""
INTRODUCTION = """
What `lockbox COMMAND --help` prints. `LOCKBOX_URL` is the API's address; `LOCKBOX_TOKEN` is your token, unless you
have run `lockbox sign-in` ([settings](settings.md#the-command-lockbox)).
"""
GROUPS, REQUIRED = "\nCommands:\n", "  [required]"
COMMON = """
## Common parameters

Commands name these, and do not describe them again. Below each command's heading are its arguments. REQUEST, PERSON
and others in capitals are ids; the beginning, 8 characters or more, is enough. Every command takes `--help`.

"""


def page() -> str:
    """Return the page: a heading for each group, and one below it for each of its commands."""
    parts = [head("Command line", INTRODUCTION)]
    parts.append(
        f"\n```text\n{_help(typer.main.get_command(app), ('lockbox',)).partition(GROUPS)[0].strip()}\n```\n{COMMON}"
    )
    common = _common()
    parts.append(_block(common))
    described: dict[str, list[Record]] = {}
    for words, command in commands():
        parts.append(f"\n{'#' * len(words)} {' '.join(words)}\n")
        if not _is_group(command):
            parts.append(f"\n{_command(command, words, common, described)}")
        elif command.help:
            parts.append(f"\n{command.help.strip()}\n")
    return "".join(parts)


def _command(
    command: Any,  # noqa: ANN401 - Click's
    words: tuple[str, ...],
    common: Sequence[Record],
    described: dict[str, list[Record]],
) -> str:
    """Return a command's usage, its help, and its parameters but for `common` and already `described` ones."""
    usage = " ".join(command.collect_usage_pieces(_context(command, words))).replace("[OPTIONS]", "").split()
    records = _records(command, words)
    options = [record for record in records if record[0].startswith("-")]
    shared = [_usage(*record) for record in options if record in common or REQUIRED in record[1]]
    line = " ".join((*usage, *shared))
    own = [(name, text.removesuffix(REQUIRED)) for name, text in records if (name, text) not in common]
    parts = [f"`{line}`\n"] if line else []
    parts.append(f"{inspect.cleandoc(command.help or '')}\n")
    for other, theirs in described.items():
        alike = [record for record in own if record in theirs]
        if len(alike) >= ALIKE_FROM:
            names = ", ".join(f"`{name.split(maxsplit=1)[0].strip(',')}`" for name, _ in alike)
            parts.append(f"As in `{other}`: {names}.\n")
            own = [record for record in own if record not in theirs]
    described[" ".join(words)] = own
    return "\n".join([*parts, *([_block(own)] if own else [])])


def _records(command: Any, words: tuple[str, ...]) -> list[Record]:  # noqa: ANN401 - Click's
    """Return the names and texts of a command's parameters, without `--help`."""
    context = _context(command, words)
    records = [param.get_help_record(context) for param in command.get_params(context)]
    return [
        (TEXTS.sub("", name), text)
        for name, text in filter(None, records)
        if name != "--help" and not ID.fullmatch(text)
    ]


def _common() -> list[Record]:
    """Return what many commands take, the most frequent first; of one name only the most frequent meaning."""
    counted = Counter(
        record for words, command in commands() if not _is_group(command) for record in _records(command, words)
    )
    common: dict[str, Record] = {}
    for record, number in counted.most_common():
        if number >= COMMON_FROM:
            common.setdefault(record[0].split(maxsplit=1)[0], record)
    return list(common.values())


def _usage(name: str, text: str) -> str:
    short = name.split(maxsplit=1)[0].strip(",")
    return short if REQUIRED in text else f"[{short}]"


def _block(records: Sequence[Record]) -> str:
    formatter = HelpFormatter(width=WIDTH)
    formatter.write_dl(records)
    return f"```text\n{inspect.cleandoc(formatter.getvalue())}\n```\n"


def commands() -> list[tuple[tuple[str, ...], Any]]:
    """Return all groups and commands below `lockbox`, each with the words by which it is called."""
    return list(_below(typer.main.get_command(app), ("lockbox",)))


def _below(group: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:  # noqa: ANN401 - Click's
    for name, command in commands_of(group).items():
        if command.hidden:
            continue
        yield (*words, name), command
        if _is_group(command):
            yield from _below(command, (*words, name))


def _is_group(command: Any) -> bool:  # noqa: ANN401 - Click's
    return hasattr(command, "list_commands")


def _context(command: Any, words: tuple[str, ...]) -> Any:  # noqa: ANN401 - Click's
    return command.context_class(command, info_name=" ".join(words), terminal_width=WIDTH, max_content_width=WIDTH)


def _help(command: Any, words: tuple[str, ...]) -> str:  # noqa: ANN401 - Click's
    lines = command.get_help(_context(command, words)).splitlines()
    return "\n".join(line.rstrip() for line in lines)
