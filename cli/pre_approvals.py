"""The commands `lockbox pre-approval`."""

from collections.abc import Mapping
from typing import Annotated

from cli.inputs import duration_option
from cli.route_command import (
    TENANT,
    CommandParameter,
    FactsOf,
    Field,
    IdField,
    RouteCommand,
    TableOf,
    group,
    listed_id,
    moment_of,
    option,
    optional,
    words_of,
)
from cli.values import LOOK_ALIKES, Duration

PRE_APPROVALS = "/v1/tenants/{slug}/pre-approvals"
PRE_APPROVAL: Mapping[str, Field] = {
    "Pre-approval": IdField("id"),
    "Status": words_of("status"),
    "Service": "service",
    "Resource": "resource",
    "Actions": lambda one: ", ".join(one["actions"]),
    "Reason": words_of("reason_code"),
    "Used": lambda one: f"{one['used']} of {one['max_uses']}",
    "Ends": moment_of("ends_at"),
}
WHOLE: Mapping[str, Field] = {
    **PRE_APPROVAL,
    "Longest window": lambda one: Duration(one["access_window"]),
    "Proposed by": "proposed_by.name",
    "Approved by": lambda one: ", ".join(by["by"]["name"] for by in one["approvers"] if by["counts"]) or None,
    "Needs": lambda one: "; ".join(one["lacks"]) or None,
    LOOK_ALIKES: lambda one: ", ".join(one.get("look_alikes") or ()) or None,
}
ONE = listed_id("pre_approval_id", "PRE-APPROVAL", "its id", PRE_APPROVALS)
COMMENT = optional("comment", "--comment", "why; it is on record")
PRE_APPROVAL_COMMANDS = {
    "list": RouteCommand(
        f"GET {PRE_APPROVALS}", (TENANT,), TableOf(PRE_APPROVAL), "List pre-approvals, as a member of the tenant."
    ),
    "show": RouteCommand(
        f"GET {PRE_APPROVALS}/{{pre_approval_id}}",
        (TENANT, ONE),
        FactsOf(WHOLE),
        "Show one: who approved it, and what it still needs.",
    ),
    "propose": RouteCommand(
        f"POST {PRE_APPROVALS}",
        (
            TENANT,
            option("service", "--service", "such as exchange-online"),
            option("resource", "--resource", "a pattern, such as mailbox:*@contoso.example"),
            option("actions", "--action", "an action that it allows; repeat it for more", list[str]),
            option("reason_code", "--reason", "the reason that requests must give, such as support_case"),
            CommandParameter(
                "access_window", Annotated[int, duration_option("--window", "the longest window, such as 30m")]
            ),
            option("max_uses", "--uses", "how many windows it opens at most", int),
            option("ends_at", "--until", "its end, such as 2031-05-01T08:00:00Z; at most 90 days ahead"),
            COMMENT,
        ),
        FactsOf(WHOLE, "It opens nothing before approvers have approved it."),
        "Propose a pre-approval, as a tenant admin.",
    ),
    "approve": RouteCommand(
        f"POST {PRE_APPROVALS}/{{pre_approval_id}}/approve",
        (TENANT, ONE, COMMENT),
        FactsOf(WHOLE, "Revoke it at any time: lockbox pre-approval revoke"),
        "Approve a pre-approval, as an approver with a fresh sign-in.",
    ),
    "revoke": RouteCommand(
        f"POST {PRE_APPROVALS}/{{pre_approval_id}}/revoke",
        (TENANT, ONE, COMMENT),
        FactsOf(WHOLE, "The access that it had open has ended."),
        """Revoke a pre-approval, and the access that it has open.

        For approvers and tenant admins.
        """,
    ),
}

app = group("What a customer approves before it is asked.", PRE_APPROVAL_COMMANDS, {})
