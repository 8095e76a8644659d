"""Commands that submit or preview requests."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any
from uuid import UUID

import typer

from cli import preview_table, request_table, terminal
from cli.client import at, call, headers
from cli.inputs import duration_option, instant, parameters, seconds
from cli.request_ids import RequestId, request_id
from cli.route_command import CommandParameter, option, optional, taking
from cli.terminal import Output, OutputFormat, Part

app = typer.Typer()

Key = Annotated[str | None, typer.Option(help="Idempotency-Key: if sent twice, it is submitted once")]
Start = typer.Option(
    "--not-before",
    parser=instant,
    metavar="TIME",
    help="when access is to begin, such as 2026-12-01T08:00; left out: when it is approved",
)
BreakGlass = typer.Option(
    "--break-glass", help="an emergency: a manager opens it without the customer, where the customer allows that"
)
Parameters = typer.Option("--context", metavar="NAME=VALUE", help="a parameter that the service declares; repeat")
Window = duration_option("--window", "how long access is needed, such as 15m or 8h")
REQUEST = (
    option("tenant", "--tenant", "the customer"),
    option("service", "--service", "such as exchange-online"),
    option("resources", "--resource", "kind:id, such as mailbox:anna@contoso.example; repeat", list[str]),
    option("justification", "--justification", "why access is needed"),
    CommandParameter("access_window", Annotated[int, Window]),
    option("actions", "--action", "read, change, export; repeat", list[str] | None, default=None),
    option("reason_code", "--reason", "support_case, vendor_alert, …", default="support_case"),
    optional("case_ref", "--case", "the case number"),
    optional("case_system", "--case-system", "the ticket system of the case, such as servicenow"),
    optional("case_url", "--case-url", "the page of the case"),
    optional(
        "duplicate_reason",
        "--duplicate-reason",
        "why another request, where one is open for the same case and resource",
    ),
    optional("engineer", "--engineer", "the engineer's id, if a service account submits", UUID),
    optional("max_uses", "--uses", "how often access can be used; left out: as the customer allows", int),
    CommandParameter("not_before", Annotated[str | None, Start], None),
    CommandParameter("break_glass", Annotated[bool, BreakGlass], default=False),
    CommandParameter("context", Annotated[list[str] | None, Parameters], None),
    optional("severity", "--severity", "S1, the most severe, to S4: people are asked earlier"),
)
"""The options of a new request, by the names of the API's fields."""
KEY = CommandParameter("key", Key, None)
OUTPUT = CommandParameter("output", Output, OutputFormat.TABLE)


def _submit(*, key: str | None, output: OutputFormat, **given: Any) -> None:  # noqa: ANN401 - a request's fields
    """Submit a request."""
    submitted = call("POST", at("requests"), body=_body(given), headers=headers(key=key))
    terminal.show(output, submitted, *_submitted(submitted))


def _preview(*, output: OutputFormat, **given: Any) -> None:  # noqa: ANN401 - a request's fields
    """Preview a request.

    Nothing is submitted and no one is notified. Ends with 1 if the request would be rejected.
    """
    found = call("POST", at("requests", "preview"), body=_body(given))
    terminal.show(output, found, preview_table.preview(found))
    if not found["can_be_submitted"]:
        raise typer.Exit(1)


app.command("submit")(taking([*REQUEST, KEY, OUTPUT], _submit))


@app.command()
def again(request: RequestId, key: Key = None, output: Output = OutputFormat.TABLE) -> None:
    """Submit a timed-out request again."""
    submitted = call("POST", at("requests", request_id(request), "ask-again"), headers=headers(key=key))
    terminal.show(output, submitted, *_submitted(submitted))


@app.command()
def extend(
    request: RequestId,
    more: Annotated[
        int,
        typer.Argument(parser=seconds, metavar="DURATION", help="how much longer, such as 2h", show_default=False),
    ],
    justification: Annotated[str | None, typer.Option(help="why; that of the request if left out")] = None,
    key: Key = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Request more time for your open access.

    The extension is a separate request for the time after that access ends; the same people are asked.
    """
    body = {"access_window": more, "justification": justification}
    submitted = call("POST", at("requests", request_id(request), "extend"), body=body, headers=headers(key=key))
    terminal.show(output, submitted, *_submitted(submitted))


app.command("preview")(taking([*REQUEST, OUTPUT], _preview))


def _body(given: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **given,
        "actions": given["actions"] or ["read"],
        "engineer": given["engineer"] and str(given["engineer"]),
        "context": parameters(given["context"] or ()),
    }


def _submitted(item: dict[str, Any]) -> Sequence[Part]:
    people = "1 person is" if item["asked"] == 1 else f"{item['asked']} people are"
    return f"Submitted; {people} asked.", request_table.request(item)
