"""Commands of delegates: who stands in for whom, naming one for a period, ending it."""

from typing import Annotated
from uuid import UUID

import typer

from cli import terminal
from cli.client import at, call
from cli.tenants import Tenant
from cli.terminal import Plain, as_json, moment, say

app = typer.Typer(no_args_is_help=True, help="Delegates of approvers.")


@app.command("list")
def list_delegations(tenant: Tenant, plain: Plain = False) -> None:
    """List who stands in for whom, now and to come."""
    found = call("GET", at("tenants", tenant, "delegations"))
    if plain:
        as_json(found)
        return
    rows = (
        (
            one["id"],
            one["principal"]["name"],
            one["delegate"]["name"],
            moment(one["starts_at"]),
            moment(one["ends_at"]),
            one["counts"],
        )
        for one in found["items"]
    )
    terminal.table(("Delegation", "For", "Delegate", "From", "Until", "Counts now"), rows)


@app.command("name")
def name_delegate(
    tenant: Tenant,
    delegate: Annotated[UUID, typer.Argument(help="who stands in, by id", show_default=False)],
    until: Annotated[str, typer.Option(help="such as 2031-05-01T08:00:00Z")],
    since: Annotated[str | None, typer.Option("--from", help="likewise; now where it is left out")] = None,
    principal: Annotated[
        UUID | None, typer.Option("--for", help="an approver who is absent, by id; for admins")
    ] = None,
    plain: Plain = False,
) -> None:
    """Name your delegate for a period, or an absent approver's."""
    body = {
        "delegate": str(delegate),
        "ends_at": until,
        "starts_at": since,
        "principal": principal and str(principal),
    }
    named = call("POST", at("tenants", tenant, "delegations"), body=body)
    if plain:
        as_json(named)
        return
    terminal.facts(
        {
            "Delegation": named["id"],
            "For": named["principal"]["name"],
            "Delegate": named["delegate"]["name"],
            "From": moment(named["starts_at"]),
            "Until": moment(named["ends_at"]),
        }
    )


@app.command()
def end(tenant: Tenant, delegation: Annotated[UUID, typer.Argument(help="its id", show_default=False)]) -> None:
    """End a delegation now."""
    call("DELETE", at("tenants", tenant, "delegations", delegation))
    say("Ended.")
