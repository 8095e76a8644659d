"""Commands of the vendor's staff, and of undelivered notifications."""

from collections.abc import Mapping
from typing import Annotated

import typer

from cli.access_review import ACCESS_REVIEW
from cli.commands import INVITED, INVITEE, NAMED, OPEN, VERSION, WITHDRAWN
from cli.route_command import (
    PAGE,
    CommandParameter,
    FactsOf,
    Field,
    IdField,
    RouteCommand,
    Sentence,
    TableOf,
    group,
    listed_id,
    moment_of,
    option,
    optional,
    words_of,
)

STAFF_ROLES = option("roles", "--role", "engineer, manager, operator, vendor_auditor or system; repeat", list[str])
TIER_HELP = "a manager's review tier; the lowest is asked first"
TIER = CommandParameter("review_tier", Annotated[int | None, typer.Option(min=1, max=5, help=TIER_HELP)], None)
STAFF, COLLEAGUE = "/v1/vendor/members", "/v1/vendor/members/{person_id}"
ONE_OF_THEM = listed_id("person_id", "PERSON", "the person's id", STAFF)
DIRECTORY = f"{COLLEAGUE}/directory"
A_RECORD = FactsOf(
    {
        "Person": "person.id",
        "Name": "person.name",
        "Employed by": "employing_entity",
        "Office": "office_country",
        "Located in": "physical_country",
        "Source": "source",
        "As of": moment_of("as_of"),
    }
)
STAFF_INVITATIONS = "/v1/vendor/invitations"
STAFF_INVITATION = listed_id("invitation_id", "INVITATION", "its id", STAFF_INVITATIONS)
WORKS: Mapping[str, Field] = {"Person": IdField("id"), **NAMED, "Review tier": "review_tier", "Disabled": "disabled"}
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
        """Invite a person by mail, as an operator.

        Invite a service account the same way, with the role system: the person who sets it up accepts the
        invitation and creates its first token in that session.
        """,
    ),
    "review": RouteCommand(
        "GET /v1/vendor/access-review",
        (),
        ACCESS_REVIEW,
        "Review who has a role at the vendor, as an operator. Auditors can too; it says who signed in when.",
    ),
    "roles": RouteCommand(
        f"PUT {COLLEAGUE}",
        (ONE_OF_THEM, STAFF_ROLES, TIER, VERSION),
        A_COLLEAGUE,
        "Set a colleague's roles and review tier, as an operator.",
    ),
    "remove": RouteCommand(
        f"DELETE {COLLEAGUE}",
        (ONE_OF_THEM,),
        Sentence("Removed. They have no role at the vendor."),
        "Remove all roles of a colleague, as an operator.",
    ),
    "disable": RouteCommand(
        f"POST {COLLEAGUE}/disable", (ONE_OF_THEM,), A_COLLEAGUE, "Disable a colleague's account, as an operator."
    ),
    "directory": RouteCommand(
        f"GET {DIRECTORY}",
        (ONE_OF_THEM,),
        A_RECORD,
        "Show where the directory says that a person works.",
    ),
    "set-directory": RouteCommand(
        f"PUT {DIRECTORY}",
        (
            ONE_OF_THEM,
            optional("employing_entity", "--entity", "who employs them, such as 'Example Support GmbH'"),
            optional("office_country", "--office", "the country of their office, such as DE"),
            optional("physical_country", "--located", "the country where they are, such as PL"),
        ),
        A_RECORD,
        """Write where the directory says that a person works.

        As a service account, whose token needs the scope directory:write. What is left out is not
        known from then on. Countries are the two letters of ISO 3166-1.
        """,
    ),
    "invitations": RouteCommand(f"GET {STAFF_INVITATIONS}", (), OPEN, "List open invitations to the vendor's side."),
    "withdraw": RouteCommand(
        f"DELETE {STAFF_INVITATIONS}/{{invitation_id}}",
        (STAFF_INVITATION,),
        WITHDRAWN,
        "Withdraw an invitation to the vendor's side.",
    ),
    "undelivered": RouteCommand(
        "GET /v1/vendor/undelivered",
        PAGE,
        TableOf(
            {
                "Request": IdField("request_id"),
                "Customer": "tenant",
                "Template": words_of("template"),
                "Channel": "channel",
                "Time": moment_of("died_at"),
                "Error": words_of("error"),
                "Delivery": IdField("delivery_id"),
            }
        ),
        """List undelivered notifications, as an operator.

        Shows what each was for and why it failed, but neither the recipient nor the text. Repeat a call of one of the
        vendor's own webhooks by its delivery id.
        """,
    ),
}

app = group("The vendor's staff.", VENDOR_COMMANDS, {})
