"""Terminal output: tables, facts and JSON, without markup in what people wrote."""

import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

NOTHING = "-"
WIDEST = 10_000
"""In which every table fits, so that it can be measured."""

Plain = Annotated[bool, typer.Option("--json", help="print JSON")]
Limit = Annotated[int, typer.Option(min=1, max=200, help="how many at most")]
Cursor = Annotated[str | None, typer.Option(help="go on from where the last list ended")]


def paper() -> Console:
    """Return a console as wide as the terminal is now."""
    return Console(highlight=False)


def say(*lines: str) -> None:
    """Print each sentence on a line of its own, without wrapping it."""
    for line in lines:
        paper().print(line, markup=False, soft_wrap=True)


def as_json(value: object) -> None:
    """Print JSON."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def table(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Print rows, each as facts where the terminal is so narrow that a table would break words; nothing is cut."""
    names, cells = list(columns), [list(map(cell, row)) for row in rows]
    shown = Table(*names, box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for column in shown.columns:
        column.overflow = "fold"
    shown.columns[0].no_wrap = True
    for row in cells:
        shown.add_row(*row)
    console = paper()
    if not cells:
        say("None.")
    elif Measurement.get(console, console.options.update(max_width=WIDEST), shown).minimum <= console.width:
        console.print(shown)
    else:
        for number, row in enumerate(cells):
            if number:
                say("")
            facts(dict(zip(names, row, strict=True)))


def facts(rows: Mapping[str, object]) -> None:
    """Print one thing, a line for each fact."""
    shown = Table(show_header=False, box=None, pad_edge=False)
    shown.add_column(style="bold", no_wrap=True)
    shown.add_column(overflow="fold")
    for name, value in rows.items():
        shown.add_row(name, cell(value))
    paper().print(shown)


def more(page: Mapping[str, Any]) -> None:
    """Say how to get the next page, if there is one."""
    if page["next_cursor"]:
        say(f"There are more: --cursor {page['next_cursor']}")


def cell(value: object) -> Text:
    """Return a value as a table cell: lists with commas, booleans as yes and no, nothing as a dash."""
    match value:
        case Text():
            return value
        case None | "":
            return Text(NOTHING)
        case bool():
            return Text("yes" if value else "no")
        case list() | tuple():
            return Text(", ".join(map(words, value)) or NOTHING)
        case _:
            return Text(str(value))


def words(value: object) -> str:
    """Return one of the API's words, such as tenant_admin, with spaces."""
    return str(value).replace("_", " ")


def moment(instant: str | None) -> str:
    """Return an instant of the API to the second, in UTC."""
    return instant[:19].replace("T", " ") + "Z" if instant else NOTHING


def duration(seconds: int) -> str:
    """Return a number of seconds in the largest unit that is exact."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
