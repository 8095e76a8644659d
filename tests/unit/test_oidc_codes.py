"""Codes of identity providers, and the keys that sign the ID tokens redeemed for them."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from joserfc.jwk import JWKRegistry, generate_key

from catalogue.issuers import IdentityProvider
from harness.webhook_receiver import ScriptedAnswer
from lockbox.errors import Busy, NotSignedIn
from lockbox.identity.oidc import AuthorizationRequest, VerifiedIdentity, begin, finish, verify
from lockbox.identity.oidc_providers import IdentityProviders, ProviderMetadata
from tests.oidc_issuer import (
    AT,
    AUDIENCE,
    BROKEN,
    CLIENT_ID,
    DISCOVERY,
    DRIP,
    HUGE,
    NOON,
    NOT_AN_OBJECT,
    NOT_JSON,
    REDIRECT,
    REDIRECT_URI,
    LocalIssuer,
    ec_key,
    ed_key,
    local_issuer,
    rsa_key,
)

GOOD = {"issuer": "https://sso.example", "audience": "lockbox", "client_id": "a b&c"}
METADATA = ProviderMetadata(
    jwks_url="https://sso.example/jwks",
    authorization_endpoint="https://sso.example/authorize?theme=dark&state=fixed",
    token_endpoint="https://sso.example/token",
    names_itself=True,
)


@pytest.fixture
def issuer() -> Iterator[LocalIssuer]:
    with local_issuer() as running:
        yield running


@pytest.fixture
def issuers(issuer: LocalIssuer) -> IdentityProviders:
    return IdentityProviders([issuer.configured()], seconds=20.0, wait_seconds=20.0)


def sign_in(begun: AuthorizationRequest) -> dict[str, str]:
    """Follow a sign-in redirect as a browser does, and return the parameters of the callback."""
    back = httpx.get(begun.url, trust_env=False).headers["location"]
    return {name: values[0] for name, values in parse_qs(urlsplit(back).query).items()}


def come_back(
    issuers: IdentityProviders,
    issuer: LocalIssuer,
    begun: AuthorizationRequest,
    brought: dict[str, str],
    **changes: Any,
) -> VerifiedIdentity:
    """Finish the sign-in with the parameters of the callback and the stored secrets, with changes."""
    facts: dict[str, Any] = {
        "code": brought["code"],
        "verifier": begun.verifier,
        "nonce": begun.nonce,
        "redirect_uri": REDIRECT_URI,
        "now": NOON,
        "answered_by": brought.get("iss"),
    }
    return finish(issuers, known(issuers, issuer), **facts | changes)


def known(issuers: IdentityProviders, issuer: LocalIssuer) -> IdentityProvider:
    found = issuers.configured(issuer.url)
    assert found is not None
    return found


def begun_with(issuers: IdentityProviders, issuer: LocalIssuer) -> AuthorizationRequest:
    return begin(known(issuers, issuer), issuers.metadata(known(issuers, issuer)), REDIRECT_URI)


def test_the_sign_in_redirect_contains_a_pkce_challenge_and_not_its_verifier() -> None:
    begun = begin(IdentityProvider.model_validate(GOOD), METADATA, REDIRECT_URI)

    asked = parse_qs(urlsplit(begun.url).query)

    assert begun.url.startswith("https://sso.example/authorize?theme=dark&")
    assert asked.pop("code_challenge")[0]
    assert asked == {
        "theme": ["dark"],
        "response_type": ["code"],
        "client_id": ["a b&c"],
        "redirect_uri": [REDIRECT_URI],
        "scope": ["openid profile email"],
        "state": [begun.state],
        "nonce": [begun.nonce],
        "code_challenge_method": ["S256"],
    }
    assert begun.verifier not in begun.url


def test_no_two_issuer_sign_ins_share_secrets_and_no_secret_is_shown() -> None:
    begun = [begin(IdentityProvider.model_validate(GOOD), METADATA, REDIRECT_URI) for _ in range(50)]

    secrets = {secret for one in begun for secret in (one.state, one.nonce, one.verifier)}

    assert len(secrets) == 150
    assert all(len(secret) >= 43 for secret in secrets)
    assert not any(secret in repr(replace(begun[0], url="")) for secret in secrets)


def test_a_browser_sign_in_at_an_issuer_proves_who_signed_in(issuer: LocalIssuer, issuers: IdentityProviders) -> None:
    begun = begun_with(issuers, issuer)
    issuer.subject = "bert"

    brought = sign_in(begun)

    assert brought["state"] == begun.state
    proven = come_back(issuers, issuer, begun, brought)
    assert proven == VerifiedIdentity(issuer.url, "bert", NOON - timedelta(seconds=5), None, None, ())


def test_a_public_client_signs_in_at_an_issuer_without_a_secret(issuer: LocalIssuer) -> None:
    issuers = IdentityProviders([issuer.configured(client_id="public", client_secret=None)])
    begun = begun_with(issuers, issuer)

    assert come_back(issuers, issuer, begun, sign_in(begun)).subject == "anne"


@pytest.mark.parametrize(
    "changes",
    [
        {"verifier": "x" * 43},
        {"verifier": ""},
        {"code": "made-up"},
        {"code": ""},
        {"redirect_uri": f"{REDIRECT_URI}/"},
        {"nonce": "another"},
        {"answered_by": None},
        {"answered_by": "https://other.example"},
    ],
)
def test_an_issuer_callback_that_does_not_match_the_begun_sign_in_is_refused(
    issuer: LocalIssuer, issuers: IdentityProviders, changes: dict[str, Any]
) -> None:
    begun = begun_with(issuers, issuer)

    with pytest.raises(NotSignedIn, match="not completed; start it again"):
        come_back(issuers, issuer, begun, sign_in(begun), **changes)


def test_an_issuers_authorisation_code_works_once(issuer: LocalIssuer, issuers: IdentityProviders) -> None:
    begun = begun_with(issuers, issuer)
    brought = sign_in(begun)
    come_back(issuers, issuer, begun, brought)

    with pytest.raises(NotSignedIn):
        come_back(issuers, issuer, begun, brought)


def test_an_authorisation_code_of_another_browser_is_refused(issuer: LocalIssuer, issuers: IdentityProviders) -> None:
    mine, attackers = begun_with(issuers, issuer), begun_with(issuers, issuer)
    brought = sign_in(attackers)

    assert brought["state"] != mine.state
    with pytest.raises(NotSignedIn):
        come_back(issuers, issuer, mine, brought)


def test_the_id_token_of_another_client_is_refused_even_if_the_client_is_listed(issuer: LocalIssuer) -> None:
    issuers = IdentityProviders([issuer.configured(authorized_parties=("another",))])
    issuer.id_token = {"azp": "another"}
    begun = begun_with(issuers, issuer)

    with pytest.raises(NotSignedIn):
        come_back(issuers, issuer, begun, sign_in(begun))


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": AUDIENCE},
        {"aud": [CLIENT_ID, AUDIENCE]},
        {"azp": "another"},
        {"iss": "https://other.example"},
        {"nonce": None},
        {"nonce": ["n"]},
        {"nonce": "\ud800"},
        {"exp": AT - 61},
        {"sub": None},
        {"header": {"typ": "at+jwt"}},
        {"header": {"alg": "none"}},
        {"key": ec_key(7)},
    ],
)
def test_a_sign_in_with_an_invalid_id_token_is_refused(
    issuer: LocalIssuer, issuers: IdentityProviders, claims: dict[str, Any]
) -> None:
    issuer.id_token = claims
    begun = begun_with(issuers, issuer)

    with pytest.raises(NotSignedIn):
        come_back(issuers, issuer, begun, sign_in(begun))


@pytest.mark.parametrize(
    "answer", [BROKEN, REDIRECT, HUGE, DRIP, NOT_JSON, NOT_AN_OBJECT, ScriptedAnswer(status=401)]
)
def test_a_misbehaving_token_endpoint_is_not_blamed_on_the_person(
    issuer: LocalIssuer, issuers: IdentityProviders, answer: ScriptedAnswer, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = begun_with(issuers, issuer)
    brought = sign_in(begun)
    issuer.troubles["/token"] = answer
    if answer.drops:
        monkeypatch.setattr(issuers, "_seconds", 0.7)

    with pytest.raises(Busy, match="cannot be reached"):
        come_back(issuers, issuer, begun, brought)


def test_an_issuer_answer_without_an_id_token_is_refused(issuer: LocalIssuer, issuers: IdentityProviders) -> None:
    begun = begun_with(issuers, issuer)
    brought = sign_in(begun)
    issuer.troubles["/token"] = ScriptedAnswer(body=b'{"access_token": "opaque"}')

    with pytest.raises(NotSignedIn):
        come_back(issuers, issuer, begun, brought)


def test_an_issuer_need_not_name_itself_in_the_callback(issuer: LocalIssuer, issuers: IdentityProviders) -> None:
    issuer.published = {"authorization_response_iss_parameter_supported": False}
    begun = begun_with(issuers, issuer)

    assert come_back(issuers, issuer, begun, sign_in(begun), answered_by=None).subject == "anne"
    with pytest.raises(NotSignedIn):
        come_back(issuers, issuer, begun, sign_in(begun), answered_by="https://other.example")


@pytest.mark.parametrize("page", ["javascript:alert(1)", "urn:none", "https://", "https://sso.example:x/", None])
def test_an_issuer_without_an_authorisation_endpoint_is_reported(
    issuer: LocalIssuer, issuers: IdentityProviders, page: str | None
) -> None:
    issuer.published = {"authorization_endpoint": page}

    with pytest.raises(NotSignedIn, match="not set up for browsers"):
        begun_with(issuers, issuer)


def test_an_issuer_without_a_client_is_for_bearer_tokens_only() -> None:
    with pytest.raises(NotSignedIn, match="not set up for browsers"):
        begin(IdentityProvider.model_validate(GOOD | {"client_id": None}), METADATA, REDIRECT_URI)


def test_a_sign_in_with_an_unreachable_issuer_does_not_start(issuer: LocalIssuer, issuers: IdentityProviders) -> None:
    issuer.troubles[DISCOVERY] = BROKEN

    with pytest.raises(Busy):
        begun_with(issuers, issuer)


@pytest.mark.parametrize(
    "entry",
    [
        {"kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"},
        {"kty": "AKP", "pub": "AAAA"},
        {"kty": "EC", "crv": "secp256k1", "x": "AAAA", "y": "AAAA"},
        {"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA"},
        {"kty": "EC"},
        {"kty": ["RSA"]},
        {"kty": "RSA", "n": 7, "e": "AQAB"},
        generate_key("RSA", 2048).as_dict(private=True),
        {**rsa_key(1).as_dict(private=False), "n": "AQAB"},
        {**rsa_key(1).as_dict(private=False), "use": "enc"},
        {**rsa_key(1).as_dict(private=False), "key_ops": ["encrypt"]},
        "RSA",
        None,
    ],
)
def test_an_invalid_issuer_key_leaves_the_issuers_valid_keys_usable(
    issuer: LocalIssuer, issuers: IdentityProviders, entry: Any
) -> None:
    issuer.keys = [ec_key(), ed_key(), rsa_key()]
    issuer.strange_keys = [entry]

    for key in issuer.keys:
        assert verify(issuer.token(key=key), issuers, NOON).subject == "anne"


@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
@pytest.mark.parametrize("flaw", ["short", "curve", "published", "for encryption"])
def test_an_invalid_issuer_key_is_never_used(issuer: LocalIssuer, flaw: str) -> None:
    flawed: dict[str, tuple[str, str | int]] = {"short": ("RSA", 1024), "curve": ("OKP", "Ed448")}
    key = JWKRegistry.generate_key(*flawed.get(flaw, ("RSA", 2048)), {"kid": "bad"})
    use = {"use": "enc"} if flaw == "for encryption" else {}
    issuer.strange_keys = [key.as_dict(private=flaw == "published") | use]
    token = issuer.token(key=key, header={"alg": "EdDSA" if flaw == "curve" else "RS256"})

    with pytest.raises(NotSignedIn):
        verify(token, IdentityProviders([issuer.configured()]), NOON)


def test_an_encryption_key_does_not_make_an_issuers_single_signing_key_ambiguous(
    issuer: LocalIssuer, issuers: IdentityProviders
) -> None:
    issuer.strange_keys = [rsa_key(1).as_dict(private=False) | {"use": "enc"}]

    assert verify(issuer.token(header={"kid": None}), issuers, NOON).subject == "anne"
