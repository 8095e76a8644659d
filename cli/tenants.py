"""Commands that add, show, switch and stop tenants."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any
from uuid import UUID

import typer

from cli import preview_table, terminal, unapproved_access
from cli.client import at, call
from cli.terminal import Cursor, Facts, Limit, Listing, Output, OutputFormat, say
from cli.values import Identifier, Phrase, moment, phrase

app = typer.Typer(no_args_is_help=True, help="Customers: add, suspend, switch, stop.")

Tenant = Annotated[str, typer.Argument(help="the tenant's slug, such as contoso", show_default=False)]


@app.command()
def add(
    tenant: Tenant,
    name: Annotated[str, typer.Option(help="its name")],
    admin_name: Annotated[str, typer.Option(help="the name of the first tenant admin")],
    admin_email: Annotated[str, typer.Option(help="the address that the invitation is mailed to")],
    plan: Annotated[str, typer.Option(help="one of the installation's plans")] = "standard",
    output: Output = OutputFormat.TABLE,
) -> None:
    """Add a tenant, as an operator.

    Its first admin is invited by mail; only that mail contains the code.
    """
    admin = {"name": admin_name, "address": admin_email}
    added = call("POST", at("tenants"), body={"slug": tenant, "name": name, "plan": plan, "admin": admin})
    _show(added, output, f"Added; {admin_email} is invited by mail to be its first admin.")


@app.command("list")
def list_tenants(limit: Limit = 50, cursor: Cursor = None, output: Output = OutputFormat.TABLE) -> None:
    """List the tenants that you may see."""
    page = call("GET", at("tenants"), params={"limit": limit, "cursor": cursor})
    rows = ((one["slug"], one["name"], _mode(one), one["plan"], one["suspended"]) for one in page["items"])
    terminal.show(output, page, Listing.of(("Customer", "Name", "Mode", "Plan", "Suspended"), rows))
    terminal.more(output, page)


@app.command()
def show(tenant: Tenant, output: Output = OutputFormat.TABLE) -> None:
    """Show one tenant."""
    _show(call("GET", at("tenants", tenant)), output)


@app.command("unapproved-access")
def show_unapproved_access(tenant: Tenant, output: Output = OutputFormat.TABLE) -> None:
    """Show what can open without a tenant's approval.

    For the tenant's admins, approvers and auditors: who can open such
    access, how often and until when, and the windows opened in the last 90 days.
    """
    found = call("GET", at("tenants", tenant, "unapproved-access"))
    terminal.show(output, found, *unapproved_access.parts(found))


@app.command("approver-keys")
def approver_keys(tenant: Tenant) -> None:
    """Print the public keys of the approvers' passkeys.

    As a tenant admin. First compare each fingerprint with that on the
    approver's own account page, then keep the keys for `lockbox audit verify`.
    """
    terminal.as_json(call("GET", at("tenants", tenant, "approver-keys")))


@app.command()
def suspend(
    tenant: Tenant,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask for confirmation")] = False,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Suspend a tenant, as an operator: open access ends.

    Says how many windows end, and asks first. They stay closed when the tenant is resumed.
    """
    windows = call("GET", at("tenants", tenant))["open_windows"]
    if windows and not yes:
        typer.confirm(f"{windows} open windows of {tenant} end at once and stay closed. Continue?", abort=True)
    _show(call("POST", at("tenants", tenant, "suspend")), output)


@app.command()
def resume(tenant: Tenant, output: Output = OutputFormat.TABLE) -> None:
    """End a suspension, as an operator."""
    _show(call("POST", at("tenants", tenant, "resume")), output)


@app.command()
def plan(
    tenant: Tenant,
    plan: Annotated[str, typer.Argument(help="one of the installation's plans", show_default=False)],
    output: Output = OutputFormat.TABLE,
) -> None:
    """Set a tenant's plan, as an operator; its mode stays."""
    _show(call("PUT", at("tenants", tenant, "plan"), body={"plan": plan}), output)


@app.command()
def mode(
    tenant: Tenant,
    mode: Annotated[str, typer.Argument(help="enforce, observe or off", show_default=False)],
    output: Output = OutputFormat.TABLE,
) -> None:
    """Switch the mode, as a tenant admin.

    Switching to enforce revokes and lists the access that the vendor opened alone.
    """
    switched = call("PUT", at("tenants", tenant, "mode"), body={"mode": mode})
    said = [f"{tenant} is in {switched['mode']} now."]
    if switched["in_review"]:
        said.append(f"In the vendor's review: {switched['in_review']}. They become pending once they are endorsed.")
    revoked = _closed("Revoked, because the vendor had opened them alone:", switched["closed"])
    terminal.show(output, switched, *said, *revoked)


@app.command()
def rename(
    tenant: Tenant,
    name: Annotated[str, typer.Argument(help="the new name", show_default=False)],
    output: Output = OutputFormat.TABLE,
) -> None:
    """Rename a tenant, as its admin; the slug stays."""
    _show(call("PUT", at("tenants", tenant, "name"), body={"name": name}), output)


@app.command()
def preview(
    tenant: Tenant,
    service: Annotated[str, typer.Option(help="such as exchange-online")],
    resource: Annotated[list[str], typer.Option(help="kind:id, such as mailbox:anna@contoso.example; repeat")],
    action: Annotated[list[str] | None, typer.Option(help="read, change, export; repeat")] = None,
    reason: Annotated[str, typer.Option(help="support_case, vendor_alert, …")] = "support_case",
    severity: Annotated[str | None, typer.Option(help="S1 to S4")] = None,
    entity: Annotated[str | None, typer.Option(help="who employs the engineer; not known if left out")] = None,
    office: Annotated[str | None, typer.Option(help="the country of the engineer's office, such as DE")] = None,
    located: Annotated[str | None, typer.Option(help="the country in which the engineer is, such as PL")] = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Show who would be asked, as a member.

    Nothing is submitted and no one is notified. Ends with 1 if there is a warning.
    """
    body = {
        "service": service,
        "resources": resource,
        "actions": action or ["read"],
        "reason_code": reason,
        "severity": severity,
        "employing_entity": entity,
        "office_country": office,
        "physical_country": located,
    }
    found = call("POST", at("tenants", tenant, "preview"), body=body)
    terminal.show(output, found, preview_table.what_if(found))
    if found["warnings"]:
        raise typer.Exit(1)


@app.command()
def emergency_stop(
    tenant: Tenant,
    comment: Annotated[str | None, typer.Option(help="why; kept in the audit log")] = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Emergency stop: revoke all access, deny all requests.

    As a tenant admin. Requests that are still in the vendor's review are denied too, and
    break-glass is barred until `lockbox tenant end-emergency-stop`.
    """
    done = call("POST", at("tenants", tenant, "emergency-stop"), body={"comment": comment})
    said = (
        f"{len(done['revoked'])} open windows revoked, {len(done['denied'])} pending requests denied, "
        f"{done['denied_in_review']} denied in the vendor's review."
    )
    ended = [*_closed("Revoked:", done["revoked"]), *_closed("Denied:", done["denied"])]
    terminal.show(output, done, said, *ended)


@app.command()
def end_emergency_stop(tenant: Tenant) -> None:
    """End an emergency stop, as a tenant admin.

    The policy decides about break-glass again. Nothing that was stopped reopens.
    """
    call("DELETE", at("tenants", tenant, "emergency-stop"))
    say("Ended: break-glass is as the policy says again.")


@app.command()
def leave(tenant: Tenant) -> None:
    """Leave a tenant, as any of its members.

    You lose all roles there at once; the last admin cannot leave.
    """
    call("POST", at("tenants", tenant, "leave"))
    say(f"You have left {tenant}.")


@app.command()
def recover(
    tenant: Tenant,
    name: Annotated[str, typer.Option(help="the proposed admin's name")],
    email: Annotated[str, typer.Option(help="the address that the invitation will be mailed to")],
    output: Output = OutputFormat.TABLE,
) -> None:
    """Propose an admin for a tenant, as an operator.

    All of its admins and approvers are notified at once; the invitation is mailed after 72 hours unless one objects.
    """
    proposed = call("POST", at("tenants", tenant, "recovery"), body={"name": name, "address": email})
    effect = moment(proposed["takes_effect_at"])
    said = phrase(f"Proposed as {proposed['id']}; takes effect at ", effect, " unless they object.")
    terminal.show(output, proposed, said)


@app.command("withdraw")
def withdraw_proposal(
    tenant: Tenant,
    proposal: Annotated[UUID, typer.Argument(help="its id, as `lockbox tenant recover` printed it")],
) -> None:
    """Withdraw a proposed admin, as an operator.

    All of the tenant's admins and approvers are notified.
    """
    call("DELETE", at("tenants", tenant, "recovery", proposal))
    say("Withdrawn: nobody becomes an admin by that proposal.")


@app.command("object")
def object_to(
    tenant: Tenant,
    proposal: Annotated[UUID, typer.Argument(help="its id, as in `lockbox invitation list`", show_default=False)],
) -> None:
    """Object to a proposed admin, as an admin or approver."""
    call("POST", at("tenants", tenant, "recovery", proposal, "object"))
    say("Objected: nobody becomes an admin by that proposal.")


def _show(tenant: Mapping[str, Any], output: OutputFormat, *above: str) -> None:
    known = {
        "Mode": tenant["mode"],
        "Plan": tenant["plan"],
        "Suspended": tenant["suspended"],
        "Policy": tenant["policy_version"] and f"version {tenant['policy_version']}",
        "Members": tenant["members"],
        "Open windows": tenant["open_windows"],
        "Emergency stop": (stopped := tenant.get("stopped_since")) and phrase("since ", moment(stopped)),
        "In vendor review": tenant["in_review"],
    }
    there = {name: value for name, value in known.items() if value is not None}
    terminal.show(output, tenant, *above, Facts({"Customer": tenant["slug"], "Name": tenant["name"], **there}))


def _mode(tenant: Mapping[str, Any]) -> str | Phrase:
    if not tenant["consent_until"]:
        return str(tenant["mode"])
    until = moment(tenant["consent_until"])
    return phrase(f"{tenant['effective_mode']} until ", until, f", then {tenant['mode']}")


def _closed(title: str, requests: Iterable[Mapping[str, Any]]) -> list[str | Listing]:
    rows = [
        (Identifier(request["id"]), request["service"], ", ".join(request["resources"]), request["actions"])
        for request in requests
    ]
    return [title, Listing.of(("Request", "Service", "Resources", "Actions"), rows)] if rows else []
