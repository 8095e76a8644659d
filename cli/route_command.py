"""Commands that call one route each, written as rows: parameters, body and view."""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from types import UnionType
from typing import Annotated, Any, ClassVar
from urllib.parse import quote
from uuid import UUID

import typer

from cli import terminal, values
from cli.client import ANY_VERSION, call, headers, warn
from cli.inputs import id_argument, the_one
from cli.terminal import Cursor, Facts, Limit, Listing, Output, OutputFormat, Part
from cli.values import Identifier, Word

IF_MATCH = "if_match"
"""The parameter that is sent as the header If-Match: a version, or any version."""
PART = re.compile(r"{(\w+)}")
REQUIRED: Any = inspect.Parameter.empty

Values = Mapping[str, Any]
Field = str | Callable[[Values], object]
"""What is shown of an item: a field's name, with dots for a field inside another one, or a function of the item."""


class IdField(str):
    """The name of a field with an id; commands also accept the beginning of the id."""

    __slots__ = ()


@dataclass(frozen=True)
class CommandParameter:
    """An option or argument, by its name in the route: a part of the path, of the query or of the body.

    `whole` completes a shortened value, from the value and the other parameters.
    """

    name: str
    annotation: Any
    default: object = REQUIRED
    whole: Callable[[str, Values], str] | None = None


def argument(name: str, metavar: str, help_: str, kind: type = UUID) -> CommandParameter:
    return CommandParameter(name, Annotated[kind, typer.Argument(metavar=metavar, help=help_, show_default=False)])


def listed_id(name: str, metavar: str, help_: str, path: str) -> CommandParameter:
    def whole(given: str, said: Values) -> str:
        return the_one(given, ids_at(_filled(path, said)))

    return CommandParameter(name, Annotated[str, id_argument(metavar, help_)], whole=whole)


def option(
    name: str, flag: str, help_: str, kind: type | UnionType = str, *, default: object = REQUIRED
) -> CommandParameter:
    return CommandParameter(name, Annotated[kind, typer.Option(flag, help=help_)], default)


def optional(name: str, flag: str, help_: str, kind: type = str) -> CommandParameter:
    """The option is not sent if it is left out."""
    return option(name, flag, help_, kind | None, default=None)


@dataclass(frozen=True)
class TableOf:
    fields: Mapping[str, Field]
    is_read: ClassVar = True

    def show(self, output: OutputFormat, answer: Values, _: Values) -> None:
        if output is OutputFormat.JSON:
            terminal.as_json(answer)
            return
        rows = ([_shown(one, field) for field in self.fields.values()] for one in answer["items"])
        terminal.show(output, answer, Listing.of(self.fields, rows), *self.below(answer))
        if "next_cursor" in answer:
            terminal.more(output, answer)

    def below(self, _: Values) -> Iterable[Part]:
        return ()


@dataclass(frozen=True)
class FactsOf:
    fields: Mapping[str, Field]
    below: str = ""
    is_read: ClassVar = True

    def show(self, output: OutputFormat, answer: Values, _: Values) -> None:
        if output is OutputFormat.JSON:
            terminal.as_json(answer)
            return
        facts = Facts({name: _shown(answer, field) for name, field in self.fields.items()})
        terminal.show(output, answer, facts, *([self.below] if self.below else []))


@dataclass(frozen=True)
class Sentence:
    """`text` may name fields of the answer and parameters in braces."""

    text: str
    is_read: ClassVar = False

    def show(self, _: OutputFormat, answer: Values | None, given: Values) -> None:
        terminal.say(self.text.format(**given, **(answer or {})))


@dataclass(frozen=True)
class Once:
    """Prints a warning to stderr, and one field of the answer to stdout, so that the field can be piped."""

    field: str
    warning: str
    is_read: ClassVar = True

    def show(self, output: OutputFormat, answer: Values, _: Values) -> None:
        warn(self.warning.format(**answer))
        if output is OutputFormat.TABLE:
            print(answer[self.field])
        else:
            terminal.show(output, answer, Facts(answer))


@dataclass(frozen=True)
class RouteCommand:
    """`route` is a method and a path of the API's description, or several paths with `or` between them.

    The command calls the first path whose parts are all given. `body` makes the body if its names differ from the
    parameters' names.
    """

    route: str
    parameters: Sequence[CommandParameter]
    view: TableOf | FactsOf | Sentence | Once
    help: str
    body: Callable[[dict[str, Any]], dict[str, Any]] | None = None

    @property
    def method(self) -> str:
        return self.route.partition(" ")[0]

    @property
    def paths(self) -> list[str]:
        """The path with the most parts comes first."""
        return self.route.partition(" ")[2].split(" or ")

    def function(self) -> Callable[..., None]:
        output = [CommandParameter("output", Output, OutputFormat.TABLE)] if self.view.is_read else []
        return taking([*self.parameters, *output], self.run)

    def run(self, *, output: OutputFormat = OutputFormat.TABLE, **given: Any) -> None:  # noqa: ANN401 - any value
        said = {name: str(one) if isinstance(one, UUID) else one for name, one in given.items() if one is not None}
        said |= {
            parameter.name: parameter.whole(said[parameter.name], said)
            for parameter in self.parameters
            if parameter.whole and parameter.name in said
        }
        path = next(path for path in self.paths if said.keys() >= set(PART.findall(path)))
        sent = {name: one for name, one in said.items() if name not in {*PART.findall(path), IF_MATCH}}
        sent = self.body(sent) if self.body else sent
        answer = call(
            self.method,
            _filled(path, said),
            params=sent if self.method == "GET" else None,
            body=sent if sent and self.method != "GET" else None,
            headers=headers(version=said.get(IF_MATCH, ANY_VERSION)) if IF_MATCH in given else None,
        )
        self.view.show(output, answer, said)


TENANT = argument("slug", "tenant", "the tenant's slug, such as contoso", str)
PAGE = (CommandParameter("limit", Limit, 50), CommandParameter("cursor", Cursor, None))


def moment_of(name: str) -> Field:
    return lambda one: values.moment(one[name])


def words_of(name: str) -> Field:
    return lambda one: Word(one[name])


def group(help_: str, commands: Mapping[str, RouteCommand], others: Mapping[str, Callable[..., None]]) -> typer.Typer:
    app = typer.Typer(no_args_is_help=True, help=help_)
    for name, command in commands.items():
        app.command(name, help=command.help)(command.function())
    for name, function in others.items():
        app.command(name)(function)
    return app


def taking(parameters: Iterable[CommandParameter], function: Callable[..., None]) -> Callable[..., None]:
    @wraps(function)
    def run(**given: object) -> None:
        function(**given)

    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(
                parameter.name,
                inspect.Parameter.KEYWORD_ONLY,
                annotation=parameter.annotation,
                default=parameter.default,
            )
            for parameter in parameters
        ]
    )
    return run


def _filled(path: str, said: Values) -> str:
    return PART.sub(lambda part: quote(said[part[1]], safe=""), path)


def ids_at(path: str) -> Iterator[str]:
    page = call("GET", path)
    yield from (one["id"] for one in page["items"])
    while page.get("next_cursor"):
        page = call("GET", path, params={"cursor": page["next_cursor"]})
        yield from (one["id"] for one in page["items"])


def _shown(item: Values, field: Field) -> object:
    if callable(field):
        return field(item)
    found: Any = item
    for name in field.split("."):
        found = found[name]
    return Identifier(found) if found and isinstance(field, IdField) else found
