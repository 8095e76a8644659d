"""The commands that call one route each: members, invitations, delegates, observers, webhooks, the vendor."""

from collections.abc import Mapping
from typing import Annotated, Any
from uuid import UUID

import typer

from cli.client import at, call, stop
from cli.route_command import (
    IF_MATCH,
    PAGE,
    CommandParameter,
    FactsOf,
    Field,
    Once,
    RouteCommand,
    Sentence,
    TableOf,
    argument,
    group,
    moment_of,
    option,
    optional,
    words_of,
)
from cli.terminal import Plain, moment, words

TENANT = argument("slug", "tenant", "the tenant's slug, such as contoso", str)
PERSON = argument("person_id", "person", "the person's id")
NAMED: Mapping[str, Field] = {"Name": "name", "Address": "address", "Roles": "roles"}
REMOVED = Sentence("Removed.")


def _or_all(name: str) -> Field:
    """Return what shows a field that is empty for all there are."""
    return lambda one: one[name] or "all"


# Invitations to a tenant, and to the vendor's side


def _expiry(invitation: Mapping[str, Any]) -> str:
    """Return until when an invitation can be accepted, and from when on if an operator proposed it."""
    until = f"until {moment(invitation['expires_at'])}" if invitation["expires_at"] else ""
    if invitation["is_recovery"]:
        return f"proposed by the vendor, from {moment(invitation['takes_effect_at'])} {until}".strip()
    return until or "once it is mailed"


INVITEE = (option("name", "--name", "who it is"), option("address", "--email", "where the invitation is mailed to"))
INVITATION = argument("invitation_id", "invitation", "its id")
INVITED = FactsOf({"Invitation": "id", **NAMED}, "The mail is on its way; it holds the only copy of the code.")
OPEN = TableOf({"Invitation": "id", **NAMED, "Good": _expiry})
WITHDRAWN = Sentence("Withdrawn: the code that was mailed is worthless.")
INVITATIONS = "/v1/tenants/{slug}/invitations"
INVITATION_COMMANDS = {
    "list": RouteCommand(f"GET {INVITATIONS}", (TENANT,), OPEN, "List the open invitations, proposed admins too."),
    "withdraw": RouteCommand(
        f"DELETE {INVITATIONS}/{{invitation_id}}",
        (TENANT, INVITATION),
        WITHDRAWN,
        "Take an invitation back, as a tenant admin.",
    ),
}


# Members of a tenant

SEEN = "only if they are still at this version, which `list` shows; else whatever they have"
VERSION = optional(IF_MATCH, "--version", SEEN)
ROLES = option("roles", "--role", "tenant_admin, approver or auditor; repeat", list[str])
MEMBERS, MEMBER = "/v1/tenants/{slug}/members", "/v1/tenants/{slug}/members/{person_id}"
A_MEMBER = FactsOf(
    {
        "Person": "id",
        **NAMED,
        "May be a delegate": "eligible",
        "Member since": moment_of("since"),
        "Version": "version",
    }
)
MEMBER_COMMANDS = {
    "list": RouteCommand(
        f"GET {MEMBERS}",
        (TENANT, *PAGE),
        TableOf({"Person": "id", **NAMED, "Delegate": "eligible", "Version": "version"}),
        "List the members, to the tenant's own people.",
    ),
    "invite": RouteCommand(
        f"POST {MEMBERS}",
        (TENANT, *INVITEE, ROLES),
        INVITED,
        """Invite somebody by mail, as a tenant admin.

        They are a member once they accept, with a code that only the mail holds.
        """,
    ),
    "roles": RouteCommand(
        f"PUT {MEMBER}", (TENANT, PERSON, ROLES, VERSION), A_MEMBER, "Set all roles of a member, as a tenant admin."
    ),
    "remove": RouteCommand(
        f"DELETE {MEMBER}", (TENANT, PERSON), REMOVED, "Remove a member at once, as a tenant admin."
    ),
}


def delegate_eligible(
    tenant: Annotated[str, typer.Argument(help="the tenant's slug, such as contoso", show_default=False)],
    person: Annotated[UUID, typer.Argument(help="the person's id", show_default=False)],
    eligible: Annotated[bool, typer.Option("--yes/--no", help="whether approvers may name them")] = True,
    plain: Plain = False,
) -> None:
    """Set whether approvers may name a member as delegate.

    For tenant admins. Delegations of a member who is no longer eligible end.
    """
    found = call("GET", at("tenants", tenant, "members", person))
    given = {"slug": tenant, "person_id": person, "roles": found["roles"], IF_MATCH: found["version"]}
    MEMBER_COMMANDS["roles"].run(**given, eligible=eligible, plain=plain)


# Delegates of approvers

DELEGATIONS = "/v1/tenants/{slug}/delegations"
DELEGATED: Mapping[str, Field] = {
    "Delegation": "id",
    "For": "principal.name",
    "Delegate": "delegate.name",
    "From": moment_of("starts_at"),
    "Until": moment_of("ends_at"),
}
DELEGATION_COMMANDS = {
    "list": RouteCommand(
        f"GET {DELEGATIONS}",
        (TENANT,),
        TableOf({**DELEGATED, "Counts now": "counts"}),
        "List who stands in for whom, now and to come.",
    ),
    "name": RouteCommand(
        f"POST {DELEGATIONS}",
        (
            TENANT,
            argument("delegate", "delegate", "who stands in, by id"),
            option("ends_at", "--until", "such as 2031-05-01T08:00:00Z"),
            optional("starts_at", "--from", "likewise; now where it is left out"),
            optional("principal", "--for", "an approver who is absent, by id; for admins", UUID),
        ),
        FactsOf(DELEGATED),
        "Name your delegate for a period, or an absent approver's.",
    ),
    "end": RouteCommand(
        f"DELETE {DELEGATIONS}/{{delegation_id}}",
        (TENANT, argument("delegation_id", "delegation", "its id")),
        Sentence("Ended."),
        "End a delegation now.",
    ),
}


# Observers, whom a tenant has copied

OBSERVERS = "/v1/tenants/{slug}/observers"
OBSERVER: Mapping[str, Field] = {
    "Observer": "id",
    "Name": "name",
    "Address": "address",
    "Service": _or_all("service"),
    "Added by": "added_by.name",
    "Since": moment_of("created_at"),
}
OBSERVER_COMMANDS = {
    "add": RouteCommand(
        f"POST {OBSERVERS}",
        (
            TENANT,
            option("name", "--name", "who is copied"),
            option("address", "--email", "where copies go"),
            optional("service", "--service", "such as exchange-online; all if left out"),
        ),
        FactsOf(OBSERVER),
        "Have somebody copied, as a tenant admin.",
    ),
    "list": RouteCommand(f"GET {OBSERVERS}", (TENANT,), TableOf(OBSERVER), "List who is copied."),
    "remove": RouteCommand(
        f"DELETE {OBSERVERS}/{{observer_id}}",
        (TENANT, argument("observer_id", "observer", "its id")),
        Sentence("Removed: nothing more is copied there."),
        "Have somebody copied no longer, as a tenant admin.",
    ),
}


# Webhooks: those of a customer, as its admin, or the vendor's own, as an operator; and their log


def _endpoint_state(one: Mapping[str, Any]) -> str:
    if one["disabled_at"]:
        return f"disabled ({words(one['why_disabled'] or 'by hand')})"
    return f"failing since {moment(one['failing_since'])}" if one["failing_since"] else "called"


def _changed_endpoint(given: dict[str, Any]) -> dict[str, Any]:
    if given.pop("all_events"):
        given["event_types"] = []
    if not given:
        raise stop("say what is to be different, such as --disable")
    return given


ENDPOINT = argument("endpoint_id", "endpoint", "its id")
WHOSE = optional("slug", "--tenant", "the customer's slug; the vendor's own if left out")
EVENTS = optional("event_types", "--event", "such as request.denied; repeat; all if left out", list[str])
DESCRIPTION = optional("description", "--description", "what you call it")
FORMATS = "json (Standard Webhooks) or slack"
OVERLAP = "how long the old secret signs too; 0 ends it now"
WHY = "tell a customer's own why access is asked"
WHETHER_WHY = "whether a customer's own is told why access is asked"
ENDPOINTS = "/v1/tenants/{slug}/endpoints or /v1/vendor/endpoints"
ENDPOINT_PATH = "/v1/endpoints/{endpoint_id}"
NAMED_URL = {"Webhook": "id", "Address": "url", "Name": "description", "Format": "format"}
CALLED: Mapping[str, Field] = {**NAMED_URL, "Events": _or_all("event_types")}
SET_UP = {"Justification": "with_justification", "Public key": "public_key"}
AN_ENDPOINT = FactsOf({**CALLED, **SET_UP, "State": _endpoint_state, "Added": moment_of("created_at")})
SECRET = Once("secret", "This is the only time that the secret is shown: it signs every call. The webhook is {id}.")
ENDPOINT_COMMANDS = {
    "list": RouteCommand(
        f"GET {ENDPOINTS}",
        (WHOSE,),
        TableOf({**CALLED, "State": _endpoint_state}),
        "List webhooks; their secrets are never shown again.",
    ),
    "add": RouteCommand(
        f"POST {ENDPOINTS}",
        (
            argument("url", "url", "where calls go, by https", str),
            WHOSE,
            EVENTS,
            DESCRIPTION,
            option("format", "--format", FORMATS, default="json"),
            option("with_justification", "--justification", WHY, bool, default=False),
        ),
        SECRET,
        """Add a webhook and print its secret, once.

        It takes a fresh sign-in: LOCKBOX_TOKEN has to hold a token of your sign-in service, not an API token.
        """,
    ),
    "show": RouteCommand(f"GET {ENDPOINT_PATH}", (ENDPOINT,), AN_ENDPOINT, "Show one webhook."),
    "change": RouteCommand(
        f"PATCH {ENDPOINT_PATH}",
        (
            ENDPOINT,
            optional("url", "--url", "where calls go from now on"),
            EVENTS,
            option("all_events", "--all-events", "tell it of everything", bool, default=False),
            DESCRIPTION,
            optional("format", "--format", FORMATS),
            optional("with_justification", "--justification/--no-justification", WHETHER_WHY, bool),
            optional("enabled", "--enable/--disable", "whether it is called", bool),
        ),
        AN_ENDPOINT,
        """Change a webhook; what is left out stays.

        All but disabling and describing it takes a fresh sign-in.
        """,
        _changed_endpoint,
    ),
    "remove": RouteCommand(
        f"DELETE {ENDPOINT_PATH}", (ENDPOINT,), REMOVED, "Remove a webhook: nothing more is called."
    ),
    "rotate": RouteCommand(
        f"POST {ENDPOINT_PATH}/rotate",
        (ENDPOINT, option("overlap_hours", "--overlap-hours", OVERLAP, int, default=24)),
        SECRET,
        """Replace a webhook's secret; print the new one, once.

        It takes a fresh sign-in.
        """,
    ),
    "test": RouteCommand(
        f"POST {ENDPOINT_PATH}/test",
        (ENDPOINT,),
        Sentence("It is called with webhook-id {webhook_id}; see: lockbox endpoint deliveries {endpoint_id}"),
        "Call a webhook with a test event.",
    ),
    "deliveries": RouteCommand(
        f"GET {ENDPOINT_PATH}/deliveries",
        (ENDPOINT, *PAGE),
        TableOf(
            {
                "Delivery": "id",
                "When": moment_of("at"),
                "Event": "event_type",
                "Took": lambda one: f"{one['took_ms']} ms",
                "Status": "status",
                "How": lambda one: words(one["error"] or "arrived"),
                "Answer": "answer",
            }
        ),
        "List each try to call a webhook, the newest first.",
    ),
    "redeliver": RouteCommand(
        "POST /v1/deliveries/{delivery_id}/redeliver",
        (argument("delivery_id", "delivery", "the id of a delivery"),),
        Sentence("It is called again with webhook-id {webhook_id}."),
        "Call again what has ended, under the id that it had.",
    ),
}


# The vendor's staff, whom operators invite and shut out, and undelivered notifications

STAFF_ROLES = option("roles", "--role", "engineer, manager, operator, vendor_auditor or system; repeat", list[str])
TIER_HELP = "a manager's tier of the review; the lowest is asked first"
TIER = CommandParameter("review_tier", Annotated[int | None, typer.Option(min=1, max=5, help=TIER_HELP)], None)
STAFF, COLLEAGUE = "/v1/vendor/members", "/v1/vendor/members/{person_id}"
WORKS: Mapping[str, Field] = {"Person": "id", **NAMED, "Review tier": "review_tier", "Disabled": "disabled"}
A_COLLEAGUE = FactsOf({**WORKS, "Since": moment_of("since"), "Version": "version"})
VENDOR_COMMANDS = {
    "list": RouteCommand(
        f"GET {STAFF}",
        PAGE,
        TableOf({**WORKS, "Version": "version"}),
        "List everybody at the vendor, to operators and auditors.",
    ),
    "invite": RouteCommand(
        f"POST {STAFF}",
        (*INVITEE, STAFF_ROLES),
        INVITED,
        """Invite somebody by mail, as an operator.

        A machine comes the same way, with the role system: whoever sets it up accepts, and makes its first token in
        the session that follows.
        """,
    ),
    "roles": RouteCommand(
        f"PUT {COLLEAGUE}",
        (PERSON, STAFF_ROLES, TIER, VERSION),
        A_COLLEAGUE,
        "Set all roles and the tier of somebody else, as an operator.",
    ),
    "remove": RouteCommand(
        f"DELETE {COLLEAGUE}",
        (PERSON,),
        Sentence("Removed: they have no role here now."),
        "Take every role from somebody else, as an operator.",
    ),
    "disable": RouteCommand(
        f"POST {COLLEAGUE}/disable", (PERSON,), A_COLLEAGUE, "Shut somebody else out for good, as an operator."
    ),
    "invitations": RouteCommand(
        "GET /v1/vendor/invitations", (), OPEN, "List the open invitations to the vendor's side."
    ),
    "withdraw": RouteCommand(
        "DELETE /v1/vendor/invitations/{invitation_id}",
        (INVITATION,),
        WITHDRAWN,
        "Take an invitation to the vendor's side back.",
    ),
    "undelivered": RouteCommand(
        "GET /v1/vendor/undelivered",
        PAGE,
        TableOf(
            {
                "Request": "request_id",
                "Customer": "tenant",
                "Of": words_of("template"),
                "By": "channel",
                "When": moment_of("died_at"),
                "Why": words_of("error"),
                "Delivery": "delivery_id",
            }
        ),
        """List undelivered notifications, as an operator.

        It says what each was for and why it failed, and neither to whom it went nor what it said. A call of one of
        the vendor's own webhooks can be repeated by its delivery.
        """,
    ),
}

GROUPS = {
    "member": ("Members of a customer.", MEMBER_COMMANDS),
    "invitation": ("Open invitations of a customer.", INVITATION_COMMANDS),
    "delegation": ("Delegates of approvers.", DELEGATION_COMMANDS),
    "observer": ("Who is copied and cannot decide.", OBSERVER_COMMANDS),
    "endpoint": ("Webhooks.", ENDPOINT_COMMANDS),
    "vendor": ("People of the vendor.", VENDOR_COMMANDS),
}
BY_HAND = {"member": {"delegate-eligible": delegate_eligible}}

app = typer.Typer()
for _name, (_help, _commands) in GROUPS.items():
    app.add_typer(group(_help, _commands, BY_HAND.get(_name, {})), name=_name)
