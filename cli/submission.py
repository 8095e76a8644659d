"""Commands that submit requests: new ones, those that timed out, extensions, and previews of them."""

from collections.abc import Sequence
from typing import Annotated, Any
from uuid import UUID

import typer

from cli import preview_table, request_table, terminal
from cli.client import at, call
from cli.inputs import duration_option, instant, parameters, seconds
from cli.request_ids import RequestId, request_id
from cli.terminal import Output, OutputFormat, Part

app = typer.Typer()

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


def _submitted(item: dict[str, Any]) -> Sequence[Part]:
    return f"Submitted; {item['asked']} people are asked.", request_table.request(item)
