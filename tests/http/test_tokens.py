"""Bearer tokens over HTTP: whoever does not show a good one is nobody."""

from datetime import timedelta
from uuid import UUID

import pytest

from lockbox.ids import new_id
from lockbox.people import tokens
from tests.http.door import Door, facts

NOBODYS = UUID("01a20e89-0294-736c-b49a-5a0327678385")
PATHS = ["/v1/requests", f"/v1/requests/{NOBODYS}", "/v1/access?tenant=a", "/v1/requests?cursor=%00"]


def shown(door: Door, authorization: str | bytes, path: str = "/v1/requests") -> None:
    """Show something and check that it makes nobody of the caller."""
    answer = door.call(None, "GET", path, headers={"authorization": authorization})
    facts(answer, 401, "invalid-token")
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("path", PATHS)
def test_without_a_token_nothing_is_told_not_even_what_is_wrong(door: Door, path: str) -> None:
    answer = door.call(None, "GET", path)

    facts(answer, 401, "invalid-token")
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
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
        f"Bearer lbx_test_{'0' * 32}_" + "A" * 43,
    ],
)
def test_what_is_no_token_is_refused(door: Door, authorization: str | bytes) -> None:
    shown(door, authorization)


def test_a_good_token_in_the_wrong_place_is_none(door: Door) -> None:
    good = door.world.tokens["erin"]

    shown(door, f"Basic {good}")
    shown(door, f"Token {good}")
    shown(door, good)
    shown(door, f"Bearer {good}, Bearer {good}")
    shown(door, "", path=f"/v1/requests?access_token={good}")


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER ", "Bearer  "])
def test_the_scheme_is_read_in_any_case(door: Door, scheme: str) -> None:
    header = {"authorization": scheme + door.world.tokens["erin"]}

    assert door.call(None, "GET", "/v1/requests", headers=header).status_code == 200


@pytest.mark.parametrize("end", ["A", "B", ""])
def test_another_secret_with_the_same_id_is_unknown(door: Door, end: str) -> None:
    good = door.world.tokens["erin"]
    changed = good[:-1] + ("C" if good.endswith(end or "C") else end)

    shown(door, f"Bearer {changed}")


@pytest.mark.parametrize("environment", ["production", "development", "staging"])
def test_a_token_of_another_environment_is_refused(door: Door, environment: str) -> None:
    good = door.world.tokens["erin"]

    shown(door, f"Bearer {good.replace('lbx_test_', f'lbx_{environment}_')}")


def test_a_token_ends_with_its_hour(door: Door) -> None:
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
def test_revoked_disabled_and_unknown_answer_alike(fresh_door: Door, ending: str) -> None:
    unknown = fresh_door.call(
        None, "GET", "/v1/requests", headers={"authorization": f"Bearer lbx_test_{new_id().hex}_" + "A" * 43}
    )
    fresh_door.run_sql(ending, p=fresh_door.world.people["erin"].person_id)

    answer = fresh_door.get("erin", "/v1/requests")

    facts(answer, 401, "invalid-token")
    assert answer.content == unknown.content


def test_a_second_token_of_the_same_person_serves_as_well(door: Door) -> None:
    with door.house.transaction() as session:
        second = tokens.issue(
            session, door.world.people["erin"].person_id, environment="test", lifetime=timedelta(minutes=1)
        )
    request_id = door.pending()

    answer = door.call(None, "GET", f"/v1/requests/{request_id}", headers={"authorization": f"Bearer {second.text}"})

    assert answer.status_code == 200


def test_a_person_without_any_role_is_somebody_who_may_nothing(fresh_door: Door) -> None:
    fresh_door.run_sql("DELETE FROM memberships WHERE person_id = :p", p=fresh_door.world.people["erin"].person_id)

    facts(fresh_door.file("erin"), 403, "wrong-role")
    facts(fresh_door.ask("erin"), 403, "wrong-role")
    assert fresh_door.get("erin", "/v1/requests").json()["items"] == []


def test_no_token_is_ever_stored_or_echoed(door: Door) -> None:
    good = door.world.tokens["erin"]

    with door.root.connect() as connection:
        stored = connection.exec_driver_sql("SELECT string_agg(t::text, ' ') FROM tokens t").scalar_one()
    answer = door.call(None, "GET", "/v1/requests", headers={"authorization": f"Bearer {good}x"})

    assert good.rpartition("_")[2] not in stored
    assert good not in answer.text
