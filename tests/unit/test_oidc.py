"""Sign-in by OpenID Connect: a token proves a person only if it is for Lockbox, valid now and of a known issuer."""

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import combinations, product
from typing import Any, get_args

import pytest
from joserfc.jwk import generate_key

from catalogue.issuers import Algorithm
from lockbox.errors import NotSignedIn
from lockbox.identity.oidc import MOST_TOKEN_BYTES, VerifiedIdentity, verify
from lockbox.identity.oidc_providers import IdentityProviders
from tests.each import each
from tests.oidc_issuer import (
    AT,
    AUDIENCE,
    CLIENT_CLAIMS,
    CLIENT_ID,
    NOON,
    LocalIssuer,
    ec_key,
    ed_key,
    encoded,
    local_issuer,
    rsa_key,
)

SOMEBODY_ELSES = generate_key("EC", "P-256", {"kid": "ec-0", "use": "sig"})


@pytest.fixture
def issuer() -> Iterator[LocalIssuer]:
    with local_issuer() as running:
        running.keys = [ec_key(), rsa_key(), ed_key()]
        yield running


@pytest.fixture
def issuers(issuer: LocalIssuer) -> IdentityProviders:
    return IdentityProviders([issuer.configured()])


UNFIT: dict[str, dict[str, Any]] = {
    "not yet valid": {"nbf": AT + 61},
    "issued in the future": {"iat": AT + 61},
    "authenticated in the future": {"auth_time": AT + 61},
    "authenticated before time began": {"auth_time": -1},
    "authenticated at no number": {"auth_time": "noon"},
    "no expiry": {"exp": None},
    "an expiry in words": {"exp": str(AT + 300)},
    "an endless expiry": {"exp": float("inf")},
    "an expiry that is no number": {"exp": float("nan")},
    "an expiry that is true": {"exp": True},
    "no issue": {"iat": None},
    "no subject": {"sub": None},
    "an empty subject": {"sub": ""},
    "a subject that is a number": {"sub": 7},
    "a subject of two lines": {"sub": "anne\nadmin"},
    "a subject with an unseen character": {"sub": "anne\u200b"},
    "half a character": {"sub": "\ud800"},
    "a long subject": {"sub": "a" * 256},
    "no audience": {"aud": None},
    "another audience": {"aud": "https://other.example"},
    "no audience in a list": {"aud": []},
    "an audience that only begins alike": {"aud": AUDIENCE + "/more"},
    "several audiences and no party": {"aud": [AUDIENCE, "https://other.example"]},
    "several audiences and another party": {"aud": [AUDIENCE, "https://other.example"], "azp": "other"},
    "several audiences and a strange party": {"aud": [AUDIENCE, "https://other.example"], "azp": [CLIENT_ID]},
    "one audience and another party": {"azp": "other"},
    "one audience in a list and another party": {"aud": [AUDIENCE], "azp": "other"},
    "one audience and an empty party": {"azp": ""},
    "one audience and a strange party": {"azp": [CLIENT_ID]},
    "the audience of the browser's client": {"aud": CLIENT_ID},
    "audiences that are numbers": {"aud": [AUDIENCE, 7]},
}


@pytest.mark.parametrize("claims", UNFIT.values(), ids=UNFIT.keys())
def test_an_id_token_with_unfit_claims_is_refused(
    issuer: LocalIssuer, issuers: IdentityProviders, claims: dict[str, Any]
) -> None:
    with pytest.raises(NotSignedIn, match="was not accepted; sign in again"):
        verify(issuer.token(**claims), issuers, NOON)


def test_an_expired_id_token_is_refused_as_expired(issuer: LocalIssuer, issuers: IdentityProviders) -> None:
    token = issuer.token(exp=AT)

    assert verify(token, issuers, NOON + timedelta(seconds=59)).subject == "anne"
    with pytest.raises(NotSignedIn, match="has expired; sign in again"):
        verify(token, issuers, NOON + timedelta(seconds=60))


def test_clocks_of_issuer_and_lockbox_may_differ_by_a_minute(issuer: LocalIssuer, issuers: IdentityProviders) -> None:
    token = issuer.token(nbf=AT + 60, iat=AT + 60, auth_time=AT + 60)

    assert verify(token, issuers, NOON).authenticated_at == NOON + timedelta(seconds=60)


@pytest.mark.parametrize("key", [rsa_key(), ec_key(), ed_key()], ids=["RS256", "ES256", "Ed25519"])
def test_each_kind_of_issuer_key_verifies_a_sign_in(
    issuer: LocalIssuer, issuers: IdentityProviders, key: Any
) -> None:
    token = issuer.token(
        key=key,
        header={"typ": "at+jwt", "x-unknown": "is ignored"},
        auth_time=AT - 100.5,
        name=" Anne\u202e Änn\n",
        email="anne@contoso.example",
        email_verified=True,
        amr=["pwd", "hwk", 7],
    )

    assert verify(token, issuers, NOON) == VerifiedIdentity(
        issuer=issuer.url,
        subject="anne",
        authenticated_at=datetime(2026, 12, 31, 11, 58, 19, 500_000, tzinfo=UTC),
        name="Anne Änn",
        email="anne@contoso.example",
        methods=("pwd", "hwk"),
    )


@pytest.mark.parametrize("algorithm", sorted(get_args(Algorithm)))
def test_every_allowed_signing_algorithm_of_an_issuer_works(issuer: LocalIssuer, algorithm: str) -> None:
    kinds = {"ES256": ("EC", "P-256"), "ES384": ("EC", "P-384"), "ES512": ("EC", "P-521")}
    kind, curve = kinds.get(algorithm, ("OKP", "Ed25519"))
    key = rsa_key() if algorithm.startswith(("RS", "PS")) else generate_key(kind, curve, {"kid": "own"})  # type: ignore[call-overload]
    issuer.keys = [key]
    issuers = IdentityProviders([issuer.configured(algorithms=(algorithm,))])

    assert verify(issuer.token(header={"alg": algorithm}), issuers, NOON).subject == "anne"


def test_an_id_token_with_few_claims_proves_only_a_subject(issuer: LocalIssuer, issuers: IdentityProviders) -> None:
    assert verify(issuer.token(header={"typ": None}), issuers, NOON) == VerifiedIdentity(
        issuer=issuer.url, subject="anne", authenticated_at=NOON, name=None, email=None, methods=()
    )


@each(
    ("email", "is_verified"),
    [
        *(("anne@contoso.example", unsure) for unsure in (None, False, "true", 1)),
        *((odd, True) for odd in ("anne", "a@b@c", "a b@c", "a@b\nBcc: c@d", "@", "ä@b.example", ["a@b"], 7)),
    ],
)
def test_an_unverified_or_invalid_address_in_an_id_token_is_ignored(
    issuer: LocalIssuer, issuers: IdentityProviders, email: Any, *, is_verified: Any
) -> None:
    token = issuer.token(email=email, email_verified=is_verified, name=["Anne"], amr="pwd")

    assert verify(token, issuers, NOON) == VerifiedIdentity(issuer.url, "anne", NOON, None, None, ())


def test_an_id_token_for_several_audiences_needs_an_authorised_party(issuer: LocalIssuer) -> None:
    issuers = IdentityProviders([issuer.configured(client_id=None, client_secret=None)])

    with pytest.raises(NotSignedIn):
        verify(issuer.token(aud=["https://other.example", AUDIENCE]), issuers, NOON)


def test_a_bearer_token_of_another_client_is_accepted_if_the_client_is_listed(issuer: LocalIssuer) -> None:
    issuers = IdentityProviders([issuer.configured(authorized_parties=("cli", "batch"))])
    several = [AUDIENCE, "https://other.example"]
    good: list[dict[str, Any]] = [{"azp": "batch"}, {"azp": CLIENT_ID}, {"aud": several, "azp": "cli"}]
    bad: list[dict[str, Any]] = [{"azp": "other"}, {"azp": ["cli"]}, {"azp": ""}, {"aud": "cli", "azp": "cli"}]

    for claims in good:
        assert verify(issuer.token(**claims), issuers, NOON).subject == "anne"
    for claims in bad:
        with pytest.raises(NotSignedIn):
            verify(issuer.token(**claims), issuers, NOON)


LISTED = "cli"
CLIENTS = [None, CLIENT_ID, AUDIENCE, LISTED, "other", "", 7, ["cli"]]
"""Client claims: none, our client, an audience, a listed client, another client, and values that are no client."""


@pytest.mark.parametrize("claims", list(combinations(CLIENT_CLAIMS, 2)), ids="-".join)
def test_a_bearer_token_is_accepted_only_if_its_client_claims_agree_on_an_allowed_client(
    issuer: LocalIssuer, claims: tuple[str, str]
) -> None:
    issuers = IdentityProviders([issuer.configured(authorized_parties=(LISTED,))])

    for values in product(CLIENTS, repeat=2):
        named: dict[str, Any] = {"azp": None} | dict(zip(claims, values, strict=True))
        clients = [value for value in values if value is not None]
        is_one_of_ours = (
            bool(clients) and all(client == clients[0] for client in clients) and clients[0] in CLIENTS[1:4]
        )
        for meant_for in (AUDIENCE, [AUDIENCE], [AUDIENCE, "https://other.example"]):
            token = issuer.token(aud=meant_for, **named)
            with nullcontext() if is_one_of_ours else pytest.raises(NotSignedIn):
                assert verify(token, issuers, NOON).subject == "anne", named


@pytest.mark.parametrize("meant_for", [CLIENT_ID, [CLIENT_ID]])
def test_an_id_token_whose_only_audience_is_lockboxs_client_needs_no_client_claim(
    issuer: LocalIssuer, meant_for: str | list[str]
) -> None:
    issuers = IdentityProviders([issuer.configured(audience=CLIENT_ID)])

    def naming(**clients: Any) -> str:
        return issuer.token(aud=meant_for, **clients)

    assert verify(naming(), issuers, NOON).subject == "anne"
    for name in CLIENT_CLAIMS:
        assert verify(naming(**{name: CLIENT_ID}), issuers, NOON).subject == "anne"
        with pytest.raises(NotSignedIn):
            verify(naming(**{name: "other"}), issuers, NOON)


@pytest.mark.parametrize("name", ["https://other.example", None, 7, ["x"], "{url}/", "{upper}"])
def test_the_token_of_an_unknown_issuer_is_refused_without_a_fetch(
    issuer: LocalIssuer, issuers: IdentityProviders, name: Any
) -> None:
    if isinstance(name, str):
        name = name.format(url=issuer.url, upper=issuer.url.upper())

    with pytest.raises(NotSignedIn, match="issuer is not set up here"):
        verify(issuer.token(iss=name), issuers, NOON)

    assert not issuer.fetched


def test_the_key_of_one_issuer_does_not_sign_for_another_issuer(issuer: LocalIssuer) -> None:
    with local_issuer() as other:
        other.keys = [SOMEBODY_ELSES]
        issuers = IdentityProviders([issuer.configured(), other.configured()])
        assert verify(other.token(), issuers, NOON).issuer == other.url

        with pytest.raises(NotSignedIn):
            verify(other.token(iss=issuer.url), issuers, NOON)
        with pytest.raises(NotSignedIn):
            verify(issuer.token(iss=other.url), issuers, NOON)


def test_the_tenant_of_an_issuers_token_comes_from_the_settings(issuer: LocalIssuer) -> None:
    issuers = IdentityProviders([issuer.configured(tenant="contoso")])

    proven = verify(issuer.token(tenant="fabrikam", tid="fabrikam", org="fabrikam"), issuers, NOON)

    found = issuers.configured(proven.issuer)
    assert found is not None
    assert found.tenant == "contoso"
    assert "fabrikam" not in repr(proven)


def test_a_token_needs_no_key_id_if_its_issuer_has_a_single_key(
    issuer: LocalIssuer, issuers: IdentityProviders
) -> None:
    issuer.keys = [ec_key()]

    assert verify(issuer.token(header={"kid": None}), issuers, NOON).subject == "anne"


@pytest.mark.parametrize(
    "claims", [{"exp": AT + 86_401}, {"exp": 10**15}, {"iat": AT - 86_400, "exp": AT + 300}, {"iat": 0}]
)
def test_an_issuers_token_lasting_over_a_day_is_refused(
    issuer: LocalIssuer, issuers: IdentityProviders, claims: dict[str, Any]
) -> None:
    with pytest.raises(NotSignedIn, match="longer than 24 hours"):
        verify(issuer.token(**claims), issuers, NOON)


@each(
    "claims",
    [
        {"exp": AT + 86_400},
        *({"azp": party} for party in (CLIENT_ID, AUDIENCE)),
        *({"aud": ["https://other.example", AUDIENCE], "azp": party} for party in (CLIENT_ID, AUDIENCE)),
    ],
)
def test_an_id_token_issued_to_lockbox_for_at_most_a_day_is_accepted(
    issuer: LocalIssuer, issuers: IdentityProviders, claims: dict[str, Any]
) -> None:
    assert verify(issuer.token(**claims), issuers, NOON).subject == "anne"


Make = Callable[[LocalIssuer], str]


def tampered(token: str, **changes: Any) -> str:
    header, payload, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "==")) | changes
    return ".".join([header, encoded(json.dumps(claims).encode()), signature])


def made_up(header: bytes, claims: bytes = b"{}") -> str:
    """Return an unsigned token with anything in place of header and claims."""
    return f"{encoded(header)}.{encoded(claims)}."


def truncated(issuer: LocalIssuer, cut: int) -> str:
    return issuer.token()[:-cut]


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
} | {f"cut by {cut}": partial(truncated, cut=cut) for cut in (1, 2, 3, 10, 40, 87, 100, 200)}


@pytest.mark.parametrize("make", FORGED.values(), ids=FORGED.keys())
def test_a_forged_token_or_a_token_of_another_type_is_refused(
    issuer: LocalIssuer, issuers: IdentityProviders, make: Make
) -> None:
    with pytest.raises(NotSignedIn, match="was not accepted; sign in again"):
        verify(make(issuer), issuers, NOON)


@pytest.mark.parametrize("algorithm", ["none", "HS256", "RS512", "made-up"])
def test_a_token_with_a_forbidden_algorithm_is_refused_before_keys_are_fetched(
    issuer: LocalIssuer, issuers: IdentityProviders, algorithm: str
) -> None:
    with pytest.raises(NotSignedIn):
        verify(issuer.unsigned_token(algorithm), issuers, NOON)

    assert not issuer.fetched


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
def test_a_text_that_is_no_token_is_refused_without_a_key_fetch(
    issuer: LocalIssuer, issuers: IdentityProviders, junk: str
) -> None:
    with pytest.raises(NotSignedIn):
        verify(junk, issuers, NOON)

    assert not issuer.fetched


def test_an_issuers_token_over_8_kib_is_refused_unread(issuer: LocalIssuer, issuers: IdentityProviders) -> None:
    with pytest.raises(NotSignedIn):
        verify(issuer.token(padding="x" * 6200), issuers, NOON)

    assert not issuer.fetched
    assert verify(issuer.token(padding="x" * 5000), issuers, NOON).subject == "anne"
