"""The command `lockbox gate report`: what a gate that only reports would have refused."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from cli.client import at, call
from cli.terminal import Plain, as_json, moment, say, table, words

COLUMNS = ("Reason", "Calls", "Path", "Tenant", "Engineer", "First", "Last")
OTHERS = "all others"

app = typer.Typer()


@app.command("report")
def show_report(
    service: Annotated[str, typer.Argument(help="the service's name in the catalogue")],
    *,
    days: Annotated[int, typer.Option(min=1, max=30, help="how far back to look")] = 30,
    plain: Plain = False,
) -> None:
    """Show what the gate of a service would have refused.

    It lists the calls that a gate which only reports has let in, with what to do about them, for operators and
    auditors. The hundred kinds of calls that came most often are listed for each reason.
    """
    found = call("GET", at("gate", "enforcement", service, "report"), params={"days": days})
    if plain:
        as_json(found)
        return
    gate, reasons = found["gate"], found["items"]
    tenants = "1 tenant" if gate["tenants"] == 1 else f"{gate['tenants']} tenants"
    reports = (
        f"only reports for {gate['reporting']} of {tenants}" if gate["reporting"] else "is enforced for all tenants"
    )
    say(f"The gate of {service} {reports}.")
    if not reasons:
        say(f"In the last {days} days it let in no call that it would have refused.")
        return
    table(COLUMNS, (row for one in reasons for row in _rows(one)))
    say("", *(f"{words(one['reason'])}: {one['calls']:,} calls. {one['remedy']}" for one in reasons))


def _rows(reason: Mapping[str, Any]) -> Iterator[tuple[object, ...]]:
    for kind in reason["kinds"]:
        engineer = kind["engineer"]
        yield (
            words(reason["reason"]),
            f"{kind['calls']:,}",
            kind["path"] or OTHERS,
            kind["tenant"],
            engineer["name"] or engineer["id"] if engineer else kind["identity"],
            moment(kind["first_at"]),
            moment(kind["last_at"]),
        )
