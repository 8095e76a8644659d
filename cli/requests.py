"""Commands of requests: submit, preview, list, show, decide and end them."""

import time
from collections.abc import Callable
from typing import Annotated, Any
from uuid import UUID

import typer

from cli import request_table, terminal
from cli.client import at, call
from cli.terminal import Cursor, Limit, Plain, as_json, say
from connectors.scram import new_password, verifier_of

app = typer.Typer(no_args_is_help=True, help="Access requests.")

WAITING = frozenset({"opening", "open_failed"})
AGAIN_SECONDS = 0.5

Id = Annotated[UUID, typer.Argument(help="the request's id", show_default=False)]
Why = Annotated[
    str | None,
    typer.Option(
        "--comment", help="why; kept in the audit log. Required where the policy says so, by default to deny"
    ),
]
Version = Annotated[int | None, typer.Option("--version", help="only if the request is still at this version")]

Words = Annotated[str, typer.Argument(help="the text; kept in the audit log", show_default=False)]

Tenant = Annotated[str, typer.Option(help="the customer")]
Service = Annotated[str, typer.Option(help="such as exchange-online")]
Resources = Annotated[
    list[str], typer.Option("--resource", help="kind:id, such as mailbox:anna@contoso.example; repeat")
]
Justification = Annotated[str, typer.Option(help="why access is needed")]
Seconds = Annotated[int, typer.Option(help="how long access is needed, in seconds")]
Actions = Annotated[list[str] | None, typer.Option("--action", help="read, change, export; repeat")]
Reason = Annotated[str, typer.Option(help="support_case, vendor_alert, …")]
Uses = Annotated[int | None, typer.Option(help="how often access can be used; left out: as the customer allows")]
Case = Annotated[str | None, typer.Option(help="the case number")]
Engineer = Annotated[UUID | None, typer.Option(help="the engineer's id, if a service account submits")]


@app.command()
def submit(
    tenant: Tenant,
    service: Service,
    resource: Resources,
    justification: Justification,
    seconds: Seconds,
    action: Actions = None,
    reason: Reason = "support_case",
    case: Case = None,
    engineer: Engineer = None,
    uses: Uses = None,
    key: Annotated[str | None, typer.Option(help="Idempotency-Key: if sent twice, it is submitted once")] = None,
    plain: Plain = False,
) -> None:
    """Submit a request."""
    body = _request_input(tenant, service, resource, action, reason, justification, case, seconds, engineer) | {
        "max_uses": uses
    }
    submitted = call("POST", at("requests"), body=body, headers={"idempotency-key": key} if key else None)
    if not plain:
        say(f"Submitted; {submitted['asked']} people are asked.")
    _show(submitted, plain=plain)


@app.command()
def again(
    request: Id,
    key: Annotated[str | None, typer.Option(help="Idempotency-Key: if sent twice, it is submitted once")] = None,
    plain: Plain = False,
) -> None:
    """Submit a timed-out request again."""
    submitted = call("POST", at("requests", request, "ask-again"), headers={"idempotency-key": key} if key else None)
    if not plain:
        say(f"Submitted; {submitted['asked']} people are asked.")
    _show(submitted, plain=plain)


@app.command()
def preview(
    tenant: Tenant,
    service: Service,
    resource: Resources,
    justification: Justification,
    seconds: Seconds,
    action: Actions = None,
    reason: Reason = "support_case",
    case: Case = None,
    engineer: Engineer = None,
    uses: Uses = None,
    plain: Plain = False,
) -> None:
    """Preview a request.

    Nothing is submitted and nobody is notified. Ends with 1 if the request would be rejected.
    """
    body = _request_input(tenant, service, resource, action, reason, justification, case, seconds, engineer) | {
        "max_uses": uses
    }
    found = call("POST", at("requests", "preview"), body=body)
    if plain:
        as_json(found)
    else:
        request_table.show_preview(found)
    if not found["can_be_submitted"]:
        raise typer.Exit(1)


@app.command("list")
def list_requests(
    state: Annotated[str | None, typer.Option(help="pending, active, …")] = None,
    service: Annotated[str | None, typer.Option(help="such as exchange-online")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
    plain: Plain = False,
) -> None:
    """List the requests that you may see, newest first."""
    asked = {"state": state, "service": service, "limit": limit, "cursor": cursor}
    page = call("GET", at("requests"), params=asked)
    if plain:
        as_json(page)
    else:
        request_table.show_list(page["items"])
        terminal.more(page)


@app.command()
def show(request: Id, plain: Plain = False) -> None:
    """Show one request."""
    _show(call("GET", at("requests", request)), plain=plain)


@app.command()
def events(request: Id, plain: Plain = False) -> None:
    """Show the timeline of a request."""
    _read(request, "events", lambda found: request_table.show_events(found["items"]), plain=plain)


@app.command()
def notifications(request: Id, plain: Plain = False) -> None:
    """Show who was notified of a request, on your own side."""
    _read(request, "notifications", request_table.show_notifications, plain=plain)


@app.command()
def activity(request: Id, plain: Plain = False) -> None:
    """Show the activity during access."""
    _read(request, "activity", lambda found: request_table.show_activity(found["items"]), plain=plain)


@app.command()
def connections(request: Id, plain: Plain = False) -> None:
    """Show what is, or was, opened at targets."""
    _read(request, "connections", lambda found: request_table.show_connections(found["items"]), plain=plain)


@app.command()
def credential(
    request: Id,
    wait: Annotated[int, typer.Option(min=0, max=300, help="how many seconds to wait until it is good")] = 30,
    plain: Plain = False,
) -> None:
    """Get a login at the target, for as long as your access lasts.

    The password is made here, and printed once: only a verifier of it is sent. An earlier login is closed.
    """
    password = new_password()
    found = call("POST", at("requests", request, "credential"), body={"verifier": verifier_of(password)})
    until = time.monotonic() + wait
    while found["state"] in WAITING and time.monotonic() < until:
        time.sleep(AGAIN_SECONDS)
        listed = call("GET", at("requests", request, "connections"))["items"]
        found = next((one for one in listed if one["id"] == found["id"]), found)
    if plain:
        as_json(found | {"password": password})
    else:
        request_table.show_credential(found, password)
    if found["state"] != "open":
        raise typer.Exit(1)


@app.command()
def questions(request: Id, plain: Plain = False) -> None:
    """Show the questions and answers about a request."""
    _read(request, "questions", lambda found: request_table.show_questions(found["items"]), plain=plain)


@app.command()
def ask(request: Id, text: Words, plain: Plain = False) -> None:
    """Ask the engineer a question before you decide."""
    _talk(call("POST", at("requests", request, "questions"), body={"text": text}), plain=plain)


@app.command()
def answer(
    request: Id,
    question: Annotated[UUID, typer.Argument(help="the question's id", show_default=False)],
    text: Words,
    plain: Plain = False,
) -> None:
    """Answer a question about your request."""
    _talk(call("POST", at("requests", request, "questions", question, "answer"), body={"text": text}), plain=plain)


@app.command()
def approve(
    request: Id,
    comment: Why = None,
    seconds: Annotated[int | None, typer.Option(help="shorten the access to this, in seconds")] = None,
    resource: Annotated[list[str] | None, typer.Option(help="approve only these resources; repeat")] = None,
    action: Annotated[list[str] | None, typer.Option(help="approve only these actions; repeat")] = None,
    uses: Annotated[int | None, typer.Option(help="let the access be used at most so often")] = None,
    version: Version = None,
    plain: Plain = False,
) -> None:
    """Approve a request, or part of it.

    A terminal cannot sign with a passkey: if the policy requires it, approve in the browser.
    """
    body = {
        "comment": comment,
        "access_window": seconds,
        "resources": resource or None,
        "actions": action or None,
        "max_uses": uses,
    }
    _act("approve", request, body, version, plain=plain)


def _acting(action: str, help_: str) -> None:
    @app.command(action, help=help_)
    def act(request: Id, comment: Why = None, version: Version = None, plain: Plain = False) -> None:
        _act(action, request, {"comment": comment}, version, plain=plain)


for _action, _help in (
    ("endorse", "Endorse a request, so that the customer is asked."),
    ("deny", "Deny a request."),
    ("cancel", "Cancel your request."),
    ("complete", "End your access early."),
    ("revoke", "Revoke access at once."),
):
    _acting(_action, _help)


def _request_input(
    tenant: str,
    service: str,
    resources: list[str],
    actions: list[str] | None,
    reason: str,
    justification: str,
    case: str | None,
    seconds: int,
    engineer: UUID | None,
) -> dict[str, Any]:
    return {
        "tenant": tenant,
        "service": service,
        "resources": resources,
        "actions": actions or ["read"],
        "reason_code": reason,
        "justification": justification,
        "case_ref": case,
        "access_window": seconds,
        "engineer": engineer and str(engineer),
    }


def _act(action: str, request: UUID, body: dict[str, Any], version: int | None, *, plain: bool) -> None:
    headers = {} if version is None else {"if-match": f'"{version}"'}
    _show(call("POST", at("requests", request, action), body=body, headers=headers), plain=plain)


def _read(request: UUID, part: str, show: Callable[[Any], None], *, plain: bool) -> None:
    found = call("GET", at("requests", request, part))
    if plain:
        as_json(found)
    else:
        show(found)


def _talk(item: dict[str, Any], *, plain: bool) -> None:
    if plain:
        as_json(item)
    else:
        request_table.show_questions([item])


def _show(item: dict[str, Any], *, plain: bool) -> None:
    if plain:
        as_json(item)
    else:
        request_table.show_one(item)
