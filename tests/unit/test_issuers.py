"""What issuers publish: fetched when needed, kept through outages, and never fetched as often as callers like."""

import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from joserfc.jwk import ECKey, RSAKey
from pydantic import TypeAdapter, ValidationError

from catalogue.issuers import IdentityProvider, IssuerList
from cli.doctor.findings import DoctorFinding, FindingLevel
from cli.doctor.issuers import check_issuers
from config.settings import Settings
from harness.webhook_receiver import ScriptedAnswer
from lockbox.errors import Busy, NotSignedIn
from lockbox.identity.oidc import verify
from lockbox.identity.oidc_providers import (
    MOST_EXCHANGES_TOGETHER,
    MOST_WAITING,
    IdentityProviders,
    ProviderUnavailable,
    read_metadata,
)
from lockbox.safe_http import FetchFailure
from tests.each import each
from tests.oidc_issuer import (
    BROKEN,
    DISCOVERY,
    DRIP,
    HELD,
    HTML,
    HUGE,
    NOON,
    NOT_AN_OBJECT,
    NOT_JSON,
    REDIRECT,
    LocalIssuer,
    ec_key,
    local_issuer,
    rsa_key,
)
from tests.unit.test_safe_http import resolve_to

PatientProviders = partial(IdentityProviders, seconds=20.0, wait_seconds=20.0)


@dataclass
class SteppedClock:
    """Seconds that pass when a test says so."""

    at: float = 0.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def issuer() -> Iterator[LocalIssuer]:
    with local_issuer() as running:
        yield running


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def issuers(issuer: LocalIssuer, clock: SteppedClock) -> IdentityProviders:
    return PatientProviders([issuer.configured()], clock=clock)


def known(issuers: IdentityProviders, issuer: LocalIssuer) -> IdentityProvider:
    found = issuers.configured(issuer.url)
    assert found is not None
    return found


def settled() -> None:
    """Wait until no fetch runs in the background."""
    until(lambda: not any(thread.name.startswith("fetch ") for thread in threading.enumerate()))


def until(is_so: Callable[[], bool]) -> None:
    """Wait until the condition is met; fail after thirty seconds."""
    end = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_keys_and_metadata_of_an_issuer_are_fetched_once_for_many_tokens(
    issuer: LocalIssuer, issuers: IdentityProviders
) -> None:
    for _ in range(20):
        verify(issuer.token(), issuers, NOON)

    assert issuer.fetched == {DISCOVERY: 1, "/jwks": 1}


def test_an_issuer_with_a_jwks_url_is_not_asked_for_metadata(issuer: LocalIssuer) -> None:
    issuers = PatientProviders([issuer.configured(jwks_url=f"{issuer.url}/jwks")])

    verify(issuer.token(), issuers, NOON)

    assert issuer.fetched == {"/jwks": 1}


def test_tokens_with_unknown_keys_cause_at_most_one_fetch_a_minute(
    issuer: LocalIssuer, issuers: IdentityProviders, clock: SteppedClock
) -> None:
    def flood() -> None:
        for number in range(30):
            with pytest.raises(NotSignedIn):
                verify(issuer.token(header={"kid": f"made-up-{clock.at}-{number}"}), issuers, NOON)

    verify(issuer.token(), issuers, NOON)
    flood()
    assert issuer.fetched["/jwks"] == 2

    clock.at = 59
    flood()
    assert issuer.fetched["/jwks"] == 2

    clock.at = 61
    flood()
    assert issuer.fetched["/jwks"] == 3


def test_an_unknown_issuer_key_on_a_cold_start_is_fetched_once(
    issuer: LocalIssuer, issuers: IdentityProviders
) -> None:
    with pytest.raises(NotSignedIn):
        verify(issuer.token(header={"kid": "made-up"}), issuers, NOON)

    assert issuer.fetched["/jwks"] == 1


def test_a_new_issuer_key_works_at_once_and_the_key_it_replaced_stops_working(
    issuer: LocalIssuer, issuers: IdentityProviders
) -> None:
    old = issuer.token()
    verify(old, issuers, NOON)
    issuer.keys = [ec_key(1)]

    verify(issuer.token(), issuers, NOON)

    with pytest.raises(NotSignedIn):
        verify(old, issuers, NOON)
    assert issuer.fetched["/jwks"] == 2


@pytest.mark.far
def test_old_issuer_keys_are_used_during_a_days_outage(
    issuer: LocalIssuer, issuers: IdentityProviders, clock: SteppedClock
) -> None:
    token = issuer.token()
    verify(token, issuers, NOON)
    issuer.troubles = {"/jwks": BROKEN, DISCOVERY: BROKEN}

    for hour in range(1, 24):
        clock.at = hour * 3600.0
        verify(token, issuers, NOON)
        settled()
        assert issuer.fetched["/jwks"] == hour + 1

    clock.at = 24 * 3600.0
    with pytest.raises(Busy, match="cannot be reached"):
        verify(token, issuers, NOON)


def test_a_caller_whose_issuer_keys_are_known_does_not_wait_for_a_slow_fetch(
    issuer: LocalIssuer, issuers: IdentityProviders
) -> None:
    verify(issuer.token(), issuers, NOON)
    issuer.troubles["/jwks"] = HELD

    with ThreadPoolExecutor(1) as pool:
        strange = pool.submit(verify, issuer.token(header={"kid": "made-up"}), issuers, NOON)
        until(lambda: issuer.fetched["/jwks"] == 2)
        for _ in range(20):
            verify(issuer.token(), issuers, NOON)
        assert not strange.done()
        issuer.released.set()

    assert isinstance(strange.exception(), NotSignedIn)


@pytest.mark.parametrize("path", [DISCOVERY, "/jwks"])
@pytest.mark.parametrize("answer", [BROKEN, REDIRECT, HUGE, DRIP, NOT_JSON, NOT_AN_OBJECT])
def test_a_misbehaving_issuer_is_distinguished_from_a_bad_token(
    issuer: LocalIssuer,
    issuers: IdentityProviders,
    clock: SteppedClock,
    monkeypatch: pytest.MonkeyPatch,
    *,
    path: str,
    answer: ScriptedAnswer,
) -> None:
    if path == "/jwks":
        issuers.metadata(known(issuers, issuer))
    issuer.troubles[path] = answer

    with monkeypatch.context() as patch:
        if answer.drops:
            patch.setattr(issuers, "_seconds", 0.7)
        for _ in range(3):
            with pytest.raises(Busy, match="try again"):
                verify(issuer.token(), issuers, NOON)
        settled()
    # On a busy machine, a short time may be over before the issuer gets the call.
    assert issuer.fetched[path] in ({0, 1} if answer.drops else {1})

    issuer.troubles.clear()
    clock.at = 5.0
    verify(issuer.token(), issuers, NOON)


@pytest.mark.parametrize(
    "published",
    [
        {"issuer": "https://other.example"},
        {"issuer": None},
        {"jwks_uri": None},
        {"jwks_uri": "http://sso.example/jwks"},
        {"jwks_uri": "https://10.0.0.1/jwks"},
        {"jwks_uri": "https://[bad/jwks"},
        {"jwks_uri": ["https://sso.example/jwks"]},
    ],
)
def test_issuer_metadata_pointing_to_another_issuer_are_refused(
    issuer: LocalIssuer, issuers: IdentityProviders, published: dict[str, Any]
) -> None:
    issuer.published = published

    with pytest.raises(Busy):
        verify(issuer.token(), issuers, NOON)


def test_a_plain_http_endpoint_of_an_https_issuer_is_refused() -> None:
    issuer = IdentityProvider(issuer="https://sso.example", audience="lockbox")
    page = {"authorization_endpoint": "http://sso.example/authorize"}

    read = read_metadata(json.dumps({"issuer": issuer.issuer} | page).encode(), issuer)

    assert read.authorization_endpoint is None


def test_a_public_issuer_name_resolving_to_loopback_is_not_called(monkeypatch: pytest.MonkeyPatch) -> None:
    inside = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: inside)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        issuer = IdentityProvider(issuer=f"https://sso.example:{listening.getsockname()[1]}", audience="lockbox")
        with pytest.raises(Busy):
            IdentityProviders([issuer], seconds=0.5).metadata(issuer)

        listening.setblocking(False)
        with pytest.raises(BlockingIOError):
            listening.accept()


def test_no_token_is_accepted_once_its_issuer_withdrew_every_key(
    issuer: LocalIssuer, issuers: IdentityProviders, clock: SteppedClock
) -> None:
    token = issuer.token()
    verify(token, issuers, NOON)
    issuer.keys = []
    clock.at = 3600.0
    verify(token, issuers, NOON)
    settled()

    with pytest.raises(NotSignedIn):
        verify(token, issuers, NOON)


@pytest.mark.parametrize("number", [1, 2])
def test_an_issuer_key_rotated_under_the_same_id_is_fetched_at_once(
    issuer: LocalIssuer, issuers: IdentityProviders, number: int
) -> None:
    old = issuer.token()
    verify(old, issuers, NOON)
    issuer.keys = [ECKey.import_key(ec_key(number).as_dict(private=True) | {"kid": "ec-0"})]

    verify(issuer.token(), issuers, NOON)

    with pytest.raises(NotSignedIn):
        verify(old, issuers, NOON)
    assert issuer.fetched["/jwks"] == 2


def test_another_kind_of_issuer_key_under_an_old_id_is_fetched_at_once(
    issuer: LocalIssuer, issuers: IdentityProviders
) -> None:
    verify(issuer.token(), issuers, NOON)
    issuer.keys = [RSAKey.import_key(rsa_key().as_dict(private=True) | {"kid": "ec-0"})]

    verify(issuer.token(), issuers, NOON)

    assert issuer.fetched["/jwks"] == 2


def test_forged_signatures_cause_at_most_one_key_fetch_a_minute(
    issuer: LocalIssuer, issuers: IdentityProviders, clock: SteppedClock
) -> None:
    verify(issuer.token(), issuers, NOON)
    forged = issuer.token(key=ec_key(3), header={"kid": "ec-0"})

    for clock.at in (1, 2, 30, 59, 62, 63):
        with pytest.raises(NotSignedIn):
            verify(forged, issuers, NOON)

    assert issuer.fetched["/jwks"] == 3


def test_forged_tokens_of_many_slow_issuers_use_few_slots_briefly(issuer: LocalIssuer) -> None:
    """Six issuers that answer nothing yet, thirty forged tokens at once: the good issuer is served meanwhile."""
    with ExitStack() as stack:
        slow = [stack.enter_context(local_issuer()) for _ in range(6)]
        for one in slow:
            one.troubles = {DISCOVERY: HELD, "/jwks": HELD}
        issuers = PatientProviders([one.configured() for one in (issuer, *slow)])
        verify(issuer.token(), issuers, NOON)

        with ThreadPoolExecutor(30) as pool:
            forged = [one.token(key=ec_key(3), header={"kid": "ec-0"}) for one in slow * 5]
            calls = [pool.submit(verify, token, issuers, NOON) for token in forged]
            until(lambda: sum(call.done() for call in calls) == 30 - MOST_WAITING)
            verify(issuer.token(), issuers, NOON)
            assert sum(call.done() for call in calls) == 30 - MOST_WAITING
            for one in slow:
                one.released.set()

        ended = Counter(type(call.exception()) for call in calls)
        assert ended == {ProviderUnavailable: 30 - MOST_WAITING, NotSignedIn: MOST_WAITING}
        settled()


def test_an_abandoned_call_leaves_the_key_fetch_to_the_next_call(issuer: LocalIssuer) -> None:
    issuer.troubles["/jwks"] = HELD
    issuers = PatientProviders([issuer.configured()], wait_seconds=0.05)

    # One call more than may wait at once: each has left its place to the next.
    for _ in range(MOST_WAITING + 1):
        with pytest.raises(ProviderUnavailable, match="try again") as refused:
            verify(issuer.token(), issuers, NOON)
        assert refused.value.trouble is FetchFailure.TIME
    issuer.released.set()
    settled()

    verify(issuer.token(), issuers, NOON)
    assert issuer.fetched["/jwks"] == 1


def test_code_exchanges_with_slow_issuers_share_one_limit() -> None:
    with ExitStack() as stack:
        slow = [stack.enter_context(local_issuer()) for _ in range(4)]
        issuers = PatientProviders([one.configured() for one in slow])
        for one in slow:
            issuers.metadata(known(issuers, one))
            one.troubles["/token"] = HELD

        with ThreadPoolExecutor(16) as pool:
            calls = [pool.submit(issuers.exchange, known(issuers, one), {}, None) for one in slow * 4]
            until(lambda: sum(call.done() for call in calls) == 16 - MOST_EXCHANGES_TOGETHER)
            for one in slow:
                one.released.set()

        assert sum(isinstance(call.exception(), Busy) for call in calls) == 16 - MOST_EXCHANGES_TOGETHER


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
def test_the_settings_of_an_issuer_say_whether_it_is_fit_for_production(
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
def test_an_unsafe_or_malformed_issuer_setting_is_refused_with_advice(facts: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message) as refused:
        IdentityProvider.model_validate(GOOD | facts)

    assert "hunter2" not in str(refused.value)


def test_an_issuer_may_be_listed_only_once() -> None:
    twice = [GOOD | {"tenant": "contoso"}, GOOD | {"tenant": "fabrikam"}]

    with pytest.raises(ValidationError, match="name each issuer once"):
        TypeAdapter(IssuerList).validate_python(twice)

    assert len(TypeAdapter(IssuerList).validate_python([GOOD])) == 1


def test_the_client_secret_of_an_issuer_is_not_shown() -> None:
    issuer = IdentityProvider.model_validate(GOOD | {"client_id": "web", "client_secret": "hunter2"})

    assert "hunter2" not in repr(issuer) + issuer.model_dump_json()


def found(*issuers: IdentityProvider) -> list[DoctorFinding]:
    return list(check_issuers(Settings(issuers=issuers)))


def test_an_issuer_that_answers_is_reported_as_healthy() -> None:
    with local_issuer() as issuer:
        (one,) = found(issuer.configured())

    assert (one.level, one.says) == (FindingLevel.OK, f"{issuer.url} answers, with 1 key")


@pytest.mark.parametrize(
    ("address", "tenant", "says", "fix"),
    [
        ("10.20.0.7", None, "the address is not a public one", "name its network in LOCKBOX_PRIVATE_NETWORKS"),
        ("10.20.0.7", "contoso", "the address is not a public one", "a tenant's provider needs a public address"),
    ],
)
def test_an_issuer_in_a_private_network_is_reported_with_advice(
    monkeypatch: pytest.MonkeyPatch, address: str, tenant: str | None, says: str, fix: str
) -> None:
    resolve_to(monkeypatch, [address])

    (one,) = found(LocalIssuer("https://sso.example").configured(tenant=tenant))

    assert one.level is FindingLevel.FAILURE
    assert one.says == f"nobody can sign in by https://sso.example: {says}"
    assert one.fix.startswith(fix)


def test_an_issuer_with_an_unexpected_answer_is_reported() -> None:
    with local_issuer() as good, local_issuer() as bad:
        bad.troubles[DISCOVERY] = HTML
        well, broken = found(good.configured(), bad.configured())

    assert (well.level, broken.level) == (FindingLevel.OK, FindingLevel.FAILURE)
    assert broken.says == f"nobody can sign in by {bad.url}: it answered something other than JSON"
    assert broken.fix
