"""Commands of observers: whom a tenant has copied on what it is asked and told, and who decide nothing."""

from collections.abc import Mapping
from typing import Annotated, Any
from uuid import UUID

import typer

from cli import terminal
from cli.client import at, call
from cli.terminal import Plain, as_json, moment, say

app = typer.Typer(no_args_is_help=True, help="Who is copied and cannot decide.")

Tenant = Annotated[str, typer.Argument(help="the tenant's slug, such as contoso", show_default=False)]
EVERY_SERVICE = "all"


@app.command()
def add(
    tenant: Tenant,
    name: Annotated[str, typer.Option(help="who is copied")],
    email: Annotated[str, typer.Option(help="where copies go")],
    service: Annotated[str | None, typer.Option(help="such as exchange-online; all if left out")] = None,
    plain: Plain = False,
) -> None:
    """Have somebody copied, as a tenant admin."""
    body = {"name": name, "address": email, "service": service}
    added = call("POST", at("tenants", tenant, "observers"), body=body)
    if plain:
        as_json(added)
    else:
        terminal.facts(_facts(added))


@app.command("list")
def list_observers(tenant: Tenant, plain: Plain = False) -> None:
    """List who is copied."""
    found = call("GET", at("tenants", tenant, "observers"))
    if plain:
        as_json(found)
        return
    shown = [_facts(one) for one in found["items"]]
    terminal.table(("Observer", "Name", "Address", "Service", "Added by", "Since"), (one.values() for one in shown))


@app.command()
def remove(tenant: Tenant, observer: Annotated[UUID, typer.Argument(help="its id", show_default=False)]) -> None:
    """Have somebody copied no longer, as a tenant admin."""
    call("DELETE", at("tenants", tenant, "observers", observer))
    say("Removed: nothing more is copied there.")


def _facts(one: Mapping[str, Any]) -> dict[str, object]:
    return {
        "Observer": one["id"],
        "Name": one["name"],
        "Address": one["address"],
        "Service": one["service"] or EVERY_SERVICE,
        "Added by": one["added_by"]["name"],
        "Since": moment(one["created_at"]),
    }
