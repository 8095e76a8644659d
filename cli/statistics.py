"""The command `lockbox audit statistics`."""

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any

import typer

from cli import terminal
from cli.client import at, call
from cli.terminal import Listing, Output, OutputFormat, Part
from cli.values import NOTHING, Duration, moment, phrase, words

app = typer.Typer()

Tenant = Annotated[str | None, typer.Option(help="the customer; left out: your only one, or all of them")]
Item = Mapping[str, Any]

GROUPS: Mapping[str, tuple[str, Callable[[Item], str | None]]] = {
    "month": ("months", lambda one: one["month"]),
    "service": ("services", lambda one: one["service"]),
    "engineer": ("engineers", lambda one: one["engineer"]["name"]),
    "reason": ("reasons", lambda one: words(one["reason_code"])),
    "severity": ("severities", lambda one: one["severity"]),
    "level": ("levels", lambda one: one["level"]),
}
"""For each grouping of requests: the name of the groups in the API, and a function that names a group."""
COUNTS = {
    "Requests": "requests",
    "Approved": "approved",
    "Denied": "denied",
    "Timed out": "timed_out",
    "Opened without approval": "opened_without_approval",
    "Break-glass": "opened_by_break_glass",
    "Pre-approved": "pre_approved",
    "Revoked": "revoked",
}


@app.command()
def statistics(tenant: Tenant = None, output: Output = OutputFormat.TABLE) -> None:
    """Count what became of requests, as an admin or auditor.

    It counts requests of the last twelve months that reached the customer. Requests "opened without approval" were
    opened by the vendor alone, also by break-glass. The median is of the time until the customer answered.
    """
    found = call("GET", at("statistics"), params={"tenant": tenant})
    terminal.show(output, found, *_parts(found))


def _parts(found: Item) -> Iterator[Part]:
    rows = [("all", "", found["total"])]
    for of, (part, name) in GROUPS.items():
        rows += [(of, name(one) or NOTHING, one["figures"]) for one in found[part]]
    yield Listing.of(("Of", "Name", *COUNTS, "Median answer"), (_row(*row) for row in rows))
    if found["counted_from"]:
        yield phrase("Requests from before ", moment(found["counted_from"]), " are not counted.")


def _row(of: str, name: str, figures: Item) -> Iterator[object]:
    median = figures["median_answer_seconds"]
    yield from (of, name, *(figures[count] for count in COUNTS.values()))
    yield None if median is None else Duration(median)
