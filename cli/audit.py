"""Commands of the trail that ask the API: search, export, checkpoint, the report on a request."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer

from cli import terminal
from cli.client import at, call, download, stop, warn
from cli.terminal import Cursor, Limit, Plain, as_json, moment, say, words

app = typer.Typer()

Tenant = Annotated[str | None, typer.Option(help="whose log; the vendor's auditors read their own without")]
Person = Annotated[UUID | None, typer.Option(help="who did it, by id")]
Action = Annotated[str | None, typer.Option(help="such as approve")]
Request = Annotated[UUID | None, typer.Option(help="about which request")]
Service = Annotated[str | None, typer.Option(help="such as exchange-online")]
After = Annotated[str | None, typer.Option(help="from when on, such as 2026-01-31T10:00Z")]
Before = Annotated[str | None, typer.Option(help="until when")]
Words = Annotated[str | None, typer.Option("--text", help="in comments and justifications")]
Target = Annotated[Path | None, typer.Option("--output", "-o", help="a file that is not there yet; else printed")]


@app.command("list")
def search(
    tenant: Tenant = None,
    person: Person = None,
    action: Action = None,
    request: Request = None,
    service: Service = None,
    after: After = None,
    before: Before = None,
    text: Words = None,
    limit: Limit = 50,
    cursor: Cursor = None,
    plain: Plain = False,
) -> None:
    """Search the trail, the newest events first."""
    wanted = _wanted(tenant, person, action, request, service, after, before, text)
    page = call("GET", at("audit"), params=wanted | {"limit": limit, "cursor": cursor})
    if plain:
        as_json(page)
        return
    rows = (
        (
            moment(one["at"]),
            words(one["action"]),
            one["actor"]["name"] if one["actor"] else words(one["role"]),
            one["request_id"],
            one["number"] if one["sealed"] else "not sealed yet",
            one["personal"].get("comment"),
        )
        for one in page["items"]
    )
    terminal.table(("When", "What", "Who", "Request", "Number", "Comment"), rows)
    if altered := [one for one in page["items"] if one["altered"]]:
        warn(f"Do not rely on this: {len(altered)} of these events are not what was sealed; verify an export.")
    terminal.more(page)


@app.command()
def export(
    tenant: Tenant = None,
    person: Person = None,
    action: Action = None,
    request: Request = None,
    service: Service = None,
    after: After = None,
    before: Before = None,
    text: Words = None,
    since: Annotated[list[int] | None, typer.Option(help="a size that the log had; proves it only grew")] = None,
    csv: Annotated[bool, typer.Option("--csv", help="a table for people; nothing is proven")] = False,
    output: Target = None,
) -> None:
    """Export what is sealed, with proofs.

    Without a filter the file shows that nothing is missing, too: see `lockbox audit verify`.
    """
    wanted = _wanted(tenant, person, action, request, service, after, before, text)
    form = {"format": "csv" if csv else "ndjson", "since": since}
    with download(at("audit", "export"), wanted | form) as pieces:
        if output is None:
            for piece in pieces:
                sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
            return
        try:
            with output.open("xb") as file:
                for piece in pieces:
                    file.write(piece)
        except OSError as error:
            raise stop(f"{output} cannot be written: {error.strerror}") from None
    warn(f"Written to {output}.")


@app.command()
def checkpoint(
    tenant: Tenant = None,
    output: Target = None,
    plain: Plain = False,
) -> None:
    """Print the newest checkpoint of the log.

    Keep it where nobody here can change it.
    """
    found = call("GET", at("audit", "checkpoint"), params={"tenant": tenant})
    if plain:
        as_json(found)
    else:
        _written(found["note"], output)


@app.command()
def report(
    request: Annotated[UUID, typer.Argument(help="the request's id", show_default=False)],
    html: Annotated[bool, typer.Option("--html", help="a page of HTML that needs nothing else")] = False,
    output: Target = None,
    plain: Plain = False,
) -> None:
    """Report on one request.

    Who asked, who decided, when it was open, and what was done inside.
    """
    found = call("GET", at("audit", "report"), params={"request": str(request)})
    if plain:
        as_json(found)
    elif html:
        _written(found["page"], output)
    else:
        _show(found)


def _wanted(
    tenant: str | None,
    person: UUID | None,
    action: str | None,
    request: UUID | None,
    service: str | None,
    after: str | None,
    before: str | None,
    text: str | None,
) -> dict[str, Any]:
    return {
        "tenant": tenant,
        "person": person and str(person),
        "action": action,
        "request": request and str(request),
        "service": service,
        "after": after,
        "before": before,
        "text": text,
    }


def _written(text: str, output: Path | None) -> None:
    if output is None:
        print(text, end="")
        return
    try:
        with output.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise stop(f"{output} cannot be written: {error.strerror}") from None
    warn(f"Written to {output}.")


def _show(found: Mapping[str, Any]) -> None:
    window = f"{moment(found['opened_at'])} to {moment(found['closed_at']) if found['closed_at'] else 'now'}"
    terminal.facts(
        {
            "Request": found["request_id"],
            "Access to": f"{found['service']} at {found['tenant']}",
            "Resources": found["resources"],
            "Actions": found["actions"],
            **{f"Granted {name}": kept for name in ("resources", "actions") if (kept := found[f"granted_{name}"])},
            "Reason": words(found["reason_code"]),
            "Case": found["case_ref"],
            "Because": found["justification"],
            "Open": window if found["opened_at"] else "never",
            "Ended": found["ending"],
            "Use": found["use"],
            "Not in the trail": found["lost"] and f"moves {', '.join(map(str, found['lost']))}",
            "Not as sealed": found["altered"],
        }
    )
    say("")
    steps = ((moment(one["at"]), _who(one), one["deed"], one["comment"], one["number"]) for one in found["steps"])
    terminal.table(("When", "Who", "What", "Comment", "Number"), steps)
    if found["uses"]:
        say("")
        uses = (
            (_span(one), one["method"], one["resource"] or "erased", one["count"], one["outcome"], one["as_asked"])
            for one in found["uses"]
        )
        terminal.table(("When", "Done inside", "Resource", "Times", "Outcome", "As asked"), uses)


def _who(step: Mapping[str, Any]) -> str:
    others = f" for {', '.join(step['stands_for'])}" if step["stands_for"] else ""
    return step["who"] if step["role"] == "clock" else f"{step['who']} ({words(step['role'])}{others})"


def _span(use: Mapping[str, Any]) -> str:
    first, last = moment(use["first_at"]), moment(use["last_at"])
    return first if first == last else f"{first} to {last}"
