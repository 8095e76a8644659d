"""Commands of a tenant's policy."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from cli import terminal
from cli.client import at, call, headers, stop
from cli.route_command import PAGE, TENANT, RouteCommand, TableOf, moment_of, optional
from cli.tenants import Tenant
from cli.terminal import Facts, Listing, Output, OutputFormat
from cli.values import Duration, moment, phrase
from lockbox import mistakes
from lockbox.notifications.policy_wording import SECONDS
from lockbox.requests.policy_rules import Policy, changes

app = typer.Typer(no_args_is_help=True, help="Customer policies.")

File = Annotated[
    typer.FileText,
    typer.Argument(
        encoding="utf-8", help="a policy, or what `policy show -o json` printed; - for stdin", show_default=False
    ),
]


@dataclass(frozen=True)
class PolicyFile:
    """`version` is the version that the file was made from, if the file names one."""

    body: dict[str, Any]
    policy: Policy
    version: int | None


@app.command()
def show(
    tenant: Tenant,
    version: Annotated[int | None, typer.Option(help="an older version; the current one if left out")] = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Show the policy, as a member of the tenant."""
    held = call("GET", at("tenants", tenant, "policy"), params={"version": version})
    version_of = phrase(f"Version {held['version']} of ", moment(held["created_at"]), f", by {_author(held)}.")
    terminal.show(output, held, version_of, Facts(dict(_facts(held["policy"]))))


@app.command("set")
def set_policy(
    tenant: Tenant,
    file: File,
    version: Annotated[int | None, typer.Option(help="only if the policy is still at this version")] = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Replace the policy by a file, as a tenant admin.

    Refused if the policy has changed since the version that --version names. Without --version the version in the
    file counts; if the file has none, the version when the command began. Prints the changes.
    """
    written = _read(file)
    held = call("GET", at("tenants", tenant, "policy"))
    seen = next(one for one in (version, written.version, held["version"]) if one is not None)
    answer = call("PUT", at("tenants", tenant, "policy"), body=written.body, headers=headers(version=seen))
    said = f"The policy is at version {answer['version']}."
    terminal.show(output, answer, _table_of(_changes(held, written)), said)


def _author(edition: Mapping[str, Any]) -> str:
    return str(edition["author"]["name"]) if edition["author"] else "nobody: the tenant began with it"


VERSIONS = RouteCommand(
    "GET /v1/tenants/{slug}/policy/versions",
    (TENANT, PAGE[0], optional("before", "--before", "only those older than this version", int)),
    TableOf({"Version": "version", "Made": moment_of("created_at"), "By": _author}),
    "List the versions of the policy, newest first.",
)
app.command("versions", help=VERSIONS.help)(VERSIONS.function())


@app.command()
def diff(tenant: Tenant, file: File, output: Output = OutputFormat.TABLE) -> None:
    """Show what a file would change."""
    written = _read(file)
    found = _changes(call("GET", at("tenants", tenant, "policy")), written)
    terminal.show(output, {"changes": found}, _table_of(found))


def _read(file: typer.FileText) -> PolicyFile:
    try:
        body = json.load(file)
        version = None
        if isinstance(body, dict) and isinstance(body.get("policy"), dict):
            body, version = body["policy"], body.get("version")
        policy = Policy.model_validate_json(json.dumps(body))
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, where)) or 'policy'}: {what}" for where, what in mistakes.of(error)]
        raise stop(f"{file.name}: {'; '.join(lines)}") from None
    except ValueError as error:
        raise stop(f"{file.name} is not JSON: {error}") from None
    if version is not None and not isinstance(version, int):
        raise stop(f"{file.name}: version: write it as a whole number")
    return PolicyFile(body, policy, version)


def _changes(held: Mapping[str, Any], written: PolicyFile) -> dict[str, str]:
    return changes(Policy.model_validate_json(json.dumps(held["policy"])), written.policy)


def _table_of(changed: Mapping[str, str]) -> Listing:
    return Listing.of(("Setting", "Change"), changed.items(), "Nothing changes.")


def _facts(value: object, name: str = "") -> Iterator[tuple[str, object]]:
    match value:
        case dict():
            for key, part in value.items():
                if part not in (None, {}):
                    yield from _facts(part, f"{name}.{key}" if name else key)
        case [dict() | list(), *_]:
            for number, part in enumerate(value):
                yield from _facts(part, f"{name}.{number}")
        case list():
            yield name, ", ".join(map(str, value))
        case int() if name.rsplit(".", 1)[-1] in SECONDS:
            yield name, Duration(value)
        case _:
            yield name, value
