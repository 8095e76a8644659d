"""The commands that call one route each: members, invitations, delegates, observers, webhooks, the vendor."""

from collections.abc import Mapping
from typing import Annotated, Any
from uuid import UUID

import typer

from cli.client import at, call, stop
from cli.route_command import (
    IF_MATCH,
    PAGE,
    TENANT,
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


INVITEE = (option("name", "--name", "the invitee's name"), option("address", "--email", "the invitee's mail address"))
INVITATION = argument("invitation_id", "invitation", "its id")
INVITED = FactsOf({"Invitation": "id", **NAMED}, "The invitation is being mailed; only the mail contains the code.")
OPEN = TableOf({"Invitation": "id", **NAMED, "Good": _expiry})
WITHDRAWN = Sentence("Withdrawn: the mailed code no longer works.")
INVITATIONS = "/v1/tenants/{slug}/invitations"
INVITATION_COMMANDS = {
    "list": RouteCommand(f"GET {INVITATIONS}", (TENANT,), OPEN, "List open invitations, including proposed admins."),
    "withdraw": RouteCommand(
        f"DELETE {INVITATIONS}/{{invitation_id}}",
        (TENANT, INVITATION),
        WITHDRAWN,
        "Withdraw an invitation, as a tenant admin.",
    ),
}


# Members of a tenant

SEEN = "only if the roles are still at this version, which `list` shows; any version if left out"
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

        They become a member when they accept, with the code in the mail.
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
        "List current and future delegations.",
    ),
    "name": RouteCommand(
        f"POST {DELEGATIONS}",
        (
            TENANT,
            argument("delegate", "delegate", "the delegate's id"),
            option("ends_at", "--until", "such as 2031-05-01T08:00:00Z"),
            optional("starts_at", "--from", "likewise; now if left out"),
            optional("principal", "--for", "the id of an absent approver; for tenant admins", UUID),
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


# Observers, who get copies of the mails about requests

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
            option("name", "--name", "the observer's name"),
            option("address", "--email", "the address that copies are mailed to"),
            optional("service", "--service", "such as exchange-online; all if left out"),
        ),
        FactsOf(OBSERVER),
        "Add an observer, as a tenant admin.",
    ),
    "list": RouteCommand(f"GET {OBSERVERS}", (TENANT,), TableOf(OBSERVER), "List the observers."),
    "remove": RouteCommand(
        f"DELETE {OBSERVERS}/{{observer_id}}",
        (TENANT, argument("observer_id", "observer", "its id")),
        Sentence("Removed. This observer gets no more copies."),
        "Remove an observer, as a tenant admin.",
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
        raise stop("name what to change, such as --disable")
    return given


ENDPOINT = argument("endpoint_id", "endpoint", "its id")
WHOSE = optional("slug", "--tenant", "the customer's slug; the vendor's own if left out")
EVENTS = optional("event_types", "--event", "such as request.denied; repeat; all if left out", list[str])
DESCRIPTION = optional("description", "--description", "a description")
FORMATS = "json (Standard Webhooks) or slack"
OVERLAP = "how long the old secret stays valid; 0 ends it now"
WHY = "send the justification, to a webhook of a customer"
WHETHER_WHY = "whether to send the justification, to a webhook of a customer"
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
        "List webhooks, without their secrets.",
    ),
    "add": RouteCommand(
        f"POST {ENDPOINTS}",
        (
            argument("url", "url", "the https URL to call", str),
            WHOSE,
            EVENTS,
            DESCRIPTION,
            option("format", "--format", FORMATS, default="json"),
            option("with_justification", "--justification", WHY, bool, default=False),
        ),
        SECRET,
        """Add a webhook and print its secret, once.

        Requires a fresh sign-in: set LOCKBOX_TOKEN to a token of your identity provider, not an API token.
        """,
    ),
    "show": RouteCommand(f"GET {ENDPOINT_PATH}", (ENDPOINT,), AN_ENDPOINT, "Show one webhook."),
    "change": RouteCommand(
        f"PATCH {ENDPOINT_PATH}",
        (
            ENDPOINT,
            optional("url", "--url", "the new https URL"),
            EVENTS,
            option("all_events", "--all-events", "call it for all events", bool, default=False),
            DESCRIPTION,
            optional("format", "--format", FORMATS),
            optional("with_justification", "--justification/--no-justification", WHETHER_WHY, bool),
            optional("enabled", "--enable/--disable", "enable or disable the webhook", bool),
        ),
        AN_ENDPOINT,
        """Change a webhook; what you leave out stays as it is.

        Every change except its description and disabling it requires a fresh sign-in.
        """,
        _changed_endpoint,
    ),
    "remove": RouteCommand(
        f"DELETE {ENDPOINT_PATH}", (ENDPOINT,), REMOVED, "Remove a webhook; it is no longer called."
    ),
    "rotate": RouteCommand(
        f"POST {ENDPOINT_PATH}/rotate",
        (ENDPOINT, option("overlap_hours", "--overlap-hours", OVERLAP, int, default=24)),
        SECRET,
        """Replace a webhook's secret; print the new one, once.

        Requires a fresh sign-in.
        """,
    ),
    "test": RouteCommand(
        f"POST {ENDPOINT_PATH}/test",
        (ENDPOINT,),
        Sentence(
            "Test queued with webhook-id {webhook_id}. To see the result: lockbox endpoint deliveries {endpoint_id}"
        ),
        "Send a test event to a webhook.",
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
        "List the delivery attempts of a webhook, newest first.",
    ),
    "redeliver": RouteCommand(
        "POST /v1/deliveries/{delivery_id}/redeliver",
        (argument("delivery_id", "delivery", "the id of a delivery"),),
        Sentence("Call queued again with webhook-id {webhook_id}."),
        "Repeat a finished delivery under the same webhook-id.",
    ),
}


# The vendor's staff, and undelivered notifications

STAFF_ROLES = option("roles", "--role", "engineer, manager, operator, vendor_auditor or system; repeat", list[str])
TIER_HELP = "a manager's review tier; the lowest is asked first"
TIER = CommandParameter("review_tier", Annotated[int | None, typer.Option(min=1, max=5, help=TIER_HELP)], None)
STAFF, COLLEAGUE = "/v1/vendor/members", "/v1/vendor/members/{person_id}"
WORKS: Mapping[str, Field] = {"Person": "id", **NAMED, "Review tier": "review_tier", "Disabled": "disabled"}
A_COLLEAGUE = FactsOf({**WORKS, "Since": moment_of("since"), "Version": "version"})
VENDOR_COMMANDS = {
    "list": RouteCommand(
        f"GET {STAFF}",
        PAGE,
        TableOf({**WORKS, "Version": "version"}),
        "List the vendor's staff, as an operator or auditor.",
    ),
    "invite": RouteCommand(
        f"POST {STAFF}",
        (*INVITEE, STAFF_ROLES),
        INVITED,
        """Invite somebody by mail, as an operator.

        Invite a service account the same way, with the role system: whoever sets it up accepts the invitation and
        creates its first token in that session.
        """,
    ),
    "roles": RouteCommand(
        f"PUT {COLLEAGUE}",
        (PERSON, STAFF_ROLES, TIER, VERSION),
        A_COLLEAGUE,
        "Set somebody else's roles and review tier, as an operator.",
    ),
    "remove": RouteCommand(
        f"DELETE {COLLEAGUE}",
        (PERSON,),
        Sentence("Removed. They have no role at the vendor."),
        "Remove all roles of somebody else, as an operator.",
    ),
    "disable": RouteCommand(
        f"POST {COLLEAGUE}/disable", (PERSON,), A_COLLEAGUE, "Disable somebody else's account, as an operator."
    ),
    "invitations": RouteCommand(
        "GET /v1/vendor/invitations", (), OPEN, "List open invitations to the vendor's side."
    ),
    "withdraw": RouteCommand(
        "DELETE /v1/vendor/invitations/{invitation_id}",
        (INVITATION,),
        WITHDRAWN,
        "Withdraw an invitation to the vendor's side.",
    ),
    "undelivered": RouteCommand(
        "GET /v1/vendor/undelivered",
        PAGE,
        TableOf(
            {
                "Request": "request_id",
                "Customer": "tenant",
                "Template": words_of("template"),
                "Channel": "channel",
                "Time": moment_of("died_at"),
                "Error": words_of("error"),
                "Delivery": "delivery_id",
            }
        ),
        """List undelivered notifications, as an operator.

        Shows what each was for and why it failed, but neither the recipient nor the text. Repeat a call of one of the
        vendor's own webhooks by its delivery id.
        """,
    ),
}

GROUPS = {
    "member": ("Members of a customer.", MEMBER_COMMANDS),
    "invitation": ("Open invitations of a customer.", INVITATION_COMMANDS),
    "delegation": ("Delegates of approvers.", DELEGATION_COMMANDS),
    "observer": ("Observers, who get copies and cannot decide.", OBSERVER_COMMANDS),
    "endpoint": ("Webhooks.", ENDPOINT_COMMANDS),
    "vendor": ("The vendor's staff.", VENDOR_COMMANDS),
}
BY_HAND = {"member": {"delegate-eligible": delegate_eligible}}

app = typer.Typer()
for _name, (_help, _commands) in GROUPS.items():
    app.add_typer(group(_help, _commands, BY_HAND.get(_name, {})), name=_name)
