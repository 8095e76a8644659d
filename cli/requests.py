"""Commands of requests: submit, preview, list, show, decide and end them."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any
from uuid import UUID

import typer

from cli import preview_table, request_table, request_watch, terminal
from cli.client import at, call
from cli.inputs import duration_option, id_argument, instant, parameters, seconds, the_one
from cli.request_ids import RequestId, RequestIds, request_id
from cli.route_command import ids_at
from cli.terminal import Cursor, Limit, Output, OutputFormat, Part
from connectors.scram import new_password, verifier_of
from lockbox.requests.lifecycle import AfterReviewFinding

app = typer.Typer(no_args_is_help=True, help="Access requests.")
app.add_typer(request_watch.app)

WAITING = frozenset({"opening", "open_failed"})
AGAIN_SECONDS = 0.5
WAIT_HELP = "how long to wait until it is good, at most 5m; 30s if left out"

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
Window = Annotated[int, duration_option("--window", "how long access is needed, such as 15m or 8h")]
Actions = Annotated[list[str] | None, typer.Option("--action", help="read, change, export; repeat")]
Reason = Annotated[str, typer.Option(help="support_case, vendor_alert, …")]
Uses = Annotated[int | None, typer.Option(help="how often access can be used; left out: as the customer allows")]
Start = Annotated[
    str | None,
    typer.Option(
        parser=instant,
        metavar="TIME",
        help="when access is to begin, such as 2026-12-01T08:00; left out: when it is approved",
    ),
]
Case = Annotated[str | None, typer.Option(help="the case number")]
CaseSystem = Annotated[str | None, typer.Option(help="the ticket system of the case, such as servicenow")]
CaseUrl = Annotated[str | None, typer.Option(help="the page of the case")]
DuplicateReason = Annotated[
    str | None, typer.Option(help="why another request, where one is open for the same case and resource")
]
BreakGlass = Annotated[
    bool,
    typer.Option(
        "--break-glass", help="an emergency: a manager opens it without the customer, where the customer allows that"
    ),
]
Parameters = Annotated[
    list[str] | None,
    typer.Option("--context", metavar="NAME=VALUE", help="a parameter that the service declares; repeat"),
]
Severity = Annotated[str | None, typer.Option(help="S1, the most severe, to S4: people are asked earlier")]
Engineer = Annotated[UUID | None, typer.Option(help="the engineer's id, if a service account submits")]


@app.command()
def submit(
    tenant: Tenant,
    service: Service,
    resource: Resources,
    justification: Justification,
    window: Window,
    action: Actions = None,
    reason: Reason = "support_case",
    case: Case = None,
    case_system: CaseSystem = None,
    case_url: CaseUrl = None,
    duplicate_reason: DuplicateReason = None,
    engineer: Engineer = None,
    uses: Uses = None,
    not_before: Start = None,
    break_glass: BreakGlass = False,
    context: Parameters = None,
    severity: Severity = None,
    key: Annotated[str | None, typer.Option(help="Idempotency-Key: if sent twice, it is submitted once")] = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Submit a request."""
    body = _request_input(tenant, service, resource, action, reason, justification, case, window, engineer) | {
        "max_uses": uses,
        "case_system": case_system,
        "case_url": case_url,
        "duplicate_reason": duplicate_reason,
        "not_before": not_before,
        "break_glass": break_glass,
        "context": parameters(context or ()),
        "severity": severity,
    }
    submitted = call("POST", at("requests"), body=body, headers={"idempotency-key": key} if key else None)
    terminal.show(output, submitted, *_submitted(submitted))


@app.command()
def again(
    request: RequestId,
    key: Annotated[str | None, typer.Option(help="Idempotency-Key: if sent twice, it is submitted once")] = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Submit a timed-out request again."""
    submitted = call(
        "POST", at("requests", request_id(request), "ask-again"), headers={"idempotency-key": key} if key else None
    )
    terminal.show(output, submitted, *_submitted(submitted))


@app.command()
def extend(
    request: RequestId,
    more: Annotated[
        int,
        typer.Argument(parser=seconds, metavar="DURATION", help="how much longer, such as 2h", show_default=False),
    ],
    justification: Annotated[str | None, typer.Option(help="why; that of the request if left out")] = None,
    key: Annotated[str | None, typer.Option(help="Idempotency-Key: if sent twice, it is submitted once")] = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Request more time for your open access.

    It is a request of its own, from the end of that access on; the same people are asked.
    """
    body = {"access_window": more, "justification": justification}
    headers = {"idempotency-key": key} if key else None
    submitted = call("POST", at("requests", request_id(request), "extend"), body=body, headers=headers)
    terminal.show(output, submitted, *_submitted(submitted))


@app.command()
def preview(
    tenant: Tenant,
    service: Service,
    resource: Resources,
    justification: Justification,
    window: Window,
    action: Actions = None,
    reason: Reason = "support_case",
    case: Case = None,
    case_system: CaseSystem = None,
    case_url: CaseUrl = None,
    duplicate_reason: DuplicateReason = None,
    engineer: Engineer = None,
    uses: Uses = None,
    not_before: Start = None,
    break_glass: BreakGlass = False,
    context: Parameters = None,
    severity: Severity = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Preview a request.

    Nothing is submitted and nobody is notified. Ends with 1 if the request would be rejected.
    """
    body = _request_input(tenant, service, resource, action, reason, justification, case, window, engineer) | {
        "max_uses": uses,
        "case_system": case_system,
        "case_url": case_url,
        "duplicate_reason": duplicate_reason,
        "not_before": not_before,
        "break_glass": break_glass,
        "context": parameters(context or ()),
        "severity": severity,
    }
    found = call("POST", at("requests", "preview"), body=body)
    terminal.show(output, found, preview_table.preview(found))
    if not found["can_be_submitted"]:
        raise typer.Exit(1)


@app.command("list")
def list_requests(
    state: Annotated[str | None, typer.Option(help="pending, active, …")] = None,
    service: Annotated[str | None, typer.Option(help="such as exchange-online")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """List the requests that you may see, newest first."""
    asked = {"state": state, "service": service, "limit": limit, "cursor": cursor}
    page = call("GET", at("requests"), params=asked)
    listing = request_table.requests(page["items"], in_file=output is OutputFormat.CSV)
    terminal.show(output, page, listing)
    terminal.more(output, page)


@app.command()
def show(request: RequestId, output: Output = OutputFormat.TABLE) -> None:
    """Show one request."""
    _show(call("GET", at("requests", request_id(request))), output)


@app.command()
def events(request: RequestId, output: Output = OutputFormat.TABLE) -> None:
    """Show the timeline of a request."""
    _read(request, "events", lambda found: [request_table.events(found["items"])], output)


@app.command()
def notifications(request: RequestId, output: Output = OutputFormat.TABLE) -> None:
    """Show who was notified of a request, on your own side."""
    _read(request, "notifications", request_table.notifications, output)


@app.command()
def activity(request: RequestId, output: Output = OutputFormat.TABLE) -> None:
    """Show the activity during access."""
    _read(request, "activity", lambda found: [request_table.activity(found["items"])], output)


@app.command()
def connections(request: RequestId, output: Output = OutputFormat.TABLE) -> None:
    """Show what is, or was, opened at targets."""
    _read(request, "connections", lambda found: [request_table.connections(found["items"])], output)


@app.command()
def credential(
    request: RequestId,
    wait: Annotated[int, duration_option("--wait", WAIT_HELP, partial(seconds, most=300), show_default=False)] = 30,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Get a login at the target while your access lasts.

    The password is made here, and printed once: only a verifier of it is sent. An earlier login is closed.
    """
    whole, password = request_id(request), new_password()
    found = call("POST", at("requests", whole, "credential"), body={"verifier": verifier_of(password)})
    until = time.monotonic() + wait
    while found["state"] in WAITING and time.monotonic() < until:
        time.sleep(AGAIN_SECONDS)
        listed = call("GET", at("requests", whole, "connections"))["items"]
        found = next((one for one in listed if one["id"] == found["id"]), found)
    terminal.show(output, found | {"password": password}, *request_table.credential(found, password))
    if found["state"] != "open":
        raise typer.Exit(1)


@app.command()
def questions(request: RequestId, output: Output = OutputFormat.TABLE) -> None:
    """Show the questions and answers about a request."""
    _read(request, "questions", lambda found: [request_table.questions(found["items"])], output)


@app.command()
def ask(request: RequestId, text: Words, output: Output = OutputFormat.TABLE) -> None:
    """Ask the engineer a question before you decide."""
    _talk(call("POST", at("requests", request_id(request), "questions"), body={"text": text}), output)


@app.command()
def answer(
    request: RequestId,
    question: Annotated[str, id_argument("QUESTION", "the question's id")],
    text: Words,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Answer a question about your request."""
    path = at("requests", request_id(request), "questions")
    asked = the_one(question, ids_at(path))
    _talk(call("POST", f"{path}/{asked}/answer", body={"text": text}), output)


@app.command()
def approve(
    request: RequestId,
    comment: Why = None,
    window: Annotated[int | None, duration_option("--window", "shorten the access to this, such as 15m")] = None,
    resource: Annotated[list[str] | None, typer.Option(help="approve only these resources; repeat")] = None,
    action: Annotated[list[str] | None, typer.Option(help="approve only these actions; repeat")] = None,
    uses: Annotated[int | None, typer.Option(help="let the access be used at most so often")] = None,
    opens_at: Annotated[
        str | None, typer.Option(parser=instant, metavar="TIME", help="have it begin later than was asked")
    ] = None,
    version: Version = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Approve a request, or part of it.

    A terminal cannot sign with a passkey: if the policy requires it, approve in the browser.
    """
    body = {
        "comment": comment,
        "access_window": window,
        "resources": resource or None,
        "actions": action or None,
        "max_uses": uses,
        "opens_at": opens_at,
    }
    _act("approve", request, body, version, output)


def _deciding(action: str, help_: str) -> None:
    @app.command(action, help=help_)
    def decide(
        requests: RequestIds, comment: Why = None, version: Version = None, output: Output = OutputFormat.TABLE
    ) -> None:
        if len(requests) == 1:
            _act(action, requests[0], {"comment": comment}, version, output)
            return
        if version is not None:
            raise typer.BadParameter("name one request alone: each has its own version", param_hint="--version")
        ids = list(dict.fromkeys(map(request_id, requests)))
        body = {"action": action, "comment": comment, "requests": [{"id": one} for one in ids]}
        found = call("POST", at("requests", "decisions"), body=body)
        terminal.show(output, found, request_table.decision_results(found["items"]))
        if any(one["problem"] for one in found["items"]):
            raise typer.Exit(1)


@app.command("close-case")
def close_case(
    case_system: Annotated[str, typer.Argument(metavar="SYSTEM", help="such as servicenow", show_default=False)],
    case: Annotated[str, typer.Argument(metavar="CASE", help="the case number", show_default=False)],
    output: Output = OutputFormat.TABLE,
) -> None:
    """Say that a case is closed. Its pending requests are cancelled, its access ends.

    For service accounts: LOCKBOX_TOKEN has the scope case:close, and is bound to tenants.
    """
    found = call("POST", at("cases", case_system, case, "closed"))
    terminal.show(output, found, *request_table.closed_case(found))


def _acting(action: str, help_: str) -> None:
    @app.command(action, help=help_)
    def act(
        request: RequestId, comment: Why = None, version: Version = None, output: Output = OutputFormat.TABLE
    ) -> None:
        _act(action, request, {"comment": comment}, version, output)


for _action, _help in (
    ("endorse", "Endorse requests: several at once, each by itself."),
    ("deny", "Deny requests, each by itself."),
):
    _deciding(_action, _help)
for _action, _help in (
    ("cancel", "Cancel your request."),
    ("complete", "End your access early."),
    ("revoke", "Revoke access at once."),
    ("break-glass", "Open a request by break-glass, and say why."),
):
    _acting(_action, _help)


@app.command()
def finding(
    request: RequestId,
    found: Annotated[
        AfterReviewFinding, typer.Argument(help="whether access by break-glass was justified", show_default=False)
    ],
    comment: Annotated[str, typer.Option(help="why; kept in the audit log")],
    output: Output = OutputFormat.TABLE,
) -> None:
    """Say whether access by break-glass was justified."""
    body = {"finding": found.value, "comment": comment}
    item = call("POST", at("requests", request_id(request), "finding"), body=body)
    terminal.show(output, item, request_table.after_review(item))


def _request_input(
    tenant: str,
    service: str,
    resources: list[str],
    actions: list[str] | None,
    reason: str,
    justification: str,
    case: str | None,
    window: int,
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
        "access_window": window,
        "engineer": engineer and str(engineer),
    }


def _act(action: str, request: str, body: dict[str, Any], version: int | None, output: OutputFormat) -> None:
    headers = {} if version is None else {"if-match": f'"{version}"'}
    _show(call("POST", at("requests", request_id(request), action), body=body, headers=headers), output)


def _read(request: str, part: str, parts: Callable[[Any], Sequence[Part]], output: OutputFormat) -> None:
    found = call("GET", at("requests", request_id(request), part))
    terminal.show(output, found, *parts(found))


def _talk(item: dict[str, Any], output: OutputFormat) -> None:
    terminal.show(output, item, request_table.questions([item]))


def _show(item: dict[str, Any], output: OutputFormat) -> None:
    terminal.show(output, item, request_table.request(item))


def _submitted(item: dict[str, Any]) -> Sequence[Part]:
    return f"Submitted; {item['asked']} people are asked.", request_table.request(item)
