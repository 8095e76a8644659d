"""Commands that call one route each, made from rows that say what a command takes, sends and shows."""

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from types import UnionType
from typing import Annotated, Any, ClassVar
from urllib.parse import quote
from uuid import UUID

import typer

from cli import terminal
from cli.client import call, warn
from cli.terminal import Cursor, Limit, Plain, moment

IF_MATCH = "if_match"
"""The parameter that is sent as the header If-Match: a version, or whichever is there."""
PART = re.compile(r"{(\w+)}")
REQUIRED: Any = inspect.Parameter.empty

Values = Mapping[str, Any]
Field = str | Callable[[Values], object]
"""What is shown of an item: the name of a field, dotted where it is inside another one, or a function of the item."""


@dataclass(frozen=True)
class CommandParameter:
    """An option or argument, by its name in the route: a part of the path, of the query or of the body."""

    name: str
    annotation: Any
    default: object = REQUIRED


def argument(name: str, metavar: str, help_: str, kind: type = UUID) -> CommandParameter:
    """Return an argument that has to be given."""
    return CommandParameter(name, Annotated[kind, typer.Argument(metavar=metavar, help=help_, show_default=False)])


def option(
    name: str, flag: str, help_: str, kind: type | UnionType = str, *, default: object = REQUIRED
) -> CommandParameter:
    """Return an option."""
    return CommandParameter(name, Annotated[kind, typer.Option(flag, help=help_)], default)


def optional(name: str, flag: str, help_: str, kind: type = str) -> CommandParameter:
    """Return an option that is not sent where it is left out."""
    return option(name, flag, help_, kind | None, default=None)


@dataclass(frozen=True)
class TableOf:
    """Shows the items of an answer as a table, and how to go on where there are more."""

    fields: Mapping[str, Field]
    has_json: ClassVar = True

    def show(self, answer: Values, _: Values) -> None:
        """Print it."""
        terminal.table(
            self.fields, ([_shown(one, field) for field in self.fields.values()] for one in answer["items"])
        )
        if "next_cursor" in answer:
            terminal.more(answer)


@dataclass(frozen=True)
class FactsOf:
    """Shows one thing, a line for each fact, and a sentence below."""

    fields: Mapping[str, Field]
    below: str = ""
    has_json: ClassVar = True

    def show(self, answer: Values, _: Values) -> None:
        """Print it."""
        terminal.facts({name: _shown(answer, field) for name, field in self.fields.items()})
        if self.below:
            terminal.say(self.below)


@dataclass(frozen=True)
class Sentence:
    """Says what was done; the sentence may name fields of the answer, and what was given."""

    text: str
    has_json: ClassVar = False

    def show(self, answer: Values | None, given: Values) -> None:
        """Print it."""
        terminal.say(self.text.format(**given, **(answer or {})))


@dataclass(frozen=True)
class Once:
    """Prints one field of the answer and nothing else, so that it can be piped on, and first a warning."""

    field: str
    warning: str
    has_json: ClassVar = True

    def show(self, answer: Values, _: Values) -> None:
        """Print it."""
        print(answer[self.field])


@dataclass(frozen=True)
class RouteCommand:
    """A command and its route.

    `route` is a method and a path of the API's description, or several paths with `or` between them: the first one is
    called whose parts are all given. `body` makes from what was given what is sent, where that is not the same.
    """

    route: str
    parameters: Sequence[CommandParameter]
    view: TableOf | FactsOf | Sentence | Once
    help: str
    body: Callable[[dict[str, Any]], dict[str, Any]] | None = None

    @property
    def method(self) -> str:
        """The HTTP method."""
        return self.route.partition(" ")[0]

    @property
    def paths(self) -> list[str]:
        """The paths, the one with the most parts first."""
        return self.route.partition(" ")[2].split(" or ")

    def function(self) -> Callable[..., None]:
        """Return the function that is the command to Typer."""
        as_json = [CommandParameter("plain", Plain, default=False)] if self.view.has_json else []
        return taking([*self.parameters, *as_json], self.run)

    def run(self, *, plain: bool = False, **given: Any) -> None:  # noqa: ANN401 - whatever the route takes
        """Call the route and show what it answers; what was left out is not sent."""
        said = {name: str(one) if isinstance(one, UUID) else one for name, one in given.items() if one is not None}
        path = next(path for path in self.paths if said.keys() >= set(PART.findall(path)))
        sent = {name: one for name, one in said.items() if name not in {*PART.findall(path), IF_MATCH}}
        sent = self.body(sent) if self.body else sent
        answer = call(
            self.method,
            PART.sub(lambda part: quote(said[part[1]], safe=""), path),
            params=sent if self.method == "GET" else None,
            body=sent if sent and self.method != "GET" else None,
            headers={"if-match": f'"{said[IF_MATCH]}"' if IF_MATCH in said else "*"} if IF_MATCH in given else None,
        )
        if isinstance(self.view, Once):
            warn(self.view.warning.format(**answer))
        if plain:
            terminal.as_json(answer)
        else:
            self.view.show(answer, said)


TENANT = argument("slug", "tenant", "the tenant's slug, such as contoso", str)
PAGE = (CommandParameter("limit", Limit, 50), CommandParameter("cursor", Cursor, None))


def moment_of(name: str) -> Field:
    """Return what shows a field that is an instant."""
    return lambda one: moment(one[name])


def words_of(name: str) -> Field:
    """Return what shows a field that is one of the API's words."""
    return lambda one: terminal.words(one[name])


def group(help_: str, commands: Mapping[str, RouteCommand], others: Mapping[str, Callable[..., None]]) -> typer.Typer:
    """Return a group of commands: of rows, and of functions for what is more than a row."""
    app = typer.Typer(no_args_is_help=True, help=help_)
    for name, command in commands.items():
        app.command(name, help=command.help)(command.function())
    for name, function in others.items():
        app.command(name)(function)
    return app


def taking(parameters: Iterable[CommandParameter], function: Callable[..., None]) -> Callable[..., None]:
    """Return a function of keywords with the signature from which Typer reads what its command takes."""

    @wraps(function)
    def run(**given: object) -> None:
        function(**given)

    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(
                one.name, inspect.Parameter.KEYWORD_ONLY, annotation=one.annotation, default=one.default
            )
            for one in parameters
        ]
    )
    return run


def _shown(item: Values, field: Field) -> object:
    if callable(field):
        return field(item)
    found: Any = item
    for name in field.split("."):
        found = found[name]
    return found
