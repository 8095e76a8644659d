"""The keys that an issuer publishes: the good ones are used, the others neither used nor in the way."""

from collections.abc import Iterator
from typing import Any

import pytest
from joserfc.jwk import JWKRegistry, generate_key

from lockbox.errors import NotSignedIn
from lockbox.identity.oidc import verify
from lockbox.identity.oidc_providers import IdentityProviders
from tests.oidc_issuer import NOON, LocalIssuer, ec_key, ed_key, local_issuer, rsa_key


@pytest.fixture
def issuer() -> Iterator[LocalIssuer]:
    with local_issuer() as running:
        yield running


@pytest.fixture
def issuers(issuer: LocalIssuer) -> IdentityProviders:
    return IdentityProviders([issuer.configured()])


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
def test_a_key_that_is_no_good_public_key_does_not_spoil_the_others(
    issuer: LocalIssuer, issuers: IdentityProviders, entry: Any
) -> None:
    issuer.keys = [ec_key(), ed_key(), rsa_key()]
    issuer.strange_keys = [entry]

    for key in issuer.keys:
        assert verify(issuer.token(key=key), issuers, NOON).subject == "anne"


@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
@pytest.mark.parametrize("flaw", ["short", "curve", "published", "for encryption"])
def test_a_key_that_is_no_good_is_never_used(issuer: LocalIssuer, flaw: str) -> None:
    flawed: dict[str, tuple[str, str | int]] = {"short": ("RSA", 1024), "curve": ("OKP", "Ed448")}
    key = JWKRegistry.generate_key(*flawed.get(flaw, ("RSA", 2048)), {"kid": "bad"})
    use = {"use": "enc"} if flaw == "for encryption" else {}
    issuer.strange_keys = [key.as_dict(private=flaw == "published") | use]
    token = issuer.token(key=key, header={"alg": "EdDSA" if flaw == "curve" else "RS256"})

    with pytest.raises(NotSignedIn):
        verify(token, IdentityProviders([issuer.configured()]), NOON)


def test_a_key_for_encryption_does_not_make_two_of_the_one_that_needs_no_id(
    issuer: LocalIssuer, issuers: IdentityProviders
) -> None:
    issuer.strange_keys = [rsa_key(1).as_dict(private=False) | {"use": "enc"}]

    assert verify(issuer.token(header={"kid": None}), issuers, NOON).subject == "anne"
