"""The commands `me` and `access`."""

from typing import Annotated
from uuid import UUID

import typer

from cli.client import at, call
from cli.terminal import Facts, Output, OutputFormat, show
from cli.values import Word, moment, phrase

app = typer.Typer()


@app.command()
def me(output: Output = OutputFormat.TABLE) -> None:
    """Show your account and your roles."""
    found = call("GET", at("me"))
    account = Facts(
        {
            "Name": found["name"],
            "Person": found["id"],
            "Side": found["side"],
            "At the vendor": found["roles"],
            **{f"At {slug}": roles for slug, roles in found["tenants"].items()},
            "Signed in with": Word(found["means"]),
            "Signed in at": moment(found["signed_in_at"]),
        }
    )
    show(output, found, account)


@app.command()
def access(
    tenant: Annotated[str, typer.Option(help="the customer")],
    service: Annotated[str, typer.Option(help="such as exchange-online")],
    resource: Annotated[str, typer.Option(help="kind:id, such as mailbox:anna@contoso.example")],
    engineer: Annotated[UUID, typer.Option(help="the engineer's id")],
    action: Annotated[str, typer.Option(help="read, change, export")] = "read",
    output: Output = OutputFormat.TABLE,
) -> None:
    """Check whether access is open; exits 1 if closed."""
    asked = {
        "tenant": tenant,
        "service": service,
        "resource": resource,
        "engineer": str(engineer),
        "action": action,
    }
    found = call("GET", at("access"), params=asked)
    about = f"{found['action']} {found['resource']} in {found['service']} of {found['tenant']}"
    until = moment(found["deadline_at"])
    show(output, found, phrase("Open until ", until, f" by request {found['request_id']}: {about}"))
