"""Tokens of gated calls: verified against real issuers, remembered for a minute, and forgotten with their keys."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from joserfc.jwk import ECKey

from gate.bearer_tokens import (
    MOST_WAITING_CALLS,
    REMEMBERED_SECONDS,
    GateIssuer,
    TokenRealm,
    TokenVerifier,
    VerifiedToken,
)
from lockbox.errors import Busy, NotSignedIn
from lockbox.identity.oidc_providers import PAUSE_SECONDS, RENEW_SECONDS, IdentityProviders
from tests.each import each
from tests.oidc_issuer import (
    AT,
    AUDIENCE,
    BROKEN,
    CLIENT_CLAIMS,
    HELD,
    NOON,
    LocalIssuer,
    ec_key,
    ed_key,
    local_issuer,
    rsa_key,
)

pytestmark = pytest.mark.usefixtures("patient_gate")

SERVICE = "mail"


def is_support(claims: Mapping[str, Any]) -> bool:
    return claims.get("team") == "support"


@dataclass
class SteppedClocks:
    """The database's clock and the monotonic clock; a test moves both."""

    seconds: float = 0.0

    def move(self, seconds: float) -> None:
        self.seconds += seconds

    def now(self) -> datetime:
        return NOON + timedelta(seconds=self.seconds)

    def clock(self) -> float:
        return self.seconds


@dataclass
class VerifiedCalls:
    """Verifies the tokens of one service against the issuers of a test."""

    issuers: list[LocalIssuer]
    changes: dict[str, Any] = field(default_factory=dict)
    longest_seconds: int = 24 * 3600
    vouches_for_mail: bool = False
    clocks: SteppedClocks = field(default_factory=SteppedClocks)
    wait_seconds: float = 30.0
    most: int = 100

    def __post_init__(self) -> None:
        found = [
            GateIssuer(one.configured(client_id=None, client_secret=None, jwks_url=f"{one.url}/jwks", **self.changes))
            for one in self.issuers
        ]
        found = [GateIssuer(one.provider, self.longest_seconds, self.vouches_for_mail) for one in found]
        providers = [one.provider for one in found]
        self.providers = IdentityProviders(providers, clock=self.clocks.clock, seconds=20.0)
        self.realm = TokenRealm(SERVICE, {one.provider.issuer: one for one in found}, is_support)
        self.verifier = TokenVerifier(
            self.providers,
            self.clocks.now,
            clock=self.clocks.clock,
            wait_seconds=self.wait_seconds,
            most=self.most,
        )

    async def of(self, token: str, realm: TokenRealm | None = None) -> VerifiedToken:
        return await self.verifier.verified(realm or self.realm, token.encode())

    def read(self, token: str) -> VerifiedToken:
        """Verify a token on an event loop of its own, and return what it says."""
        return asyncio.run(self.of(token))


@pytest.fixture
def issuer() -> Iterator[LocalIssuer]:
    with local_issuer() as running:
        yield running


def test_a_verified_bearer_token_yields_issuer_and_subject_and_whether_its_calls_are_gated(
    issuer: LocalIssuer,
) -> None:
    calls = VerifiedCalls([issuer])

    assert calls.read(issuer.token(team="support")) == VerifiedToken(issuer.url, "anne", None, is_gated=True)
    assert calls.read(issuer.token(sub="bob")) == VerifiedToken(issuer.url, "bob", None, is_gated=False)


@each("key", [ec_key(), ed_key(), rsa_key()])
def test_each_kind_of_key_verifies_a_bearer_token(issuer: LocalIssuer, key: Any) -> None:
    issuer.keys = [key]

    assert VerifiedCalls([issuer]).read(issuer.token()).subject == "anne"


def test_a_mail_address_counts_only_if_verified_by_an_issuer_that_vouches_for_it(issuer: LocalIssuer) -> None:
    token = issuer.token(email="anne@vendor.example", email_verified=True)

    assert VerifiedCalls([issuer]).read(token).email is None
    assert VerifiedCalls([issuer], vouches_for_mail=True).read(token).email == "anne@vendor.example"
    for verified in (False, None, "true", 1):
        token = issuer.token(email="anne@vendor.example", email_verified=verified)
        assert VerifiedCalls([issuer], vouches_for_mail=True).read(token).email is None


@each(
    ("header", "claims"),
    [
        ({}, {"aud": "https://other.example"}),
        ({}, {"aud": ["https://other.example", "https://another.example"]}),
        ({}, {"aud": [AUDIENCE, "https://other.example"], "azp": None}),
        ({}, {"aud": None}),
        *(({}, {"azp": None, name: "somebody"}) for name in CLIENT_CLAIMS),
        *(({}, {name: "somebody"}) for name in CLIENT_CLAIMS[1:]),
        ({}, {"azp": ["console"]}),
        ({}, {"azp": None}),
        ({}, {"iss": "https://elsewhere.example"}),
        ({}, {"iss": None}),
        ({}, {"sub": None}),
        ({}, {"sub": ""}),
        ({}, {"sub": 7}),
        ({}, {"sub": "anne\n"}),
        ({}, {"exp": None}),
        ({}, {"iat": None}),
        ({}, {"exp": AT - 61}),
        ({}, {"exp": "soon"}),
        ({}, {"nbf": AT + 61}),
        ({}, {"iat": AT + 61, "exp": AT + 300}),
        ({}, {"iat": AT - 3601, "exp": AT + 300}),
        ({}, {"events": {}}),
        ({}, {"cnf": {"jkt": "key"}}),
        ({"typ": "logout+jwt"}, {}),
        ({"typ": "dpop+jwt"}, {}),
        ({"crit": ["exp"]}, {}),
        ({"alg": "ES384"}, {}),
    ],
)
def test_a_bearer_token_not_meant_for_this_call_is_refused(
    issuer: LocalIssuer, header: dict[str, Any], claims: dict[str, Any]
) -> None:
    calls = VerifiedCalls([issuer], {"authorized_parties": ("console",)}, longest_seconds=3600)
    assert calls.read(issuer.token(azp="console"))

    with pytest.raises(NotSignedIn):
        calls.read(issuer.token(header=header, **{"azp": "console"} | claims))


@each("name", CLIENT_CLAIMS)
def test_each_client_claim_of_a_bearer_token_is_checked(issuer: LocalIssuer, name: str) -> None:
    calls = VerifiedCalls([issuer], {"authorized_parties": ("console",)})
    unlisted = VerifiedCalls([issuer])

    def naming(client: str) -> str:
        claims: dict[str, Any] = {"azp": None, name: client}
        return issuer.token(**claims)

    assert calls.read(naming("console"))
    assert unlisted.read(naming(AUDIENCE))
    with pytest.raises(NotSignedIn):
        unlisted.read(naming("console"))


def test_bearer_tokens_that_are_unsigned_or_hmac_signed_with_a_public_key_are_refused(issuer: LocalIssuer) -> None:
    issuer.keys = [ec_key(), rsa_key()]
    calls = VerifiedCalls([issuer])
    good = issuer.token()

    for algorithm in ("none", "None", "NONE", "HS256"):
        with pytest.raises(NotSignedIn):
            calls.read(issuer.unsigned_token(algorithm))
    for confused in (issuer.confused_token(ec_key()), issuer.confused_token(rsa_key())):
        with pytest.raises(NotSignedIn):
            calls.read(confused)
    for mangled in ("", ".", "..", good[:-4], good + "A", good + ".x", f"{good}.{good}", "é" + good, "[" * 8000):
        with pytest.raises(NotSignedIn):
            calls.read(mangled)


def test_the_key_of_another_issuer_does_not_verify_a_bearer_token(issuer: LocalIssuer) -> None:
    with local_issuer() as other:
        other.keys = [ec_key(1)]
        calls = VerifiedCalls([issuer, other])
        assert calls.read(other.token())

        for kid in (ec_key(1).kid, issuer.keys[0].kid):
            with pytest.raises(NotSignedIn):
                calls.read(issuer.token(key=ec_key(1), header={"kid": kid}))


def test_a_bearer_token_with_a_repeated_claim_is_refused(
    issuer: LocalIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    twice = (
        f'{{"iss": "{issuer.url}", "sub": "anne", "sub": "bob", "aud": "{AUDIENCE}", "iat": {AT}, "exp": {AT + 9}}}'
    )
    calls = VerifiedCalls([issuer])
    monkeypatch.setattr("tests.oidc_issuer.json.dumps", lambda part: twice if "iss" in part else '{"alg": "ES256"}')
    token = issuer.token()
    monkeypatch.undo()

    with pytest.raises(NotSignedIn):
        calls.read(token)


def test_a_verified_token_is_remembered_for_at_most_a_minute_and_not_past_its_expiry(issuer: LocalIssuer) -> None:
    calls = VerifiedCalls([issuer])
    long, short = issuer.token(exp=AT + 3600), issuer.token(sub="bob", exp=AT + 20)
    for token in (long, short):
        calls.read(token)

    calls.clocks.move(19)
    assert calls.verifier.known(calls.realm, short.encode())
    calls.clocks.move(1)
    assert calls.verifier.known(calls.realm, short.encode()) is None
    calls.clocks.move(REMEMBERED_SECONDS - 21)
    assert calls.verifier.known(calls.realm, long.encode())
    calls.clocks.move(1)
    assert calls.verifier.known(calls.realm, long.encode()) is None
    calls.read(long)


def test_expiry_and_issue_time_of_a_bearer_token_are_checked_with_a_minutes_tolerance(issuer: LocalIssuer) -> None:
    calls = VerifiedCalls([issuer])
    token = issuer.token(exp=AT + 100)
    calls.read(token)

    calls.clocks.move(159)
    assert calls.read(token)
    assert len(calls.verifier.memory) == 0
    calls.clocks.move(2)
    with pytest.raises(NotSignedIn, match="expired"):
        calls.read(token)
    assert calls.read(issuer.token(iat=AT + 161 + 59, exp=AT + 400))


def test_the_bearer_token_of_one_service_is_not_accepted_for_another_service(issuer: LocalIssuer) -> None:
    calls = VerifiedCalls([issuer])
    token = issuer.token()
    calls.read(token)
    strict = GateIssuer(issuer.configured(audience="https://files.example", jwks_url=f"{issuer.url}/jwks"))
    other = TokenRealm("files", {issuer.url: strict}, is_support)

    with pytest.raises(NotSignedIn):
        asyncio.run(calls.of(token, other))


def test_the_token_memory_is_bounded_and_drops_the_least_recently_used_token(issuer: LocalIssuer) -> None:
    calls = VerifiedCalls([issuer], most=3)
    tokens = [issuer.token(sub=f"person {number}") for number in range(4)]
    for token in tokens[:3]:
        calls.read(token)
    assert calls.verifier.known(calls.realm, tokens[0].encode())

    calls.read(tokens[3])

    known = [calls.verifier.known(calls.realm, token.encode()) is not None for token in tokens]
    assert known == [True, False, True, True]


def test_only_a_changed_key_set_clears_the_token_memory(issuer: LocalIssuer) -> None:
    calls = VerifiedCalls([issuer])
    issuer.keys = [ec_key(), ec_key(1)]
    token, other = issuer.token(exp=AT + 2 * 3600), issuer.token(key=ec_key(1), exp=AT + 2 * 3600)
    for one in (token, other):
        calls.read(one)

    calls.clocks.move(PAUSE_SECONDS - 30)
    with pytest.raises(NotSignedIn):
        calls.read(issuer.token(header={"kid": "unheard of"}))
    assert issuer.fetched["/jwks"] == 2
    assert calls.verifier.known(calls.realm, token.encode())

    calls.clocks.move(25)
    issuer.keys = [ec_key(2), ec_key(1)]
    calls.clocks.move(36)
    for one in (token, other):
        calls.read(one)
    assert calls.read(issuer.token())
    assert calls.verifier.known(calls.realm, token.encode()) is None
    with pytest.raises(NotSignedIn):
        calls.read(token)
    assert calls.read(other)


def test_a_signing_key_replaced_under_the_same_id_is_noticed_at_once(issuer: LocalIssuer) -> None:
    calls = VerifiedCalls([issuer])
    old = issuer.token()
    calls.read(old)
    replaced = ECKey.import_key({**ec_key(3).as_dict(private=True), "kid": str(ec_key().kid)})
    issuer.keys = [replaced]

    assert calls.read(issuer.token())
    assert issuer.fetched["/jwks"] == 2
    with pytest.raises(NotSignedIn):
        calls.read(old)


def test_sixteen_concurrent_first_calls_fetch_an_issuers_keys_once(issuer: LocalIssuer) -> None:
    calls = VerifiedCalls([issuer])

    async def all_together() -> list[VerifiedToken]:
        return await asyncio.gather(*(calls.of(issuer.token(sub=f"person {number}")) for number in range(16)))

    assert len({token.subject for token in asyncio.run(all_together())}) == 16
    assert issuer.fetched == {"/jwks": 1}


def test_a_hanging_issuer_delays_no_calls_with_tokens_of_other_issuers(issuer: LocalIssuer) -> None:
    with local_issuer() as hanging:
        calls = VerifiedCalls([issuer, hanging])
        hanging.troubles["/jwks"] = HELD
        waiting = [hanging.token(sub=f"{number}") for number in range(2 * MOST_WAITING_CALLS)]
        good = [issuer.token(sub=f"person {number}") for number in range(20)]

        async def beside() -> list[Any]:
            stuck = [asyncio.create_task(calls.of(token)) for token in waiting]
            await asyncio.sleep(0)
            for token in good:
                await calls.of(token)
            assert sum(task.done() for task in stuck) == MOST_WAITING_CALLS, "all that wait, and no others"
            hanging.released.set()
            return await asyncio.gather(*stuck, return_exceptions=True)

        ended = asyncio.run(beside())

        assert Counter(map(type, ended)) == {VerifiedToken: MOST_WAITING_CALLS, Busy: MOST_WAITING_CALLS}
        assert hanging.fetched == {"/jwks": 1}


def test_a_call_waiting_for_an_issuer_is_refused_after_a_while(issuer: LocalIssuer) -> None:
    issuer.troubles["/jwks"] = HELD

    with pytest.raises(Busy):
        VerifiedCalls([issuer], wait_seconds=0.05).read(issuer.token())


def test_known_signing_keys_are_used_while_their_issuer_hangs(issuer: LocalIssuer) -> None:
    calls = VerifiedCalls([issuer])
    calls.read(issuer.token())
    issuer.troubles["/jwks"] = HELD

    async def beside() -> None:
        strange = asyncio.create_task(calls.of(issuer.token(header={"kid": "unheard of"})))
        await asyncio.sleep(0.05)
        assert await calls.of(issuer.token(sub="bob"))
        assert not strange.done()
        issuer.released.set()
        with pytest.raises(NotSignedIn):
            await strange

    asyncio.run(beside())


def test_a_failing_issuer_is_asked_again_after_a_pause(issuer: LocalIssuer) -> None:
    issuer.troubles["/jwks"] = BROKEN
    calls = VerifiedCalls([issuer])

    for _ in range(5):
        with pytest.raises(Busy):
            calls.read(issuer.token())
    assert issuer.fetched["/jwks"] == 1

    issuer.troubles.clear()
    calls.clocks.move(5)
    assert calls.read(issuer.token())


def test_unknown_signing_keys_trigger_at_most_one_fetch_a_minute(issuer: LocalIssuer) -> None:
    calls = VerifiedCalls([issuer])
    calls.read(issuer.token())

    for number in range(30):
        with pytest.raises(NotSignedIn):
            calls.read(issuer.token(header={"kid": f"made up {number}"}))

    assert issuer.fetched["/jwks"] == 2


def test_signing_keys_of_issuers_are_renewed_in_the_background(issuer: LocalIssuer) -> None:
    calls = VerifiedCalls([issuer])
    token = issuer.token(exp=AT + 4 * 3600)
    calls.read(token)
    calls.clocks.move(RENEW_SECONDS)
    issuer.keys = []

    assert calls.read(token)

    end = time.monotonic() + 30
    while issuer.fetched["/jwks"] < 2 or calls.providers.known_keys(calls.realm.issuers[issuer.url].provider):
        assert time.monotonic() < end
        time.sleep(0.005)
    with pytest.raises(NotSignedIn):
        calls.read(token)


def test_the_keys_of_an_issuer_can_be_fetched_after_all_calls_that_waited_for_them_were_abandoned(
    issuer: LocalIssuer,
) -> None:
    issuer.troubles["/jwks"] = HELD
    calls = VerifiedCalls([issuer])

    async def given_up() -> None:
        for _ in range(3):
            waiting = asyncio.create_task(calls.of(issuer.token()))
            await asyncio.sleep(0.01)
            waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await waiting

    asyncio.run(given_up())
    issuer.released.set()
    issuer.troubles.clear()

    end = time.monotonic() + 30
    while calls.providers.known_keys(calls.realm.issuers[issuer.url].provider) is None:
        assert time.monotonic() < end
        time.sleep(0.005)
    assert calls.read(issuer.token())
