"""Describe the calls of webhooks in the OpenAPI document."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from api.schemas.webhook_calls import AccountCall, EndpointTestCall, RequestCall
from lockbox.admin.webhooks import OF_REQUESTS, OF_TENANTS
from lockbox.notifications.account_mail import CHECKPOINT_TYPE, INVARIANT_TYPE
from lockbox.notifications.mail_text import ACCOUNT_TITLES
from lockbox.notifications.webhook import TEST_TYPE

REF = "#/components/schemas/{model}"
REQUESTS: Mapping[str, str] = {
    "submitted": "A request was submitted",
    "endorsed": "The vendor endorsed a request",
    "break_glass": "Access was opened by break-glass, without the customer's approval",
    "approved": "An approver approved a request",
    "denied": "A request was denied",
    "review_denied": "A request was denied in the vendor's review",
    "cancelled": "A request was cancelled",
    "timed_out": "A request timed out",
    "completed": "The engineer gave access back",
    "revoked": "Access was revoked",
    "expired": "Access has expired",
    "reminded": "Approvers were reminded of a request",
    "escalated": "A request was escalated",
    "begun": "Access that was approved for later is open now",
    "held_back": "Access that was approved for later is held back",
    "closing": "Access ends soon",
    "unreached": "None of the approvers could be notified",
    "question": "A question was asked about a request",
    "answer": "A question about a request was answered",
    "after_review": "The customer gave its finding about break-glass",
    "after_review_reminded": "A finding about break-glass is due",
    "after_review_overdue": "A finding about break-glass is overdue",
    "connection_opened": "Access was opened at a target",
    "connection_open_failed": "Access could not be opened at a target yet",
    "connection_closed": "Access was closed at a target",
    "connection_close_failed": "Access could not be closed at a target yet",
}
OTHERS: Mapping[str, str] = {
    CHECKPOINT_TYPE: "An audit log has a new checkpoint",
    INVARIANT_TYPE: "An invariant check failed",
}
HEADERS: Mapping[str, Any] = {
    "WebhookId": {
        "name": "webhook-id",
        "in": "header",
        "required": True,
        "description": "The id of the call, the same at every try: drop what you have processed.",
        "schema": {"type": "string", "format": "uuid"},
        "example": "01a220cb-f13a-773f-b561-c9bdad92e1c4",
    },
    "WebhookTimestamp": {
        "name": "webhook-timestamp",
        "in": "header",
        "required": True,
        "description": "When this try was sent, in seconds since 1970: refuse one older than five minutes.",
        "schema": {"type": "integer"},
        "example": 1795845600,
    },
    "WebhookSignature": {
        "name": "webhook-signature",
        "in": "header",
        "required": True,
        "description": "Signatures by Standard Webhooks, `v1` by the secret and `v1a` by the public key: verify one.",
        "schema": {"type": "string"},
        "example": "v1,n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg=",
    },
}
ANSWERS: Mapping[str, Any] = {
    "2XX": {"description": "Delivered; answer within ten seconds."},
    "410": {"description": "The webhook is disabled: it is not called any more."},
    "4XX": {"description": "The call has failed and is not tried again, except after 408, 425 and 429."},
    "5XX": {"description": "The call is tried again, for up to 72 hours."},
}


def schemas() -> Mapping[str, Any]:
    models: tuple[type[BaseModel], ...] = (RequestCall, AccountCall, EndpointTestCall)
    _, made = models_json_schema([(model, "serialization") for model in models], ref_template=REF)
    found: Mapping[str, Any] = made["$defs"]
    return found


def webhooks() -> Mapping[str, Any]:
    requests = {one: (REQUESTS[one.partition(".")[2]], RequestCall) for one in OF_REQUESTS}
    tenants = {
        one: (ACCOUNT_TITLES[one.partition(".")[2]].format(tenant="a tenant"), AccountCall) for one in OF_TENANTS
    }
    others = {one: (said, AccountCall) for one, said in OTHERS.items()}
    test = {TEST_TYPE: ("A webhook is tested", EndpointTestCall)}
    every = {**requests, **tenants, **others, **test}
    return {one: {"post": _call(one, *facts)} for one, facts in sorted(every.items())}


def _call(event_type: str, said: str, body: type[BaseModel]) -> Mapping[str, Any]:
    return {
        "operationId": f"on_{event_type.replace('.', '_')}",
        "summary": said[0].upper() + said[1:],
        "description": f"`type` is `{event_type}`. See docs/webhooks.md for order, repetition and signatures.",
        "tags": ["webhooks"],
        "security": [],
        "parameters": [{"$ref": f"#/components/parameters/{name}"} for name in HEADERS],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": REF.format(model=body.__name__)}}},
        },
        "responses": dict(ANSWERS),
    }
