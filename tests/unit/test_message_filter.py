"""Messages from the broker: a task is rebuilt from its name and ids, and no other content survives."""

import base64
import contextlib
import json
from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.each import each
from worker import message_filter
from worker.message_filter import MOST_BYTES, Undecodable

ID, REQUEST = str(uuid4()), str(uuid4())
ADMITTING: tuple[Callable[[bytes], dict[str, Any]], ...] = (
    partial(message_filter.task, queue="core"),
    message_filter.control,
    message_filter.other,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def sent(arguments: list[Any], **headers: Any) -> dict[str, Any]:
    """Return a message as Celery puts it into a list, with changes of its headers."""
    body = base64.b64encode(json.dumps([arguments, {}, {"chord": None}]).encode()).decode()
    return {
        "body": body,
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"task": "lockbox.expire", "id": ID} | headers,
        "properties": {
            "body_encoding": "base64",
            "delivery_tag": "a tag",
            "delivery_info": {"exchange": "", "routing_key": "core"},
            "reply_to": "somewhere",
        },
    }


def admitted(message: object, queue: str = "core") -> dict[str, Any]:
    return message_filter.task(json.dumps(message).encode(), queue)


def test_a_queue_message_keeps_only_the_task_name_the_task_id_and_the_request_ids() -> None:
    found = admitted(sent([[REQUEST]], eta="2030-01-01T00:00:00", retries=7, timelimit=[1, 1], group="g", x="y"))

    assert json.loads(base64.b64decode(found["body"]))[:2] == [[[REQUEST]], {}]
    headers = found["headers"]
    assert (headers["task"], headers["id"], headers["retries"], headers["eta"]) == ("lockbox.expire", ID, 0, None)
    assert (headers["timelimit"], headers["group"], "x" in headers) == ([None, None], None, False)
    assert found["properties"]["delivery_info"] == {"exchange": "", "routing_key": "core"}
    assert found["properties"]["reply_to"] == ""
    assert UUID(found["properties"]["delivery_tag"])


def test_a_task_message_keeps_the_flag_that_marks_it_as_redelivered() -> None:
    message = sent([[REQUEST]])
    message["properties"]["delivery_info"]["redelivered"] = True

    assert admitted(message)["properties"]["delivery_info"]["redelivered"] is True


@each(
    ("message", "queue", "why"),
    [
        (sent([[REQUEST]]), "notify", "task"),
        (sent([[REQUEST]], task="lockbox.approve"), "core", "task"),
        (sent([[REQUEST]], id="no id"), "core", "task"),
        (sent([]), "core", "arguments"),
        (sent([["no id"]]), "core", "arguments"),
        (sent([[REQUEST] * 501]), "core", "arguments"),
        (sent([[]], task="lockbox.seal"), "maintenance", "arguments"),
        (sent([[REQUEST]]) | {"content-encoding": "latin-1"}, "core", "kind"),
        ([], "core", "form"),
    ],
)
def test_an_unknown_queue_message_is_dropped(message: object, queue: str, why: str) -> None:
    with pytest.raises(Undecodable, match=why):
        admitted(message, queue)


def test_an_overlong_or_deeply_nested_queue_message_is_dropped_unread() -> None:
    for raw, why in ((b'"' + b"x" * MOST_BYTES + b'"', "size"), (b"[" * 100_000, "json")):
        with pytest.raises(Undecodable, match=why):
            message_filter.task(raw, "core")


@given(JSON, st.sampled_from(["body", "headers", "properties", "content-type", "content-encoding", None]))
def test_any_queue_message_is_either_admitted_or_dropped_without_another_error(
    anything: Any, where: str | None
) -> None:
    message = anything if where is None else sent([[REQUEST]]) | {where: anything}
    raw = json.dumps(message).encode()

    for admit in ADMITTING:
        with contextlib.suppress(Undecodable):
            assert admit(raw)["properties"]


@given(st.binary(max_size=200))
def test_arbitrary_bytes_in_the_queue_are_dropped(raw: bytes) -> None:
    for admit in ADMITTING:
        with pytest.raises(Undecodable):
            admit(raw)


def asked(**said: Any) -> bytes:
    message = sent([])
    message["body"] = base64.b64encode(json.dumps({"method": "ping"} | said).encode()).decode()
    return json.dumps(message).encode()


def test_a_celery_inspection_is_answered_only_at_the_reply_address_of_its_sender() -> None:
    reply = {"exchange": "reply.celery.pidbox", "routing_key": ID}

    found = message_filter.control(asked(reply_to=reply, ticket="t", destination=["core@vm"], arguments={"x": 1}))

    said = json.loads(base64.b64decode(found["body"]))
    assert said == {"method": "ping", "arguments": {}, "destination": ["core@vm"], "reply_to": reply, "ticket": "t"}


@pytest.mark.parametrize(
    "said",
    [
        {"method": "shutdown"},
        {"method": "hello", "arguments": {"revoked": {}}},
        {"method": ["ping"]},
        {"pattern": "(a+)+$", "matcher": "pcre"},
        {"reply_to": {"exchange": "", "routing_key": "core"}, "ticket": "t"},
        {"reply_to": {"exchange": "reply.celery.pidbox", "routing_key": "core"}, "ticket": "t"},
        {"destination": 7},
    ],
)
def test_an_unknown_celery_broadcast_is_dropped(said: dict[str, Any]) -> None:
    with pytest.raises(Undecodable):
        message_filter.control(asked(**said))
