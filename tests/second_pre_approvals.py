"""The second verifier's checks of pre-approvals, written only from docs/audit-format.md."""

import json
from collections.abc import Iterable
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any

from tests.second_verifier import must

NEVER = "9"


def check(lines: Iterable[dict[str, Any]]) -> None:
    """Fail if a window exceeds its pre-approval, or if no one but the proposer approved the pre-approval."""
    events = [(json.loads(line["body"]), line["personal"]) for line in lines if "body" in line]
    of = [event for event in events if "pre_approval_id" in event[0]]
    for which in {fields["pre_approval_id"] for fields, _ in of}:
        mine = [one for one in of if one[0]["pre_approval_id"] == which]
        windows = [one for one in mine if one[0]["seq"] is not None and one[0]["to_state"] == "active"]
        if not windows:
            continue
        said = [fields for fields, _ in mine]
        ((proposed, shown),) = [one for one in mine if one[0]["action"] == "pre_approval_proposed"]
        yes = {one["actor_id"] for one in said if one["action"] == "pre_approval_approved"} - {proposed["actor_id"]}
        ended = min((one["at"] for one in said if one["action"] == "pre_approval_revoked"), default=NEVER)
        must(len(windows) <= proposed["max_uses"], "a pre-approval was used too often")
        pattern = shown["resource"]["value"] if "resource" in shown else "*"
        for fields, personal in windows:
            must(
                bool(fields["approved_by"]) and set(fields["approved_by"]) <= yes, "nobody approved the pre-approval"
            )
            must(fields["at"] <= ended and fields["deadline_at"] <= proposed["ends_at"], "the pre-approval was over")
            _within(fields, personal, proposed, pattern)


def _within(fields: dict[str, Any], personal: dict[str, Any], proposed: dict[str, Any], pattern: str) -> None:
    asked = fields.get("submission", fields)
    must(set(asked["actions"]) <= set(proposed["actions"]), "other actions than were approved beforehand")
    same = ("service", "reason_code")
    must(
        all(asked[name] == proposed[name] for name in same), "another service or reason than was approved beforehand"
    )
    lasts = datetime.fromisoformat(fields["deadline_at"]) - datetime.fromisoformat(fields["at"])
    must(lasts <= timedelta(seconds=proposed["access_window"]), "it lasts longer than was approved beforehand")
    resources = json.loads(personal["resources"]["value"]) if "resources" in personal else []
    literal = pattern.replace("[", "[[]").replace("?", "[?]")
    must(
        all(fnmatchcase(resource, literal) for resource in resources), "other resources than were approved beforehand"
    )
