"""Commands that are imported when they are called, so that each starts fast and loads only what it needs."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, ClassVar

from typer.core import TyperGroup
from typer.main import get_group_from_info
from typer.models import TyperInfo


class LazyCommands(Mapping[str, Any]):
    """Commands by name, each of a module's `app`: `module:command`, or `module` for all of them as a group."""

    def __init__(self, places: Mapping[str, str]) -> None:
        self._places = places
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 - Typer's
        if name not in self._loaded:
            self._loaded[name] = _loaded(name, self._places[name])
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


class LazyGroup(TyperGroup):
    """A group of such commands, in the order of `PLACES`."""

    PLACES: ClassVar[Mapping[str, str]] = {}

    def __init__(self, **parts: Any) -> None:  # noqa: ANN401 - Typer's
        super().__init__(**parts)
        self.commands: Any = LazyCommands(self.PLACES)


def begin() -> None:
    """Do nothing: Typer needs a callback for a group without commands of its own."""


def _loaded(name: str, place: str) -> Any:  # noqa: ANN401 - Typer's
    module, _, command = place.partition(":")
    group: Any = get_group_from_info(
        TyperInfo(import_module(module).app, name=name),
        pretty_exceptions_short=True,
        suggest_commands=True,
        rich_markup_mode=None,
    )
    return group.commands[command] if command else group
