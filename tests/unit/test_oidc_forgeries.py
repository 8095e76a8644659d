"""Forged and broken tokens: whatever somebody makes up, without the issuer's key it proves nobody."""

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from joserfc.jwk import generate_key

from lockbox.errors import NotSignedIn
from lockbox.identity.oidc import MOST_TOKEN_BYTES, verify
from lockbox.identity.oidc_providers import IdentityProviders
from tests.oidc_issuer import NOON, LocalIssuer, ec_key, ed_key, encoded, local_issuer, rsa_key

SOMEBODY_ELSES = generate_key("EC", "P-256", {"kid": "ec-0", "use": "sig"})

Make = Callable[[LocalIssuer], str]


@pytest.fixture
def issuer() -> Iterator[LocalIssuer]:
    with local_issuer() as running:
        running.keys = [ec_key(), rsa_key(), ed_key()]
        yield running


@pytest.fixture
def issuers(issuer: LocalIssuer) -> IdentityProviders:
    return IdentityProviders([issuer.configured()])


def tampered(token: str, **changes: Any) -> str:
    """The token with other claims under the old signature."""
    header, payload, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "==")) | changes
    return ".".join([header, encoded(json.dumps(claims).encode()), signature])


def made_up(header: bytes, claims: bytes = b"{}") -> str:
    """Whatever somebody may write where header and claims belong."""
    return f"{encoded(header)}.{encoded(claims)}."


FORGED: dict[str, Make] = {
    "alg none": lambda it: it.unsigned_token(),
    "alg None in other letters": lambda it: it.unsigned_token("nOnE"),
    "no signature": lambda it: it.token().rpartition(".")[0] + ".",
    "HMAC with the public RSA key": lambda it: it.confused_token(rsa_key()),
    "HMAC with the public EC key": lambda it: it.confused_token(ec_key()),
    "an algorithm that is not allowed": lambda it: it.token(key=rsa_key(), header={"alg": "RS512"}),
    "the right key's id over somebody else's key": lambda it: it.token(key=SOMEBODY_ELSES),
    "a key brought along": lambda it: it.token(
        key=SOMEBODY_ELSES, header={"jwk": SOMEBODY_ELSES.as_dict(private=False)}
    ),
    "a key brought along by address": lambda it: it.token(
        key=SOMEBODY_ELSES, header={"jku": f"{it.url}/evil", "kid": "evil"}
    ),
    "an RSA signature under an EC key's id": lambda it: it.token(key=rsa_key(), header={"kid": "ec-0"}),
    "an EC signature under an RSA key's id": lambda it: it.token(header={"kid": "rsa-0"}),
    "an unknown key": lambda it: it.token(header={"kid": "made-up"}),
    "no key id though there are several keys": lambda it: it.token(header={"kid": None}),
    "a key id that is a number": lambda it: it.token(header={"kid": 7}),
    "other claims under a good signature": lambda it: tampered(it.token(), sub="boss"),
    "an extension that must be understood": lambda it: it.token(header={"crit": ["exp"], "exp": 1}),
    "an unencoded payload": lambda it: it.token(header={"b64": True, "crit": ["b64"]}),
    "the type of a logout token": lambda it: it.token(header={"typ": "logout+jwt"}),
    "the type of a proof": lambda it: it.token(header={"typ": "dpop+jwt"}),
    "a type that is a list": lambda it: it.token(header={"typ": ["JWT"]}),
    "a logout token": lambda it: it.token(events={"http://schemas.openid.net/event/backchannel-logout": {}}),
    "a token that is bound to a key": lambda it: it.token(cnf={"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}),
}


@pytest.mark.parametrize("make", FORGED.values(), ids=FORGED.keys())
def test_a_token_that_the_issuer_did_not_sign_for_this_use_is_refused(
    issuer: LocalIssuer, issuers: IdentityProviders, make: Make
) -> None:
    with pytest.raises(NotSignedIn, match="was not accepted; sign in again"):
        verify(make(issuer), issuers, NOON)


@pytest.mark.parametrize("algorithm", ["none", "HS256", "RS512", "made-up"])
def test_an_algorithm_that_is_not_allowed_is_refused_before_keys_are_fetched(
    issuer: LocalIssuer, issuers: IdentityProviders, algorithm: str
) -> None:
    with pytest.raises(NotSignedIn):
        verify(issuer.unsigned_token(algorithm), issuers, NOON)

    assert not issuer.fetched


@pytest.mark.parametrize("cut", [1, 2, 3, 10, 40, 87, 100, 200])
def test_a_truncated_token_is_refused(issuer: LocalIssuer, issuers: IdentityProviders, cut: int) -> None:
    with pytest.raises(NotSignedIn):
        verify(issuer.token()[:-cut], issuers, NOON)


@pytest.mark.parametrize(
    "junk",
    [
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        "ä.ö.ü",
        "\ud800..",
        "a" * MOST_TOKEN_BYTES,
        "." * MOST_TOKEN_BYTES,
        *(made_up(header) for header in (b"[]", b'["alg"]', b"7", b'"alg"', b"null", b"\xff", b"[" * 1200)),
        *(made_up(header) for header in (b'{"alg":["ES256"]}', b'{"alg":{}}', b'{"alg":"ES256","crit":7}')),
        *(made_up(b'{"alg":"ES256"}', claims) for claims in (b"[]", b"7", b"NaN", b"", b"[" * 5000, b"9" * 5000)),
        made_up(b'{"alg":"ES256","b64":false}', b""),
        made_up(b'{"alg":"ES256","b64":false,"crit":["b64"]}', b""),
    ],
)
def test_junk_is_refused_and_nobody_is_asked(issuer: LocalIssuer, issuers: IdentityProviders, junk: str) -> None:
    with pytest.raises(NotSignedIn):
        verify(junk, issuers, NOON)

    assert not issuer.fetched


def test_a_token_beyond_8_kib_is_refused_unread(issuer: LocalIssuer, issuers: IdentityProviders) -> None:
    with pytest.raises(NotSignedIn):
        verify(issuer.token(padding="x" * 6200), issuers, NOON)

    assert not issuer.fetched
    assert verify(issuer.token(padding="x" * 5000), issuers, NOON).subject == "anne"
