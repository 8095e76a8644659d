"""Commands of the gate."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer

from catalogue.load import CatalogueRefused, read_catalogue
from catalogue.service_catalogue import Catalogue
from cli import gate_probe, values
from cli.client import at, call, chosen, stop
from cli.inputs import days, duration_option
from cli.route_command import (
    PAGE,
    TENANT,
    CommandParameter,
    FactsOf,
    Field,
    IdField,
    RouteCommand,
    Sentence,
    TableOf,
    argument,
    group,
    listed_id,
    moment_of,
    option,
)
from cli.terminal import Facts, Listing, Output, OutputFormat, show
from gate.call import SentHeaders
from gate.mapping import GateCall, MappingRefused, ServiceMapping

NAMES = ("service", "actions", "tenant_from", "paths")
COLUMNS = ("Service", "Actions", "Customer from", "Paths")
REPORT_COLUMNS = ("Reason", "Calls", "Path", "Customer", "Engineer", "First", "Last")
OTHERS = "all others"
LAST_HELP = "how far back to look, at most 30d; 30d if left out"
File = Annotated[
    Path | None, typer.Option("--catalogue", help="the file, if not LOCKBOX_CATALOGUE", show_default=False)
]


def _changed(definition: Mapping[str, Any] | None) -> str | None:
    if definition is None or definition["first"]:
        return None
    return f"{', '.join(one['part'] for one in definition['changes'])} since {values.moment(definition['since'])}"


TENANT_GATES = "/v1/tenants/{slug}/gates"
SERVICE = argument("service", "service", "the service's name in the catalogue", str)
OVERVIEW: Mapping[str, Field] = {
    "Service": "service",
    "Catalogue": "wanted",
    "Since": moment_of("since"),
    "Enforced before": lambda one: "yes" if one["was_enforced"] else "no",
    "Not enforced for": lambda one: f"{one['reporting']} of {one['tenants']} tenants",
}
GATE: Mapping[str, Field] = {
    "Service": "service",
    "Enforced": lambda one: "yes" if one["enforced"] else "not yet at this gateway",
    "Asked": lambda one: "to report only" if one["report_asked"] else None,
    "Revision": "revision",
    "Since": moment_of("since"),
    "Last asked": moment_of("last_asked_at"),
    "Changed": lambda one: _changed(one["definition"]),
    "Probed": lambda one: one["probe"] and f"{one['probe']['let_through']} calls not refused",
}
ENFORCEMENT_COMMANDS = {
    "list": RouteCommand(
        "GET /v1/gate/enforcement",
        (),
        TableOf(OVERVIEW),
        "List what the gate of each service does, as an operator or auditor.",
    ),
    "show": RouteCommand(
        f"GET {TENANT_GATES}", (TENANT,), TableOf(GATE), "Show what the gates do for a tenant, as one of its members."
    ),
    "allow": RouteCommand(
        f"PUT {TENANT_GATES}/{{service}}/report",
        (
            TENANT,
            SERVICE,
            option("revision", "--revision", "what the yes is to, as `lockbox gate enforcement show` has it", int),
        ),
        FactsOf(GATE, "Take it back at any time: lockbox gate enforcement end"),
        """Let a gate only report for the tenant, as its admin.

        It then refuses no call for want of a window. Requires a fresh sign-in.
        """,
    ),
    "end": RouteCommand(
        f"DELETE {TENANT_GATES}/{{service}}/report",
        (TENANT, SERVICE),
        Sentence("The gate enforces again, at once."),
        "Take back that a gate only reports for the tenant, as its admin.",
    ),
}
IDENTITIES = "/v1/gate/identities"
ISSUER = "the issuer's URL, or mtls: and a service, or header: and the id of a gateway's account"
SUBJECT = "the caller there, exactly as a token's sub, the certificate or the header says it"
MAPPED: Mapping[str, Field] = {
    "Identity": IdField("id"),
    "Issuer": "issuer",
    "Subject": "subject",
    "Engineer": "person.name",
    "Person": "person.id",
    "Since": moment_of("created_at"),
}
IDENTITY_COMMANDS = {
    "add": RouteCommand(
        f"POST {IDENTITIES}",
        (
            option("issuer", "--issuer", ISSUER),
            option("subject", "--subject", SUBJECT),
            option("person_id", "--person", "the engineer's id, which `lockbox vendor list` shows", UUID),
        ),
        FactsOf(MAPPED, "Takes effect on the next call at a gate."),
        """Map an identity to an engineer, as another operator.

        Requires a fresh sign-in: set LOCKBOX_TOKEN to a token of your identity provider, not an API token.
        """,
    ),
    "list": RouteCommand(
        f"GET {IDENTITIES}", PAGE, TableOf(MAPPED), "List the mapped identities, as an operator or auditor."
    ),
    "remove": RouteCommand(
        f"DELETE {IDENTITIES}/{{identity_id}}",
        (listed_id("identity_id", "IDENTITY", "its id, which `list` shows", IDENTITIES),),
        Sentence("Removed. Calls with this identity are refused, unless it is known otherwise."),
        """Remove an identity, as an operator.

        Requires a fresh sign-in.
        """,
    ),
}
OUTSIDE_ACCESS = "/v1/tenants/{slug}/outside-access"
DECLARED: Mapping[str, Field] = {
    "Engineers": "engineers",
    "Service": "service",
    "Resources": lambda one: ", ".join(one["resources"]),
    "From": moment_of("began_at"),
    "Until": moment_of("ended_at"),
    "Why": "reason",
    "Declared": moment_of("declared_at"),
    "By": "declared_by",
}
OUTSIDE_COMMANDS = {
    "declare": RouteCommand(
        f"POST {OUTSIDE_ACCESS}",
        (
            TENANT,
            option("engineers", "--engineer", "an engineer's id, as `lockbox vendor list` shows; repeat", list[str]),
            option("service", "--service", "such as exchange-online"),
            option("resources", "--resource", "kind:id, such as mailbox:anna@contoso.example; repeat", list[str]),
            option("began_at", "--from", "when it began, such as 2026-11-24T09:00:00Z"),
            CommandParameter(
                "seconds", Annotated[int, duration_option("--duration", "how long it lasted, such as 90m")]
            ),
            option("reason", "--why", "why it was necessary; kept in the customer's audit log"),
        ),
        FactsOf({"Event": "id"}, "The customer's admins and approvers are notified now."),
        """Declare access that was taken around Lockbox, as an operator.

        It must have ended. The customer's admins and approvers are notified by mail, and no one can change it or
        take it back.
        """,
    ),
    "list": RouteCommand(
        f"GET {OUTSIDE_ACCESS}", (TENANT,), TableOf(DECLARED), "List what was declared for a tenant, as a member."
    ),
}

app = typer.Typer(no_args_is_help=True, help="The gate: its catalogue, mappings and callers.")
app.add_typer(group("Which engineer an identity at a gate is.", IDENTITY_COMMANDS, {}), name="identity")
app.add_typer(
    group("What the gates of services do: enforce, or only report.", ENFORCEMENT_COMMANDS, {}), name="enforcement"
)
app.add_typer(group("Access that was taken around Lockbox.", OUTSIDE_COMMANDS, {}), name="outside")
app.add_typer(gate_probe.app)
reports = typer.Typer()
app.add_typer(reports)


@app.command("check")
def check_catalogue(
    file: Annotated[
        Path | None, typer.Argument(help="the file, if not LOCKBOX_CATALOGUE", show_default=False)
    ] = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Check a catalogue as a process does when it starts.

    Prints each service with its gate; each mistake is a line `file:line: field: what to do`.
    """
    catalogue = _catalogue(file)
    rows = [_row(name, catalogue) for name in catalogue.services]
    answer = {"items": [dict(zip(NAMES, row, strict=True)) for row in rows]}
    show(output, answer, Listing.of(COLUMNS, rows))


@app.command("test")
def try_request(
    service: Annotated[str, typer.Argument(help="the service's name in the catalogue")],
    request: Annotated[str, typer.Argument(help="method and target, such as 'GET /mailboxes/anna@contoso.example'")],
    *,
    host: Annotated[str, typer.Option(help="the host that the request is for")] = "",
    header: Annotated[
        list[str] | None, typer.Option(help="a header of the gateway, as 'Name: value'; again for more")
    ] = None,
    catalogue: File = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Show which tenant, resource and action a request maps to.

    The exit code is 1 if the request is refused, and the reason is printed.
    """
    known = _catalogue(catalogue).services.get(service)
    if known is None:
        raise stop(f"the catalogue has no service {service}")
    method, blank, target = request.partition(" ")
    if not blank:
        raise stop("write the method, a blank and the target, such as 'GET /mailboxes/anna'")
    try:
        call = GateCall(method, target, host, SentHeaders([_header(one) for one in header or ()]))
        mapped = ServiceMapping(service, known).map(call)
    except ValueError as refused:
        raise stop(str(refused)) from None
    except MappingRefused as refused:
        hint = "; add --host" if not host and known.gate is not None and known.gate.tenant.host else ""
        raise stop(f"{refused.code}: {refused.reason}{hint}") from None
    found = {
        "tenant": mapped.tenant_slug,
        "service": mapped.service,
        "resource": mapped.resource,
        "action": mapped.action,
    }
    labels = ("Customer", "Service", "Resource", "Action")
    show(output, found, Facts(dict(zip(labels, found.values(), strict=True))))


@reports.command("report")
def show_report(
    service: Annotated[str, typer.Argument(help="the service's name in the catalogue")],
    *,
    last: Annotated[
        int, duration_option("--last", LAST_HELP, partial(days, least=1, most=30), show_default=False)
    ] = 30,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Show what the gate of a service would have refused.

    For operators and auditors. It lists calls that the gate let in because it only reports, and what to do about
    them: for each reason, the hundred most frequent kinds of calls.
    """
    found = call("GET", at("gate", "enforcement", service, "report"), params={"days": last})
    gate, reasons = found["gate"], found["items"]
    tenants = "1 tenant" if gate["tenants"] == 1 else f"{gate['tenants']} tenants"
    reports = (
        f"only reports for {gate['reporting']} of {tenants}" if gate["reporting"] else "is enforced for all tenants"
    )
    none = f"In the last {last} days it let in no call that it would have refused."
    calls = Listing.of(REPORT_COLUMNS, (row for reason in reasons for row in _report_rows(reason)), none)
    remedies = [
        f"{values.words(reason['reason'])}: {reason['calls']:,} calls. {reason['remedy']}" for reason in reasons
    ]
    show(output, found, f"The gate of {service} {reports}.", calls, *(["", *remedies] if remedies else []))


def _catalogue(file: Path | None) -> Catalogue:
    path = file or chosen().catalogue
    if path is None:
        raise stop("name the catalogue's file, or set LOCKBOX_CATALOGUE")
    try:
        return read_catalogue(path)
    except CatalogueRefused as refused:
        for line in str(refused).splitlines():
            ended = stop(line)
        raise ended from None


def _row(name: str, catalogue: Catalogue) -> tuple[object, ...]:
    service = catalogue.services[name]
    if service.gate is None:
        return name, service.actions, None, None
    ((kind, value),) = service.gate.tenant.model_dump(exclude_none=True).items()
    return name, service.actions, f"{kind} {value}", len(service.gate.paths)


def _header(text: str) -> tuple[bytes, bytes]:
    name, colon, value = text.partition(":")
    if not colon:
        raise ValueError("write a header as 'Name: value'")
    return name.strip().lower().encode(), value.strip().encode()


def _report_rows(reason: Mapping[str, Any]) -> Iterator[tuple[object, ...]]:
    for kind in reason["kinds"]:
        engineer = kind["engineer"]
        yield (
            values.Word(reason["reason"]),
            kind["calls"],
            kind["path"] or OTHERS,
            kind["tenant"],
            engineer["name"] or engineer["id"] if engineer else kind["identity"],
            values.moment(kind["first_at"]),
            values.moment(kind["last_at"]),
        )
