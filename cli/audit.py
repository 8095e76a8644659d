"""Commands of the audit log that ask the API: search, export, checkpoint, the report on a request."""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer

from cli import terminal
from cli.client import at, call, download, stop, warn
from cli.route_command import (
    PAGE,
    CommandParameter,
    RouteCommand,
    TableOf,
    Values,
    moment_of,
    option,
    optional,
    taking,
    words_of,
)
from cli.terminal import Plain, as_json, moment, say, words

app = typer.Typer()

Tenant = Annotated[str | None, typer.Option(help="the customer whose log it is; the vendor's own log if left out")]
Target = Annotated[Path | None, typer.Option("--output", "-o", help="a new file; printed if left out")]
FILTERS = (
    CommandParameter("tenant", Tenant, None),
    optional("person", "--person", "who did it, by id", UUID),
    optional("action", "--action", "such as approve"),
    optional("request", "--request", "about which request", UUID),
    optional("service", "--service", "such as exchange-online"),
    optional("after", "--after", "from when on, such as 2026-01-31T10:00Z"),
    optional("before", "--before", "until when"),
    optional("text", "--text", "in comments and justifications"),
)


@dataclass(frozen=True)
class EventTable(TableOf):
    """Shows events, and warns of those that are not what was sealed."""

    def show(self, answer: Values, given: Values) -> None:
        """Print it."""
        super().show(answer, given)
        if altered := [one for one in answer["items"] if one["altered"]]:
            warn(f"Do not rely on this list: {len(altered)} events differ from what was sealed. Verify an export.")


SEARCH = RouteCommand(
    "GET /v1/audit",
    (*FILTERS, *PAGE),
    EventTable(
        {
            "Time": moment_of("at"),
            "Action": words_of("action"),
            "Who": lambda one: one["actor"]["name"] if one["actor"] else words(one["role"]),
            "Request": "request_id",
            "Number": lambda one: one["number"] if one["sealed"] else "not sealed yet",
            "Comment": lambda one: one["personal"].get("comment"),
        }
    ),
    "Search the audit log, newest events first.",
)
app.command("list", help=SEARCH.help)(SEARCH.function())


def export(*, csv: bool, output: Path | None, **wanted: object) -> None:
    """Export sealed events, with proofs.

    Without a filter, the file also proves that nothing is missing: see `lockbox audit verify`.
    """
    with download(at("audit", "export"), wanted | {"format": "csv" if csv else "ndjson"}) as pieces:
        _write(pieces, output)


app.command()(
    taking(
        (
            *FILTERS,
            optional("since", "--since", "an earlier size of the log; proves that it only grew", list[int]),
            option("csv", "--csv", "a CSV table, without proofs", bool, default=False),
            CommandParameter("output", Target, None),
        ),
        export,
    )
)


@app.command()
def checkpoint(
    tenant: Tenant = None,
    output: Target = None,
    plain: Plain = False,
) -> None:
    """Print the newest checkpoint of the log.

    Keep it where the vendor cannot change it.
    """
    found = call("GET", at("audit", "checkpoint"), params={"tenant": tenant})
    if plain:
        as_json(found)
    else:
        _write([found["note"].encode()], output)


@app.command()
def report(
    request: Annotated[UUID, typer.Argument(help="the request's id", show_default=False)],
    html: Annotated[bool, typer.Option("--html", help="a self-contained HTML page")] = False,
    output: Target = None,
    plain: Plain = False,
) -> None:
    """Report on one request.

    Who asked, who decided, when access was open, and what was done.
    """
    found = call("GET", at("audit", "report"), params={"request": str(request)})
    if plain:
        as_json(found)
    elif html:
        _write([found["page"].encode()], output)
    else:
        _show(found)


def _write(pieces: Iterable[bytes], output: Path | None) -> None:
    """Print, or write into a new file; end with a line where that cannot be."""
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
            "Justification": found["justification"],
            "Open": window if found["opened_at"] else "never",
            "Ended": found["ending"],
            "Activity": found["use"],
            "Not in the audit log": found["lost"] and f"moves {', '.join(map(str, found['lost']))}",
            "Not as sealed": found["altered"],
        }
    )
    say("")
    steps = ((moment(one["at"]), _who(one), one["deed"], one["comment"], one["number"]) for one in found["steps"])
    terminal.table(("Time", "Who", "Action", "Comment", "Number"), steps)
    if found["uses"]:
        say("")
        uses = (
            (_span(one), one["method"], one["resource"] or "erased", one["count"], one["outcome"], one["as_asked"])
            for one in found["uses"]
        )
        terminal.table(("Time", "Activity", "Resource", "Times", "Outcome", "As requested"), uses)


def _who(step: Mapping[str, Any]) -> str:
    others = f" for {', '.join(step['principals'])}" if step["principals"] else ""
    return step["who"] if step["role"] == "clock" else f"{step['who']} ({words(step['role'])}{others})"


def _span(use: Mapping[str, Any]) -> str:
    first, last = moment(use["first_at"]), moment(use["last_at"])
    return first if first == last else f"{first} to {last}"
