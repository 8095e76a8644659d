"""What an operator says about an issuer: https, no shared secret for a signature, and one tenant at most."""

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from config.issuers import IdentityProvider, IssuerList
from tests.each import each

GOOD = {"issuer": "https://sso.example", "audience": "lockbox"}


@pytest.mark.parametrize(
    ("facts", "is_plain_http", "is_on_loopback"),
    [
        ({}, False, False),
        ({"jwks_url": "https://keys.sso.example/keys?p=1"}, False, False),
        ({"issuer": "https://localhost:8443/realms/a"}, False, True),
        ({"issuer": "http://127.0.0.1:8080"}, True, True),
        ({"issuer": "http://[::1]:8080"}, True, True),
        ({"jwks_url": "http://localhost:8080/jwks"}, True, True),
    ],
)
def test_an_issuer_says_whether_it_is_fit_for_production(
    facts: dict[str, str], *, is_plain_http: bool, is_on_loopback: bool
) -> None:
    issuer = IdentityProvider.model_validate(GOOD | facts)

    assert issuer.is_plain_http is is_plain_http
    assert issuer.is_on_loopback is is_on_loopback


@each(
    ("facts", "message"),
    [
        ({"issuer": "http://sso.example"}, "use https; plain http"),
        ({"issuer": "http://127.0.0.1.sso.example"}, "use https; plain http"),
        ({"issuer": "HTTPS://sso.example"}, "small letters"),
        ({"issuer": "https://user:hunter2@sso.example"}, "leave out the user"),
        ({"issuer": "https://@sso.example"}, "leave out the user"),
        ({"issuer": "https://sso.example/#x"}, "leave out the fragment"),
        ({"issuer": "https://sso.example#"}, "leave out the fragment"),
        ({"issuer": "https://sso.example/?a=b"}, "leave out the query"),
        ({"issuer": "https://sso.example:0"}, "such as https"),
        ({"issuer": "https://sso.example:65536"}, "such as https"),
        ({"issuer": "https://"}, "such as https"),
        ({"issuer": "sso.example"}, "such as https"),
        ({"issuer": "https://sso.example /x"}, "visible ASCII"),
        ({"issuer": "https://ssö.example"}, "visible ASCII"),
        ({"jwks_url": "http://sso.example/jwks"}, "use https; plain http"),
        ({"jwks_url": "file:///etc/keys"}, "such as https"),
        ({"audience": ""}, "at least 1"),
        ({"client_secret": "hunter2"}, "needs client_id"),
        ({"client_id": "web", "client_secret": ""}, "at least 1"),
        ({"algorithms": ()}, "at least 1"),
        ({"algorithms": ("none",)}, "RS256"),
        ({"algorithms": ("RS256", "HS256")}, "RS256"),
        ({"tenant": "Contoso!"}, "pattern"),
        ({"secret": "hunter2"}, "not permitted"),
    ],
)
def test_a_setting_that_is_unsafe_or_malformed_is_refused_with_what_to_do(
    facts: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message) as refused:
        IdentityProvider.model_validate(GOOD | facts)

    assert "hunter2" not in str(refused.value)


def test_an_issuer_is_named_once_so_that_its_people_belong_to_one_tenant() -> None:
    twice = [GOOD | {"tenant": "contoso"}, GOOD | {"tenant": "fabrikam"}]

    with pytest.raises(ValidationError, match="name each issuer once"):
        TypeAdapter(IssuerList).validate_python(twice)

    assert len(TypeAdapter(IssuerList).validate_python([GOOD])) == 1


def test_a_clients_secret_does_not_show() -> None:
    issuer = IdentityProvider.model_validate(GOOD | {"client_id": "web", "client_secret": "hunter2"})

    assert "hunter2" not in repr(issuer) + issuer.model_dump_json()
