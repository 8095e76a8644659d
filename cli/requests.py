"""Commands of requests."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any

import typer

from cli import request_table, request_watch, submission, terminal
from cli.client import at, call, headers
from cli.inputs import duration_option, id_argument, instant, seconds, the_one
from cli.request_ids import RequestId, RequestIds, request_id
from cli.route_command import IdField, RouteCommand, TableOf, ids_at, moment_of
from cli.terminal import Cursor, Limit, Output, OutputFormat, Part
from connectors.scram import new_password, verifier_of
from lockbox.requests.lifecycle import AfterReviewFinding

app = typer.Typer(no_args_is_help=True, help="Access requests.")
# Registered in this way, these commands come first in the help; `add_typer` would put them after the others.
app.registered_commands += submission.app.registered_commands
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


@app.command("list")
def list_requests(
    state: Annotated[str | None, typer.Option(help="pending, active, …")] = None,
    service: Annotated[str | None, typer.Option(help="such as exchange-online")] = None,
    level: Annotated[str | None, typer.Option(help="read, change, export or admin")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """List the requests that you may see, newest first."""
    asked = {"state": state, "service": service, "level": level, "limit": limit, "cursor": cursor}
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
    """Mark a case as closed. Its pending requests are cancelled, its access ends.

    For service accounts: LOCKBOX_TOKEN has the scope case:close, and is bound to tenants.
    """
    path = at("cases", case_system, case, "closed")
    found = part = call("POST", path)
    while part["left"] and part["ended"]:
        part = call("POST", path)
        found = part | {"ended": [*found["ended"], *part["ended"]]}
    terminal.show(output, found, *request_table.closed_case(found))


def _acting(action: str, help_: str) -> None:
    @app.command(action, help=help_)
    def act(
        request: RequestId, comment: Why = None, version: Version = None, output: Output = OutputFormat.TABLE
    ) -> None:
        _act(action, request, {"comment": comment}, version, output)


for _action, _help in (
    ("endorse", "Endorse one or more requests."),
    ("deny", "Deny one or more requests."),
):
    _deciding(_action, _help)
for _action, _help in (
    ("cancel", "Cancel your request."),
    ("complete", "End your access early."),
    ("revoke", "Revoke access at once."),
    ("break-glass", "Open a request by break-glass, and say why."),
):
    _acting(_action, _help)


FINDINGS = RouteCommand(
    "GET /v1/findings",
    (),
    TableOf(
        {
            "Request": IdField("request_id"),
            "Customer": "tenant",
            "Service": "service",
            "Requester": "requester.name",
            "Opened": moment_of("opened_at"),
            "By": "opened_by",
            "Due": moment_of("due_at"),
            "Overdue": "is_overdue",
        }
    ),
    "List the findings about break-glass that you may give. An API token may give none.",
)
app.command("findings", help=FINDINGS.help)(FINDINGS.function())


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


def _act(action: str, request: str, body: dict[str, Any], version: int | None, output: OutputFormat) -> None:
    sent = {"body": body, "headers": headers(version=version)}
    _show(call("POST", at("requests", request_id(request), action), **sent), output)


def _read(request: str, part: str, parts: Callable[[Any], Sequence[Part]], output: OutputFormat) -> None:
    found = call("GET", at("requests", request_id(request), part))
    terminal.show(output, found, *parts(found))


def _talk(item: dict[str, Any], output: OutputFormat) -> None:
    terminal.show(output, item, request_table.questions([item]))


def _show(item: dict[str, Any], output: OutputFormat) -> None:
    terminal.show(output, item, request_table.request(item))
