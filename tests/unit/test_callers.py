"""Whose calls are gated: clear claims, ambiguous claims, and contradictory setups."""

from collections.abc import Mapping
from typing import Any

import pytest

from catalogue.gate_document import GateCallers
from catalogue.issuers import IdentityProvider
from catalogue.service_catalogue import Catalogue
from gate.bearer_tokens import GateIssuer
from gate.engineers import ServiceCallers, callers_of, issuer_names, may_say
from tests.each import each

IDP, OTHER = "https://sso.vendor.example", "https://sso.customer.example"
VENDOR = GateIssuer(IdentityProvider(issuer=IDP, audience="mail"))
CUSTOMER = GateIssuer(IdentityProvider(issuer=OTHER, audience="mail"))
RULE = GateCallers(issuer=IDP, claim="groups", value="support")


@each(
    ("found", "says"),
    [
        ("support", True),
        (" support ", True),
        ("Support", True),
        ("SUPPORT", True),
        ("read support write", True),
        ("supporter", False),
        ("support-team", False),
        ("support,read", False),
        ("", False),
        ([], False),
        (["sales"], False),
        (["sales", "support"], True),
        (["sales", "Support"], True),
        (["sales support"], True),
        ([["support"]], True),
        ([["sales"]], True),
        (["sales", 7], True),
        (["sales", None], True),
        ([{"name": "sales"}], True),
        ({"support": True}, True),
        ({}, True),
        (True, True),
        (False, True),
        (0, True),
        (1.5, True),
        (None, True),
    ],
)
def test_a_claim_matches_by_its_whole_text_or_a_word_and_an_ambiguous_claim_always_matches(
    found: object, *, says: bool
) -> None:
    assert may_say(found, "support") is says


@each(
    ("found", "says"),
    [("Support Team", True), ("support team lead", False), ("team", False), (["support team"], True)],
)
def test_a_claim_of_several_words_is_compared_as_a_whole(found: object, *, says: bool) -> None:
    assert may_say(found, "Support Team") is says


@each(
    ("claims", "gated"),
    [
        ({"iss": IDP, "groups": ["support"]}, True),
        ({"iss": IDP, "groups": ["sales"]}, False),
        ({"iss": IDP}, True),
        ({"iss": IDP, "Groups": ["sales"]}, True),
        ({"iss": IDP, "realm": {"groups": ["sales"]}}, True),
        ({"iss": OTHER, "groups": ["support"]}, False),
        ({"iss": OTHER, "groups": None}, False),
    ],
)
def test_a_rule_for_gated_callers_concerns_one_claim_of_one_issuer(claims: dict[str, Any], *, gated: bool) -> None:
    assert ServiceCallers([VENDOR, CUSTOMER], RULE).is_gated(claims) is gated


def test_every_call_to_a_separate_support_address_is_gated() -> None:
    assert ServiceCallers([VENDOR]).is_gated({"iss": IDP})


def catalogue(callers: Mapping[str, Any], **changes: Any) -> Catalogue:
    """A catalogue with a gated service and one without a gate."""
    gate = {
        "tenant": {"fixed": "contoso"},
        "callers": callers,
        "paths": ({"methods": ("GET",), "path": "/all", "resource": "mailbox:all", "action": "read"},),
    }
    parts = {
        "services": {"mail": {"title": "Mail", "gate": gate}, "wiki": {"title": "Wiki"}},
        "plans": {"standard": {}},
        "issuers": ({"issuer": IDP, "audience": "mail", "jwks_url": f"{IDP}/keys"},),
    }
    return Catalogue.model_validate(parts | changes)


def test_the_catalogue_says_which_callers_are_gated() -> None:
    claimed = catalogue({"issuer": IDP, "claim": "groups", "value": "support"})
    headers: dict[str, Any] = {"subject_header": "X-Client-Subject", "engineer_header": "X-Engineer"}
    entrance = catalogue({"entrance": "support"} | headers)

    issuer = GateIssuer(
        IdentityProvider(issuer=IDP, audience="mail", jwks_url=f"{IDP}/keys"), 3600, vouches_for_mail=False
    )
    assert callers_of(claimed)["mail"] == ServiceCallers((issuer,), RULE)
    assert callers_of(entrance)["mail"] == ServiceCallers((issuer,), GateCallers(entrance="support", **headers))
    assert callers_of(entrance)["mail"].headers == {b"x-client-subject", b"x-engineer"}
    assert callers_of(claimed)["wiki"] == ServiceCallers((issuer,))
    assert issuer_names(claimed) == {IDP}
    assert issuer_names(entrance) == {IDP, "mtls:mail"}


@each(
    ("callers", "changes", "says"),
    [
        ({"entrance": "support"}, {"issuers": ()}, "nobody can say who calls"),
        ({"issuer": IDP, "claim": "groups", "value": "x", "engineer_header": "X-E"}, {}, "leave the headers out"),
        ({"entrance": "support", "engineer_header": "X-E", "subject_header": "x-e"}, {}, "name another header"),
        ({"entrance": "support", "engineer_header": "X Engineer"}, {}, "header's name"),
        ({"entrance": "support", "engineer_header": ""}, {}, "header's name"),
        ({"entrance": "support", "engineer_header": "Authorization"}, {}, "only your gateway sets"),
        ({"entrance": "support", "engineer_header": "X-Forwarded-User"}, {}, "only your gateway sets"),
    ],
)
def test_a_contradictory_setup_of_gated_callers_is_refused(
    callers: dict[str, Any], changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        catalogue(callers, **changes)


def test_a_catalogue_without_issuers_may_identify_engineers_by_a_header_at_a_support_address() -> None:
    assert callers_of(catalogue({"entrance": "support", "engineer_header": "X-E"}, issuers=()))["mail"].issuers == ()
