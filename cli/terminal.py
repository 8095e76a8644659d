"""Terminal output: tables, facts, JSON and CSV. Text written by people is never read as markup."""

import csv
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from cli.values import Identifier, Instant, Phrase, exact, instants, shortened, shown
from config import local_zone
from lockbox.text_rules import spreadsheet_cell

WIDEST = 10_000
"""Every table fits in this width. Tables are measured at it, and printed into files at it."""
NONE = "None."
GAP = 2


class OutputFormat(StrEnum):
    TABLE = "table"
    JSON = "json"
    CSV = "csv"


Output = Annotated[OutputFormat, typer.Option("--output", "-o", help="how to print it")]
Limit = Annotated[int, typer.Option(min=1, max=200, help="how many at most")]
Cursor = Annotated[str | None, typer.Option(help="continue from where the last list ended")]


@dataclass(frozen=True)
class Listing:
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    if_none: str = NONE

    @classmethod
    def of(cls, columns: Iterable[str], rows: Iterable[Iterable[object]], if_none: str = NONE) -> "Listing":
        return cls(tuple(columns), tuple(map(tuple, rows)), if_none)

    @property
    def values(self) -> Iterator[object]:
        return (value for row in self.rows for value in row)


@dataclass(frozen=True)
class Facts:
    rows: Mapping[str, object]

    @property
    def values(self) -> Iterator[object]:
        return iter(self.rows.values())


Part = Listing | Facts | Phrase | str


def paper() -> Console:
    """Without a terminal, each row is one line."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDEST)


def show(output: OutputFormat, answer: Mapping[str, Any], *parts: Part) -> None:
    """Print JSON as the API sent it, CSV of the first table or facts, or all parts."""
    match output:
        case OutputFormat.JSON:
            as_json(answer)
        case OutputFormat.CSV:
            as_csv(next((part for part in parts if isinstance(part, Listing | Facts)), Facts(answer)))
        case OutputFormat.TABLE:
            for part in parts:
                _print(part)
            if any(True for part in parts for _ in _instants(part)):
                say(f"Times are in {local_zone.described()}.")


def say(*lines: object) -> None:
    for line in lines:
        paper().print(str(line), markup=False, soft_wrap=True)


def as_json(value: object) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def as_csv(part: Listing | Facts, *, with_names: bool = True) -> None:
    """No cell can act as a formula."""
    columns, rows = (part.columns, part.rows) if isinstance(part, Listing) else (part.rows, [[*part.rows.values()]])
    writer = csv.writer(sys.stdout, lineterminator="\n")
    if with_names:
        writer.writerow(columns)
    writer.writerows([spreadsheet_cell(exact(value)) for value in row] for row in rows)


def more(output: OutputFormat, page: Mapping[str, Any]) -> None:
    """Print how to get the next page: for CSV to stderr, and not for JSON, which contains the cursor."""
    if page["next_cursor"] and output is not OutputFormat.JSON:
        Console(highlight=False, stderr=output is OutputFormat.CSV).print(
            f"There are more: --cursor {page['next_cursor']}", markup=False, soft_wrap=True
        )


def _print(part: Part) -> None:
    match part:
        case Listing():
            _print_listing(part)
        case Facts():
            _print_facts(part.rows)
        case _:
            paper().print(shown(part) if part else "", soft_wrap=True)


def _print_listing(part: Listing) -> None:
    if not part.rows:
        say(part.if_none)
        return
    console = paper()
    cells = [list(map(shown, row)) for row in part.rows] if console.width == WIDEST else _brief(part)
    columns = [[Text(name), *column] for name, column in zip(part.columns, zip(*cells, strict=True), strict=True)]
    widths = [_width(console, column) for column in columns]
    room = console.width - GAP * (len(columns) - 1)
    if sum(width.minimum for width in widths) <= room:
        console.print(_table(part.columns, cells, _shared(widths, room)))
        return
    for number, row in enumerate(part.rows):
        if number:
            say("")
        _print_facts(dict(zip(part.columns, row, strict=True)))


def _print_facts(rows: Mapping[str, object]) -> None:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, shown(value))
    paper().print(table)


def _table(names: Iterable[str], cells: Iterable[Iterable[Text]], widths: Iterable[int]) -> Table:
    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False)
    for name, width in zip(names, widths, strict=True):
        table.add_column(name, width=width, overflow="fold")
    for row in cells:
        table.add_row(*row)
    return table


def _width(console: Console, column: Sequence[Text]) -> Measurement:
    options = console.options.update(max_width=WIDEST)
    found = [Measurement.get(console, options, text) for text in column]
    widest = max(one.maximum for one in found)
    least = max(one.maximum if text.no_wrap else one.minimum for one, text in zip(found, column, strict=True))
    return Measurement(least, widest)


def _shared(widths: Sequence[Measurement], room: int) -> list[int]:
    given = [width.minimum for width in widths]
    for _ in range(room - sum(given)):
        growing = [number for number, one in enumerate(widths) if given[number] < one.maximum]
        if not growing:
            break
        given[min(growing, key=given.__getitem__)] += 1
    return given


def _brief(part: Listing) -> list[list[Text]]:
    lengths = [
        shortened({one.whole for one in column if isinstance(one, Identifier)})
        for column in zip(*part.rows, strict=True)
    ]
    return [[_brief_cell(one, length) for one, length in zip(row, lengths, strict=True)] for row in part.rows]


def _brief_cell(value: object, length: int) -> Text:
    match value:
        case Identifier():
            return Text(value.whole[:length])
        case Instant():
            return Text(value.brief, no_wrap=True)
        case _:
            return shown(value)


def _instants(part: Part) -> Iterator[Instant]:
    values = part.values if isinstance(part, Listing | Facts) else (part,)
    return (instant for value in values for instant in instants(value))
