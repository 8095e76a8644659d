"""`lockbox exclusions`: what Lockbox does not cover."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.client import ANY_VERSION, at, call, headers, stop
from cli.route_command import (
    PAGE,
    TENANT,
    CommandParameter,
    FactsOf,
    Field,
    RouteCommand,
    TableOf,
    group,
    moment_of,
    option,
    optional,
)
from cli.terminal import Facts, Output, OutputFormat, show
from cli.values import moment

EXCLUSIONS = "/v1/exclusions"
OF_TENANT = "/v1/tenants/{slug}/exclusions"
STATED: Mapping[str, Field] = {
    "Version": "version",
    "Stated": moment_of("created_at"),
    "By": "author.name",
    "Text": "text",
}


def _acknowledged(one: Mapping[str, Any]) -> object:
    found = one["acknowledged"]
    return f"version {found['version']} by {found['by']['name']}" if found else "no version yet"


def _current(one: Mapping[str, Any]) -> object:
    return f"version {one['current']['version']}" if one["current"] else "none"


STANDING: Mapping[str, Field] = {
    "In force": _current,
    "Acknowledged": _acknowledged,
    "To acknowledge": "due",
    "Text": lambda one: one["current"]["text"] if one["current"] else None,
}
EXCLUSIONS_COMMANDS = {
    "show": RouteCommand(
        f"GET {EXCLUSIONS}",
        (optional("version", "--version", "another version than the one in force", int),),
        FactsOf(STATED),
        "Show what Lockbox does not cover, to anybody signed in.",
    ),
    "versions": RouteCommand(
        f"GET {EXCLUSIONS}/versions",
        (
            CommandParameter("limit", Annotated[int, typer.Option(help="how many at most")], 50),
            optional("before", "--before", "only versions below this one", int),
        ),
        TableOf({name: field for name, field in STATED.items() if name != "Text"}),
        "List the versions, the newest first.",
    ),
    "tenant": RouteCommand(
        f"GET {OF_TENANT}",
        (TENANT,),
        FactsOf(STANDING),
        "Show what a tenant has acknowledged, as its member.",
    ),
    "acknowledge": RouteCommand(
        f"PUT {OF_TENANT}",
        (TENANT, option("version", "--version", "the version in force, which you have read", int)),
        FactsOf({name: STANDING[name] for name in ("In force", "Acknowledged", "To acknowledge")}),
        """Acknowledge the exclusions for a tenant, as its admin.

        It says that the tenant knows of them, and gives no one access. Requires a fresh sign-in.
        """,
    ),
    "acknowledgements": RouteCommand(
        f"GET {EXCLUSIONS}/acknowledgements",
        PAGE,
        TableOf({"Customer": "tenant", "Name": "name", "Version": "version", "Acknowledged": moment_of("at")}),
        "List what each tenant has acknowledged, as an operator. Auditors of the vendor can too.",
    ),
}


def state(
    file: Annotated[Path, typer.Argument(help="the whole text, in a file of UTF-8", show_default=False)],
    version: Annotated[
        int | None, typer.Option("--version", help="only if this version is still in force; 0 for none")
    ] = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Publish a new version of the exclusions, as an operator.

    Exclusions say what Lockbox does not cover. Every customer's log records the new version, and the customer's
    admins are asked to acknowledge it. Requires a fresh sign-in.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise stop(f"{file} cannot be read: {error}") from None
    seen = ANY_VERSION if version is None else version
    stated = call("PUT", at("exclusions"), body={"text": text}, headers=headers(version=seen))
    facts = Facts({"Version": stated["version"], "Stated": moment(stated["created_at"])})
    show(output, stated, facts, "Customers are notified within minutes.")


app = group("What Lockbox does not cover.", EXCLUSIONS_COMMANDS, {"state": state})
