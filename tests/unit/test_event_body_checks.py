"""What is read of an event body that differs from its row or is unreadable."""

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from lockbox.audit.canonical import canonical, commitment
from lockbox.audit.verifier import event_checks
from lockbox.sql import new_id
from tests.each import each

SALT = bytes(range(16))
SHOWN = base64.b64encode(SALT).decode()
COLUMNS: dict[str, Any] = {
    "id": new_id(),
    "tenant_id": new_id(),
    "request_id": new_id(),
    "seq": 2,
    "at": datetime(2026, 5, 1, 10, tzinfo=UTC),
    "action": "approve",
    "actor_id": new_id(),
    "actor_role": "approver",
    "from_state": "pending",
    "to_state": "active",
}
BODY = canonical(COLUMNS | {"personal": {"name": commitment(SALT, "Ann")}})


def test_an_event_body_that_matches_its_row_is_read_without_findings() -> None:
    assert event_checks.compare_columns(BODY, COLUMNS, {"name": (SHOWN, "Ann")}) == (COLUMNS, ())


@each("name", event_checks.MEMBERS)
def test_columns_that_differ_from_the_event_body_are_named_and_read_from_the_body(name: str) -> None:
    other = COLUMNS | {name: None if name in {"seq", "from_state", "to_state", "tenant_id"} else _other(name)}

    members, altered = event_checks.compare_columns(BODY, other, {})

    assert altered == (name,)
    assert members | {"seq": None} == (other if name == "id" else COLUMNS) | {"seq": None}


def _other(name: str) -> object:
    return {"at": datetime(2020, 1, 1, tzinfo=UTC), "action": "deny", "actor_role": "manager"}.get(name, new_id())


@pytest.mark.parametrize(("salt", "value"), [(SHOWN, "Mallory"), ("AAAA", "Ann"), ("A", "Ann")])
def test_an_event_value_that_does_not_match_its_commitment_is_named(salt: str, value: str) -> None:
    assert event_checks.compare_columns(BODY, COLUMNS, {"name": (salt, value)})[1] == ("name",)


@pytest.mark.parametrize("body", [b"", b"x", b"[]", b"{}", b'"text"', b"\xff", b'{"at":7,"id":[],"action":{}}'])
def test_an_empty_or_malformed_event_body_leaves_only_the_indispensable_columns(body: bytes) -> None:
    members, altered = event_checks.compare_columns(body, COLUMNS, {"name": (SHOWN, "Ann")})

    assert set(altered) == {*event_checks.MEMBERS, "name"}
    assert {name for name, value in members.items() if value is not None} == event_checks.NEEDED
    assert event_checks.item(body, {}) is None


@pytest.mark.parametrize(
    ("resources", "item"), [('["a", "b"]', "azure-sql a, b"), (None, "azure-sql"), ('["c"]', "azure-sql")]
)
def test_a_timeline_item_names_the_requested_resources_unless_they_were_altered(
    resources: str | None, item: str
) -> None:
    body = json.dumps({"service": "azure-sql", "personal": {"resources": commitment(SALT, '["a", "b"]')}}).encode()

    assert event_checks.item(body, {"resources": (SHOWN, resources)} if resources else {}) == item
