"""The command `lockbox`: requests and access checks through the API, and the migrations."""

import json
from typing import Annotated, Any

import typer
from sqlalchemy.exc import DBAPIError

from cli import sample, wording
from cli.client import call, stop
from config.settings import UnsafeSettings, load
from lockbox import migrations
from lockbox.database import as_owner
from lockbox.requests.rules import Policy

app = typer.Typer(no_args_is_help=True, add_completion=False, help="An open Customer Lockbox.", rich_markup_mode=None)
requests = typer.Typer(no_args_is_help=True, help="Requests for access.")
app.add_typer(requests, name="request")

Plain = Annotated[bool, typer.Option("--json", help="print JSON")]
Id = Annotated[str, typer.Argument(help="the request's id")]
Why = Annotated[str | None, typer.Option("--comment", help="why; kept in the trail")]
Version = Annotated[int | None, typer.Option("--version", help="only if the request is still at this version")]


@app.command()
def migrate() -> None:
    """Bring the database's schema up to date, as its owner (LOCKBOX_OWNER_DATABASE_URL)."""
    try:
        migrations.upgrade(load().require("owner_database_url"))
    except UnsafeSettings as unsafe:
        raise stop(str(unsafe)) from None
    except DBAPIError as error:
        raise stop(f"the database refused: {type(error.orig).__name__}: {str(error.orig).splitlines()[0]}") from None
    wording.OUT.print(f"The database is at migration {migrations.head()}.")


@app.command("sample")
def make_sample() -> None:
    """Add sample people and the tenant `contoso` to a try-out (LOCKBOX_OWNER_DATABASE_URL); print their tokens."""
    try:
        settings = load()
        with as_owner(settings.require("owner_database_url")) as session:
            made = sample.seed(
                session,
                tenant="contoso",
                policy=Policy(),
                environment=settings.environment,
                services=settings.services,
            )
    except (UnsafeSettings, sample.NotInProduction) as refused:
        raise stop(str(refused)) from None
    for name, token in made.tokens.items():
        print(f"{name.upper()}={token}")
    print(f"ERIN_ID={made.people['erin']}")


@requests.command()
def submit(  # noqa: PLR0917 - Typer calls by name
    tenant: Annotated[str, typer.Option(help="the customer")],
    service: Annotated[str, typer.Option(help="such as exchange-online")],
    resource: Annotated[list[str], typer.Option(help="kind:id, such as mailbox:anna@contoso.example; repeat")],
    justification: Annotated[str, typer.Option(help="why access is needed")],
    seconds: Annotated[int, typer.Option(help="how long access is needed")],
    action: Annotated[list[str] | None, typer.Option(help="read, change, export; repeat")] = None,
    reason: Annotated[str, typer.Option(help="support_case, vendor_alert, …")] = "support_case",
    case: Annotated[str | None, typer.Option(help="the case number")] = None,
    key: Annotated[str | None, typer.Option(help="Idempotency-Key: sent twice, filed once")] = None,
    plain: Plain = False,  # noqa: FBT002 - a switch
) -> None:
    """Ask for access."""
    body = {
        "tenant": tenant,
        "service": service,
        "resources": resource,
        "actions": action or ["read"],
        "reason_code": reason,
        "justification": justification,
        "case_ref": case,
        "access_window": seconds,
    }
    filed = call("POST", "/v1/requests", body=body, headers={"idempotency-key": key} if key else None)
    if not plain:
        wording.OUT.print(f"Filed; {filed['asked']} people are asked.")
    _show(filed, plain)


@requests.command("list")
def list_requests(
    state: Annotated[str | None, typer.Option(help="pending, active, …")] = None,
    service: Annotated[str | None, typer.Option(help="such as exchange-online")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200)] = 50,
    plain: Plain = False,  # noqa: FBT002 - a switch
) -> None:
    """List the requests that you may see, newest first."""
    page = call("GET", "/v1/requests", params={"state": state, "service": service, "limit": limit})
    if plain:
        _print_json(page)
    else:
        wording.show_list(page["items"])


@requests.command()
def show(request: Id, plain: Plain = False) -> None:  # noqa: FBT002 - a switch
    """Show one request."""
    _show(call("GET", f"/v1/requests/{request}"), plain)


@requests.command()
def events(request: Id, plain: Plain = False) -> None:  # noqa: FBT002 - a switch
    """Show the timeline of a request."""
    found = call("GET", f"/v1/requests/{request}/events")
    if plain:
        _print_json(found)
    else:
        wording.show_events(found["items"])


@requests.command()
def approve(
    request: Id,
    comment: Why = None,
    seconds: Annotated[int | None, typer.Option(help="shorten the window to this")] = None,
    version: Version = None,
    plain: Plain = False,  # noqa: FBT002 - a switch
) -> None:
    """Say yes for the customer."""
    _act("approve", request, {"comment": comment, "access_window": seconds}, version, plain=plain)


def _acting(action: str, help_: str) -> None:
    @requests.command(action, help=help_)
    def act(request: Id, comment: Why = None, version: Version = None, plain: Plain = False) -> None:  # noqa: FBT002
        _act(action, request, {"comment": comment}, version, plain=plain)


for _action, _help in (
    ("endorse", "Say for the vendor that the customer may be asked."),
    ("deny", "Say no."),
    ("cancel", "Withdraw your request."),
    ("complete", "Give access back."),
    ("revoke", "Close an open window at once."),
):
    _acting(_action, _help)


@app.command()
def access(
    tenant: Annotated[str, typer.Option()],
    service: Annotated[str, typer.Option()],
    resource: Annotated[str, typer.Option()],
    engineer: Annotated[str, typer.Option(help="the engineer's id")],
    action: Annotated[str, typer.Option()] = "read",
) -> None:
    """Ask whether a window is open; ends with 1 when the door is shut."""
    asked = {"tenant": tenant, "service": service, "resource": resource, "engineer": engineer, "action": action}
    found = call("GET", "/v1/access", params=asked)
    wording.OUT.print(f"[green]Open[/] until {wording.moment(found['deadline_at'])} by request {found['request_id']}")


def _act(action: str, request: str, body: dict[str, Any], version: int | None, *, plain: bool) -> None:
    headers = {} if version is None else {"if-match": f'"{version}"'}
    _show(call("POST", f"/v1/requests/{request}/{action}", body=body, headers=headers), plain)


def _show(item: dict[str, Any], plain: bool) -> None:  # noqa: FBT001 - as it came
    if plain:
        _print_json(item)
    else:
        wording.show_one(item)


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def main() -> None:
    """Run the command."""
    app()
