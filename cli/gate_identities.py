"""The commands `lockbox gate identity`: which engineer an identity at a gate is."""

from collections.abc import Mapping
from uuid import UUID

from cli.route_command import (
    PAGE,
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
)

IDENTITIES = "/v1/gate/identities"
ISSUER = "the issuer's URL, or mtls: and a service, or header: and the id of a gateway's account"
SUBJECT = "the caller there, exactly as a token's sub, the certificate or the header says it"
MAPPED: Mapping[str, Field] = {
    "Identity": IdField("id"),
    "Issuer": "issuer",
    "Subject": "subject",
    "Engineer": "person.name",
    "Person": "person.id",
    "Since": moment_of("created_at"),
}
IDENTITY_COMMANDS = {
    "add": RouteCommand(
        f"POST {IDENTITIES}",
        (
            option("issuer", "--issuer", ISSUER),
            option("subject", "--subject", SUBJECT),
            option("person_id", "--person", "the engineer's id, which `lockbox vendor list` shows", UUID),
        ),
        FactsOf(MAPPED, "Takes effect on the next call at a gate."),
        """Map an identity to an engineer, as another operator.

        Requires a fresh sign-in: set LOCKBOX_TOKEN to a token of your identity provider, not an API token.
        """,
    ),
    "list": RouteCommand(
        f"GET {IDENTITIES}", PAGE, TableOf(MAPPED), "List the mapped identities, as an operator or auditor."
    ),
    "remove": RouteCommand(
        f"DELETE {IDENTITIES}/{{identity_id}}",
        (listed_id("identity_id", "IDENTITY", "its id, which `list` shows", IDENTITIES),),
        Sentence("Removed. Calls with this identity are refused, unless it is known otherwise."),
        """Remove an identity, as an operator.

        Requires a fresh sign-in.
        """,
    ),
}

app = group("Which engineer an identity at a gate is.", IDENTITY_COMMANDS, {})
