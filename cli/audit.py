"""Commands of the audit log that call the API."""

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer

from cli import terminal
from cli.client import at, call, download, stop, warn
from cli.inputs import identifier
from cli.request_ids import RequestId, request_id
from cli.route_command import (
    PAGE,
    CommandParameter,
    IdField,
    RouteCommand,
    TableOf,
    Values,
    moment_of,
    option,
    optional,
    taking,
    words_of,
)
from cli.terminal import Facts, Listing, Output, OutputFormat, Part
from cli.values import Instant, Phrase, Word, moment, phrase, words

app = typer.Typer()

Tenant = Annotated[str | None, typer.Option(help="the customer whose log it is; the vendor's own log if left out")]
Target = Annotated[Path | None, typer.Option("--file", "-f", help="a new file; printed if left out")]
ABOUT = typer.Option("--request", parser=identifier, metavar="REQUEST", help="about which request")
FILTERS = (
    CommandParameter("tenant", Tenant, None),
    optional("person", "--person", "who did it, by id", UUID),
    optional("action", "--action", "such as approve"),
    CommandParameter("request", Annotated[str | None, ABOUT], None, lambda given, _: request_id(given)),
    optional("service", "--service", "such as exchange-online"),
    optional("after", "--after", "from when on, such as 2026-01-31T10:00Z"),
    optional("before", "--before", "until when"),
    optional("text", "--text", "in comments and justifications"),
)


class ExportFormat(StrEnum):
    NDJSON = "ndjson"
    CSV = "csv"


@dataclass(frozen=True)
class EventTable(TableOf):
    """Warns of events that differ from what was sealed."""

    def show(self, output: OutputFormat, answer: Values, given: Values) -> None:
        super().show(output, answer, given)
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
            "Request": IdField("request_id"),
            "Number": lambda one: one["number"] if one["sealed"] else "not sealed yet",
            "Comment": lambda one: one["personal"].get("comment"),
        }
    ),
    "Search the audit log, newest events first.",
)
app.command("list", help=SEARCH.help)(SEARCH.function())


def export(*, file: Path | None, request: str | None, **wanted: object) -> None:
    """Export sealed events, with proofs.

    Without a filter, the file also proves that nothing is missing: see `lockbox audit verify`.
    """
    about = {"request": request_id(request)} if request else {}
    with download(at("audit", "export"), wanted | about) as pieces:
        _write(pieces, file)


app.command()(
    taking(
        (
            *FILTERS,
            optional("since", "--since", "an earlier size of the log; proves that it only grew", list[int]),
            option(
                "format",
                "--format",
                "with proofs, or as a table without them",
                ExportFormat,
                default=ExportFormat.NDJSON,
            ),
            CommandParameter("file", Target, None),
        ),
        export,
    )
)


@app.command()
def checkpoint(
    tenant: Tenant = None,
    file: Target = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Print the newest checkpoint of the log.

    Keep it where the vendor cannot change it.
    """
    found = call("GET", at("audit", "checkpoint"), params={"tenant": tenant})
    if output is OutputFormat.TABLE:
        _write([found["note"].encode()], file)
    else:
        terminal.show(output, found, Facts(found))


@app.command()
def report(
    request: RequestId,
    html: Annotated[bool, typer.Option("--html", help="a self-contained HTML page")] = False,
    file: Target = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Report on one request.

    Who asked, who decided, when access was open, and what was done.
    """
    found = call("GET", at("audit", "report"), params={"request": request_id(request)})
    if html:
        _write([found["page"].encode()], file)
    else:
        terminal.show(output, found, *_report(found))


def _write(pieces: Iterable[bytes], target: Path | None) -> None:
    if target is None:
        for piece in pieces:
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return
    try:
        with target.open("xb") as file:
            for piece in pieces:
                file.write(piece)
    except OSError as error:
        raise stop(f"{target} cannot be written: {error.strerror}") from None
    warn(f"Written to {target}.")


def _report(found: Mapping[str, Any]) -> Iterator[Part]:
    window = phrase(moment(found["opened_at"]), " to ", moment(found["closed_at"]) or "now")
    yield Facts(
        {
            "Request": found["request_id"],
            "Access to": f"{found['service']} at {found['tenant']}",
            "Resources": found["resources"],
            "Actions": found["actions"],
            **{f"Granted {name}": kept for name in ("resources", "actions") if (kept := found[f"granted_{name}"])},
            "Reason": Word(found["reason_code"]),
            "Case": found["case_ref"],
            **({"Ticket system": found["case_system"]} if found["case_system"] else {}),
            **({"Page of the case": found["case_url"]} if found["case_url"] else {}),
            "Justification": found["justification"],
            "Open": window if found["opened_at"] else "never",
            "Ended": found["ending"],
            "Activity": found["use"],
            "Not in the audit log": found["lost"] and f"moves {', '.join(map(str, found['lost']))}",
            "Not as sealed": found["altered"],
        }
    )
    yield ""
    steps = ((moment(one["at"]), _who(one), one["deed"], one["comment"], one["number"]) for one in found["steps"])
    yield Listing.of(("Time", "Who", "Action", "Comment", "Number"), steps)
    if found["uses"]:
        yield ""
        uses = (
            (_span(one), one["method"], one["resource"] or "erased", one["count"], one["outcome"], one["as_asked"])
            for one in found["uses"]
        )
        yield Listing.of(("Time", "Activity", "Resource", "Times", "Outcome", "As requested"), uses)


def _who(step: Mapping[str, Any]) -> str:
    others = f" for {', '.join(step['principals'])}" if step["principals"] else ""
    return step["who"] if step["role"] == "clock" else f"{step['who']} ({words(step['role'])}{others})"


def _span(use: Mapping[str, Any]) -> Instant | Phrase:
    first, last = Instant(use["first_at"]), Instant(use["last_at"])
    return first if first == last else phrase(first, " to ", last)
