"""Commands of the gate: check the catalogue, show what a request maps to, probe a gateway, and map its callers."""

from pathlib import Path
from typing import Annotated

import typer

from catalogue.load import CatalogueRefused, read_catalogue
from catalogue.service_catalogue import Catalogue
from cli import gate_enforcement, gate_identities, gate_probe, gate_report, outside_access
from cli.client import chosen, stop
from cli.terminal import Facts, Listing, Output, OutputFormat, show
from gate.call import SentHeaders
from gate.mapping import GateCall, MappingRefused, ServiceMapping

app = typer.Typer(no_args_is_help=True, help="The gate: its catalogue, mappings and callers.")
app.add_typer(gate_identities.app, name="identity")
app.add_typer(gate_enforcement.app, name="enforcement")
app.add_typer(outside_access.app, name="outside")
app.add_typer(gate_probe.app)
app.add_typer(gate_report.app)

NAMES = ("service", "actions", "tenant_from", "paths")
COLUMNS = ("Service", "Actions", "Customer from", "Paths")
File = Annotated[
    Path | None, typer.Option("--catalogue", help="the file, if not LOCKBOX_CATALOGUE", show_default=False)
]


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

    The exit code is 1 if it is refused, and the reason is printed.
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
