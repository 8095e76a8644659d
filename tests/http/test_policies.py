"""Policies over HTTP: read by the tenant's own people, replaced by its admins, by versions."""

from typing import Any

from harness.people import WITHOUT_REVIEW
from lockbox.requests.policy_rules import Policy
from tests.database.tenancy import id_of
from tests.each import each
from tests.http.door import Door, facts

BODY = WITHOUT_REVIEW.model_dump(mode="json")


def put(door: Door, who: str = "tara", seen: str | None = None, **changes: Any) -> Any:
    """Replace the policy by the usual one with changes; without `seen`, replace whichever version is in force."""
    headers = {"if-match": seen or "*"}
    return door.call(who, "PUT", door.path("/policy"), json=BODY | changes, headers=headers)


@each("body", [{}, BODY])
def test_replacing_a_policy_needs_the_version_the_caller_saw(door: Door, body: dict[str, Any]) -> None:
    before = door.get("tara", door.path("/policy")).json()

    answer = door.call("tara", "PUT", door.path("/policy"), json=body)

    assert "If-Match" in facts(answer, 428, "precondition-required")["detail"]
    assert door.get("tara", door.path("/policy")).json() == before


def test_the_api_returns_the_policy_with_its_version_as_etag(door: Door) -> None:
    answer = door.get("aude", door.path("/policy"))

    assert answer.headers["etag"] == '"1"'
    assert answer.json() == {
        "version": 1,
        "author": None,
        "created_at": answer.json()["created_at"],
        "policy": BODY,
    }


def test_each_policy_replacement_makes_a_new_version_and_outdated_replacements_are_refused(
    fresh_door: Door,
) -> None:
    shown = fresh_door.get("tara", fresh_door.path("/policy")).headers["etag"]

    first = put(fresh_door, seen=shown, quorum=2)
    stale = put(fresh_door, seen=shown, quorum=3)
    second = put(fresh_door, seen=first.headers["etag"], quorum=3)

    assert (first.status_code, first.headers["etag"], first.json()["policy"]["quorum"]) == (200, '"2"', 2)
    assert facts(stale, 412, "stale-version")["current_version"] == 2
    assert second.headers["etag"] == '"3"'
    assert second.json()["author"] == {"id": str(id_of(fresh_door.world, "tara")), "name": "Tara"}


@each("seen", ["x", 'W/"1"', '"1", "2"', "-1", "1.0", "9" * 5000])
def test_an_invalid_policy_version_in_if_match_is_refused(door: Door, seen: str) -> None:
    facts(put(door, seen=seen, quorum=2), 422, "invalid-request")

    assert door.get("ann", door.path("/policy")).json()["version"] == 1


def test_old_policy_versions_are_readable_one_by_one_and_as_a_list(fresh_door: Door) -> None:
    put(fresh_door, quorum=2)
    put(fresh_door, quorum=3)

    listed = fresh_door.get("ann", fresh_door.path("/policy/versions"), limit=2).json()["items"]
    rest = fresh_door.get("ann", fresh_door.path("/policy/versions"), before=listed[-1]["version"]).json()["items"]
    old = fresh_door.get("ann", fresh_door.path("/policy"), version=2)

    assert [(one["version"], one["author"] and one["author"]["name"]) for one in (*listed, *rest)] == [
        (3, "Tara"),
        (2, "Tara"),
        (1, None),
    ]
    assert (old.headers["etag"], old.json()["policy"]["quorum"]) == ('"2"', 2)
    facts(fresh_door.get("ann", fresh_door.path("/policy"), version=4), 404, "not-found")


@each("version", ["0", "-1", "x", str(2**31), str(10**30)])
def test_an_invalid_policy_version_in_a_query_is_refused(door: Door, version: str) -> None:
    facts(door.get("ann", door.path("/policy"), version=version), 422, "invalid-request")
    facts(door.get("ann", door.path("/policy/versions"), before=version), 422, "invalid-request")


@each(
    ("field", "value"),
    [
        ("quorum", 0),
        ("quorum", 21),
        ("approval_window", 0),
        ("access_ceiling", 7 * 24 * 3600 + 1),
        ("reasons", []),
        ("reasons", ["because"]),
        ("stages", [{"group": "nobody"}]),
        ("tiers", [["nobody"]]),
        ("rules", [{"name": "x", "match": {}, "terms": {"quorum": 2}}]),
        ("groups", {"Bad Name": []}),
        ("groups", {"legal": ["x"]}),
        ("consent", {"mode": "enforce", "until": "2030-01-01T00:00:00Z"}),
        ("consent", {"mode": "off", "until": "2030-01-01T00:00:00"}),
        ("made_up", 1),
        ("version", 2),
    ],
)
def test_an_invalid_policy_is_refused_and_nothing_changes(door: Door, field: str, value: Any) -> None:
    before = door.rows()

    answer = put(door, **{field: value})

    facts(answer, 422, "invalid-request")
    assert door.rows() == before


def test_a_whole_policy_is_returned_as_sent(fresh_door: Door) -> None:
    ann, amir = (str(id_of(fresh_door.world, name)) for name in ("ann", "amir"))
    sent = Policy.model_validate(
        {
            "quorum": 2,
            "groups": {"legal": [ann], "board": [ann, amir]},
            "stages": [{"group": "legal"}],
            "tiers": [["legal"], ["board"]],
            "rules": [
                {
                    "name": "Exports",
                    "match": {"actions": ["export"], "resources": ["mailbox:*@contoso.example"]},
                    "terms": {"quorum": 3, "stages": [{"group": "board", "quorum": 2}]},
                }
            ],
        }
    ).model_dump(mode="json")

    answer = fresh_door.call("tara", "PUT", fresh_door.path("/policy"), json=sent, headers={"if-match": "*"})

    assert answer.json()["policy"] == sent
    assert fresh_door.get("ann", fresh_door.path("/policy")).json()["policy"] == sent
