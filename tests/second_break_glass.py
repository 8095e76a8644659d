"""The second verifier's checks of windows opened by break-glass, written only from docs/audit-format.md."""

import json
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from tests.second_verifier import must

HOUR = timedelta(hours=1)


def check(lines: Iterable[dict[str, Any]]) -> None:
    """Fail if a break-glass window was not opened in the way that two people of the vendor may open it."""
    engineers: dict[str, str] = {}
    stopped = ""
    for fields in (json.loads(line["body"]) for line in lines if "body" in line):
        request = fields.get("request_id")
        if fields["action"] == "emergency_stop" and fields.get("bars_break_glass"):
            stopped = stopped or fields["at"]
        if fields["action"] == "emergency_stop_ended":
            stopped = ""
        is_barred = stopped and fields["action"] == "break_glass" and fields["at"] > stopped
        must(not is_barred, "break-glass during an emergency stop")
        if fields["action"] == "submit":
            engineers[request] = fields.get("on_behalf_of") or fields.get("actor_id")
        if isinstance(submission := fields.get("submission"), dict):
            engineers[request] = submission["engineer"]
        if fields.get("seq") is not None and fields.get("to_state") == "active":
            _opened(fields, engineers.get(request))


def _opened(fields: dict[str, Any], engineer: str | None) -> None:
    is_so = fields["action"] == "break_glass"
    must(is_so is (fields.get("break_glass") is True), "a window says that it is break-glass, or hides it")
    if is_so:
        must(fields["approved_by"] == [fields["actor_id"]], "another signed for break-glass than opened it")
        must(fields["actor_id"] != engineer, "the requester opened break-glass")
        lasts = datetime.fromisoformat(fields["deadline_at"]) - datetime.fromisoformat(fields["at"])
        must(lasts <= HOUR, "break-glass lasts for more than an hour")
