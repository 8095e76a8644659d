"""Bearer tokens over HTTP: a caller without a valid one is refused."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from harness.stage import setting
from lockbox.database import Database
from lockbox.errors import NotSignedIn
from lockbox.identity import api_tokens, authentication
from lockbox.identity.api_tokens import IssuedToken, TokenTerms
from lockbox.identity.credentials import Token
from lockbox.sql import new_id
from tests.each import each
from tests.http.door import Door, facts

NOBODYS = UUID("01a20e89-0294-736c-b49a-5a0327678385")
PATHS = ["/v1/requests", f"/v1/requests/{NOBODYS}", "/v1/access?tenant=a", "/v1/requests?cursor=%00"]


def whole(body: str) -> str:
    """Return a token, completed by the right checksum."""
    return body + authentication.token_checksum(body)


def issued(door: Door, who: str = "erin", *, environment: str = "test", is_sample: bool = False) -> IssuedToken:
    caller = door.world.people[who]
    terms = TokenTerms(environment=environment, lifetime=timedelta(minutes=10), is_sample=is_sample)
    with door.db.transaction() as session:
        authentication.enter(session, caller)
        return api_tokens.issue(session, caller.person_id, terms)


def shown(door: Door, authorization: str | bytes, path: str = "/v1/requests") -> None:
    """Send an Authorization header, and check that it is refused."""
    answer = door.call(None, "GET", path, headers={"authorization": authorization})
    facts(answer, 401, "invalid-token")
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("path", PATHS)
def test_a_caller_without_a_token_learns_nothing(door: Door, path: str) -> None:
    answer = door.call(None, "GET", path)

    facts(answer, 401, "invalid-token")
    assert answer.headers["www-authenticate"] == "Bearer"


@each(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer x",
        "Bearer lbx_test",
        "Bearer \x00",
        "Bearer null",
        b"Bearer \xff\xfe",
        "Bearer " + "a" * 20_000,
        "Basic ZXJpbjplcmlu",
        "Digest x",
        "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJlcmluIn0.",
        f"Bearer lbx_test_{NOBODYS.hex}_" + "A" * 43,
        "Bearer " + whole(f"lbx_test_{NOBODYS.hex}_" + "A" * 43),
        "Bearer " + whole(f"lbx_test_{'0' * 32}_" + "A" * 43),
        "Bearer " + whole(f"lbx_test_{'0' * 32}_" + "A" * 43).upper(),
    ],
)
def test_a_malformed_token_is_refused(door: Door, authorization: str | bytes) -> None:
    shown(door, authorization)


def test_a_token_outside_the_authorization_header_is_ignored(door: Door) -> None:
    good = door.world.tokens["erin"]

    shown(door, f"Basic {good}")
    shown(door, f"Token {good}")
    shown(door, good)
    shown(door, f"Bearer {good}, Bearer {good}")
    facts(door.call(None, "GET", f"/v1/requests?access_token={good}"), 422, "invalid-request")


def test_two_authorization_headers_are_refused_even_if_one_is_valid(door: Door) -> None:
    good, bad = f"Bearer {door.world.tokens['erin']}", "Bearer x"

    for sent in ([good, bad], [bad, good], [good, good]):
        headers = [("authorization", one) for one in sent]
        said = facts(door.runner.run(door.client.get("/v1/requests", headers=headers)), 401, "invalid-token")
        assert "one header Authorization" in said["detail"]


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER ", "Bearer  "])
def test_the_authorization_scheme_ignores_case(door: Door, scheme: str) -> None:
    header = {"authorization": scheme + door.world.tokens["erin"]}

    assert door.call(None, "GET", "/v1/requests", headers=header).status_code == 200


@pytest.mark.parametrize("end", ["A", "B", "-"])
def test_a_token_with_the_same_id_and_another_secret_is_refused(door: Door, end: str) -> None:
    body = door.world.tokens["erin"][:-8]
    changed = body[:-1] + ("C" if body.endswith(end) else end)

    answer = door.call(None, "GET", "/v1/requests", headers={"authorization": f"Bearer {whole(changed)}"})

    assert facts(answer, 401, "invalid-token")["detail"] == authentication.UNKNOWN_OR_REVOKED


@pytest.mark.parametrize("at", [-1, -8, -9, -20, -60])
def test_a_token_with_one_wrong_character_is_reported_as_mistyped(door: Door, at: int) -> None:
    good = door.world.tokens["erin"]
    wrong = "1" if good[at] == "0" else "0"
    mangled = good[:at] + wrong + good[len(good) + at + 1 :]

    answer = door.call(None, "GET", "/v1/requests", headers={"authorization": f"Bearer {mangled}"})

    assert "checksum is wrong" in facts(answer, 401, "invalid-token")["detail"]


def test_the_secret_of_one_token_does_not_fit_the_id_of_another_token(door: Door) -> None:
    mine, others = (authentication.TOKEN_FORM.fullmatch(door.world.tokens[who]) for who in ("erin", "ann"))
    assert mine
    assert others

    shown(door, "Bearer " + whole(f"lbx_test_{others['id']}_{mine['secret']}"))


@pytest.mark.parametrize("environment", ["production", "development", "staging"])
def test_a_token_of_another_environment_is_refused(door: Door, environment: str) -> None:
    body = door.world.tokens["erin"][:-8]

    shown(door, f"Bearer {whole(body.replace('lbx_test_', f'lbx_{environment}_'))}")


def test_production_refuses_a_demo_token_and_accepts_a_real_token(door: Door) -> None:
    sample = issued(door, environment="production", is_sample=True)
    own = issued(door, environment="production")

    with door.db.transaction() as session, pytest.raises(NotSignedIn, match="Demo tokens do not work"):
        authentication.authenticate_token(session, sample.text, environment="production")
    with door.db.transaction() as session:
        caller = authentication.authenticate_token(session, own.text, environment="production")

    assert caller.person_id == door.world.people["erin"].person_id


def last_used(db: Database, token_id: UUID) -> datetime | None:
    """Return when a token was last used, as its row says."""
    with setting(db).transaction() as session:
        found = session.orm.get(Token, token_id)
        assert found is not None
        return found.last_used_at


def test_the_last_use_of_a_token_is_updated_at_most_once_a_minute(door: Door) -> None:
    token = issued(door)
    began = datetime.now(UTC)

    def use(at: datetime) -> datetime | None:
        with door.at(at).db.transaction() as session:
            authentication.authenticate_token(session, token.text, environment="test")
        return last_used(door.db, token.token.id)

    assert last_used(door.db, token.token.id) is None
    assert use(began) == began
    assert use(began + timedelta(seconds=59)) == began
    assert use(began + timedelta(seconds=60)) == began + timedelta(seconds=60)
    assert use(began + timedelta(seconds=119)) == began + timedelta(seconds=60)
    assert use(began - timedelta(minutes=5)) == began + timedelta(seconds=60)


def test_a_refused_call_does_not_update_the_last_use_of_a_token(door: Door) -> None:
    token = issued(door)

    shown(door.later(minutes=10), f"Bearer {token.text}")

    assert last_used(door.db, token.token.id) is None


def test_a_token_is_refused_as_soon_as_it_expires(door: Door) -> None:
    assert door.later(minutes=59).get("erin", "/v1/requests").status_code == 200

    answer = door.later(minutes=60).get("erin", "/v1/requests")

    assert "expired" in facts(answer, 401, "invalid-token")["detail"]


@pytest.mark.parametrize(
    "ending",
    [
        "UPDATE tokens SET revoked_at = clock_timestamp() WHERE person_id = :p",
        "UPDATE people SET disabled_at = clock_timestamp() WHERE id = :p",
        "DELETE FROM tokens WHERE person_id = :p",
    ],
)
def test_revoked_and_unknown_tokens_and_disabled_people_are_answered_alike(fresh_door: Door, ending: str) -> None:
    unknown = fresh_door.call(
        None,
        "GET",
        "/v1/requests",
        headers={"authorization": "Bearer " + whole(f"lbx_test_{new_id().hex}_" + "A" * 43)},
    )
    fresh_door.run_sql(ending, p=fresh_door.world.people["erin"].person_id)

    answer = fresh_door.get("erin", "/v1/requests")

    assert facts(answer, 401, "invalid-token")["detail"] == authentication.UNKNOWN_OR_REVOKED
    assert answer.content == unknown.content


def test_a_second_token_of_the_same_person_works_too(door: Door) -> None:
    second = issued(door)
    request_id = door.pending()

    answer = door.call(None, "GET", f"/v1/requests/{request_id}", headers={"authorization": f"Bearer {second.text}"})

    assert answer.status_code == 200


def test_a_person_without_roles_sees_no_requests_and_may_not_submit_requests(fresh_door: Door) -> None:
    fresh_door.run_sql("DELETE FROM memberships WHERE person_id = :p", p=fresh_door.world.people["erin"].person_id)

    facts(fresh_door.file("erin"), 403, "wrong-role")
    facts(fresh_door.ask("erin"), 403, "wrong-role")
    assert fresh_door.get("erin", "/v1/requests").json()["items"] == []


def test_no_token_text_is_stored_or_echoed(door: Door) -> None:
    good = door.world.tokens["erin"]
    parts = authentication.TOKEN_FORM.fullmatch(good)
    assert parts

    with door.root.connect() as connection:
        stored = connection.exec_driver_sql("SELECT string_agg(t::text, ' ') FROM tokens t").scalar_one()
    answer = door.call(None, "GET", "/v1/requests", headers={"authorization": f"Bearer {good}x"})

    assert str(UUID(parts["id"])) in stored
    assert not [form for form in (parts["secret"], parts["secret"].encode().hex()) if form in stored]
    assert good not in answer.text
