"""Commands of invitations to a tenant: list and withdraw them; what is shown of one never holds its code."""

from collections.abc import Mapping
from typing import Annotated, Any
from uuid import UUID

import typer

from cli import terminal
from cli.client import at, call
from cli.tenants import Tenant
from cli.terminal import Plain, as_json, moment, say

app = typer.Typer(no_args_is_help=True, help="Open invitations of a customer.")

Name = Annotated[str, typer.Option(help="who it is")]
Email = Annotated[str, typer.Option(help="where the invitation is mailed to")]
Invitation = Annotated[UUID, typer.Argument(help="its id", show_default=False)]


@app.command("list")
def list_invitations(tenant: Tenant, plain: Plain = False) -> None:
    """List the open invitations, proposed admins too."""
    show_invitations(call("GET", at("tenants", tenant, "invitations")), plain=plain)


@app.command()
def withdraw(tenant: Tenant, invitation: Invitation) -> None:
    """Take an invitation back, as a tenant admin."""
    call("DELETE", at("tenants", tenant, "invitations", invitation))
    say("Withdrawn: the code that was mailed is worthless.")


def show_invitation(invitation: Mapping[str, Any], *, plain: bool) -> None:
    """Print one invitation; its code is in the mail alone."""
    if plain:
        as_json(invitation)
        return
    terminal.facts(
        {
            "Invitation": invitation["id"],
            "Name": invitation["name"],
            "Address": invitation["address"],
            "Roles": invitation["roles"],
        }
    )
    say("The mail is on its way; it holds the only copy of the code.")


def show_invitations(found: Mapping[str, Any], *, plain: bool) -> None:
    """Print open invitations as a table."""
    if plain:
        as_json(found)
        return
    rows = ((one["id"], one["name"], one["address"], one["roles"], _good(one)) for one in found["items"])
    terminal.table(("Invitation", "Name", "Address", "Roles", "Good"), rows)


def _good(invitation: Mapping[str, Any]) -> str:
    until = f"until {moment(invitation['expires_at'])}" if invitation["expires_at"] else ""
    if invitation["is_recovery"]:
        return f"proposed by the vendor, from {moment(invitation['takes_effect_at'])} {until}".strip()
    return until or "once it is mailed"
