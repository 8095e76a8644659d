"""The second verifier's checks of members that only format 2 has, written only from docs/audit-format.md."""

import json
import re
from collections.abc import Sequence
from typing import Any

from tests.second_verifier import beyond_format_1, in_order, must

HEX = "[0-9a-f]"
DIGEST, UUID_FORM = f"{HEX}{{64}}", f"{HEX}{{8}}-{HEX}{{4}}-{HEX}{{4}}-{HEX}{{4}}-{HEX}{{12}}"
DIGESTS, UUIDS = {"tool_sha256", "commitment"}, {"id", "owner"}


def check(lines: Sequence[dict[str, Any]], *, whole: bool) -> None:
    """Fail if a move names another user, program or call than its request, or names them in another form."""
    asked: dict[str, dict[str, Any]] = {}
    events = [line for line in lines if "body" in line]
    for line in in_order(events) if whole else events:
        fields = json.loads(line["body"])
        if fields["seq"] is None:
            continue
        request, says = fields["request_id"], beyond_format_1(fields)
        _form(says)
        if fields["seq"] == 1 or "submission" in fields:
            asked[request] = says
            _first(fields, says)
        is_open = fields["to_state"] == "active"
        if request in asked and (is_open or fields["action"] == "approve"):
            must(says == asked[request], "it is for something else than was asked for")
        if is_open:
            _opening(fields, says)
        if fields["to_state"] not in {"reviewing", "pending", "active"}:
            asked.pop(request, None)


def _form(says: dict[str, Any]) -> None:
    must(re.fullmatch(DIGEST, says.get("act_as", "0" * 64)), "who is acted as is not committed to")
    for name, members in (("agent", "id name owner processor"), ("call", "commitment service tool tool_sha256")):
        if name in says:
            must(type(says[name]) is dict, "an agent or a call is no object")
            must(sorted(says[name]) == members.split(), "an agent or a call has other members")
            for part, value in says[name].items():
                form = DIGEST if part in DIGESTS else UUID_FORM if part in UUIDS else "(?s:.+)"
                must(re.fullmatch(form, value) and len(value.encode()) <= 4096, "a part of it has another form")


def _first(fields: dict[str, Any], says: dict[str, Any]) -> None:
    committed, call = fields["personal"], says.get("call")
    must(committed.get("act_as") == says.get("act_as"), "it commits to another user")
    must(committed.get("call_arguments") == (call["commitment"] if call else None), "it commits to other arguments")
    if call:
        must(fields.get("submission", fields)["service"] == call["service"], "the call is of another service")


def _opening(fields: dict[str, Any], says: dict[str, Any]) -> None:
    if "call" in says:
        must(type(fields["max_uses"]) is int and fields["max_uses"] == 1, "one call may be made more than once")
    if "act_as" in says:
        must(fields["action"] == "approve", "nobody approved that somebody is acted as")
    must(not says or fields["action"] != "break_glass", "break-glass is for people")
