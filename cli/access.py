"""The commands `me` and `access`: who you are, and whether access is open."""

from typing import Annotated
from uuid import UUID

import typer

from cli import terminal
from cli.client import at, call
from cli.terminal import Plain, as_json, moment, say, words

app = typer.Typer()


@app.command()
def me(plain: Plain = False) -> None:
    """Show your account and your roles."""
    found = call("GET", at("me"))
    if plain:
        as_json(found)
        return
    terminal.facts(
        {
            "Name": found["name"],
            "Person": found["id"],
            "Side": found["side"],
            "At the vendor": found["roles"],
            **{f"At {slug}": roles for slug, roles in found["tenants"].items()},
            "Signed in with": words(found["means"]),
            "Signed in at": moment(found["signed_in_at"]),
        }
    )


@app.command()
def access(
    tenant: Annotated[str, typer.Option(help="the customer")],
    service: Annotated[str, typer.Option(help="such as exchange-online")],
    resource: Annotated[str, typer.Option(help="kind:id, such as mailbox:anna@contoso.example")],
    engineer: Annotated[UUID, typer.Option(help="the engineer's id")],
    action: Annotated[str, typer.Option(help="read, change, export")] = "read",
    plain: Plain = False,
) -> None:
    """Check whether access is open; ends with 1 if not."""
    asked = {
        "tenant": tenant,
        "service": service,
        "resource": resource,
        "engineer": str(engineer),
        "action": action,
    }
    found = call("GET", at("access"), params=asked)
    if plain:
        as_json(found)
    else:
        about = f"{found['action']} {found['resource']} in {found['service']} of {found['tenant']}"
        say(f"Open until {moment(found['deadline_at'])} by request {found['request_id']}: {about}")
