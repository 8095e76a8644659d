"""The commands that call one route each."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any
from uuid import UUID

import typer

from cli.access_review import ACCESS_REVIEW
from cli.client import at, call, stop
from cli.inputs import duration_option, hours, id_argument, the_one
from cli.route_command import (
    IF_MATCH,
    PAGE,
    TENANT,
    CommandParameter,
    FactsOf,
    Field,
    IdField,
    Once,
    RouteCommand,
    Sentence,
    TableOf,
    argument,
    group,
    ids_at,
    listed_id,
    moment_of,
    option,
    optional,
)
from cli.terminal import Output, OutputFormat
from cli.values import Phrase, moment, phrase, words

NAMED: Mapping[str, Field] = {"Name": "name", "Address": "address", "Roles": "roles"}
REMOVED = Sentence("Removed.")


def _or_all(name: str) -> Field:
    return lambda one: one[name] or "all"


# Invitations to a tenant, and to the vendor's side


def _expiry(invitation: Mapping[str, Any]) -> Phrase:
    until = ("until ", moment(invitation["expires_at"])) if invitation["expires_at"] else ()
    if invitation["is_recovery"]:
        effect = ("proposed by the vendor, from ", moment(invitation["takes_effect_at"]))
        return phrase(*effect, *((" ", *until) if until else ()))
    return phrase(*(until or ("once it is mailed",)))


INVITEE = (option("name", "--name", "the invitee's name"), option("address", "--email", "the invitee's mail address"))
INVITED = FactsOf({"Invitation": "id", **NAMED}, "The invitation is being mailed; only the mail contains the code.")
OPEN = TableOf({"Invitation": IdField("id"), **NAMED, "Good": _expiry})
WITHDRAWN = Sentence("Withdrawn: the mailed code no longer works.")
INVITATIONS = "/v1/tenants/{slug}/invitations"
INVITATION = listed_id("invitation_id", "INVITATION", "its id", INVITATIONS)
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
PERSON = listed_id("person_id", "PERSON", "the person's id", MEMBERS)
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
        TableOf({"Person": IdField("id"), **NAMED, "Delegate": "eligible", "Version": "version"}),
        "List the members, to the tenant's own people.",
    ),
    "invite": RouteCommand(
        f"POST {MEMBERS}",
        (TENANT, *INVITEE, ROLES),
        INVITED,
        """Invite a person by mail, as a tenant admin.

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
    person: Annotated[str, id_argument("PERSON", "the person's id")],
    eligible: Annotated[bool, typer.Option("--yes/--no", help="whether approvers may name them")] = True,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Set whether approvers may name a member as delegate.

    For tenant admins. Delegations of a member who is no longer eligible end.
    """
    members = at("tenants", tenant, "members")
    whole = the_one(person, ids_at(members))
    found = call("GET", f"{members}/{whole}")
    given = {"slug": tenant, "person_id": whole, "roles": found["roles"], IF_MATCH: found["version"]}
    MEMBER_COMMANDS["roles"].run(**given, eligible=eligible, output=output)


MEMBER_COMMANDS["review"] = RouteCommand(
    "GET /v1/tenants/{slug}/access-review",
    (TENANT,),
    ACCESS_REVIEW,
    "Review who may approve, as a tenant admin or auditor. It says through what, and who signed in when.",
)


# Delegates of approvers

DELEGATIONS = "/v1/tenants/{slug}/delegations"
DELEGATED: Mapping[str, Field] = {
    "Delegation": IdField("id"),
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
            listed_id("delegate", "DELEGATE", "the delegate's id", MEMBERS),
            option("ends_at", "--until", "such as 2031-05-01T08:00:00Z"),
            optional("starts_at", "--from", "likewise; now if left out"),
            optional("principal", "--for", "the id of an absent approver; for tenant admins", UUID),
        ),
        FactsOf(DELEGATED),
        "Name your delegate for a period, or an absent approver's.",
    ),
    "end": RouteCommand(
        f"DELETE {DELEGATIONS}/{{delegation_id}}",
        (TENANT, listed_id("delegation_id", "DELEGATION", "its id", DELEGATIONS)),
        Sentence("Ended."),
        "End a delegation now.",
    ),
}


# Observers, who get copies of the mails about requests

OBSERVERS = "/v1/tenants/{slug}/observers"
OBSERVER: Mapping[str, Field] = {
    "Observer": IdField("id"),
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
        (TENANT, listed_id("observer_id", "OBSERVER", "its id", OBSERVERS)),
        Sentence("Removed. This observer gets no more copies."),
        "Remove an observer, as a tenant admin.",
    ),
}


# Webhooks and their log, of a customer (as its admin) or of the vendor (as an operator)


def _endpoint_state(one: Mapping[str, Any]) -> str | Phrase:
    if one["disabled_at"]:
        return f"disabled ({words(one['why_disabled'] or 'by hand')})"
    return phrase("failing since ", moment(one["failing_since"])) if one["failing_since"] else "called"


def _changed_endpoint(given: dict[str, Any]) -> dict[str, Any]:
    if given.pop("all_events"):
        given["event_types"] = []
    if not given:
        raise stop("name what to change, such as --disable")
    return given


def _endpoint_ids() -> Iterator[str]:
    me = call("GET", at("me"))
    for slug, roles in me["tenants"].items():
        if "tenant_admin" in roles:
            yield from ids_at(at("tenants", slug, "endpoints"))
    if "operator" in me["roles"]:
        yield from ids_at(at("vendor", "endpoints"))


def _delivery_ids(beginning: str) -> Iterator[str]:
    """Yield ids of deliveries, newest first, including all that begin with `beginning`."""
    last = str(UUID(beginning.replace("-", "").ljust(32, "f")))
    for endpoint in _endpoint_ids():
        asked: dict[str, Any] = {"limit": 200, "cursor": last}
        while asked["cursor"]:
            page = call("GET", at("endpoints", endpoint, "deliveries"), params=asked)
            ids = [one["id"] for one in page["items"]]
            yield from ids
            asked["cursor"] = page["next_cursor"] if ids[-1:] > [beginning] else None


ENDPOINT = CommandParameter(
    "endpoint_id",
    Annotated[str, id_argument("ENDPOINT", "its id")],
    whole=lambda given, _: the_one(given, _endpoint_ids()),
)
DELIVERY = CommandParameter(
    "delivery_id",
    Annotated[str, id_argument("DELIVERY", "the id of a delivery")],
    whole=lambda given, _: the_one(given, _delivery_ids(given)),
)
WHOSE = optional("slug", "--tenant", "the customer's slug; the vendor's own if left out")
EVENTS = optional("event_types", "--event", "such as request.denied; repeat; all if left out", list[str])
DESCRIPTION = optional("description", "--description", "a description")
FORMATS = "json (Standard Webhooks) or slack"
OVERLAP_HELP = "how long the old secret stays valid; 0h ends it now, 24h if left out"
OVERLAP = CommandParameter(
    "overlap_hours", Annotated[int, duration_option("--overlap", OVERLAP_HELP, hours, show_default=False)], 24
)
WHY = "send the justification, to a webhook of a customer"
WHETHER_WHY = "whether to send the justification, to a webhook of a customer"
ENDPOINTS = "/v1/tenants/{slug}/endpoints or /v1/vendor/endpoints"
ENDPOINT_PATH = "/v1/endpoints/{endpoint_id}"
NAMED_URL: Mapping[str, Field] = {
    "Webhook": IdField("id"),
    "Address": "url",
    "Name": "description",
    "Format": "format",
}
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
        (ENDPOINT, OVERLAP),
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
                "Delivery": IdField("id"),
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
        (DELIVERY,),
        Sentence("Call queued again with webhook-id {webhook_id}."),
        "Repeat a finished delivery under the same webhook-id.",
    ),
}


GROUPS = {
    "member": ("Members of a customer.", MEMBER_COMMANDS),
    "invitation": ("Open invitations of a customer.", INVITATION_COMMANDS),
    "delegation": ("Delegates of approvers.", DELEGATION_COMMANDS),
    "observer": ("Observers, who get copies and cannot decide.", OBSERVER_COMMANDS),
    "endpoint": ("Webhooks.", ENDPOINT_COMMANDS),
}
BY_HAND = {"member": {"delegate-eligible": delegate_eligible}}

app = typer.Typer()
for _name, (_help, _commands) in GROUPS.items():
    app.add_typer(group(_help, _commands, BY_HAND.get(_name, {})), name=_name)
