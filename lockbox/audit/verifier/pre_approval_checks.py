"""Check that each window that a pre-approval opened stays within that pre-approval; pure."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from lockbox.audit.verifier.export_format import FindingKind, Findings

PRE_APPROVAL = "pre_approval_id"
PROPOSED, APPROVED, REVOKED = "pre_approval_proposed", "pre_approval_approved", "pre_approval_revoked"
ACTIVE, SUBMISSION = "active", "submission"


@dataclass
class KnownPreApproval:
    """`proposed` are the fields of the event that proposes the pre-approval."""

    proposed: Mapping[str, Any] | None = None
    resource: str | None = None
    approvers: set[str] = field(default_factory=set)
    revoked_at: str | None = None


@dataclass(frozen=True)
class PreApprovedWindow:
    """The opening move, the request's submission, and its resources as far as the file shows them."""

    fields: Mapping[str, Any]
    asked: Mapping[str, Any]
    resources: list[str] | None
    where: Mapping[str, Any]


@dataclass
class PreApprovalChecker:
    findings: Findings
    _known: dict[str, KnownPreApproval] = field(default_factory=dict)
    _windows: list[PreApprovedWindow] = field(default_factory=list)

    def take(self, fields: Mapping[str, Any], shown: Mapping[str, str], where: Mapping[str, Any]) -> None:
        which, action = fields.get(PRE_APPROVAL), fields["action"]
        if not isinstance(which, str):
            return
        if fields["seq"] is not None:
            if fields["to_state"] == ACTIVE:
                self._windows.append(_window(fields, shown, where))
            return
        known = self._known.setdefault(which, KnownPreApproval())
        if action == PROPOSED:
            known.proposed, known.resource = fields, shown.get("resource")
        elif action == APPROVED:
            known.approvers.add(str(fields.get("actor_id")))
        elif action == REVOKED:
            known.revoked_at = str(fields["at"])

    def finish(self, *, is_all_there: bool) -> None:
        used = Counter[str]()
        for window in sorted(self._windows, key=lambda one: str(one.fields["at"])):
            which = str(window.fields[PRE_APPROVAL])
            used[which] += 1
            for problem in self._problems(window, self._known.get(which), used[which], is_all_there=is_all_there):
                message = f"a pre-approval opened this window, {problem}"
                self.findings.add(FindingKind.APPROVAL, message, **window.where)

    def _problems(
        self, window: PreApprovedWindow, known: KnownPreApproval | None, number: int, *, is_all_there: bool
    ) -> Iterator[str]:
        if known is None or known.proposed is None:
            if is_all_there:
                yield "and the log has no such pre-approval"
            return
        proposed, opened = known.proposed, window.fields
        people = opened.get("approved_by")
        missing = set(map(str, people if isinstance(people, list) else ())) - known.approvers
        if is_all_there and (missing or not people or str(proposed.get("actor_id")) in map(str, people)):
            yield "and the log lacks the approval of somebody else than its proposer"
        if known.revoked_at is not None and known.revoked_at < str(opened["at"]):
            yield "which was revoked by then"
        if type(limit := proposed.get("max_uses")) is not int or number > limit:
            yield "which was used as often as it may be"
        yield from _beyond(window, proposed, known.resource)


def _beyond(window: PreApprovedWindow, proposed: Mapping[str, Any], pattern: str | None) -> Iterator[str]:
    asked, opened = window.asked, window.fields
    if any(asked.get(name) != proposed.get(name) for name in ("service", "reason_code")):
        yield "which is for another service or reason"
    allowed = proposed.get("actions")
    if not (_texts(allowed) and _texts(asked.get("actions")) and set(asked["actions"]) <= set(allowed or ())):
        yield "which is for other actions"
    if window.resources is not None and pattern is not None and not all(_fits(pattern, r) for r in window.resources):
        yield "which is for other resources"
    try:
        begins, ends = (datetime.fromisoformat(str(opened[name])) for name in ("at", "deadline_at"))
        is_longer = (ends - begins).total_seconds() > proposed["access_window"]
        is_later = ends > datetime.fromisoformat(str(proposed["ends_at"]))
    except (KeyError, TypeError, ValueError):
        is_longer = is_later = True
    if is_longer or is_later:
        yield "which is for a shorter time" if is_longer else "which ends earlier"


def _window(fields: Mapping[str, Any], shown: Mapping[str, str], where: Mapping[str, Any]) -> PreApprovedWindow:
    submitted = fields.get(SUBMISSION)
    asked = submitted if isinstance(submitted, Mapping) else fields
    try:
        resources = json.loads(shown["resources"]) if "resources" in shown else None
    except (ValueError, RecursionError):
        resources = []
    return PreApprovedWindow(fields, asked, resources if _texts(resources) else None, where)


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(type(one) is str for one in value)


def _fits(pattern: str, resource: str) -> bool:
    """`*` stands for any text, even none."""
    first, *rest = pattern.split("*")
    if not rest:
        return resource == first
    *between, last = rest
    at, end = len(first), len(resource) - len(last)
    if at > end or not (resource.startswith(first) and resource.endswith(last)):
        return False
    for part in between:
        found = resource.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True
