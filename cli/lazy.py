"""Commands that are imported when they are called, so that each starts fast."""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Any, ClassVar, NamedTuple

from typer.core import TyperCommand, TyperGroup
from typer.main import get_group_from_info
from typer.models import TyperInfo


class CommandPlace(NamedTuple):
    """`place` is `module:command`, or `module` for a group of all its commands."""

    place: str
    summary: str


class LazyGroup(TyperGroup):
    """A group of lazy commands, in the order of `PLACES`; help and completion read only the summaries."""

    PLACES: ClassVar[Mapping[str, CommandPlace]] = {}

    def __init__(self, **parts: Any) -> None:  # noqa: ANN401 - as Typer declares it
        super().__init__(**parts)
        self.commands = {name: TyperCommand(name, help=summary) for name, (_, summary) in self.PLACES.items()}

    def resolve_command(self, ctx: Any, args: Sequence[str]) -> tuple[str | None, Any, list[str]]:  # noqa: ANN401 - as Typer declares it
        name, command, rest = super().resolve_command(ctx, list(args))
        return name, load(self.PLACES, name) if name and command else command, rest


def commands_of(group: Any) -> Mapping[str, Any]:  # noqa: ANN401 - as Typer declares it
    if isinstance(group, LazyGroup):
        return {name: load(group.PLACES, name) for name in group.PLACES}
    return getattr(group, "commands", {})


def load(places: Mapping[str, CommandPlace], name: str) -> Any:  # noqa: ANN401 - as Typer declares it
    module, _, command = places[name].place.partition(":")
    return _group(module, "").commands[command] if command else _group(module, name)


@cache
def _group(module: str, name: str) -> Any:  # noqa: ANN401 - as Typer declares it
    return get_group_from_info(
        TyperInfo(import_module(module).app, name=name),
        pretty_exceptions_short=True,
        suggest_commands=True,
        rich_markup_mode=None,
    )
