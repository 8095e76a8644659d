"""The commands `lockbox gate outside`: access that was taken around Lockbox, declared and listed."""

from collections.abc import Mapping
from typing import Annotated

from cli.inputs import duration_option
from cli.route_command import (
    TENANT,
    CommandParameter,
    FactsOf,
    Field,
    RouteCommand,
    TableOf,
    group,
    moment_of,
    option,
)

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

app = group("Access that was taken around Lockbox.", OUTSIDE_COMMANDS, {})
