"""The command `lockbox gate report`: what a gate that only reports would have refused."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Annotated, Any

import typer

from cli.client import at, call
from cli.inputs import days, duration_option
from cli.terminal import Listing, Output, OutputFormat, show
from cli.values import Word, moment, words

COLUMNS = ("Reason", "Calls", "Path", "Customer", "Engineer", "First", "Last")
OTHERS = "all others"
LAST_HELP = "how far back to look, at most 30d; 30d if left out"

app = typer.Typer()


@app.command("report")
def show_report(
    service: Annotated[str, typer.Argument(help="the service's name in the catalogue")],
    *,
    last: Annotated[
        int, duration_option("--last", LAST_HELP, partial(days, least=1, most=30), show_default=False)
    ] = 30,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Show what the gate of a service would have refused.

    It lists the calls that a gate which only reports has let in, with what to do about them, for operators and
    auditors. The hundred kinds of calls that came most often are listed for each reason.
    """
    found = call("GET", at("gate", "enforcement", service, "report"), params={"days": last})
    gate, reasons = found["gate"], found["items"]
    tenants = "1 tenant" if gate["tenants"] == 1 else f"{gate['tenants']} tenants"
    reports = (
        f"only reports for {gate['reporting']} of {tenants}" if gate["reporting"] else "is enforced for all tenants"
    )
    none = f"In the last {last} days it let in no call that it would have refused."
    calls = Listing.of(COLUMNS, (row for one in reasons for row in _rows(one)), none)
    remedies = [f"{words(one['reason'])}: {one['calls']:,} calls. {one['remedy']}" for one in reasons]
    show(output, found, f"The gate of {service} {reports}.", calls, *(["", *remedies] if remedies else []))


def _rows(reason: Mapping[str, Any]) -> Iterator[tuple[object, ...]]:
    for kind in reason["kinds"]:
        engineer = kind["engineer"]
        yield (
            Word(reason["reason"]),
            kind["calls"],
            kind["path"] or OTHERS,
            kind["tenant"],
            engineer["name"] or engineer["id"] if engineer else kind["identity"],
            moment(kind["first_at"]),
            moment(kind["last_at"]),
        )
