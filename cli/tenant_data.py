"""The commands `lockbox data`."""

from collections.abc import Mapping
from typing import Any

from cli.route_command import (
    PAGE,
    TENANT,
    CommandParameter,
    FactsOf,
    Field,
    RouteCommand,
    Sentence,
    TableOf,
    group,
    moment_of,
    option,
    optional,
)
from cli.values import moment, phrase

AT_TENANT = "/v1/tenants/{slug}"


def _kept(one: Mapping[str, Any]) -> object:
    return f"{one['kept_days']} days" if one["kept_days"] else "for ever"


def _holds(one: Mapping[str, Any]) -> object:
    said = [f"{hold['side']}{': ' + hold['reason'] if hold['reason'] else ''}" for hold in one["holds"]]
    return "; ".join(said) or "none"


def _offboarding(one: Mapping[str, Any]) -> object:
    found = one["offboarding"]
    if not found:
        return "no"
    if found["erased_at"]:
        return phrase("erased at ", moment(found["erased_at"]))
    return phrase(
        "begun at " if found["closed_at"] else "requested at ", moment(found["closed_at"] or found["asked_at"])
    )


DATA: Mapping[str, Field] = {
    "Log kept": _kept,
    "By the tenant (days)": "retention_days",
    "Legal holds": _holds,
    "Off-boarding": _offboarding,
}
DAYS: CommandParameter = optional("days", "--days", "for how many days; as the installation says if left out", int)
LISTED: Mapping[str, Field] = {
    "Customer": "tenant",
    "Name": "name",
    "Legal holds": "held_by",
    "Log kept (days)": "retention_days",
    "Off-boarding requested": moment_of("offboarding_asked_at"),
    "Off-boarding begun": moment_of("offboarding_closed_at"),
}
DATA_COMMANDS = {
    "list": RouteCommand(
        "GET /v1/vendor/data",
        PAGE,
        TableOf(LISTED),
        """List customers with a hold, an off-boarding or own retention.

        As an operator or auditor of the vendor.
        """,
    ),
    "show": RouteCommand(
        f"GET {AT_TENANT}/data",
        (TENANT,),
        FactsOf(DATA),
        "Show what becomes of a tenant's data, as its member. Operators and auditors can too.",
    ),
    "retention": RouteCommand(
        f"PUT {AT_TENANT}/retention",
        (TENANT, DAYS),
        FactsOf(DATA),
        """Set for how long a tenant's log is kept, as its admin.

        At least 30 days, and at most as many as the installation keeps. Requires a fresh sign-in.
        """,
        body=lambda said: {"days": None} | said,
    ),
    "hold": RouteCommand(
        f"PUT {AT_TENANT}/hold",
        (TENANT, option("reason", "--reason", "why; for your side alone")),
        FactsOf(DATA),
        """Set a legal hold, as the tenant's admin or as an operator.

        Nothing of the tenant is removed or erased until your side releases it. Requires a fresh sign-in.
        """,
    ),
    "release": RouteCommand(
        f"DELETE {AT_TENANT}/hold",
        (TENANT,),
        Sentence("Released."),
        "Release the hold of your side, as an admin or operator.",
    ),
    "leave": RouteCommand(
        f"PUT {AT_TENANT}/off-boarding",
        (TENANT,),
        FactsOf(DATA, "Until the vendor begins, `lockbox data stay` withdraws it."),
        """Ask the vendor to off-board a tenant, as its admin.

        All its data is exported and then erased permanently. Requires a fresh sign-in.
        """,
    ),
    "stay": RouteCommand(
        f"DELETE {AT_TENANT}/off-boarding",
        (TENANT,),
        Sentence("Withdrawn: the tenant stays."),
        "Withdraw that a tenant leaves, as its admin. That is possible until the vendor begins.",
    ),
}

app = group("A customer's data: retention, legal holds, leaving.", DATA_COMMANDS, {})
