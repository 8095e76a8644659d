"""The commands `lockbox gate enforcement`: what gates do, and an admin's yes to one that only reports."""

from collections.abc import Mapping
from typing import Any

from cli import values
from cli.route_command import (
    TENANT,
    FactsOf,
    Field,
    RouteCommand,
    Sentence,
    TableOf,
    argument,
    group,
    moment_of,
    option,
)


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

app = group("What the gates of services do: enforce, or only report.", ENFORCEMENT_COMMANDS, {})
