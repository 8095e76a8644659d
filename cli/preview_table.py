"""Show the preview of a request in the terminal."""

from collections.abc import Mapping
from typing import Any

from cli.request_table import WORDS
from cli.terminal import Facts
from cli.values import Duration

BY_BREAK_GLASS = "a manager opens it; the customer is not asked, and notified at once"


def preview(found: Mapping[str, Any]) -> Facts:
    terms = found["terms"]
    stages = map(_stage, found["stages"])
    return Facts(
        {
            "Can be submitted": found["can_be_submitted"],
            "Obstacles": "\n".join([*found["obstacles"], *(lack["message"] for lack in found["lacks"])]),
            "First state": WORDS[found["first_state"]][0],
            "Mode": found["mode"],
            "Level": found["level"],
            "Pre-approval": _opened_by(found),
            "Break-glass": BY_BREAK_GLASS if found["break_glass"] else "",
            "Policy": f"version {found['policy_version']}",
            "Reviewed by": ", ".join(found["reviewers"]),
            "Reviewers asked first": ", ".join(found["reviewers_asked_first"]),
            "Asked first": ", ".join(found["asked_first"]),
            "Could approve": ", ".join(found["could_approve"]),
            "Notified first": ", ".join(_counted(one["name"], one["mailboxes"]) for one in found["notified_first"]),
            "Webhooks": found["endpoints"],
            "Approvals": terms["quorum"],
            "Also required": "\n".join(stages),
            "Time to review": Duration(terms["review_window"]),
            "Time to answer": Duration(terms["approval_window"]),
            "Longest window": Duration(terms["access_ceiling"]),
        }
    )


def what_if(found: Mapping[str, Any]) -> Facts:
    terms = found["terms"]
    stages = map(_stage, found["stages"])
    return Facts(
        {
            "Warnings": "\n".join(found["warnings"]),
            "First state": WORDS[found["first_state"]][0],
            "Mode": found["mode"],
            "Policy": f"version {found['policy_version']}",
            "Reviewed by": f"{found['reviewers']} of the vendor" if found["reviewers"] else "",
            "Notified first": "\n".join(map(_mailed, found["notified_first"])),
            "Could approve": ", ".join(found["could_approve"]),
            "Prompts turned off": ", ".join(found["quiet"]),
            "Observers": "\n".join(map(_mailed, found["copied"])),
            "Webhooks": ", ".join(found["endpoints"]),
            "Approvals": terms["quorum"],
            "Also required": "\n".join(stages),
            "Time to answer": Duration(terms["approval_window"]),
        }
    )


def _opened_by(found: Mapping[str, Any]) -> str:
    if not found["pre_approval_id"]:
        return ""
    when = "at once" if found["first_state"] == "active" else "once a manager has endorsed it"
    return f"{found['pre_approval_id']} opens it {when}; nobody of the customer is asked"


def _stage(one: Mapping[str, Any]) -> str:
    step = f"step {one['step']}: " if one["step"] > 1 else ""
    return f"{step}{one['approvals']} of {one['group']} ({', '.join(one['people'])})"


def _mailed(one: Mapping[str, Any]) -> str:
    return f"{one['name']} ({', '.join(one['addresses'])})"


def _counted(name: str, mailboxes: int) -> str:
    return name if mailboxes == 1 else f"{name} ({mailboxes} mailboxes)"
