"""Webhooks get what the OpenAPI document says."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import jsonschema_rs

from api import document
from lockbox.admin.webhooks import OF_REQUESTS, OF_TENANTS
from lockbox.facts.ask import Ask
from lockbox.facts.fact import taken
from lockbox.facts.window import Window
from lockbox.notifications import webhook
from lockbox.notifications.account_mail import CHECKPOINT_TYPE, INVARIANT_TYPE
from lockbox.notifications.target_failure import TargetFailure
from lockbox.notifications.webhook import TEST_TYPE, RequestEvent
from tests.each import each

DOCUMENT: dict[str, Any] = json.loads(document.FILE.read_text(encoding="utf-8"))
AT = datetime(2026, 11, 28, 12, 36, tzinfo=UTC)
ONE = UUID("0197f3a0-7c1e-7b11-9c55-3f8f0f6c9b01")
PLACES: dict[str, dict[str, Any]] = {
    "first": {"sequence": 1, "previous": None},
    "later": {"sequence": 2, "previous": str(ONE)},
}


def body_schema(event_type: str) -> jsonschema_rs.Draft202012Validator:
    said = DOCUMENT["webhooks"][event_type]["post"]["requestBody"]["content"]["application/json"]["schema"]
    schema = {**said, "components": DOCUMENT["components"]}
    return jsonschema_rs.Draft202012Validator(schema, validate_formats=True)


def event(**changes: Any) -> RequestEvent:
    facts: dict[str, Any] = {
        "event_id": ONE,
        "event_type": "request.approved",
        "at": AT,
        "request_id": ONE,
        "tenant": "contoso",
        "tenant_id": ONE,
        "state": "active",
        "deadline_at": AT,
        "nobody_notified": False,
        "resources": ["mailbox:anna@contoso.example"],
    }
    values = facts | changes
    ask, window = taken(Ask, values), taken(Window, values)
    return RequestEvent(**values, ask=ask, window=window)


def test_each_webhook_event_type_is_documented() -> None:
    assert set(DOCUMENT["webhooks"]) == {*OF_REQUESTS, *OF_TENANTS, CHECKPOINT_TYPE, INVARIANT_TYPE, TEST_TYPE}


CHANGES: list[dict[str, Any]] = [
    {},
    {"resources": ["mailbox:\u0430nna@contoso.example"]},
    {"state": "timed_out", "nobody_notified": True, "deadline_at": None},
    {"connection": TargetFailure(str(ONE), "orders-db", "unreachable")},
    {"connection": TargetFailure(str(ONE), "orders-db", None)},
    {"extends": ONE, "opens_at": AT, "break_glass": True, "severity": "S1", "held_back": "stricter_policy"},
    {"level": "admin", "context": {"rows": 10, "environment": "production"}, "pre_approval_id": ONE},
]


@each(("changes", "place"), [(changes, place) for changes in CHANGES for place in PLACES])
def test_the_webhook_body_of_a_request_is_as_documented(changes: dict[str, Any], place: str) -> None:
    body = event(**changes).body(ONE, PLACES[place], "https://lockbox.vendor.example")

    validator = body_schema("request.approved")

    assert [error.message for error in validator.iter_errors(body)] == []
    assert body["data"].keys() <= DOCUMENT["components"]["schemas"]["RequestCallData"]["properties"].keys()
    assert not validator.is_valid({**body, "data": {**body["data"], "request_id": "1"}})


def test_the_webhook_body_of_a_tenant_change_is_as_documented() -> None:
    head = webhook.head(ONE, "tenant.policy_changed", AT, ONE, PLACES["first"])
    body = head | webhook.account_data("contoso", ONE, {"quorum": "1 → 2"})

    assert [error.message for error in body_schema("tenant.policy_changed").iter_errors(body)] == []
    assert not body_schema("tenant.policy_changed").is_valid(head)
