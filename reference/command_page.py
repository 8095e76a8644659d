"""The page of the command line: what `--help` says about each command."""

from collections.abc import Iterator
from typing import Any

import typer

from cli.app import app
from cli.lazy import commands_of
from reference.markdown import head

WIDTH = 100
INTRODUCTION = """
What `lockbox COMMAND --help` prints, for every command. `LOCKBOX_URL` is the API's address; `LOCKBOX_TOKEN` is your
token, unless you have run `lockbox sign-in` ([settings](settings.md#the-command-lockbox)).
"""


def page() -> str:
    """Return the page: a heading for each group, and one below it for each of its commands."""
    parts = [head("Command line", INTRODUCTION)]
    parts.append(f"\n```text\n{_help(typer.main.get_command(app), ('lockbox',))}\n```\n")
    for words, command in commands():
        parts.append(f"\n{'#' * len(words)} {' '.join(words)}\n")
        if not _is_group(command):
            parts.append(f"\n```text\n{_help(command, words)}\n```\n")
        elif command.help:
            parts.append(f"\n{command.help.strip()}\n")
    return "".join(parts)


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
