"""Commands of a tenant's members: list and invite them, set their roles, remove them."""

from collections.abc import Mapping
from typing import Annotated, Any
from uuid import UUID

import typer

from cli import terminal
from cli.client import at, call
from cli.invitations import Email, Name, show_invitation
from cli.tenants import Tenant
from cli.terminal import Cursor, Limit, Plain, as_json, moment, say

app = typer.Typer(no_args_is_help=True, help="Members of a customer.")

Person = Annotated[UUID, typer.Argument(help="the person's id", show_default=False)]
Roles = Annotated[list[str], typer.Option("--role", help="tenant_admin, approver or auditor; repeat")]
Version = Annotated[
    str | None,
    typer.Option(help="only if they are still at this version, which `list` shows; else whatever they have"),
]


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
    parts = ("id", "name", "address", "roles", "eligible", "version")
    rows = (tuple(one[part] for part in parts) for one in page["items"])
    terminal.table(("Person", "Name", "Address", "Roles", "Delegate", "Version"), rows)
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
def roles(tenant: Tenant, person: Person, role: Roles, version: Version = None, plain: Plain = False) -> None:
    """Set all roles of a member, as a tenant admin."""
    where = at("tenants", tenant, "members", person)
    _show(call("PUT", where, body={"roles": role}, headers=if_match(version)), plain=plain)


@app.command()
def remove(tenant: Tenant, person: Person) -> None:
    """Remove a member at once, as a tenant admin."""
    call("DELETE", at("tenants", tenant, "members", person))
    say("Removed.")


@app.command("delegate-eligible")
def delegate_eligible(
    tenant: Tenant,
    person: Person,
    eligible: Annotated[bool, typer.Option("--yes/--no", help="whether approvers may name them")] = True,
    plain: Plain = False,
) -> None:
    """Set whether approvers may name a member as delegate.

    For tenant admins. Delegations of a member who is no longer eligible end.
    """
    where = at("tenants", tenant, "members", person)
    found = call("GET", where)
    body = {"roles": found["roles"], "eligible": eligible}
    _show(call("PUT", where, body=body, headers=if_match(found["version"])), plain=plain)


def if_match(version: str | None) -> dict[str, str]:
    """Return the header that names the version to replace, or whichever is there for None."""
    return {"if-match": "*" if version is None else f'"{version}"'}


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
            "May be a delegate": member["eligible"],
            "Member since": moment(member["since"]),
            "Version": member["version"],
        }
    )
