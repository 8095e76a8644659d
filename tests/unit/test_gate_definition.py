"""A gate's definition: the same for the same meaning, another for each thing that decides what a call uses."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from config.service_catalogue import Catalogue
from gate.gate_definition import MOST_SHOWN, GateDefinition, differences

DOCUMENT: dict[str, Any] = {
    "services": {
        "mail": {
            "title": "Mail",
            "actions": ("read", "change"),
            "gate": {
                "tenant": {"host": "{tenant}.mail.example"},
                "callers": {"entrance": "support"},
                "escaped": "@:",
                "ignored_query": ("a", "b"),
                "paths": (
                    {
                        "methods": ("GET", "HEAD"),
                        "path": "/boxes/{box}",
                        "resource": "mailbox:{box}",
                        "action": "read",
                    },
                    {
                        "methods": ("PUT",),
                        "path": "/boxes/{box}",
                        "resource": "mailbox:{box}",
                        "action": "change",
                        "query": {"dry": "no"},
                    },
                ),
            },
        }
    },
    "plans": {"basic": {}},
    "issuers": (
        {
            "issuer": "https://idp.example",
            "audience": "mail",
            "jwks_url": "https://idp.example/keys",
            "azp": ("x", "y"),
        },
        {"issuer": "https://other.example", "audience": "mail", "jwks_url": "https://other.example/keys"},
    ),
}
Change = Callable[[dict[str, Any], dict[str, Any]], object]


def defined(change: Change = lambda *_: None) -> GateDefinition:
    document = deepcopy(DOCUMENT)
    change(document, document["services"]["mail"]["gate"])
    return GateDefinition.of(Catalogue.model_validate(document), "mail")


def reversed_in(gate: dict[str, Any], *names: str) -> None:
    for name in names:
        gate[name] = gate[name][::-1]


SAME: dict[str, Change] = {
    "paths in another order": lambda _, gate: reversed_in(gate, "paths"),
    "methods in another order": lambda _, gate: reversed_in(gate["paths"][0], "methods"),
    "ignored parameters in another order": lambda _, gate: reversed_in(gate, "ignored_query", "escaped"),
    "actions in another order": lambda document, _: reversed_in(document["services"]["mail"], "actions"),
    "issuers in another order": lambda document, _: reversed_in(document, "issuers"),
    "parties in another order": lambda document, _: reversed_in(document["issuers"][0], "azp"),
    "another title": lambda document, _: document["services"]["mail"].update(title="Post"),
    "another enforcement, of which there are events of its own": lambda _, gate: gate.update(enforcement="report"),
    "a default that is written": lambda document, _: document["issuers"][0].update(longest_token=3600),
}
OTHER: dict[str, tuple[str, Change]] = {
    "path": ("paths", lambda _, gate: gate["paths"][0].update(path="/mailboxes/{box}")),
    "resource": ("paths", lambda _, gate: gate["paths"][0].update(resource="mailbox:other-{box}")),
    "action": ("paths", lambda _, gate: gate["paths"][1].update(action="read")),
    "method": ("paths", lambda _, gate: gate["paths"][0].update(methods=("GET", "DELETE"))),
    "query": ("paths", lambda _, gate: gate["paths"][1].update(query={"dry": "yes"})),
    "ignored": ("ignored parameters", lambda _, gate: gate.update(ignored_query=("a",))),
    "escaped": ("escaped characters", lambda _, gate: gate.update(escaped="@")),
    "tenant": ("customer", lambda _, gate: gate.update(tenant={"fixed": "contoso"})),
    "callers": ("callers", lambda _, gate: gate["callers"].update(engineer_header="Lockbox-Who")),
    "actions": (
        "actions",
        lambda document, _: document["services"]["mail"].update(actions=("read", "change", "export")),
    ),
    "issuer": ("issuers", lambda document, _: document["issuers"][0].update(mail_is_authoritative=True)),
    "keys": ("issuers", lambda document, _: document["issuers"][1].update(jwks_url="https://evil.example/keys")),
    "party": ("issuers", lambda document, _: document["issuers"][0].update(azp=("x",))),
}


@pytest.mark.parametrize("what", SAME)
def test_the_same_meaning_has_the_same_digest(what: str) -> None:
    assert defined(SAME[what]).digest == defined().digest


@pytest.mark.parametrize("what", OTHER)
def test_each_thing_that_decides_what_a_call_uses_is_in_the_digest_and_named(what: str) -> None:
    part, change = OTHER[what]
    before, after = defined(), defined(change)

    assert after.digest != before.digest
    assert list(differences(before.body, after.body, "contoso")) == [part]


def test_every_field_of_the_gate_and_of_issuers_is_in_the_definition() -> None:
    """A field that is added to the catalogue is either part of it, or left out here for a reason."""
    document = deepcopy(DOCUMENT)
    catalogue = Catalogue.model_validate(document)
    gate, body = catalogue.services["mail"].gate, defined().body
    assert gate is not None

    for part in (gate, gate.paths[0], gate.callers, gate.tenant, catalogue.issuers[0]):
        said = part.model_dump(exclude_none=True)
        assert {name for name in said if f'"{name}":' not in body} <= {"enforcement"}


def test_a_difference_says_what_went_and_what_came() -> None:
    after = defined(lambda _, gate: gate["paths"][0].update(resource="mailbox:everybody-{box}", methods=("GET",)))

    (said,) = differences(defined().body, after.body, "contoso").values()

    assert said == (
        "GET HEAD /boxes/{box} is read of mailbox:{box}",
        "GET /boxes/{box} is read of mailbox:everybody-{box}",
    )


def test_a_long_difference_is_counted() -> None:
    def many(_: object, gate: dict[str, Any]) -> None:
        gate["paths"] += tuple(
            {"methods": ("GET",), "path": f"/x{n}/{{box}}", "resource": "m:{box}", "action": "read"}
            for n in range(30)
        )

    before, after = differences(defined().body, defined(many).body, "contoso")["paths"]

    assert before == "none"
    assert after.endswith(f"; and {30 - MOST_SHOWN} more")
    assert after.count(";") == MOST_SHOWN


def test_no_other_customer_is_named_to_a_customer() -> None:
    before, after = defined(lambda _, gate: gate.update(tenant={"fixed": "contoso"})), defined()

    assert differences(before.body, after.body, "contoso")["customer"][0] == "fixed: contoso"
    assert differences(before.body, after.body, "fabrikam")["customer"][0] == "fixed: another customer"
    assert differences(before.body, after.body, None)["customer"][0] == "fixed: contoso"
