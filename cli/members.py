"""Commands of a tenant's members: list and invite them, set their roles, remove them."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any
from uuid import UUID

import typer

from cli import terminal
from cli.client import at, call, stop
from cli.invitations import Email, Name, show_invitation
from cli.tenants import Tenant
from cli.terminal import Cursor, Limit, Plain, as_json, moment, say

MOST_A_PAGE = 200

app = typer.Typer(no_args_is_help=True, help="Members of a customer.")

Person = Annotated[UUID, typer.Argument(help="the person's id", show_default=False)]
Roles = Annotated[list[str], typer.Option("--role", help="tenant_admin, approver or auditor; repeat")]


@app.command("list")
def list_members(
    tenant: Tenant,
    limit: Limit = 50,
    cursor: Cursor = None,
    plain: Plain = False,
) -> None:
    """List the members, to the tenant's own people."""
    page = call("GET", at("tenants", tenant, "members"), params={"limit": limit, "cursor": cursor})
    if plain:
        as_json(page)
        return
    rows = ((one["id"], one["name"], one["address"], one["roles"], one["eligible"]) for one in page["items"])
    terminal.table(("Person", "Name", "Address", "Roles", "Deputy"), rows)
    terminal.more(page)


@app.command()
def invite(
    tenant: Tenant,
    name: Name,
    email: Email,
    role: Roles,
    plain: Plain = False,
) -> None:
    """Invite somebody by mail, as a tenant admin.

    They are a member once they accept, with a code that only the mail holds.
    """
    body = {"name": name, "address": email, "roles": role}
    show_invitation(call("POST", at("tenants", tenant, "members"), body=body), plain=plain)


@app.command()
def roles(tenant: Tenant, person: Person, role: Roles, plain: Plain = False) -> None:
    """Set all roles of a member, as a tenant admin."""
    _show(call("PUT", at("tenants", tenant, "members", person), body={"roles": role}), plain=plain)


@app.command()
def remove(tenant: Tenant, person: Person) -> None:
    """Remove a member at once, as a tenant admin."""
    call("DELETE", at("tenants", tenant, "members", person))
    say("Removed.")


@app.command("deputy-eligible")
def deputy_eligible(
    tenant: Tenant,
    person: Person,
    eligible: Annotated[bool, typer.Option("--yes/--no", help="whether approvers may name them")] = True,
    plain: Plain = False,
) -> None:
    """Allow approvers to name a member as deputy, or no longer.

    For tenant admins. What somebody stands in for ends where they are no longer eligible.
    """
    found = next((one for one in _members(tenant) if one["id"] == str(person)), None)
    if found is None:
        raise stop("not-found: There is no such member.")
    body = {"roles": found["roles"], "eligible": eligible}
    _show(call("PUT", at("tenants", tenant, "members", person), body=body), plain=plain)


def _members(tenant: str) -> Iterator[dict[str, Any]]:
    cursor, more = None, True
    while more:
        asked = {"limit": MOST_A_PAGE, "cursor": cursor}
        page = call("GET", at("tenants", tenant, "members"), params=asked)
        yield from page["items"]
        cursor = page["next_cursor"]
        more = cursor is not None


def _show(member: Mapping[str, Any], *, plain: bool) -> None:
    if plain:
        as_json(member)
        return
    terminal.facts(
        {
            "Person": member["id"],
            "Name": member["name"],
            "Address": member["address"],
            "Roles": member["roles"],
            "May be a deputy": member["eligible"],
            "Member since": moment(member["since"]),
        }
    )
