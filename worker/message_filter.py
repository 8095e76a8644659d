"""Rebuild each message of the broker from the few facts that are trusted, or drop the message.

Functions raise Undecodable for a message that is too long or malformed.
"""

import base64
import json
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from lockbox.text_rules import UUID_FORM

MOST_BYTES = 256 * 1024
MOST_IDS = 500
LONGEST_SHOWN = 1024
TASKS = {
    "lockbox.time_out": "core",
    "lockbox.expire": "core",
    "lockbox.remind": "core",
    "lockbox.notify": "notify",
    "lockbox.case_check": "notify",
    "lockbox.connect": "connect",
    "lockbox.reconcile": "maintenance",
    "lockbox.seal": "maintenance",
}
"""The queue of each task."""
TAKES_IDS = frozenset(TASKS) - {"lockbox.reconcile", "lockbox.seal"}
QUEUES = frozenset(TASKS.values())
INSPECTION = frozenset(
    {
        *("ping", "stats", "active", "reserved", "scheduled", "revoked", "registered", "active_queues", "conf"),
        *("clock", "enable_events"),
    }
)
"""The broadcast commands that a worker answers: Flower's pages and the health check send them, and none changes the
worker."""
CONTROL, REPLIES = "celery.pidbox", "reply.celery.pidbox"
JSON_KIND = {"content-type": "application/json", "content-encoding": "utf-8"}
NO_CALLBACKS = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
WRONG = (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError)


class Undecodable(Exception):  # noqa: N818 - it names what was found
    """The message is not one of ours. The error's text contains nothing of the message."""


def task(raw: bytes, queue: str) -> dict[str, Any]:
    """Rebuild a task of this queue from its name, its id and the ids in its arguments."""
    message = _message(raw)
    try:
        headers, id_ = message["headers"], message["headers"]["id"]
        name = headers["task"]
        if TASKS.get(name) != queue or not UUID_FORM.fullmatch(id_):
            raise Undecodable("task")
        arguments, named, _ = _body(message)
        if named or not isinstance(arguments, list):
            raise Undecodable("arguments")
        known = _ids(arguments[0]) if name in TAKES_IDS and len(arguments) == 1 else []
        if len(arguments) != (name in TAKES_IDS):
            raise Undecodable("arguments")
        delivery = message["properties"]["delivery_info"]
        again = delivery.get("redelivered") is True
    except WRONG:
        raise Undecodable("form") from None
    return _task(name, id_, [known] if name in TAKES_IDS else [], queue, is_redelivered=again)


def control(raw: bytes) -> dict[str, Any]:
    """Rebuild a broadcast: a question of INSPECTION, its addressees, and the address for the answer."""
    message = _message(raw)
    try:
        asked = _body(message)
        method, to, reply = asked["method"], asked.get("destination"), asked.get("reply_to")
        if method not in INSPECTION or asked.get("pattern"):
            raise Undecodable("command")
        said: dict[str, Any] = {"method": method, "arguments": {}, "destination": None}
        if to is not None:
            said["destination"] = [str(one)[:LONGEST_SHOWN] for one in to]
        if reply is not None:
            if reply["exchange"] != REPLIES or not UUID_FORM.fullmatch(reply["routing_key"]):
                raise Undecodable("reply")
            said["reply_to"] = {"exchange": REPLIES, "routing_key": reply["routing_key"]}
            said["ticket"] = str(asked["ticket"])[:LONGEST_SHOWN]
    except WRONG:
        raise Undecodable("form") from None
    return _enveloped(said, {}, CONTROL, "", is_redelivered=False)


def other(raw: bytes) -> dict[str, Any]:
    """Rebuild an answer or an event for Flower and the health check."""
    message = _message(raw)
    try:
        body = _body(message)
        told = {name: value for name, value in message["headers"].items() if name in {"ticket", "hostname"}}
        delivery = message["properties"]["delivery_info"]
        exchange, key = str(delivery["exchange"]), str(delivery["routing_key"])
    except WRONG:
        raise Undecodable("form") from None
    if not isinstance(body, dict | list):
        raise Undecodable("body")
    return _enveloped(body, told, exchange, key, is_redelivered=False)


def loaded(raw: bytes) -> object:
    if len(raw) > MOST_BYTES:
        raise Undecodable("size")
    try:
        return json.loads(raw)
    except WRONG:
        raise Undecodable("json") from None


def _message(raw: bytes) -> Mapping[str, Any]:
    found = loaded(raw)
    if not isinstance(found, dict):
        raise Undecodable("form")
    return found


def _body(message: Any) -> Any:  # noqa: ANN401 - untrusted input
    if message["content-type"] != "application/json" or message["content-encoding"].lower() != "utf-8":
        raise Undecodable("kind")
    if message["properties"]["body_encoding"] != "base64":
        raise Undecodable("encoding")
    return loaded(base64.b64decode(message["body"], validate=True))


def _ids(found: object) -> list[str]:
    if not isinstance(found, list) or len(found) > MOST_IDS:
        raise Undecodable("arguments")
    if not all(isinstance(one, str) and UUID_FORM.fullmatch(one) for one in found):
        raise Undecodable("arguments")
    return found


def _task(name: str, id_: str, arguments: list[list[str]], queue: str, *, is_redelivered: bool) -> dict[str, Any]:
    headers: dict[str, Any] = {
        "lang": "py",
        "task": name,
        "id": id_,
        "root_id": id_,
        "parent_id": None,
        "group": None,
        "shadow": None,
        "eta": None,
        "expires": None,
        "retries": 0,
        "timelimit": [None, None],
        "argsrepr": repr(tuple(arguments))[:LONGEST_SHOWN],
        "kwargsrepr": "{}",
        "origin": "lockbox",
        "ignore_result": True,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
    }
    body = [arguments, {}, NO_CALLBACKS]
    made = _enveloped(body, headers, "", queue, is_redelivered=is_redelivered)
    made["properties"] |= {"correlation_id": id_, "reply_to": ""}
    return made


def _enveloped(
    body: object, headers: Mapping[str, Any], exchange: str, key: str, *, is_redelivered: bool
) -> dict[str, Any]:
    delivery: dict[str, Any] = {"exchange": exchange, "routing_key": key}
    if is_redelivered:
        delivery["redelivered"] = True
    return {
        "body": base64.b64encode(json.dumps(body).encode()).decode(),
        **JSON_KIND,
        "headers": dict(headers),
        "properties": {
            "delivery_mode": 2,
            "delivery_info": delivery,
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": str(uuid4()),
        },
    }
