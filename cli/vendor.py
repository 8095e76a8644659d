"""Commands of the vendor's staff, whom operators invite and shut out, and undelivered notifications."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from cli import terminal
from cli.client import at, call
from cli.invitations import Email, Invitation, Name, show_invitation, show_invitations
from cli.members import Person, Version, if_match
from cli.terminal import Cursor, Limit, Plain, as_json, moment, say, words

app = typer.Typer(no_args_is_help=True, help="People of the vendor.")

Roles = Annotated[
    list[str], typer.Option("--role", help="engineer, manager, operator, vendor_auditor or system; repeat")
]
ReviewTier = Annotated[
    int | None,
    typer.Option(min=1, max=5, help="a manager's tier of the review; the lowest is asked first"),
]


@app.command("list")
def list_colleagues(limit: Limit = 50, cursor: Cursor = None, plain: Plain = False) -> None:
    """List everybody at the vendor, to operators and auditors."""
    page = call("GET", at("vendor", "members"), params={"limit": limit, "cursor": cursor})
    if plain:
        as_json(page)
        return
    parts = ("id", "name", "address", "roles", "review_tier", "disabled", "version")
    rows = (tuple(one[part] for part in parts) for one in page["items"])
    terminal.table(("Person", "Name", "Address", "Roles", "Review tier", "Disabled", "Version"), rows)
    terminal.more(page)


@app.command()
def invite(name: Name, email: Email, role: Roles, plain: Plain = False) -> None:
    """Invite somebody by mail, as an operator.

    A machine comes the same way, with the role system: whoever sets it up accepts, and makes its first token in
    the session that follows.
    """
    body = {"name": name, "address": email, "roles": role}
    show_invitation(call("POST", at("vendor", "members"), body=body), plain=plain)


@app.command()
def roles(
    person: Person,
    role: Roles,
    review_tier: ReviewTier = None,
    version: Version = None,
    plain: Plain = False,
) -> None:
    """Set all roles and the tier of somebody else, as an operator."""
    tier = {} if review_tier is None else {"review_tier": review_tier}
    body, headers = {"roles": role} | tier, if_match(version)
    _show(call("PUT", at("vendor", "members", person), body=body, headers=headers), plain=plain)


@app.command()
def remove(person: Person) -> None:
    """Take every role from somebody else, as an operator."""
    call("DELETE", at("vendor", "members", person))
    say("Removed: they have no role here now.")


@app.command()
def disable(person: Person, plain: Plain = False) -> None:
    """Shut somebody else out for good, as an operator."""
    _show(call("POST", at("vendor", "members", person, "disable")), plain=plain)


@app.command("invitations")
def list_invitations(plain: Plain = False) -> None:
    """List the open invitations to the vendor's side."""
    show_invitations(call("GET", at("vendor", "invitations")), plain=plain)


@app.command()
def withdraw(invitation: Invitation) -> None:
    """Take an invitation to the vendor's side back."""
    call("DELETE", at("vendor", "invitations", invitation))
    say("Withdrawn: the code that was mailed is worthless.")


@app.command("undelivered")
def list_dead_notifications(limit: Limit = 50, cursor: Cursor = None, plain: Plain = False) -> None:
    """List undelivered notifications, as an operator.

    It says what each was for and why it failed, and neither to whom it went nor what it said. A call of one of the
    vendor's own webhooks can be repeated by its delivery.
    """
    page = call("GET", at("vendor", "undelivered"), params={"limit": limit, "cursor": cursor})
    if plain:
        as_json(page)
        return
    rows = (
        (
            one["request_id"],
            one["tenant"],
            words(one["template"]),
            one["channel"],
            moment(one["died_at"]),
            words(one["error"]),
            one["delivery_id"],
        )
        for one in page["items"]
    )
    terminal.table(("Request", "Customer", "Of", "By", "When", "Why", "Delivery"), rows)
    terminal.more(page)


def _show(colleague: Mapping[str, Any], *, plain: bool) -> None:
    if plain:
        as_json(colleague)
        return
    terminal.facts(
        {
            "Person": colleague["id"],
            "Name": colleague["name"],
            "Address": colleague["address"],
            "Roles": colleague["roles"],
            "Review tier": colleague["review_tier"],
            "Disabled": colleague["disabled"],
            "Since": moment(colleague["since"]),
            "Version": colleague["version"],
        }
    )
