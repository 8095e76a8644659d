"""Making, listing and revoking tokens over HTTP: people do so with their own tokens only."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from structlog.testing import capture_logs

from lockbox.identity import api_tokens, authentication
from tests.each import each
from tests.http.door import Door, OpenDoor, facts, until_served
from tests.http.tokens import asked, by, listed, made, works

EVERYBODY = ("erin", "max", "olga", "vera", "gate", "tara", "ann", "aude")
SECRETS = "SELECT id, encode(secret_hash, 'hex') AS hash, secret_hash::text AS raw FROM tokens"


def moment(told: str) -> datetime:
    return datetime.fromisoformat(told)


@pytest.mark.far
@each("who", EVERYBODY)
def test_every_person_creates_their_own_tokens_and_sees_the_text_once(door: Door, who: str) -> None:
    answer = asked(door, who, name="laptop")

    told = answer.json()
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    assert told["name"] == "laptop"
    assert told["token"].startswith(f"lbx_test_{UUID(told['id']).hex}_")
    assert by(told, door, "GET", "/v1/me").json()["id"] == str(door.world.people[who].person_id)
    assert told["token"] not in door.get(who, "/v1/tokens").text


def test_a_person_with_only_an_api_token_can_deny_but_not_approve(door: Door) -> None:
    token, request_id = made(door, "ann"), door.pending()

    refused = by(token, door, "POST", f"/v1/requests/{request_id}/approve")
    denied = by(token, door, "POST", f"/v1/requests/{request_id}/deny", json={"comment": "No"})

    facts(refused, 403, "fresh-sign-in-needed")
    assert denied.json()["state"] == "denied"


@pytest.mark.parametrize(("asked_for", "days"), [({}, 90), ({"days": 1}, 1), ({"days": 365}, 365)])
def test_a_token_lasts_ninety_days_or_as_requested(door: Door, asked_for: dict[str, int], days: int) -> None:
    token = made(door, "max", **asked_for)

    assert moment(token["expires_at"]) - moment(token["created_at"]) == timedelta(days=days)
    assert works(token, door.later(days=days, minutes=-1))
    assert not works(token, door.later(days=days))


@pytest.mark.far
@each(
    "body",
    [
        {"days": 0},
        {"days": 366},
        {"days": -1},
        {"days": "90"},
        {"days": 1.5},
        {"name": ""},
        {"name": " "},
        {"name": "two\nlines"},
        {"name": "x" * 101},
        {"name": None},
        {"person_id": str(uuid4())},
        {"is_sample": True},
        {"scopes": ["everything"]},
    ],
)
def test_an_invalid_token_request_is_refused(door: Door, body: dict[str, Any]) -> None:
    before = listed(door, "vera")

    facts(asked(door, "vera", **body), 422, "invalid-request")

    assert listed(door, "vera") == before


def test_a_person_lists_their_own_tokens_without_text_or_hash(door: Door) -> None:
    token = made(door, "aude", name="reports")
    with door.root.connect() as connection:
        rows = connection.exec_driver_sql(SECRETS).all()

    answer = door.get("aude", "/v1/tokens")

    shown = {item["id"]: item for item in answer.json()["items"]}
    assert {name: value for name, value in token.items() if name != "token"} == shown[token["id"]]
    assert set(shown[token["id"]]) == {
        *("id", "name", "scopes", "services", "created_at", "last_used_at", "expires_at", "replaces", "tenants")
    }
    parts = authentication.TOKEN_FORM.fullmatch(token["token"])
    assert parts
    assert not [form for row in rows for form in (row.hash, row.raw) if form in answer.text]
    assert parts["secret"] not in answer.text


def test_tokens_of_other_people_are_invisible(door: Door) -> None:
    token = made(door, "ann")

    assert [who for who in EVERYBODY if token["id"] in listed(door, who)] == ["ann"]


def test_a_revoked_token_is_refused_from_the_next_call_on(door: Door) -> None:
    token, other = made(door), made(door)
    assert works(token, door)

    revoked = door.call("erin", "DELETE", f"/v1/tokens/{token['id']}")

    assert (revoked.status_code, revoked.content) == (204, b"")
    refused = by(token, door, "GET", "/v1/me")
    assert facts(refused, 401, "invalid-token")["detail"] == authentication.UNKNOWN_OR_REVOKED
    assert token["id"] not in listed(door, "erin")
    assert works(other, door)


def test_revoking_a_token_twice_is_harmless(door: Door) -> None:
    token = made(door)

    answers = [door.call("erin", "DELETE", f"/v1/tokens/{token['id']}") for _ in range(3)]

    assert [answer.status_code for answer in answers] == [204, 204, 204]


def test_a_token_can_revoke_itself_and_other_tokens_of_its_person(door: Door) -> None:
    token, other = made(door), made(door)

    assert by(token, door, "DELETE", f"/v1/tokens/{other['id']}").status_code == 204
    assert by(token, door, "DELETE", f"/v1/tokens/{token['id']}").status_code == 204

    assert not works(token, door)
    assert not works(other, door)


def test_a_token_cannot_create_another_token(door: Door) -> None:
    token = made(door)
    before = listed(door, "erin")

    facts(by(token, door, "POST", "/v1/tokens", json={"name": "another"}), 403, "fresh-sign-in-needed")

    assert listed(door, "erin").keys() == before.keys()


def test_a_token_cannot_rotate_another_token_whether_or_not_it_exists(door: Door) -> None:
    token, own, others = made(door), made(door), made(door, "ann")

    answers = [by(token, door, "POST", f"/v1/tokens/{one}/rotate") for one in (own["id"], others["id"], uuid4())]

    facts(answers[0], 403, "fresh-sign-in-needed")
    assert answers[0].content == answers[1].content == answers[2].content


def mangled(text: str) -> dict[str, str]:
    """Return the copies of a token that are altered in each of these ways."""
    body = text.replace("lbx_test_", "lbx_production_")[:-8]
    return {
        "a wrong checksum": text[:-1] + ("0" if text[-1] != "0" else "1"),
        "cut by one": text[:-1],
        "cut by the checksum": text[:-8],
        "cut in half": text[: len(text) // 2],
        "longer": text + "0",
        "of another environment": body + authentication.token_checksum(body),
        "of another environment, the checksum as it was": body + text[-8:],
    }


@each("how", mangled("lbx_test_" + "0" * 90))
def test_an_altered_token_is_refused_and_not_echoed(door: Door, how: str) -> None:
    token = made(door, "ann")
    shown = mangled(token["token"])[how]

    with capture_logs() as lines:
        answer = by(shown, door, "GET", "/v1/me")

    facts(answer, 401, "invalid-token")
    assert shown not in answer.text
    assert shown not in str(lines)
    door.call("ann", "DELETE", f"/v1/tokens/{token['id']}")


@pytest.mark.far
def test_the_twenty_first_token_of_a_person_is_refused_until_a_token_is_revoked(fresh_door: Door) -> None:
    ids = [made(fresh_door)["id"] for _ in range(api_tokens.MOST_TOKENS - 1)]

    full = asked(fresh_door, "erin")
    fresh_door.call("erin", "DELETE", f"/v1/tokens/{ids[0]}")
    again = asked(fresh_door, "erin")

    assert "revoke one" in facts(full, 409, "too-many-tokens")["detail"]
    assert again.status_code == 201
    assert asked(fresh_door, "eve").status_code == 201


@pytest.mark.far
def test_expired_tokens_do_not_count_against_the_limit_of_twenty(fresh_door: Door) -> None:
    for _ in range(api_tokens.MOST_TOKENS - 1):
        made(fresh_door, days=1)
    sql = "UPDATE tokens SET expires_at = clock_timestamp() WHERE NOT is_sample AND person_id = :p"
    fresh_door.run_sql(sql, p=fresh_door.world.people["erin"].person_id)

    assert asked(fresh_door, "erin").status_code == 201


@pytest.mark.far
def test_concurrent_calls_cannot_create_more_than_twenty_tokens(fresh_door: Door) -> None:
    for _ in range(api_tokens.MOST_TOKENS - 3):
        made(fresh_door)
    rush = {"name": "rush"}
    calls = [until_served(fresh_door.coming, "erin", "POST", "/v1/tokens", json=rush) for _ in range(6)]

    statuses = sorted(answer.status_code for answer in fresh_door.together(*calls))

    assert statuses == [201, 201, 409, 409, 409, 409]
    assert len(listed(fresh_door, "erin")) == api_tokens.MOST_TOKENS


def test_the_last_use_of_a_token_is_updated_once_a_minute_by_its_own_calls(fresh_door: Door) -> None:
    began = datetime.now(UTC)
    token, other = made(fresh_door), made(fresh_door)

    def used(one: dict[str, Any], **after: float) -> datetime | None:
        by(one, fresh_door.at(began + timedelta(**after)), "GET", "/v1/requests")
        noted = listed(fresh_door, "erin")[token["id"]]["last_used_at"]
        return moment(noted) if noted else None

    assert used(other, seconds=1) is None
    assert used(token, seconds=10) == began + timedelta(seconds=10)
    assert used(token, seconds=69) == began + timedelta(seconds=10)
    assert used(other, seconds=69) == began + timedelta(seconds=10)
    assert used(token, seconds=70) == began + timedelta(seconds=70)


def test_a_service_account_binds_its_token_to_scopes_and_services(door: Door) -> None:
    door.active()
    bound = {"scopes": ["access:check"], "services": ["exchange-online"]}
    question = {
        "tenant": door.world.tenant.slug,
        "resource": "mailbox:anna@contoso.example",
        "action": "read",
        "engineer": str(door.world.people["erin"].person_id),
    }

    token = made(door, "gate", **bound)
    unbound = made(door, "gate")

    assert {name: token[name] for name in bound} == bound

    def answer(shown: dict[str, Any], service: str) -> int:
        return by(shown, door, "GET", "/v1/access", params=question | {"service": service}).status_code

    assert answer(token, "exchange-online") == 200
    refused = by(token, door, "GET", "/v1/access", params=question | {"service": "onedrive"})
    facts(refused, 403, "wrong-role")
    assert answer(unbound, "exchange-online") == 403


@each("bound", [{"scopes": ["access:check"]}, {"services": ["exchange-online"]}])
@each("who", [who for who in EVERYBODY if who != "gate"])
def test_only_a_service_account_binds_its_token(door: Door, who: str, bound: dict[str, Any]) -> None:
    facts(asked(door, who, **bound), 403, "wrong-role")


def test_a_token_cannot_be_bound_to_a_service_missing_from_the_catalogue(door: Door) -> None:
    answer = asked(door, "gate", services=["exchange-online", "no-such", "nor-this"])

    told = facts(answer, 422, "unknown-service")
    assert told["field"] == "services"
    assert "no-such, nor-this" in told["detail"]


def test_no_log_line_contains_a_token_or_its_name(door: Door) -> None:
    with capture_logs() as lines:
        token = made(door, "max", name="my-own-name")
        rotated = door.call("max", "POST", f"/v1/tokens/{token['id']}/rotate").json()
        door.get("max", "/v1/tokens")
        by(rotated, door, "POST", "/v1/tokens", json={"name": "my-own-name"})
        door.call("max", "DELETE", f"/v1/tokens/{token['id']}")

    assert [line["status"] for line in lines if line["event"] == "http"] == [201, 201, 200, 403, 204]
    for told in (token["token"], rotated["token"], token["id"], "my-own-name"):
        assert told not in str(lines)


@pytest.mark.parametrize(("who", "is_told"), [("ann", True), ("erin", False)])
def test_creating_rotating_and_revoking_tokens_are_events_without_secrets(
    open_door: OpenDoor, who: str, *, is_told: bool
) -> None:
    door = open_door()
    token = made(door, who, name="my-own-name")
    rotated = door.call(who, "POST", f"/v1/tokens/{token['id']}/rotate").json()
    for _ in range(2):
        door.call(who, "DELETE", f"/v1/tokens/{rotated['id']}")

    with door.root.connect() as connection:
        sql = (
            "SELECT action, tenant_id, convert_from(body, 'UTF8') AS body FROM events WHERE actor_id = %s ORDER BY id"
        )
        rows = connection.exec_driver_sql(sql, (door.world.people[who].person_id,)).all()

    assert [row.action for row in rows] == ["token_made", "token_rotated", "token_revoked"]
    assert {row.tenant_id for row in rows} == {door.world.tenant.id if is_told else None}
    bodies = " ".join(row.body for row in rows)
    assert token["id"] in bodies
    assert rotated["id"] in bodies
    assert not [text for text in (token["token"], rotated["token"], "my-own-name") if text in bodies]
